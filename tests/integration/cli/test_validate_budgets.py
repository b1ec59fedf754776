"""`mandate validate` and `mandate worker` read the file of budgets with the agents."""

import json
from pathlib import Path

import pytest

from mandate.workers.main import main

AGENT = "name: refunds\ninstructions: Help.\nmodels: [scripted:refunds.script.yaml]\n"
BUDGETS = """
budgets:
  - {id: all, per: month, cost_usd: "50"}
  - {id: people, agent: refnds, requester: "*", labels: {team: support, tier: "*"}, per: day, time_zone: Europe/Berlin,
     cost_usd: "5.50", tokens: 20000}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mandate.yaml").touch()
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "refunds.yaml").write_text(AGENT)
    (tmp_path / "agents" / "refunds.script.yaml").write_text("turns: [{say: done}]\n")
    (tmp_path / "budgets.yaml").write_text(BUDGETS)
    return tmp_path


def typed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(words)
    captured = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, captured.out, captured.err


UNPRICED = (
    "budgets.yaml:3:27: budgets[0].cost_usd: limits money, and no price is known for scripted:refunds.script.yaml of "
    "the agent 'refunds': no call of them is sent in a run that counts here; add 'price' in its 'models', or 'prices'"
)
WARNING = (
    "budgets.yaml:4:18: budgets[1].agent: names the agent 'refnds', which is not here; did you mean 'refunds'? "
    "there are refunds"
)


def test_budgets_are_told_with_their_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = typed(capsys, "validate")

    assert (code, err) == (0, "")
    assert [line.rstrip() for line in out.splitlines()[-5:]] == [
        f"warning: {WARNING}",
        "budget  runs                                                   at most        per",
        "all     all                                                    $50.00         month",
        "people  agent refnds, each requester, team=support, each tier  $5.50          day of Europe/Berlin",
        f"{'':63}20,000 tokens",
    ]


def test_budgets_are_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = typed(capsys, "validate", "-o", "json")

    told = json.loads(out)
    assert (code, told["valid"], told["warnings"]) == (0, True, [UNPRICED, WARNING])
    assert told["budgets"][0] == {
        "id": "all",
        "agent": None,
        "requester": None,
        "labels": {},
        "per": "month",
        "time_zone": "UTC",
        "cost_usd": "50",
        "tokens": None,
    }
    assert len(told["budgets"]) == 2


def test_one_agent_alone_is_not_all_that_budgets_may_name(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = typed(capsys, "validate", "agents/refunds.yaml", "-o", "json")

    assert (code, json.loads(out)["warnings"]) == (0, [])


@pytest.mark.parametrize("words", [["validate"], ["validate", "agents/refunds.yaml"], ["worker"]])
def test_faults_are_told_and_nothing_is_served(
    capsys: pytest.CaptureFixture[str], folder: Path, words: list[str]
) -> None:
    (folder / "budgets.yaml").write_text("budgets:\n  - {id: all, per: month}\n")

    code, _, err = typed(capsys, *words)

    assert code == 2
    assert "budgets.yaml:2:5: budgets[0]: has no limit; give 'cost_usd', 'tokens' or both" in err.splitlines()


def test_schema_of_the_file_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = typed(capsys, "validate", "--schema", "budgets")

    assert (code, json.loads(out)["title"]) == (0, "Mandate file of budgets")
