"""Connections as production has them: TLS, client certificates, API keys, another namespace, PostgreSQL with TLS."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError

from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import DevServer
from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import new_site
from tests.support.certificates import Authority, Issued
from tests.support.grpc_proxy import GrpcProxy, grpc_proxy, server_tls
from tests.support.postgres import PASSWORD, PostgresServer, running_postgres
from tests.support.processes import Process, processes

NAMESPACE = "shop-of-ours"
API_KEY = "key-of-nobody-else"
HOST = "temporal.example.com"


@dataclass(frozen=True)
class Guarded:
    """A namespace behind a proxy that demands certificates and an API key."""

    proxy: GrpcProxy
    authority: Authority
    own: Issued
    client: Client
    """Of the namespace, past the proxy."""

    @property
    def variables(self) -> dict[str, str]:
        return {
            "TEMPORAL_ADDRESS": self.proxy.address,
            "TEMPORAL_NAMESPACE": NAMESPACE,
            "TEMPORAL_API_KEY": API_KEY,
            "TEMPORAL_TLS_SERVER_CA_CERT_PATH": str(self.authority.certificate),
            "TEMPORAL_TLS_SERVER_NAME": HOST,
            "TEMPORAL_TLS_CLIENT_CERT_PATH": str(self.own.certificate),
            "TEMPORAL_TLS_CLIENT_KEY_PATH": str(self.own.key),
        }


@pytest.fixture(scope="module")
async def guarded(temporal: DevServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    default = await connect(address=temporal.address)
    retention = RegisterNamespaceRequest(namespace=NAMESPACE)
    retention.workflow_execution_retention_period.FromTimedelta(timedelta(days=1))
    await default.workflow_service.register_namespace(retention)
    client = await connect(address=temporal.address, namespace=NAMESPACE)
    async with asyncio.timeout(60):
        while True:
            try:
                await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=NAMESPACE))
                await client.count_workflows()
                break
            except RPCError:
                await asyncio.sleep(0.2)
    tls = server_tls(authority.issue(HOST), clients_of=authority.certificate)
    async with grpc_proxy(temporal.address, tls=tls, api_key=API_KEY) as proxy:
        yield Guarded(proxy, authority, authority.issue("worker-1"), client)


async def ended(process: Process, *never: str) -> tuple[int, str]:
    """Exit code and words on stderr of a command, which has said none of the secrets `never`."""
    code = await process.ended()
    said = process.stdout() + process.stderr()
    assert [word for word in (*never, API_KEY, PASSWORD) if word in said] == []
    return code, process.stderr()


async def test_a_worker_serves_a_namespace_of_its_own_with_certificates_and_a_key(
    guarded: Guarded, tmp_path: Path
) -> None:
    site = new_site(tmp_path, guarded.client)
    site.write("looker", [{"say": "done"}])
    variables = {**guarded.variables, "MANDATE_AGENTS": str(tmp_path / "agents"), "MANDATE_TASK_QUEUE": site.queue}
    with processes(tmp_path / "processes", MANDATE_FOLDER=str(tmp_path), **variables) as started:
        await started.worker()
        run = await site.start("looker")
        result = await run.result()
        shown = started.mandate("show", run.id)
        code, said = await ended(shown)

    assert result.status is RunStatus.COMPLETED
    assert (code, "error" in said) == (0, False)
    assert "/temporal.api.workflowservice.v1.WorkflowService/PollWorkflowTaskQueue" in guarded.proxy.seen


async def test_the_api_key_may_be_a_mounted_file(guarded: Guarded, tmp_path: Path) -> None:
    (tmp_path / "TEMPORAL_API_KEY").write_text(f"{API_KEY}\n")
    variables = {**guarded.variables, "TEMPORAL_API_KEY": "", "MANDATE_SECRETS": str(tmp_path)}
    with processes(tmp_path / "processes", MANDATE_FOLDER=str(tmp_path), **variables) as started:
        code, said = await ended(started.mandate("inbox"))

    assert (code, "error" in said) == (0, False)


async def test_flags_say_the_same(guarded: Guarded, tmp_path: Path) -> None:
    words = {
        "--address": guarded.proxy.address,
        "--namespace": NAMESPACE,
        "--api-key": API_KEY,
        "--tls-ca-path": str(guarded.authority.certificate),
        "--tls-server-name": HOST,
        "--tls-cert-path": str(guarded.own.certificate),
        "--tls-key-path": str(guarded.own.key),
    }
    with processes(tmp_path / "processes", MANDATE_FOLDER=str(tmp_path)) as started:
        listed = started.mandate("inbox", *(word for pair in words.items() for word in pair))
        code, said = await ended(listed)

    assert (code, "error" in said) == (0, False)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"TEMPORAL_API_KEY": "wrong"}, "it refuses the API key, or wants one"),
        ({"TEMPORAL_API_KEY": ""}, "it refuses the API key, or wants one"),
        ({"TEMPORAL_TLS_CLIENT_CERT_PATH": "", "TEMPORAL_TLS_CLIENT_KEY_PATH": ""}, "a client certificate that it"),
        ({"TEMPORAL_TLS_SERVER_NAME": "another.example.com"}, "its certificate is for another name"),
        ({"TEMPORAL_TLS_SERVER_CA_CERT_PATH": ""}, "of an authority that is not trusted here"),
        ({"TEMPORAL_TLS": "false", "TEMPORAL_API_KEY": ""}, "it may demand TLS"),
        ({"TEMPORAL_NAMESPACE": "nowhere"}, "there is no namespace 'nowhere'"),
        ({"TEMPORAL_TLS_CLIENT_KEY_PATH": "/nowhere.key"}, "/nowhere.key"),
    ],
)
async def test_what_does_not_fit_is_one_sentence(
    guarded: Guarded, tmp_path: Path, changed: dict[str, str], said: str
) -> None:
    with processes(tmp_path / "processes", MANDATE_FOLDER=str(tmp_path)) as started:
        code, words = await ended(started.mandate("inbox", **(guarded.variables | changed)))

    assert code == 2
    assert said in words
    assert words.startswith("error: ")
    assert len(words.splitlines()) == 1


async def test_a_worker_waits_for_no_wrong_key(guarded: Guarded, tmp_path: Path) -> None:
    site = new_site(tmp_path, guarded.client)
    site.write("looker", [{"say": "done"}])
    variables = {**guarded.variables, "TEMPORAL_API_KEY": "wrong", "MANDATE_AGENTS": str(tmp_path / "agents")}
    with processes(tmp_path / "processes", MANDATE_FOLDER=str(tmp_path), **variables) as started:
        code, words = await ended(started.mandate("worker"))

    assert code == 75
    assert "it refuses the API key" in words


@pytest.fixture(scope="module")
async def postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[PostgresServer, Authority]]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    async with running_postgres(tls=authority.issue("127.0.0.1")) as server:
        yield server, authority


async def test_the_store_is_reached_with_tls_and_its_certificate_is_checked(
    postgres: tuple[PostgresServer, Authority], client: Client, temporal: DevServer, tmp_path: Path
) -> None:
    server, authority = postgres
    site = new_site(tmp_path, client)
    site.write("looker", [{"say": "done"}])
    database = await server.new_database()
    variables = {
        "TEMPORAL_ADDRESS": temporal.address,
        "MANDATE_FOLDER": str(tmp_path),
        "MANDATE_AGENTS": str(tmp_path / "agents"),
        "MANDATE_TASK_QUEUE": site.queue,
        "MANDATE_STORE": f"{database}?sslmode=verify-full&sslrootcert={authority.certificate}",
    }
    with processes(tmp_path / "processes", **variables) as started:
        await started.worker()
        run = await site.start("looker")
        result = await run.result()
        is_encrypted = await server.is_encrypted(database.rpartition("/")[2])

    assert result.status is RunStatus.COMPLETED
    assert is_encrypted


async def test_a_store_that_another_authority_vouches_for_is_refused(
    postgres: tuple[PostgresServer, Authority], client: Client, temporal: DevServer, tmp_path: Path
) -> None:
    server, _ = postgres
    other = Authority(tmp_path / "other")
    site = new_site(tmp_path, client)
    site.write("looker", [{"say": "done"}])
    database = await server.new_database()
    for options, code, said in (
        (f"sslmode=verify-full&sslrootcert={other.certificate}", 75, "certificate verify failed"),
        ("sslmode=verify-full&sslrootcert=/nowhere.pem", 75, "/nowhere.pem"),
        ("sslmode=disable", 75, "pg_hba.conf"),
    ):
        variables = {
            "TEMPORAL_ADDRESS": temporal.address,
            "MANDATE_FOLDER": str(tmp_path),
            "MANDATE_AGENTS": str(tmp_path / "agents"),
            "MANDATE_STORE": f"{database}?{options}",
        }
        with processes(tmp_path / "processes", **variables) as started:
            found, words = await ended(started.mandate("worker"))

        assert found == code, words
        assert said in words
        assert "Traceback" not in words
