"""A worker that dies where it is told to: `python -m tests.support.plan_worker worker`, with `MANDATE_TEST_DEATHS`."""

from typing import Any

from temporalio import workflow

from mandate.activities.model import ModelActivities
from mandate.activities.plan import PlanActivities
from mandate.workers.main import main
from mandate.workflows.loop import start
from mandate.workflows.loop.run import Run
from tests.support.plan_points import die_at


def _replace(owner: Any, name: str, made: Any) -> None:
    """Like an assignment, but of something that is there: else nothing dies in it."""
    assert hasattr(owner, name), f"{owner!r} has no {name!r} any more"
    setattr(owner, name, made)


async def _advance(self: PlanActivities, *given: Any) -> Any:
    die_at("advance_begins")
    made = await _honest_advance(self, *given)
    die_at("advance_ends")
    return made


async def _try_once(self: ModelActivities, *given: Any) -> Any:
    die_at("model_begins")
    made = await _honest_try(self, *given)
    die_at("model_ends")
    return made


def _clear_status(self: Run) -> None:
    with workflow.unsafe.sandbox_unrestricted():
        die_at("leaving")
    _honest_clear(self)


def _carried_state(args: tuple[Any, ...]) -> Any:
    carried = _honest_carried(args)
    if carried is not None:
        with workflow.unsafe.sandbox_unrestricted():
            die_at("carried")
    return carried


_honest_advance, _honest_try = PlanActivities._advance, ModelActivities._try_once
_honest_clear, _honest_carried = Run.clear_status, start.carried_state

_replace(PlanActivities, "_advance", _advance)
_replace(ModelActivities, "_try_once", _try_once)
_replace(Run, "clear_status", _clear_status)
_replace(start, "carried_state", _carried_state)


if __name__ == "__main__":
    main()
