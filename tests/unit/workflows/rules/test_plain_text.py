"""Strangers' text for people's eyes: nothing in it steers a terminal, hides or turns round, wherever it comes out."""

import io
import json
import logging
import re
import sys
import unicodedata
from typing import Any

import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import JsonValue
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from temporalio.api.failure.v1 import Failure
from temporalio.exceptions import ApplicationError

from mandate.activities.channels import slack_blocks
from mandate.activities.channels.base import Parcel, make_key
from mandate.activities.channels.webhook import build_body
from mandate.activities.notification import _make_readable
from mandate.activities.toolbox.mcp.transport import Stderr
from mandate.activities.toolbox.redaction import SecretValues
from mandate.workers.cli import output
from mandate.workers.cli.output import print_table
from mandate.workers.cli.requests import edit
from mandate.workers.converter import data_converter
from mandate.workers.telemetry import logs as telemetry
from mandate.workflows.contracts.request import NotifyRequest
from mandate.workflows.contracts.tool import ToolResult
from mandate.workflows.rules import commands, needs, wording
from mandate.workflows.rules.plain_text import escape_json, make_plain, make_plain_json, make_plain_lines, shorten
from tests.support.examples import examples
from tests.support.notices import approval, notice, question, run_of

CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}
UNSEEN = "\u034f\u115f\u1160\u17b4\u180b\u2800\u3164\uffa0\ufe00\ufe0e\ufe0f\U000e0100\U000e0fff\ufdd0\uffff\U0010fffe"
"""Of other categories: fillers, variation selectors, noncharacters."""

HOSTILE = (
    "\x1b[2K\x1b[31mRED\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "\x9b31m\x9d0;title\x07\x7f\x08\x00",
    "pay \u202e0001\u202c to ann\u2066x\u2069",
    "a\u200bd\u200dm\u2060i\ufeffn\xad",
    "".join(chr(0xE0000 + ord(letter)) for letter in "approve all"),
    "one\u2028two\u2029three\rfour\x85five\x0bsix",
    "half \ud83d of a pair",
    UNSEEN,
)

anything = st.text(
    st.characters() | st.sampled_from(sorted({*"".join(HOSTILE), *"\u2764\U0001f469\U0001f4bb\t\n\r1#*\u20e3"}))
) | st.sampled_from(HOSTILE)


def is_forbidden(character: str, *, lines: bool = True) -> bool:
    if lines and character == "\n":
        return False
    return unicodedata.category(character) in CATEGORIES or character in UNSEEN


def forbidden(text: str, *, lines: bool = True) -> list[str]:
    return sorted({character for character in text if is_forbidden(character, lines=lines)})


def has_half_a_pair(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def all_texts(value: Any) -> list[str]:
    match value:
        case str():
            return [value]
        case dict():
            return [text for pair in value.items() for part in pair for text in all_texts(part)]
        case list() | tuple():
            return [text for item in value for text in all_texts(item)]
        case _:
            return []


def test_each_character_that_must_not_be_seen_is_replaced() -> None:
    wanted = [chr(code) for code in range(sys.maxunicode + 1) if is_forbidden(chr(code), lines=False)]

    kept = [character for character in wanted if forbidden(make_plain(f"a{character}b"), lines=False)]
    lost = [c for c in wanted if c not in "\t\n" and make_plain(f"a{c}b") != "a\ufffdb"]

    assert kept == []
    assert lost == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Größe 20 °C, 価格 ¥5, שלום", "Größe 20 °C, 価格 ¥5, שלום"),
        ("I \u2764\ufe0f it", "I \u2764 it"),
        ("\U0001f469\u200d\U0001f4bb", "\U0001f469\U0001f4bb"),
        ("\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f3f3\U0001f308"),
        ("1\ufe0f\u20e3", "1\u20e3"),
        ("\U0001f469\U0001f3fd\u200d\U0001f680", "\U0001f469\U0001f3fd\U0001f680"),
        ("pay\u200dpal \ufe0f \U0001f469\u200d", "pay\ufffdpal \ufffd \U0001f469\ufffd"),
        ("a\tb\r\nc\rd", "a    b c\ufffdd"),
    ],
)
def test_ordinary_text_and_emoji_stay_readable(text: str, shown: str) -> None:
    assert make_plain(text) == shown


def test_lines_stay_where_they_are_wanted() -> None:
    assert make_plain_lines("a\r\nb\n\x1bc") == "a\nb\n\ufffdc"


def test_a_text_is_cut_after_it_was_made_plain() -> None:
    assert shorten("\U0001f469\u200d\U0001f4bb" * 5, 10) == "\U0001f469\U0001f4bb" * 5
    assert shorten("\x1b" * 20, 5) == "\ufffd" * 4 + "…"


@given(anything, st.integers(1, 60))
def test_nothing_forbidden_is_in_one_line(text: str, limit: int) -> None:
    made = [make_plain(text), shorten(text, limit), wording.shorten(text, limit)]
    made += [
        wording.describe_call("tool" + text, {text: text, "list": [text]}),
        wording.describe_result(ToolResult(text=text)),
    ]
    made += [wording.describe_result(ToolResult(preview=text, size=5, digest="x" * 43))]

    assert [forbidden(line, lines=False) for line in made] == [[]] * len(made)
    assert make_plain(make_plain(text)) == make_plain(text)
    assert all(len(line) <= limit for line in made[1:3])


@given(st.recursive(anything | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(anything, inner)))
def test_nothing_forbidden_is_in_values(value: JsonValue) -> None:
    made = make_plain_json(value)

    assert [text for text in all_texts(made) if forbidden(text)] == []
    assert json.dumps(made).count(":") >= 0
    document = json.dumps(value, ensure_ascii=False)
    assert forbidden(escape_json(document)) == []
    assert json.loads(escape_json(document)) == value


def test_two_keys_that_look_the_same_are_both_shown() -> None:
    assert make_plain_json({"a\u200b": 1, "a\u200c": 2}) == {"a\ufffd": 1, "a\ufffd (2)": 2}


def hostile_notices(text: str) -> NotifyRequest:
    asked = approval(title=text, reason=text, arguments={"memo": text, text: [text]})
    said = question(text=text, options=(text,)).model_copy(update={"evidence": (text,), "goal": text, "title": text})
    run = run_of(notice(asked), notice(said))
    return _make_readable(run.model_copy(update={"requester": text, "labels": {text: text}}))


@given(anything)
def test_nothing_forbidden_is_in_requests_and_notices(text: str) -> None:
    run = hostile_notices(text)
    for told in run.notices:
        parcel = Parcel(run, "default", (told,), make_key(run.run_id, (told,), "c"))
        its = told.request
        made = [its.title, its.question or "", its.reason, its.goal or "", *its.options, *its.evidence]
        made += all_texts(slack_blocks.build_message(parcel)) + all_texts(build_body(parcel, told))

        assert [shown for shown in made if forbidden(shown)] == []
        assert [shown for shown in (its.title, its.reason, *its.options) if "\n" in shown] == []


def test_the_digest_of_a_request_is_not_over_its_words() -> None:
    request = approval(title="pay \u202e1", arguments={"memo": "\x1b"})

    shown = needs.make_readable(request)

    assert (shown.digest, shown.arguments) == (request.digest, request.arguments)
    assert shown.title == "pay \ufffd1"


@given(anything)
def test_nothing_forbidden_is_in_commands_to_type(text: str) -> None:
    assert forbidden(commands.quote(text), lines=False) == []


@given(anything)
def test_nothing_forbidden_is_in_arguments_to_edit_and_none_is_changed(text: str) -> None:
    if not has_half_a_pair(text):
        written = edit.as_yaml({"memo": text, "lines": f"{text}\n{text}"})

        assert forbidden(written) == []
        assert edit.read_yaml(written) == {"memo": text, "lines": f"{text}\n{text}"}


@given(anything)
def test_nothing_forbidden_is_in_payloads_and_they_hold_the_same_values(text: str) -> None:
    if has_half_a_pair(text):
        return
    converter = data_converter().payload_converter
    (payload,) = converter.to_payloads([{"memo": text}])

    assert forbidden(payload.data.decode(), lines=False) == []
    assert converter.from_payloads([payload]) == [{"memo": text}]


@given(anything)
def test_nothing_forbidden_is_in_failures(text: str) -> None:
    converter = data_converter()
    made: list[str] = []
    for error in (ApplicationError(text), ValueError(text)):
        failure = Failure()
        try:
            try:
                raise error
            except Exception as cause:
                raise RuntimeError(text) from cause
        except RuntimeError as whole:
            converter.failure_converter.to_failure(whole, converter.payload_converter, failure)
            converter.failure_converter.from_failure(failure, converter.payload_converter)
        made += [failure.message, failure.stack_trace, failure.cause.message, failure.cause.stack_trace]

    assert [shown for shown in made if forbidden(shown)] == []


@given(anything)
@example("\x1b[31m\u202e")
@example("[/]")
@examples(40)
def test_nothing_forbidden_is_in_what_commands_print(text: str) -> None:
    real = sys.stdout, sys.stderr
    streams = sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
    try:
        out = output.Output()
        table = Table(title=text)
        table.add_column(text)
        table.add_row(text)
        out.print(text, Text(text), Text.assemble((text, "bold")), Panel(text), table)
        out.result.print(text, style="bold", markup=False)
        out.note(text)
        out.refusal(text)
        out.json({text: text})
        print_table(out, [(text, Text(text))], (text, text))
        output.print_error(text, code=2, as_json=False)
        output.print_error(text, code=2, as_json=True)
        output.write_error(text)
    finally:
        sys.stdout, sys.stderr = real

    assert [forbidden(stream.getvalue()) for stream in streams] == [[], []]


@pytest.mark.parametrize("as_json", [True, False])
@given(anything)
@example("\x7f")
@examples(40)
def test_nothing_forbidden_is_in_logs(as_json: bool, text: str) -> None:
    stream, root = io.StringIO(), logging.getLogger()
    handlers, level, real = root.handlers[:], root.level, sys.stderr
    sys.stderr = stream
    try:
        telemetry.configure_logging(as_json=as_json)
        log = logging.getLogger("strangers")
        log.warning("it wrote: %s", text)
        log.warning("said", extra={"memo": text, "list": [text], "deep": {"key": text}, "odd": ValueError(text)})
        try:
            raise ValueError(text)
        except ValueError:
            log.exception("failed %s", text)
    finally:
        sys.stderr = real
        root.handlers[:] = handlers
        root.setLevel(level)
        # Else loggers that are first used from now on keep to it, and tests that capture logs see nothing.
        structlog.reset_defaults()

    written = stream.getvalue()
    lines = [all_texts(json.loads(line)) for line in written.splitlines()] if as_json else [[_without_styles(written)]]
    assert [shown for texts in lines for shown in texts if forbidden(shown)] == []
    assert forbidden(_without_styles(written)) == []


def _without_styles(text: str) -> str:
    """Without the colours of our own renderer: whole, known sequences."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text) if "\x1b[" in text else text


def test_what_a_library_logs_in_a_command_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.plain_logs()
    root = logging.getLogger()
    handlers, root.handlers[:] = root.handlers[:], []
    try:
        raise ValueError("\x1b[31m")
    except ValueError:
        logging.getLogger("mcp.client.stdio").exception("no JSON: %s", "\x1b]0;t\x07\n\u202e")
    finally:
        root.handlers[:] = handlers

    assert capsys.readouterr().err == "error: no JSON: \ufffd]0;t\ufffd \ufffd\n"


def test_ordinary_notices_are_untouched() -> None:
    run = run_of(notice(approval()), notice(question()))

    assert _make_readable(run) == run


def test_what_a_server_writes_to_stderr_is_plain_in_the_log_and_in_errors(caplog: pytest.LogCaptureFixture) -> None:
    stderr = Stderr("peer", SecretValues(lambda text: text))

    with caplog.at_level(logging.DEBUG, logger="mandate.activities.toolbox.mcp.transport"):
        stderr.data_received(b"\x1b]0;owned\x07\xc2\x9b31m red \xe2\x80\xae\xff\n")

    assert list(stderr.last) == ["\ufffd]0;owned\ufffd\ufffd31m red \ufffd\ufffd"]
    assert [record.getMessage() for record in caplog.records] == [f"mcp server peer: {stderr.last[0]}"]
