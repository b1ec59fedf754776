"""The `scripted` provider: a YAML file plays the model; `script` says how the file is written.

It keeps nothing between calls: what it answers is a function of the script, the conversation and the attempt, so
that another process can go on at any time. A script that changes is read again at the next call.
"""

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from stat import S_ISREG

from mandate.activities.failures import ModelFault, make_model_failure
from mandate.activities.files import FileError
from mandate.activities.providers import prices
from mandate.activities.providers.base import Completion, Prompt
from mandate.activities.providers.scripted.differences import find_differences, fits_text
from mandate.activities.providers.scripted.script import (
    Cue,
    Expectation,
    Failure,
    LoadedScript,
    Plan,
    Turn,
    TurnUsage,
    load_script,
)
from mandate.activities.providers.scripted.values import (
    Incoming,
    ScriptFault,
    Values,
    find_next_number,
    make_call_id,
    read_incoming,
    read_input,
)
from mandate.workflows.contracts.model import Finish, Usage
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart, RefusalPart, TextPart
from mandate.workflows.rules import quantities
from mandate.workflows.rules.plain_text import shorten

_STATUS_FAULTS: dict[int, ModelFault] = {
    401: "configuration", 403: "configuration", 404: "configuration", 408: "timeout", 429: "rate_limit",
    529: "overloaded",
}  # fmt: skip

_PROBLEMS = {
    Finish.TRUNCATED: "the answer was cut at the output limit",
    Finish.REFUSED: "the model refused to answer",
    Finish.EMPTY: "the model answered with nothing",
}

_CHARACTERS_PER_TOKEN = 4

WORDS_AT_ONCE = 4
"""Words of an answer that come together, where somebody reads along."""

_WORD = re.compile(r"\S+\s*|\s+")


@dataclass(frozen=True, slots=True)
class _Found:
    path: Path
    stamp: tuple[int, int, int]


class ScriptedProvider:
    """Scripts by path, looked up in the working directory and then in `folders`.

    `pace` is how long an answer takes when neither its turn nor its script says; for people who watch.
    """

    def __init__(self, folders: Sequence[Path] = (), *, pace: timedelta = timedelta(0)) -> None:
        self._folders = (Path(), *(folder for folder in folders if folder.resolve() != Path.cwd()))
        self._pace = pace
        self._loaded: dict[_Found, LoadedScript] = {}

    async def complete(self, prompt: Prompt) -> Completion:
        """See `Provider`; a request that the script does not expect is a `script` fault that shows the difference."""
        try:
            async with asyncio.timeout(prompt.timeout.total_seconds()):
                return await self._answer(prompt)
        except TimeoutError:
            reason = f"{prompt.model}: no answer within {quantities.write_seconds(prompt.timeout)}"
            raise make_model_failure("timeout", reason, attempt=prompt.attempt) from None

    async def close(self) -> None:
        self._loaded.clear()

    async def _answer(self, prompt: Prompt) -> Completion:
        loaded = self._script(prompt.model)
        if prompt.is_last:
            text = _last(loaded, prompt)
            await asyncio.sleep((loaded.script.delay or self._pace).total_seconds())
            said = AssistantMessage(
                role="assistant",
                parts=(TextPart(kind="text", text=text),),
                protocol="scripted",
                model=prompt.model,
            )
            usage = _usage(loaded.script.usage, prompt, read_incoming(prompt.conversation), said)
            return Completion(said, Finish.COMPLETE, usage)
        number = find_next_number(prompt.conversation)
        plan = _plan(loaded, prompt)
        cue = _cue(plan, number, prompt)
        got = read_incoming(prompt.conversation)
        try:
            values = Values(prompt.conversation, plan, number, cue)
            _expect(cue.turn.expect, got, values, strict=loaded.script.strict and _is_whole(plan, number - 1))
            values.check_taken()
            message = _message(cue.turn, values, number, prompt.model)
        except ScriptFault as fault:
            raise make_model_failure("script", f"{prompt.model}:{loaded.line(cue)}, turn {number}: {fault}") from None
        if prompt.attempt <= len(cue.turn.fail):
            await _go_wrong(cue.turn.fail[prompt.attempt - 1], prompt)
        await _say(message.text, cue.turn.delay or loaded.script.delay or self._pace, prompt.on_text)
        usage = _usage(cue.turn.usage or loaded.script.usage, prompt, got, message)
        return Completion(message, cue.turn.finish, usage, _PROBLEMS.get(cue.turn.finish))

    def _script(self, name: str) -> LoadedScript:
        path = self._find(name)
        loaded = self._loaded.get(path)
        if loaded is None:
            try:
                loaded = load_script(path.path)
            except FileError as error:
                raise make_model_failure("configuration", f"the script cannot be used: {error}") from None
            for old in [other for other in self._loaded if other.path == path.path]:
                del self._loaded[old]
            self._loaded[path] = loaded
        return loaded

    def _find(self, name: str) -> _Found:
        for folder in self._folders:
            path = folder / name
            with suppress(OSError, ValueError):
                status = path.stat()
                if S_ISREG(status.st_mode):
                    return _Found(path, (status.st_mtime_ns, status.st_size, status.st_ino))
        folders = ", ".join(repr(str(folder)) for folder in self._folders)
        raise make_model_failure("configuration", f"there is no script {name!r} in {folders}")


async def _say(text: str, delay: timedelta, on_text: Callable[[str], None] | None) -> None:
    """Take as long as an answer takes, and tell its words meanwhile, as they would come from a model."""
    words = _WORD.findall(text) if on_text is not None else []
    for place, word in enumerate(words):
        assert on_text is not None
        on_text(word)
        # A short sleep each would take longer than all of them.
        if (place + 1) % WORDS_AT_ONCE == 0:
            await asyncio.sleep(delay.total_seconds() * WORDS_AT_ONCE / len(words))
    await asyncio.sleep(delay.total_seconds() * (1 if not words else (len(words) % WORDS_AT_ONCE) / len(words)))


def _plan(loaded: LoadedScript, prompt: Prompt) -> Plan:
    text = read_input(prompt.conversation)
    for plan in loaded.plans:
        if fits_text(plan.match, text):
            return plan
    patterns = " or ".join(repr(plan.match) for plan in loaded.plans)
    reason = f"no conversation of the script fits the input: expected {patterns}, got {shorten(text, 60)!r}"
    raise make_model_failure("script", f"{prompt.model}: {reason}")


def _cue(plan: Plan, number: int, prompt: Prompt) -> Cue:
    cue = plan.find_cue(number)
    if cue is not None:
        return cue
    got = read_incoming(prompt.conversation)
    came = ", ".join(f"{result.tool}: {shorten(result.text, 40)!r}" for result in got.results)
    came = ", ".join(filter(None, (came, got.text and repr(shorten(got.text, 100)))))
    turns = quantities.count_noun(plan.turns, "turn")
    reason = f"the script has {turns} and no 'otherwise', and answer {number} was asked for"
    raise make_model_failure("script", f"{prompt.model}: {reason}; came in: {came or 'nothing'}")


def _last(loaded: LoadedScript, prompt: Prompt) -> str:
    """Return the answer when a limit of the run leaves only one more, with its values."""
    written = loaded.script.last
    if "${" not in written:
        return written
    cue = Cue(Turn(say=written), ("last",), 1)
    try:
        return Values(prompt.conversation, _plan(loaded, prompt), find_next_number(prompt.conversation), cue).text(
            written
        )
    except ScriptFault as fault:
        raise make_model_failure("script", f"{prompt.model}:{loaded.line(cue)}, last: {fault}") from None


def _is_whole(plan: Plan, number: int) -> bool:
    """Return whether turn `number` gave an answer that the runtime could take: only then do its calls get results."""
    cue = plan.find_cue(number) if number else None
    return cue is None or cue.turn.finish is Finish.COMPLETE


def _expect(expected: Expectation, got: Incoming, values: Values, *, strict: bool) -> None:
    filled = expected
    if expected != Expectation():
        filled = Expectation.model_validate(values.fill(expected.model_dump(mode="json")))
    if found := find_differences(filled, got, strict=strict):
        raise ScriptFault("; ".join(found))


async def _go_wrong(failure: Failure, prompt: Prompt) -> None:
    """Fail as the script says, or come late."""
    if failure.slow is not None:
        await asyncio.sleep(failure.slow.total_seconds())
        return
    fault: ModelFault
    if failure.cut:
        fault, what = "connection", "the connection was cut"
    elif failure.fault is not None:
        fault, what = failure.fault, f"fault {failure.fault!r}"
    else:
        assert failure.status is not None
        fault = _STATUS_FAULTS.get(failure.status, "server" if failure.status >= 500 else "bad_request")
        what = f"HTTP {failure.status}"
    reason = f"{prompt.model}: {what}, as the script says for attempt {prompt.attempt}"
    raise make_model_failure(
        fault, reason, attempt=prompt.attempt, retry_after=failure.retry_after, status=failure.status
    )


def _message(turn: Turn, values: Values, number: int, model: str) -> AssistantMessage:
    parts: list[TextPart | CallPart | RefusalPart] = []
    if turn.say:
        text = values.text(turn.say)
        refused = turn.finish is Finish.REFUSED
        parts.append(RefusalPart(kind="refusal", text=text) if refused else TextPart(kind="text", text=text))
    requested = [request for call in turn.call for request in call.items()]
    for index, (tool, arguments) in enumerate(requested, start=1):
        if isinstance(arguments, str):
            spelled = values.text(arguments)
        else:
            spelled = json.dumps(values.fill(arguments or {}), ensure_ascii=False)
        parts.append(CallPart(kind="call", call_id=make_call_id(number, index), tool=tool, arguments=spelled))
    return AssistantMessage(role="assistant", parts=tuple(parts), protocol="scripted", model=model)


def _usage(given: TurnUsage, prompt: Prompt, got: Incoming, message: AssistantMessage) -> Usage:
    """Return the usage of the script, the rest estimated from the instructions and the newest messages, not all."""
    told_characters = len(prompt.instructions) + len(got.text) + sum(len(result.text) for result in got.results)
    answered = len(message.text) + sum(len(call.arguments) for call in message.calls)
    usage = Usage(
        model_calls=1,
        input_tokens=_tokens(told_characters) if given.input_tokens is None else given.input_tokens,
        cached_input_tokens=given.cached_input_tokens,
        output_tokens=_tokens(answered) if given.output_tokens is None else given.output_tokens,
        reasoning_tokens=given.reasoning_tokens,
    )
    cost = given.cost_usd if isinstance(given.cost_usd, Decimal) else None
    if prompt.price is not None and "cost_usd" not in given.model_fields_set:
        cost = prices.compute_price("scripted", prompt.model, usage, price=prompt.price)
    return usage.model_copy(update={"unpriced_calls": 1} if cost is None else {"cost_usd": cost})


def _tokens(characters: int) -> int:
    return 1 + characters // _CHARACTERS_PER_TOKEN
