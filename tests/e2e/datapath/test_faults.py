"""What breaks while shoppers shop: nothing that the simulator served may be missing afterwards."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.e2e.datapath import traffic
from tests.e2e.datapath.served import Request
from tests.e2e.datapath.stack import Stack
from tests.e2e.datapath.stores import TraceStore
from tests.e2e.datapath.traffic import SERVED
from tests.e2e.datapath.wiring import python_environment
from tests.e2e.processes import HTTP, LOOPBACK, NotReady, wait_until

OUTAGE_SECONDS = 60
QUEUED_BATCHES = 10  # of 3,000 traces and 1 MB


@pytest.fixture(autouse=True)
def whole_again(stack: Stack) -> Iterator[None]:
    """Every fault starts from and ends in a stack that counts exactly."""
    traffic.settle(stack)
    yield
    traffic.settle(stack)


def nothing_lost(stack: Stack, since: int, timeout: float = 60) -> list[Request]:
    """Assert that every request since the ``since``-th is counted, traced and logged, and return them."""
    traffic.settle(stack, timeout)  # the count in Thanos is the simulator's own

    def missing() -> bool:
        told = traffic.requests(stack)[since:]
        traces = [request for request in told if not traffic.has_trace(stack, request.trace_id)]
        assert not traces, f"{len(traces)} of {len(told)} requests have no trace: {traces[:3]}"
        lines = [request for request in told if not traffic.has_line(stack, request.trace_id)]
        assert not lines, f"{len(lines)} of {len(told)} requests have no log line: {lines[:3]}"
        return True

    wait_until(missing, "every trace and line is there", timeout, interval=1)
    return traffic.requests(stack)[since:]


def longest_gap(stack: Stack, start: float, end: float) -> float:
    """Return the longest time (seconds) without a sample of the simulator's request histogram."""
    (busiest,) = stack.query.instant(
        f'topk(1, histogram_count({SERVED}{{http_route="/checkout"}}))'.replace("}{", ","), end
    )
    labels = ",".join(f'{name}="{value}"' for name, value in busiest["metric"].items())
    (series,) = stack.query.instant(f"http_server_request_duration_seconds{{{labels}}}[{round(end - start)}s]", end)
    times = [start, *(float(time) for time, _ in series["histograms"]), end]
    return max(later - earlier for earlier, later in pairwise(times))


@pytest.mark.parametrize("part", ["collector", "ingestor"])
def test_killed_and_restarted(stack: Stack, part: str) -> None:
    since = len(traffic.requests(stack))
    load = traffic.load(stack, 12, 8)
    wait_until(lambda: len(traffic.requests(stack)) > since + 15, "the load is on")
    stack.kill(part)
    served = len(traffic.requests(stack))
    wait_until(lambda: len(traffic.requests(stack)) > served + 15, "the simulator serves on without it")
    stack.start(part)
    assert load.wait_end(60) == 0
    assert len(nothing_lost(stack, since)) > 30


def test_outage_of_receive_and_of_the_trace_store(stack: Stack) -> None:
    """Both are away for 60 s under load; what waits in the collector's queue then arrives, in order, and nothing is lost."""
    since, start = len(traffic.requests(stack)), time.time()
    load = traffic.load(stack, 8, OUTAGE_SECONDS)
    wait_until(lambda: len(traffic.requests(stack)) > since + 5, "the load is on")
    stack.stop("router", "ingestor")
    stack.traces.stop()
    assert load.wait_end(OUTAGE_SECONDS + 60) == 0
    stack.traces.start()
    stack.start("ingestor", "router")
    told = nothing_lost(stack, since, timeout=120)
    assert len(told) >= 200
    # Not only the totals: the samples that the SDK exported during the outage are there too.
    assert longest_gap(stack, start, time.time()) < OUTAGE_SECONDS / 4
    # What the collector said of itself meanwhile waited on disk too: the dashboard shows how its queue filled.
    queue = 'otelcol_exporter_queue_size{exporter="otlp_http/thanos"}'
    (reports,) = stack.query.instant(f"{queue}[{round(time.time() - start)}s]")
    assert max(float(size) for _, size in reports["values"]) > 0
    assert max(float(b) - float(a) for (a, _), (b, _) in pairwise(reports["values"])) < OUTAGE_SECONDS / 4
    assert float(reports["values"][-1][0]) - float(reports["values"][0][0]) > OUTAGE_SECONDS / 2


def test_a_full_queue_drains_into_the_trace_store_without_loss(stack: Stack) -> None:
    """More traces than are live at a time by Tempo's default, and more bytes than it takes in a second, arrive at once."""
    stack.traces.stop()
    if isinstance(stack.traces, TraceStore):
        told = stack.traces.limits  # a twentieth of the rate, so that a slow machine comes up against it too
        rate, burst = told.rate_limit_bytes // 20, told.burst_size_bytes // 20
        stack.traces.limits = replace(told, rate_limit_bytes=rate, burst_size_bytes=burst)
    now, sent = time.time_ns(), []
    for _ in range(QUEUED_BATCHES):
        request = ExportTraceServiceRequest()
        scope = request.resource_spans.add().scope_spans.add()
        for _ in range(3000):
            span = scope.spans.add(trace_id=os.urandom(16), span_id=os.urandom(8), name="queued", kind=2)
            span.start_time_unix_nano, span.end_time_unix_nano = now, now + 1_000_000
            span.attributes.add(key="padding").value.string_value = "x" * 300
            sent.append(span.trace_id.hex())
        answer = HTTP.post(
            f"{stack.url('collector', 'otlp-http')}/v1/traces",
            content=request.SerializeToString(),
            headers={"Content-Type": "application/x-protobuf"},
        )
        assert answer.status_code == 200, answer.text
    stack.traces.start()

    def missing() -> bool:
        lost = [trace_id for trace_id in sent[::10] if not traffic.has_trace(stack, trace_id)]
        assert not lost, f"{len(lost)} of {len(sent[::10])} traces are not there"
        return True

    wait_until(missing, "every trace is there", timeout=120, interval=2)
    if isinstance(stack.traces, TraceStore):
        assert stack.traces.refused, "the queue drained slower than the limit: this proves nothing"


def test_unwritable_queue_is_refused_at_start(stack: Stack, new_stack: Callable[[], Stack], tmp_path: Path) -> None:
    """A collector that cannot keep its queue says so and ends, instead of running without one."""
    folder = tmp_path / "queue"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):  # root writes anywhere but into the kernel's own file systems
        folder = Path("/proc/self")
    other = new_stack()

    def read_only(config: dict[str, Any]) -> dict[str, Any]:
        config["extensions"]["file_storage"]["directory"] = str(folder)
        return config

    other.changes["collector"] = read_only
    with pytest.raises(NotReady, match=r"collector ended with status [1-9]") as refused:
        other.start("collector")
    message = str(refused.value)
    assert str(folder) in message
    assert "file_storage" in message
    assert yaml.safe_load((other.folder / "collector.yaml").read_text())["extensions"]["file_storage"][
        "directory"
    ] == str(folder)


# Exports two spans, one after the other, and prints their traces.
_TWO_BATCHES = """
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
for number in range(2):
    span = provider.get_tracer("it").start_span("batch")
    span.end()
    print(format(span.get_span_context().trace_id, "032x"))
"""


@contextmanager
def falling_silent(target: str) -> Iterator[str]:
    """Yield host:port of a way to ``target`` where each connection has one answer, and then nobody at its other end."""
    with socket.create_server((LOOPBACK, 0)) as server:

        def carry(client: socket.socket) -> None:
            host, port = target.rsplit(":", 1)
            with client, socket.create_connection((host, int(port))) as there:
                answered = False
                while ready := select.select([client, there], [], [], 30)[0]:
                    for end in ready:
                        data = end.recv(65536)
                        if not data:
                            return
                        if end is there:
                            answered = True
                            client.sendall(data)
                        elif not answered:
                            there.sendall(data)

        def accept() -> None:
            with suppress(OSError):  # the server is closed
                while True:
                    threading.Thread(target=carry, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"{LOOPBACK}:{server.getsockname()[1]}"


@pytest.mark.parametrize("kept", [False, True], ids=["as baked", "on a kept connection"])
def test_a_collector_s_node_loses_its_power(stack: Stack, kept: bool) -> None:
    """The next batch takes another connection and arrives; on the one to the dead node the SDK would give it up."""
    python = python_environment(stack.declared) / "bin" / "python"
    with falling_silent(stack.address("collector", "otlp-http")) as way:
        baked = stack.baked_environment() | {"OTEL_EXPORTER_OTLP_TIMEOUT": "3"}
        baked["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{way}"
        if kept:
            del baked["OTEL_EXPORTER_OTLP_HEADERS"]
        told = subprocess.run(
            [python, "-c", _TWO_BATCHES], env=os.environ | baked, check=True, capture_output=True, text=True
        )
    first, second = told.stdout.split()
    wait_until(lambda: traffic.has_trace(stack, first), "the first batch arrives", 20)
    if kept:
        assert "Read timed out" in told.stderr
        assert not traffic.has_trace(stack, second)
    else:
        wait_until(lambda: traffic.has_trace(stack, second), "the second batch arrives", 20)
