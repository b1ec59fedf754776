"""Differences between what a script expects and what came in, in words."""

import json
from collections.abc import Iterator

from pydantic import JsonValue

from mandate.activities.providers.scripted.script import Expectation
from mandate.activities.providers.scripted.values import Incoming, parse_json
from mandate.workflows.contracts.transcript import ResultPart
from mandate.workflows.rules.plain_text import shorten

_SHOWN_CHARACTERS = 60


def fits_text(pattern: str, text: str) -> bool:
    """Return whether `text` is `pattern`, in which `*` stands for any text."""
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    *middle, last = rest
    position, end = len(first), len(text) - len(last)
    if position > end or not text.startswith(first) or not text.endswith(last):
        return False
    for piece in middle:
        start = text.find(piece, position, end)
        if start < 0:
            return False
        position = start + len(piece)
    return True


def find_differences(expected: Expectation, got: Incoming, *, strict: bool) -> list[str]:
    """Return all that does not fit, each with what was expected and what came in; empty when all fits.

    `strict` adds what goes without saying: every call has its answer, and none is an error that nobody expects.
    """
    found: list[str] = []
    if expected.user is not None and not fits_text(expected.user, got.text):
        found.append(f"user: expected {expected.user!r}, got {_show(got.text)}")
    pairs = list(_pair_answers(expected, got, found))
    for label, pattern, result in pairs:
        found.extend(_compare_text(label, pattern, result))
    if strict:
        answered = {result.call_id for result in got.results}
        found.extend(f"{call.tool}: no answer came in" for call in got.calls if call.call_id not in answered)
        named = {result.call_id for _, _, result in pairs}
        found.extend(
            f"{result.tool}: expected no error, got {_show(result.text)}"
            for result in got.results
            if result.error and result.call_id not in named
        )
    return found


def _pair_answers(
    expected: Expectation, got: Incoming, found: list[str]
) -> Iterator[tuple[str, JsonValue, ResultPart]]:
    """Yield each expected answer with each answer that it is about; add those that there are not to `found`."""
    if isinstance(expected.results, dict):
        for label, pattern in expected.results.items():
            tool, _, which = label.partition("#")
            of_tool = [result for result in got.results if result.tool == tool]
            about = of_tool[int(which) - 1 : int(which)] if which.isdecimal() and int(which) else of_tool
            if not about:
                found.append(f"{label}: expected {_show(pattern)}, got no answer of it")
            yield from ((label, pattern, result) for result in about)
    elif expected.results is not None:
        wanted = [(tool, pattern) for item in expected.results for tool, pattern in item.items()]
        tools = [result.tool for result in got.results]
        if [tool for tool, _ in wanted] != tools:
            found.append(
                f"results: expected of {', '.join(t for t, _ in wanted) or 'none'}, got of {_enumerate(tools)}"
            )
            return
        yield from ((tool, pattern, result) for (tool, pattern), result in zip(wanted, got.results, strict=True))


def _enumerate(tools: list[str]) -> str:
    return ", ".join(tools) or "none"


def _compare_text(label: str, pattern: JsonValue, result: ResultPart) -> Iterator[str]:
    if isinstance(pattern, dict) and pattern.get("error") is True:
        text = pattern.get("text", "*")
        if not result.error:
            yield f"{label}: expected an error, got {_show(result.text)}"
        elif not (isinstance(text, str) and fits_text(text, result.text)):
            yield f"{label}: expected the error {text!r}, got {_show(result.text)}"
    elif result.error:
        yield f"{label}: expected no error, got {_show(result.text)}"
    elif isinstance(pattern, str):
        if not fits_text(pattern, result.text):
            yield f"{label}: expected {pattern!r}, got {_show(result.text)}"
    else:
        try:
            value = parse_json(result.text)
        except ValueError:
            yield f"{label}: expected {_show(pattern)}, got {_show(result.text)}"
        else:
            yield from _compare_json(label, pattern, value)


def _compare_json(place: str, pattern: JsonValue, value: JsonValue) -> Iterator[str]:
    """Compare two values: objects may have more keys than expected, lists no more items; 1 is 1.0 but not true."""
    if isinstance(pattern, dict) and isinstance(value, dict):
        for key, inner in pattern.items():
            if key in value:
                yield from _compare_json(f"{place}.{key}", inner, value[key])
            else:
                yield f"{place}.{key}: expected {_show(inner)}, got nothing"
    elif isinstance(pattern, list) and isinstance(value, list) and len(pattern) == len(value):
        for index, (wanted, item) in enumerate(zip(pattern, value, strict=True)):
            yield from _compare_json(f"{place}.{index}", wanted, item)
    elif isinstance(pattern, str) and isinstance(value, str):
        if not fits_text(pattern, value):
            yield f"{place}: expected {pattern!r}, got {_show(value)}"
    elif pattern != value or isinstance(pattern, bool) is not isinstance(value, bool):
        yield f"{place}: expected {_show(pattern)}, got {_show(value)}"


def _show(value: JsonValue) -> str:
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shorten(text, _SHOWN_CHARACTERS)
