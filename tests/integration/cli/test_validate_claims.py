"""What an MCP server claims of its tools is shown by `mandate validate`, and is believed by nobody."""

import json
from pathlib import Path
from typing import Any

import pytest

from mandate.workers.main import main
from tests.integration.tools.test_toolbox_mcp import listed
from tests.support.mcp_peer import BARE_COMMAND

HINTS: dict[str, dict[str, bool] | None] = {
    "peek": {"readOnlyHint": True, "idempotentHint": True},
    "put": {"readOnlyHint": False, "idempotentHint": True, "destructiveHint": True},
    "wipe": {"destructiveHint": True, "openWorldHint": True},
    "quiet": {"readOnlyHint": False},
    "silent": None,
}
CLAIMS = {"peek": ["only reads", "idempotent"], "put": ["idempotent", "destructive"], "wipe": ["destructive"]}
EFFECTS = {"peek": "once", "put": "keyed", "wipe": "once", "quiet": "once", "silent": "once"}
"""As the agent file says; `once` where it says nothing."""


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    """An agent with a server that says all this."""
    tools = [listed(name, **({} if hints is None else {"annotations": hints})) for name, hints in HINTS.items()]
    plan = {"pages": [tools], "calls": {}}
    env = {"PLAN": json.dumps(plan), "JOURNAL": str(tmp_path / "journal")}
    server = {"name": "peer", "command": [*BARE_COMMAND, "planned"], "env": env}
    wanted = {
        "name": "desk",
        "instructions": "x",
        "models": ["scripted:x.yaml"],
        "tools": [{"mcp": server, "effects": {"put": "keyed"}}],
    }
    (tmp_path / "x.yaml").write_text("turns: [{say: Hello.}]")
    (tmp_path / "desk.yaml").write_text(json.dumps(wanted))
    return tmp_path / "desk.yaml"


def validated(capsys: pytest.CaptureFixture[str], path: Path, *more: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["validate", str(path), *more, "--color", "never"])
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    return said.out


def test_claims_are_printed_beside_the_source(
    agent: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:

    lines = validated(capsys, agent).splitlines()

    rows = {words[0]: [cell.strip() for cell in line.split("  ") if cell] for line in lines if (words := line.split())}
    assert {name: rows[name][1:3] for name in HINTS} == {
        "peek": ["once", "mcp, says: only reads, idempotent"],
        "put": ["keyed", "mcp, says: idempotent, destructive"],
        "wipe": ["once", "mcp, says: destructive"],
        "quiet": ["once", "mcp"],
        "silent": ["once", "mcp"],
    }
    opening = "no rule allows peek, put, wipe, quiet, silent: each call waits for a person; allow it in `policy`"
    assert f"  {opening}" in lines


def test_claims_are_in_the_json(agent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(validated(capsys, agent, "-o", "json"))

    tools: dict[str, dict[str, Any]] = {tool["name"]: tool for tool in told["agents"][0]["tools"]}
    assert {name: tools[name]["claims"] for name in HINTS} == {name: CLAIMS.get(name, []) for name in HINTS}
    assert {name: tools[name]["effect"] for name in HINTS} == EFFECTS
    assert not any(tools[name]["allowed"] for name in HINTS)
    assert [tool["claims"] for name, tool in tools.items() if name not in HINTS] == [[]] * (len(tools) - len(HINTS))
