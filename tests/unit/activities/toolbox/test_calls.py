"""Calls of one answer, as the workflow is told of them."""

import pytest

from mandate.activities.toolbox.calls import read_calls
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.budget import Budget
from mandate.workflows.contracts.model import Finish
from mandate.workflows.contracts.tool import CallRequest
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart
from tests.support.prompts import tool

OPEN: JsonObject = {"type": "object", "additionalProperties": True}
NONE: JsonObject = {"type": "object", "properties": {}, "additionalProperties": False}
SOME: JsonObject = {**NONE, "properties": {"text": {"type": "string"}}}


def ask(name: str, arguments: str, finish: Finish = Finish.COMPLETE) -> CallRequest:
    agent = PinnedAgent(
        name="asks",
        instructions="",
        models=("openai:gpt-6-sol",),
        tools=(tool("ping", NONE), tool("note", SOME), tool("anything", OPEN)),
        policy=(),
        attempts=3,
        budget=Budget(),
        output_schema=None,
        max_output_tokens=100,
    )
    call = CallPart(kind="call", call_id="c1", tool=name, arguments=arguments)
    message = AssistantMessage(role="assistant", parts=(call,), protocol="openai.chat", model="m")
    return read_calls(agent, (), message, finish, salt=None)[0]


EMPTY = "not called: its arguments are empty; write {} to call it with none"


@pytest.mark.parametrize(
    ("name", "arguments", "misfit"),
    [
        ("ping", "", None),
        ("ping", "null", None),
        ("ping", "{}", None),
        ("note", "{}", None),
        ("note", "", EMPTY),
        ("note", " \n", EMPTY),
        ("note", "null", "not called: the arguments must be a JSON object, not null"),
        ("note", "[]", "not called: the arguments must be a JSON object, not a list"),
        ("anything", "", EMPTY),
        ("", "{}", "not called: the call names no tool; there are: ping, note, anything"),
        ("nope", "{}", "not called: there is no tool 'nope'; there are: ping, note, anything"),
    ],
)
def test_no_tool_runs_with_arguments_that_nobody_chose(name: str, arguments: str, misfit: str | None) -> None:
    call = ask(name, arguments)

    assert (call.tool, call.arguments, call.misfit) == (name, {}, misfit)
    assert (call.digest is None) is (misfit is not None)


def test_call_of_a_cut_answer_is_not_made() -> None:
    assert ask("note", "{}", Finish.TRUNCATED).misfit == (
        "not called: the answer was cut off at the output limit; call it again"
    )
