"""Native against classic histograms of the same simulator: series, bytes on the wire, error of p95, exemplars kept."""

from __future__ import annotations

import math
import os
import random
from dataclasses import dataclass

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from tests.e2e.datapath import traffic
from tests.e2e.datapath.bench.synthetic import Service, durations, request
from tests.e2e.datapath.served import Request, requests_in
from tests.e2e.datapath.stack import Stack
from tests.e2e.datapath.stores import HttpService, Refused
from tests.e2e.datapath.wiring import python_environment
from tests.e2e.processes import HTTP, LOOPBACK, Process, free_port, wait_until

AGGREGATIONS = {"native": "base2_exponential_bucket_histogram", "classic": "explicit_bucket_histogram"}
SECONDS = 10


@dataclass(frozen=True)
class Simulator:
    kind: str
    process: Process
    port: int

    @property
    def service(self) -> str:
        return f"bench-{self.kind}"

    def told(self) -> list[Request]:
        return requests_in(self.process.log.read_text(errors="replace"))


class Tap(HttpService):
    """Hands metrics on to a collector's OTLP/HTTP address and notes the exemplars, each by its span."""

    def __init__(self, to: str) -> None:
        super().__init__()
        self.to = to
        self.offered: set[str] = set()

    def post(self, path: str, body: bytes, content_type: str) -> bytes:
        answer = HTTP.post(self.to + path, content=body, headers={"Content-Type": content_type})
        if answer.status_code != 200:
            raise Refused(answer.status_code, answer.text)
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                if metric.name == "http.server.request.duration":
                    exemplars = [e for point in metric.histogram.data_points for e in point.exemplars]
                    exemplars += [e for point in metric.exponential_histogram.data_points for e in point.exemplars]
                    self.offered |= {exemplar.span_id.hex() for exemplar in exemplars}
        return answer.content


@dataclass(frozen=True)
class Row:
    """``p95_errors`` by mode, relative to the record; ``exemplars`` as a share of the requests.

    ``offered`` and ``refused`` are exemplars: what the SDK sent, and what of it Receive does not hold.
    """

    kind: str
    series: int
    bytes_per_sample: float
    p95_errors: dict[str, float]
    exemplars: float
    offered: int
    refused: int


def run(stack: Stack) -> list[Row]:
    """Return a row for each kind. The stack runs; two simulators of this module's own send to it, at the baked interval.

    How many requests of a series fall into one export decides how many exemplars are kept.
    """
    environment = python_environment(stack.declared)
    interval = stack.baked_environment()["OTEL_METRIC_EXPORT_INTERVAL"]
    simulators, taps = [], {kind: Tap(stack.url("collector", "otlp-http")) for kind in AGGREGATIONS}
    for tap in taps.values():
        tap.start()
    for kind, aggregation in AGGREGATIONS.items():
        port = free_port()
        env = stack.app_environment() | {
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": aggregation,
            "OTEL_METRIC_EXPORT_INTERVAL": interval,
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{taps[kind].url}/v1/metrics",
            "OTEL_SERVICE_NAME": f"bench-{kind}",
            "OTEL_RESOURCE_ATTRIBUTES": f"service.instance.id=bench-{kind}-0",
            "PORT": str(port),
            "PATH": f"{environment}/bin:{os.environ['PATH']}",
        }
        process = stack.processes.start(
            f"bench-{kind}",
            [environment / "bin" / "opentelemetry-instrument", "gunicorn"],
            ready=f"http://{LOOPBACK}:{port}/readyz",
            env=env,
            cwd=stack.declared.app,
        )
        simulators.append(Simulator(kind, process, port))
    errors: dict[str, dict[str, float]] = {kind: {} for kind in AGGREGATIONS}
    _load(stack, simulators, "normal")  # so that every series has a first sample
    for mode in ("normal", "peak"):
        begin = {simulator.kind: (_settle(stack, simulator), len(simulator.told())) for simulator in simulators}
        _load(stack, simulators, mode)
        for simulator in simulators:
            (start, first), end = begin[simulator.kind], _settle(stack, simulator)
            values = sorted(r.duration_ms / 1000 for r in simulator.told()[first:] if r.mode == mode)
            truth = values[math.ceil(0.95 * len(values)) - 1]
            window = f"{round((end - start) * 1000) + 1}ms"
            shown = stack.query.value(_p95(simulator, window), end)
            assert shown is not None, f"no p95 of {simulator.service}"
            errors[simulator.kind][mode] = shown / truth - 1
    rows = []
    for simulator in simulators:
        told = simulator.told()
        kept = stack.query.exemplars(_selector(simulator), end - 600, end + 10)
        seen = {e.trace_id for e in kept}
        series = stack.query.value(
            f'count({{__name__=~"http_server_request_duration.*",service_name="{simulator.service}"}})'
        )
        rows.append(
            Row(
                simulator.kind,
                int(series or 0),
                _bytes_per_sample(simulator.kind),
                errors[simulator.kind],
                sum(r.trace_id in seen for r in told) / len(told),
                len(taps[simulator.kind].offered),
                len(taps[simulator.kind].offered - {e.span_id for e in kept}),
            )
        )
        simulator.process.stop()
        taps[simulator.kind].stop()
    return rows


def _load(stack: Stack, simulators: list[Simulator], mode: str) -> None:
    traffic.wait_mode(stack, mode, SECONDS + 2.5)
    loads = [
        traffic.load(stack, 12, SECONDS, f"load-{simulator.kind}", f"http://{LOOPBACK}:{simulator.port}")
        for simulator in simulators
    ]
    for load in loads:
        load.wait_end(SECONDS + 60)


def _settle(stack: Stack, simulator: Simulator) -> float:
    """Wait until Thanos counts what the simulator tells of; return the time of that sample."""
    active = f'http_server_active_requests{{service_name="{simulator.service}"}}'

    def settled() -> float:
        at = stack.query.value(f"max(timestamp({active}))") or 0
        assert stack.query.value(f"sum({active})", at) == 0
        assert stack.query.value(_count(simulator), at) == len(simulator.told())
        return at

    return wait_until(settled, f"{simulator.service} is counted", 60)


def _selector(simulator: Simulator, suffix: str = "") -> str:
    suffix = suffix if simulator.kind == "classic" else ""
    more = ',http_response_status_code=~"200|500"' if suffix != "_bucket" else ""
    name = f"http_server_request_duration_seconds{suffix or ('_bucket' if simulator.kind == 'classic' else '')}"
    return f'{name}{{service_name="{simulator.service}"{more}}}'


def _count(simulator: Simulator) -> str:
    selector = _selector(simulator, "_count")
    return f"sum(histogram_count({selector}))" if simulator.kind == "native" else f"sum({selector})"


def _p95(simulator: Simulator, window: str) -> str:
    selector = _selector(simulator, "_bucket").replace("{", '{http_route="/checkout",')
    by = " by (le)" if simulator.kind == "classic" else ""
    return f"histogram_quantile(0.95, sum{by} (rate({selector}[{window}])))"


def _bytes_per_sample(kind: str) -> float:
    """Return the OTLP bytes of one export of one label set after a thousand normal and peak requests."""
    service, rng = Service("bench", kind, 0), random.Random(3)
    service.observe([(seconds, True) for peak in (False, True) for seconds, _ in durations(rng, peak, 500)])
    message, (metric,) = request([service])
    empty = message.ByteSize()
    service.write(metric, 1)
    return message.ByteSize() - empty
