"""Marks in workflow code: what leaves a run is marked, what comes back is checked against its mark.

The keys stay outside of the sandbox: a worker offers functions that use them. What was refused is in the history like
what was believed, so a replay asks again, with the time at which it came, and gets the same answer.
"""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypedDict, cast

from pydantic import BaseModel
from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue

from mandate.workflows.contracts.marks import METADATA_KEY, Marked, MarkKind
from mandate.workflows.rules import plain_text

Place = tuple[str, ...]


class MarkFunctions(TypedDict):
    """The functions that a worker offers to workflow code, by name."""

    mandate_store: Callable[[], str]
    mandate_sign: Callable[[MarkKind, Place, bytes], bytes]
    mandate_is_genuine: Callable[[MarkKind, Place, bytes, bytes | None, datetime], bool]


def activity_place(activity_type: str, activity_id: str) -> Place:
    """Return where an activity of this run stands; a reset keeps it."""
    info = workflow.info()
    return (info.namespace, info.workflow_id, info.original_execution_run_id, activity_type, activity_id)


def state_place() -> Place:
    """Return where the carried state of this run stands: its chain of runs."""
    info = workflow.info()
    return (info.namespace, info.workflow_id, info.first_execution_run_id, info.workflow_type)


def child_place(child: str) -> Place:
    """Return where the start of a child of this run stands: nobody else can be the parent with this run id."""
    info = workflow.info()
    return (info.namespace, child, info.workflow_id, info.run_id)


def own_place() -> Place | None:
    """Return the same in the child; `None` in a run that no workflow has started."""
    info = workflow.info()
    if info.parent is None:
        return None
    return (info.namespace, info.workflow_id, info.parent.workflow_id, info.parent.run_id)


def report_place(child: str, run_id: str) -> Place:
    """Return where reports of a child stand, and messages to it; `run_id` is the first of its chain."""
    return (workflow.info().namespace, child, run_id)


def mark(kind: MarkKind, place: Place, value: BaseModel) -> RawValue:
    """Return `value` as it travels, with its mark; without one where there are no keys, as in replays of histories."""
    payload = workflow.payload_converter().to_payload(value)
    if kind == "report":
        # A parent's history has it: nothing but what is not as usual.
        content = value.__pydantic_serializer__.to_json(value, exclude_defaults=True)
        payload.data = plain_text.escape_json(content.decode()).encode()
    functions = _functions()
    if functions is not None:
        payload.metadata[METADATA_KEY] = functions["mandate_sign"](kind, place, payload.data)
    return RawValue(payload)


def is_genuine(kind: MarkKind, place: Place, payload: Payload, at: datetime | None = None) -> bool:
    """Return whether a worker of this installation made `payload`, which came at `at` (now if left out)."""
    return _is_genuine(kind, place, payload.data, payload.metadata.get(METADATA_KEY), at)


def is_genuine_content(kind: MarkKind, place: Place, given: object, at: datetime | None = None) -> bool:
    """Check content without a type as `is_genuine` does; `given` without a mark is anything but `Marked`."""
    content, found = (given.content, given.mark) if isinstance(given, Marked) else (b"", None)
    return _is_genuine(kind, place, content, found, at)


def leave_to_others(store: str | None) -> None:
    """Raise unless this worker has the store, hence the keys, of the run.

    Raises:
        OtherStore: it has another one and cannot tell marks; the workflow task fails, and another worker tries it.
    """
    functions = _functions()
    if functions is not None and store is not None and functions["mandate_store"]() != store:
        raise OtherStore(f"this worker has store {functions['mandate_store']()}, and the run is of store {store}")


def claimed_store(given: object) -> str | None:
    """Return the store that a state or a pin of an agent names, which is not known to be genuine."""
    content = given.content if isinstance(given, Marked) else given
    try:
        claimed: Any = json.loads(content) if isinstance(content, bytes) else content
        store = claimed["agent"]["store"] if isinstance(claimed.get("agent"), dict) else claimed["store"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return store if isinstance(store, str) else None


class OtherStore(Exception):
    """A worker that cannot decide for a run; no failure of the run."""


def _is_genuine(kind: MarkKind, place: Place, content: bytes, found: bytes | None, at: datetime | None) -> bool:
    functions = _functions()
    if functions is None:
        # Replays of histories alone, outside of workers; where there are no keys, nothing live is believed.
        return workflow.unsafe.is_replaying()
    return functions["mandate_is_genuine"](kind, place, content, found, at if at is not None else workflow.now())


def _functions() -> MarkFunctions | None:
    offered: Any = workflow.extern_functions()
    return cast(MarkFunctions, offered) if "mandate_sign" in offered else None
