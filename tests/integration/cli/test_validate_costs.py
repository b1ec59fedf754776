"""What `mandate validate` says of what agents can cost."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from mandate.workers.main import main

LIST = f"genai-prices {version('genai-prices')}"
SOL = f"call openai:gpt-6-sol: at most $5.3729 at a full window of 1,050,000 tokens ({LIST})"
"""1,050,000 * 5 + 8192 * 15, above the edge of its tier."""
OWN = '{model: "vllm:own", price: {input: "0.10", output: "0.40"}, window: 10000, max_output_tokens: 1000}'
JUDGE = "{after: final, rubric: It is true., model: vllm:judge}"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    return tmp_path / "desk.yaml"


def validate(capsys: pytest.CaptureFixture[str], path: Path, text: str, *more: str) -> tuple[int, str, str]:
    path.write_text(f"name: desk\ninstructions: Help.\n{text}")
    with pytest.raises(SystemExit) as ended:
        main(["validate", path.name, *more, "--color", "never"])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            'models: [openai:gpt-6-sol]\nbudget: {cost_usd: "2.00"}\n',
            ["cost at most $2.00 a run, by 'cost_usd'", SOL],
        ),
        (
            'models: [openai:gpt-6-sol]\nbudget: {cost_usd: "2.50", when_used_up: ask, raise_at_most: {cost_usd: 5}}\n',
            ["cost at most $2.50 a run, by 'cost_usd'; people may raise it to at most $5.00", SOL],
        ),
        (
            f"models: [{OWN}]\nbudget: {{model_calls: 60, when_used_up: ask}}\n",
            [
                "cost at most $0.084 a run, by 'model_calls': 60 at a full window, $0.0014 each; people may raise it",
                "call vllm:own: at most $0.0014 at a full window of 10,000 tokens (agent file)",
            ],
        ),
        (
            f"models: [openai:gpt-6-sol]\nchecks: [{JUDGE}]\n",
            [
                (
                    "cost at most $214.9152 a run, by 'steps': 40 at a full window, $5.3729 each; "
                    "retries and checks are not counted"
                ),
                SOL,
                "call vllm:judge: unknown, no price is known",
            ],
        ),
        (
            'models: [{model: "vllm:own", price: {input: "0.10", output: "0.40"}}]\nbudget: {tokens: 400000}\n',
            [
                "cost at most $0.16 a run, by 'tokens': 400,000 at the dearest rate",
                "call vllm:own: unknown, no window is known (price: agent file)",
            ],
        ),
        (
            "models: [openai:gpt-6-sol, vllm:a, vllm:b]\n",
            [
                (
                    "cost not limited: no price is known for vllm:a, vllm:b; first add the prices of vllm:a, vllm:b, "
                    "then limit it by 'cost_usd' in 'budget'; 'tokens' and 'model_calls' need no price"
                ),
                SOL,
                "call vllm:a: unknown, no price is known",
                "call vllm:b: unknown, no price is known",
            ],
        ),
        (
            "models: [vllm:a]\n",
            [
                (
                    "cost not limited: no price is known for vllm:a; first add its price, then limit it by 'cost_usd' "
                    "in 'budget'; 'tokens' and 'model_calls' need no price"
                ),
                "call vllm:a: unknown, no price is known",
            ],
        ),
        (
            f"models: [{OWN}]\nmodels_allowed: ['vllm:*']\n",
            [
                "cost not limited: a start may name any of vllm:*; limit it by 'cost_usd' in 'budget'",
                "call vllm:own: at most $0.0014 at a full window of 10,000 tokens (agent file)",
            ],
        ),
    ],
)
def test_costs_are_told(path: Path, capsys: pytest.CaptureFixture[str], text: str, lines: list[str]) -> None:
    code, out, _ = validate(capsys, path, text)

    found = [" ".join(line.split()) for line in out.splitlines() if line.startswith(("  cost ", "  call "))]
    assert (code, found) == (0, lines)


def test_costs_in_json(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"models: [{OWN}, openai:gpt-6-sol]\nchecks: [{JUDGE}]\n"

    code, out, _ = validate(capsys, path, text, "-o", "json")

    assert code == 0
    assert json.loads(out)["agents"][0]["cost"] == {
        "run_usd": "214.9152",
        "limited_by": "steps",
        "not_counted": ["retries", "checks"],
        "unknown": [],
        "may_be_raised": False,
        "calls": [
            {
                "model": "vllm:own",
                "usd": "0.0014",
                "window": 10_000,
                "max_output_tokens": 1000,
                "price": "agent file",
            },
            {
                "model": "openai:gpt-6-sol",
                "usd": "5.37288",
                "window": 1_050_000,
                "max_output_tokens": 8192,
                "price": LIST,
            },
            {"model": "vllm:judge", "usd": None, "window": None, "max_output_tokens": 8192, "price": None},
        ],
    }


@pytest.mark.parametrize("more", [(), ("-o", "json")])
def test_unknown_price_under_a_limit_is_refused(
    path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    code, out, err = validate(capsys, path, 'models: [vllm:qwen3-32b]\nbudget: {cost_usd: "2.00"}\n', *more)

    fault = (
        "desk.yaml:3:10: models[0]: no price is known for 'vllm:qwen3-32b', and 'budget' limits 'cost_usd'; "
        'add its price: {model: vllm:qwen3-32b, price: {input: "0.10", output: "0.40"}}'
    )
    assert code == 2
    assert (json.loads(out)["faults"] if more else err.splitlines()) == [fault]


def test_route_is_told_with_its_conditions_and_equal_models(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "models: [openai:gpt-6-sol, {model: vllm:a, when: run.failures > 1}, [vllm:b, vllm:c]]\nprefer: cost\n"

    code, out, err = validate(capsys, path, text)
    _, as_json, _ = validate(capsys, path, text, "-o", "json")

    assert code == 0, err
    lines = [" ".join(line.split()) for line in out.splitlines()]
    begin = next(index for index, line in enumerate(lines) if line.startswith("models "))
    assert lines[begin : begin + 3] == [
        "models openai:gpt-6-sol",
        "vllm:a when run.failures > 1",
        "vllm:b, vllm:c: equal, the cheapest first",
    ]
    (agent,) = json.loads(as_json)["agents"]
    assert agent["prefer"] == "cost"
    assert [(entry["model"], entry["group"], entry["when"]) for entry in agent["route"]] == [
        ("openai:gpt-6-sol", 0, None),
        ("vllm:a", 1, "run.failures > 1"),
        ("vllm:b", 2, None),
        ("vllm:c", 2, None),
    ]
