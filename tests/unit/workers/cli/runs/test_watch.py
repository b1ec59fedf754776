"""Lines of a run that is followed."""

import pytest

from mandate.workers.cli.runs.watch import call_line
from mandate.workers.history.events import Call
from mandate.workflows.contracts.question import ServerQuestion, ServerQuestions
from mandate.workflows.contracts.tool import CallRequest, ToolResult


def returned(**result: object) -> Call:
    request = CallRequest.model_validate({"tool": "ship", "arguments": {"order": 5}})
    return Call(request, "ship order=5", None, state="failed", result=ToolResult.model_validate(result))


ASKING = ServerQuestions(
    server="shop",
    state="s" * 43,
    round=1,
    questions=(ServerQuestion(key="k", text="Ship it?", form=None),),
    is_not_done=True,
)


@pytest.mark.parametrize(
    ("result", "line"),
    [
        ({"text": "sold out", "error": True}, "ship order=5 → error: sold out"),
        (
            {"text": "MCP server 'shop' asks, and nobody is asked here", "error": True, "asking": ASKING},
            "ship order=5 → MCP server 'shop' asks before it goes on",
        ),
    ],
)
def test_call_is_told_with_what_became_of_it(result: dict[str, object], line: str) -> None:
    assert call_line(returned(**result)).plain == line
