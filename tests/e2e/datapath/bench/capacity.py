"""What one collector and one Receive take before they fall behind, and how they grow with 1, 10 and 100 services.

A simulated request is four spans and a log line; a service also exports its histogram every second. Messages are made
beforehand as far as possible, and the trace store throws spans away unread, so that the load's own share of the machine
is small; it is still on the same cores.
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
import httpx
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.e2e import toolchain
from tests.e2e.datapath.bench.synthetic import Service, durations, request
from tests.e2e.datapath.bench.usage import Usage, usage
from tests.e2e.datapath.declared import replace_flags
from tests.e2e.datapath.stack import Stack
from tests.e2e.processes import HTTP, LOOPBACK, wait_until

SPANS = 4
REQUESTS_PER_MESSAGE = 128  # the SDK's batch of 512 spans
SECONDS = 12
SENDERS, MESSAGES = 4, 100  # to Receive: its end is that of the messages, or of the time
PROCESSES = ("collector", "router", "ingestor", "query", "query-frontend", "app")
RATE = 5  # requests/s of one simulated service


class Sink:
    """A trace store that counts the bytes of what it gets and keeps nothing."""

    def __init__(self, port: int) -> None:
        self.bytes = 0
        self._server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
        take: grpc.RpcMethodHandler[bytes, ExportTraceServiceResponse] = grpc.unary_unary_rpc_method_handler(
            self._take, request_deserializer=None, response_serializer=ExportTraceServiceResponse.SerializeToString
        )
        service = "opentelemetry.proto.collector.trace.v1.TraceService"
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": take}),))
        self._server.add_insecure_port(f"{LOOPBACK}:{port}")
        self._server.start()

    def _take(self, body: bytes, _context: object) -> ExportTraceServiceResponse:
        self.bytes += len(body)
        return ExportTraceServiceResponse()

    def stop(self) -> None:
        self._server.stop(None).wait()


def spans(rng: random.Random, service: str, requests: int) -> bytes:
    """Return an OTLP message with the spans of so many requests, about as large as the simulator's."""
    message = ExportTraceServiceRequest()
    resource = message.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = service
    scope = resource.scope_spans.add()
    now = time.time_ns()
    for _ in range(requests):
        trace_id, root = rng.randbytes(16), rng.randbytes(8)
        for number in range(SPANS):
            span = scope.spans.add(
                trace_id=trace_id, span_id=rng.randbytes(8) if number else root, name=f"step {number}"
            )
            span.start_time_unix_nano, span.end_time_unix_nano = now, now + 10**8
            if number:
                span.parent_span_id = root
            for name in ("http.route", "http.request.method", "url.path", "checkout.mode", "checkout.outcome"):
                span.attributes.add(key=name).value.string_value = "/checkout"
            span.events.add(name="log", time_unix_nano=now)
    return message.SerializeToString()


def lines(service: str, requests: int) -> bytes:
    """Return an OTLP message with a log record for each of so many requests."""
    message = ExportLogsServiceRequest()
    resource = message.resource_logs.add()
    resource.resource.attributes.add(key="service.name").value.string_value = service
    scope = resource.scope_logs.add()
    for _ in range(requests):
        record = scope.log_records.add(
            time_unix_nano=time.time_ns(), trace_id=bytes(15) + b"1", span_id=bytes(7) + b"1"
        )
        record.body.string_value = "[NORMAL MODE] Checkout SUCCESS after 127.83ms"
    return message.SerializeToString()


@dataclass(frozen=True)
class Limits:
    """Requests/s through the collector."""

    collector_requests: float


@dataclass(frozen=True)
class Growth:
    """Resident bytes and CPU (cores) of each process with so many services."""

    services: int
    resident: dict[str, int]
    cpu: dict[str, float]


def limits(stack: Stack) -> Limits:
    """Send as fast as is taken, and count what comes out at the other end until the queue is empty."""
    stack.traces.stop()
    sink = Sink(stack.traces.grpc_port)
    try:
        body = spans(random.Random(1), "bench", REQUESTS_PER_MESSAGE)
        start, sent = time.monotonic(), _flood(stack, "/v1/traces", body)
        # Batches repeat the resource less often than the messages did, so the bytes that arrive are a few fewer.
        wait_until(lambda: sink.bytes >= 0.97 * sent * len(body), "the queue is empty", 120)
        collector = sent * REQUESTS_PER_MESSAGE / (time.monotonic() - start)
    finally:
        sink.stop()
        stack.traces.start()
    return Limits(collector)


@dataclass(frozen=True)
class Saturation:
    """Native histogram samples/s that one ingestor takes, and three that keep each sample three times."""

    one: float
    three: float

    @property
    def ratio(self) -> float:
        return self.three / self.one


def saturation(stack: Stack) -> Saturation:
    """Send to a router as fast as is taken, with one ingestor behind it and with three; ``stack`` is not started yet."""
    stack.start("ingestor", "router")
    one = _flood_receive(stack)
    stack.stop("router")
    names = ["ingestor", "ingestor-1", "ingestor-2"]
    for name in names[1:]:
        table = {
            "--http-address": stack.address(name),
            "--grpc-address": stack.address(name, "grpc"),
            "--remote-write.address": stack.address(name, "write"),
            "--tsdb.path": str(stack.data(name)),
            "--receive.local-endpoint": stack.address(name, "grpc"),
            "--receive.capnproto-address": stack.address(name, "capnproto"),
            "--label": f'receive_replica="{name}"',
        }
        arguments = replace_flags(stack.thanos_arguments("ingestor"), table)
        command = [str(toolchain.tool("thanos")), *arguments]
        stack.processes.start(name, command, ready=f"{stack.url(name)}/-/ready")
    hashrings = stack.folder / "three.json"
    endpoints = [stack.address(name, "grpc") for name in names]
    hashrings.write_text(json.dumps([{"hashring": "default", "endpoints": endpoints}]))
    table = {"--receive.hashrings-file": str(hashrings), "--receive.replication-factor": str(len(names))}
    stack.changes["router"] = lambda arguments: replace_flags(arguments, table)
    stack.start("router")
    three = _flood_receive(stack)
    kept = [_appended(stack, name) for name in names]
    # The answer needs two of three; the third gets its copy all the same.
    assert min(kept[1:]) > 0.9 * max(kept[1:]) > 0, f"samples appended by {names}: {kept}"
    return Saturation(one, three)


def _appended(stack: Stack, name: str) -> float:
    text = HTTP.get(f"{stack.url(name)}/metrics").text
    pattern = r"^prometheus_tsdb_head_samples_appended_total\{[^}]*histogram[^}]*\} (\S+)$"
    return sum(map(float, re.findall(pattern, text, re.M)))


def _flood_receive(stack: Stack) -> float:
    """Return the samples/s that the router takes from ``SENDERS`` for ``SECONDS``; the messages are made beforehand."""
    url, headers = f"{stack.url('router', 'write')}/api/v1/otlp", {"Content-Type": "application/x-protobuf"}
    rng, started = random.Random(2), time.time()
    bodies = []
    for sender in range(SENDERS):
        services = [Service(f"flood-{started:.0f}-{sender}-{number}", "native", started) for number in range(200)]
        for service in services:
            service.observe(durations(rng, False, 50) + durations(rng, True, 50))
        made = []
        for number in range(MESSAGES):
            message, metrics = request(services)
            for service, metric in zip(services, metrics, strict=True):
                service.write(metric, started - 60 + 0.1 * number)
            made.append(message.SerializeToString())
        bodies.append(made)
    taken = [0] * SENDERS
    begin = time.monotonic()

    def send(sender: int) -> None:
        with httpx.Client(trust_env=False, timeout=60) as client:
            for body in bodies[sender]:
                if time.monotonic() > begin + SECONDS:
                    return
                client.post(url, content=body, headers=headers).raise_for_status()
                taken[sender] += 2 * 200

    with ThreadPoolExecutor(SENDERS) as pool:
        list(pool.map(send, range(SENDERS)))
    return sum(taken) / (time.monotonic() - begin)


def _flood(stack: Stack, path: str, body: bytes) -> int:
    """Send ``body`` again and again for ``SECONDS`` from four threads and return how often it was taken."""
    taken = [0] * 4
    end = time.monotonic() + SECONDS

    def one(number: int) -> None:
        with httpx.Client(trust_env=False, timeout=60) as client:
            while time.monotonic() < end:
                answer = client.post(
                    stack.url("collector", "otlp-http") + path,
                    content=body,
                    headers={"Content-Type": "application/x-protobuf"},
                )
                taken[number] += answer.status_code == 200

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(taken))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(taken)


def growth(stack: Stack, counts: tuple[int, ...] = (1, 10, 100)) -> list[Growth]:
    """Return memory and CPU with so many services, each at ``RATE`` requests/s with an export every second."""
    result = []
    stack.traces.stop()
    sink = Sink(stack.traces.grpc_port)
    try:
        for count in counts:
            before = _used(stack)
            start = time.monotonic()
            _simulate(stack, count)
            after, seconds = _used(stack), time.monotonic() - start
            result.append(
                Growth(
                    count,
                    {name: use.resident_bytes for name, use in after.items()},
                    {name: (use.cpu_seconds - before[name].cpu_seconds) / seconds for name, use in after.items()},
                )
            )
    finally:
        sink.stop()
        stack.traces.start()
    return result


def _used(stack: Stack) -> dict[str, Usage]:
    return {name: usage(stack.parts[name]) for name in PROCESSES if name in stack.parts}


def _simulate(stack: Stack, count: int) -> None:
    rng = random.Random(count)
    services = [Service(f"service-{count}-{number}", "native", time.time()) for number in range(count)]
    base = stack.url("collector", "otlp-http")
    headers = {"Content-Type": "application/x-protobuf"}
    traces = [spans(rng, service.name, RATE) for service in services]
    logs = [lines(service.name, RATE) for service in services]
    with httpx.Client(trust_env=False, timeout=60) as client:
        for second in range(SECONDS):
            began = time.monotonic()
            for service, span_body, log_body in zip(services, traces, logs, strict=True):
                service.observe(durations(rng, second % 4 == 3, RATE))
                message, (metric,) = request([service])
                service.write(metric, time.time())
                for path, body in (("metrics", message.SerializeToString()), ("traces", span_body), ("logs", log_body)):
                    client.post(f"{base}/v1/{path}", content=body, headers=headers).raise_for_status()
            time.sleep(max(0, began + 1 - time.monotonic()))
