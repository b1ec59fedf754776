"""A plan that is advanced without Temporal, on a store in memory: what its calls answer is up to the test."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from temporalio.testing import ActivityEnvironment

from mandate.activities.plan import PlanActivities
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.log import TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import canonical_json
from mandate.workflows.contracts.budget import Budget
from mandate.workflows.contracts.plan import AdvanceRequest, EndedCall, PlanSpec
from mandate.workflows.contracts.tool import CallRequest, PythonBinding, Tool, ToolDefinition, ToolResult
from mandate.workflows.contracts.transcript import TextPart, UserMessage
from tests.support.memory_store import MemoryStore

Answer = Callable[[CallRequest], ToolResult]

LOOK = ToolDefinition(
    tool=Tool(name="look", source="python", sensitive=("pin",)),
    input_schema={"type": "object"},
    binding=PythonBinding(kind="python", function="a:b"),
)


@dataclass
class Planned:
    """The run of a plan of steps that call the tool `look`."""

    steps: list[dict[str, Any]]
    given: Any = None
    keys: dict[str, Any] = field(default_factory=dict)
    store: MemoryStore = field(default_factory=MemoryStore)

    @property
    def blobs(self) -> Blobs:
        return Blobs(self.store)

    async def run(self, answer: Answer, *, at_once: int = 1, cost_usd: str = "0.1") -> list[str]:
        """Advance it to its end, so many calls ending together; return the head of each move."""
        plan = PlanSpec.model_validate({"name": "any", "steps": self.steps, **self.keys})
        pinned = PinnedAgent(
            name="any", instructions="", models=(), tools=(LOOK,), policy=(), attempts=3,
            budget=Budget(), output_schema=None, max_output_tokens=10, plan=plan,
        )  # fmt: skip
        blobs = self.blobs
        (agent,) = await blobs.put(canonical_json(pinned.model_dump(mode="json")))
        log = TranscriptLog(blobs)
        asked = UserMessage(role="user", parts=(TextPart(kind="text", text=json.dumps(self.given)),))
        heads = [(await log.start(agent, asked)).head]
        activities = PlanActivities(PinnedAgents(blobs), log)
        waiting: list[tuple[int, CallRequest]] = []
        made, ended = 0, tuple[EndedCall, ...]()
        while True:
            request = AdvanceRequest(agent=agent, head=heads[-1], ended=ended, step=len(heads))
            move = await ActivityEnvironment().run(activities.advance_plan, request)
            heads.append(move.head)
            waiting += enumerate(move.calls, made)
            made += len(move.calls)
            if move.end is not None:
                return heads
            ended = tuple(
                EndedCall(number=number, answer=answer(call), cost_usd=Decimal(cost_usd))
                for number, call in waiting[:at_once]
            )
            waiting = waiting[at_once:]
