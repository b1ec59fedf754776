"""Requests that start runs, read from what a caller gives: all that does not fit is told before anything is sent."""

import secrets
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mandate.workers.client import messages
from mandate.workflows.contracts.plan import PlanRequest
from mandate.workflows.contracts.run import StartRequest
from mandate.workflows.rules import input_size, validation, wording

R = TypeVar("R", bound=BaseModel)


def read_start(given: dict[str, Any]) -> StartRequest:
    """Return a request for a run of an agent.

    Raises:
        ValueError: a value does not fit or is too large; the sentence names the field and what is allowed.
    """
    request = _read(StartRequest, given)
    if (excess := input_size.find_excess(request.input)) is not None:
        raise ValueError(f"input: {excess}")
    return request


def read_plan_start(given: dict[str, Any]) -> PlanRequest:
    """Return a request for a run of a plan; raise as `read_start`."""
    return _read(PlanRequest, given)


def read_workflow_id(given: str | None) -> str | None:
    """Return the workflow id that a caller gives, if it does.

    Raises:
        ValueError: it is no text, or an empty one.
    """
    if given is not None and (not isinstance(given, str) or not given.strip()):
        raise ValueError(f"workflow_id: {given!r} is no id; give a text that is not empty, or leave it out")
    return given


def to_plain(value: object) -> Any:
    """Return a mapping of any kind as one that is checked like JSON; everything else is checked as it is."""
    return dict(value) if isinstance(value, Mapping) else value


def summarize(request: StartRequest | PlanRequest) -> str:
    """Return the line by which Temporal's Web UI tells a run."""
    if isinstance(request, StartRequest):
        return f"{request.agent}: {wording.shorten(str(request.input), 100)}"
    return f"plan {name_plan(request)}"


def name_plan(request: PlanRequest) -> str:
    return request.plan if isinstance(request.plan, str) else request.plan.name


def new_workflow_id(agent: str) -> str:
    """Return an id that says whose run it is."""
    return f"{agent}-{secrets.token_hex(4)}"


def _read(model: type[R], given: dict[str, Any]) -> R:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        said = validation.sentences(error, model, unshown=("input", "token"), forms={"requester": messages.NAME})
        raise ValueError(said) from None
