"""Environment of the demo's worker beside that of the demo itself."""

from mandate.workers.cli.connection import Connection
from mandate.workers.cli.options import Invocation
from mandate.workers.demo.mending import BROKEN
from mandate.workers.demo.setup import Stage


def of_worker(
    call: Invocation, connection: Connection, stage: Stage, *, task_queue: str, breaks: bool
) -> dict[str, str]:
    """Return the server of `connection`, the files of `stage`, and with `breaks` that replies get lost."""
    flags, root = call.flags, call.root
    told = {
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
        "MANDATE_AGENTS": str(stage.agents),
        "MANDATE_CHANNELS": str(stage.channels),
        "MANDATE_PEOPLE": str(stage.people),
        "MANDATE_DEMO_SHOP": str(stage.shop),
        "MANDATE_TASK_QUEUE": task_queue,
    }
    return {name: value for name, value in told.items() if value is not None} | (BROKEN if breaks else {})
