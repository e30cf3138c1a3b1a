"""The collector: its pipelines, and what passes them."""

from __future__ import annotations

from typing import Any

from ..context import Context
from ..model import Result, UnreachableError, fail, ok, warn
from ..names import COLLECTOR, COLLECTOR_UPTIME

SIGNALS = {"metrics": "metric_points", "traces": "spans", "logs": "log_records"}
# Exporters that deliver nothing.
IDLE = {"debug", "nop", "file"}


def wanted(context: Context) -> list[str]:
    """Return the signals that have a backend."""
    endpoints = context.repository.facts.get("endpoints", {}).values()
    return [signal for signal in SIGNALS if any(signal in urls for urls in endpoints)]


def settings(context: Context) -> Result:
    """Every signal's pipeline has an exporter to a backend."""
    if context.cluster:
        resource = context.cluster.get("opentelemetrycollectors.opentelemetry.io", "otel", "-n", "observability")
        source = "in the cluster"
    else:
        resource, source = context.repository.rendered("otel-collector", "OpenTelemetryCollector"), "in git"
    exporters = pipeline_exporters(resource["spec"]["config"])
    for signal in wanted(context):
        if not exporters.get(signal):
            return fail("exporter-removed", f"{source}: pipeline {signal} has no exporter to a backend")
    return ok(
        f"{source}: " + ", ".join(f"{signal} → {' '.join(names)}" for signal, names in exporters.items() if names)
    )


def pipeline_exporters(config: dict[str, Any]) -> dict[str, list[str]]:
    """Return, by signal, the exporters that deliver to a backend and are defined."""
    exporters: dict[str, list[str]] = {}
    for name, pipeline in config["service"]["pipelines"].items():
        real = [
            exporter
            for exporter in pipeline.get("exporters") or []
            if exporter.split("/")[0] not in IDLE and exporter in (config.get("exporters") or {})
        ]
        exporters.setdefault(name.split("/")[0], []).extend(real)
    return exporters


def live(context: Context) -> Result:
    """The collector answers, every signal leaves it, and its queue has room."""
    answers = "not asked itself"
    if context.reaches("collector"):
        context.get("collector", "/")
        answers = "answers its health check"
    if not context.reaches("query"):
        raise context.no_way_to("query")
    # Its own metrics take the way of all metrics: while that is broken, their absence proves nothing.
    if blocked := _metrics_blocked(context):
        return warn(f"{answers}; its own metrics cannot be read: {blocked}")
    if not context.fresh(COLLECTOR_UPTIME):
        return fail(
            "exporter-removed",
            f"Receive and Query work, but none of its own metrics of the last {context.max_age:g} s arrived",
        )
    capacity = context.by("exporter", f"sum by (exporter) (otelcol_exporter_queue_capacity{{{COLLECTOR}}})")
    size = context.by("exporter", f"sum by (exporter) (otelcol_exporter_queue_size{{{COLLECTOR}}})")
    for signal in wanted(context):
        if not context.fresh(f'otelcol_exporter_queue_capacity{{{COLLECTOR},data_type="{signal}"}}'):
            return fail("exporter-removed", f"no exporter has a queue for {signal}")
    filled = {name: size.get(name, 0) / room for name, room in capacity.items() if room}
    shown = ", ".join(f"{name} {share:.0%}" for name, share in filled.items())
    if any(share > 0.5 for share in filled.values()):
        return fail("queue-filling", f"queues: {shown}")
    accepted = sum(
        context.number(f"sum(rate(otelcol_receiver_accepted_{unit}_total{{{COLLECTOR}}}[2m]))") or 0
        for unit in SIGNALS.values()
    )
    return ok(f"takes {accepted:.0f} items/s; queues: {shown}")


def _metrics_blocked(context: Context) -> str:
    if context.receive_problem:
        return context.receive_problem
    try:
        return "" if context.stores else "Query knows no Receive"
    except UnreachableError as error:
        return str(error)
