"""Files and folders of ours: for their owner only, whatever the umask says and whoever made them first."""

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

FILE_MODE = 0o600
FOLDER_MODE = 0o700

_OTHERS = 0o077


def open_own(path: Path, mode: str = "a") -> IO[Any]:
    """Open `path` as `open` does; take a file that others may read or write away from them.

    Raises:
        OSError: as `open`.
    """
    encoding = None if "b" in mode else "utf-8"
    return open(path, mode, encoding=encoding, opener=_opener)


def write_own(path: Path, text: str) -> None:
    """Replace what is in `path`, in UTF-8."""
    with open_own(path, "w") as file:
        file.write(text)


def make_file(path: Path) -> None:
    """Make an empty file at `path`, unless something is there, which is not even opened.

    Raises:
        OSError: it cannot be made.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE))


def replace(path: Path, content: bytes) -> None:
    """Put a whole file in place of the old one, whose mode it keeps: nobody ever finds half of it.

    Raises:
        OSError: it cannot be written; the old one is as it was.
    """
    target = path.resolve()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        if target.exists():
            Path(name).chmod(stat.S_IMODE(target.stat().st_mode))
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def make_folder(folder: Path) -> None:
    """Make `folder`, and what is missing above it; those that are there stay as they are.

    Raises:
        OSError: one cannot be made, or is a file.
    """
    missing = [folder, *folder.parents][: _count_missing(folder)]
    for each in reversed(missing):
        each.mkdir(mode=FOLDER_MODE, exist_ok=True)
    if not missing and not folder.is_dir():
        folder.mkdir()


def claim_folder(folder: Path) -> None:
    """Make a folder that is ours alone, or take one away from others with the files in it, as older versions left it.

    A folder that holds more than ours (the home or the working folder, one above them, or one that is for all) is left
    as it is; our files in it are tightened by who opens them.
    """
    make_folder(folder)
    here = folder.resolve()
    shared = [place for place in (Path.cwd(), Path.home()) if place == here or here in place.parents]
    if not shared and not here.stat().st_mode & stat.S_ISVTX:
        tighten(here, *(path for path in here.iterdir() if path.is_file()))


def tighten(*paths: Path) -> None:
    """Take from others what they may do with files of this user; what is not there or somebody else's stays."""
    for path in paths:
        with suppress(OSError):
            status = path.lstat()
            if status.st_uid == os.geteuid() and status.st_mode & _OTHERS and not stat.S_ISLNK(status.st_mode):
                path.chmod(status.st_mode & 0o700)


def _opener(path: str, flags: int) -> int:
    descriptor = os.open(path, flags, FILE_MODE)
    try:
        status = os.fstat(descriptor)
        if status.st_uid == os.geteuid() and stat.S_ISREG(status.st_mode) and status.st_mode & _OTHERS:
            os.fchmod(descriptor, status.st_mode & 0o700)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _count_missing(folder: Path) -> int:
    """Count how many of `folder` and those above it are not there."""
    return next((number for number, each in enumerate([folder, *folder.parents]) if each.exists()), 0)
