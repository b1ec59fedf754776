"""Streamed answers of the Responses protocol: the last event has the whole response."""

from collections.abc import AsyncIterator

from mandate.activities.providers import response_limits
from mandate.activities.providers.rawjson import Object, Raw, write_object
from mandate.activities.providers.response_limits import Room
from mandate.activities.providers.server_events import DONE, Event
from mandate.activities.providers.streams import StreamEnded, StreamFailed, Tell

TEXT, ITEM, FAILED = "response.output_text.delta", "response.output_item.done", "response.failed"
ENDS = ("response.completed", "response.incomplete", FAILED)
BEFORE_OUTPUT = ("response.created", "response.queued", "response.in_progress")
"""Events that come before the model has said anything."""


async def fold_responses(events: AsyncIterator[Event], tell: Tell, room: Room) -> Raw:
    """Return the response of the last event; most of the others are skipped by their names."""
    items: list[bytes] = []
    # They say again what was told.
    items_room = Room()
    is_begun = False
    async for event in events:
        if event.data == DONE:
            continue
        # Some servers give the type only in the data.
        name = event.name.decode(errors="replace")
        value: Object = {}
        if not name.startswith("response."):
            value = event.read()
            name = str(value.get("type") or name)
        if name == "error" or value.get("error"):
            raise StreamFailed(event.parse(), is_begun=is_begun)
        if name in ENDS:
            return await _end(event, name, items, is_begun=is_begun)
        is_begun = is_begun or (name.startswith("response.") and name not in BEFORE_OUTPUT)
        if name == TEXT:
            delta = (value or event.read()).get("delta")
            if isinstance(delta, str):
                room.fill(len(delta))
                tell(delta)
        elif name == ITEM:
            items_room.fill(len(event.data))
            items.append(event.data)
    raise StreamEnded


async def _end(event: Event, name: str, items: list[bytes], *, is_begun: bool) -> Raw:
    response = (await response_limits.parse(event.data)).get("response")
    if not isinstance(response.value, dict):
        raise ValueError("its last event has no response")
    if name == FAILED or response.get("status").value == "failed":
        is_billed = is_begun or isinstance(response.get("usage").value, dict)
        raise StreamFailed(response.get("error"), is_begun=is_billed)
    is_withheld = response.get("incomplete_details").get("reason").value == "content_filter"
    if items and not is_withheld and not response.get("output").value:
        # Of servers that give each item only once.
        output = ",".join(Event(b"", item).parse().get("item").text for item in items)
        members = {name: value.text for name, value in response.members.items()}
        return Raw.read(write_object(members | {"output": f"[{output}]"}))
    return response
