"""Dead letters: events that nothing can be done with, a file each, for a person to look at and send again."""

import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from mandate.activities import private_files
from mandate.workers.events.cloud_event import CloudEvent
from mandate.workers.events.intake import Outcome

MOST_FILES = 10_000
"""Beyond which none is taken, so that a sender cannot fill a disk."""


class FolderFull(Exception):
    """A folder of dead letters that takes no more; the text is one sentence."""


class DeadLetterFolder:
    """A folder with one file for each event, which an event that comes again replaces."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        private_files.claim_folder(folder)

    def bury(self, event: CloudEvent, outcome: Outcome) -> Path:
        """Write an event with the reason, and return its file once it is on the disk.

        Raises:
            FolderFull: there are too many.
            OSError: it cannot be written.
        """
        path = self.folder / f"{event.workflow_id}.json"
        if not path.exists() and sum(1 for _ in self.folder.glob("*.json")) >= MOST_FILES:
            raise FolderFull(f"{self.folder} has {MOST_FILES:,} dead letters; look at them, and remove them")
        told = {
            "reason": outcome.reason,
            "trigger": outcome.trigger,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "event": event.to_json(),
        }
        _write(path, json.dumps(told, ensure_ascii=False, indent=2).encode())
        return path


def _write(path: Path, content: bytes) -> None:
    """Put a whole file there, on the disk: whatever ends this process or the machine, nobody finds half of it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:60]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
