"""Exporters of spans, as the variables of OpenTelemetry name them."""

import os
from importlib.metadata import entry_points

from opentelemetry.sdk.trace.export import SpanExporter

from mandate.workers.telemetry.settings import INSTALL, TelemetryError

GROUP = "opentelemetry_traces_exporter"
PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}


def open_exporter() -> SpanExporter:
    """Return the exporter that the environment names: OTLP over HTTP where it names none.

    Raises:
        TelemetryError: it is not installed, or its settings cannot be used.
    """
    name = _find_name()
    found = next(iter(entry_points(group=GROUP, name=name)), None)
    if found is None:
        known = ", ".join(sorted({entry.name for entry in entry_points(group=GROUP)})) or "none"
        hint = "the package opentelemetry-exporter-otlp-proto-grpc has it" if name.endswith("grpc") else INSTALL
        raise TelemetryError(f"the exporter of spans {name!r} is not installed (installed: {known}); {hint}")
    try:
        exporter: SpanExporter = found.load()()
    except Exception as error:  # noqa: BLE001 - each exporter raises what it likes
        raise TelemetryError(f"the exporter of spans {name!r} cannot be used: {error}") from None
    return exporter


def _find_name() -> str:
    named = [part.strip() for part in os.environ.get("OTEL_TRACES_EXPORTER", "").split(",") if part.strip()]
    if len(named) > 1:
        raise TelemetryError(f"OTEL_TRACES_EXPORTER: names {len(named)} exporters; name one of them")
    name = named[0] if named else "otlp"
    if name != "otlp":
        return name
    variables = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = next((os.environ[variable] for variable in variables if os.environ.get(variable)), "http/protobuf")
    if protocol not in PROTOCOLS:
        known = ", ".join(map(repr, PROTOCOLS))
        raise TelemetryError(f"OTEL_EXPORTER_OTLP_PROTOCOL: {protocol!r} is not one of {known}")
    return PROTOCOLS[protocol]
