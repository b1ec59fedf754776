"""Files that people write and that count at once when they are changed: a YAML file as a spec, read for each use."""

import asyncio
import shlex
from pathlib import Path
from typing import Generic

import structlog

from mandate.activities.documents import parse_document
from mandate.activities.files import FileError, S, parse_spec
from mandate.activities.text_files import UnreadableText, decode_text

log = structlog.stdlib.get_logger(__name__)


class FileUnavailable(Exception):
    """A file that cannot be used now; the sentence says what it is of and what to do, and nothing of its content."""


class LiveFile(Generic[S]):
    """A file that is read anew for each use, so that a change counts at once."""

    def __init__(self, path: Path, model: type[S], *, subject: str, is_needed: bool = False) -> None:
        """Take the path and what the file is of, for example `people`.

        `is_needed` tells that there is such a file; else one that is not there says nothing. A file that was read once
        is needed from then on.
        """
        self._path = path
        self._model = model
        self._subject = subject
        self._is_needed = is_needed
        self._content: bytes | None = None
        self._spec: S | None = None
        self._lock = asyncio.Lock()

    async def read(self) -> S | None:
        """Return what the file says at this moment, the same object as before where nothing was changed.

        Raises:
            FileUnavailable: the file cannot be read, has faults, or is gone.
        """
        async with self._lock:
            try:
                content = await asyncio.to_thread(self._path.read_bytes)
            except FileNotFoundError:
                if self._is_needed:
                    raise self._unavailable("is gone", f"put {self._path} back") from None
                return None
            except OSError as error:
                raise self._unavailable(f"cannot be read: {error.strerror}") from None
            # Its bytes and not its times are compared: two changes may come within the resolution of a clock.
            if self._spec is None or content != self._content:
                self._spec = None
                self._spec = await asyncio.to_thread(self._parse, content)
                self._content = content
            self._is_needed = True
            return self._spec

    def _parse(self, content: bytes) -> S:
        try:
            document = parse_document(str(self._path), decode_text(content))
        except UnreadableText as error:
            problem = f"cannot be read: line {error.line}, column {error.column}: {error.problem}"
            raise self._unavailable(problem) from None
        try:
            return parse_spec(document, self._model)
        except FileError as error:
            fault = error.faults[0]
        log.error("file_broken", subject=self._subject, fault=str(fault))
        line = f" in line {fault.line}" if fault.line else ""
        raise FileUnavailable(f"the file of {self._subject} has a fault{line}; {self._remedy}")

    def _unavailable(self, problem: str, remedy: str | None = None) -> FileUnavailable:
        log.error("file_unavailable", subject=self._subject, path=str(self._path), problem=problem)
        return FileUnavailable(f"the file of {self._subject} {problem}; {remedy or self._remedy}")

    @property
    def _remedy(self) -> str:
        return f"`mandate validate {shlex.quote(str(self._path))}` tells more"
