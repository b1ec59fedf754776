"""Prices of an agent file: pinned with its models, and refused where money is limited and nobody knows them."""

from decimal import Decimal
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mandate.activities.files import FileError
from mandate.activities.providers.prices import pin_price
from mandate.activities.toolbox.mcp.lazy_toolbox import LazyMcpToolbox
from mandate.workers.catalog.catalog import Catalog
from mandate.workers.secrets import Secrets
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.route import Price, PriceSpec, Rates

JUDGE = "after: final, rubric: It is true."
LIMITED = 'budget: {cost_usd: "2.00"}\n'


async def load(folder: Path, text: str) -> PinnedAgent:
    path = folder / "desk.yaml"
    path.write_text(f"name: desk\ninstructions: Help.\n{text}")
    secrets = Secrets({})
    catalog = await Catalog.load(path, LazyMcpToolbox(secrets), secrets=secrets)
    return catalog.agents["desk"].pinned


async def refuse(folder: Path, text: str) -> list[str]:
    with pytest.raises(FileError) as refused:
        await load(folder, text)
    return [line.partition("desk.yaml:")[2] for line in str(refused.value).splitlines()]


def own(plain: str, output: str) -> Price:
    rate = Decimal(plain)
    rates = Rates(input=rate, output=Decimal(output), cached_input=rate, cache_write=rate)
    return Price(tiers=(rates,), source="agent file")


async def test_route_has_prices_and_windows(tmp_path: Path) -> None:
    agent = await load(
        tmp_path,
        """\
models:
  - openai:gpt-6-sol
  - [{model: anthropic:claude-haiku-5-5, window: 90000}, {model: openai:gpt-5.5, params: {service_tier: flex}}]
  - {model: "vllm:qwen3-32b", window: 32768, price: {input: "0.10", output: "0.40"}}
  - vllm:unknown
""",
    )

    assert [(pin.model, pin.group, pin.window, pin.price) for pin in agent.route] == [
        ("openai:gpt-6-sol", 0, 1_050_000, pin_price("openai:gpt-6-sol", None)),
        ("anthropic:claude-haiku-5-5", 1, 90_000, pin_price("anthropic:claude-haiku-5-5", None)),
        ("openai:gpt-5.5", 1, 1_000_000, pin_price("openai:gpt-5.5", None, params={"service_tier": "flex"})),
        ("vllm:qwen3-32b", 2, 32_768, own("0.10", "0.40")),
        ("vllm:unknown", 3, None, None),
    ]
    assert agent.prices == {}


async def test_models_beside_the_route_have_prices(tmp_path: Path) -> None:
    """In checks, for summaries and those that a start may name; one of the route has its price there."""
    agent = await load(
        tmp_path,
        f"""\
models: [{{model: "vllm:own", price: {{input: "1", output: "1"}}}}]
models_allowed: [openai:gpt-6-sol, "vllm:*", vllm:unknown]
prices: {{vllm:judge: {{input: "0.2", output: "0.3"}}, vllm:large: {{input: "3", output: "4"}}}}
checks:
  - {{{JUDGE}, models: [vllm:judge, vllm:own]}}
context: {{summary: {{models: [anthropic:claude-haiku-5-5]}}}}
""",
    )

    assert agent.prices == {
        "vllm:judge": own("0.2", "0.3"),
        "vllm:own": own("1", "1"),
        "anthropic:claude-haiku-5-5": pin_price("anthropic:claude-haiku-5-5", None),
        "openai:gpt-6-sol": pin_price("openai:gpt-6-sol", None),
        "vllm:large": own("3", "4"),
    }


EXACT = "an amount is exact: write it as a text in quotes, for example '2.50'"
UNKNOWN = "no price is known for"
LIMITS = "and 'budget' limits 'cost_usd'; add its price"
RATES = '{input: "0.10", output: "0.40"}'


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (
            "models: [vllm:qwen3-32b]\n",
            [f"3:10: models[0]: {UNKNOWN} 'vllm:qwen3-32b', {LIMITS}: {{model: vllm:qwen3-32b, price: {RATES}}}"],
        ),
        (
            "models: [scripted:a.yaml]\n",
            [f"3:10: models[0]: {UNKNOWN} 'scripted:a.yaml', {LIMITS}: {{model: scripted:a.yaml, price: {RATES}}}"],
        ),
        (
            "models: ['vllm:a,b']\n",
            [f"3:10: models[0]: {UNKNOWN} 'vllm:a,b', {LIMITS}: {{model: \"vllm:a,b\", price: {RATES}}}"],
        ),
        (
            "models: [openai:gpt-6-sol, [vllm:a, {model: vllm:b, window: 2048}]]\n",
            [
                f"3:29: models[1][0]: {UNKNOWN} 'vllm:a', {LIMITS}: {{model: vllm:a, price: {RATES}}}",
                f"3:37: models[1][1]: {UNKNOWN} 'vllm:b', {LIMITS}: price: {RATES}",
            ],
        ),
        (
            "models: [{model: openai:gpt-5.6-sol, params: {service_tier: ultrafast}}]\n",
            [f"3:10: models[0]: {UNKNOWN} 'openai:gpt-5.6-sol' as 'params' ask for it, {LIMITS}: price: {RATES}"],
        ),
        (
            f"models: [openai:gpt-5.5]\nchecks: [{{{JUDGE}, model: vllm:j}}, {{{JUDGE}, models: [vllm:j, vllm:k]}}]\n",
            [
                f"4:46: checks[0].model: {UNKNOWN} 'vllm:j', {LIMITS}: prices: {{vllm:j: {RATES}}}",
                f"4:115: checks[1].models[1]: {UNKNOWN} 'vllm:k', {LIMITS}: prices: {{vllm:k: {RATES}}}",
            ],
        ),
        (
            "models: [openai:gpt-5.5]\nmodels_allowed: ['vllm:*', vllm:big]\ncontext: {summary: {models: [vllm:s]}}\n",
            [
                f"4:28: models_allowed[1]: {UNKNOWN} 'vllm:big', {LIMITS}: prices: {{vllm:big: {RATES}}}",
                f"5:30: context.summary.models[0]: {UNKNOWN} 'vllm:s', {LIMITS}: prices: {{vllm:s: {RATES}}}",
            ],
        ),
    ],
)
async def test_unknown_price_under_a_limit_of_money_is_refused(tmp_path: Path, text: str, faults: list[str]) -> None:
    assert await refuse(tmp_path, text + LIMITED) == faults
    assert (await load(tmp_path, text)).budget.cost_usd is None


@pytest.mark.parametrize("model", ["vllm:qwen3-32b", "scripted:a.yaml", "vllm:a,b", "vllm:a{b}", 'vllm:"a"', "vllm:a#"])
async def test_line_that_is_told_mends_the_file(tmp_path: Path, model: str) -> None:
    quoted = "'" + model + "'"
    in_route = await refuse(tmp_path, f"models: [{quoted}]\n{LIMITED}")
    in_check = await refuse(tmp_path, f"models: [openai:gpt-6-sol]\nchecks: [{{{JUDGE}, model: {quoted}}}]\n{LIMITED}")
    entry, key = (faults[0].partition("add its price: ")[2] for faults in (in_route, in_check))

    routed = await load(tmp_path, f"models:\n  - {entry}\n{LIMITED}")
    checked = await load(
        tmp_path, f"models: [openai:gpt-6-sol]\n{key}\nchecks: [{{{JUDGE}, model: {quoted}}}]\n{LIMITED}"
    )

    assert YAML().load(entry)["model"] == model
    assert routed.route[0].price == checked.prices[model] == own("0.10", "0.40")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "models: [vllm:a]\n",
            f"is a model of the route: say it at models[0]: {{model: vllm:a, price: {RATES}}}",
        ),
        (
            "models: [openai:gpt-6-sol, {model: vllm:a, window: 2048}]\n",
            f"is a model of the route: say it at models[1]: price: {RATES}",
        ),
        (
            "models: [openai:gpt-6-sol]\n",
            "no check, summary or 'models_allowed' names it; they name none",
        ),
        (
            "models: [openai:gpt-6-sol]\nmodels_allowed: [vllm:aa, 'openai:*']\n",
            "no check, summary or 'models_allowed' names it; did you mean 'vllm:aa'? they name vllm:aa",
        ),
    ],
)
async def test_price_of_a_model_that_is_not_asked_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    faults = await refuse(tmp_path, f'prices: {{vllm:a: {{input: "1", output: "2"}}}}\n{text}')

    assert faults == [f"3:10: prices['vllm:a']: {fault}"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("prices: {vllm:a: {input: 0.1, output: '2'}}", f"3:19: prices['vllm:a'].input: 0.1: {EXACT}"),
        ("prices: {vllm:a: {input: '-1', output: '2'}}", "3:19: prices['vllm:a'].input: '-1': must be at least 0"),
        ("prices: {vllm:a: {input: '1'}}", "3:10: prices['vllm:a'].output: is missing: Output, reasoning included."),
        ("prices: {vllm:a: '1'}", "3:10: prices['vllm:a']: '1' is not a mapping"),
        (
            "prices: {vllm:a: {input: '1', output: '2', cached: '1'}}",
            (
                "3:44: prices['vllm:a'].cached: is not a key that is known here; did you mean 'cached_input'? "
                "allowed are cache_write, cached_input, input, output, tiers"
            ),
        ),
        ("prices: [vllm:a]", "3:1: prices: a list is not a mapping"),
        ("models: [{model: 'vllm:a', price: '1'}]", "3:28: models[0].price: '1' is not a mapping"),
        ("models: [{model: 'vllm:a', price: {input: 0.1, output: 1}}]", f"3:36: models[0].price.input: 0.1: {EXACT}"),
    ],
)
async def test_price_of_another_form_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    models = "" if text.startswith("models") else "models: [vllm:a]\n"

    assert await refuse(tmp_path, f"{text}\n{models}") == [fault]


def test_price_specs_are_read_exactly() -> None:
    spec = PriceSpec.model_validate({"input": "0.000000001", "output": 3})

    assert (spec.input, spec.output) == (Decimal("0.000000001"), Decimal(3))
