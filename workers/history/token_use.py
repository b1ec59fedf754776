"""Tokens of each request of a run, and what they were for, from the conversation as it is stored."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from mandate.activities.context.estimate import measure_text
from mandate.activities.context.sizes import measure_agent, measure_message
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.transcript import AssistantMessage, Message, ResultPart, Segment, UserMessage

PARTS = ("instructions", "pinned", "summary", "messages", "results")
"""`instructions` with tools; `pinned` texts and the run's input; `summary`: what a cut says in place of the rest."""


@dataclass(frozen=True, slots=True)
class StepTokens:
    """Tokens of the request of one step."""

    step: int
    tokens: int
    """As the model reported them, else as they are estimated."""
    is_reported: bool
    is_cut: bool
    """The conversation was cut for it."""
    parts: Mapping[str, int]
    """Tokens by what they are for, in the order of `PARTS`: the shares are estimates."""

    def to_json(self) -> dict[str, JsonValue]:
        return {
            "step": self.step,
            "tokens": self.tokens,
            "reported": self.is_reported,
            "cut": self.is_cut,
            "parts": dict(self.parts),
        }


class TokenMeter:
    """Reader of segments, oldest first."""

    def __init__(self) -> None:
        self._sums = dict.fromkeys(PARTS, 0)
        self._step = 0
        self._is_cut = False
        self._fixed = ("", 0, 0)

    def read(self, segment: Segment, agent: PinnedAgent) -> Iterator[StepTokens]:
        """Yield the step of each answer in `segment`."""
        if segment.agent != self._fixed[0]:
            pins = sum(measure_text(text).total for text in agent.context.pin)
            self._fixed = (segment.agent, measure_agent(agent).total - pins, pins)
        if segment.cut is not None:
            self._sums, self._is_cut = dict.fromkeys(PARTS, 0), True
            for place, message in enumerate(segment.cut.messages):
                self._add(message, ("pinned", "summary")[place] if place < 2 else None)
            return
        for message in segment.messages:
            if isinstance(message, AssistantMessage):
                self._step += 1
                yield self._measure(segment)
            is_first = segment.position == 0 and isinstance(message, UserMessage)
            self._add(message, "pinned" if is_first else None)

    def _add(self, message: Message, part: str | None) -> None:
        size = measure_message(message).total
        results = sum(measure_text(each.text).total for each in message.parts if isinstance(each, ResultPart))
        if part is not None:
            self._sums[part] += size
            return
        self._sums["results"] += results
        self._sums["messages"] += size - results

    def _measure(self, segment: Segment) -> StepTokens:
        _, instructions, pins = self._fixed
        sums = self._sums | {"instructions": instructions, "pinned": self._sums["pinned"] + pins}
        total = sum(sums.values())
        reported = segment.measured.input_tokens if segment.measured is not None else 0
        scale = reported / total if reported and total else 1.0
        parts = {name: round(size * scale) for name, size in sums.items()}
        is_cut, self._is_cut = self._is_cut, False
        return StepTokens(self._step, reported or total, bool(reported), is_cut, parts)
