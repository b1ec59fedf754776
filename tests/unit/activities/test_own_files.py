"""What a worker's files name, and calls of tools that only another worker's files name."""

from dataclasses import dataclass
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from mandate.activities.own_files import OwnFiles, OwnToolbox, collect_named
from mandate.activities.own_scripts import OwnScripts
from mandate.activities.tool_error import ToolError
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.budget import Budget
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.tool import ToolDefinition

MCP = {"name": "files", "command": ["npx", "files"], "env": {"TOKEN": "${secret:FILES}"}}
HTTP = {
    "kind": "http",
    "method": "POST",
    "url": "https://tickets.example.com/api/{queue}/tickets",
    "headers": {"Authorization": "Bearer ${secret:TICKETS}"},
}


def definition(binding: dict[str, Any], name: str = "it") -> ToolDefinition:
    source = binding["kind"]
    return ToolDefinition.model_validate(
        {"tool": {"name": name, "source": source}, "input_schema": {"type": "object"}, "binding": binding}
    )


def agent(*bindings: dict[str, Any]) -> PinnedAgent:
    return PinnedAgent(
        name="own",
        instructions="x",
        models=("scripted:own.yaml", "openai:gpt-6-sol"),
        tools=tuple(map(definition, bindings)),
        policy=(),
        attempts=3,
        budget=Budget(),
        output_schema=None,
        max_output_tokens=100,
    )


OWN = collect_named(
    [
        agent({"kind": "python", "function": "shop:pay"}, {"kind": "mcp", "server": MCP, "tool": "read"}, HTTP),
        agent({**HTTP, "url": "https://tickets.example.com/v2", "headers": {"X-Team": "a"}}),
    ]
)


@pytest.mark.parametrize(
    ("binding", "is_own"),
    [
        ({"kind": "python", "function": "shop:pay"}, True),
        ({"kind": "python", "function": "shop:refund"}, False),
        ({"kind": "python", "function": "os:system"}, False),
        ({"kind": "mcp", "server": MCP, "tool": "read"}, True),
        # another tool of the same server, which an older version of the file named
        ({"kind": "mcp", "server": MCP, "tool": "write"}, True),
        ({"kind": "mcp", "server": {**MCP, "command": ["sh", "-c", "id"]}, "tool": "read"}, False),
        ({"kind": "mcp", "server": {**MCP, "env": {"TOKEN": "${secret:OTHER}"}}, "tool": "read"}, False),
        ({"kind": "mcp", "server": {**MCP, "env": {**MCP["env"], "LD_PRELOAD": "x"}}, "tool": "read"}, False),  # type: ignore[dict-item]
        ({"kind": "mcp", "server": {"name": "files", "url": "https://files.example.com"}, "tool": "read"}, False),
        (HTTP, True),
        ({**HTTP, "url": "https://TICKETS.example.com/api/other", "method": "GET"}, True),
        ({**HTTP, "url": "https://tickets.example.com.evil.example/api"}, False),
        ({**HTTP, "url": "http://tickets.example.com/api"}, False),
        ({**HTTP, "url": "https://tickets.example.com:8443/api"}, False),
        ({**HTTP, "url": "https://user@evil.example/?https://tickets.example.com/"}, False),
        ({**HTTP, "headers": {"Authorization": "Bearer ${secret:DATABASE}"}}, False),
        ({**HTTP, "headers": {"X-Copy": "Bearer ${secret:TICKETS}"}}, False),
        ({**HTTP, "headers": {}}, True),
        ({"kind": "activity", "activity": {"name": "ChargeCard", "task_queue": "payments"}}, True),
        ({"kind": "builtin"}, True),
    ],
)
def test_only_what_own_files_name_is_run(binding: dict[str, Any], is_own: bool) -> None:
    assert (OWN.refusal(definition(binding)) is None) is is_own


async def test_call_of_another_workers_tool_is_not_sent_and_may_be_tried_again() -> None:
    class Box:
        async def call(self, *_: Any) -> Any:
            raise AssertionError("called")

        async def close(self) -> None: ...

    with pytest.raises(ToolError) as refused:
        await OwnToolbox(Box(), OWN).call(definition({"kind": "python", "function": "shop:refund"}), {}, None)  # type: ignore[arg-type]

    assert refused.value.outcome is Outcome.NOT_SENT
    assert refused.value.retry_after == 15
    assert refused.value.reason == (
        "the files of this worker do not name the function 'shop:refund', which tool 'it' needs"
    )


def test_worker_without_agents_runs_nothing() -> None:
    assert OwnFiles().refusal(definition({"kind": "python", "function": "shop:pay"})) is not None


class Player:
    """Plays every script."""

    async def complete(self, prompt: Any) -> Any:
        return prompt.model

    async def close(self) -> None: ...


@dataclass
class Asked:
    model: str
    attempt: int = 1


@pytest.mark.parametrize(
    ("script", "played"),
    [
        ("own.yaml", True),
        ("of-an-older-file.yaml", True),
        ("folder/other.yaml", True),
        ("/etc/passwd", False),
        ("../../secrets/keys.yaml", False),
        ("folder/../../keys.yaml", False),
    ],
)
async def test_scripts_are_read_in_own_folders_only(script: str, played: bool) -> None:
    player = OwnScripts(Player(), OWN)

    if played:
        assert await player.complete(Asked(script)) == script  # type: ignore[arg-type]
        return
    with pytest.raises(ApplicationError, match=f"the files of this worker do not name the script '{script}'"):
        await player.complete(Asked(script))  # type: ignore[arg-type]
