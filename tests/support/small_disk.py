"""A file system so small that a test can fill it."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BALLAST = "ballast"
STEP = 64 * 1024


class NoDisk(Exception):
    """This machine lets nobody mount a file system; the sentence says why."""


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A mounted file system in memory (tmpfs)."""

    folder: Path

    def fill(self) -> None:
        """Leave no room for anything more, on and on: what others give back is taken too."""
        with (self.folder / BALLAST).open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(bytes(STEP))

    def make_room(self) -> None:
        (self.folder / BALLAST).unlink(missing_ok=True)

    @property
    def free_bytes(self) -> int:
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize


@contextmanager
def small_disk(megabytes: int) -> Iterator[SmallDisk]:
    """A file system of this size, gone after the block.

    Raises:
        NoDisk: mounting is not allowed here.
    """
    with tempfile.TemporaryDirectory(prefix="mandate-disk-") as name:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "none", name]
        ran = subprocess.run(mount, capture_output=True, text=True, check=False)
        if ran.returncode != 0:
            raise NoDisk(f"a small file system cannot be mounted here: {ran.stderr.strip() or 'mount says nothing'}")
        try:
            yield SmallDisk(Path(name))
        finally:
            subprocess.run(["umount", "--lazy", name], check=False)
