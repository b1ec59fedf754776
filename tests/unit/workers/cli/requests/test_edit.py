import shlex
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from mandate.workers.cli.errors import CliError
from mandate.workers.cli.requests import edit
from mandate.workflows.rules import redaction

CALL: dict[str, JsonValue] = {
    "amount": 120.0,
    "card": "***",
    "customer": {"name": "Ann", "address": {"city": "Bonn"}},
    "items": [{"id": 1, "count": 2}, {"id": 2, "count": 1}],
    "x.y": 1,
}
TEXT: dict[str, JsonValue] = {"digest": "d" * 43, "size": 2000, "preview": "Dear"}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("setting", "changed"),
    [
        ("amount=80", {"amount": 80}),
        ("amount=80.5", {"amount": 80.5}),
        ('amount="80"', {"amount": "80"}),
        ("note=please hurry", {"note": "please hurry"}),
        ("note=a=b", {"note": "a=b"}),
        ("note=", {"note": ""}),
        ("note=null", {"note": None}),
        ("note=NaN", {"note": "NaN"}),
        ("note=1e999", {"note": "1e999"}),
        ("tags=[1, 2]", {"tags": [1, 2]}),
        ("customer.name=Bo", {"customer": {"name": "Bo", "address": {"city": "Bonn"}}}),
        ("customer.address.city=Ulm", {"customer": {"name": "Ann", "address": {"city": "Ulm"}}}),
        ("items.1.count=5", {"items": [{"id": 1, "count": 2}, {"id": 2, "count": 5}]}),
        ("items.0=7", {"items": [7, {"id": 2, "count": 1}]}),
        ("new.part=1", {"new": {"part": 1}}),
        ("x.y=2", {"x.y": 2}),
    ],
)
def test_set_changes_one_argument_and_leaves_the_others(setting: str, changed: dict[str, JsonValue]) -> None:
    assert edit.with_settings(CALL, [setting]) == {**CALL, **changed}
    assert CALL["amount"] == 120.0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["amount"], "--set 'amount' is not name=value, for example --set amount=80"),
        (["=80"], "--set '=80' is not name=value, for example --set amount=80"),
        (["amount=120.0"], "--set amount=120.0 changes nothing; leave it out to approve the call as it is"),
        (["items.2.id=1"], "--set 'items.2.id=1': '2' is no position of a list of 2, counted from 0"),
        (["items.-1=1"], "--set 'items.-1=1': '-1' is no position of a list of 2, counted from 0"),
        (["amount.cents=1"], "--set 'amount.cents=1': 'cents' is sought in 120.0, which has no parts"),
    ],
)
def test_set_that_cannot_be_done_is_refused(settings: list[str], sentence: str) -> None:
    with pytest.raises(CliError) as refusal:
        edit.with_settings(CALL, settings)

    assert str(refusal.value) == sentence


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_yaml_that_people_edit_says_exactly_what_the_arguments_are(arguments: dict[str, JsonValue]) -> None:
    text = "# a comment\n" + edit.as_yaml(arguments)

    again = edit.read_yaml(text)

    assert edit.canonical_json(again) == edit.canonical_json(arguments)


def test_texts_of_several_lines_are_blocks() -> None:
    assert edit.as_yaml({"body": "one\ntwo\n", "when": "2026-11-02", "amount": 80}) == (
        "body: |\n  one\n  two\nwhen: '2026-11-02'\namount: 80\n"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- 1", "the arguments must be an object: name: value, one a line"),
        ("a: 1\na: 2", "line 2, column 1: a: the key 'a' is given twice, in lines 1 and 2"),
        ("a: .nan", "line 1, column 4: a: .nan is not a number that JSON has"),
    ],
)
def test_text_that_is_no_object_says_where(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        edit.read_yaml(text)

    assert str(refusal.value) == sentence


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ({"amount": 80, "body": "long"}, {"amount": 80, "body": TEXT}),
        ({"amount": 120, "body": "longer"}, {"amount": 120, "body": "longer"}),
        ({"amount": 120}, {"amount": 120}),
        ({"amount": 120, "body": "long", "new": 1}, {"amount": 120, "body": TEXT, "new": 1}),
    ],
)
def test_long_texts_that_were_left_alone_are_sent_as_they_were_shown(value: JsonValue, sent: JsonValue) -> None:
    whole: JsonValue = {"amount": 120, "body": "long"}
    shown: JsonValue = {"amount": 120, "body": TEXT}

    assert edit.referenced(value, whole, shown) == sent


def test_long_texts_are_found_in_lists_and_objects() -> None:
    shown: JsonValue = {"mails": [{"to": "a", "body": TEXT}, {"to": "b", "body": TEXT}]}
    whole: JsonValue = {"mails": [{"to": "a", "body": "one"}, {"to": "b", "body": "two"}]}
    value: JsonValue = {"mails": [{"to": "c", "body": "one"}, {"to": "b", "body": "other"}]}

    assert redaction.has_references(shown)
    assert not redaction.has_references(whole)
    assert edit.referenced(value, whole, shown) == {"mails": [{"to": "c", "body": TEXT}, {"to": "b", "body": "other"}]}


def test_changes_are_told_part_by_part_and_hide_what_is_hidden() -> None:
    after = {**CALL, "amount": 80, "card": "4000", "customer": {"name": "Ann"}, "note": "hi"}

    assert list(edit.changes(CALL, after)) == [
        "amount: 120.0 → 80",
        "card: *** → another value",
        'customer.address: {"city": "Bonn"} is left out',
        'note: "hi" is new',
    ]


def editor(script: str) -> dict[str, str]:
    """An environment whose editor runs `script` with the file as `path`."""
    program = f"import pathlib, sys; path = pathlib.Path(sys.argv[1]); {script}"
    return {"VISUAL": shlex.join([sys.executable, "-c", program])}


def test_editor_gets_comments_and_arguments_and_what_it_leaves_is_read() -> None:
    value, path = edit.edited(
        {"amount": 120, "card": "***"},
        ["wf:r1  pay amount=120?"],
        editor(
            "text = path.read_text(); path.write_text(text.replace('120\\ncard', '80\\ncard') + f'seen: {len(text)}')"
        ),
    )

    seen = len("# wf:r1  pay amount=120?\namount: 120\ncard: '***'\n")
    assert value == {"amount": 80, "card": "***", "seen": seen}
    assert path.stat().st_mode & 0o777 == 0o600
    path.unlink()


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("pass", "nothing was changed, so nothing was sent; without --edit the call is approved as it is"),
        (
            "path.write_text('# only this')",
            "all was deleted, so nothing was sent; without --edit the call is approved as it is",
        ),
        (
            "path.write_text('amount: 120 # ok')",
            "no argument was changed, so nothing was sent; without --edit the call is approved as it is",
        ),
    ],
)
def test_edit_without_a_change_sends_nothing_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, sentence: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with pytest.raises(CliError) as refusal:
        edit.edited({"amount": 120}, [], editor(script))

    assert str(refusal.value) == sentence
    assert list(tmp_path.iterdir()) == []


def test_edit_that_cannot_be_read_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with pytest.raises(CliError) as refusal:
        edit.edited({"amount": 120}, [], editor("path.write_text('amount: [80')"))

    (kept,) = tmp_path.iterdir()
    assert kept.read_text() == "amount: [80"
    assert str(refusal.value).endswith(f"; nothing was sent, and your text is kept: go on with --from {kept}")


def test_editor_that_fails_sends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with pytest.raises(CliError, match="ended with exit code 3; nothing was sent; your text is in "):
        edit.edited({"amount": 120}, [], editor("path.write_text('amount: 80'); sys.exit(3)"))
    with pytest.raises(
        CliError, match="the editor '/no/such' cannot be started: No such file or directory; set VISUAL"
    ):
        edit.edited({"amount": 120}, [], {"EDITOR": "/no/such"})

    assert len(list(tmp_path.iterdir())) == 1


def test_arguments_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("amount: 80\n")
    (tmp_path / "a.json").write_text('{"amount": 80}')

    assert edit.from_file(tmp_path / "a.yaml") == edit.from_file(tmp_path / "a.json") == {"amount": 80}
    with pytest.raises(CliError, match="cannot be read: No such file or directory"):
        edit.from_file(tmp_path / "none")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("80", 80),
        ("true", True),
        ('{"a": [1]}', {"a": [1]}),
        (" [1, 2] ", [1, 2]),
        ('"{name}"', "{name}"),
        ("a {b}", "a {b}"),
        ("[draft] as agreed", "[draft] as agreed"),
        ("", ""),
        ("NaN", "NaN"),
    ],
)
def test_value_is_json_or_a_text(written: str, value: object) -> None:
    assert edit.parsed(written, "--value") == value


@pytest.mark.parametrize(
    ("written", "kind"),
    [("{", "an object"), ("{a: 1}", "an object"), (' {"a": 1', "an object"), ("[1, 2", "a list"), ('["a', "a list")],
)
def test_half_of_an_object_is_no_text(written: str, kind: str) -> None:
    with pytest.raises(CliError) as refused:
        edit.parsed(written, "--set order")

    assert str(refused.value).startswith(f"--set order begins as {kind} and is no JSON: ")
    assert str(refused.value).endswith("; a text is written as JSON, in double quotes")
