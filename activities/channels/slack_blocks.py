"""Slack messages: blocks within Slack's limits, in which nothing that an agent says is read as markup."""

import json
from datetime import UTC, datetime

from pydantic import JsonValue

from mandate.activities.channels.base import Parcel
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.request import Notice, Request
from mandate.workflows.rules import commands as rules_commands
from mandate.workflows.rules import quantities
from mandate.workflows.rules.plain_text import cut, make_plain_lines

HEADER_CHARACTERS = 150
TEXT_CHARACTERS = 3000
"""Slack's limits of a header and of a text; the escapes count."""

LONG_CHARACTERS = 2800
"""Of arguments and questions, so that a message stays under the 13,000 characters that Slack takes in all."""

COMMAND_CHARACTERS = 1500
"""Longest command that is shown."""

LISTED = 20
"""Requests that a message for many lists."""

_KINDS = {"approval": "Approval wanted", "question": "An agent asks", "budget": "About a budget"}
_OCCASIONS = {"asked": "", "reminder": "Reminder: ", "escalated": "Escalated: "}
_CUT = "…"
_FENCE = "```"
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def build_message(parcel: Parcel) -> JsonObject:
    """Return the body of one POST: blocks, and a text for notifications."""
    if len(parcel.notices) > 1:
        return _build_list(parcel)
    (notice,) = parcel.notices
    request, run = notice.request, parcel.run
    blocks = [_header(_heading(notice)), _fields(parcel, request)]
    if request.question is not None:
        blocks.append(_quote(request.question))
    if request.kind == "budget":
        blocks.append(_quote("\n".join(request.evidence)))
    elif request.options:
        blocks.append(_quote(f"Answers to choose from: {', '.join(request.options)}"))
    ways = rules_commands.list_ways(run.workflow_id, request, namespace=parcel.namespace)
    if request.arguments:
        blocks.append(_section(_arguments(request)))
    blocks.append(_section("*To answer*"))
    blocks += _commands([*(way.mandate for way in ways), ways[0].temporal])
    text = escape(f"{_heading(notice)} ({run.agent}, {request.id})", TEXT_CHARACTERS)
    return {"text": text, "blocks": [*blocks]}


def escape(text: str, limit: int) -> str:
    """Return `text` for Slack, at most `limit` characters with its escapes; what is cut off leaves `…`."""
    parts = [_ESCAPES.get(character, character) for character in make_plain_lines(text)]
    if sum(map(len, parts)) <= limit:
        return "".join(parts)
    kept, size = [], len(_CUT)
    for part in parts:
        size += len(part)
        if size > limit:
            break
        kept.append(part)
    return "".join(kept) + _CUT


def format_date(at: datetime) -> str:
    """Return a date that Slack shows in the reader's own time zone."""
    return f"<!date^{int(at.timestamp())}^{{date_short_pretty}} {{time}}|{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC>"


def _build_list(parcel: Parcel) -> JsonObject:
    """Return one message that lists the requests of one run."""
    run, count = parcel.run, len(parcel.notices)
    heading = f"{_OCCASIONS[parcel.notices[0].occasion]}{quantities.count_noun(count, 'request')} of {run.agent}"
    lines = [
        f"• {escape(_line(notice.request.id), 20)} {escape(_line(notice.request.title), 200)}"
        for notice in parcel.notices[:LISTED]
    ]
    if count > LISTED:
        lines.append(f"and {count - LISTED} more")
    first = min(notice.request.expires_at for notice in parcel.notices)
    waits = tuple(dict.fromkeys(name for notice in parcel.notices for name in notice.request.waits_for))
    fields = [("Agent", run.agent), ("Requester", run.requester or "none"), ("Waits for", ", ".join(waits))]
    blocks: list[JsonValue] = [
        _header(heading),
        {"type": "section", "fields": [*(_field(name, value) for name, value in fields), _expiry(first)]},
        *(_section("\n".join(lines[start : start + 7])) for start in range(0, len(lines), 7)),
        _section("*To answer*"),
        _code("mandate inbox"),
    ]
    return {"text": escape(heading, TEXT_CHARACTERS), "blocks": blocks}


def _heading(notice: Notice) -> str:
    kind = _KINDS.get(notice.request.kind, notice.request.kind.capitalize())
    return _line(f"{_OCCASIONS[notice.occasion]}{kind}: {notice.request.title}")


def _fields(parcel: Parcel, request: Request) -> JsonObject:
    run = parcel.run
    rules = ", ".join(
        dict.fromkeys(need.rule for need in request.needs if need.rule and need.rule not in request.reason)
    )
    shown = [
        ("Agent", run.agent),
        ("Requester", run.requester or "none"),
        ("Waits for", _name_waiting(request)),
        ("Why", f"{request.reason} (rule {rules})" if rules else request.reason),
        ("Risk", _risk(request)),
        ("Request", f"{request.id} of {run.workflow_id}"),
    ]
    return {"type": "section", "fields": [*(_field(name, value) for name, value in shown), _expiry(request.expires_at)]}


def _name_waiting(request: Request) -> str:
    most = max((need.quorum - len(need.approved_by) for need in request.needs), default=1)
    return ", ".join(request.waits_for) + (f" ({most} people)" if most > 1 else "")


def _risk(request: Request) -> str:
    words = [f"{request.risk:g}"]
    if request.effect is not None:
        words.append(f"effect {request.effect}")
    if request.tainted:
        words.append("the agent has read untrusted content")
    return ", ".join(words)


def _arguments(request: Request) -> str:
    shown = json.dumps(request.arguments, indent=2, ensure_ascii=False)
    # In JSON a backtick can stand in a text only, where this is the same text.
    shown = shown.replace(_FENCE, "\\u0060" * 3)
    return f"*{escape(_line(request.tool or 'Arguments'), 100)}*\n```{escape(shown, LONG_CHARACTERS)}```"


def _commands(commands: list[str]) -> list[JsonObject]:
    """Return each command whole; where one is too long for that, the one that finds them all."""
    shown = [escape(command, TEXT_CHARACTERS) for command in commands]
    return [_code(command) for command in (["mandate inbox"] if max(map(len, shown)) > COMMAND_CHARACTERS else shown)]


def _code(escaped: str) -> JsonObject:
    return _section(f"```{escaped}```")


def _header(text: str) -> JsonObject:
    return {
        "type": "header",
        "text": {"type": "plain_text", "text": cut(_line(text), HEADER_CHARACTERS), "emoji": False},
    }


def _section(text: str) -> JsonObject:
    return {"type": "section", "text": _markup(text)}


def _quote(text: str) -> JsonObject:
    """Return an agent's own words, in which nothing is markup."""
    return {
        "type": "section",
        "text": {"type": "plain_text", "text": cut(make_plain_lines(text), LONG_CHARACTERS), "emoji": False},
    }


def _field(name: str, value: str) -> JsonObject:
    shown = _line(value).replace(_FENCE, "'" * 3)
    return _markup(f"*{name}*\n{escape(shown, 500)}")


def _expiry(at: datetime) -> JsonObject:
    return _markup(f"*Expires*\n{format_date(at)}")


def _markup(text: str) -> JsonObject:
    """Return `text` verbatim: addresses, channels and names in it do not become links."""
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _line(text: str) -> str:
    return " ".join(make_plain_lines(text).split())
