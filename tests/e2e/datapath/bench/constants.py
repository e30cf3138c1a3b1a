"""The constants behind a bake's ``make capacity``, measured on the simulator and real Thanos.

    python -m tests.e2e.datapath.bench.constants     print them

``make bench`` measures them too, with those of throughput (capacity.py), and writes them into scripts/constants.yaml.

Not measured here: how far Tempo and Loki compress (neither is part of the stack), which stay estimates.
"""

from __future__ import annotations

import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import httpx
import yaml
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.e2e.datapath import traffic
from tests.e2e.datapath.bench.synthetic import Service, durations, request
from tests.e2e.datapath.bench.usage import usage
from tests.e2e.datapath.declared import Declared
from tests.e2e.datapath.stack import Stack
from tests.e2e.datapath.stores import LogStore, TraceStore
from tests.e2e.processes import Processes
from tests.platforms import ROOT, bake

FILE = ROOT / "{{cookiecutter.project_slug}}" / "scripts" / "constants.yaml"
SECONDS = 125  # of real traffic: one chunk of 120 samples, at an export a second
RATE = 5  # requests/s
SERIES = 2000  # made ones, to see what a series costs
SAMPLES = 120  # of each of those
BUSY = (20, 5)  # requests in normal and in peak mode between two of those
EXEMPLARS, PER_POINT = 100_000, 10  # the whole ring buffer
CHUNK_KINDS = {1: "float", 2: "histogram"}


class CountedTraces(TraceStore):
    """Counts the spans that reach it, and their bytes as OTLP protobuf."""

    spans = size = 0

    def Export(self, request: ExportTraceServiceRequest, context: grpc.ServicerContext) -> ExportTraceServiceResponse:
        self.size += request.ByteSize()
        self.spans += sum(len(s.spans) for r in request.resource_spans for s in r.scope_spans)
        return super().Export(request, context)


class CountedLogs(LogStore):
    """Counts the records that reach it, and their bytes as OTLP protobuf."""

    records = size = 0

    def post(self, path: str, body: bytes, content_type: str) -> bytes:
        self.size += len(body)
        request = ExportLogsServiceRequest.FromString(body)
        self.records += sum(len(s.log_records) for r in request.resource_logs for s in r.scope_logs)
        return super().post(path, body, content_type)


def measure(stack: Stack) -> dict[str, float]:
    """Return the constants by their names in scripts/constants.yaml; ``stack`` is not started yet, and ends stopped."""
    traces, logs = stack.traces, stack.logs = CountedTraces(), CountedLogs()

    def counted() -> tuple[int, ...]:
        return traces.spans, traces.size, logs.records, logs.size, len(traffic.requests(stack))

    stack.start()
    traffic.warm_up(stack)
    before = counted()
    end = time.monotonic() + SECONDS
    with httpx.Client(trust_env=False, timeout=30) as client:
        while time.monotonic() < end:
            began = time.monotonic()
            client.get(f"{stack.url('app')}/checkout")
            time.sleep(max(0, began + 1 / RATE - time.monotonic()))
    traffic.settle(stack)
    spans, span_bytes, records, record_bytes, requests = (
        now - then for now, then in zip(counted(), before, strict=True)
    )
    own = '{job="checkout"}'  # with target_info, which has no service_name
    result = {
        "series_per_pod": stack.query.value(f"count({own})") or 0,
        "histograms_per_pod": stack.query.value(f"count(histogram_count({own}))") or 0,
        "spans_per_request": spans / requests,
        "span": span_bytes / spans,
        "logs_per_request": records / requests,
        "log_line": record_bytes / records,
        "exemplars_per_export": exemplars_of_an_export(stack),
    }
    stack.stop("app", "collector")
    result |= memory(stack)
    stack.stop()  # Receive writes what it has in memory into a block
    quiet, busy = (chunk_sizes(stack.data("ingestor") / tenant) for tenant in ("default-tenant", "busy"))
    return result | {"histogram_sample": busy["histogram"], "float_sample": quiet["float"]}


def write(measured: Mapping[str, float]) -> None:
    """Write what was measured into the template's scripts/constants.yaml, to three digits.

    Raises:
        AssertionError: a name is not there, or a constant that is called measured was not measured.
    """
    told = {name for name, entry in known().items() if entry["source"].startswith("measured")}
    assert told == measured.keys(), f"measured and told differ by {sorted(told ^ measured.keys())}"
    text = FILE.read_text()
    for name, value in measured.items():
        text = re.sub(rf"^{name}: {{value: [^,]+", f"{name}: {{value: {rounded(value)}", text, flags=re.M)
    FILE.write_text(text)


def rounded(value: float) -> str:
    """Return a number to three digits, as YAML and people read it."""
    return f"{float(f'{value:.3g}'):.10f}".rstrip("0").rstrip(".")


def known() -> dict[str, dict[str, Any]]:
    """Return value, unit and source of each constant in the template's scripts/constants.yaml."""
    return dict(yaml.safe_load(FILE.read_text()))


def exemplars_of_an_export(stack: Stack) -> float:
    """Return how many exemplars an export of a busy series leaves on average.

    The SDK sends up to 20, in no order, and Receive takes one only if it is newer than those before it.
    """
    exports, interval = 10, 2
    with stack.changed("app", lambda env: env | {"OTEL_METRIC_EXPORT_INTERVAL": str(1000 * interval)}):
        since = time.time()
        while time.time() < since + exports * interval:
            traffic.checkouts(stack, 40, "/unstable?delay_ms=5")
    exemplars = stack.query.exemplars(
        'http_server_request_duration_seconds{http_route="/unstable"}', since, time.time() + 5
    )
    return len(exemplars) / exports


def memory(stack: Stack) -> dict[str, float]:
    """Return the bytes by which the ingestor's resident memory grows with a busy series, and with an exemplar."""
    some, many = busy(200, "first"), busy(SERIES, "more")
    # A tenant's first series brings with it what a TSDB needs at all.
    send(stack, "busy", some, rounds=SAMPLES)
    before = usage(stack.parts["ingestor"]).resident_bytes
    send(stack, "busy", many, rounds=SAMPLES)
    after = usage(stack.parts["ingestor"]).resident_bytes
    send(stack, "exemplars", some, rounds=2)
    empty = usage(stack.parts["ingestor"]).resident_bytes
    rounds = EXEMPLARS // (len(some) * 2 * PER_POINT)
    send(stack, "exemplars", some, rounds, PER_POINT)
    full = usage(stack.parts["ingestor"]).resident_bytes
    return {
        "series_memory": (after - before) / SERIES,
        "exemplar": (full - empty) / (rounds * len(some) * 2 * PER_POINT),
    }


def busy(series: int, name: str) -> list[Service]:
    """Return services that have so many series between them (one for each of two statuses)."""
    return [Service(f"{name}-{number}", "native", time.time()) for number in range(series // 2)]


def send(stack: Stack, tenant: str, services: list[Service], rounds: int, exemplars: int = 0) -> None:
    """Send ``rounds`` samples of each series, 5 s apart, the last one now, each with so many exemplars."""
    rng = random.Random(1)
    moment = time.time() - 5 * rounds
    with httpx.Client(trust_env=False, timeout=120) as client:
        for _ in range(rounds):
            for start in range(0, len(services), 500):
                some = services[start : start + 500]
                message, metrics = request(some)
                for service, metric in zip(some, metrics, strict=True):
                    service.observe([*durations(rng, False, BUSY[0]), *durations(rng, True, BUSY[1])])
                    service.write(metric, moment)
                    for point in metric.exponential_histogram.data_points:
                        for number in range(exemplars):
                            point.exemplars.add(
                                trace_id=rng.randbytes(16),
                                span_id=rng.randbytes(8),
                                as_double=0.1,
                                time_unix_nano=int((moment - 5 + 5 * number / exemplars) * 1e9),
                            )
                client.post(
                    f"{stack.url('router', 'write')}/api/v1/otlp",
                    content=message.SerializeToString(),
                    headers={"Content-Type": "application/x-protobuf", "THANOS-TENANT": tenant},
                ).raise_for_status()
            moment += 5


def chunk_sizes(tenant: Path) -> dict[str, float]:
    """Return the mean bytes of a sample in the blocks of a tenant's TSDB, by kind (float, histogram)."""
    count, size = dict.fromkeys(CHUNK_KINDS.values(), 0), dict.fromkeys(CHUNK_KINDS.values(), 0)
    for segment in tenant.glob("*/chunks/*"):
        for encoding, data in chunks(segment.read_bytes()):
            kind = CHUNK_KINDS[encoding]
            count[kind] += int.from_bytes(data[:2], "big")
            size[kind] += len(data)
    assert any(count.values()), f"no samples in the blocks of {tenant}"
    return {kind: size[kind] / count[kind] for kind in count if count[kind]}


def chunks(segment: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield encoding and data of each chunk of a TSDB segment: after a header of 8 bytes, length, encoding, data, checksum."""
    at = 8
    while at < len(segment):
        length = shift = 0
        while True:
            byte = segment[at]
            length, shift, at = length | (byte & 0x7F) << shift, shift + 7, at + 1
            if not byte & 0x80:
                break
        yield segment[at], segment[at + 1 : at + 1 + length]
        at += 1 + length + 4


def main() -> int:
    """Bake, measure and print."""
    with tempfile.TemporaryDirectory() as scratch:
        declared = Declared(bake({}, Path(scratch) / "bake"))
        with Processes(Path(scratch) / "logs") as processes:
            stack = Stack(declared, Path(scratch) / "stack", processes)
            try:
                for name, value in measure(stack).items():
                    print(f"{name:24} {value:,.2f}")
            finally:
                stack.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
