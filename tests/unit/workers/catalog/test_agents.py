"""Agent files: what is read, and every fault with its line, key, value and what is allowed."""

from datetime import timedelta
from pathlib import Path

import jsonschema_rs
import pytest
from pydantic import JsonValue, ValidationError

from mandate.activities.documents import parse_document
from mandate.activities.files import FileError
from mandate.workers.catalog.agents import agent_schema, read_agent, read_agents
from mandate.workflows.contracts.agent import AgentSpec
from mandate.workflows.contracts.base import JsonObject, Spec
from mandate.workflows.contracts.route import ENDPOINT_FORM, NAME_FORM
from mandate.workflows.contracts.tool import Effect
from mandate.workflows.contracts.tool_entry import ActivityTool, HttpTool, McpTools, PythonTool

HEAD = "name: refunds\ninstructions: Help.\nmodels: [openai:gpt-6-sol]\n"
"""Lines 1 to 3 of a valid file."""

FULL = (
    HEAD
    + """\
tools:
  - python: shop.tools:lookup_order
  - python: shop.tools:issue_refund
    name: refund
    description: Pay money back.
    effect: keyed
    timeout: 1m30s
    retries: 5
    untrusted: true
    tags: [money]
    sensitive: [card]
    result_limit: 4096
    key_valid: 24h
  - mcp: {name: files, command: [npx, -y, server, ./data], env: {TOKEN: "${secret:FILES_TOKEN}"}}
    only: [read_text_file, write_file]
    effects: {read_text_file: read, write_file: keyed}
    error: unknown
    errors: {write_file: not_done}
    key_valid: 1h
  - mcp: {name: search, url: "https://search.example.com/mcp", headers: {Authorization: "Bearer ${secret:SEARCH}"}}
    untrusted: true
    effect: read
  - activity: {name: ChargeCard, task_queue: payments}
    description: Charge the customer's card
    input_schema:
      type: object
      properties: {amount: {type: number}, currency: {type: string}}
      required: [amount]
    arguments: [amount, currency]
    effect: keyed
    key_valid: 1d12h
    failed_types: [CardDeclined]
  - http: {method: POST, url: "https://tickets.example.com/api/{queue}/tickets"}
    name: create_ticket
    headers: {Authorization: "Bearer ${secret:TICKETS}"}
    query: [notify]
    input_schema:
      type: object
      properties: {queue: {type: string}, notify: {type: boolean}, text: {type: string}}
      required: [queue, text]
    effect: keyed
    key_valid: 24h
policy:
  - {id: small, match: {tools: [refund], effects: [keyed], tags: [money], sources: [python]}, verdict: allow}
  - {id: rest, match: {tools: ["*"]}, verdict: deny}
attempts: 2
budget: {steps: 12}
output_schema: {type: object, properties: {answer: {type: string}}}
max_output_tokens: 1000
"""
)


def lines_of(text: str, tmp_path: Path) -> list[str]:
    """The faults of a file with this text, without the file's name."""
    path = tmp_path / "agent.yaml"
    path.write_text(text)
    with pytest.raises(FileError) as refused:
        read_agent(path)
    assert str(refused.value) == "\n".join(map(str, refused.value.faults))
    return [line.removeprefix(f"{path}:") for line in str(refused.value).splitlines()]


def test_full_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "refunds.yaml"
    path.write_text(FULL)

    spec = read_agent(path)

    assert [type(entry) for entry in spec.tools] == [PythonTool, PythonTool, McpTools, McpTools, ActivityTool, HttpTool]
    refund = spec.tools[1]
    assert isinstance(refund, PythonTool)
    assert (refund.timeout, refund.effect, refund.sensitive) == (timedelta(seconds=90), Effect.KEYED, ("card",))
    assert [entry.key_valid for entry in spec.tools] == [
        None if hours is None else timedelta(hours=hours) for hours in (None, 24, 1, None, 36, 24)
    ]
    files = spec.tools[2]
    assert isinstance(files, McpTools)
    assert (files.error, files.errors) == ("unknown", {"write_file": "not_done"})
    assert spec.budget.steps == 12


def test_smallest_file_has_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "refunds.yaml"
    path.write_text(HEAD)

    assert read_agent(path) == AgentSpec(name="refunds", instructions="Help.", models=("openai:gpt-6-sol",))


KINDS = "python, mcp, activity, http, agent"
TOOL_KEYS = (
    "cache, compensate, description, effect, key_valid, name, patience, probe, python, result_limit, retries, risk, "
    "sensitive, tags, timeout, untrusted"
)
AGENT_KEYS = (
    "after_failure, attempts, backtrack, board, budget, checks, context, instructions, max_output_tokens, models, "
    "models_allowed, name, output_schema, people, plans, policies, policy, prefer, prices, record, requester, "
    "same_call, tools"
)
BUDGET_KEYS = (
    "children, cost_usd, depth, model_calls, raise_at_most, steps, tokens, tool_calls, wall_time, "
    "when_used_up, work_time"
)
ACTIVITY = "tools:\n  - activity: {name: Charge, task_queue: pay}\n"
HTTP = "tools:\n  - name: t\n    http: {method: GET, url: "
SCHEMA = "    input_schema: {type: object, properties: {q: {}, s: {}}, required: [q]}\n"


@pytest.mark.parametrize(
    ("more", "faults"),
    [
        ("colour: blue\n", [f"4:1: colour: is not a key that is known here; allowed are {AGENT_KEYS}"]),
        (
            "instruction: x\n",
            [
                (
                    "4:1: instruction: is not a key that is known here; "
                    f"did you mean 'instructions'? allowed are {AGENT_KEYS}"
                )
            ],
        ),
        ("attempts: 1\nattempts: 2\n", ["5:1: attempts: the key 'attempts' is given twice, in lines 4 and 5"]),
        ("attempts: '3'\n", ["4:1: attempts: '3' is not a whole number"]),
        ("record: {arguments: 'yes'}\n", ["4:10: record.arguments: 'yes' is not true or false"]),
        (
            "record: {argument: true}\n",
            [
                (
                    "4:10: record.argument: is not a key that is known here; did you mean 'arguments'? "
                    "allowed are arguments"
                )
            ],
        ),
        ("attempts: 2.5\n", ["4:1: attempts: 2.5 is not a whole number"]),
        ("attempts: true\n", ["4:1: attempts: true is not a whole number"]),
        ("attempts:\n", ["4:1: attempts: null is not a whole number"]),
        ("attempts: 0\n", ["4:1: attempts: 0: must be at least 1"]),
        ("attempts: 21\n", ["4:1: attempts: 21: must be at most 20"]),
        ("checks: {}\n", ["4:1: checks: a mapping is not a list"]),
        ("context: []\n", ["4:1: context: is not a mapping"]),
        ("context: {limit: 2}\n", ["4:11: context.limit: 2: must be at most 0.95"]),
        ("context: {limit: 0}\n", ["4:11: context.limit: 0: must be at least 0.1"]),
        ("context: {limit: much}\n", ["4:11: context.limit: 'much' is not a number"]),
        ("context: {keep: 1}\n", ["4:11: context.keep: 1: must be at least 2"]),
        ("context: {keep: 2.5}\n", ["4:11: context.keep: 2.5 is not a whole number"]),
        ("context: {summary: 'yes'}\n", ["4:11: context.summary: 'yes' is not a mapping"]),
        (
            "context: {summary: {models: [nope]}}\n",
            [(f"4:30: context.summary.models[0]: 'nope' is not {NAME_FORM}, or {ENDPOINT_FORM}")],
        ),
        (
            "context: {summary: {models: ['openai:a', 'openai:a']}}\n",
            ["4:42: context.summary.models[1]: 'openai:a' is given twice"],
        ),
        (
            "context: {summary: {instruction: x}}\n",
            [
                (
                    "4:21: context.summary.instruction: is not a key that is known here; did you mean 'instructions'? "
                    "allowed are instructions, models"
                )
            ],
        ),
        ("context: {pin: rule}\n", ["4:11: context.pin: 'rule' is not a list"]),
        ("context: {pin: [' ']}\n", ["4:17: context.pin[0]: must not be empty"]),
        ("context: {pin: [1]}\n", ["4:17: context.pin[0]: 1 is not a text; put it in quotes"]),
        ("context: {recall: maybe}\n", ["4:11: context.recall: 'maybe' is not true or false"]),
        (
            "context: {limits: 0.5}\n",
            [
                (
                    "4:11: context.limits: is not a key that is known here; did you mean 'limit'? allowed are keep, "
                    "limit, pin, recall, summary"
                )
            ],
        ),
        ("memory: {}\n", ["4:1: memory: is not available in this version; remove it"]),
        (
            "budget: {cost_usd: 2.5}\n",
            ["4:10: budget.cost_usd: 2.5: an amount is exact: write it as a text in quotes, for example '2.50'"],
        ),
        (
            "budget:\n  step: 3\n",
            [f"5:3: budget.step: is not a key that is known here; did you mean 'steps'? allowed are {BUDGET_KEYS}"],
        ),
        ("tools: {}\n", ["4:1: tools: a mapping is not a list"]),
        ("tools:\n  - lookup\n", [f"5:5: tools[0]: is not a mapping; a tool has exactly one of the keys {KINDS}"]),
        (
            "tools:\n  - pyton: a:b\n",
            [f"5:5: tools[0]: has none of the keys {KINDS}, of which a tool has exactly one; did you mean 'python'?"],
        ),
        (
            "tools:\n  - {python: a:b, mcp: {}}\n",
            [f"5:5: tools[0]: has the keys python and mcp; a tool has exactly one of {KINDS}"],
        ),
        (
            "tools:\n  - python: shop.lookup\n",
            ["5:5: tools[0].python: 'shop.lookup' is not 'module:function', for example 'shop.tools:lookup_order'"],
        ),
        (
            (
                "tools:\n  - python: a:b\n"
                "  - python: a:c\n    effect: onc\n    timeout: 30\n    probe: [find]\n    tag: []\n"
            ),
            [
                "7:5: tools[1].effect: 'onc' is not one of read, idempotent, keyed, once",
                "8:5: tools[1].timeout: 30: a duration needs a unit, for example '30s', '5m', '2h' or '1d'",
                "9:5: tools[1].probe: a list is neither a name nor a mapping with 'tool'",
                f"10:5: tools[1].tag: is not a key that is known here; did you mean 'tags'? allowed are {TOOL_KEYS}",
            ],
        ),
        ("tools:\n  - {python: a:b, untrusted: on}\n", ["5:19: tools[0].untrusted: 'on' is not true or false"]),
        (
            "tools:\n  - {python: a:b, timeout: 12:30}\n",
            [
                (
                    "5:19: tools[0].timeout: '12:30': a duration is a number and a unit, "
                    "for example '30s', '5m', '1h30m' or '2d'"
                )
            ],
        ),
        (
            "tools:\n  - {python: a:b, name: x}\n  - {python: a:c, name: x}\n",
            ["6:5: tools[1]: the name 'x' is taken by tools[0]; set another 'name'"],
        ),
        (
            "tools:\n  - mcp: {name: files}\n",
            ["5:5: tools[0].mcp: an MCP server needs exactly one of 'command' and 'url'"],
        ),
        (
            "tools:\n  - mcp: {name: f, command: [x, '${secret:A}']}\n",
            [
                (
                    "5:33: tools[0].mcp.command[1]: '${secret:A}': "
                    "a command line is seen by other processes; put the secret into 'env'"
                )
            ],
        ),
        (
            "tools:\n  - mcp: {name: f, url: 'https://x/${secret:A}'}\n",
            [
                (
                    "5:20: tools[0].mcp.url: 'https://x/${secret:A}': "
                    "secrets are resolved in header values only, never in an address"
                )
            ],
        ),
        (
            "tools:\n  - mcp: {name: f, command: [x], headers: {A: b}}\n",
            ["5:34: tools[0].mcp.headers: belongs to 'url'; a server started by 'command' has no headers"],
        ),
        (
            "tools:\n  - mcp: {name: f, command: [x], env: {TOKEN: 271828, KEY: '${secret:A'}}\n",
            [
                "5:40: tools[0].mcp.env.TOKEN: is not a text; put it in quotes",
                (
                    "5:55: tools[0].mcp.env.KEY: a secret is written '${secret:NAME}', "
                    "its name of letters, digits, '_', '.' and '-'"
                ),
            ],
        ),
        (
            "tools:\n  - mcp: {name: f, command: []}\n    effects: {a: reed}\n",
            [
                "5:20: tools[0].mcp.command: must not be empty",
                "6:15: tools[0].effects.a: 'reed' is not one of read, idempotent, keyed, once",
            ],
        ),
        (
            "tools:\n  - mcp: {name: f, command: [x]}\n    only: [a]\n    effects: {b: read}\n",
            ["7:15: tools[0].effects.b: is not one of the tools that 'only' takes"],
        ),
        (
            ACTIVITY,
            [
                (
                    "5:5: tools[0].input_schema: is missing: JSON Schema of the arguments: an object. "
                    "There are no others unless it says `additionalProperties`."
                )
            ],
        ),
        (
            ACTIVITY + "    input_schema: {type: array}\n",
            ["6:5: tools[0].input_schema: must be the JSON Schema of an object, with 'type: object'"],
        ),
        (
            ACTIVITY + SCHEMA + "    arguments: [q, qq, q]\n",
            [
                "7:5: tools[0].arguments: the property 's' of input_schema has no position and would be lost",
                "7:20: tools[0].arguments[1]: 'qq' is not a property of input_schema",
                "7:24: tools[0].arguments[2]: 'q' is given twice",
            ],
        ),
        (
            "tools:\n  - activity: {name: pay.Charge, task_queue: pay}\n" + SCHEMA,
            ["5:16: tools[0].activity.name: 'pay.Charge' cannot be the name of a tool; set the tool's 'name'"],
        ),
        (
            HTTP + "'https://x.example/{q}/{z}/{s}'}\n" + SCHEMA + "    query: [q, y]\n",
            [
                "6:25: tools[0].http.url: the argument 'z' must be a required property of input_schema",
                "6:25: tools[0].http.url: the argument 's' must be a required property of input_schema",
                "8:13: tools[0].query[0]: 'q' is in the address already",
                "8:16: tools[0].query[1]: 'y' is not a property of input_schema",
            ],
        ),
        (
            HTTP + "'https://x.example/{q}'}\n" + SCHEMA + "    sensitive: [card]\n",
            ["7:5: tools[0].input_schema: the sensitive argument 'card' is not one of its properties"],
        ),
        (
            HTTP + "'https://x.example/{q}'}\n" + SCHEMA + "    query: [s, q]\n",
            ["8:16: tools[0].query[1]: 'q' is in the address already"],
        ),
        (
            HTTP + "'https://{q}.example/'}\n" + SCHEMA,
            ["6:25: tools[0].http.url: 'https://{q}.example/': the host is fixed: '{name}' may stand after it only"],
        ),
        (
            HTTP + "'https://x.example/{q'}\n" + SCHEMA,
            [
                (
                    "6:25: tools[0].http.url: 'https://x.example/{q': "
                    "an argument is written '{name}', its name of letters, digits, '_' and '-'"
                )
            ],
        ),
        (
            HTTP + "'https://x.example/?k=${secret:K}'}\n" + SCHEMA,
            [
                (
                    "6:25: tools[0].http.url: 'https://x.example/?k=${secret:K}': "
                    "secrets are resolved in header values only, never in an address"
                )
            ],
        ),
        (
            HTTP + "'ftp://x'}\n" + SCHEMA,
            ["6:25: tools[0].http.url: 'ftp://x' does not begin with http:// or https://"],
        ),
        (
            "policy:\n  - {id: a, match: {}, verdict: ask, approvers: {}}\n  - {id: a, match: {}, verdict: alow}\n",
            [
                "5:38: policy[0].approvers: names nobody; give 'users', 'groups' or both",
                "6:24: policy[1].verdict: 'alow' is not one of allow, ask, deny",
            ],
        ),
        (
            "policy:\n  - {id: a, match: {}, verdict: deny, quorum: 2, whn: x}\n",
            [
                (
                    "5:50: policy[0].whn: is not a key that is known here; did you mean 'when'? allowed are approvers, "
                    "because, expires, id, match, on_expiry, quorum, rejections, remind, signature, verdict, when"
                ),
            ],
        ),
        (
            "policy:\n  - {id: a, match: {}, verdict: deny, quorum: 2, expires: 1h}\n",
            [
                "5:39: policy[0].quorum: belongs to rules with 'verdict: ask', not 'deny'",
                "5:50: policy[0].expires: belongs to rules with 'verdict: ask', not 'deny'",
            ],
        ),
        (
            "people: {on_expiry: refuse}\n",
            ["4:10: people.on_expiry: 'refuse' is neither 'deny' nor a mapping with 'escalate'"],
        ),
        (
            "people: {on_expiry: {escalate: {group: [ops]}}}\n",
            [
                (
                    "4:33: people.on_expiry.escalate.group: is not a key that is known here; did you mean 'groups'? "
                    "allowed are expires, groups, users"
                )
            ],
        ),
        (
            "people: {approvers: {groups: [our finance]}}\n",
            [
                (
                    "4:31: people.approvers.groups[0]: 'our finance' is not a letter or digit followed by up to 63 "
                    "letters, digits, '_', '.', '@', '/' and '-'"
                )
            ],
        ),
        ("tools:\n  - {python: a:b, risk: -1}\n", ["5:19: tools[0].risk: -1: must be at least 0"]),
        ("policies: [a, a]\n", ["4:15: policies[1]: 'a' is given twice"]),
        (
            "policy:\n  - {id: a, match: {}, verdict: deny}\n  - {id: a, match: {}, verdict: allow}\n",
            ["6:6: policy[1].id: 'a' is the id of policy[0] too; each rule has its own"],
        ),
        (
            "policy:\n  - {id: a, match: {tools: x, source: [mcp]}, verdict: deny}\n",
            [
                "5:21: policy[0].match.tools: 'x' is not a list",
                (
                    "5:31: policy[0].match.source: is not a key that is known here; did you mean 'sources'? "
                    "allowed are effects, sources, tags, tools"
                ),
            ],
        ),
        (
            "output_schema: .inf\n",
            ["4:1: output_schema: '.inf' is not a mapping", "4:16: output_schema: .inf is not a number that JSON has"],
        ),
        ("404: x\n", ["4:1: the key 404 is not a text; put it in quotes"]),
    ],
)
def test_fault_is_told_with_its_place(more: str, faults: list[str], tmp_path: Path) -> None:
    assert lines_of(HEAD + more, tmp_path) == faults


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", [" is empty"]),
        ("- a\n", ["1:1: is not a mapping with 'name', 'instructions' and 'models'"]),
        (
            "name: [a\nmodels: b\n",
            ["2:7: is not valid YAML: while parsing a flow sequence, expected ',' or ']', but got ':'"],
        ),
        (
            "a: 1\n---\nb: 1\n",
            ["2:1: is not valid YAML: expected a single document in the stream, but found another document"],
        ),
        ("name: a\nmodels: \x01\n", ["2:9: is not valid YAML: U+0001 is not allowed"]),
        (
            "models: [gpt]\ninstructions: ''\n",
            [
                "1:1: name: is missing: What a start request calls it.",
                f"1:10: models[0]: 'gpt' is not {NAME_FORM}, or {ENDPOINT_FORM}",
                "2:1: instructions: '' must not be empty",
            ],
        ),
        (
            "name: 1st\ninstructions: x\nmodels: []\n",
            [
                "1:1: name: '1st' is not a letter followed by up to 63 letters, digits, '_' and '-'",
                "3:1: models: must not be empty",
            ],
        ),
    ],
)
def test_file_that_is_no_agent_is_told_why(text: str, faults: list[str], tmp_path: Path) -> None:
    assert lines_of(text, tmp_path) == faults


NAMES = "allowed are '${key}', '${run.requester}', '${run.workflow_id}' and, in header values, '${secret:NAME}'"


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        (
            "headers: {X: '${run.user}'}",
            f"headers.X: '${{run.user}}' is not known here; did you mean 'run.requester'? {NAMES}",
        ),
        ("headers: {X: '${A93kf}'}", f"headers.X: a name in '${{...}}' is not known here; {NAMES}"),
        ("headers: {Host: x}", "headers.Host: is set by Mandate"),
        ("headers: {idempotency-key: x}", "headers.idempotency-key: is set by Mandate"),
        ("headers: {'A B': x}", "headers['A B']: is not a header name"),
        ("body: {a: [{b: '${who}'}]}", f"body.a[0].b: '${{who}}' is not known here; {NAMES}"),
        ("body: {a: '${secret:T}'}", "body.a: secrets are resolved in header values only, never in a body"),
        ("body: {id: 1}", "body.id: is an argument too; the body has it from one place only"),
        ("body: {a: 1}, http: {method: GET, url: 'https://x.example/{id}'}", "body: GET has no body"),
    ],
)
def test_values_of_the_run_in_a_request_are_checked(keys: str, fault: str, tmp_path: Path) -> None:
    told = [line.partition(": tools[0].")[2] for line in lines_of(HEAD + request_tool(keys), tmp_path)]

    assert told == [fault]


def test_values_of_the_run_may_be_in_address_headers_and_body(tmp_path: Path) -> None:
    headers = "headers: {X-By: '${run.requester} ${key}', X: 'Bearer ${secret:T}', Y: '$${plain}'}"
    body = "body: {by: '${run.requester}', deep: [{id: '${run.workflow_id}'}, 1, '$${plain}']}"
    (tmp_path / "agent.yaml").write_text(HEAD + request_tool(f"{headers}, {body}"))

    (tool,) = read_agent(tmp_path / "agent.yaml").tools

    assert isinstance(tool, HttpTool)
    assert tool.body == {"by": "${run.requester}", "deep": [{"id": "${run.workflow_id}"}, 1, "$${plain}"]}


def request_tool(keys: str) -> str:
    schema = "input_schema: {type: object, properties: {id: {type: string}}, required: [id]}"
    http = "" if "http:" in keys else "http: {method: POST, url: 'https://x.example/${run.workflow_id}/{id}'}, "
    return f"tools:\n  - {{{http}name: t, {schema}, {keys}}}\n"


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")

    for name, message in {
        "absent.yaml": ": cannot be read: No such file or directory",
        "latin.yaml": ":1:10: is not UTF-8 text: byte 0xe9 cannot be read; save the file as UTF-8",
    }.items():
        with pytest.raises(FileError) as refused:
            read_agent(tmp_path / name)
        assert str(refused.value) == f"{tmp_path / name}{message}"


def test_value_that_may_be_a_secret_is_not_shown(tmp_path: Path) -> None:
    more = "tools:\n  - mcp: {name: f, url: 'https://x', headers: {A: 271828}, env: {B: [s3cr3t]}}\n"

    assert not [line for line in lines_of(HEAD + more, tmp_path) if "271828" in line or "s3cr3t" in line]


def test_long_value_is_shortened(tmp_path: Path) -> None:
    (fault,) = lines_of(HEAD + f"attempts: {'x' * 500}\n", tmp_path)

    assert fault == f"4:1: attempts: '{'x' * 58}… is not a whole number"


def test_every_key_of_the_design_that_is_not_built_is_refused_by_name(tmp_path: Path) -> None:
    places: dict[type[Spec], str] = {
        AgentSpec: "{key}: 1\n",
    }

    for spec, place in places.items():
        assert spec.unavailable
        for key in spec.unavailable:
            (fault,) = lines_of(HEAD + place.format(key=key), tmp_path)
            assert fault.endswith(f"{key}: is not available in this version; remove it")


def test_folder_is_read_without_scripts_and_other_files(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text(HEAD.replace("refunds", "beta"))
    (tmp_path / "a.yaml").write_text(HEAD.replace("refunds", "alpha"))
    for other in ("a.script.yaml", ".#a.yaml", "notes.txt"):
        (tmp_path / other).write_text("turns: []\n")

    assert [file.spec.name for file in read_agents(tmp_path)] == ["alpha", "beta"]


def test_faults_of_all_files_come_together(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(HEAD)
    (tmp_path / "b.yaml").write_text(HEAD + "attempts: 0\n")
    (tmp_path / "c.yaml").write_text("models: [\n")
    (tmp_path / "d.yaml").write_text(HEAD)

    with pytest.raises(FileError) as refused:
        read_agents(tmp_path)

    assert [line.removeprefix(f"{tmp_path}/") for line in str(refused.value).splitlines()] == [
        "b.yaml:4:1: attempts: 0: must be at least 1",
        "c.yaml:2:1: is not valid YAML: while parsing a flow node, expected the node content, but found '<stream end>'",
        f"d.yaml:1:1: name: 'refunds' is the name of the agent at {tmp_path}/a.yaml:1 too",
    ]


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="none: does not exist; MANDATE_AGENTS names the folder"):
        read_agents(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("1e3", 1000.0),
        ("-.5", -0.5),
        ("~", None),
        ("TRUE", True),
        ("no", "no"),
        ("'12'", "12"),
        ("!!str 12", "12"),
        ("<<", "<<"),
        ("[&a 1, *a]", [1, 1]),
    ],
)
def test_scalars_are_read_as_yaml_1_2(text: str, value: JsonValue) -> None:
    document = parse_document("f", f"key: {text}\n")

    assert (document.value, document.faults) == ({"key": value}, ())


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: !python/object x\n", "f:1:4: a: the tag !python/object is not supported; remove it"),
        ("a: &x [*x]\n", "f:1:4: a[0]: an alias contains itself"),
        ("? [a]\n: b\n", "f:1:3: a key is not a text; put it in quotes"),
        ("a: {b-c: {'d e': {f: 1, f: 2}}}\n", "f:1:25: a.b-c['d e'].f: the key 'f' is given twice, in lines 1 and 1"),
        ("[" * 500, "f: is not valid YAML: nested too deep or badly tagged"),
        (
            "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
            + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcde", "bcdef", strict=True)),
            "f: holds more than 100000 values, aliases repeated",
        ),
    ],
)
def test_yaml_that_json_cannot_say_is_refused(text: str, fault: str) -> None:
    assert [str(found) for found in parse_document("f", text).faults] == [fault]


def properties(schema: JsonValue, path: str = "") -> list[tuple[str, JsonObject]]:
    """Each described property of a schema and of its definitions."""
    found: list[tuple[str, JsonObject]] = []
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "properties" and isinstance(value, dict):
                found += [(f"{path}.{name}", item) for name, item in value.items() if isinstance(item, dict)]
            found += properties(value, f"{path}.{key}")
    elif isinstance(schema, list):
        for value in schema:
            found += properties(value, path)
    return found


def test_schema_describes_every_key() -> None:
    found = properties(agent_schema())

    assert len(found) > 40
    assert [path for path, schema in found if not schema.get("description")] == []


def test_schema_accepts_the_full_file_and_refuses_typos() -> None:
    validator = jsonschema_rs.Draft202012Validator(agent_schema())
    value = parse_document("f", FULL).value
    assert isinstance(value, dict)

    assert [error.message for error in validator.iter_errors(value)] == []
    assert not validator.is_valid(value | {"instruction": "x"})
    assert not validator.is_valid(value | {"tools": [{"python": "a:b", "effect": "onc"}]})
    assert not validator.is_valid(value | {"tools": [{"python": "a:b", "mcp": {"name": "x", "command": ["y"]}}]})
    assert not validator.is_valid({key: item for key, item in value.items() if key != "models"})


def test_agent_made_in_code_is_checked_too() -> None:
    rule = {"id": "a", "match": {}, "verdict": "deny"}

    with pytest.raises(ValidationError) as refused:
        AgentSpec.model_validate(
            {"name": "a", "instructions": "x", "models": ["openai:m"], "policy": [rule, rule | {"verdict": "allow"}]}
        )

    assert [(fault["loc"], fault["msg"]) for fault in refused.value.errors()] == [
        (("policy", 1, "id"), "'a' is the id of policy[0] too; each rule has its own")
    ]


@pytest.mark.parametrize(
    ("tool", "faults"),
    [
        (
            "python: a.b:c\n    effect: read\n    cache: 25h\n",
            ["7:5: tools[0].cache: '25h': a result answers other calls for at most 24h"],
        ),
        (
            "python: a.b:c\n    cache: 10\n",
            ["6:5: tools[0].cache: 10: a duration needs a unit, for example '30s', '5m', '2h' or '1d'"],
        ),
        (
            "mcp: {name: f, command: [x]}\n    caches: {a: 25h, b: 24h}\n    effect: read\n",
            [
                "6:14: tools[0].caches.a: '25h': a result answers other calls for at most 24h",
            ],
        ),
    ],
)
def test_time_for_which_results_are_kept_has_limits(tmp_path: Path, tool: str, faults: list[str]) -> None:
    assert lines_of(f"{HEAD}tools:\n  - {tool}", tmp_path) == faults
