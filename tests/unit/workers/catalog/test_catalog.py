"""The catalog: entries become tools, agents become pinned content, faults come all at once."""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from mandate.activities.files import FileError
from mandate.activities.toolbox import builtin
from mandate.workers.catalog.catalog import Catalog
from mandate.workers.catalog.people import faults_for
from mandate.workers.catalog.readiness import missing_keys
from mandate.workers.secrets import Secrets
from mandate.workers.settings import Settings
from mandate.workflows.contracts.agent import AgentSpec, PinnedAgent
from mandate.workflows.contracts.base import digest_of
from mandate.workflows.contracts.tool import (
    ActivityBinding,
    Effect,
    HttpBinding,
    McpBinding,
    McpServer,
    PythonBinding,
    RemoteActivity,
    Tool,
    ToolDefinition,
)
from mandate.workflows.contracts.tool_entry import McpTools

HEAD = "instructions: Help.\nmodels: [openai:gpt-6-sol]\n"

SHOP = '''
from mandate.activities.toolbox.decorator import tool

@tool(effect="read", tags=["shop"])
def look_up(order: int) -> str:
    """Find an order."""
    return f"order {order}"

def pay(order: int) -> None: ...

def loose(order): ...

@tool(input_schema={"type": "object", "properties": {"a": {"type": "numbr"}}})
def misspelt(a=1): ...

@tool(input_schema={"type": "object", "properties": {"a": {"$ref": "https://x.example/schema"}}})
def remote(a=1): ...

@tool(effect="read", input_schema={"type": "object", "properties": {"a": {"type": "number"}}})
def numbered(**given): ...
'''


class ServerDown(Exception):
    pass


class StubServers:
    """Answers for MCP servers: tools by server name, or a sentence."""

    def __init__(self, **servers: tuple[str, ...] | str) -> None:
        self._servers = servers
        self.asked: list[str] = []

    async def definitions(self, entry: McpTools) -> tuple[ToolDefinition, ...]:
        await asyncio.sleep(0)
        self.asked.append(entry.mcp.name)
        offered = self._servers[entry.mcp.name]
        if isinstance(offered, str):
            raise ServerDown(offered)
        return tuple(
            ToolDefinition(
                tool=Tool(name=name, source="mcp", effect=entry.effects.get(name, Effect.ONCE)),
                input_schema={"type": "object"},
                binding=McpBinding(kind="mcp", server=McpServer(name=entry.mcp.name), tool=name),
            )
            for name in offered
        )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project: `catalog_shop.py` beside the folder of agent files, which it returns."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "catalog_shop", raising=False)
    (tmp_path / "catalog_shop.py").write_text(SHOP)
    (tmp_path / "catalog_broken.py").write_text("import catalog_absent\n")
    agents = tmp_path / "agents"
    agents.mkdir()
    return agents


async def load(source: Path, servers: StubServers | None = None, **environment: str) -> Catalog:
    return await Catalog.load(source, servers or StubServers(), secrets=Secrets(environment))


async def faults_of(folder: Path, servers: StubServers | None = None, **environment: str) -> list[str]:
    with pytest.raises(FileError) as refused:
        await load(folder, servers, **environment)
    return [line.removeprefix(f"{folder}/") for line in str(refused.value).splitlines()]


async def test_four_kinds_of_tools_stand_side_by_side(folder: Path) -> None:
    (folder / "shop.yaml").write_text(
        "name: shop\n"
        + HEAD
        + """\
tools:
  - {python: "catalog_shop:look_up", timeout: 5s}
  - mcp: {name: files, command: [npx]}
    effects: {read_file: read}
  - activity: {name: Charge, task_queue: payments}
    input_schema: {type: object, properties: {amount: {type: number}}}
    arguments: [amount]
    failed_types: [CardDeclined]
    effect: keyed
  - http: {method: POST, url: "https://x.example/{queue}"}
    name: create_ticket
    description: Open a ticket.
    headers: {Authorization: "Bearer ${secret:TICKETS}"}
    input_schema: {type: object, properties: {queue: {}, notify: {}}, required: [queue]}
    query: [notify]
    result_limit: 1024
    retries: 0
    tags: [desk]
"""
    )

    catalog = await load(folder, StubServers(files=("read_file", "move")), TICKETS="s3cr3t")

    look_up, read_file, move, charge, ticket, read_result, ask_person, keep_in_mind = catalog.agents[
        "shop"
    ].pinned.tools
    remote = RemoteActivity(name="Charge", task_queue="payments", arguments=("amount",), failed_types=("CardDeclined",))
    assert look_up.tool == Tool(
        name="look_up",
        source="python",
        effect=Effect.READ,
        timeout=timedelta(seconds=5),
        tags=("shop",),
        numeric=("order",),
    )
    assert (look_up.description, look_up.binding) == (
        "Find an order.",
        PythonBinding(kind="python", function="catalog_shop:look_up"),
    )
    assert [(made.tool.name, made.tool.effect) for made in (read_file, move)] == [
        ("read_file", Effect.READ),
        ("move", Effect.ONCE),
    ]
    assert charge.tool == Tool(
        name="Charge", source="activity", effect=Effect.KEYED, numeric=("amount",), remote=remote
    )
    assert charge.binding == ActivityBinding(kind="activity", activity=remote)
    assert ticket.tool == Tool(name="create_ticket", source="http", retries=0, tags=("desk",), untrusted=True)
    assert (ticket.description, ticket.result_limit_bytes) == ("Open a ticket.", 1024)
    assert ticket.binding == HttpBinding(
        kind="http",
        method="POST",
        url="https://x.example/{queue}",
        headers={"Authorization": "Bearer ${secret:TICKETS}"},
        query=("notify",),
    )
    start = builtin.READ_RESULT.tool.model_copy(update={"numeric": ("start",)})
    assert read_result == builtin.READ_RESULT.model_copy(update={"tool": start})
    assert (ask_person, keep_in_mind) == (builtin.ASK_PERSON, builtin.KEEP_IN_MIND)
    assert b"s3cr3t" not in catalog.agents["shop"].content


async def test_http_tool_is_trusted_only_where_the_file_says_so(folder: Path) -> None:
    (folder / "shop.yaml").write_text(
        "name: shop\n"
        + HEAD
        + """\
tools:
  - http: {method: GET, url: "https://x.example/"}
    name: own
    untrusted: false
    risk: 0.25
    input_schema: {type: object, properties: {page: {type: integer}, size: {type: [number, "null"]}}}
  - activity: {name: Charge, task_queue: payments}
    risk: 3
    input_schema: {type: object}
"""
    )

    own, charge, *_ = (await load(folder)).agents["shop"].pinned.tools

    assert (own.tool.untrusted, own.tool.risk, own.tool.numeric) == (False, 0.25, ("page", "size"))
    assert (charge.tool.untrusted, charge.tool.risk, charge.tool.numeric) == (False, 3.0, ())


async def test_content_gives_the_agent_back_and_names_it(folder: Path) -> None:
    (folder / "shop.yaml").write_text("name: shop\n" + HEAD + "tools: [{python: 'catalog_shop:look_up'}]\n")

    loaded = (await load(folder)).agents["shop"]

    assert PinnedAgent.model_validate_json(loaded.content) == loaded.pinned
    assert loaded.digest == digest_of(loaded.content)
    assert loaded.path == folder / "shop.yaml"


async def test_digest_changes_with_the_agent_and_not_with_its_layout(folder: Path) -> None:
    file = folder / "shop.yaml"
    digests = []
    for text in (
        "name: shop\ninstructions: Help.\nmodels: [openai:m]\n",
        "# comment\nmodels:\n  - openai:m\ninstructions: 'Help.'\nname: shop\nattempts: 3\n",
        "name: shop\ninstructions: Help!\nmodels: [openai:m]\n",
    ):
        file.write_text(text)
        digests.append((await load(folder)).agents["shop"].digest)

    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


async def test_one_file_is_loaded_alone(folder: Path) -> None:
    (folder / "shop.yaml").write_text("name: shop\n" + HEAD + "tools: [{python: 'catalog_shop:look_up'}]\n")
    (folder / "broken.yaml").write_text("name: [\n")

    assert list((await load(folder / "shop.yaml")).agents) == ["shop"]


async def test_agents_made_in_code_are_loaded() -> None:
    spec = AgentSpec(name="made", instructions="x", models=("scripted:a.yaml", "vllm:b"))

    catalog = await Catalog.load([spec], StubServers(), secrets=Secrets({}), builtins=())

    assert catalog.agents["made"].pinned.tools == ()
    assert catalog.agents["made"].path is None
    assert catalog.providers() == {"scripted", "vllm"}


async def test_only_providers_that_agents_name_are_listed(folder: Path) -> None:
    (folder / "a.yaml").write_text("name: a\ninstructions: x\nmodels: [openai:m, anthropic:n]\n")
    (folder / "b.yaml").write_text("name: b\ninstructions: x\nmodels: [openai:o]\n")

    assert (await load(folder)).providers() == {"openai", "anthropic"}


async def test_faults_of_all_agents_come_at_once_with_their_places(folder: Path) -> None:
    (folder / "a.yaml").write_text(
        "name: a\n"
        + HEAD
        + """\
tools:
  - python: catalog_shop:lookup
  - python: catalog_shop:loose
  - python: catalog_absent:f
  - python: catalog_broken:f
  - python: catalog_shop:pay
    sensitive: [card]
  - mcp: {name: down, command: [npx]}
  - activity: {name: Charge, task_queue: payments}
    input_schema: {type: object, properties: {a: {type: numbr}}}
  - http: {method: GET, url: "https://x.example/"}
    name: get
    input_schema: {type: object, properties: {a: {$ref: "https://x.example/schema"}}}
output_schema: {type: array}
"""
    )
    (folder / "b.yaml").write_text("name: b\n" + HEAD + "tools: [{python: 'catalog_shop:zzz'}]\n")
    (folder / "c.yaml").write_text("name: c\n" + HEAD + "attempts: 0\n")

    found = await faults_of(folder, StubServers(down="the server 'down' ended at once: npx: not found"))

    starts = [
        "a.yaml:5:5: tools[0].python: module 'catalog_shop' has no function 'lookup'; did you mean 'look_up'?",
        "a.yaml:6:5: tools[1].python: catalog_shop:loose: argument 'order' has no type hint, for example 'order: str'",
        "a.yaml:7:5: tools[2].python: module 'catalog_absent' is not found; looked in ",
        (
            "a.yaml:8:5: tools[3].python: module 'catalog_broken' does not import: "
            "ModuleNotFoundError: No module named 'catalog_absent'"
        ),
        "a.yaml:9:5: tools[4].python: catalog_shop:pay: sensitive argument 'card' is not one of its arguments",
        "a.yaml:11:5: tools[5].mcp: the server 'down' ended at once: npx: not found",
        "a.yaml:13:5: tools[6].input_schema: the schema is not valid: properties.a.type: ",
        "a.yaml:16:5: tools[7].input_schema: properties.a.$ref: ",
        "a.yaml:17:1: output_schema: the schema must be for an object, not type 'array'",
        "b.yaml:4:10: tools[0].python: module 'catalog_shop' has no function 'zzz'; it has look_up, loose, missp",
        "c.yaml:4:1: attempts: 0: must be at least 1",
    ]
    assert len(found) == len(starts)
    for line, start in zip(found, starts, strict=True):
        assert line.startswith(start)


async def test_schema_that_a_function_is_given_is_checked_and_closed_as_others_are(folder: Path) -> None:
    tools = ("misspelt", "remote", "numbered")
    (folder / "a.yaml").write_text(
        "name: a\n" + HEAD + "tools:\n" + "".join(f"  - python: catalog_shop:{name}\n" for name in tools)
    )
    (folder / "b.yaml").write_text("name: b\n" + HEAD + "tools: [{python: 'catalog_shop:numbered'}]\n")

    found = await faults_of(folder)
    (folder / "a.yaml").unlink()
    (made, *_) = (await load(folder)).agents["b"].pinned.tools

    assert found == [
        (
            "a.yaml:5:5: tools[0]: misspelt: the schema is not valid: properties.a.type: "
            "'numbr' is not a type of JSON Schema; there are array, boolean, integer, null, number, object, string"
        ),
        (
            "a.yaml:6:5: tools[1]: remote: properties.a.$ref: "
            "'https://x.example/schema' leaves the schema; only '#...' is allowed"
        ),
    ]
    assert made.input_schema == {
        "type": "object",
        "properties": {"a": {"type": "number"}},
        "additionalProperties": False,
    }
    assert made.tool.numeric == ("a",)


async def test_missing_secrets_are_all_named_and_no_server_is_asked(folder: Path) -> None:
    (folder / "a.yaml").write_text(
        "name: a\n"
        + HEAD
        + """\
tools:
  - mcp: {name: files, command: [npx], env: {A: "${secret:ONE}", B: "${secret:TWO}${secret:HERE}"}}
  - mcp: {name: web, url: "https://x.example", headers: {C: "${secret:THREE}"}}
  - http: {method: GET, url: "https://x.example/"}
    name: get
    headers:
      Authorization: Bearer ${secret:FOUR}
    input_schema: {type: object}
"""
    )
    servers = StubServers(files=(), web=())
    nowhere = "is not in the environment, and there is no folder of secrets"

    assert await faults_of(folder, servers, HERE="x") == [
        f"a.yaml:5:46: tools[0].mcp.env.A: secret 'ONE' {nowhere}",
        f"a.yaml:5:66: tools[0].mcp.env.B: secret 'TWO' {nowhere}",
        f"a.yaml:6:58: tools[1].mcp.headers.C: secret 'THREE' {nowhere}",
        f"a.yaml:10:7: tools[2].headers.Authorization: secret 'FOUR' {nowhere}",
    ]
    assert servers.asked == []


async def test_two_tools_of_one_name_are_refused(folder: Path) -> None:
    (folder / "a.yaml").write_text(
        "name: a\n"
        + HEAD
        + """\
tools:
  - python: catalog_shop:look_up
  - mcp: {name: files, command: [npx]}
  - {python: catalog_shop:pay, name: read_result}
"""
    )

    assert await faults_of(folder, StubServers(files=("look_up", "move"))) == [
        "a.yaml:6:5: tools[1]: the name 'look_up' is taken by tools[0]; choose tools by 'only'",
        "a.yaml:7:5: tools[2]: the name 'read_result' is taken by a built-in tool; set another 'name'",
    ]


async def test_name_that_no_tool_has_is_a_warning_beside_one_that_a_tool_has(folder: Path) -> None:
    (folder / "a.yaml").write_text(
        "name: a\n"
        + HEAD
        + """\
tools:
  - python: catalog_shop:look_up
policy:
  - {id: typo, match: {tools: [look_up, lookup]}, verdict: deny}
  - {id: stars, match: {tools: ["look*", "pay_*"], tags: [shop, shops]}, verdict: deny}
"""
    )

    catalog = await load(folder)

    has = "it has ask_person, keep_in_mind, look_up, read_result"
    no_tag = "'shops' is a tag of no tool of this agent; did you mean 'shop'? they have shop"
    assert [str(warning).removeprefix(f"{folder}/") for warning in catalog.warnings] == [
        f"a.yaml:7:41: policy[0].match.tools[1]: 'lookup' is no tool of this agent; did you mean 'look_up'? {has}",
        f"a.yaml:8:42: policy[1].match.tools[1]: 'pay_*' is no tool of this agent; {has}",
        f"a.yaml:8:65: policy[1].match.tags[1]: {no_tag}",
    ]


async def test_modules_are_looked_for_behind_everything_else_and_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.yaml").write_text("name: a\n" + HEAD)
    monkeypatch.chdir(folder)
    before = list(sys.path)

    await load(folder)
    await load(folder)

    assert sys.path == [*before, str(folder), str(folder.parent)]


async def test_what_is_found_later_has_its_place_although_the_file_is_gone(folder: Path, tmp_path: Path) -> None:
    path = folder / "a.yaml"
    path.write_text(
        "name: a\n" + HEAD + "policy:\n  - {id: large, match: {}, verdict: ask, approvers: {groups: [nobody]}}\n"
    )
    people = tmp_path / "people.yaml"
    people.write_text("people: [{name: ann, groups: [finance]}]\n")
    settings = Settings.from_environment({"MANDATE_PEOPLE": str(people)})
    catalog = await load(folder)

    path.unlink()
    found = [*missing_keys(catalog, settings), *faults_for(catalog.agents.values(), settings)]

    assert [str(fault).removeprefix(f"{folder}/") for fault in found] == [
        (
            "a.yaml:3:10: models[0]: agent 'a', model 'openai:gpt-6-sol': models named 'openai:...' need the "
            "environment variable OPENAI_API_KEY"
        ),
        (
            "a.yaml:5:63: policy[0].approvers.groups[0]: rule 'large' names the group 'nobody', "
            "which the file of people does not have; it has finance"
        ),
    ]


class OddServer(StubServers):
    """A server with one tool, `odd`, that says this of it."""

    def __init__(self, **words: object) -> None:
        super().__init__(odd=("find",))
        self._words = words

    async def definitions(self, entry: McpTools) -> tuple[ToolDefinition, ...]:
        (made,) = await super().definitions(entry)
        return (made.model_copy(update=self._words),)


async def test_tool_of_a_server_that_no_provider_takes_can_be_left_out(folder: Path) -> None:
    (folder / "a.yaml").write_text("name: a\n" + HEAD + "tools: [{mcp: {name: odd, command: [npx]}}]\n")

    [fault] = await faults_of(folder, OddServer(input_schema={"anyOf": [{"type": "string"}]}))

    assert fault == (
        "a.yaml:4:9: tools[0]: find: 'anyOf' at the top of its schema takes no object; "
        "openai would refuse each request with it; leave it out by 'only'"
    )


async def test_description_that_is_no_text_is_repaired(folder: Path) -> None:
    (folder / "a.yaml").write_text("name: a\n" + HEAD + "tools: [{mcp: {name: odd, command: [npx]}}]\n")

    catalog = await load(folder, OddServer(description="Finds \ud83d."))

    assert catalog.agents["a"].pinned.tools[0].description == "Finds ?."
