"""Rounds of one call whose server asks: answered from what people have said, else given back with the questions."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolResult
from pydantic import JsonValue

from mandate.activities.toolbox.base import AsksPeople
from mandate.activities.toolbox.mcp import elicitation
from mandate.activities.toolbox.mcp.elicitation import CannotAsk
from mandate.activities.toolbox.mcp.result import InputRequired
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.question import ROUNDS, Dialogue

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0
"""Before a server is asked again that wants nothing but to be asked again."""

Answered = tuple[CallToolResult, str | None]
Send = Callable[[Mapping[str, JsonObject], str | None], Awaitable[Answered]]


class Rounds:
    """The rounds of one attempt."""

    def __init__(self, server: str, sensitive: Sequence[str], *, asked: Outcome, strike: Callable[[str], str]) -> None:
        """Take the outcome of a call that waits for people, `asked`, and what takes secrets out of a text."""
        self._server = server
        self._strike = strike
        self._sensitive = sensitive
        self._asked = asked

    async def run(self, send: Send, dialogue: Dialogue | None) -> Answered:
        """Make the call, and go on with it for as long as nobody has to be asked.

        A server may have forgotten the call since people were asked; then it is begun anew, and its questions are
        answered with the same words.

        Raises:
            AsksPeople: people have to be asked.
            CannotAsk: the server wants something else, or asks without end.
        """
        before = dialogue or Dialogue()
        said = elicitation.remember(before)
        responses, state = dict(before.responses), before.state
        to_repeat, is_begun_anew, pause = list(said), False, _FIRST_PAUSE_SECONDS
        for _ in range(2 * ROUNDS):
            try:
                return await send(responses, state)
            except MCPError as error:
                if error.code != INVALID_PARAMS or is_begun_anew or dialogue is None:
                    raise
                responses, state, is_begun_anew = {}, None, True
                continue
            except InputRequired as required:
                state = _state(required.result)
                requests = {
                    key: _struck_object(request, self._strike)
                    for key, request in elicitation.read_requests(required.result).items()
                }
            if not requests:
                await asyncio.sleep(pause)
                responses, pause = {}, min(2 * pause, _LONGEST_PAUSE_SECONDS)
                continue
            responses = elicitation.repeat(requests, to_repeat) if is_begun_anew else {}
            if responses.keys() != requests.keys():
                raise self._ask(
                    Dialogue(
                        state=state,
                        requests=requests,
                        responses=responses,
                        remembered=said,
                        round=before.round + 1,
                    )
                )
        raise CannotAsk(f"asks again and again, more than {ROUNDS} times in one call")

    def _ask(self, dialogue: Dialogue) -> AsksPeople:
        if dialogue.round > ROUNDS:
            raise CannotAsk(f"asks again and again, more than {ROUNDS} times in one call")
        questions = tuple(
            elicitation.read_question(key, request, self._sensitive)
            for key, request in dialogue.requests.items()
            if key not in dialogue.responses
        )
        return AsksPeople(self._asked, self._server, questions, dialogue)


def _struck_object(value: JsonObject, strike: Callable[[str], str]) -> JsonObject:
    """Return what a server asks without the secrets that it was given: it is kept, and shown to people."""
    return {key: _struck(item, strike) for key, item in value.items()}


def _struck(value: JsonValue, strike: Callable[[str], str]) -> JsonValue:
    match value:
        case str():
            return strike(value)
        case list():
            return [_struck(item, strike) for item in value]
        case dict():
            return _struck_object(value, strike)
        case _:
            return value


def _state(result: JsonObject) -> str | None:
    state = result.get("requestState")
    return state if isinstance(state, str) else None
