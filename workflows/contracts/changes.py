"""Changes of what a run does or in which order: each run keeps to those that it began with.

Histories of older runs are replayed by the same code, so each branch for them names its change here. A member goes,
with its histories, when the changelog says that no run from before it can be open.
"""

from enum import Enum, unique
from typing import Literal

from mandate.workflows.contracts.agent import AgentPin


@unique
class Change(Enum):
    """A change, by the field of the pin that tells of it, the first value that has it, and one sentence."""

    ASKS_UNMATCHED = "asks", 1, "A call that no rule matches is asked for, not refused."
    HIDES_SENSITIVE = "hides", 1, "Sensitive arguments are known by reference, and not taken in the clear."

    CHECKS_CONTROL = "controls", 1, "Who steers, pauses, resumes or stops the run is looked up first."

    ESCALATES = "recovers", 1, "People say how a run goes on that cannot go on by itself; it does not end."
    RECONCILES = "recovers", 1, "The unknown outcome of an effect is looked up, by a probe or a person."
    REFUSES_REPEATED = "recovers", 1, "A call that failed for good is not made again as it is."

    PUBLISHES_ESCALATIONS = "loop", 1, "Lists of runs follow whom a request waits for after an escalation."
    ESCALATES_IN_TIME = "loop", 1, "A decision meets its request as it is by the clock, before the timer fires."
    TAINTS_LOOKUPS = "loop", 1, "What probes and checks of untrusted tools return taints the run."
    COUNTS_MESSAGES = "loop", 1, "Every message counts towards the limit of messages, not only decisions."
    WEIGHS_SIGNALS = "loop", 1, "Signals that come together are read up to a limit."
    COUNTS_MISFITS = "loop", 1, "A call that does not fit its tool counts as a failed attempt."
    TELLS_ATTEMPTS = "loop", 1, "The model is told how many attempts are left."
    KEEPS_SPOILED = "loop", 1, "An effect that fails its check is never made again as it is, and its result is unfit."
    HOLDS_BEFORE_ATTEMPTS = "loop", 1, "A stop or a pause holds before each new attempt, check and model."
    PROBES_BY_KEY = "loop", 1, "Checks know the call's key, and whether its result was lost."
    CHECKS_BY_FACTS = "loop", 1, "Conditions of checks see the run as the rules saw it for the call."
    SUMS_ATTEMPTS = "loop", 1, "Attempts under one key are counted together."
    REUSES_VALID_KEYS = "loop", 1, "A call is made again under its key for as long as the other side knows the key."
    JOINS_ATTEMPTS = "loop", 1, "Attempts of another worker's idempotent activity are made one by one and joined."
    LIMITS_EDITS = "loop", 1, "Changed arguments of one turn are limited together."
    HEARS_LATE_WORDS = "loop", 1, "Words that come with the last answer are told if a step is left."

    DEFERS_DECISIONS = "loop", 2, "A crowded run keeps decisions that come by signal."
    LOOKS_UP_TOGETHER = "loop", 2, "Decisions that come together are looked up together."

    WAITS_OUT = "loop", 3, "A call that may be repeated has patience; the run waits between its later attempts."
    EXCUSES_AGENT = "loop", 3, "What people refused, and what the other side was down for, is no attempt of the agent."
    ACTS_LOCALLY = "loop", 3, "Reads, checks and lookups of decisions that are quick are local activities."
    REPEATS_TOLD_FAILURES = "loop", 4, "A call that an MCP server says has failed has patience when it is made again."
    HEEDS_DELAYS = "loop", 4, "An error of another worker that says when to try again is tried again then."
    ACCEPTS_RESULTS = "loop", 3, "What has failed can be accepted as it is only where there is a result or an answer."

    KEEPS_BUDGET = "loop", 4, "What a run spends is reserved first, and its last answer is kept back."
    FOLLOWS_ROUTE = "loop", 4, "Conditions, prices and latencies choose among the models of a route."
    CUTS_CONTEXT = "loop", 4, "The conversation is cut before it is too long for the model."

    TELLS_NEXT_STEP = "loop", 5, "Who is asked to raise a limit of whatever kind is told what the next step would take."
    KEEPS_TIME = "loop", 5, "Time is kept back for the last answer, and no call or wait for people goes into it."
    COUNTS_LAST_STEP = "loop", 5, "The last answer is a step, and is not asked for where none is left."
    REFUSES_LATE_WORDS = "loop", 5, "Words are refused that no step can be told, by the limit as it is by now."
    OFFERS_RAISES = (
        "loop",
        5,
        "A raise is offered only of a limit that may be raised, and has to raise the one that is used up.",
    )
    KNOWS_NO_LIMIT = "loop", 5, "What is left of money that is not limited is nothing that a condition can read."
    SPENDS_LIMITS = (
        "loop",
        5,
        "A run that ends at its limits keeps nothing back for a last answer that nobody asks for.",
    )
    COUNTS_CALLS_ONCE = "loop", 6, "A call that waits while the run continues as new is counted once."

    ENDS_WAITS = "loop", 7, "Nobody is waited for beyond the time of the run, whatever people are asked."

    @property
    def field(self) -> Literal["asks", "hides", "controls", "recovers", "loop"]:
        return self.value[0]

    @property
    def first(self) -> int:
        return self.value[1]

    def is_in(self, agent: AgentPin) -> bool:
        """Tell whether a run with this pin began after the change."""
        match self.field:
            case "asks":
                return agent.asks
            case "hides":
                return agent.hides
            case "controls":
                return agent.controls
            case "recovers":
                return agent.recovers
            case "loop":
                return agent.loop >= self.first


PINS_LOCALLY = "pins-locally"
"""Patch of a run that pins its agent in a local activity: it has no pin yet that could tell of a change."""

LOOP = max(change.first for change in Change if change.field == "loop")
"""Value of the pin's `loop` in runs that begin today."""
