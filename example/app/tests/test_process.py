"""The real thing: run.sh, opentelemetry-instrument, gunicorn, and a receiver for what it exports over OTLP/HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

APP = Path(__file__).parents[1]
DEADLINE_S = 60
REQUEST_TYPES: dict[str, type[Message]] = {
    "/v1/logs": ExportLogsServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/traces": ExportTraceServiceRequest,
}
QUICK = {
    "CHECKOUT_NORMAL_MIN_MS": "1",
    "CHECKOUT_NORMAL_MAX_MS": "2",
    "CHECKOUT_NORMAL_ERROR_RATE": "0",
    "CHECKOUT_PEAK_MIN_MS": "1",
    "CHECKOUT_PEAK_MAX_MS": "2",
    "CHECKOUT_PEAK_ERROR_RATE": "0",
}


class Receiver:
    """An OTLP/HTTP endpoint on loopback; `messages` holds what arrived, by path."""

    def __init__(self) -> None:
        self.messages: dict[str, list[Any]] = {path: [] for path in REQUEST_TYPES}
        messages = self.messages

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # noqa: N802
                body = self.rfile.read(int(self.headers["Content-Length"]))
                messages[self.path].append(REQUEST_TYPES[self.path].FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Service:
    """A running simulator; `stop` returns what it printed."""

    def __init__(self, **env: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = ("127.0.0.1", port)
        self.url = f"http://127.0.0.1:{port}"
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "CHECKOUT_"))}
        # The programs of this interpreter's environment, whether or not it is activated.
        clean["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"
        self._process = subprocess.Popen(
            [APP / "run.sh"],
            env={**clean, **env, "PORT": str(port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                self.get("/readyz")
            except urllib.error.URLError:
                time.sleep(0.05)
            else:
                return
        pytest.fail(f"the simulator did not start:\n{self.stop()}")

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        try:
            response = urllib.request.urlopen(self.url + path, timeout=DEADLINE_S)  # noqa: S310 (a URL of our own)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            return response.status, json.load(response)

    def wait(self) -> tuple[int, str]:
        """Exit code and output of a process that ends by itself."""
        output, _ = self._process.communicate(timeout=DEADLINE_S)
        return self._process.returncode, output

    def stop(self) -> str:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self.wait()[1]


@pytest.fixture
def start() -> Iterator[Callable[..., Service]]:
    services = []

    def make(**env: str) -> Service:
        services.append(Service(**env))
        return services[-1]

    yield make
    for service in services:
        if service._process.poll() is None:
            service._process.kill()
            service.wait()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def _attributes(item: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in item.attributes}


def _histogram_points(messages: list[Any], kind: str) -> list[Any]:
    return [
        point
        for message in messages
        for resource in message.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "http.server.request.duration" and metric.WhichOneof("data") == kind
        for point in getattr(metric, kind).data_points
    ]


@pytest.mark.parametrize(
    ("aggregation", "kind"),
    [
        ("base2_exponential_bucket_histogram", "exponential_histogram"),
        ("explicit_bucket_histogram", "histogram"),
    ],
)
def test_it_exports_all_three_signals_of_a_request(
    start: Callable[..., Service], receiver: Receiver, aggregation: str, kind: str
) -> None:
    service = start(
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION=aggregation,
        **QUICK,
    )
    service.wait_until_ready()
    checkout_status, checkout = service.get("/checkout")
    failed_status, failed = service.get("/unstable?delay_ms=1&error_rate=1")
    output = service.stop()  # everything is flushed on the way out
    assert (checkout_status, failed_status) == (200, 500)

    expected = {("/checkout", 200): checkout["trace_id"], ("/unstable", 500): failed["trace_id"]}
    points = {}
    for point in _histogram_points(receiver.messages["/v1/metrics"], kind):
        attributes = _attributes(point)
        points[attributes["http.route"], attributes["http.response.status_code"]] = point
    assert {key: point.count for key, point in points.items()} == dict.fromkeys(expected, 1)
    assert {key: [e.trace_id.hex() for e in point.exemplars] for key, point in points.items()} == {
        key: [trace_id] for key, trace_id in expected.items()
    }

    resources = [resource for message in receiver.messages["/v1/traces"] for resource in message.resource_spans]
    assert {_attributes(resource.resource)["service.name"] for resource in resources} == {"checkout"}
    spans = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    names = [span.name for span in spans if span.trace_id.hex() == checkout["trace_id"]]
    assert sorted(names) == ["GET /checkout", "charge payment", "reserve stock", "validate cart"]
    assert {span.trace_id.hex() for span in spans} == set(expected.values())  # the probe left none

    records = {
        record.trace_id.hex(): record
        for message in receiver.messages["/v1/logs"]
        for resource in message.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
        if record.trace_id
    }
    line = f"[{checkout['mode'].upper()} MODE] Checkout SUCCESS after {checkout['duration_ms']:.2f}ms"
    assert records[checkout["trace_id"]].body.string_value == line
    assert _attributes(records[checkout["trace_id"]])["checkout.outcome"] == "success"
    assert records[failed["trace_id"]].severity_text == "ERROR"

    printed = [text for text in output.splitlines() if "trace_id=" in text]
    assert len(printed) == 2  # one line a request
    ids = f"trace_id={checkout['trace_id']} span_id={records[checkout['trace_id']].span_id.hex()}"
    assert printed[0].endswith(f"{ids} {line}")
    # The ids are fields of the record, and no attributes beside them.
    exported = {name for record in records.values() for name in _attributes(record)}
    assert not [name for name in exported if name.startswith("otel")], exported


def test_a_charge_is_in_the_trace_of_its_checkout(start: Callable[..., Service], receiver: Receiver) -> None:
    payment = start(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_SERVICE_NAME="payment")
    checkout = start(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, CHECKOUT_PAYMENT_URL=payment.url, **QUICK)
    for service in (payment, checkout):
        service.wait_until_ready()
    _, body = checkout.get("/checkout")
    output = {"checkout": checkout.stop(), "payment": payment.stop()}

    found = [
        (_attributes(resource.resource)["service.name"], span.name)
        for message in receiver.messages["/v1/traces"]
        for resource in message.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
        if span.trace_id.hex() == body["trace_id"]
    ]
    steps = ["GET /checkout", "POST", "charge payment", "reserve stock", "validate cart"]
    expected = {"checkout": steps, "payment": ["POST /charge", "authorize card"]}
    assert sorted(found) == sorted((service, name) for service, names in expected.items() for name in names)
    for name, printed in output.items():
        assert printed.count(f"trace_id={body['trace_id']}") == 1, name


def test_without_an_endpoint_it_is_quiet_and_still_has_trace_ids(start: Callable[..., Service]) -> None:
    service = start(**QUICK)
    service.wait_until_ready()
    _, body = service.get("/checkout")
    output = service.stop()
    assert len(body["trace_id"]) == 32
    assert output.count(body["trace_id"]) == 1
    assert "Traceback" not in output and "WARNING" not in output and "Exporter" not in output


def test_bad_settings_stop_the_start_with_the_reason_alone(start: Callable[..., Service]) -> None:
    code, output = start(CHECKOUT_PEAK_ERROR_RATE="70%", CHECKOUT_SEED="abc").wait()
    assert code != 0
    assert "CHECKOUT_PEAK_ERROR_RATE='70%' is not a number" in output
    assert "CHECKOUT_SEED='abc' is not a whole number" in output
    assert "Traceback" not in output


def test_it_leaves_an_idle_connection_open(start: Callable[..., Service]) -> None:
    """Gunicorn's own 2 s are shorter than any client's: its next request would meet a closed connection."""
    service = start(**QUICK)
    service.wait_until_ready()
    with socket.create_connection(service.address, timeout=DEADLINE_S) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: app\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.settimeout(3)
        with pytest.raises(TimeoutError):  # nothing comes, not even the end of the stream
            while connection.recv(65536):
                pass
            pytest.fail("the simulator closed the connection")
