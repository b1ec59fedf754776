"""The runtime of the Temporal SDK with a port for Prometheus, on which our metrics are served beside the SDK's."""

from temporalio.runtime import LoggingConfig, PrometheusConfig, Runtime, TelemetryConfig

from mandate.workers.telemetry.metrics import BUCKETS
from mandate.workers.telemetry.settings import TelemetryError


def open_runtime(logging: LoggingConfig | None, address: str) -> Runtime:
    """Return a runtime that serves metrics at `address`.

    Raises:
        TelemetryError: nothing can be served there.
    """
    served = PrometheusConfig(
        bind_address=address,
        counters_total_suffix=True,
        durations_as_seconds=True,
        histogram_bucket_overrides=BUCKETS,
    )
    try:
        return Runtime(telemetry=TelemetryConfig(logging=logging, metrics=served, attach_service_name=False))
    except (ValueError, RuntimeError) as error:
        why = " ".join(str(error).split()).removeprefix("Failed starting Prometheus exporter: ")
        raise TelemetryError(f"MANDATE_METRICS: metrics cannot be served at {address}: {why[:200]}") from None
