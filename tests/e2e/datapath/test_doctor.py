"""The baked doctor on the running platform: nothing to say when all is well, and every injected fault by its name."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE

from tests.e2e.datapath import traffic
from tests.e2e.datapath.backends import Loki, Tempo
from tests.e2e.datapath.doctor import doctor, names
from tests.e2e.datapath.stack import Stack
from tests.e2e.datapath.stores import LogStore, TraceStore
from tests.e2e.datapath.wiring import reports_every_second
from tests.e2e.processes import HTTP, wait_until


@pytest.fixture(scope="module")
def stack(new_stack: Callable[[], Stack]) -> Iterator[Stack]:
    """A stack of its own whose collector reports every second, so that a fault is seen sooner."""
    running = new_stack()
    running.changes["collector"] = reports_every_second
    traffic.warm_up(running.start())
    yield running
    running.stop()


# Only what needs a cluster, a Grafana or an Alertmanager is left out, and each says why.
NOT_LOOKED_AT = {
    *("Cluster", "Argo CD Applications", "App pods", "Data sources in Grafana", "Panels in Grafana"),
    *("Alerts", "Receivers", "Test page"),
}


def test_a_healthy_platform_has_no_broken_hop(stack: Stack) -> None:
    began = time.time()

    def all_looked_at() -> dict[str, dict[str, Any]]:
        traffic.checkouts(stack, 3, "/unstable?delay_ms=1")
        hops = {hop["hop"]: hop for hop in json.loads(doctor(stack, "--json", since=began).stdout)["hops"]}
        assert {name for name, hop in hops.items() if hop["status"] != "ok"} == NOT_LOOKED_AT
        return hops

    # An exemplar is there with the export after its request; until then the doctor asks for traffic.
    hops = wait_until(all_looked_at, "every hop is looked at and fine", timeout=60, interval=1)
    assert all(hop["evidence"] for hop in hops.values())
    assert re.search(r"trace_id [0-9a-f]{32}", hops["Exemplars"]["evidence"])


def test_the_table_reads_without_colours(stack: Stack) -> None:
    began = time.time()

    def healthy() -> str:
        traffic.checkouts(stack, 3, "/unstable?delay_ms=1")
        done = doctor(stack, since=began)
        assert done.returncode == 0, done.stdout
        assert re.search(r"^ *OK +Exemplars", done.stdout, re.M), done.stdout
        return done.stdout

    table = wait_until(healthy, "the doctor finds exemplars", timeout=60, interval=1)
    assert "No hop is broken" in table
    assert "\x1b" not in table


def test_what_was_before_the_collector_breaks_no_hop(stack: Stack) -> None:
    """On a new cluster an exemplar may outlive its trace, which the SDK gave up before a collector was there."""
    early = time.time() - 600
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "checkout"
    metric = resource.scope_metrics.add().metrics.add(name="http.server.request.duration", unit="s")
    metric.exponential_histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    # No request more, so that counts stay exact.
    point = metric.exponential_histogram.data_points.add(time_unix_nano=time.time_ns())
    point.attributes.add(key="http.route").value.string_value = "/early"
    lost = point.exemplars.add(time_unix_nano=int(early * 1e9), as_double=2, trace_id=os.urandom(16))
    lost.span_id = os.urandom(8)
    answer = HTTP.post(
        f"{stack.url('collector', 'otlp-http')}/v1/metrics",
        content=request.SerializeToString(),
        headers={"Content-Type": "application/x-protobuf"},
    )
    assert answer.status_code == 200, answer.text
    metric_name = "http_server_request_duration_seconds"
    wait_until(lambda: stack.query.exemplars(metric_name, early - 1, early + 1), "Thanos has the exemplar", 30)
    hops = {hop["hop"]: hop for hop in json.loads(doctor(stack, "--json").stdout)["hops"]}
    assert hops["Trace of an exemplar"]["status"] == "ok", hops["Trace of an exemplar"]


@contextmanager
def stopped(stack: Stack, part: str) -> Iterator[None]:
    stack.stop(part)
    try:
        yield
    finally:
        stack.start(part)
        stack.wait_connected()


@contextmanager
def store_stopped(store: TraceStore | Tempo | LogStore | Loki) -> Iterator[None]:
    store.stop()
    try:
        yield
    finally:
        store.start()


@contextmanager
def traces_expired(stack: Stack) -> Iterator[None]:
    if not isinstance(stack.traces, TraceStore):
        pytest.skip("Tempo forgets when its retention is over, not on demand: needs the stand-in")
    # For a few seconds: the doctor's window begins when its process is up, and some exemplars must be younger than
    # that.
    told, until = len(traffic.requests(stack)), time.monotonic() + 5
    while time.monotonic() < until:
        traffic.checkouts(stack, 3)
    served = traffic.requests(stack)[told:]
    wait_until(lambda: all(traffic.has_trace(stack, each.trace_id) for each in served), "their traces are there")
    with stack.traces.forgotten():
        yield


@contextmanager
def no_trace_ids(stack: Stack) -> Iterator[None]:
    logs = stack.logs
    if not isinstance(logs, LogStore):
        pytest.skip("Loki keeps the trace id it is given: needs the stand-in")
    logs.keep_trace_ids = False
    try:
        yield
    finally:
        logs.keep_trace_ids = True


def without(flag: str) -> Callable[[list[str]], list[str]]:
    return lambda arguments: [argument for argument in arguments if not argument.startswith(flag)]


def without_exporter(signal: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a change that takes a signal's exporter, and so its pipeline, from the collector."""

    def change(config: dict[str, Any]) -> dict[str, Any]:
        for exporter in config["service"]["pipelines"].pop(signal)["exporters"]:
            del config["exporters"][exporter]
        return config

    return change


Fault = Callable[[Stack], AbstractContextManager[object]]
LIVE: dict[str, tuple[Fault, str, str]] = {
    "exemplar flag missing": (
        lambda s: s.changed("ingestor", without("--tsdb.max-exemplars")),
        "exemplar-flag-missing",
        "room for 0 exemplars",
    ),
    "query not connected": (
        lambda s: s.changed("query", without("--endpoint")),
        "query-not-connected",
        "no Receive ingestor",
    ),
    "router down": (lambda s: stopped(s, "router"), "receive-down", "router at"),
    "ingestor down": (lambda s: stopped(s, "ingestor"), "receive-down", "receive at"),
    "query down": (lambda s: stopped(s, "query"), "query-down", "query at"),
    "collector down": (lambda s: stopped(s, "collector"), "collector-down", "collector at"),
    "trace store down": (lambda s: store_stopped(s.traces), "tempo-down", "tempo at"),
    "log store down": (lambda s: store_stopped(s.logs), "loki-down", "loki at"),
    "trace expired": (traces_expired, "trace-expired", "404"),
    "log backend without the trace id": (no_trace_ids, "logs-without-trace-id", "but others of the app"),
    "metrics exporter removed": (
        lambda s: s.changed("collector", without_exporter("metrics")),
        "exporter-removed",
        "none of its own metrics",
    ),
    "traces exporter removed": (
        lambda s: s.changed("collector", without_exporter("traces")),
        "exporter-removed",
        "no exporter has a queue for traces",
    ),
    "wrong metric name": (
        lambda s: s.changed("app", lambda env: {k: v for k, v in env.items() if k != "OTEL_SEMCONV_STABILITY_OPT_IN"}),
        "semconv-opt-in-missing",
        "http_server_duration_milliseconds arrives instead",
    ),
    "sampling off": (
        lambda s: s.changed("app", lambda env: env | {"OTEL_TRACES_SAMPLER": "always_off"}),
        "sampling-off",
        "Tempo has no trace",
    ),
}


@pytest.mark.parametrize("fault", LIVE)
def test_a_fault_in_the_running_platform_is_named(stack: Stack, fault: str) -> None:
    inject, finding, evidence = LIVE[fault]
    began = time.time()
    with inject(stack):
        names(stack, finding, evidence, since=began)
    names(stack, "")


# Faults in the files: component's file, what stands there, what stands there instead.
IN_GIT = {
    "exemplar flag missing": (
        "thanos-receive/values*.yaml",
        "- --tsdb.max-exemplars=100000",
        "",
        "exemplar-flag-missing",
    ),
    "service name not promoted": (
        *("thanos-receive/values*.yaml", "resource-attributes=service.name", "resource-attributes=host.name"),
        "service-name-not-promoted",
    ),
    "query not connected": (
        "thanos-receive/platform.yaml",
        "_tcp.thanos-receive-ingestor-headless",
        "_tcp.prometheus",
        "query-not-connected",
    ),
    "wrong exemplar label in the data source": (
        "tempo/platform.yaml",
        "{name: trace_id,",
        "{name: traceID,",
        "exemplar-label-wrong",
    ),
    "data source renamed": (
        "tempo/platform.yaml",
        "      tempo:\n        name:",
        "      traces:\n        name:",
        "datasource-wrong",
    ),
    "panel query on _count": (
        *(
            "grafana/dashboards/checkout-red.json",
            "http_server_request_duration_seconds{",
            "http_server_request_duration_seconds_count{",
        ),
        "panel-on-count",
    ),
    "panel query on another metric": (
        *(
            "grafana/dashboards/checkout-red.json",
            "http_server_request_duration_seconds{",
            "http_server_duration_milliseconds{",
        ),
        "panel-wrong-metric",
    ),
    "no panel asks for exemplars": (
        *("grafana/dashboards/checkout-red.json", '"exemplar": true', '"exemplar": false'),
        "panel-without-exemplars",
    ),
    "sampling off": ("otel-instrumentation/templates/*.yaml", "parentbased_traceidratio", "always_off", "sampling-off"),
    "wrong metric name": (
        *("otel-instrumentation/templates/*.yaml", "OTEL_SEMCONV_STABILITY_OPT_IN", "OTEL_SEMCONV_STABILITY"),
        "semconv-opt-in-missing",
    ),
    "exporter removed": (
        *("otel-collector/templates/gateway.yaml", "exporters: [{{ . }}]", "exporters: []"),
        "exporter-removed",
    ),
    "merge marks": ("tempo/platform.yaml", "global:\n", "<<<<<<< HEAD\nglobal:\n", "file-unreadable"),
}


@pytest.mark.parametrize("fault", IN_GIT)
def test_a_fault_in_the_files_is_named(stack: Stack, tmp_path: Path, fault: str) -> None:
    pattern, old, new, finding = IN_GIT[fault]
    repository = tmp_path / "platform"
    shutil.copytree(stack.declared.platform, repository)
    files = sorted((repository / "platform-apps").glob(pattern))
    assert any(old in path.read_text() for path in files), f"{old!r} is not in {pattern}"
    for path in files:
        path.write_text(path.read_text().replace(old, new))
    names(stack, finding, repository=repository)
