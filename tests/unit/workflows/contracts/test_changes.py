"""Changes that runs keep to: older runs have none of those that came after they began."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mandate.workflows.contracts.agent import AgentPin
from mandate.workflows.contracts.budget import Budget
from mandate.workflows.contracts.changes import LOOP, Change

WORKFLOWS = Path(__file__).parents[4] / "workflows"


def pin(**fields: object) -> AgentPin:
    return AgentPin.model_validate(
        {
            "name": "a",
            "digest": "A" * 43,
            "models": ["scripted:a"],
            "tools": [],
            "policy": [],
            "attempts": 3,
            "budget": Budget(),
            "store": "s",
            "pinned_at": datetime(2026, 1, 1, tzinfo=UTC),
            **fields,
        }
    )


@pytest.mark.parametrize(
    ("fields", "has"),
    [
        ({}, set()),
        ({"asks": True}, {"asks"}),
        ({"hides": True}, {"hides"}),
        ({"controls": True}, {"controls"}),
        ({"recovers": True}, {"recovers"}),
        ({"asks": True, "recovers": True}, {"asks", "recovers"}),
    ],
)
def test_a_run_has_the_changes_that_its_pin_tells_of(fields: dict[str, object], has: set[str]) -> None:
    assert {change for change in Change if change.is_in(pin(**fields))} == {
        change for change in Change if change.field in has
    }


@pytest.mark.parametrize("loop", range(LOOP + 2))
def test_an_order_of_commands_has_all_changes_up_to_it(loop: int) -> None:
    ours = {change for change in Change if change.field == "loop"}

    assert {change for change in Change if change.is_in(pin(loop=loop))} == {
        change for change in ours if change.first <= loop
    }


def test_the_newest_order_of_commands_is_seven() -> None:
    """Another one needs a history in tests/replay."""
    assert LOOP == 7


@pytest.mark.parametrize("change", Change, ids=lambda change: change.name)
def test_each_change_is_one_sentence_and_asked_for_by_name(change: Change) -> None:
    sentence = change.value[2]
    code = "".join(path.read_text() for path in WORKFLOWS.rglob("*.py") if path.name != "changes.py")

    assert re.fullmatch(r"[A-Z][^.]*\.", sentence)
    assert f"has(Change.{change.name})" in code
