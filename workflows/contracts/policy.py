"""Rules over tool calls, and what judging a call by them says."""

from typing import Literal

from pydantic import Field

from workflows.contracts.base import Name, Record, Spec
from workflows.contracts.tool import Effect, ToolSource


class Match(Spec):
    """Which calls a rule is about; every key given must fit, and no key at all fits every call."""

    tools: tuple[str, ...] | None = Field(default=None, min_length=1, description="Names; `*` stands for any text.")
    effects: tuple[Effect, ...] | None = Field(default=None, min_length=1, description="Effects of the tool.")
    tags: tuple[str, ...] | None = Field(default=None, min_length=1, description="The tool has one of these tags.")
    sources: tuple[ToolSource, ...] | None = Field(default=None, min_length=1, description="Where the tool is from.")


class Rule(Spec):
    """One rule of a policy."""

    id: Name = Field(description="Named in every verdict that the rule decides.")
    match: Match = Field(description="Which calls the rule is about.")
    verdict: Literal["allow", "deny"] = Field(description="What becomes of a call that it matches.")


class Verdict(Record):
    """What becomes of one call."""

    allowed: bool
    rule: str | None = None
    """The rule that decided, or `None` when none matched."""
    reason: str
    """One sentence for people and for the model."""
