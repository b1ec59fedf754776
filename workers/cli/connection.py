"""Connection to Temporal from flags, environment, profile file or embedded server."""

import asyncio
import functools
import logging
import re
import shlex
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.envconfig import ClientConfigProfile
from temporalio.runtime import LogForwardingConfig, LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
from temporalio.service import RPCError, RPCStatusCode, TLSConfig

from mandate.workers.cli.errors import CliError, Unreachable
from mandate.workers.cli.options import Invocation, seconds
from mandate.workers.cli.transport_errors import explain_refusal

# Its import also makes exits clean.
from mandate.workers.client.client import PAYLOAD_LIMITS
from mandate.workers.client.trace_context import CallerInterceptor
from mandate.workers.converter import data_converter
from mandate.workers.dev_server import keeper, lease
from mandate.workers.dev_server.server import DATABASE, DevServer, share_dev_server
from mandate.workers.settings import Settings
from mandate.workflows.rules import quantities

CONNECT_SECONDS = 10.0
ELSEWHERE = "runs of another folder are found with MANDATE_FOLDER, those of another server with --address"
LOCAL = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True)
class Connection:
    """A connected client, and what people need to find the same server again."""

    client: Client
    settings: Settings
    address: str
    ui_url: str | None
    """`None` when the server is not an embedded one, whose UI we know."""
    server: DevServer | None
    """The embedded server, if nothing named another."""
    options: str = ""
    """Options that lead another command of ours here, beginning with a space; empty when none is needed."""
    started_in: Path | None = None
    """The folder of the embedded server, when this command has started it and does not share a running one."""
    temporal_options: str = ""
    """The same for Temporal's CLI, which does not know the embedded server."""

    def run_url(self, workflow_id: str, run_id: str | None = None) -> str | None:
        """Return the address of the run in the Web UI."""
        if self.ui_url is None:
            return None
        page = f"{self.ui_url}/namespaces/{self.client.namespace}/workflows/{quote(workflow_id, safe='')}"
        return f"{page}/{run_id}/history" if run_id else page

    def worker_options(self, queue: str) -> str:
        """Return the options, beginning with a space, with which `mandate worker` serves `queue` here."""
        named = "" if queue == self.settings.task_queue else f" --task-queue {shlex.quote(queue)}"
        return f"{named}{self.options}"

    def advise_worker(self, program: str, queue: str | None) -> str:
        """Return how a worker of `queue` is started, to be put behind a sentence; empty where no queue lacks one."""
        return "" if queue is None else f"; start one with `{program} worker{self.worker_options(queue)}`"

    @property
    def temporal_binary(self) -> Path | None:
        """Temporal's CLI, where an embedded server was started with it."""
        return self.server.binary if self.server is not None else None

    def anywhere(self) -> "Connection":
        """Return the same connection, whose options name its server to any shell."""
        options = self.temporal_options
        if "--address" not in options:
            options = f" --address {shlex.quote(self.address)}{options}"
        return replace(self, options=options, temporal_options=options)


@asynccontextmanager
async def connected(
    call: Invocation,
    settings: Settings | None = None,
    *,
    identity: str | None = None,
    has_log: bool = False,
    of_runs: bool = False,
    metrics: str | None = None,
    in_namespace: bool = True,
) -> AsyncIterator[Connection]:
    """Connect as flags, environment and Temporal's config file say, in this order.

    Where none of them names an address, the embedded server of `settings.folder` is shared for the time of the block.
    `of_runs` is for commands about runs that there are: they start no server where none has run before. `has_log`
    tells that this process has a log, which then has the lines of the SDK too. `metrics` is where it serves metrics.
    `in_namespace` is false for who makes the namespace.

    Raises:
        CliError: nothing answers there, or the configuration cannot be read.
        ServerError: the embedded server does not start.
    """
    quiet_sdk(has_log=has_log, metrics=metrics)
    settings = settings or Settings.from_environment()
    config = configured(call, settings.environment)
    address, server, ui_url, started_in = config.get("target_host"), None, None, None
    async with AsyncExitStack() as stack:
        if address is None:
            if config.get("tls") or config.get("api_key"):
                raise CliError("TLS or an API key is set, but no address: give --address or set TEMPORAL_ADDRESS")
            if of_runs:
                _demand_runs(settings.folder, call.program)
            started_in = None if lease.keeper_lives(settings.folder) else settings.folder.absolute()
            server = stack.enter_context(await share_dev_server(settings.folder, on_progress=call.out.note))
            address, ui_url = server.address, server.ui_url
        client = await connect_client({**config, "target_host": address, "identity": identity}, call)
        ui_url = ui_url or _known_ui(settings.folder, address)
        options = _options(call)
        embedded = f" --address {address}" if server is not None else ""
        if in_namespace:
            await _check_namespace(client, address, call.program)
        yield Connection(client, settings, address, ui_url, server, options, started_in, embedded + options)


@functools.cache
def quiet_sdk(*, has_log: bool = False, metrics: str | None = None) -> None:
    """Let no raw line of the SDK's core reach the terminal: a process with a log has them there, others raise errors.

    It must be called before the first connection of the process.
    """
    levels = TelemetryFilter(core_level="WARN", other_level="ERROR")
    logger = logging.getLogger("temporalio.core")
    logs = LoggingConfig(levels, LogForwardingConfig(logger)) if has_log else None
    if metrics is None:
        Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=logs)), error_if_already_set=False)
        return
    from mandate.workers.telemetry.runtime import open_runtime  # noqa: PLC0415 - only with metrics

    Runtime.set_default(open_runtime(logs, metrics), error_if_already_set=False)


def configured(call: Invocation, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments of `Client.connect`; without `target_host` when nothing names an address."""
    root = call.root
    if root.config_file and not root.disable_config_file and not Path(root.config_file).is_file():
        raise CliError(f"--config-file {root.config_file!r} does not exist")
    if root.disable_config_file and root.disable_config_env:
        return _with_flags({}, call)
    try:
        profile = ClientConfigProfile.load(
            profile=root.profile,
            config_source=Path(root.config_file) if root.config_file and not root.disable_config_file else None,
            disable_file=root.disable_config_file,
            disable_env=root.disable_config_env,
            # A variable that is set to nothing is not set.
            override_env_vars={name: value for name, value in environment.items() if value},
        )
        config: dict[str, Any] = dict(profile.to_client_connect_config())
    except (RuntimeError, ValueError, OSError) as error:
        raise CliError(f"Temporal's client configuration cannot be used: {_one_line(error)}") from None
    return _with_flags(config, call)


def _with_flags(config: dict[str, Any], call: Invocation) -> dict[str, Any]:
    flags = call.flags
    given = {"target_host": flags.address, "namespace": flags.namespace, "api_key": flags.api_key}
    config = config | {name: value for name, value in given.items() if value is not None}
    if (tls := _tls(call, config.get("tls"))) is not None:
        config["tls"] = tls
    return config


def _tls(call: Invocation, configured: Any) -> Any:
    """Return the TLS setting with the flags applied to it; an API key alone turns it on."""
    flags = call.flags
    if flags.tls is False:
        return False
    changes: dict[str, Any] = {
        "client_cert": _read("--tls-cert-path", flags.tls_cert_path),
        "client_private_key": _read("--tls-key-path", flags.tls_key_path),
        "server_root_ca_cert": _read("--tls-ca-path", flags.tls_ca_path),
        "domain": flags.tls_server_name,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    if changes:
        return replace(configured if isinstance(configured, TLSConfig) else TLSConfig(), **changes)
    if flags.tls or (flags.api_key and configured is None):
        return configured or True
    return configured


def _read(option: str, path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CliError(f"{option} {path!r}: {error.strerror}") from None


def _demand_runs(folder: Path, program: str) -> None:
    """Refuse a folder whose server would be an empty one."""
    if not (folder / DATABASE).exists() and not lease.keeper_lives(folder):
        raise CliError(
            f"there are no runs in {str(folder.absolute())!r}, where no server has run yet; {ELSEWHERE}; "
            f"start a server with `{program} server`"
        )


async def connect_client(config: Mapping[str, Any], call: Invocation, usual_seconds: float = CONNECT_SECONDS) -> Client:
    """Connect with the arguments of `configured`, for as long as --client-connect-timeout says.

    Raises:
        Unreachable: nothing answers there, or it refuses.
    """
    limit = seconds("--client-connect-timeout", call.root.connect_timeout) or usual_seconds
    known = {name: value for name, value in config.items() if value is not None}
    try:
        async with asyncio.timeout(limit):
            return await Client.connect(
                **known,
                data_converter=data_converter(),
                payload_limits=PAYLOAD_LIMITS,
                interceptors=[CallerInterceptor()],
            )
    except (RuntimeError, RPCError, TimeoutError, ValueError) as error:
        why = (
            f"no answer within {quantities.write_seconds(limit)}"
            if isinstance(error, TimeoutError)
            else _one_line(error)
        )
        if (refusal := explain_refusal(str(error))) is not None:
            raise Unreachable(f"the Temporal server at {config['target_host']!r} cannot be used: {refusal}") from None
        raise Unreachable(
            f"no Temporal server at {config['target_host']!r}: {why}; name another with --address, "
            f"or start one with `{call.program} server`"
        ) from None


async def _check_namespace(client: Client, address: str, program: str) -> None:
    try:
        await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=client.namespace))
    except RPCError as error:
        # Any other refusal is about describing it, which is not what we came for.
        if error.status is RPCStatusCode.NOT_FOUND:
            raise CliError(
                f"there is no namespace {client.namespace!r} at {address}; name another with --namespace, "
                f"or make it with `{program} setup-namespace`"
            ) from None


def environment_of(call: Invocation, connection: Connection) -> dict[str, str]:
    """Return the variables with which another process of ours connects as this one has."""
    flags, root = call.flags, call.root
    variables = {
        "TEMPORAL_ADDRESS": connection.address,
        "TEMPORAL_NAMESPACE": connection.client.namespace,
        "TEMPORAL_PROFILE": root.profile,
        "TEMPORAL_CONFIG_FILE": root.config_file,
        "TEMPORAL_API_KEY": flags.api_key,
        "TEMPORAL_TLS": None if flags.tls is None else str(flags.tls).lower(),
        "TEMPORAL_TLS_CLIENT_CERT_PATH": flags.tls_cert_path,
        "TEMPORAL_TLS_CLIENT_KEY_PATH": flags.tls_key_path,
        "TEMPORAL_TLS_SERVER_CA_CERT_PATH": flags.tls_ca_path,
        "TEMPORAL_TLS_SERVER_NAME": flags.tls_server_name,
    }
    return {name: value for name, value in variables.items() if value is not None}


def note_start(call: Invocation, connection: Connection, *, goes_on: bool = False) -> None:
    """Say on stderr that this command has a server of its own, if so; with `goes_on`, what becomes of its runs."""
    if connection.started_in is None:
        return
    folder = connection.started_in
    call.out.note(f"started a local Temporal server in {folder}; it ends with this command")
    if goes_on:
        call.out.note(f"the run goes on when `{call.program} worker` is started with MANDATE_FOLDER={folder}")


def elsewhere(connection: Connection) -> str:
    """Return the end of a sentence that something does not exist: where else it may be; often empty."""
    if connection.started_in is None:
        return ""
    return f", a server that was just started in {connection.started_in}; {ELSEWHERE}"


def _one_line(error: BaseException) -> str:
    """Return the error in one line; of Temporal's transport errors, made for debugging, the innermost cause."""
    text = " ".join(str(error).split())
    if "Connect" in text and (causes := re.findall(r'(?:message|error): "([^"]+)"', text)):
        cause = str(causes[-1])
        unknown = "failed to lookup address" in cause
        return f"no such host ({cause.rpartition(': ')[2]})" if unknown else cause[:1].lower() + cause[1:]
    return text[:300]


def _known_ui(folder: Path, address: str) -> str | None:
    """Return the Web UI of the embedded server, when `address` is its."""
    host, _, port = address.rpartition(":")
    if host not in LOCAL or not lease.keeper_lives(folder):
        return None
    state = keeper.read_state(folder)
    ui_port = state.get("ui_port")
    return f"http://127.0.0.1:{ui_port}" if ui_port and str(state.get("port")) == port else None


def _options(call: Invocation) -> str:
    """Return the options that were given, for another command; never an API key."""
    given = {
        "--address": call.flags.address,
        "--namespace": call.flags.namespace,
        "--profile": call.root.profile,
        "--config-file": call.root.config_file,
    }
    return "".join(f" {name} {shlex.quote(value)}" for name, value in given.items() if value)
