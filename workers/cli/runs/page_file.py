"""The page of a run as a file: written whole or not at all."""

import os
import sys
import tempfile
from pathlib import Path

from mandate.activities import private_files
from mandate.workers.cli.errors import CliError
from mandate.workers.cli.options import Invocation
from mandate.workers.history.picture import Picture
from mandate.workflows.rules import quantities

STDOUT = "-"


def check_target(file: Path, *, overwrite: bool) -> None:
    """Refuse a file before anything is read for it: one that is there, or that cannot be made."""
    if str(file) == STDOUT:
        if overwrite:
            raise CliError("--overwrite goes with a file, and --html - writes to stdout")
        return
    if file.is_dir():
        raise CliError(f"--html {str(file)!r} is a folder; name a file in it")
    if file.exists() and not file.is_file():
        raise CliError(f"--html {str(file)!r} is no ordinary file; `-` writes to stdout")
    if (file.exists() or file.is_symlink()) and not overwrite:
        raise CliError(f"--html {str(file)!r} exists already; --overwrite replaces it")
    if not file.absolute().parent.is_dir():
        raise CliError(f"--html {str(file)!r}: there is no folder {str(file.absolute().parent)!r}")


def write_page(call: Invocation, picture: Picture, file: Path, *, overwrite: bool, full: bool) -> None:
    """Write the page of a run to `file`, or to stdout for `-`; a file that came meanwhile stays as it is."""
    # Here: templates are for pages only.
    from mandate.workers.pages.run_page import render_run  # noqa: PLC0415 - only with --html

    content = render_run(picture, program=call.program, full=full).encode()
    if str(file) == STDOUT:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return
    try:
        _write(file, content, overwrite=overwrite)
    except FileExistsError:
        raise CliError(f"--html {str(file)!r} exists already; --overwrite replaces it") from None
    except OSError as error:
        raise CliError(f"--html {str(file)!r} cannot be written: {error.strerror}") from None
    call.out.note(f"wrote {file}, {quantities.count_bytes(len(content))}")


def _write(file: Path, content: bytes, *, overwrite: bool) -> None:
    if overwrite:
        private_files.replace(file, content)
        return
    handle, name = tempfile.mkstemp(dir=file.absolute().parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as made:
            made.write(content)
        _give_name(Path(name), file)
    finally:
        Path(name).unlink(missing_ok=True)


def _give_name(made: Path, file: Path) -> None:
    """Give a file its name, unless something has that.

    Raises:
        FileExistsError: something has.
    """
    try:
        # A link is refused where something is; a rename would replace it.
        file.hardlink_to(made)
    except FileExistsError:
        raise
    except OSError:
        # Some file systems have no links.
        if file.exists():
            raise FileExistsError from None
        made.rename(file)
