"""`mandate validate` with a file that is no agent: of providers, budgets, people, and the like."""

import json
from pathlib import Path

import pytest

from mandate.workers.main import main

AGENT = "name: people\ninstructions: Help.\nmodels: [scripted:people.script.yaml]\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mandate.yaml").touch()
    return tmp_path


def validate(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, list[str]]:
    with pytest.raises(SystemExit) as ended:
        main(["validate", *words, "--color", "never"])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err.splitlines()


@pytest.mark.parametrize("kind", ["providers", "budgets", "people", "channels", "triggers"])
@pytest.mark.parametrize("place", ["", "other/"])
def test_file_is_known_by_its_name_and_its_faults_are_told_once(
    folder: Path, capsys: pytest.CaptureFixture[str], kind: str, place: str
) -> None:
    path = folder / place / f"{kind}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    empty = validate(capsys, f"{place}{kind}.yaml")
    path.write_text("typo: {}\n")

    code, out, err = validate(capsys, f"{place}{kind}.yaml")

    assert empty == (2, "", [f"{place}{kind}.yaml: is empty"])
    assert (code, out) == (2, "")
    key = {"providers": "endpoints"}.get(kind, kind)
    where = f"{place}{kind}.yaml:1:1: "
    assert len(err) == 2
    assert any(line.startswith(f"{where}typo: is not a key that is known here; allowed are ") for line in err)
    assert any(line.startswith(f"{where}{key}: is missing: ") for line in err)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "budgets: [{id: all, per: day}]",
            "file.yaml:1:11: budgets[0]: has no limit; give 'cost_usd', 'tokens' or both",
        ),
        ("people: [{nam: ann}]", "file.yaml:1:10: people[0].name: is missing: "),
        (
            "channels: [{name: a, kind: fax}]",
            "file.yaml:1:22: channels[0].kind: 'fax' is not one of log, webhook, slack",
        ),
        ("endpoints: {a: 3}", "file.yaml:1:13: endpoints.a: 3 is not a mapping"),
    ],
)
def test_file_is_known_by_what_it_says(folder: Path, capsys: pytest.CaptureFixture[str], text: str, line: str) -> None:
    (folder / "file.yaml").write_text(text)

    code, out, err = validate(capsys, "file.yaml")

    assert (code, out) == (2, "")
    assert any(told.startswith(line) for told in err), err
    assert not any("instructions" in told for told in err), err


def test_file_without_faults_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "people.yaml").write_text("people: [{name: ann}]")
    (folder / "channels.yaml").write_text("channels: [{name: log, kind: log}]")

    assert validate(capsys, "people.yaml", "channels.yaml") == (
        0,
        "people.yaml: a file of people without faults\nchannels.yaml: a file of channels without faults\n",
        [],
    )


def test_two_files_of_one_kind_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.yaml").write_text("budgets: []")
    (folder / "b.yaml").write_text("budgets: []")

    code, _, err = validate(capsys, "a.yaml", "b.yaml")

    assert (code, err) == (2, ["error: a.yaml and b.yaml are both a file of budgets; give one of them"])


@pytest.mark.parametrize("place", ["", "other/"])
def test_mandate_yaml_is_checked_as_the_settings_of_a_project(
    folder: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    path = folder / place / "mandate.yaml"
    path.parent.mkdir(exist_ok=True)
    path.touch()
    blank = validate(capsys, f"{place}mandate.yaml")
    path.write_text("task_queue: refunds\npeople: who.yaml\n")
    whole = validate(capsys, f"{place}mandate.yaml")
    path.write_text("task_queue: refunds\ntask_qeue: a\npeople: [ann]\n")

    code, out, err = validate(capsys, f"{place}mandate.yaml")

    assert blank == whole == (0, f"{place}mandate.yaml: settings of a project without faults\n", [])
    assert (code, out) == (2, "")
    assert [line.partition(";")[0] for line in err] == [
        f"{place}mandate.yaml:2:1: task_qeue: is not a key that is known here",
        f"{place}mandate.yaml:3:1: people: a list is not a text",
    ]


@pytest.mark.parametrize("place", ["channels.yaml", "conf/tell.yaml"])
def test_channels_are_checked_where_no_file_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    (folder / "agents").mkdir()
    (folder / "agents" / "people.yaml").write_text(AGENT)
    (folder / "agents" / "people.script.yaml").write_text("turns: [{say: done}]\n")
    (folder / "conf").mkdir()
    if place != "channels.yaml":
        (folder / "mandate.yaml").write_text(f"channels: {place}\n")
    without = validate(capsys)
    (folder / place).write_text("channels: [{name: log, kind: log}]")
    right = validate(capsys)
    (folder / place).write_text("channels: [{name: a, kind: fax}]")
    wrong = validate(capsys)

    missing = [] if place == "channels.yaml" else [f"{place}: is not a file; MANDATE_CHANNELS or mandate.yaml names"]
    assert [line[: len(missing[0])] for line in without[2]] == missing
    assert (right[0], right[2]) == (0, [])
    assert (wrong[0], wrong[2]) == (2, [f"{place}:1:22: channels[0].kind: 'fax' is not one of log, webhook, slack"])


def test_agent_may_have_the_name_of_such_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "agents").mkdir()
    (folder / "agents" / "people.yaml").write_text(AGENT)
    (folder / "agents" / "people.script.yaml").write_text("turns: [{say: done}]\n")

    code, out, _ = validate(capsys, "agents/people.yaml")

    assert (code, out.split()[:2]) == (0, ["people", "version"])


def test_triggers_of_agents_that_are_not_here_are_warned_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "agents").mkdir()
    (folder / "agents/people.yaml").write_text(AGENT)
    (folder / "agents/people.script.yaml").write_text("turns: [{say: Hello.}]")
    (folder / "triggers.yaml").write_text(
        "triggers:\n- {id: a, match: 'true', start: {agent: poeple, input: event.id}, requester: ann@example.com}\n"
    )

    code, out, err = validate(capsys)

    assert (code, err) == (0, [])
    assert "names the agent 'poeple', which is not here; did you mean 'people'? there are people" in out


def test_triggers_are_checked_with_all_else(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "agents").mkdir()
    (folder / "agents/people.yaml").write_text(AGENT)
    (folder / "agents/people.script.yaml").write_text("turns: [{say: Hello.}]")
    (folder / "triggers.yaml").write_text("triggers:\n- {id: a, match: evnt, ignore: true}\n")

    code, _, err = validate(capsys)

    assert code == 2
    assert err == [
        "triggers.yaml:2:11: triggers[0].match: column 1: there is no 'evnt'; did you mean 'event'? it sees event"
    ]


PLAN = "name: tell\nsteps:\n  - {id: tell, agent: people, input: \"'x'\"}\n"
TRIGGER = "triggers: [{id: new, match: 'true', start: {agent: peopl, input: event.id}, requester: ann@example.com}]"


@pytest.fixture
def project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with an agent and a plan."""
    monkeypatch.delenv("MANDATE_AGENTS", raising=False)
    for name in ("agents", "plans"):
        (folder / name).mkdir()
    (folder / "agents" / "people.yaml").write_text(AGENT)
    (folder / "agents" / "people.script.yaml").write_text("turns: [{say: 'Done.'}]")
    (folder / "plans" / "tell.yaml").write_text(PLAN)
    return folder


def test_plans_are_checked_with_the_agents(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = validate(capsys)
    line = "tell  plans/tell.yaml  1 step (1 agent) in 1 level\n"
    (project / "plans" / "tell.yaml").write_text(PLAN.replace("agent: people", "tool: publsh"))

    wrong = validate(capsys)

    assert (code, err) == (0, [])
    assert line in out
    told = "plans/tell.yaml:3:16: steps[0].tool: there is no tool 'publsh'; there are none"
    assert (wrong[0], wrong[2]) == (2, [told])
    assert validate(capsys, "plans/tell.yaml") == validate(capsys, "plans") == (2, "", [told])
    (project / "plans" / "tell.yaml").write_text(PLAN)
    assert validate(capsys, "plans/tell.yaml") == validate(capsys, "plans") == (0, line, [])
    (project / "plans" / "tell.yaml").write_text("name: tell\nsteps: []\n")
    assert validate(capsys, "plans/tell.yaml")[2] == ["plans/tell.yaml:2:1: steps: must not be empty"]


def test_plans_stand_in_the_json(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = [json.loads(validate(capsys, *words, "-o", "json")[1]) for words in ([], ["plans/tell.yaml"])]

    assert [[plan["name"] for plan in one["plans"]] for one in told] == [["tell"], ["tell"]]
    assert [[agent["name"] for agent in one["agents"]] for one in told] == [["people"], []]


def test_named_triggers_are_compared_with_what_is_here(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "triggers.yaml").write_text(TRIGGER)

    code, out, err = validate(capsys, "triggers.yaml")

    assert (code, err) == (0, [])
    assert out.splitlines() == [
        (
            "warning: triggers.yaml:1:45: triggers[0].start.agent: names the agent 'peopl', which is not here; did you "
            "mean 'people'? there are people"
        ),
        "triggers.yaml: a file of triggers without faults",
    ]


def test_a_list_is_no_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "file.yaml").write_text("- name: ann\n")

    assert validate(capsys, "file.yaml") == (
        2,
        "",
        [
            (
                "file.yaml:1:1: is a list, and no file is one: people, channels, budgets and triggers are a list under "
                "the key of that name; an agent has 'name', 'instructions' and 'models', a plan 'name' and 'steps', a "
                "policy 'rules'"
            )
        ],
    )
