"""Context: what a run does with a conversation that grows beyond what a model takes."""

from pydantic import Field, field_validator

from mandate.workflows.contracts.base import Spec
from mandate.workflows.contracts.faults import given_twice, refuse
from mandate.workflows.contracts.route import ModelName


class SummarySpec(Spec):
    """Summary of what a cut leaves out: who writes it, and what it must hold."""

    models: tuple[ModelName, ...] = Field(
        default=(), description="A route for summaries; left out: the model that the run asks."
    )
    instructions: str = Field(
        default="", max_length=8000, description="What must not be missing in a summary, in words for that model."
    )

    @field_validator("models")
    @classmethod
    def _models_differ(cls, models: tuple[ModelName, ...]) -> tuple[ModelName, ...]:
        refuse(given_twice(models))
        return models


class ContextSpec(Spec):
    """Limits within which the conversation is kept in the model's window."""

    limit: float | None = Field(
        default=None,
        ge=0.1,
        le=0.95,
        allow_inf_nan=False,
        description="Share of the window at which it is cut; left out: 0.75, and below the edge of a higher price.",
    )
    keep: int = Field(default=20, ge=2, le=1000, description="Newest messages that a cut leaves as they are.")
    summary: SummarySpec | None = Field(
        default=None, description="Sum up what shrinking alone does not make room for; left out: it is left out."
    )
    pin: tuple[str, ...] = Field(
        default=(), max_length=50, description="Texts that every request has, whatever is cut, for example a rule."
    )
    recall: bool = Field(
        default=True, description="Let the model read again what a cut left out, by the tool `read_result`."
    )

    @field_validator("pin")
    @classmethod
    def _say_something(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        refuse([((place,), "must not be empty") for place, text in enumerate(texts) if not text.strip()])
        return texts
