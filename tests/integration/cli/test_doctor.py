"""`mandate doctor`: before anything is set up, with all there, and with each thing away."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest

from mandate.workers.worker import WorkerOptions, open_worker
from tests.support.agents import Site
from tests.support.certificates import Authority
from tests.support.grpc_proxy import grpc_proxy, server_tls
from tests.support.place import Done, Place, new_place
from tests.support.postgres import PASSWORD, PostgresServer, running_postgres

AGENT = """
name: looker
instructions: Look.
models: [scripted:looker.script.yaml]
policy: [{id: all, match: {}, verdict: allow}]
"""
FILES = {
    "agents/looker.yaml": AGENT,
    "agents/looker.script.yaml": "turns: [{say: done}]",
    "people.yaml": "people: [{name: ann@example.com}]",
}
ORDER = [
    *("address", "certificates", "namespace", "search attributes", "store", "agents", "people", "keys", "clock"),
    "workers",
]


@pytest.fixture(scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("place")
    async with new_place(folder, FILES, MANDATE_PEOPLE=str(folder / "people.yaml")) as made:
        yield made


@pytest.fixture(scope="module")
async def postgres() -> AsyncIterator[PostgresServer]:
    async with running_postgres() as server:
        yield server


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a port that takes connections and never says anything."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


async def examine(place: Place, *words: str, code: int, **env: str) -> dict[str, dict[str, str]]:
    """The findings by check."""
    done = await place.run("doctor", "-o", "json", *words, **env)
    assert (done.code, done.err) == (code, ""), done
    told = json.loads(done.out)
    assert told["ok"] is (code == 0)
    assert [one["check"] for one in told["checks"]] == ORDER
    assert all(one["status"] != "fail" or one["advice"] for one in told["checks"])
    return {one["check"]: one for one in told["checks"]}


async def test_before_anything_is_set_up(place: Place, tmp_path: Path) -> None:
    nothing = {"TEMPORAL_ADDRESS": "", "MANDATE_AGENTS": "", "MANDATE_FOLDER": "", "MANDATE_PEOPLE": ""}
    empty = Place(tmp_path, "", place.client, {**place.env, **nothing})

    found = await examine(empty, code=0)

    assert {name: one["status"] for name, one in found.items()} == dict.fromkeys(ORDER, "skipped") | {"store": "ok"}
    assert found["agents"]["advice"] == "where workers run: `mandate init` makes a project, or set MANDATE_AGENTS"
    assert list(tmp_path.iterdir()) == []


async def test_each_check_is_one_line(place: Place) -> None:
    done = await place.run("doctor")

    assert [line.split("  ")[0] for line in done.out.splitlines()].count("ok") >= 5
    assert len(done.out.splitlines()) == len(ORDER)


async def test_all_is_there(place: Place, postgres: PostgresServer) -> None:
    store = await postgres.new_database()
    site = Site(place.folder / "state", place.client, "agents", {**place.env, "MANDATE_STORE": store})
    settings = site.settings
    before = await examine(place, code=0, MANDATE_STORE=store)
    tables_before = await count_tables(store)
    async with open_worker(place.client, settings, WorkerOptions(identity="worker-7")) as worker, worker:
        found = await examine(place, code=0, MANDATE_STORE=store)
        away = await examine(place, "--task-queue", "nobody", code=0, MANDATE_STORE=store)

    assert tables_before == 0
    assert "is not made yet; the first worker makes it" in before["store"]["found"]
    assert {name: one["status"] for name, one in found.items()} == dict.fromkeys(ORDER, "ok") | {
        "certificates": "skipped"
    }
    assert "server 1." in found["address"]["found"]
    assert found["workers"]["found"] == "1 worker polls task queue 'agents': worker-7"
    assert "is store " in found["store"]["found"]
    assert "the store's clock is within a second" in found["clock"]["found"]
    assert "1 key of the installation" in found["keys"]["found"]
    assert away["workers"]["found"] == "nobody polls task queue 'nobody'"
    assert PASSWORD not in json.dumps([before, found, away])


async def count_tables(store: str) -> int:
    connection = await asyncpg.connect(store)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"))
    finally:
        await connection.close()


async def test_search_attributes_that_are_missing_are_named(place: Place) -> None:
    async with new_place(place.folder, {}) as fresh:
        found = (await examine(fresh, code=0))["search attributes"]

    assert found["status"] == "warn"
    assert "temporal operator search-attribute create -n default --name AgentName --type Keyword" in found["advice"]


async def test_a_namespace_that_is_not_there(place: Place) -> None:
    found = await examine(place, "--namespace", "nowhere", code=1)

    assert found["namespace"]["status"] == "fail"
    assert "mandate setup-namespace -n nowhere" in found["namespace"]["advice"]
    assert [found[name]["status"] for name in ("search attributes", "clock", "workers")] == ["skipped"] * 3


async def test_what_never_answers_is_not_waited_for(place: Place, silent: str) -> None:
    store = f"postgresql://mandate:{PASSWORD}@{silent}/store"

    async with asyncio.timeout(20):
        found = await examine(place, code=1, TEMPORAL_ADDRESS=silent, MANDATE_STORE=store)

    assert found["address"]["status"] == found["store"]["status"] == "fail"
    assert "did not answer" in found["store"]["found"]
    assert PASSWORD not in json.dumps(found)


async def test_what_is_not_there_is_told_at_once(place: Place) -> None:
    store = f"postgresql://mandate:{PASSWORD}@127.0.0.1:1/store"

    found = await examine(place, code=1, TEMPORAL_ADDRESS="127.0.0.1:1", MANDATE_STORE=store)

    assert found["address"]["found"].startswith("no Temporal server at '127.0.0.1:1'")
    assert found["store"]["status"] == "fail"


async def test_a_store_without_rights(place: Place, postgres: PostgresServer) -> None:
    database = await postgres.new_database()
    name = database.rpartition("/")[2]
    connection = await asyncpg.connect(database)
    await connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await connection.close()

    found = await examine(place, code=1, MANDATE_STORE=database)

    assert "it is a replica, or read-only" in found["store"]["found"]


@pytest.mark.parametrize(
    ("files", "env", "check", "found"),
    [
        ({"agents/looker.yaml": AGENT.replace("policy:", "polcy:")}, {}, "agents", "polcy"),
        ({"agents/looker.yaml": AGENT.replace("scripted:looker.script.yaml", "openai:gpt-6")}, {}, "keys", "OPENAI"),
        (
            {
                "agents/looker.yaml": AGENT + "tools: [{http: {method: GET, url: 'https://a.example/'}, name: a, "
                "description: A., effect: read, input_schema: {type: object}, headers: {X: '${secret:SHOP}'}}]"
            },
            {},
            "keys",
            "secret 'SHOP' is not in the environment",
        ),
        ({"people.yaml": "people: [{nme: ann}]"}, {}, "people", "people[0].name: is missing"),
        ({}, {"MANDATE_AGENTS": "nowhere"}, "agents", "'nowhere' does not exist"),
        ({}, {"MANDATE_JWKS": "none.json", "MANDATE_TOKEN_ISSUER": "i"}, "keys", "the key set cannot be read"),
        ({}, {"MANDATE_STORE": "mysql://user:geheim@host/x"}, "store", "mysql://... is not the address of a store"),
        ({}, {"MANDATE_PEOPLE": "gone.yaml"}, "people", "gone.yaml"),
    ],
)
async def test_files_with_faults(
    place: Place, tmp_path: Path, files: dict[str, str], env: dict[str, str], check: str, found: str
) -> None:
    own = {"MANDATE_AGENTS": str(tmp_path / "agents"), "MANDATE_PEOPLE": str(tmp_path / "people.yaml")}
    for name, text in (FILES | files).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    told = await examine(place, code=1, **(own | env))

    assert [name for name, one in told.items() if one["status"] == "fail"] == [check]
    assert found in told[check]["found"]
    assert "geheim" not in json.dumps(told)


async def test_certificates_and_what_they_are_refused_for(place: Place, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    own = authority.issue("worker", lives=timedelta(days=3))
    tls = server_tls(authority.issue("temporal.example.com"), clients_of=authority.certificate)
    words = {
        "--tls-ca-path": str(authority.certificate),
        "--tls-cert-path": str(own.certificate),
        "--tls-key-path": str(own.key),
    }
    flags = [word for pair in words.items() for word in pair]
    async with grpc_proxy(place.address, tls=tls, api_key="geheim") as proxy:
        at = {"TEMPORAL_ADDRESS": proxy.address, "TEMPORAL_API_KEY": "geheim"}
        wrong_name = await examine(place, *flags, code=1, **at)
        named = await examine(place, *flags, "--tls-server-name", "temporal.example.com", code=0, **at)

    assert "its certificate is for another name" in wrong_name["address"]["found"]
    assert "--tls-server-name" in wrong_name["address"]["advice"]
    assert named["address"]["status"] == "ok"
    assert named["certificates"]["status"] == "warn"
    assert "the client certificate holds until" in named["certificates"]["found"]
    assert "geheim" not in json.dumps([wrong_name, named])


async def test_versioned_workers_without_a_current_version(place: Place) -> None:
    site = Site(place.folder / "state", place.client, "versioned", {**place.env, "MANDATE_TASK_QUEUE": "versioned"})
    options = WorkerOptions(identity="worker-8", deployment="doctored", build_id="A")
    async with open_worker(place.client, site.settings, options) as worker, worker:
        found = await examine(place, "-t", "versioned", code=1)

    assert found["workers"]["status"] == "fail"
    assert "set-current-version --deployment-name doctored --build-id A" in found["workers"]["advice"]


@pytest.mark.parametrize(
    ("words", "env", "said"),
    [
        (("--agent", "x"), {}, "No such option"),
        ((), {"TEMPORAL_ADDRESS": "", "TEMPORAL_API_KEY": "geheim"}, "TLS or an API key is set, but no address"),
        (("--tls-ca-path", "/nowhere.pem"), {}, "--tls-ca-path '/nowhere.pem': No such file or directory"),
    ],
)
async def test_bad_usage(place: Place, words: tuple[str, ...], env: dict[str, str], said: str) -> None:
    done: Done = await place.run("doctor", *words, **env)

    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert "geheim" not in done.err
