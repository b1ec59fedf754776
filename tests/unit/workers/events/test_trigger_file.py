"""The file of triggers: all that is wrong with it is told at once, with places."""

from pathlib import Path

import pytest

from mandate.activities.files import FileError
from mandate.workers.events.trigger_file import faults_for, read_triggers, triggers_path, warnings_for
from mandate.workers.settings import Settings
from tests.support.pages import PROJECT


def written(folder: Path, text: str) -> Settings:
    path = folder / "triggers.yaml"
    path.write_text(text)
    return Settings.from_environment({"MANDATE_TRIGGERS": str(path)})


def told(settings: Settings) -> list[str]:
    return [f"{fault.line}:{fault.column} {fault.key}: {fault.message}" for fault in faults_for(settings)]


def test_the_example_has_no_faults() -> None:
    settings = Settings.from_environment({"MANDATE_TRIGGERS": str(PROJECT / "deploy/triggers.example.yaml")})

    file = read_triggers(settings)

    assert file is not None
    assert [trigger.id for trigger in file.triggers] == ["refund-orders", "support", "release", "other-builds"]


def test_without_a_file_there_are_no_triggers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert triggers_path(Settings.from_environment({})) is None
    assert read_triggers(Settings.from_environment({})) is None


def test_a_named_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"

    with pytest.raises(FileError) as refused:
        read_triggers(Settings.from_environment({"MANDATE_TRIGGERS": str(path)}))

    assert (
        str(refused.value)
        == f"{path}: is not a file; --triggers, MANDATE_TRIGGERS or mandate.yaml names the file of triggers"
    )


def test_all_faults_of_the_form_are_told_at_once(tmp_path: Path) -> None:
    settings = written(
        tmp_path,
        "triggers:\n"
        "  - {id: a, match: 'true'}\n"
        "  - {id: b, match: 'true', start: {agent: x, input: '1'}, ignore: true}\n"
        "  - {id: c, match: 'true', start: {agent: x, input: 'event'}}\n"
        "  - {id: d, match: 'true', start: {agent: x, input: 'event'}, requester: a, requester_from: event.id}\n"
        "  - {id: e, match: 'true', ignore: true, requester: a}\n"
        "  - {id: f, macth: 'true', ignore: true}\n",
    )

    found = told(settings)

    assert [fault.split(": ", 1)[0] for fault in found] == [
        "2:5 triggers[0]",
        "3:5 triggers[1]",
        "4:5 triggers[2]",
        "5:5 triggers[3]",
        "6:5 triggers[4]",
        "7:5 triggers[5].match",
        "7:13 triggers[5].macth",
    ]
    assert found[0].endswith("does nothing; give one of 'start', 'plan', 'say', 'ignore'")
    assert found[2].endswith(
        "does not say who asks; give 'requester', a name, or 'requester_from', an expression over the event"
    )


def test_all_faults_of_expressions_are_told_at_once(tmp_path: Path) -> None:
    settings = written(
        tmp_path,
        "triggers:\n"
        "  - {id: a, match: evnt.type == 'x', start: {agent: x, input: '81'}, requester: a}\n"
        "  - {id: b, match: event.type ==, plan: {name: x, input: 'event.data['}, requester_from: size(event.id)}\n"
        "  - {id: c, match: '\"yes\"', say: {agent: x, session: event.id, text: nope(event)}, requester: a}\n",
    )

    assert told(settings) == [
        "2:13 triggers[0].match: column 5: there is no 'evnt'; did you mean 'event'? it sees event",
        "2:56 triggers[0].start.input: column 1: has the type int, which is no string or object",
        "3:13 triggers[1].match: column 14: Syntax error: mismatched input end of text",
        "3:51 triggers[1].plan.input: column 12: Syntax error: mismatched input end of text",
        "3:74 triggers[1].requester_from: column 1: has the type int, which is no string",
        "4:13 triggers[2].match: column 1: has the type string; a condition is true or false",
        "4:64 triggers[2].say.text: column 5: there is no function 'nope'",
    ]


def test_ids_differ(tmp_path: Path) -> None:
    one = "{id: a, match: 'true', ignore: true}"

    assert told(written(tmp_path, f"triggers: [{one}, {one}]")) == [
        "1:51 triggers[1].id: 'a' is the id of triggers[0] too; each trigger has its own"
    ]


def test_agents_and_plans_that_are_not_here_are_warned_of(tmp_path: Path) -> None:
    settings = written(
        tmp_path,
        "triggers:\n"
        "  - {id: a, match: 'true', start: {agent: refund, input: event.id}, requester: a}\n"
        "  - {id: b, match: 'true', plan: {name: none}, requester: a}\n"
        "  - {id: c, match: 'true', say: {agent: refunds, session: event.id, text: event.id}, requester: a}\n",
    )

    warned = warnings_for(settings, agents=["refunds"], plans=[])

    assert [(one.line, one.key, one.message) for one in warned] == [
        (
            2,
            "triggers[0].start.agent",
            "names the agent 'refund', which is not here; did you mean 'refunds'? there are refunds",
        ),
        (3, "triggers[1].plan.name", "names the plan 'none', which is not here; there are none"),
    ]
