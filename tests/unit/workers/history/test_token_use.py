"""Tokens of each step's request, by what they were for."""

from io import StringIO

import pytest
from rich.console import Console

from mandate.activities.context.sizes import measure_agent
from mandate.workers.cli.runs import token_bars
from mandate.workers.history.token_use import PARTS, StepTokens, TokenMeter
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.budget import Budget
from mandate.workflows.contracts.context import ContextSpec
from mandate.workflows.contracts.transcript import (
    AssistantMessage,
    CallPart,
    Cut,
    Measured,
    Message,
    ResultPart,
    Segment,
    TextPart,
    UserMessage,
)

DIGEST = "a" * 43
AGENT = PinnedAgent(
    name="a",
    instructions="Look all up. " * 20,
    models=("openai:m",),
    tools=(),
    policy=(),
    context=ContextSpec(pin=("Never pay twice.",)),
    max_output_tokens=100,
    output_schema=None,
    budget=Budget(),
    attempts=3,
)
CALL = AssistantMessage(
    role="assistant",
    parts=(CallPart(kind="call", call_id="c", tool="look", arguments="{}"),),
    protocol="openai.responses",
    model="m",
)


def told(text: str) -> UserMessage:
    return UserMessage(role="user", parts=(TextPart(kind="text", text=text),))


def result(text: str) -> UserMessage:
    return UserMessage(role="user", parts=(ResultPart(kind="result", call_id="c", tool="look", text=text),))


def segment(position: int, *messages: Message, tokens: int | None = None, cut: Cut | None = None) -> Segment:
    measured = Measured(model="openai:m", input_tokens=tokens, output_tokens=5) if tokens is not None else None
    return Segment(
        previous=DIGEST if position else None,
        position=position,
        agent=DIGEST,
        messages=messages,
        measured=measured,
        cut=cut,
    )


def read(*segments: Segment) -> list[StepTokens]:
    meter = TokenMeter()
    return [step for each in segments for step in meter.read(each, AGENT)]


def test_the_parts_of_each_step_make_up_what_the_model_reported() -> None:
    goal = told("The goal. " * 10)
    steps = read(
        segment(0, goal),
        segment(1, CALL, tokens=200),
        segment(2, result("found it " * 50), CALL, tokens=400),
        segment(
            3, cut=Cut(messages=(goal, told("The note. " * 30), CALL, result("x")), number=1, count=5, kept_from=0)
        ),
        segment(4, CALL, tokens=300),
    )

    assert [(step.step, step.tokens, step.is_reported, step.is_cut) for step in steps] == [
        (1, 200, True, False),
        (2, 400, True, False),
        (3, 300, True, True),
    ]
    assert all(sum(step.parts.values()) == pytest.approx(step.tokens, abs=3) for step in steps)
    assert [tuple(name for name in PARTS if step.parts[name]) for step in steps] == [
        ("instructions", "pinned"),
        ("instructions", "pinned", "messages", "results"),
        ("instructions", "pinned", "summary", "messages", "results"),
    ]


def test_a_step_without_a_report_is_estimated() -> None:
    (step,) = read(segment(0, told("Go.")), segment(1, CALL))

    assert not step.is_reported
    assert step.tokens == pytest.approx(measure_agent(AGENT).total + 7, abs=1)


def test_bars_are_as_long_as_requests_are_large() -> None:
    parts = dict.fromkeys(PARTS, 0) | {"instructions": 100, "results": 300}
    step = StepTokens(1, 400, is_reported=True, is_cut=False, parts=parts)

    assert token_bars.write_bar(step, 400).plain == "I" * 15 + "R" * 45
    assert token_bars.write_bar(step, 800).plain == "I" * 8 + "R" * 22


class Printed:
    """In place of `Output`: what is printed, without colours."""

    def __init__(self) -> None:
        self.console = Console(file=StringIO(), width=200, color_system=None)

    def print(self, *parts: object) -> None:
        for part in parts:
            self.console.print(part)

    @property
    def text(self) -> str:
        file = self.console.file
        assert isinstance(file, StringIO)
        return file.getvalue()


def test_a_run_is_shown_with_a_legend_and_a_sum() -> None:
    parts = dict.fromkeys(PARTS, 0) | {"pinned": 600}
    first = StepTokens(9, 600, is_reported=True, is_cut=False, parts=parts)
    second = StepTokens(10, 300, is_reported=False, is_cut=True, parts={**parts, "pinned": 300})
    printed = Printed()

    token_bars.print_bars(printed, [first, second])  # type: ignore[arg-type] # all that it uses

    assert printed.text == (
        "a bar a step; I instructions, P pinned, S summary, M messages, R results\n\n"
        f" 9  600  {'P' * 60}\n10  300~ {'P' * 30}  cut\n\n900 input tokens in 2 steps; cut once\n"
    )
