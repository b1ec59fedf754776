"""Telemetry of workers: logs, spans, metrics.

logs: logs of a process, with their context
settings: what the environment asks for
conventions: names and attributes of spans, by OpenTelemetry's conventions
spans: spans of facts
exporters: where spans go
cursors: what of each run was exported
pipeline: facts on their way to spans and metrics
replays: facts of a run, from its history
missed_runs: runs that ended before their facts were exported
runtime: port for Prometheus
metrics: metrics of facts
gauges: metrics that are looked up
service: telemetry of one worker
timed_store: store that measures itself
headers: trace context that goes along
"""
