"""Bad input at every door: oversize, truncated, random and mislabelled bodies, and well-formed nonsense."""

from __future__ import annotations

import gzip
import random
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    NumberDataPoint,
)

from tests.e2e.datapath import traffic
from tests.e2e.datapath.stack import Stack
from tests.e2e.processes import HTTP, LOOPBACK

CASES_EACH = 120
SEED = 20261
# Cases that may be read after all: the cut or the bit did no harm, or the nonsense is well-formed.
READABLE = {"truncated", "flipped", "odd", "long header", "bad context"}
PROTOBUF = "application/x-protobuf"
# Just above what the collector's OTLP receiver takes in one request (20 MiB).
OVERSIZE = 21 * 1024 * 1024


@dataclass(frozen=True)
class Case:
    """One bad request."""

    kind: str
    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)


def metrics(rng: random.Random) -> bytes:
    """Return metrics of a service of its own, with values, names and attributes that no SDK sends."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "stranger"
    metric = resource.scope_metrics.add().metrics.add(
        name=rng.choice(["", "a" * 3000, "with space", "ünïcode", "x\ny", "__name__"])
    )
    time = rng.choice([0, 1, 2**63 - 1, 2**64 - 1])
    temporalities = AggregationTemporality.values()
    shape = rng.randrange(4)
    point: NumberDataPoint | HistogramDataPoint | ExponentialHistogramDataPoint
    if shape == 0:
        point = metric.gauge.data_points.add(
            time_unix_nano=time, as_double=rng.choice([float("nan"), float("inf"), -0.0])
        )
    elif shape == 1:
        metric.sum.aggregation_temporality = rng.choice(temporalities)
        metric.sum.is_monotonic = True
        point = metric.sum.data_points.add(time_unix_nano=time, as_int=rng.choice([-(2**63), 2**63 - 1]))
    elif shape == 2:
        metric.histogram.aggregation_temporality = rng.choice(temporalities)
        point = metric.histogram.data_points.add(time_unix_nano=time, count=2**64 - 1)
        point.bucket_counts.extend([1] * rng.choice([1, 5]))
        point.explicit_bounds.extend([3.0, 2.0, 1.0])
    else:
        metric.exponential_histogram.aggregation_temporality = rng.choice(temporalities)
        point = metric.exponential_histogram.data_points.add(
            time_unix_nano=time, count=3, scale=rng.choice([-100, 0, 50]), zero_count=2**64 - 1
        )
        point.positive.offset = rng.choice([-(2**31), 2**31 - 1])
        point.positive.bucket_counts.extend([2**64 - 1] * rng.choice([1, 200]))
    for _ in range(rng.choice([0, 1, 200])):
        point.attributes.add(key=rng.choice(["", "a", "\x00", "le"])).value.string_value = "v" * rng.choice([0, 9000])
    return request.SerializeToString()


def traces(rng: random.Random) -> bytes:
    """Return spans with identifiers of a wrong length, an end before the start, and too many events."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "stranger"
    span = resource.scope_spans.add().spans.add(name="x" * rng.choice([0, 10**5]), start_time_unix_nano=2**64 - 1)
    # Identifiers of a wrong length are refused at the door; right ones pass and are kept as another service's.
    span.trace_id, span.span_id = rng.randbytes(rng.choice([0, 3, 16])), rng.randbytes(rng.choice([0, 8, 40]))
    for _ in range(rng.choice([0, 500])):
        span.events.add(name="e")
    return request.SerializeToString()


def logs(rng: random.Random) -> bytes:
    """Return records with a body nested deeper than anyone reads."""
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "stranger"
    body = resource.scope_logs.add().log_records.add(time_unix_nano=rng.choice([0, 2**64 - 1])).body
    for _ in range(rng.choice([1, 30])):
        body = body.array_value.values.add()
    body.string_value = "x" * rng.choice([0, 10**5])
    return request.SerializeToString()


def otlp_cases(rng: random.Random, paths: Mapping[str, Callable[[random.Random], bytes]], count: int) -> Iterator[Case]:
    """Yield ``count`` bad OTLP/HTTP requests for these paths."""
    kinds = [
        "random",
        "truncated",
        "flipped",
        "odd",
        "wrong type",
        "wrong encoding",
        "broken gzip",
        "wrong method",
        "json",
    ]
    for number in range(count):
        path = rng.choice(list(paths))
        kind, good = kinds[number % len(kinds)], paths[path](rng)
        headers = {"Content-Type": PROTOBUF}
        if kind == "random":
            yield Case(kind, "POST", path, headers, rng.randbytes(rng.randrange(1, 5000)))
        elif kind == "truncated":
            yield Case(kind, "POST", path, headers, good[: rng.randrange(1, len(good))])
        elif kind == "flipped":
            position = rng.randrange(len(good))
            broken = bytearray(good)
            broken[position] ^= 1 << rng.randrange(8)
            yield Case(kind, "POST", path, headers, bytes(broken))
        elif kind == "odd":
            yield Case(kind, "POST", path, headers, good)
        elif kind == "wrong type":
            wrong = rng.choice(["text/plain", "application/xml", "", "application/x-www-form-urlencoded", "a/b/c;;"])
            yield Case(kind, "POST", path, {"Content-Type": wrong}, good)
        elif kind == "wrong encoding":
            wrong = rng.choice(["br", "deflate", "zstd", "snappy", "nonsense"])
            yield Case(kind, "POST", path, {**headers, "Content-Encoding": wrong}, good)
        elif kind == "broken gzip":
            packed = gzip.compress(good * 50)
            yield Case(kind, "POST", path, {**headers, "Content-Encoding": "gzip"}, packed[: len(packed) // 2])
        elif kind == "wrong method":
            yield Case(kind, rng.choice(["GET", "PUT", "DELETE", "PATCH"]), path, headers)
        else:
            text = rng.choice([b"{", b"[]", b'{"resourceSpans": [{"x": ' + b"[" * 9000])
            yield Case(kind, "POST", path, {"Content-Type": "application/json"}, text)
    path = next(iter(paths))
    yield Case("oversize", "POST", path, {"Content-Type": PROTOBUF}, b"\x0a" * OVERSIZE)
    bomb = {"Content-Type": PROTOBUF, "Content-Encoding": "gzip"}
    yield Case("bomb", "POST", path, bomb, gzip.compress(b"\x00" * 8 * OVERSIZE))


def simulator_cases(rng: random.Random, count: int) -> Iterator[Case]:
    """Yield ``count`` bad requests for the simulator; none of them may run a checkout."""
    for _ in range(count):
        odd = rng.choice(["-1", "1e999", "nan", "", "1" * 5000, "%00", "0x10", "10;drop", "1,5"])
        yield rng.choice(
            [
                Case("bad parameter", "GET", f"/unstable?delay_ms={odd}"),
                Case("bad parameter", "GET", f"/unstable?error_rate={odd}"),
                Case("unknown parameter", "GET", f"/unstable?{rng.randrange(10**6)}=1"),
                Case("given twice", "GET", "/unstable?delay_ms=1&delay_ms=2"),
                Case("no such path", "GET", f"/{rng.randbytes(rng.randrange(1, 40)).hex()}"),
                Case("no such path", "GET", "/../../etc/passwd"),
                Case("wrong method", rng.choice(["PUT", "DELETE", "PATCH"]), "/checkout", {}, b"x" * 1000),
                Case("long header", "GET", "/nowhere", {"X-Long": "a" * 9000}),
                Case("bad context", "GET", "/nowhere", {"traceparent": "00-zz-zz-01", "baggage": "=" * 5000}),
            ]
        )


def raw_cases(rng: random.Random, count: int) -> Iterator[bytes]:
    """Yield bytes that are no HTTP at all, for the ports that speak HTTP or gRPC."""
    for _ in range(count):
        yield rng.choice(
            [
                rng.randbytes(rng.randrange(1, 2000)),
                b"POST /checkout HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nshort",
                b"GET / HTTP/9.9\r\n\r\n",
                b"GET /checkout\x00 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + rng.randbytes(200),
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(64),
            ]
        )


def send(base: str, case: Case) -> str:
    """Send a case and return the answer's status, or how the connection ended."""
    try:
        headers = {name: value for name, value in case.headers.items() if value}
        return str(HTTP.request(case.method, base + case.path, headers=headers, content=case.body).status_code)
    except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError) as error:
        return type(error).__name__  # the server hung up on us, as it may


def knock(port: int, data: bytes) -> None:
    """Send raw bytes and hang up."""
    with socket.create_connection((LOOPBACK, port), timeout=10) as connection:
        connection.settimeout(0.05)
        try:
            connection.sendall(data)
            connection.recv(1000)
        except OSError:
            pass


@pytest.fixture(scope="module")
def answers(stack: Stack) -> dict[str, Counter[tuple[str, str]]]:
    """Send every case while good traffic goes on; return, by door, how often each kind of case got each answer."""
    rng = random.Random(SEED)
    signals = {"/v1/metrics": metrics, "/v1/traces": traces, "/v1/logs": logs}
    receive = {"/api/v1/otlp": metrics, "/api/v1/receive": metrics}
    doors = {
        "collector": (stack.url("collector", "otlp-http"), list(otlp_cases(rng, signals, CASES_EACH))),
        "router": (stack.url("router", "write"), list(otlp_cases(rng, receive, CASES_EACH))),
        "ingestor": (stack.url("ingestor", "write"), list(otlp_cases(rng, receive, CASES_EACH))),
        "app": (stack.url("app"), list(simulator_cases(rng, CASES_EACH))),
    }
    before = {name: part.pid for name, part in stack.parts.items()}
    traffic.settle(stack)
    load = traffic.load(stack, 6, 12)
    answered = {door: Counter((case.kind, send(base, case)) for case in cases) for door, (base, cases) in doors.items()}
    ports = [
        ("collector", "otlp-http"),
        ("collector", "otlp-grpc"),
        ("router", "write"),
        ("router", "grpc"),
        ("app", "http"),
    ]
    for part, port in ports:
        for data in raw_cases(rng, 20):
            knock(int(stack.address(part, port).rsplit(":", 1)[1]), data)
    assert load.wait_end(60) == 0
    assert {name: part.pid for name, part in stack.parts.items() if part.running} == before
    return answered


@pytest.mark.parametrize("door", ["collector", "router", "ingestor", "app"])
def test_what_cannot_be_read_is_refused(answers: dict[str, Counter[tuple[str, str]]], door: str) -> None:
    """A body that is no message gets a 4xx answer (or the door shut), never an accepting one and never a crash."""
    for (kind, status), count in answers[door].items():
        if kind not in READABLE:
            assert status.startswith("4") or not status.isdigit(), f"{count} × {kind} got {status}: {answers[door]}"


def test_everything_still_serves_and_counts(stack: Stack, answers: dict[str, Counter[tuple[str, str]]]) -> None:
    """Also through what the collector let pass: nonsense that Receive refuses must not block the queue behind it."""
    traffic.checkouts(stack, 20)
    traffic.settle(stack, timeout=90)
    for request in traffic.requests(stack)[-20:]:
        assert traffic.has_trace(stack, request.trace_id)
        assert traffic.has_line(stack, request.trace_id)
    for part in ("router", "ingestor", "query", "query-frontend"):
        assert HTTP.get(f"{stack.url(part)}/-/ready").status_code == 200
    assert HTTP.get(stack.url("collector")).status_code == 200
    assert traffic.get(stack, "/readyz").status_code == 200
