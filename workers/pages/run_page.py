"""The page of one run: one file, without scripts, which asks no network for anything."""

import base64
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from pydantic import JsonValue

from mandate.workers.history.picture import Picture, shorten_message
from mandate.workers.history.record import Json, Said
from mandate.workers.history.time_axis import Axis, lay_out
from mandate.workers.history.timeline import OPEN, WAITS, Bar, format_moment, write_length
from mandate.workflows.contracts.request import Request
from mandate.workflows.rules import budget_use, plain_text, quantities, wording
from mandate.workflows.rules.period_budgets import format_usd

FIRST_ROWS = 100
ROWS = 500
"""Bars on the page unless all are wanted: the first `FIRST_ROWS` and the last ones."""

TEXT_CHARACTERS = 4_000
"""Of one text, unless whole texts are wanted."""

PAGE_CHARACTERS = 2_000_000
"""Of all messages, unless whole texts are wanted: after that each text has its beginning only."""

BEGINNING_CHARACTERS = 200

LINE_CHARACTERS = 100
"""Of a call or a result that is not opened."""

LISTED = 300
"""Requests, words and steps in each list unless all are wanted: the last ones."""

NARROWEST_BAR = 0.0025
"""Share of the axis that a bar has at least."""

NARROWEST_LABEL = 0.07
"""Share of the axis that a length needs to be written in it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One bar as it is drawn, its places in per cent."""

    bar: Bar
    title: str
    detail: str
    length: str
    waited: tuple[str, str] | None
    """Place and width of the time before a worker began it."""
    solid: tuple[str, str]
    classes: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to people, and what came of it."""

    request: Request
    arguments: str
    waits_for: str
    outcome: str
    waited: str


def render_run(picture: Picture, *, program: str, full: bool = False) -> str:
    """Return the page of a run as HTML; with `full` all bars, messages and texts."""
    environment = _environment()
    style = resources.files(__package__).joinpath("run.css").read_text(encoding="utf-8")
    template = environment.from_string(resources.files(__package__).joinpath("run.html").read_text(encoding="utf-8"))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return template.render(
        style=Markup(style),  # noqa: S704 - a file of ours
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        program=program,
        **_fill(picture, full=full),
    )


@functools.cache
def _environment() -> Environment:
    """Return an environment in which all that is printed is escaped, and steers, hides and reorders nothing."""
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.finalize = lambda value: plain_text.make_plain_lines(value) if type(value) is str else value
    made.filters.update(
        moment=format_moment, usd=format_usd, number=lambda value: f"{value:,}", count=quantities.count_noun
    )
    return made


def _fill(picture: Picture, *, full: bool) -> dict[str, Any]:
    record, line = picture.record, picture.timeline
    history = record.history
    rows, axis, hidden = _draw(picture, full=full)
    limit = None if full else TEXT_CHARACTERS
    steps = picture.list_step_usage()
    asked = list(_list_requests(picture, limit))
    listed = None if full else LISTED
    return {
        "picture": picture,
        "record": record,
        "line": line,
        "history": history,
        "title": f"{record.workflow_id}: {record.status}",
        "kind": "plan" if history.is_plan else "agent",
        "length": write_length((line.ended_at or picture.read_at) - line.begun_at) if line.begun_at else "",
        "rows": rows,
        "hidden_rows": hidden,
        "first_rows": FIRST_ROWS,
        "ticks": list(_list_ticks(axis)) if axis is not None else [],
        "breaks": [(_percent(one.start), _percent(one.end - one.start)) for one in axis.breaks] if axis else [],
        "compressed": [f"{write_length(one.length)} from {format_moment(one.begun_at)}" for one in _longest(axis)],
        "more_compressed": max(len(axis.breaks) - 5, 0) if axis is not None else 0,
        "kinds": list(dict.fromkeys(row.bar.kind for row in rows)),
        "messages": list(_describe_messages(picture.messages, limit)),
        "pending": [_describe_pending(call, limit) for call in picture.pending],
        "asked": asked[-listed:] if listed else asked,
        "asked_before": max(len(asked) - listed, 0) if listed else 0,
        "words": [
            (word.at, word.step, _cut(word.line, limit)) for word in (line.words[-listed:] if listed else line.words)
        ],
        "words_before": max(len(line.words) - listed, 0) if listed else 0,
        "plan_steps": picture.steps[:listed] if listed else picture.steps,
        "plan_steps_after": max(len(picture.steps) - listed, 0) if listed else 0,
        "steps": steps[-listed:] if listed else steps,
        "steps_before": max(len(steps) - listed, 0) if listed else 0,
        "models": list(picture.models) if picture.models is not None else [],
        "usage": wording.describe_usage(history.sum_usage()),
        "budget": budget_use.list_rows(record.budget) if record.budget is not None else [],
        "budget_head": budget_use.HEAD,
        "output": _cut(picture.answer, limit) if picture.answer is not None else None,
        "uncertain": history.list_uncertain(),
        "describe_cost": wording.describe_cost,
    }


def _draw(picture: Picture, *, full: bool) -> tuple[list[Row], Axis | None, int]:
    """Return the rows, their axis, and how many bars are left out after the first ones."""
    bars, begun_at = picture.timeline.drawn(), picture.timeline.begun_at
    if not bars or begun_at is None:
        return [], None, 0
    ends = [bar.ended_at for bar in bars if bar.ended_at is not None]
    last = max([picture.timeline.ended_at or picture.read_at, *ends])
    axis = lay_out(bars, min(begun_at, *(bar.begun_at for bar in bars)), last)
    hidden = 0 if full else max(len(bars) - ROWS, 0)
    shown = bars if not hidden else [*bars[:FIRST_ROWS], *bars[FIRST_ROWS + hidden :]]
    return [_place(bar, axis, last) for bar in shown], axis, hidden


def _place(bar: Bar, axis: Axis, last: datetime) -> Row:
    ended = bar.ended_at or last
    start, end = axis.place(bar.begun_at), axis.place(ended)
    taken = start
    if bar.taken_at is not None:
        taken = min(max(axis.place(bar.taken_at), start), end)
    elif bar.ended_at is None and bar.kind not in WAITS:
        taken = end
    # What took no time to speak of is seen all the same.
    width = max(end - taken, NARROWEST_BAR)
    attempts = f" ({quantities.count_noun(bar.attempts, 'attempt')})" if bar.attempts > 1 else ""
    title = f"{bar.name}: {bar.label}" if bar.kind == "person" else f"{bar.label}{attempts}"
    is_well = bar.state in {"done", OPEN, "closed", "repeated", "asked", "not started"}
    states = "" if is_well else " bad"
    detail = bar.reason if bar.kind == "person" or bar.state not in {"done", OPEN} or bar.attempts > 1 else ""
    if bar.waits_for:
        detail = "; ".join(filter(None, (f"asked of {', '.join(bar.waits_for)}", detail)))
    if not is_well or bar.state == "not started":
        detail = ": ".join(filter(None, (bar.state, detail)))
    return Row(
        bar,
        title,
        plain_text.shorten(detail),
        f"{write_length(ended - bar.begun_at)}{'' if bar.ended_at is not None else ' so far'}",
        (_percent(start), _percent(taken - start)) if taken > start else None,
        (_percent(min(taken, 1 - width)), _percent(width)),
        f"{bar.kind}{states}{' open' if bar.ended_at is None else ''}{' wait' if bar.kind in WAITS else ''}",
    )


def _percent(share: float) -> str:
    return f"{share * 100:.3f}%"


def _list_ticks(axis: Axis) -> Iterator[tuple[str, str]]:
    """Yield place and length of each compressed stretch that has room for it."""
    for stretch in axis.breaks:
        if stretch.end - stretch.start >= NARROWEST_LABEL:
            yield _percent((stretch.start + stretch.end) / 2), write_length(stretch.length)


def _longest(axis: Axis | None) -> Sequence[Any]:
    breaks = axis.breaks if axis is not None else ()
    return sorted(breaks, key=lambda stretch: stretch.length, reverse=True)[:5]


def _list_requests(picture: Picture, limit: int | None) -> Iterator[Asked]:
    bars = [bar for bar in picture.timeline.bars if bar.kind == "person"]
    # Both are made together, one for each request.
    for request, bar in zip(picture.timeline.requests, bars, strict=False):
        ended = bar.ended_at or picture.timeline.ended_at or picture.read_at
        outcome = bar.reason or ("it is open" if bar.ended_at is None else bar.state)
        waited = write_length(max(ended - request.requested_at, timedelta(0)))
        arguments = _write(request.arguments, limit) if request.arguments else ""
        yield Asked(request, arguments, ", ".join(bar.waits_for), outcome, waited)


def _describe_messages(messages: Iterable[Said], limit: int | None) -> Iterator[dict[str, Any]]:
    """Yield messages as the template takes them; together they stay within a page that can be used."""
    written = 0
    for message in messages:
        described = _describe_message(message, limit)
        if limit is not None and written + _measure(described) > PAGE_CHARACTERS:
            described = _describe_message(message, BEGINNING_CHARACTERS)
        written += _measure(described)
        yield described


def _measure(described: Mapping[str, Any]) -> int:
    return sum(len(part["text"]) for part in described["parts"])


def _describe_message(message: Said, limit: int | None) -> dict[str, Any]:
    """Return a message as the template takes it."""
    short = shorten_message(message, limit) if limit is not None else message
    is_result = any(part["kind"] == "result" for part in message.parts)
    title = f"step {message.step}" if message.role == "assistant" else ("results" if is_result else "asked")
    parts = [_describe_part(part, limit) for part in short.parts]
    return {"title": title, "role": message.role, "step": message.step, "model": message.model, "parts": parts}


def _describe_part(part: Json, limit: int | None) -> dict[str, Any]:
    text = str(part.get("text") or "")
    if part["kind"] == "call":
        text = _write(part["arguments"], limit)
    elif part["kind"] == "opaque":
        text = f"[{part.get('type', 'opaque')}]"
    return {
        "kind": part["kind"],
        "tool": part.get("tool"),
        "line": _write_line(part["arguments"]) if part["kind"] == "call" else plain_text.shorten(text, LINE_CHARACTERS),
        "text": text.rstrip(),
        "is_error": bool(part.get("error")),
        "left_out": part.get("left_out", 0),
    }


def _describe_pending(call: Json, limit: int | None) -> dict[str, Any]:
    result = call.get("result")
    text = _cut(str(result.get("text") or ""), limit) if isinstance(result, dict) else ""
    return {"line": call["line"], "state": call["state"], "text": text}


def _write(value: JsonValue, limit: int | None) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    return _cut(text, limit)


def _write_line(arguments: JsonValue) -> str:
    if isinstance(arguments, dict):
        return plain_text.shorten(wording.describe_call("", arguments).strip(), LINE_CHARACTERS)
    return plain_text.shorten(str(arguments), LINE_CHARACTERS)


def _cut(text: str, limit: int | None) -> str:
    if limit is None or len(text) <= limit:
        return text
    return f"{text[:limit]}\n[… {len(text) - limit:,} more characters, see --full]"
