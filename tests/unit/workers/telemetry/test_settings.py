"""What switches telemetry on."""

import pytest

from mandate.workers.telemetry.settings import TelemetryError, TelemetrySettings, has_traces, read_address

HTTP = "http://localhost:4318"


@pytest.mark.parametrize(
    ("environment", "is_on"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "shop"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": HTTP}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": HTTP}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": HTTP}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": HTTP}, False),
        ({"OTEL_SDK_DISABLED": "false", "OTEL_EXPORTER_OTLP_ENDPOINT": HTTP}, True),
    ],
)
def test_spans_are_on_by_the_variables_of_opentelemetry(environment: dict[str, str], is_on: bool) -> None:
    assert has_traces(environment) is is_on
    assert TelemetrySettings.from_environment(environment).is_on is is_on


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":9464", "0.0.0.0:9464"),
        ("*:9464", "0.0.0.0:9464"),
        ("127.0.0.1:9464", "127.0.0.1:9464"),
        ("localhost:1", "127.0.0.1:1"),
        ("[::1]:9464", "[::1]:9464"),
    ],
)
def test_an_address_is_a_port_with_or_without_a_host(text: str, address: str) -> None:
    assert read_address(text) == address


@pytest.mark.parametrize("text", ["9464", ":", ":0", ":65536", "host:1", "http://x:1", ":-1", ":9_4", ":²"])
def test_what_is_no_address_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(TelemetryError, match=r"^MANDATE_METRICS: .* is no address; write ':9464' for all interfaces"):
        read_address(text)
