"""Faults of agent files come in two rounds: all of the file itself, then all of its tools."""

import asyncio
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from mandate.activities.documents import parse_document
from mandate.activities.files import FileError
from mandate.workers.catalog.agents import read_agent
from mandate.workers.catalog.catalog import Catalog
from mandate.workers.secrets import Secrets
from mandate.workflows.contracts.agent import AgentSpec
from mandate.workflows.contracts.route import ENDPOINT_FORM, NAME_FORM
from mandate.workflows.contracts.tool import ToolDefinition
from mandate.workflows.contracts.tool_entry import McpTools

HEAD = "name: a\ninstructions: Help.\nmodels: [openai:m]\n"
"""Lines 1 to 3 of a valid file."""

BAD = "    retries: 99\n"
"""A fault of its own, which concerns no other key."""

BAD_TOLD = "tools[0].retries: 99: must be at most 20"
SENSITIVE_CACHE = "results of a tool with sensitive arguments may repeat them, so they are never kept for other calls"
NEVER_EQUAL = "'${key}' is another one for each call, so that no kept result would answer a call; leave out 'cache'"
ACTIVITY_CACHE = (
    "a Temporal activity is called by the run and not by a worker of ours, so nothing of it is kept; 'cache' belongs "
    "to tools from 'python', 'mcp' and 'http'"
)
SCHEMA = "    input_schema: {type: object, properties: {q: {}, s: {}}, required: [q]}\n"
IN_CLEAR = (
    "tools[0].sensitive: Temporal carries the arguments of an activity, and its history keeps them as they are; "
    "call it by 'python' or 'http' instead, or hand on a reference to what is sensitive"
)

ACTIVITY = "tools:\n  - activity: {name: Charge, task_queue: pay}\n"
HTTP = "tools:\n  - http: {method: GET, url: 'https://x.example/{q}'}\n    name: t\n"
NOWHERE = "is not in the environment, and there is no folder of secrets"

SHOP = """
from mandate.activities.toolbox.decorator import tool

def look_up(order: int) -> str: ...

def pay(order: int) -> None: ...

@tool(sensitive=["pin", "order", "cvc"])
def charge(order: int) -> None: ...
"""


class StubServer:
    """An MCP server without tools that cannot be reached; who asked for it is in `asked`."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def definitions(self, entry: McpTools) -> tuple[ToolDefinition, ...]:
        await asyncio.sleep(0)
        self.asked.append(entry.mcp.name)
        raise ValueError(f"the server {entry.mcp.name!r} ended at once")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project: `together_shop.py` beside the folder of agent files, which it returns."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "together_shop", raising=False)
    (tmp_path / "together_shop.py").write_text(SHOP)
    agents = tmp_path / "agents"
    agents.mkdir()
    return agents


def keyed_faults(text: str, tmp_path: Path) -> list[str]:
    """The faults of a file with this text, as `key: message`."""
    path = tmp_path / "agent.yaml"
    path.write_text(text)
    with pytest.raises(FileError) as refused:
        read_agent(path)
    return [f"{fault.key}: {fault.message}" for fault in refused.value.faults]


async def loaded_faults(folder: Path, servers: StubServer | None = None) -> list[str]:
    with pytest.raises(FileError) as refused:
        await Catalog.load(folder, servers or StubServer(), secrets=Secrets({}))
    return [line.removeprefix(f"{folder}/") for line in str(refused.value).splitlines()]


BETWEEN = [
    (
        "tools:\n  - mcp: {name: f}\n",
        ["tools[0].mcp: an MCP server needs exactly one of 'command' and 'url'"],
    ),
    (
        "tools:\n  - mcp: {name: f, command: [x], url: 'https://x'}\n",
        ["tools[0].mcp: an MCP server needs exactly one of 'command' and 'url'"],
    ),
    (
        "tools:\n  - mcp: {name: f, url: 'https://x', env: {A: b}}\n",
        ["tools[0].mcp.env: belongs to 'command'; a server at a 'url' has its own environment"],
    ),
    (
        "tools:\n  - mcp: {name: f, command: [x], headers: {A: b}}\n",
        ["tools[0].mcp.headers: belongs to 'url'; a server started by 'command' has no headers"],
    ),
    (
        "tools:\n  - mcp: {name: f, command: [x]}\n    only: [a]\n    effects: {a: read, b: read}\n",
        ["tools[0].effects.b: is not one of the tools that 'only' takes"],
    ),
    (
        (
            "tools:\n  - mcp: {name: f, command: [x]}\n    only: [a]\n    errors: {a: unknown, b: not_done}\n"
            "    effects: {a: once}\n    key_valid: 1h\n"
        ),
        [
            "tools[0].errors.b: is not one of the tools that 'only' takes",
            "tools[0].key_valid: belongs to the effect 'keyed'; the other side knows no key of other tools",
        ],
    ),
    (
        "tools:\n  - mcp: {name: f, command: [x]}\n    key_valid: 1h\n    effect: read\n",
        ["tools[0].key_valid: belongs to the effect 'keyed'; the other side knows no key of other tools"],
    ),
    (
        "tools:\n  - http: {method: GET, url: 'https://x.example/'}\n    name: t\n"
        + SCHEMA
        + "    effect: idempotent\n    key_valid: 1h\n",
        ["tools[0].key_valid: belongs to the effect 'keyed'; the other side knows no key of other tools"],
    ),
    (
        "tools:\n  - python: a.b:c\n    effect: idempotent\n    cache: 10m\n",
        ["tools[0].cache: belongs to the effect 'read'; this tool is 'idempotent', and each of its calls is made"],
    ),
    (
        "tools:\n  - mcp: {name: f, command: [x]}\n    cache: 10m\n",
        ["tools[0].cache: belongs to the effect 'read'; this tool is 'once', and each of its calls is made"],
    ),
    (
        "tools:\n  - mcp: {name: f, command: [x]}\n    caches: {a: 1m, b: 1m}\n    effects: {a: read}\n",
        ["tools[0].caches.b: belongs to the effect 'read'; this tool is 'once', and each of its calls is made"],
    ),
    (
        "tools:\n  - mcp: {name: f, command: [x]}\n    effect: read\n    caches: {b: 1m}\n    only: [a]\n",
        ["tools[0].caches.b: is not one of the tools that 'only' takes"],
    ),
    (
        "tools:\n  - mcp: {name: f, command: [x]}\n    effect: read\n    sensitive: [q]\n    caches: {a: 1m}\n",
        [
            f"tools[0].caches.a: {SENSITIVE_CACHE}",
        ],
    ),
    (
        "tools:\n  - http: {method: GET, url: 'https://x.example/${key}'}\n    name: t\n    query: [q, s]\n"
        + SCHEMA
        + "    effect: read\n    cache: 1h\n    headers: {X-Id: '${key}'}\n    sensitive: [s]\n",
        [
            f"tools[0].http.url: {NEVER_EQUAL}",
            f"tools[0].cache: {SENSITIVE_CACHE}",
            f"tools[0].headers.X-Id: {NEVER_EQUAL}",
        ],
    ),
    (
        ACTIVITY + SCHEMA + "    effect: read\n    cache: 1h\n",
        [
            f"tools[0].cache: {ACTIVITY_CACHE}",
        ],
    ),
    (
        ACTIVITY + SCHEMA + "    key_valid: 1h\n",
        ["tools[0].key_valid: belongs to the effect 'keyed'; the other side knows no key of other tools"],
    ),
    (
        "tools:\n  - activity: {name: a.B, task_queue: t}\n"
        + SCHEMA
        + "    arguments: [z, q, q]\n    sensitive: [card]\n",
        [
            "tools[0].activity.name: 'a.B' cannot be the name of a tool; set the tool's 'name'",
            "tools[0].input_schema: the sensitive argument 'card' is not one of its properties",
            "tools[0].arguments: the property 's' of input_schema has no position and would be lost",
            "tools[0].arguments[0]: 'z' is not a property of input_schema",
            "tools[0].arguments[2]: 'q' is given twice",
            IN_CLEAR,
        ],
    ),
    (
        ACTIVITY + "    input_schema: {properties: {a: {}}}\n    sensitive: [b]\n    arguments: [c]\n",
        [
            "tools[0].input_schema: must be the JSON Schema of an object, with 'type: object'",
            "tools[0].input_schema: the sensitive argument 'b' is not one of its properties",
            IN_CLEAR,
            "tools[0].arguments: the property 'a' of input_schema has no position and would be lost",
            "tools[0].arguments[0]: 'c' is not a property of input_schema",
        ],
    ),
    (
        "tools:\n  - http: {method: GET, url: 'https://x.example/{q}/{s}/{z}'}\n    name: t\n"
        + SCHEMA
        + "    query: [q, y]\n    sensitive: [card]\n",
        [
            "tools[0].http.url: the argument 's' must be a required property of input_schema",
            "tools[0].http.url: the argument 'z' must be a required property of input_schema",
            "tools[0].input_schema: the sensitive argument 'card' is not one of its properties",
            "tools[0].query[0]: 'q' is in the address already",
            "tools[0].query[1]: 'y' is not a property of input_schema",
        ],
    ),
]
"""Entries whose keys do not fit together, with all that this is."""


@pytest.mark.parametrize(("text", "faults"), BETWEEN)
def test_keys_that_do_not_fit_are_told(text: str, faults: list[str], tmp_path: Path) -> None:
    assert keyed_faults(HEAD + text, tmp_path) == faults


@pytest.mark.parametrize(("text", "faults"), BETWEEN)
def test_keys_that_do_not_fit_are_told_beside_faults_of_other_entries(
    text: str, faults: list[str], tmp_path: Path
) -> None:
    around = "attempts: 0\n" + HEAD + text + "  - {python: a:b, effect: onc}\n"

    assert keyed_faults(around, tmp_path) == [
        "attempts: 0: must be at least 1",
        *faults,
        "tools[1].effect: 'onc' is not one of read, idempotent, keyed, once",
    ]


@pytest.mark.parametrize("text", [text for text, _ in BETWEEN if "mcp: " not in text])
def test_keys_of_an_entry_are_compared_once_each_is_valid(text: str, tmp_path: Path) -> None:
    assert keyed_faults(HEAD + text + BAD, tmp_path) == [BAD_TOLD]


@pytest.mark.parametrize(("text", "faults"), BETWEEN)
def test_agent_made_in_code_is_refused_for_the_same(text: str, faults: list[str]) -> None:
    with pytest.raises(ValidationError) as refused:
        AgentSpec.model_validate(parse_document("f", HEAD + text).value)

    assert {fault["msg"] for fault in refused.value.errors()} <= {told.split(": ", 1)[1] for told in faults}


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (
            "tools:\n  - http: {method: FETCH, url: 'https://x.example/{z}'}\n    name: 1st\n"
            + SCHEMA
            + "    query: [y, 3]\n",
            [
                "tools[0].http.method: 'FETCH' is not one of GET, HEAD, POST, PUT, PATCH, DELETE",
                "tools[0].name: '1st' is not a letter followed by up to 63 letters, digits, '_' and '-'",
                "tools[0].query[1]: 3 is not a text; put it in quotes",
            ],
        ),
        (
            "tools:\n  - http: {method: GET, url: 'ftp://x.example/{z}'}\n    name: t\n" + SCHEMA,
            ["tools[0].http.url: 'ftp://x.example/{z}' does not begin with http:// or https://"],
        ),
        (
            ACTIVITY + SCHEMA + "    arguments: [q, 3, z]\n    sensitive: [{}, card]\n",
            [
                "tools[0].arguments[1]: 3 is not a text; put it in quotes",
                "tools[0].sensitive[0]: a mapping is not a text",
            ],
        ),
        (
            "tools:\n  - mcp: {name: f, command: npx, url: 'https://x'}\n    only: [a]\n    effects: {b: reed}\n",
            [
                "tools[0].mcp.command: 'npx' is not a list",
                "tools[0].effects.b: 'reed' is not one of read, idempotent, keyed, once",
            ],
        ),
    ],
)
def test_each_key_of_an_entry_is_judged_by_itself(text: str, faults: list[str], tmp_path: Path) -> None:
    assert keyed_faults(HEAD + text, tmp_path) == faults


def test_names_given_twice_are_told_once_each_is_valid(tmp_path: Path) -> None:
    text = (
        "name: b\ninstructions: x\nmodels: [openai:n, gpt, gpt, openai:n]\n"
        "tools:\n  - {python: a:b, name: x}\n  - {python: a:c, name: x, effect: onc}\n"
        "policy:\n  - {id: y, match: {}, verdict: deny}\n  - {id: y, match: 3, verdict: deny}\n"
    )
    mended = (
        text.replace("gpt, gpt", "openai:o").replace("effect: onc", "effect: once").replace("match: 3", "match: {}")
    )

    assert keyed_faults(text, tmp_path) == [
        f"models[1]: 'gpt' is not {NAME_FORM}, or {ENDPOINT_FORM}",
        f"models[2]: 'gpt' is not {NAME_FORM}, or {ENDPOINT_FORM}",
        "tools[1].effect: 'onc' is not one of read, idempotent, keyed, once",
        "policy[1].match: 3 is not a mapping",
    ]
    assert keyed_faults(mended, tmp_path) == [
        "models[2]: 'openai:n' is given twice",
        "tools[1]: the name 'x' is taken by tools[0]; set another 'name'",
        "policy[1].id: 'y' is the id of policy[0] too; each rule has its own",
    ]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("tools:\n  - mcp: {name: f, comand: [x]}\n", ["tools[0].mcp.comand"]),
        ("tools:\n  - mcp: {name: f, url: 'https://x', comand: [x]}\n", ["tools[0].mcp.comand"]),
        ("tools:\n  - mcp: {name: f, comand: [x], env: {A: b}}\n", ["tools[0].mcp.comand"]),
        ("tools:\n  - mcp: {name: f, command: npx, env: {A: b}}\n", ["tools[0].mcp.command"]),
        ("tools:\n  - mcp: {name: f, command: [x]}\n    only: [a, 3]\n    effects: {b: read}\n", ["tools[0].only[1]"]),
        ("tools:\n  - mcp: {name: f, command: [x]}\n    only: a\n    effects: {b: read}\n", ["tools[0].only"]),
        ("tools:\n  - activity: {name: a.B, task_queue: t}\n    nam: b\n" + SCHEMA, ["tools[0].nam"]),
        ("tools:\n  - activity: {name: a.B, task_queue: t}\n    name: 1st\n" + SCHEMA, ["tools[0].name"]),
        (ACTIVITY + "    arguments: [q]\n    sensitive: [.inf]\n", ["tools[0].input_schema", "tools[0].sensitive[0]"]),
        (ACTIVITY + "    input_schema: q\n    arguments: [q]\n", ["tools[0].input_schema"]),
        (
            HTTP.replace("/{q}", "/") + "    input_schema: {type: array}\n    sensitive: [s]\n",
            ["tools[0].input_schema", "tools[0].input_schema"],
        ),
        (ACTIVITY + SCHEMA + "    arguments: [q, 3]\n", ["tools[0].arguments[1]"]),
        (HTTP + SCHEMA.replace("s: {}", "s: {}, 404: {}"), ["tools[0].input_schema.properties"]),
        (HTTP.replace("{q}", "{q") + SCHEMA + "    query: [q]\n", ["tools[0].http.url"]),
        (HTTP.replace("name: t", "name: [t]") + SCHEMA + "  - {python: a:b, name: t}\n", ["tools[0].name"]),
        ("tools:\n  - {python: a:b, name: 1st}\n  - {python: a:c, name: 1st}\n", ["tools[0].name", "tools[1].name"]),
        ("tools:\n  - {python: a:b, mcp: {name: f}}\n", ["tools[0]"]),
        (
            "policy:\n  - {id: 1st, match: {}, verdict: deny}\n  - {id: 1st, match: {}, verdict: deny}\n",
            ["policy[0].id", "policy[1].id"],
        ),
    ],
)
def test_nothing_is_concluded_from_what_cannot_be_read(text: str, keys: list[str], tmp_path: Path) -> None:
    assert [told.partition(":")[0] for told in keyed_faults(HEAD + text, tmp_path)] == keys


async def test_faults_of_the_file_come_first_and_then_those_of_its_tools(folder: Path) -> None:
    text = (
        HEAD
        + """\
attempts: 0
tools:
  - python: together_shop:lookup
    effect: onc
  - python: together_shop:pay
    sensitive: [card, pin]
    timeout: 30
  - python: together_shop:pay
    name: read_result
  - mcp: {name: down, command: [npx]}
  - mcp: {name: locked, command: [npx], env: {A: "${secret:ONE}", B: 3}}
  - http: {method: FETCH, url: "https://x.example/"}
    name: look_up
    headers: {A: "${secret:TWO}", B: "${secret:"}
    input_schema: {type: object, properties: {a: {type: numbr}}}
  - python: together_shop:look_up
  - activity: {name: get, task_queue: pay}
    input_schema: {type: object, required: a}
policy:
  - {id: x, match: {}, verdict: perhaps}
output_schema: {type: array}
"""
    )
    mended = (
        text.replace("attempts: 0", "attempts: 1")
        .replace("effect: onc", "effect: once")
        .replace("timeout: 30", "timeout: 30s")
        .replace("B: 3", "B: b")
        .replace("FETCH", "GET")
        .replace(', B: "${secret:"', "")
        .replace("perhaps", "ask")
    )
    (folder / "a.yaml").write_text(text)
    (folder / "b.yaml").write_text(HEAD.replace("name: a", "name: b") + "tools: [{python: 'together_shop:zzz'}]\n")
    (folder / "c.yaml").write_text("models: [\n")
    servers = StubServer()

    first = await loaded_faults(folder, servers)
    asked_first = list(servers.asked)
    (folder / "a.yaml").write_text(mended)
    second = await loaded_faults(folder, servers)

    others = [
        "b.yaml:4:10: tools[0].python: module 'together_shop' has no function 'zzz'; it has charge, look_up, pay",
        "c.yaml:2:1: is not valid YAML: while parsing a flow node, expected the node content, but found '<stream end>'",
    ]
    assert first == [
        "a.yaml:4:1: attempts: 0: must be at least 1",
        "a.yaml:7:5: tools[0].effect: 'onc' is not one of read, idempotent, keyed, once",
        "a.yaml:10:5: tools[1].timeout: 30: a duration needs a unit, for example '30s', '5m', '2h' or '1d'",
        "a.yaml:14:67: tools[4].mcp.env.B: is not a text; put it in quotes",
        "a.yaml:15:12: tools[5].http.method: 'FETCH' is not one of GET, HEAD, POST, PUT, PATCH, DELETE",
        (
            "a.yaml:17:35: tools[5].headers.B: a secret is written '${secret:NAME}', "
            "its name of letters, digits, '_', '.' and '-'"
        ),
        "a.yaml:23:24: policy[0].verdict: 'perhaps' is not one of allow, ask, deny",
        *others,
    ]
    starts = [
        "a.yaml:6:5: tools[0].python: module 'together_shop' has no function 'lookup'; did you mean 'look_up'?",
        "a.yaml:8:5: tools[1].python: together_shop:pay: sensitive arguments 'card', 'pin' are none of its arguments",
        "a.yaml:11:5: tools[2]: the name 'read_result' is taken by a built-in tool; set another 'name'",
        "a.yaml:13:5: tools[3].mcp: the server 'down' ended at once",
        f"a.yaml:14:47: tools[4].mcp.env.A: secret 'ONE' {NOWHERE}",
        f"a.yaml:17:15: tools[5].headers.A: secret 'TWO' {NOWHERE}",
        "a.yaml:18:5: tools[5].input_schema: the schema is not valid: properties.a.type: ",
        "a.yaml:19:5: tools[6]: the name 'look_up' is taken by tools[5]; set another 'name'",
        "a.yaml:21:5: tools[7].input_schema: the schema is not valid: required: ",
        "a.yaml:24:1: output_schema: the schema must be for an object, not type 'array'",
        *others,
    ]
    assert len(second) == len(starts), "\n".join(second)
    for line, start in zip(second, starts, strict=True):
        assert line.startswith(start)
    assert (asked_first, servers.asked) == ([], ["down"])


@pytest.mark.parametrize(
    "more",
    [
        "output_schema: {type: object, properties: {a: {maximum: .inf}}}\n",
        ACTIVITY + "    input_schema: {type: object, properties: {a: {maximum: .inf}}}\n",
        "tools:\n  - {python: together_shop:pay, python: together_shop:zzz}\n",
        "tools:\n  - {python: together_shop:pay, sensitive: [.inf]}\n",
        "tools:\n  - mcp: {name: down, command: [!x npx]}\n",
    ],
)
async def test_what_the_yaml_does_not_say_clearly_is_told_once(folder: Path, more: str) -> None:
    (folder / "a.yaml").write_text(HEAD + more)

    assert len(await loaded_faults(folder)) == 1


async def test_all_sensitive_arguments_that_a_function_lacks_are_told(folder: Path) -> None:
    (folder / "a.yaml").write_text(HEAD + "tools: [{python: 'together_shop:charge'}]\n")

    refused = "a.yaml:4:10: tools[0].python: together_shop:charge: sensitive arguments"
    assert await loaded_faults(folder) == [f"{refused} 'pin', 'cvc' are none of its arguments"]


@pytest.mark.parametrize(
    "more",
    [f"output_schema: {{x: {'[' * depth}{']' * depth}}}\n" for depth in (210, 300, 450)]
    + [f"tools: [{{python: {'[' * 210}{']' * 210}}}]\n"],
)
async def test_file_that_json_cannot_say_hides_no_other(folder: Path, more: str) -> None:
    (folder / "a.yaml").write_text(HEAD + more)
    (folder / "b.yaml").write_text(HEAD.replace("name: a", "name: b") + "attempts: 0\n")

    assert await loaded_faults(folder) == [
        "a.yaml:1:1: JSON cannot say it: it is nested too deep",
        "b.yaml:4:1: attempts: 0: must be at least 1",
    ]
