"""Where client code starts runs."""

import re
from typing import Any, cast

import pytest
from temporalio.client import Client

from mandate.workers.client.client import AgentClient


class Started:
    """In place of a connection: what it was asked to start."""

    task_queue: str = ""

    async def start_workflow(self, _name: str, _request: Any, *, task_queue: str, **_options: Any) -> None:
        self.task_queue = task_queue


@pytest.mark.parametrize(
    ("environment", "given", "queue"),
    [(None, None, "agents"), ("own", None, "own"), ("own", "other", "other"), ("", None, "agents")],
)
async def test_runs_start_where_the_workers_of_the_environment_poll(
    monkeypatch: pytest.MonkeyPatch, environment: str | None, given: str | None, queue: str
) -> None:
    monkeypatch.delenv("MANDATE_TASK_QUEUE", raising=False)
    if environment is not None:
        monkeypatch.setenv("MANDATE_TASK_QUEUE", environment)
    started = Started()

    await AgentClient(cast(Client, started), given).start("till", "hi")

    assert started.task_queue == queue


NO_ID = "is no id; give a text that is not empty, or leave it out"


@pytest.mark.parametrize(
    ("method", "words", "options", "sentence"),
    [
        ("start", ("till", ["a"]), {}, "input: is neither a text nor an object"),
        ("start", ("till", 3), {}, "input: is neither a text nor an object"),
        ("start", ("till", "hi"), {"labels": ["a"]}, "labels: a list is not an object"),
        ("start", ("till", "hi"), {"budget": ["a"], "steps": 3}, "budget: a list is not an object"),
        ("start", ("till", "hi"), {"session": 3}, "session: 3 is not an object"),
        ("start", ("till", "hi"), {"continues": "x-1"}, "continues: 'x-1' is not an object"),
        ("start", ("till", "hi"), {"workflow_id": ""}, f"workflow_id: '' {NO_ID}"),
        ("start", (3, "hi"), {}, "agent: 3 is not a text"),
        ("start_plan", ("news",), {"labels": 3}, "labels: 3 is not an object"),
        ("start_plan", ("news",), {"budget": "0.50"}, "budget: '0.50' is not an object"),
        ("start_plan", ("news",), {"workflow_id": 3}, f"workflow_id: 3 {NO_ID}"),
        ("run_plan", ("news",), {"workflow_id": " "}, f"workflow_id: ' ' {NO_ID}"),
        ("say", ("s", "till", "hi"), {"by": "ann", "labels": ["a"]}, "labels: a list is not an object"),
        ("say", ("", "till", "hi"), {"by": "ann"}, f"workflow_id: '' {NO_ID}"),
        ("say", ("s", "till", ["hi"]), {"by": "ann"}, "text: is not a text"),
    ],
)
async def test_what_does_not_fit_is_refused_by_name(
    method: str, words: tuple[Any, ...], options: dict[str, Any], sentence: str
) -> None:
    agents = AgentClient(cast(Client, Started()), "agents")

    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        await getattr(agents, method)(*words, **options)


async def test_message_id_that_is_none_is_told_in_words() -> None:
    agents = AgentClient(cast(Client, Started()), "agents")

    with pytest.raises(ValueError, match=r"^id: 'a b' is not a name of characters of ASCII without spaces$"):
        await agents.say("s", "till", "hi", by="ann", message_id="a b")
