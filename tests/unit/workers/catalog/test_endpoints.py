"""The file of providers: what is read, each fault at its place, and what agents may name of it."""

from pathlib import Path

import pytest

from mandate.activities.files import FileError
from mandate.activities.own_files import OwnFiles
from mandate.workers.catalog.catalog import Catalog
from mandate.workers.catalog.endpoints import Endpoints, read_endpoints
from mandate.workers.catalog.readiness import missing_keys
from mandate.workers.providers import MissingKey, lacking, makers
from mandate.workers.secrets import Secrets
from mandate.workers.settings import Settings
from mandate.workflows.contracts.endpoints import Endpoint
from tests.support.pages import PROJECT
from tests.unit.workers.catalog.test_catalog import StubServers

CHAT = "protocol: openai.chat, base_url: 'https://llm.example.com/v1'"
BASE_URL = "Address before the protocol's own path, for example `https://host/v1`."
IN_QUERY = "must hold no secret: addresses are logged; send it as 'key' or as a header"
NO_NAME = "is not a name of an endpoint: a small letter, then up to 63 small letters, digits, '_' and '-'"
BUILT_IN = "is built in, and its address is OPENAI_BASE_URL, or 'openai_base_url' in mandate.yaml"
MISSPELT = "a secret is written '${secret:NAME}', its name of letters, digits, '_', '.' and '-'"
SECRET = "is a secret and does not stand in a file: write '${secret:NAME}'"
KEYS = "base_url, headers, key, max_tokens_field, prices_as, protocol, query"


def settings(tmp_path: Path, text: str | None, **environment: str) -> Settings:
    if text is not None:
        path = tmp_path / "providers.yaml"
        path.write_text(text, encoding="utf-8")
        environment["MANDATE_PROVIDERS"] = str(path)
    return Settings.from_environment(environment)


def read(tmp_path: Path, text: str) -> Endpoints:
    return read_endpoints(settings(tmp_path, text))


def told(tmp_path: Path, text: str) -> list[tuple[int, str, str]]:
    """Line, key and message of each fault."""
    with pytest.raises(FileError) as raised:
        read(tmp_path, text)
    return [(fault.line, fault.key, fault.message) for fault in raised.value.faults]


def entry(more: str = "", *, begin: str = CHAT) -> str:
    return f"endpoints:\n  it: {{{begin}{', ' if more else ''}{more}}}\n"


def test_endpoint_has_all_that_a_request_needs(tmp_path: Path) -> None:
    found = read(tmp_path, (PROJECT / "deploy/providers.example.yaml").read_text())

    assert found.by_name["azure"] == Endpoint(
        protocol="openai.responses",
        base_url="https://my-resource.openai.azure.com/openai/v1",
        headers={"api-key": "${secret:AZURE_OPENAI_API_KEY}"},
        query={"api-version": "preview"},
        prices_as="azure",
    )
    assert found.find_protocol("azure") == "openai.responses"
    assert (found.find_protocol("anthropic"), found.find_protocol("scripted")) == ("anthropic.messages", None)


def test_without_a_file_only_the_built_in_ones_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert read_endpoints(settings(tmp_path, None)).by_name == {}


def test_file_beside_the_settings_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mandate.yaml").write_text("task_queue: x\n")
    (tmp_path / "providers.yaml").write_text(entry())

    assert list(read_endpoints(Settings.from_environment({})).by_name) == ["it"]


def test_named_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(FileError) as raised:
        read_endpoints(Settings.from_environment({"MANDATE_PROVIDERS": str(tmp_path / "gone.yaml")}))

    assert str(raised.value) == (
        f"{tmp_path}/gone.yaml: is not a file; MANDATE_PROVIDERS or mandate.yaml names the file of providers"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [(0, "", "is empty")]),
        ("- groq", [(1, "", "is not a mapping with 'endpoints'")]),
        ("endpoint: {}", [
            (1, "endpoint", "is not a key that is known here; did you mean 'endpoints'? allowed are endpoints"),
            (1, "endpoints", "is missing: Endpoints by name: what stands before `:` in a model's name."),
        ]),
        (entry("url: x"), [(2, "endpoints.it.url", f"is not a key that is known here; allowed are {KEYS}")]),
        (entry(begin="protocol: openai.chat"), [
            (2, "endpoints.it.base_url", f"is missing: {BASE_URL}"),
        ]),
        (entry(begin="protocol: openai, base_url: 'https://x'"), [
            (2, "endpoints.it.protocol", "'openai' is not one of openai.chat, openai.responses, anthropic.messages"),
        ]),
        (entry("key: sk-0123"), [(2, "endpoints.it.key", SECRET)]),
        (entry("key: '${secret:NO SPACE}'"), [
            (2, "endpoints.it.key", MISSPELT),
        ]),
        (entry("headers: {api-key: sk-0123}"), [(2, "endpoints.it.headers.api-key", SECRET)]),
        (entry("headers: {X-Auth-Token: sk-0123}"), [(2, "endpoints.it.headers.X-Auth-Token", SECRET)]),
        (entry("headers: {Host: x}"), [(2, "endpoints.it.headers.Host", "is set by Mandate")]),
        (entry("headers: {content-type: x}"), [(2, "endpoints.it.headers.content-type", "is set by Mandate")]),
        (entry("headers: {'a b': x}"), [(2, "endpoints.it.headers['a b']", "is not a header name")]),
        (entry("headers: {X-A: x, x-a: y}"), [(2, "endpoints.it.headers.x-a", "is the same header as 'X-A'")]),
        (entry('headers: {X-A: "a\\nb"}'), [
            (2, "endpoints.it.headers.X-A", "holds characters that a header cannot have"),
        ]),
        (entry("key: '${secret:A}', headers: {authorization: '${secret:B}'}"), [
            (2, "endpoints.it.headers.authorization", "is what 'key' is sent as; write one of the two"),
        ]),
        (entry("query: {key: x}"), [
            (2, "endpoints.it.query.key", IN_QUERY),
        ]),
        (entry("query: {v: '${secret:A}'}"), [
            (2, "endpoints.it.query.v", IN_QUERY),
        ]),
        (entry("query: {api-version: 2026}"), [
            (2, "endpoints.it.query.api-version", "2026 is not a text; put it in quotes"),
        ]),
        (entry("max_tokens_field: max"), [
            (2, "endpoints.it.max_tokens_field", "'max' is not one of max_completion_tokens, max_tokens"),
        ]),
        (entry("max_tokens_field: max_tokens", begin="protocol: openai.responses, base_url: 'https://x/v1'"), [
            (2, "endpoints.it.max_tokens_field", "belongs to the protocol 'openai.chat', not to 'openai.responses'"),
        ]),
        (entry().replace("it:", "openai:"), [
            (2, "endpoints.openai", f"{BUILT_IN}; give the endpoint another name"),
        ]),
        (entry().replace("it:", "scripted:"), [
            (2, "endpoints.scripted", "is built in: scripts play its models; give the endpoint another name"),
        ]),
        (entry().replace("it:", "My LLM:"), [
            (2, "endpoints['My LLM']", NO_NAME),
        ]),
    ],
)  # fmt: skip
def test_each_fault_is_told_at_its_place(tmp_path: Path, text: str, expected: list[tuple[int, str, str]]) -> None:
    assert told(tmp_path, text) == expected


PLAIN = "must be an address without spaces, backslashes and characters outside of ASCII"
PORT = "is not an address with a host and, where it has one, a port from 0 to 65535"
PASSWORD = "must not hold a user and a password; write the key as 'key' or as a header"
QUERY = "must end before '?'; what follows belongs to 'query'"
BRACES = "has braces; write the names of your own account in their place"
NO_SECRETS = "secrets are resolved in 'key' and in header values only, never in an address"
ADDED = "which the protocol adds by itself; leave it out"
BEGIN = "must begin with http:// or https:// and a host, for example https://api.example.com/v1"


@pytest.mark.parametrize(
    ("protocol", "url", "fault"),
    [
        ("openai.chat", "llm.example.com/v1", BEGIN),
        ("openai.chat", "ftp://llm.example.com/v1", BEGIN),
        ("openai.chat", "https:///v1", BEGIN),
        ("openai.chat", "", BEGIN),
        ("openai.chat", "https://llm.example.com/a b", PLAIN),
        ("openai.chat", "https://llm.exämple.com/v1", PLAIN),
        ("openai.chat", "https://llm.example.com:99999/v1", PORT),
        ("openai.chat", "https://[::1/v1", PORT),
        ("openai.chat", "https://ann:pass@llm.example.com/v1", PASSWORD),
        ("openai.chat", "https://llm.example.com/v1?api-version=1", QUERY),
        ("openai.chat", "https://llm.example.com/v1#x", "must end before '#'"),
        ("openai.chat", "https://{resource}.example.com/v1", BRACES),
        ("openai.chat", "https://${secret:HOST}/v1", NO_SECRETS),
        ("openai.chat", "https://x/v1/chat/completions", f"ends in '/chat/completions', {ADDED}"),
        ("openai.responses", "https://x/v1/responses/", f"ends in '/responses', {ADDED}"),
        ("anthropic.messages", "https://x/v1/messages", f"ends in '/v1/messages', {ADDED}"),
        ("anthropic.messages", "https://x/v1", "which the protocol 'anthropic.messages' adds by itself; leave it out"),
    ],
)  # fmt: skip
def test_address_that_cannot_be_asked_is_told(tmp_path: Path, protocol: str, url: str, fault: str) -> None:
    (line, key, message), *others = told(tmp_path, entry(begin=f"protocol: {protocol}, base_url: '{url}'"))

    assert (line, key, others) == (2, "endpoints.it.base_url", [])
    assert message.endswith(fault)
    assert "pass@" not in message


def test_prices_of_nobody_are_told(tmp_path: Path) -> None:
    ((line, key, message),) = told(tmp_path, entry("prices_as: opnai"))

    assert (line, key) == (2, "endpoints.it.prices_as")
    assert message.startswith("'opnai' is not a provider of genai-prices; did you mean 'openai'? it has anthropic, ")


AGENT = "name: it\ninstructions: Help.\n"
SCRIPT = "models: ['scripted:it.yaml']\n"
JUDGED = f"{SCRIPT}checks: [{{after: final, rubric: x"


async def load(tmp_path: Path, agent: str, endpoints: Endpoints | None = None) -> Catalog:
    path = tmp_path / "it.yaml"
    path.write_text(AGENT + agent)
    return await Catalog.load(path, StubServers(), secrets=Secrets({}), endpoints=endpoints)


@pytest.mark.parametrize(
    ("agent", "place", "model"),
    [
        ("models: ['groq:llama']\n", "3:10: models[0]", "groq:llama"),
        ("models: ['vllm:x', ['vllm:y', {model: 'groq:x'}]]\n", "3:32: models[1][1].model", "groq:x"),
        (f"{SCRIPT}models_allowed: ['groq:*']\n", "4:18: models_allowed[0]", "groq:*"),
        (f"{JUDGED}, model: 'groq:x'}}]\n", "4:36: checks[0].model", "groq:x"),
        (f"{JUDGED}, models: ['groq:x', 'vllm:x']}}]\n", "4:45: checks[0].models[0]", "groq:x"),
        (f"{SCRIPT}context: {{summary: {{models: ['groq:x']}}}}\n", "4:30: context.summary.models[0]", "groq:x"),
    ],
)  # fmt: skip
async def test_provider_that_nobody_knows_is_told_wherever_a_model_is_named(
    tmp_path: Path, agent: str, place: str, model: str
) -> None:
    with pytest.raises(FileError) as refused:
        await load(tmp_path, agent)

    assert str(refused.value) == (
        f"{tmp_path}/it.yaml:{place}: {model!r}: there is no provider 'groq' here; there are openai, anthropic, vllm, "
        "scripted; to add one, name it under 'endpoints' in deploy/providers.yaml, with 'protocol', 'base_url' "
        "and 'key'"
    )


async def test_provider_that_was_probably_meant_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there is no provider 'qroq' here; did you mean 'groq'\\? there are openai, "):
        await load(tmp_path, "models: ['qroq:llama']\n", read(tmp_path, entry().replace("it:", "groq:")))


async def test_endpoint_of_the_file_is_a_provider(tmp_path: Path) -> None:
    endpoints = read(tmp_path, entry("key: '${secret:IT_KEY}'"))

    catalog = await load(tmp_path, "models: ['it:some/model:7b']\n", endpoints)

    assert catalog.agents["it"].pinned.models == ("it:some/model:7b",)
    lacks = missing_keys(catalog, settings(tmp_path, None))
    assert "\n".join(map(str, lacks)) == (
        f"{tmp_path}/it.yaml:3:10: models[0]: agent 'it', model 'it:some/model:7b': models named 'it:...' cannot be "
        "asked: secret 'IT_KEY' is not in the environment, and there is no folder of secrets"
    )
    assert missing_keys(catalog, settings(tmp_path, None, IT_KEY="sk-0123")) == ()


async def test_tools_are_judged_by_the_rules_of_the_endpoints_protocol(tmp_path: Path) -> None:
    endpoints = read(tmp_path, entry(begin="protocol: openai.responses, base_url: 'https://x/v1'"))
    http = "{http: {method: GET, url: 'https://x.example'}, effect: read, input_schema: {type: object}, name: t%d}"
    tools = ", ".join(http % number for number in range(127))

    with pytest.raises(FileError) as refused:
        await load(tmp_path, f"models: ['vllm:x', {{model: 'it:y'}}]\ntools: [{tools}]\n", endpoints)

    assert "3:21: models[1].model: it takes at most 128 tools, and this agent has 130" in str(refused.value)


def test_secrets_of_endpoints_that_no_agent_uses_are_told_at_the_endpoint(tmp_path: Path) -> None:
    endpoints = read(tmp_path, entry("key: '${secret:A}', headers: {X-B: 'b ${secret:B}'}"))

    lacks = endpoints.list_lacks(Secrets({"A": "a"}), ())

    assert [(fault.line, fault.key, fault.message) for fault in lacks] == [
        (2, "endpoints.it.headers.X-B", "secret 'B' is not in the environment, and there is no folder of secrets")
    ]
    assert endpoints.list_lacks(Secrets({}), ["it"]) == ()


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_key_of_a_built_in_provider_that_no_header_takes_is_told_without_it(
    tmp_path: Path, provider: str
) -> None:
    variable = f"{provider.upper()}_API_KEY"
    its = settings(tmp_path, None, **{variable: "sk-secret\n"})
    why = f"{variable} holds a character that no header takes, for example a line break"

    with pytest.raises(MissingKey, match=f"^{why}$"):
        await makers(its, OwnFiles())[provider]()

    assert lacking(its, provider) == why


def test_no_secret_is_in_the_words_of_an_endpoint() -> None:
    endpoint = Endpoint(protocol="openai.chat", base_url="https://x", key="${secret:A}", headers={"x": "y"})

    assert repr(endpoint).count("secret") == 0
