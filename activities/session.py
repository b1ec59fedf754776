"""Sessions: what a run keeps after each answer, for the run that goes on with it."""

import structlog
from temporalio import activity

from mandate.activities import failures
from mandate.activities.stores.base import name_run
from mandate.activities.transcript.blobs import Blobs
from mandate.workflows.contracts.session import SessionKeep, SessionKept, SessionRecord

log = structlog.stdlib.get_logger(__name__)


class SessionActivities:
    """The store of sessions, by workflow id."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    @activity.defn
    async def keep_session(self, keep: SessionKeep) -> SessionKept:
        """Keep the state of a session, unless a newer one is kept.

        Raises:
            ApplicationError: a store failure, retried.
        """
        with failures.translate_store_errors():
            await keep_record(self._blobs, keep.workflow_id, keep.record)
        log.info("session_kept", number=keep.record.number)
        return SessionKept(number=keep.record.number)


async def keep_record(blobs: Blobs, workflow_id: str, record: SessionRecord) -> None:
    """Keep a session, unless a newer state of it is kept. Raise as `Blobs.keep_session`."""
    await blobs.keep_session(
        name_run(activity.info().namespace, workflow_id), record.number, record.model_dump_json().encode()
    )


async def find_session(blobs: Blobs, workflow_id: str) -> SessionRecord | None:
    """Return what the last run of a session has kept. Raise as `Blobs.find_session`."""
    content = await blobs.find_session(name_run(activity.info().namespace, workflow_id))
    return SessionRecord.model_validate_json(content) if content is not None else None
