"""Calls, results and progress in words for people: summaries, details, logs."""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal

from pydantic import JsonValue

from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.tool import CacheHit, LeafReference, ToolResult
from mandate.workflows.rules import plain_text, quantities, redaction

SUPPLIED = "its answer is a person's"
"""Beginning of the reason of a run whose final answer a person supplied."""

GO_ON = "it is told nothing more; go on with its conversation in another run: `continues`, or `mandate run --continues`"
"""Advice to whoever would have an ended run go on."""

ALL_REFUSED = (
    "people refused all calls of this turn; the same calls are refused again without asking them. "
    "Find another way, or give your answer with what you have."
)
"""Note for the model after a turn in which nothing was done because people refused it."""

LAST_ANSWER = (
    "{}. This is your last answer: no tool can be called any more. Answer with what you have, and say what is missing."
)
"""Note for the model as its budget is used up; in the place of the braces is the reason."""

SUMMARY_CHARACTERS = 100


def shorten(text: str, limit: int) -> str:
    """Return `text` on one line, at most `limit` characters, as people may see it."""
    return plain_text.shorten(text, limit)


def describe_call(tool: str, arguments: Mapping[str, JsonValue], sensitive: Sequence[str] = ()) -> str:
    """Describe a call as `lookup_order order=81`: at most 100 characters, no values of `sensitive` arguments."""
    words = [tool]
    for name, value in redaction.mask(arguments, sensitive).items():
        words.append(f"{name}={_describe_value(value)}")
        if sum(map(len, words)) > SUMMARY_CHARACTERS:
            break
    return shorten(" ".join(words), SUMMARY_CHARACTERS)


def _describe_value(value: JsonValue) -> str:
    if isinstance(value, str):
        return shorten(value, 40)
    if LeafReference.is_one(value):
        return f"{shorten(str(value['preview']), 30)} ({value['size']} bytes)"
    return shorten(json.dumps(value, ensure_ascii=False), 40)


def describe_arguments(values: Mapping[str, JsonValue], sensitive: Sequence[str] = ()) -> str:
    """Return all arguments as one line of JSON, without the values of `sensitive` ones."""
    return json.dumps(redaction.mask(values, sensitive), ensure_ascii=False)


def describe_result(answer: ToolResult) -> str:
    """Return the beginning of a result, or that it is an error; of a kept one its age too."""
    told = _describe_text(answer)
    return told if answer.cached is None else f"{told} (cached, {describe_age(answer.cached.seconds)} old)"


def describe_hit(hit: CacheHit) -> str:
    """Describe where a kept result is from, as `cached, 3 min old, of refunds-7f3a step 4`."""
    return f"cached, {describe_age(hit.seconds)} old, of {shorten(hit.run, SUMMARY_CHARACTERS)} step {hit.step}"


def describe_age(seconds: int) -> str:
    """Return an age in the largest unit of which there is a whole one."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _describe_text(answer: ToolResult) -> str:
    text = shorten(answer.text if answer.text is not None else answer.preview, 80)
    if not text and answer.size is not None:
        text = quantities.count_bytes(answer.size)
        return f"error: {text}" if answer.error else text
    if answer.error:
        return f"error: {text}"
    return text if answer.size is None else f"{text} ({quantities.count_bytes(answer.size)})"


def describe_error(answer: ToolResult) -> str:
    """Return why a call failed, whole where it is told at all."""
    if answer.text is None:
        return describe_result(answer)
    return f"error: {shorten(answer.text, plain_text.REASON_CHARACTERS)}"


def describe_usage(total: Usage) -> str:
    """Describe usage as `12 model calls, 3,400 tokens in (1,200 cached), 560 out, $0.0123`.

    Calls whose answers were lost are told at the end: they count as they were reserved.
    """
    cached = f" ({total.cached_input_tokens:,} cached)" if total.cached_input_tokens else ""
    calls = quantities.count_noun(total.model_calls, "model call")
    tokens = f"{total.input_tokens:,} tokens in{cached}, {total.output_tokens:,} out"
    kept = f", {quantities.count_noun(total.cached_results, 'result')} from the cache" if total.cached_results else ""
    return f"{calls}, {tokens}, {describe_cost(total)}{kept}{_describe_lost(total.assumed_calls)}"


def _describe_lost(calls: int) -> str:
    if not calls:
        return ""
    return f", {quantities.count_noun(calls, 'lost answer')} counted as reserved"


def describe_cost(total: Usage) -> str:
    """Describe the money spent, and say so when it is not known of some calls."""
    amount = f"${total.cost_usd.quantize(Decimal('0.0001'))}"
    if not total.unpriced_calls:
        return amount
    if total.unpriced_calls == total.model_calls:
        return "price unknown"
    return f"{amount} and {quantities.count_noun(total.unpriced_calls, 'call')} of unknown price"


def describe_failed_check(failed: str, *, changed_world: bool) -> str:
    """Tell the model of a call that was made and did not pass; an effect is never to be repeated for it."""
    if changed_world and "could not be made" in failed:
        return f"it was done, and {failed}; do not make this call again"
    if changed_world:
        return f"it was done, but {failed}; do not make this call again, put it right in another way"
    return f"{failed}; try another way"


def join_notes(*notes: str | None) -> str | None:
    return "; ".join(note for note in notes if note) or None


def describe_attempt(number: int, most: int, tool: str) -> str | None:
    """Tell the model of a failure that is not the first."""
    if number < 2:
        return None
    return f"attempt {number} of {most} of {tool!r} failed" + ("; a person is asked" if number >= most else "")
