"""Request fields of an agent file: those that are passed on, those of the runtime, and typos."""

import json
from pathlib import Path

import pytest

from mandate.activities.files import FileError
from mandate.activities.providers.params import find_owned, merge
from mandate.workers.catalog.catalog import Catalog
from mandate.workers.catalog.params import find_faults
from mandate.workers.secrets import Secrets
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.transcript import Protocol
from tests.support.prompts import ADAPTERS, prompt
from tests.unit.workers.catalog.test_catalog import StubServers

RESPONSES: Protocol = "openai.responses"
CHAT: Protocol = "openai.chat"
MESSAGES: Protocol = "anthropic.messages"
ALL: tuple[Protocol, ...] = (RESPONSES, CHAT, MESSAGES)
REASONING = "context, effort, generate_summary, mode, summary"
EXTRA = "a field that the vendor has and its SDK does not know stands under 'extra_body'"


def told(params: JsonObject, protocol: Protocol | None, *, output: bool = False) -> list[tuple[str, str]]:
    """Place and message of each fault."""
    found = find_faults(params, protocol, has_output_schema=output)
    return [(".".join(map(str, place)), message) for place, message in found]


@pytest.mark.parametrize(
    ("protocol", "params"),
    [
        (RESPONSES, {"reasoning": {"effort": "high", "summary": "auto"}, "temperature": 1, "service_tier": "flex"}),
        (RESPONSES, {"text": {"verbosity": "low"}, "parallel_tool_calls": False, "metadata": {"team": "a"}}),
        (RESPONSES, {"text": {"format": {"type": "json_object"}}, "prompt_cache_retention": "24h"}),
        (RESPONSES, {"context_management": [{"type": "compaction", "compact_threshold": 1000}]}),
        (CHAT, {"reasoning_effort": "low", "temperature": 0.2, "stop": ["a"], "seed": 3, "logit_bias": {"50": -1}}),
        (CHAT, {"stop": "a", "extra_body": {"top_k": 5, "chat_template_kwargs": {"enable_thinking": False}}}),
        (CHAT, {"extra_body": {"extra_body": {"google": {"thinking_config": {"thinking_budget": 1}}}}}),
        (MESSAGES, {"thinking": {"type": "enabled", "budget_tokens": 2000}, "stop_sequences": ["a"]}),
        (MESSAGES, {"cache_control": {"type": "ephemeral", "ttl": "1h"}, "output_config": {"effort": "low"}}),
        (MESSAGES, {"extra_body": {"temperature": 0.2}, "metadata": {"user_id": "a"}}),
        (None, {}),
    ],
)
def test_fields_of_the_vendor_are_passed_on(protocol: Protocol | None, params: JsonObject) -> None:
    assert told(params, protocol) == []


MODEL = "the entry's 'model' and the agent's route say it"
LIMIT = "the entry's or the agent's 'max_output_tokens' and the budget say it"
CONVERSATION = "the runtime writes the conversation"
TOOLS = "the agent's 'tools' say what there is, and its policy what may be called"
STORED = "the conversation is in the store of the runtime, and nothing is kept at the vendor"


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize("is_extra", [False, True])
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("model", MODEL), ("models", MODEL), ("Model", MODEL),
        ("messages", CONVERSATION), ("input", CONVERSATION), ("prompt", CONVERSATION), ("include", CONVERSATION),
        ("truncation", CONVERSATION),
        ("instructions", "the agent's 'instructions' say it"), ("system", "the agent's 'instructions' say it"),
        ("tools", TOOLS), ("TOOLS", TOOLS), ("tool_choice", TOOLS), ("functions", TOOLS), ("function_call", TOOLS),
        ("web_search_options", TOOLS), ("mcp_servers", TOOLS), ("plugins", TOOLS), ("container", TOOLS),
        ("max_tokens", LIMIT), ("max_completion_tokens", LIMIT), ("max_output_tokens", LIMIT),
        ("max_tokens_to_sample", LIMIT), ("max_new_tokens", LIMIT), ("maxOutputTokens", LIMIT), ("num_predict", LIMIT),
        ("stream", "the runtime reads whole answers"), ("stream_options", "the runtime reads whole answers"),
        ("n", "the runtime reads one answer"), ("best_of", "the runtime reads one answer"),
        ("store", STORED), ("background", STORED), ("previous_response_id", STORED), ("conversation", STORED),
        ("prompt_cache_key", "the runtime writes one for each conversation"),
        ("extra_headers", "it is no field of the body"),
    ],
)  # fmt: skip
def test_fields_of_the_runtime_are_refused_by_name(protocol: Protocol, is_extra: bool, name: str, why: str) -> None:
    params: JsonObject = {"extra_body": {name: 1}} if is_extra else {name: 1}

    assert told(params, protocol) == [
        (f"extra_body.{name}" if is_extra else name, f"is not an agent file's to set: {why}")
    ]


@pytest.mark.parametrize(
    ("protocol", "params", "place"),
    [
        (RESPONSES, {"text": {"format": {"type": "json_object"}}}, "text.format"),
        (CHAT, {"response_format": {"type": "json_object"}}, "response_format"),
        (CHAT, {"extra_body": {"response_format": {"type": "json_object"}}}, "extra_body.response_format"),
        (MESSAGES, {"output_config": {"format": {"type": "json_schema", "schema": {}}}}, "output_config.format"),
        (MESSAGES, {"extra_body": {"output_format": {}}}, "extra_body.output_format"),
    ],
)
def test_form_of_the_answer_is_said_in_one_place(protocol: Protocol, params: JsonObject, place: str) -> None:
    assert told(params, protocol, output=True) == [
        (place, "is not an agent file's to set here: the agent's 'output_schema' says the form of its answer")
    ]
    assert told(params, protocol) == []


@pytest.mark.parametrize(
    ("protocol", "params", "place", "message"),
    [
        (CHAT, {"tempature": 1}, "tempature", f"is no field of openai.chat; did you mean 'temperature'? {EXTRA}"),
        (CHAT, {"top_k": 1}, "top_k", f"is no field of openai.chat; did you mean 'top_p'? {EXTRA}"),
        (RESPONSES, {"reasoning_effort": "low"}, "reasoning_effort",
         "is no field of openai.responses, which has 'reasoning: {effort: ...}' in its place"),
        (CHAT, {"reasoning": {"effort": "low"}}, "reasoning",
         "is no field of openai.chat, which has 'reasoning_effort: ...' in its place"),
        (RESPONSES, {"reasoning": {"efort": "low"}}, "reasoning.efort",
         f"is no field of 'reasoning'; did you mean 'effort'? allowed are {REASONING}"),
        (RESPONSES, {"reasoning": {"effort": "hgih"}}, "reasoning.effort",
         "'hgih' is not one of none, minimal, low, medium, high, xhigh, max; did you mean 'high'?"),
        (RESPONSES, {"text": {"format": {"type": "json"}}}, "text.format.type",
         "'json' is not one of text, json_schema, json_object"),
        (RESPONSES, {"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name", "is missing"),
        (RESPONSES, {"text": 5}, "text", "5 is not a mapping"),
        (RESPONSES, {"temperature": "hot"}, "temperature", "'hot' is not a number"),
        (RESPONSES, {"parallel_tool_calls": 1}, "parallel_tool_calls", "1 is not true or false"),
        (CHAT, {"seed": 1.5}, "seed", "1.5 is not a whole number"),
        (CHAT, {"stop": 5}, "stop", "5 is not a text or a list"),
        (CHAT, {"stop": [5]}, "stop.0", "5 is not a text"),
        (CHAT, {"logit_bias": {"50": "x"}}, "logit_bias.50", "'x' is not a whole number"),
        (CHAT, {"extra_body": [1]}, "extra_body",
         "is not a mapping of fields that are added to the request as they are"),
        (CHAT, {"seed": 1, "extra_body": {"seed": 2}}, "extra_body.seed",
         "is in 'params' too; the request has it from one place only"),
        (CHAT, {"user": "${secret:USER}"}, "user",
         "secrets are resolved in the file of providers only, never in a body"),
        (CHAT, {"extra_body": {"api_key": ["${secret:KEY}"]}}, "extra_body.api_key.0",
         "secrets are resolved in the file of providers only, never in a body"),
        (MESSAGES, {"thinking": {"type": "enabld"}}, "thinking.type",
         "'enabld' is not one of enabled, disabled, between_tools, adaptive; did you mean 'enabled'?"),
        (MESSAGES, {"cache_control": {"type": "ephemeral", "ttl": "2h"}}, "cache_control.ttl",
         "'2h' is not one of 5m, 1h"),
        (MESSAGES, {"stop_sequences": "x"}, "stop_sequences", "'x' is not a list"),
        (MESSAGES, {"stop": ["x"]}, "stop",
         "is no field of anthropic.messages, which has 'stop_sequences: [...]' in its place"),
        (None, {"seed": 1}, "", "are fields of a request, and a script has none; leave them out"),
    ],
)  # fmt: skip
def test_what_the_vendor_would_not_take_is_told(
    protocol: Protocol | None, params: JsonObject, place: str, message: str
) -> None:
    assert told(params, protocol) == [(place, message)]


def test_field_that_is_like_no_other_names_those_that_there_are() -> None:
    ((place, message),) = told({"zzz": 1}, MESSAGES)

    assert place == "zzz"
    assert message.startswith("is no field of anthropic.messages; allowed are cache_control, diagnostics, ")
    assert message.endswith(f"; {EXTRA}")
    assert "max_tokens" not in message


def test_all_faults_are_told_at_once() -> None:
    params: JsonObject = {"model": "x", "tempature": 1, "seed": "x", "extra_body": {"tools": []}}

    assert [place for place, _ in told(params, CHAT)] == ["model", "extra_body.tools", "tempature", "seed"]


def test_fields_are_merged_into_the_body() -> None:
    params: JsonObject = {"seed": 1, "cache_control": {"ttl": "1h"}, "extra_body": {"top_k": 2}}

    assert merge(params, {"cache_control": {"type": "ephemeral"}}) == {
        "seed": 1,
        "cache_control": {"ttl": "1h"},
        "top_k": 2,
    }


async def test_faults_stand_at_their_place_in_the_agent_file(tmp_path: Path) -> None:
    path = tmp_path / "it.yaml"
    path.write_text(
        "name: it\n"
        "instructions: Help.\n"
        "output_schema: {type: object}\n"
        "models:\n"
        "  - {model: openai:gpt-6-sol, params: {reasoning: {effort: max}}}\n"
        "  - - vllm:a\n"
        "    - model: vllm:b\n"
        "      params:\n"
        "        seed: x\n"
        "        response_format: {type: json_object}\n"
        "  - {model: scripted:it.yaml, params: {seed: 1}}\n"
    )

    with pytest.raises(FileError) as refused:
        await Catalog.load(path, StubServers(), secrets=Secrets({}))

    assert str(refused.value).replace(f"{path}:", "").splitlines() == [
        "9:9: models[1][1].params.seed: 'x' is not a whole number",
        (
            "10:9: models[1][1].params.response_format: is not an agent file's to set here: "
            "the agent's 'output_schema' says the form of its answer"
        ),
        "11:31: models[2].params: are fields of a request, and a script has none; leave them out",
    ]


@pytest.mark.parametrize("protocol", ALL)
def test_whatever_the_runtime_writes_into_a_request_is_its_own(protocol: Protocol) -> None:
    written = json.loads(ADAPTERS[protocol]("http://127.0.0.1:1").request(prompt()))

    owned = {place[0] for place, _ in find_owned(written)}

    # How long a prefix is cached is the author's choice.
    assert set(written) - owned == ({"cache_control"} if protocol == MESSAGES else set())


@pytest.mark.parametrize("protocol", ALL)
def test_a_request_with_fields_of_its_author_is_still_one_json_object(protocol: Protocol) -> None:
    params: JsonObject = {"cache_control": {"ttl": "1h"}, "extra_body": {"top_k": 2, "text": 'quote " and ü'}}

    sent = ADAPTERS[protocol]("http://127.0.0.1:1").request(prompt(params=params))
    plain = json.loads(ADAPTERS[protocol]("http://127.0.0.1:1").request(prompt()))

    expected: JsonObject = {"cache_control": {"ttl": "1h"}, "top_k": 2, "text": 'quote " and ü'}
    names = [name for name, _ in json.loads(sent, object_pairs_hook=list)]
    assert json.loads(sent) == {**plain, **expected}
    assert len(names) == len(set(names))
