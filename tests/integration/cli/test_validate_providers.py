"""What `mandate validate` says of tools that vendors take in another form only, and of those that they never take."""

import json
from pathlib import Path
from typing import Any

import pytest

from mandate.workers.main import main
from mandate.workflows.contracts.base import JsonObject

URL = {"http": {"method": "GET", "url": "https://tickets.example.com/find"}, "effect": "read"}
FIND: JsonObject = {
    "type": "object",
    "properties": {"filter[id]": {"type": "string"}, "text": {"type": "string"}},
    "anyOf": [{"required": ["filter[id]"]}, {"required": ["text"]}],
}
MODELS = ("openai:gpt-6-sol", "anthropic:claude-sonnet-5-5", "openai:gpt-5.5", "vllm:llama")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "desk.yaml"


def write(path: Path, *tools: dict[str, Any], models: tuple[str, ...] = MODELS) -> None:
    agent = {"name": "desk", "instructions": "x", "models": list(models), "tools": [{**URL, **tool} for tool in tools]}
    path.write_text(json.dumps(agent))


def validate(capsys: pytest.CaptureFixture[str], path: Path, *more: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["validate", path.name, *more, "--color", "never"])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


TOLD = "'anyOf' at the top of its schema is told in its description"
CALLED = "argument 'filter[id]' is called 'filter_id'"


def test_what_is_rewritten_is_said_for_each_provider(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(path, {"name": "find", "input_schema": FIND}, {"name": "ping", "input_schema": {"type": "object"}})

    code, out, _ = validate(capsys, path)
    _, as_json, _ = validate(capsys, path, "-o", "json")

    assert code == 0
    assert [" ".join(line.split()) for line in out.splitlines() if "another form" in line] == [
        f"find is sent to openai, vllm in another form: {TOLD}",
        f"find is sent to anthropic in another form: {TOLD}; {CALLED}",
    ]
    assert json.loads(as_json)["agents"][0]["rewritten"] == [
        {"tool": "find", "providers": ["openai", "vllm"], "changes": [TOLD]},
        {"tool": "find", "providers": ["anthropic"], "changes": [TOLD, CALLED]},
    ]


def test_scripts_take_every_tool_as_it_is(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path.parent / "x.yaml").write_text("turns: [{say: Hello.}]")
    write(path, {"name": "find", "input_schema": FIND}, models=("scripted:x.yaml",))

    code, out, _ = validate(capsys, path)

    assert (code, "another form" in out) == (0, False)


def test_schema_that_no_provider_takes_is_a_fault(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schema: JsonObject = {"type": "object", "anyOf": [{"type": "string"}, {"type": "null"}]}
    write(path, {"name": "find", "input_schema": schema})

    code, _, err = validate(capsys, path)

    assert code == 2
    assert (
        "tools[0]: find: 'anyOf' at the top of its schema takes no object; "
        "openai, anthropic, vllm would refuse each request with it"
    ) in err


def test_more_tools_than_a_provider_takes_are_a_fault(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Three more are built in.
    write(path, *({"name": f"t{number}", "input_schema": {"type": "object"}} for number in range(126)))

    code, _, err = validate(capsys, path)

    assert code == 2
    assert (
        "models[0]: openai takes at most 128 tools, and this agent has 129, built-in ones included; "
        "choose tools with 'only', or models of another provider"
    ) in err


def test_as_many_tools_as_a_provider_takes_are_fine(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(path, *({"name": f"t{number}", "input_schema": {"type": "object"}} for number in range(125)))

    assert validate(capsys, path)[0] == 0
