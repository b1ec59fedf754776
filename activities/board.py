"""The built-in tools `read_board` and `write_board`: values that the runs of one tree share, in the store."""

import asyncio
import random
from collections import OrderedDict

import structlog
from pydantic import JsonValue
from temporalio import activity
from temporalio.service import RPCError

from mandate.activities.stores.base import name_run
from mandate.activities.tool_error import ToolError
from mandate.activities.toolbox.base import ToolText
from mandate.activities.transcript.blobs import Blobs
from mandate.workflows.contracts.base import Digest, JsonObject, canonical_json
from mandate.workflows.contracts.board import Board, BoardEntry, BoardPlace
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.tool import READ_BOARD
from mandate.workflows.rules import board as rules
from mandate.workflows.rules.board import Conflict

ATTEMPTS, PAUSE_SECONDS = 20, 0.05
"""Looks at the board for one write, and the longest pause between them at first: others write too."""

ROOTS_KEPT = 1024

log = structlog.stdlib.get_logger(__name__)


class Boards:
    """Boards by the runs at the roots of their trees."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._roots: OrderedDict[str, str] = OrderedDict()
        """First run ids of chains, by those of their runs."""

    async def call(self, tool: str, arguments: JsonObject, place: BoardPlace, key: str, *, tainted: bool) -> ToolText:
        """Answer a call of one of the tools; `key` is the call's, `tainted` the run that makes it.

        Raises:
            ToolError: the value does not fit; Temporal cannot say now which tree it is.
            BlobCorrupted, StoreUnavailable: see there.
        """
        name = await self._find_name(place)
        if tool == READ_BOARD:
            return _tell_all(await self._read(name), arguments)
        version = int(float(str(arguments["expected_version"]))) + 1
        by = activity.info().workflow_id or ""
        entry = BoardEntry(value=arguments["value"], version=version, by=by, tainted=tainted)
        return await self._write(name, str(arguments["key"]), entry, key)

    async def read(self, workflow_id: str, run_id: str, namespace: str) -> Board:
        """Return the board of a tree by the first run id of the chain at its root; raise as `call` but `ToolError`."""
        return await self._read(_name(namespace, workflow_id, run_id))

    async def _find_name(self, place: BoardPlace) -> str:
        first = self._roots.get(place.run_id)
        if first is None:
            try:
                described = await (
                    activity.client().get_workflow_handle(place.workflow_id, run_id=place.run_id).describe()
                )
            except RPCError as error:
                raise ToolError(Outcome.NOT_SENT, f"Temporal does not tell of {place.workflow_id}: {error}") from None
            first = described.raw_description.workflow_execution_info.first_run_id or place.run_id
            self._roots[place.run_id] = first
            if len(self._roots) > ROOTS_KEPT:
                self._roots.popitem(last=False)
        return _name(activity.info().namespace, place.workflow_id, first)

    async def _read(self, name: str) -> Board:
        content = await self._blobs.find_session(name)
        return Board.model_validate_json(content) if content is not None else Board()

    async def _write(self, name: str, value: str, entry: BoardEntry, key: Digest) -> ToolText:
        for attempt in range(ATTEMPTS):
            board = await self._read(name)
            try:
                written = rules.write(board, value, entry, key)
            except ValueError as error:
                raise ToolError(Outcome.NOT_DONE, str(error), lasting=True) from None
            if isinstance(written, Conflict):
                return _tell({"written": False, **_describe(written.entry)}, tainted=_is_tainted(written.entry))
            if written is board or await self._blobs.swap_session(name, written.number, _to_json(written)):
                log.info("board_written", version=written.written[key])
                return _tell({"written": True, "version": written.written[key]})
            await asyncio.sleep(random.uniform(0, PAUSE_SECONDS * (attempt + 1)))  # noqa: S311 - no secret
        raise ToolError(Outcome.NOT_DONE, "other runs wrote to the board all the time; try again")


def _name(namespace: str, workflow_id: str, run_id: str) -> str:
    return f"board {run_id} {name_run(namespace, workflow_id)}"


def _to_json(board: Board) -> bytes:
    return board.model_dump_json().encode()


def _describe(entry: BoardEntry | None) -> JsonObject:
    """Return a value as the model is told it: version 0 where there is none."""
    if entry is None:
        return {"version": 0, "value": None}
    return {"version": entry.version, "value": entry.value, "by": entry.by}


def _is_tainted(entry: BoardEntry | None) -> bool:
    return entry is not None and entry.tainted


def _tell_all(board: Board, arguments: JsonObject) -> ToolText:
    wanted = arguments.get("key")
    if isinstance(wanted, str):
        entry = board.entries.get(wanted)
        return _tell(_describe(entry), tainted=_is_tainted(entry))
    told: JsonObject = {key: _describe(entry) for key, entry in board.entries.items()}
    return _tell(told, tainted=any(map(_is_tainted, board.entries.values())))


def _tell(value: JsonValue, *, tainted: bool = False) -> ToolText:
    return ToolText(canonical_json(value).decode(), tainted=tainted)
