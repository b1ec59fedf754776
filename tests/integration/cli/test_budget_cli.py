"""`mandate budget`: limits of the file and accounts of the store in one table, without a Temporal server."""

import asyncio
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from mandate.activities.stores.address import open_store
from mandate.activities.stores.budgets import Account, Line
from mandate.workers.main import main
from mandate.workflows.contracts.budget import Amount

FILE = """
budgets:
  - {id: all, per: month, cost_usd: "50"}
  - {id: team, labels: {team: "*"}, per: day, cost_usd: "5.00", tokens: 2000}
  - {id: each, requester: "*", agent: refunds, per: month, tokens: 900}
"""
NOW = datetime.now(UTC)
DAY, MONTH = f"{NOW:%Y-%m-%d}", f"{NOW:%Y-%m}"


class Folder:
    def __init__(self, path: Path) -> None:
        self.file = path / "budgets.yaml"
        self.store = path / "store.db"

    def spend(self, *calls: tuple[Account, str, int, str | None]) -> None:
        """Reserve a dollar and tokens for each call, and settle it at an amount, `assume` or not at all."""

        async def all_calls() -> None:
            store = open_store(f"sqlite:///{self.store}")
            for number, (account, cost_usd, tokens, end) in enumerate(calls):
                name = f"{account}-{number}"
                await store.reserve(name, [Line(account)], Amount(cost_usd=Decimal(cost_usd), tokens=tokens))
                if end == "assume":
                    await store.settle(name)
                elif end is not None:
                    await store.settle(name, Amount(cost_usd=Decimal(end), tokens=tokens))
            await store.close()

        asyncio.run(all_calls())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    folder = Folder(tmp_path)
    folder.file.write_text(FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MANDATE_BUDGETS", str(folder.file))
    monkeypatch.setenv("MANDATE_STORE", f"sqlite:///{folder.store}")
    return folder


def typed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["budget", *words])
    captured = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, captured.out, captured.err


def cells(out: str) -> list[list[str]]:
    """The table's lines, split where two spaces or more stand between columns."""
    return [[cell for cell in line.split("  ") if cell.strip()] for line in out.splitlines()]


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    code, out, _ = typed(capsys, *words, "-o", "json")
    assert code == 0
    told: list[dict[str, Any]] = json.loads(out)["budgets"]
    return told


SUPPORT, NO_TEAM = '{"labels": {"team": "support"}}', '{"labels": {"team": null}}'


def test_limits_and_accounts_are_in_one_table(capsys: pytest.CaptureFixture[str], folder: Folder) -> None:
    folder.spend(
        (Account("all", "{}", MONTH), "1", 10, "0.25"),
        (Account("all", "{}", MONTH), "2.5", 10, "assume"),
        (Account("all", "{}", MONTH), "4", 10, None),
        (Account("team", SUPPORT, DAY), "1", 700, "0.9"),
        (Account("team", NO_TEAM, DAY), "0", 100, None),
    )

    code, out, err = typed(capsys)

    lines = [[cell.strip() for cell in line] for line in cells(out)]
    assert (code, err) == (0, "")
    assert lines[0] == ["budget", "of", "period", "limit", "spent", "assumed", "held", "left", "since"]
    assert lines[1][:8] == ["all", "all", MONTH, "$50.00", "$2.75", "$2.50", "$4.00", "$43.25"]
    assert lines[2][:8] == ["team", "team=support", DAY, "$5.00", "$0.90", "$0.00", "$0.00", "$4.10"]
    assert lines[3] == ["2,000 tokens", "700 tokens", "0 tokens", "0 tokens", "1,300 tokens"]
    assert lines[4][:8] == ["team", "no team", DAY, "$5.00", "$0.00", "$0.00", "$0.00", "$5.00"]
    assert lines[5] == ["2,000 tokens", "0 tokens", "0 tokens", "100 tokens", "1,900 tokens"]
    assert lines[6] == [
        *("each", "agent refunds, each requester", MONTH, "900 tokens", "0 tokens", "0 tokens", "0 tokens"),
        *("900 tokens", "not used yet"),
    ]
    assert len(lines) == 7
    assert lines[1][8].endswith(" UTC")


def test_json_has_all_of_it_in_exact_texts(capsys: pytest.CaptureFixture[str], folder: Folder) -> None:
    folder.spend((Account("team", SUPPORT, DAY), "1.000000001", 700, None))

    (found,) = shown(capsys, "team")

    assert datetime.fromisoformat(found.pop("since")) <= datetime.fromisoformat(found.pop("last_used"))
    assert found == {
        "budget": "team",
        "scope": {"labels": {"team": "support"}},
        "period": DAY,
        "per": "day",
        "time_zone": "UTC",
        "limit": {"cost_usd": "5.00", "tokens": 2000},
        "spent": {"cost_usd": "0.00", "tokens": 0},
        "assumed": {"cost_usd": "0.00", "tokens": 0},
        "held": {"cost_usd": "1.000000001", "tokens": 700},
        "left": {"cost_usd": "3.999999999", "tokens": 1300},
    }


def test_budget_that_nobody_has_used_is_there_with_its_limit(
    capsys: pytest.CaptureFixture[str], folder: Folder
) -> None:
    code, out, err = typed(capsys, "each", "-o", "json")

    (found,) = json.loads(out)["budgets"]
    assert (code, json.loads(out)["file"]) == (0, str(folder.file))
    assert err == f"there is no sqlite:///{folder.store} yet; MANDATE_STORE names the workers' store\n"
    assert (found["scope"], found["since"], found["left"]["tokens"]) == (
        {"agent": "refunds", "requester": "*"},
        None,
        900,
    )
    assert not folder.store.exists()


def test_runs_of_a_budget_are_in_json_as_they_are_in_the_table(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.file.write_text("""
budgets:
  - {id: refunds, agent: refunds, per: month, cost_usd: "40"}
  - {id: ann, requester: ann@example.com, labels: {team: support, tier: "*"}, per: month, cost_usd: "40"}
  - {id: each, agent: refunds, requester: "*", per: month, cost_usd: "40"}
  - {id: all, per: month, cost_usd: "40"}
""")
    folder.spend(
        (Account("refunds", "{}", MONTH), "1", 1, "1"),
        (Account("ann", '{"labels": {"tier": "gold"}}', MONTH), "1", 1, "1"),
        (Account("each", '{"requester": "ben@example.com"}', MONTH), "1", 1, "1"),
    )

    _, out, _ = typed(capsys, "-o", "json")

    assert {found["budget"]: found["scope"] for found in json.loads(out)["budgets"]} == {
        "refunds": {"agent": "refunds"},
        "ann": {"requester": "ann@example.com", "labels": {"team": "support", "tier": "gold"}},
        "each": {"agent": "refunds", "requester": "ben@example.com"},
        "all": {},
    }


EARLIER = (
    (Account("all", "{}", "2025-10"), "1", 1, "1"),
    (Account("all", "{}", "2025-11"), "1", 1, "1"),
    (Account("team", SUPPORT, "2025-10-31"), "1", 1, "1"),
    (Account("team", SUPPORT, "2025-11-01"), "1", 1, "1"),
    (Account("team", SUPPORT, "2025-11-20"), "1", 1, "1"),
    (Account("gone", "{}", "2025-11-03"), "1", 1, "1"),
)


@pytest.mark.parametrize(
    ("words", "periods"),
    [
        (["--period", "2025-10"], ["2025-10", "2025-10-31"]),
        (["--period", "2025-11"], ["2025-11", "2025-11-01", "2025-11-20", "2025-11-03"]),
        (["--period", "2025-11-01"], ["2025-11-01"]),
        (["--period", "2025-11", "all"], ["2025-11"]),
        (["--period", "2025-11", "gone"], ["2025-11-03"]),
        (["--period", "2024-01"], []),
        (["--since", "2025-11-02"], ["2025-11", "2025-11-20", "2025-11-03"]),
        (["--since", "2025-11"], ["2025-11", "2025-11-01", "2025-11-20", "2025-11-03"]),
        (["--since", "2025-11", "gone", "all"], ["2025-11", "2025-11-03"]),
    ],
)
def test_earlier_periods_are_shown(
    capsys: pytest.CaptureFixture[str], folder: Folder, words: list[str], periods: list[str]
) -> None:
    folder.spend(*EARLIER)

    assert [row["period"] for row in shown(capsys, *words)] == periods


def test_budget_that_is_not_in_the_file_any_more_is_told_without_limits(
    capsys: pytest.CaptureFixture[str], folder: Folder
) -> None:
    folder.spend(*EARLIER)

    _, out, _ = typed(capsys, "gone", "--period", "2025-11")
    (found,) = shown(capsys, "gone", "--period", "2025-11")

    assert [cell.strip() for cell in cells(out)[1]][:7] == [
        *("gone", "all", "2025-11-03", "not in the file", "$1.00", "$0.00", "$0.00"),
    ]
    assert (found["limit"], found["left"], found["per"]) == (None, None, None)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--period", "2025-11", "--since", "2025"], "--period and --since: give one of them"),
        (["--period", "November"], "--period 'November' is not a month or a day, for example 2026-11 or 2026-11-30"),
        (["--period", "2025-13"], "--period '2025-13' is not a month or a day, for example 2026-11 or 2026-11-30"),
        (["--since", "2025-02-30"], "--since '2025-02-30' is not a month or a day, for example 2026-11 or 2026-11-30"),
        (["support"], "there is no budget 'support'; there are all, team, each"),
    ],
)
def test_wrong_words_are_refused(
    capsys: pytest.CaptureFixture[str], folder: Folder, words: list[str], sentence: str
) -> None:
    folder.spend(EARLIER[0])

    assert typed(capsys, *words) == (2, "", f"error: {sentence}\n")


def test_no_entry_is_said(capsys: pytest.CaptureFixture[str], folder: Folder) -> None:
    folder.spend(EARLIER[0])

    assert typed(capsys, "--period", "2024-01") == (0, "no budget was used in 2024-01\n", "")
    assert typed(capsys, "--since", "2030-01-01") == (0, "no budget was used since 2030-01-01\n", "")
    folder.file.write_text("budgets: []")
    assert typed(capsys) == (0, "the file of budgets has none\n", "")


def test_no_file_is_said(capsys: pytest.CaptureFixture[str], folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MANDATE_BUDGETS")
    folder.file.unlink()
    without = typed(capsys)
    (folder.file.parent / "mandate.yaml").write_text("budgets: limits.yaml\n")
    named = typed(capsys)

    sentence = (
        "error: there is no file of budgets; write deploy/budgets.yaml, or name another one with MANDATE_BUDGETS "
        "or `budgets` in mandate.yaml\n"
    )
    assert without == (2, "", sentence)
    assert named == (
        2, "", "limits.yaml: is not a file; MANDATE_BUDGETS or mandate.yaml names the file of budgets\n",
    )  # fmt: skip


def test_faults_of_the_file_are_told_with_their_places(capsys: pytest.CaptureFixture[str], folder: Folder) -> None:
    folder.file.write_text("budgets:\n  - {id: a, per: day}\n  - {id: b, per: week, tokens: 1}\n")

    code, out, err = typed(capsys)

    assert (code, out) == (2, "")
    assert err.splitlines() == [
        f"{folder.file}:2:5: budgets[0]: has no limit; give 'cost_usd', 'tokens' or both",
        f"{folder.file}:3:13: budgets[1].per: 'week' is not one of day, month",
    ]
