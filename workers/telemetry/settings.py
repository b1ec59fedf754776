"""Settings of telemetry, by the environment; without its variables nothing else of this package is imported."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

TRACES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER")
"""Variables that switch spans on."""

INSTALL = 'install it with: pip install "mandate-agents[telemetry]"'


class TelemetryError(ValueError):
    """Telemetry that cannot be switched on as the environment wants it."""


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """Telemetry of one worker."""

    traces: bool = False
    metrics: str | None = None
    """`host:port` where Prometheus finds them."""

    @property
    def is_on(self) -> bool:
        return self.traces or self.metrics is not None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "TelemetrySettings":
        """Read the variables of OpenTelemetry, and `MANDATE_METRICS`.

        Raises:
            TelemetryError: a value is not one that can be used.
        """
        wanted = environment.get("MANDATE_METRICS")
        return cls(has_traces(environment), read_address(wanted) if wanted else None)


def has_traces(environment: Mapping[str, str]) -> bool:
    """Return whether the variables of OpenTelemetry switch spans on."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return False
    return any(environment.get(name, "").strip() for name in TRACES)


def read_address(text: str) -> str:
    """Return `host:port` of what people write; raise `TelemetryError` for what is no address."""
    host, colon, port = text.strip().rpartition(":")
    refused = TelemetryError(
        f"MANDATE_METRICS: {text!r} is no address; write ':9464' for all interfaces, or one such as '127.0.0.1:9464'"
    )
    if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        raise refused
    if host in {"", "*"}:
        return f"0.0.0.0:{int(port)}"
    if host == "localhost":
        return f"127.0.0.1:{int(port)}"
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise refused from None
    return f"[{address}]:{int(port)}" if address.version == 6 else f"{address}:{int(port)}"
