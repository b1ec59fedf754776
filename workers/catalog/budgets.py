"""The file of budgets beyond one run, and what is wrong with it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from mandate.activities.documents import Document, Fault, in_order
from mandate.activities.files import FileError, read_spec
from mandate.workers.settings import Settings
from mandate.workflows.contracts.budget_file import EACH, BudgetFile
from mandate.workflows.contracts.faults import did_you_mean
from mandate.workflows.contracts.people import normalize_name

if TYPE_CHECKING:
    from mandate.activities.live_files import LiveFile
    from mandate.activities.people.directory import People


def budgets_path(settings: Settings) -> Path | None:
    """Return the file of budgets, or `None` when there is none and none was named."""
    return settings.budgets or (settings.default_budgets if settings.default_budgets.exists() else None)


def open_budgets(settings: Settings) -> "LiveFile[BudgetFile]":
    """Return the file of budgets for a worker, which reads it anew for each model call."""
    from mandate.activities.live_files import LiveFile  # noqa: PLC0415 - commands read the file once

    path = budgets_path(settings)
    return LiveFile(path or settings.default_budgets, BudgetFile, subject="budgets", is_needed=path is not None)


def read_budgets(settings: Settings) -> tuple[BudgetFile, Document] | None:
    """Read the file of budgets with its places; return `None` without one.

    Raises:
        FileError: all faults of the file.
    """
    path = budgets_path(settings)
    if path is None:
        return None
    if not path.is_file():
        message = "is not a file; MANDATE_BUDGETS or mandate.yaml names the file of budgets"
        raise FileError([Fault(str(path), 0, 0, "", "", message)])
    return read_spec(path, BudgetFile)


def faults_for(settings: Settings) -> tuple[Fault, ...]:
    """Return why no call could be made under the file of budgets."""
    try:
        read_budgets(settings)
    except FileError as error:
        return error.faults
    return ()


def warnings_for(
    settings: Settings, *, agents: Mapping[str, Sequence[str]], people: "People | None"
) -> tuple[Fault, ...]:
    """Warn of budgets in which no run of these agents and people ever counts, or none can make a call.

    `agents` are their names, each with its models whose price is not known. Needs a file without faults.
    """
    found = read_budgets(settings)
    return in_order(tuple(_warnings(*found, agents, people))) if found is not None else ()


def _warnings(
    file: BudgetFile, document: Document, agents: Mapping[str, Sequence[str]], people: "People | None"
) -> Iterator[Fault]:
    for position, budget in enumerate(file.budgets):
        if budget.cost_usd is not None:
            for agent, unpriced in agents.items():
                if unpriced and budget.agent in {None, EACH, agent}:
                    message = (
                        f"limits money, and no price is known for {', '.join(unpriced)} of the agent {agent!r}: no "
                        "call of them is sent in a run that counts here; add 'price' in its 'models', or 'prices'"
                    )
                    yield document.fault(("budgets", position, "cost_usd"), message, str(budget.cost_usd))
        if budget.agent not in {None, EACH, *agents}:
            assert budget.agent is not None
            hint = did_you_mean(budget.agent, agents)
            message = (
                f"names the agent {budget.agent!r}, which is not here{hint} there are {', '.join(agents) or 'none'}"
            )
            yield document.fault(("budgets", position, "agent"), message, budget.agent)
        if budget.requester in {None, EACH} or people is None:
            continue
        assert budget.requester is not None
        if (why := _find_misnaming(budget.requester, people)) is not None:
            yield document.fault(("budgets", position, "requester"), why, budget.requester)


def _find_misnaming(requester: str, people: "People") -> str | None:
    """Return why no run is asked for under this name, or `None`."""
    known = people.find(requester)
    if known is None:
        names = [person.name for person in people.everybody]
        hint = did_you_mean(requester, names).rstrip(";")
        return f"names the requester {requester!r}, whom the file of people does not have{hint}"
    if normalize_name(known.name) != normalize_name(requester):
        return f"{requester!r} is an address of {known.name!r}, under whose name their runs count; write that name"
    return None


def budgets_schema() -> dict[str, JsonValue]:
    """Return the JSON Schema of the file of budgets, for editors."""
    schema = BudgetFile.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | {"title": "Mandate file of budgets"}
