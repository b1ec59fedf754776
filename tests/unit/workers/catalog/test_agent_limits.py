"""Values of `budget`, `prices`, `context` and models in agent files that do not fit: each fault with its place."""

from pathlib import Path

import jsonschema_rs
import pytest

from mandate.activities.documents import parse_document
from mandate.activities.files import FileError
from mandate.workers.catalog.agents import agent_schema, read_agent

HEAD = "name: refunds\ninstructions: Help.\n"
LIMITS = "children, cost_usd, depth, model_calls, steps, tokens, tool_calls, wall_time, work_time"
BUDGET = (
    "children, cost_usd, depth, model_calls, raise_at_most, steps, tokens, tool_calls, wall_time, when_used_up, "
    "work_time"
)
ENTRY = "max_output_tokens, model, params, price, timeout, when, window"
PRICE = "cache_write, cached_input, input, output, tiers"
EXACT = "an amount is exact: write it as a text in quotes, for example '2.50'"
DIGITS = "an amount is digits, with up to nine decimals and no currency, for example '2.50'"
NAME = (
    "is not 'provider:model' with one of the providers openai, anthropic, vllm, scripted, "
    "or 'endpoint:model' with an endpoint of the file of providers"
)
LENGTH = "a duration is a number and a unit, for example '30s', '5m', '1h30m' or '2d'"
UNIT = "a duration needs a unit, for example '30s', '5m', '2h' or '1d'"


FAULTS: list[tuple[str, list[str]]] = [
    ("budget: {steps: 0}", ["4:10: budget.steps: 0: must be at least 1"]),
    ("budget: {steps: true}", ["4:10: budget.steps: true is not a whole number"]),
    ("budget: {steps: '3'}", ["4:10: budget.steps: '3' is not a whole number"]),
    ("budget: {steps: 1.5}", ["4:10: budget.steps: 1.5 is not a whole number"]),
    ("budget: {steps: null}", ["4:10: budget.steps: null is not a whole number"]),
    ("budget: {steps: 2000000}", ["4:10: budget.steps: 2000000: must be at most 1000000"]),
    ("budget: {model_calls: 0}", ["4:10: budget.model_calls: 0: must be at least 1"]),
    ("budget: {tool_calls: -1}", ["4:10: budget.tool_calls: -1: must be at least 0"]),
    ("budget: {tokens: many}", ["4:10: budget.tokens: 'many' is not a whole number"]),
    ("budget: {cost_usd: -1}", ["4:10: budget.cost_usd: -1: must be more than 0"]),
    ("budget: {cost_usd: '-1'}", ["4:10: budget.cost_usd: '-1': must be more than 0"]),
    ("budget: {cost_usd: '0'}", ["4:10: budget.cost_usd: '0': must be more than 0"]),
    ("budget: {cost_usd: 2.50}", [f"4:10: budget.cost_usd: 2.5: {EXACT}"]),
    ("budget: {cost_usd: '$2'}", [f"4:10: budget.cost_usd: '$2': {DIGITS}"]),
    ("budget: {cost_usd: '2,50'}", [f"4:10: budget.cost_usd: '2,50': {DIGITS}"]),
    ("budget: {cost_usd: '1000000'}", ["4:10: budget.cost_usd: '1000000': an amount is less than 1,000,000"]),
    ("budget: {cost_usd: true}", [f"4:10: budget.cost_usd: true: {EXACT}"]),
    ("budget: {cost_usd: [2]}", [f"4:10: budget.cost_usd: {DIGITS}"]),
    ("budget: {wall_time: 0s}", ["4:10: budget.wall_time: '0s': must be longer than 0s"]),
    ("budget: {wall_time: 60}", [f"4:10: budget.wall_time: 60: {UNIT}"]),
    ("budget: {wall_time: 1 hour}", [f"4:10: budget.wall_time: '1 hour': {LENGTH}"]),
    (
        "budget: {wall_time: PT0S}",
        ["4:10: budget.wall_time: 'PT0S' is not a duration, for example '30s', '5m', '1h30m' or '2d'"],
    ),
    ("budget: {wall_time: 4000d}", ["4:10: budget.wall_time: '4000d': a duration is at most 3650d"]),
    ("budget: {work_time: -5m}", [f"4:10: budget.work_time: '-5m': {LENGTH}"]),
    (
        "budget: {work_time: PX}",
        ["4:10: budget.work_time: 'PX' is not a duration, for example '30s', '5m', '1h30m' or '2d'"],
    ),
    ("budget: {depth: 21}", ["4:10: budget.depth: 21: must be at most 20"]),
    ("budget: {children: -1}", ["4:10: budget.children: -1: must be at least 0"]),
    ("budget: {when_used_up: wait}", ["4:10: budget.when_used_up: 'wait' is not one of answer, ask, stop"]),
    ("budget: {when_used_up: [ask]}", ["4:10: budget.when_used_up: a list is not one of answer, ask, stop"]),
    ("budget: {raise_at_most: {cost_usd: '5'}}", ["4:1: budget: 'raise_at_most' belongs to 'when_used_up: ask'"]),
    (
        "budget: {when_used_up: ask, raise_at_most: {cost: '5'}}",
        [
            (
                "4:45: budget.raise_at_most.cost: is not a key that is known here; did you mean 'cost_usd'? "
                f"allowed are {LIMITS}"
            )
        ],
    ),
    ("budget: {when_used_up: ask, raise_at_most: '5.00'}", ["4:29: budget.raise_at_most: '5.00' is not a mapping"]),
    (
        "budget: {when_used_up: ask, raise_at_most: {when_used_up: stop}}",
        [f"4:45: budget.raise_at_most.when_used_up: is not a key that is known here; allowed are {LIMITS}"],
    ),
    (
        "budget: {when_used_up: ask, cost_usd: '2.00', raise_at_most: {cost_usd: '1.00'}}",
        ["4:63: budget.raise_at_most.cost_usd: must be more than 'cost_usd' itself"],
    ),
    (
        "budget: {when_used_up: ask, raise_at_most: {}}",
        ["4:29: budget.raise_at_most: names no limit; leave it out if people may raise any"],
    ),
    ("budget: 5", ["4:1: budget: 5 is not a mapping"]),
    ("budget: [steps]", ["4:1: budget: a list is not a mapping"]),
    (
        "budget: {cost_usd: '2.00', cost: '1'}",
        [f"4:28: budget.cost: is not a key that is known here; did you mean 'cost_usd'? allowed are {BUDGET}"],
    ),
    ("context: {limit: 0.05}", ["4:11: context.limit: 0.05: must be at least 0.1"]),
    ("context: {limit: 1}", ["4:11: context.limit: 1: must be at most 0.95"]),
    (
        "context: {limit: .nan}",
        ["4:11: context.limit: '.nan' is not a number", "4:18: context.limit: .nan is not a number that JSON has"],
    ),
    ("context: {limit: high}", ["4:11: context.limit: 'high' is not a number"]),
    ("context: {limit: true}", ["4:11: context.limit: true is not a number"]),
    ("context: {keep: 1}", ["4:11: context.keep: 1: must be at least 2"]),
    ("context: {keep: 2.5}", ["4:11: context.keep: 2.5 is not a whole number"]),
    ("context: {keep: true}", ["4:11: context.keep: true is not a whole number"]),
    ("context: {keep: 2000}", ["4:11: context.keep: 2000: must be at most 1000"]),
    ("context: {summary: true}", ["4:11: context.summary: true is not a mapping"]),
    ("context: {summary: {models: [gpt]}}", [f"4:30: context.summary.models[0]: 'gpt' {NAME}"]),
    (
        "context: {summary: {models: openai:gpt-6-sol}}",
        ["4:21: context.summary.models: 'openai:gpt-6-sol' is not a list"],
    ),
    (
        "context: {summary: {model: openai:gpt-6-sol}}",
        [
            (
                "4:21: context.summary.model: is not a key that is known here; did you mean 'models'? "
                "allowed are instructions, models"
            )
        ],
    ),
    (
        "context: {summary: {instructions: 5}}",
        ["4:21: context.summary.instructions: 5 is not a text; put it in quotes"],
    ),
    ("context: {pin: a rule}", ["4:11: context.pin: 'a rule' is not a list"]),
    ("context: {pin: ['']}", ["4:17: context.pin[0]: must not be empty"]),
    ("context: {pin: [5]}", ["4:17: context.pin[0]: 5 is not a text; put it in quotes"]),
    ("context: {recall: 3}", ["4:11: context.recall: 3 is not true or false"]),
    ("context: {recall: maybe}", ["4:11: context.recall: 'maybe' is not true or false"]),
    (
        "context: {window: 5}",
        ["4:11: context.window: is not a key that is known here; allowed are keep, limit, pin, recall, summary"],
    ),
    ("context: 0.5", ["4:1: context: 0.5 is not a mapping"]),
    ("prices: {gpt: {input: '1', output: '2'}}", [f"4:10: prices.gpt: 'gpt' {NAME}"]),
    (
        "prices: {openai:gpt: {input: '1'}}",
        ["4:10: prices['openai:gpt'].output: is missing: Output, reasoning included."],
    ),
    (
        "prices: {'openai:gpt': {input: '1', output: '2', tier: '3'}}",
        [
            "4:50: prices['openai:gpt'].tier: is not a key that is known here; did you mean 'tiers'? allowed are "
            + PRICE
        ],
    ),
    ("prices: {'openai:gpt': 5}", ["4:10: prices['openai:gpt']: 5 is not a mapping"]),
    ("prices: {'openai:gpt': {input: 0.5, output: '2'}}", [f"4:25: prices['openai:gpt'].input: 0.5: {EXACT}"]),
    (
        "prices: {'openai:gpt': {input: '-1', output: '2'}}",
        ["4:25: prices['openai:gpt'].input: '-1': must be at least 0"],
    ),
    ("prices: []", ["4:1: prices: is not a mapping"]),
    ("prefer: cheap", ["4:1: prefer: 'cheap' is not one of order, cost, latency"]),
    ("prefer: [cost]", ["4:1: prefer: a list is not one of order, cost, latency"]),
    ("prefer: true", ["4:1: prefer: true is not one of order, cost, latency"]),
    ("models_allowed: gpt", ["4:1: models_allowed: 'gpt' is not a list"]),
    ("models_allowed: [gpt]", [f"4:18: models_allowed[0]: 'gpt' {NAME}"]),
    ("models_allowed: ['openai:*x']", ["4:18: models_allowed[0]: 'openai:*x': `*` stands at the end only"]),
    ("models_allowed: ['openai:a', 'openai:a']", ["4:30: models_allowed[1]: 'openai:a' is given twice"]),
    ("models_allowed: {openai: a}", ["4:1: models_allowed: a mapping is not a list"]),
    ("models_allowed: [5]", ["4:18: models_allowed[0]: 5 is not a text; put it in quotes"]),
    ("models: []", ["3:1: models: must not be empty"]),
    ("models: openai:gpt", ["3:1: models: 'openai:gpt' is not a list"]),
    ("models: [gpt]", [f"3:10: models[0]: 'gpt' {NAME}"]),
    ("models: [5]", ["3:10: models[0]: 5 is neither a name nor a mapping with 'model' nor a list"]),
    ("models: [{}]", ["3:10: models[0].model: is missing: `provider:model`."]),
    (
        "models: [{name: openai:gpt}]",
        [
            "3:10: models[0].model: is missing: `provider:model`.",
            f"3:11: models[0].name: is not a key that is known here; allowed are {ENTRY}",
        ],
    ),
    ("models: [{model: gpt}]", [f"3:11: models[0].model: 'gpt' {NAME}"]),
    ("models: [{model: openai:gpt, window: 10}]", ["3:30: models[0].window: 10: must be at least 1024"]),
    ("models: [{model: openai:gpt, window: big}]", ["3:30: models[0].window: 'big' is not a whole number"]),
    ("models: [{model: openai:gpt, window: true}]", ["3:30: models[0].window: true is not a whole number"]),
    (
        "models: [{model: openai:gpt, max_output_tokens: 0}]",
        ["3:30: models[0].max_output_tokens: 0: must be at least 1"],
    ),
    ("models: [{model: openai:gpt, price: '1'}]", ["3:30: models[0].price: '1' is not a mapping"]),
    (
        "models: [{model: openai:gpt, price: {input: 0.1, output: '1'}}]",
        [f"3:38: models[0].price.input: 0.1: {EXACT}"],
    ),
    (
        "models: [{model: openai:gpt, price: {in: '1', output: '1'}}]",
        [
            '3:30: models[0].price.input: is missing: Input, for example `"1.25"`.',
            f"3:38: models[0].price.in: is not a key that is known here; allowed are {PRICE}",
        ],
    ),
    ("models: [{model: openai:gpt, timeout: 0s}]", ["3:30: models[0].timeout: '0s': must be longer than 0s"]),
    ("models: [{model: openai:gpt, timeout: 2h}]", ["3:30: models[0].timeout: '2h': must be at most 1h"]),
    ("models: [{model: openai:gpt, timeout: 30}]", [f"3:30: models[0].timeout: 30: {UNIT}"]),
    ("models: [{model: openai:gpt, when: ''}]", ["3:30: models[0].when: '' must not be empty"]),
    (
        "models: [{model: openai:gpt, when: 'true'}]",
        ["3:30: models[0].when: belongs to models further on; the first is asked from the start"],
    ),
    (
        "models: [openai:a, {model: openai:gpt, when: 5}]",
        ["3:40: models[1].when: 5 is not a text; put it in quotes"],
    ),
    ("models: [{model: openai:gpt, params: [a]}]", ["3:30: models[0].params: a list is not a mapping"]),
    ("models: [[openai:a]]", ["3:10: models[0]: equal models are at least two; write one model without a list"]),
    ("models: [[]]", ["3:10: models[0]: equal models are at least two; write one model without a list"]),
    ("models: [[openai:a, gpt]]", [f"3:21: models[0][1]: 'gpt' {NAME}"]),
    ("models: [[openai:a, {model: openai:b, window: 3}]]", ["3:39: models[0][1].window: 3: must be at least 1024"]),
    (
        "models: [[[openai:a, openai:b]]]",
        ["3:11: models[0][0]: a list is neither a name nor a mapping with 'model'"],
    ),
    ("models: [openai:a, openai:a]", ["3:20: models[1]: 'openai:a' is given twice"]),
    ("models: [openai:a, [openai:a, openai:b]]", ["3:21: models[1][0]: 'openai:a' is given twice"]),
    ("models: [null]", ["3:10: models[0]: null is neither a name nor a mapping with 'model' nor a list"]),
    ("models: {openai: a}", ["3:1: models: a mapping is not a list"]),
]


@pytest.mark.parametrize(("line", "faults"), FAULTS)
def test_value_that_does_not_fit_is_told_with_what_is_allowed(line: str, faults: list[str], tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    models = "" if line.startswith("models:") else "models: [openai:gpt-6-sol]\n"
    path.write_text(f"{HEAD}{models}{line}\n")

    with pytest.raises(FileError) as refused:
        read_agent(path)

    assert [told.removeprefix(f"{path}:") for told in str(refused.value).splitlines()] == faults


@pytest.mark.parametrize(
    "line",
    [
        "budget: {when_used_up: ask, cost_usd: '2.00', raise_at_most: {cost_usd: '2.01', steps: 41}}",
        "budget: {cost_usd: 2, wall_time: 1h30m, work_time: 500ms, tool_calls: 0, depth: 0, children: 0}",
        "context: {limit: 0.5, keep: 2, summary: {}, pin: [Never pay twice.], recall: false}",
        "prefer: cost",
        "models_allowed: ['openai:*', 'vllm:a']",
    ],
)
def test_values_that_fit_are_read(line: str, tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(f"{HEAD}models: [openai:gpt-6-sol]\n{line}\n")

    assert read_agent(path).name == "refunds"


UNSEEN = {
    "budget: {cost_usd: '0'}",
    "budget: {wall_time: 0s}",
    "budget: {wall_time: 4000d}",
    "budget: {raise_at_most: {cost_usd: '5'}}",
    "budget: {when_used_up: ask, cost_usd: '2.00', raise_at_most: {cost_usd: '1.00'}}",
    "budget: {when_used_up: ask, raise_at_most: {}}",
    "context: {pin: ['']}",
    "prices: {gpt: {input: '1', output: '2'}}",
    "models_allowed: ['openai:*x']",
    "models_allowed: ['openai:a', 'openai:a']",
    "models: [{model: openai:gpt, timeout: 0s}]",
    "models: [{model: openai:gpt, timeout: 2h}]",
    "models: [{model: openai:gpt, when: 'true'}]",
    "models: [[openai:a]]",
    "models: [[]]",
    "models: [openai:a, openai:a]",
    "models: [openai:a, [openai:a, openai:b]]",
}
"""Lines of which the schema for editors cannot know that they do not fit."""


def test_editors_see_what_does_not_fit() -> None:
    schema = jsonschema_rs.validator_for(agent_schema())

    def fits(line: str) -> bool:
        models = "" if line.startswith("models:") else "models: [openai:gpt-6-sol]\n"
        return schema.is_valid(parse_document("agent.yaml", f"{HEAD}{models}{line}\n").value)

    assert {line for line, _ in FAULTS if fits(line)} == UNSEEN
