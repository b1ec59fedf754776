"""The page of a run: what stands on it, and that nothing in it acts."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from mandate.workers.converter import data_converter
from mandate.workers.history.picture import Picture
from mandate.workers.history.record import Record, Said
from mandate.workers.history.run_history import RunHistory
from mandate.workers.history.timeline import Bar, Word
from mandate.workers.pages.run_page import FIRST_ROWS, PAGE_CHARACTERS, ROWS, TEXT_CHARACTERS, render_run
from tests.support.people import bare_request
from tests.support.timelines import at, bar, load, read, timeline

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><a href='javascript:alert(3)'>x</a>"
    "{{ 7 * 7 }}</style></title>\x1b[31mred\u202egnp.exe\u2066\u200b\x00\ud800"
)

URL = re.compile(r"""(?:src|href|action|url|data|poster|srcset)\s*=\s*["']?(?!#)""")


class Elements(HTMLParser):
    """Elements and attributes of a page, and the text in it."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def picture(*bars: Bar, ended: float | None = 60, **keys: Any) -> Picture:
    history = keys.pop("history", RunHistory(data_converter(), agent="shop"))
    record = Record(keys.pop("workflow_id", "shop-1"), "run-1", keys.pop("status", "completed"), history, people=())
    return Picture(record, timeline(*bars, ended=ended), at(90), **keys)


def said(*parts: dict[str, Any], role: str = "assistant", step: int = 1) -> Said:
    return Said(role, "openai:gpt" if role == "assistant" else None, step, "s" * 43, parts)


def hostile() -> Picture:
    request = bare_request("approval").model_copy(
        update={"title": HOSTILE, "reason": HOSTILE, "question": HOSTILE, "arguments": {HOSTILE: HOSTILE}}
    )
    parts = (
        {"kind": "text", "text": HOSTILE},
        {"kind": "call", "call_id": "c1", "tool": HOSTILE, "arguments": {"to": HOSTILE}},
        {"kind": "result", "call_id": "c1", "tool": HOSTILE, "text": HOSTILE, "error": True},
        {"kind": "refusal", "text": HOSTILE},
        {"kind": "opaque", "type": HOSTILE},
    )
    bars = [
        bar("tool", 0, 5, label=HOSTILE, name=HOSTILE, state="failed", reason=HOSTILE),
        bar("person", 5, 9, label=HOSTILE, name="r1", reason=HOSTILE, waits_for=(HOSTILE,)),
        bar("child", 9, 12, label=HOSTILE, name=HOSTILE),
    ]
    made = picture(
        *bars, workflow_id=f"run {HOSTILE}", messages=[said(*parts)], pending=[{"line": HOSTILE, "state": "waiting"}],
        store_missing=HOSTILE,
    )  # fmt: skip
    made.record = replace(made.record, retrying=HOSTILE)
    made.answer = HOSTILE
    made.timeline.words = [Word(at(6), 1, HOSTILE)]
    made.timeline.requests = [request]
    made.timeline.missing = HOSTILE
    return made


def test_what_others_wrote_is_text_and_nothing_else() -> None:
    page = render_run(hostile(), program="mandate")
    found = Elements(page)

    plain = Elements(
        render_run(picture(bar("tool", 0, 1), messages=[said({"kind": "text", "text": "x"})]), program="m")
    )
    assert set(found.tags) - set(plain.tags) <= {"article", "pre", "details", "summary", "ul", "li", "div", "text"}
    assert not {"script", "img", "iframe", "object", "embed", "link", "base", "form", "a"} & set(found.tags)
    assert not [name for name, _ in found.attributes if name.startswith("on") or name == "style"]
    assert "<script>alert(1)</script>" in found.text
    assert "{{ 7 * 7 }}" in found.text


def test_nothing_hides_or_reorders_what_is_read() -> None:
    page = render_run(hostile(), program="mandate")

    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", page)
    assert "red\ufffdgnp.exe" in page


def test_the_page_asks_no_network_for_anything() -> None:
    page = render_run(hostile(), program="mandate")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)

    assert policy is not None
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy[1].replace("&#39;", "'") == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert page.index("Content-Security-Policy") < page.index("<style>")
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    made = Elements(page)
    assert {value for name, value in made.attributes if name in {"src", "href", "action", "data"}} == {"#breaks"}


def test_a_large_run_is_bounded_and_says_how_to_see_the_rest() -> None:
    bars = [bar("tool", second, second + 0.5, label=f"look {second}") for second in range(ROWS + 40)]
    messages = [said({"kind": "text", "text": "x" * (TEXT_CHARACTERS + 5)})]
    made = picture(*bars, ended=ROWS + 40, messages=messages)

    page, whole = render_run(made, program="mandate"), render_run(made, program="mandate", full=True)

    assert "40 more bars; <code>mandate show shop-1 --html FILE --full</code> has all" in page
    assert f"look {FIRST_ROWS - 1}<" in page
    assert f"look {FIRST_ROWS}<" not in page
    assert f"look {FIRST_ROWS + 40}<" in page
    assert "5 more characters, see --full" in page
    assert f"look {FIRST_ROWS}<" in whole
    assert "more characters" not in whole


def test_many_long_messages_stay_a_page_that_can_be_opened() -> None:
    parts = [{"kind": "text", "text": "x" * TEXT_CHARACTERS} for _ in range(20)]
    made = picture(messages=[said(*parts, step=step) for step in range(200)])

    page = render_run(made, program="mandate")

    assert len(page) < 1.6 * PAGE_CHARACTERS
    assert "3,800 more characters, see --full" in page


def test_messages_that_are_left_out_are_counted_where_they_stood() -> None:
    messages = [said({"kind": "text", "text": f"word {step}"}, step=step) for step in (*range(50), *range(950, 1100))]

    page = render_run(picture(messages=messages, left_out=900), program="mandate")

    assert page.index("word 49") < page.index("900 more messages") < page.index("word 950")


def test_a_run_that_goes_on_says_so() -> None:
    page = render_run(picture(bar("model", 0, None), ended=None, status="running"), program="mandate")

    assert "and goes on: 1m 30s" in page
    assert "while the run goes on" in page
    assert "so far" in page


def test_what_is_not_here_is_said() -> None:
    made = picture(store_missing="there is no store")
    made.timeline.unreadable, made.timeline.missing = 2, "its first parts are gone"

    page = render_run(made, program="mandate")

    for told in ("The conversation is not here: there is no store", "2 events of the history", "its first parts are"):
        assert told in page
    assert "Nothing has begun yet" in page


def test_compressed_time_is_marked_and_said() -> None:
    day = 86_400.0
    bars = [bar("model", 0, 60), bar("person", 60, 60 + 2 * day), bar("tool", 60 + 2 * day, 120 + 2 * day)]

    page = render_run(picture(*bars, ended=120 + 2 * day), program="mandate")

    assert 'class="break" x="25.000%" width="50.000%"' in page
    assert "Time is not to scale in the shaded stretches" in page
    assert "2d from 2026-11-02 09:01:00 UTC" in page


@pytest.mark.parametrize(
    "name", ["0.1-completed", "0.2-decided", "0.3-doubted", "0.9-led", "1.0-planned", "0.1-refused"]
)
async def test_runs_of_all_kinds_have_a_page(name: str) -> None:
    line, history = await read(load(name))
    made = picture(history=history)
    made.timeline = line

    page = Elements(render_run(made, program="mandate"))

    assert all(one.label in page.text for one in line.drawn())
