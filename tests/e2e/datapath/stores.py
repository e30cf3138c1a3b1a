"""Stand-ins for Tempo and Loki: OTLP receivers that keep what they get and answer the HTTP calls that the platform uses.

Both run inside the test session, can be stopped and started again on the same ports, and keep their content meanwhile, as
the real ones do on their volumes. They speak only what is documented here and refuse everything else, so that a query
which the real store would reject does not pass by accident.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import Any, NoReturn
from urllib.parse import parse_qs, urlsplit

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus
from grpc_status import rpc_status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.e2e.processes import LOOPBACK, free_port


class Refused(Exception):
    """The request is answered with ``status`` and this text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class HttpService:
    """A small HTTP server that can be stopped and started again on the same port."""

    listen = LOOPBACK

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self._server: ThreadingHTTPServer | None = None

    def get(self, path: str, query: dict[str, str]) -> object:
        """Return a JSON-able answer or text.

        Raises:
            Refused: the request cannot be answered.
        """
        raise Refused(404, "not found")

    def post(self, path: str, body: bytes, content_type: str) -> bytes:
        """Take a body and return the answer's body."""
        raise Refused(404, "not found")

    def start(self) -> None:
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = {key: values[0] for key, values in parse_qs(parts.query).items()}
                self._answer(lambda: service.get(parts.path, query))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                self._answer(lambda: service.post(urlsplit(self.path).path, body, self.headers.get("Content-Type", "")))

            def _answer(self, make: Callable[[], object]) -> None:
                answer: object
                try:
                    status, answer = 200, make()
                except Refused as error:
                    status, answer = error.status, str(error)
                if isinstance(answer, bytes):
                    kind, body = "application/x-protobuf", answer
                elif isinstance(answer, str):
                    kind, body = "text/plain; charset=utf-8", answer.encode()
                else:
                    kind, body = "application/json", json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        ThreadingHTTPServer.daemon_threads = True
        self._server = ThreadingHTTPServer((self.listen, self.port), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def plain(value: AnyValue) -> str:
    """Return an attribute's value as text, as the stores do for labels."""
    kind = value.WhichOneof("value")
    if kind is None:
        return ""
    content = getattr(value, kind)
    return str(content).lower() if kind == "bool_value" else str(content)


def attributes(pairs: Iterable[KeyValue]) -> dict[str, str]:
    return {pair.key: plain(pair.value) for pair in pairs}


@dataclass
class TraceLimits:
    """What Tempo takes, with Tempo 2.10's defaults: bytes a second, bytes at once, live traces at a time (0: any number).

    ``retry_after`` is what a refusal says about trying again, in seconds; 0 says nothing, which an exporter takes for final.
    """

    rate_limit_bytes: float = 15_000_000
    burst_size_bytes: float = 20_000_000
    max_traces_per_user: float = 10_000
    retry_after: float = 0


# Seconds without a new span after which Tempo no longer counts a trace as live.
LIVE_SECONDS = 5


class TraceStore(HttpService, TraceServiceServicer):
    """Tempo's stand-in: OTLP/gRPC in; ``GET /ready``, ``/api/traces/<id>`` and ``/api/search`` out.

    It refuses as Tempo does: above the rate a batch gets RESOURCE_EXHAUSTED; above the number of live traces the spans of
    further ones are dropped, and the sender hears of no error.

    ``/api/search`` takes ``q`` as one TraceQL span set of comparisons joined by ``&&``, or in brackets by ``||``:
    ``resource.x``, ``span.x``, ``.x`` or the intrinsics ``name``, ``kind``, ``status`` and ``trace:id``, with ``=`` or
    ``!=`` and a quoted string or a bare word, and ``duration > 1s`` or ``ms``. Tempo returns any ``limit`` matches, not
    the newest, unless the query ends with ``with (most_recent=true)``; this one returns the oldest, so that a search
    which needs the newest cannot pass without.
    """

    def __init__(self) -> None:
        super().__init__()
        self.grpc_port = free_port()
        self._grpc: grpc.Server | None = None
        self._lock = threading.Lock()
        self._traces: dict[str, dict[str, tuple[Resource, InstrumentationScope, Span]]] = defaultdict(dict)
        self.limits = TraceLimits()
        self.refused = 0
        self._live: dict[str, float] = {}
        self._room, self._filled = float(self.limits.burst_size_bytes), monotonic()

    def start(self) -> None:
        self._grpc = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        add_TraceServiceServicer_to_server(self, self._grpc)
        self._grpc.add_insecure_port(f"{self.listen}:{self.grpc_port}")
        self._grpc.start()
        super().start()

    def stop(self) -> None:
        super().stop()
        if self._grpc:
            self._grpc.stop(grace=None).wait()
            self._grpc = None

    @contextmanager
    def forgotten(self) -> Iterator[None]:
        """Run the block without the traces of before it; afterwards they are back."""
        with self._lock:
            kept, self._traces = self._traces, defaultdict(dict)
        try:
            yield
        finally:
            with self._lock:
                for trace_id, spans in kept.items():
                    self._traces[trace_id].update(spans)

    def _takes(self, size: int) -> bool:
        now = monotonic()
        self._room += (now - self._filled) * self.limits.rate_limit_bytes
        self._room, self._filled = min(self._room, self.limits.burst_size_bytes), now
        if size > self._room:
            return False
        self._room -= size
        return True

    def _is_live(self, trace_id: str) -> bool:
        now = monotonic()
        limit = self.limits.max_traces_per_user
        if trace_id not in self._live and limit and len(self._live) >= limit:
            self._live = {key: seen for key, seen in self._live.items() if now - seen < LIVE_SECONDS}
            if len(self._live) >= limit:
                return False
        self._live[trace_id] = now
        return True

    def _refuse(self, context: grpc.ServicerContext) -> NoReturn:
        status = RpcStatus(
            code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message="RATE_LIMITED: ingestion rate limit"
        )
        if self.limits.retry_after:
            delay = Duration()
            delay.FromMilliseconds(int(self.limits.retry_after * 1000))
            detail = any_pb2.Any()
            detail.Pack(RetryInfo(retry_delay=delay))
            status.details.append(detail)
        context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError("abort_with_status raises")

    def Export(self, request: ExportTraceServiceRequest, context: grpc.ServicerContext) -> ExportTraceServiceResponse:
        with self._lock:
            takes = self._takes(request.ByteSize())
            self.refused += not takes
        if not takes:
            self._refuse(context)
        self.keep(request)
        return ExportTraceServiceResponse()

    def keep(self, request: ExportTraceServiceRequest) -> None:
        """Take over the spans of a request."""
        with self._lock:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        if not self._is_live(span.trace_id.hex()):
                            continue
                        # A resent batch brings the same span again: the id keeps it one.
                        self._traces[span.trace_id.hex()][span.span_id.hex()] = (resource.resource, scope.scope, span)

    def get(self, path: str, query: dict[str, str]) -> object:
        if path == "/ready":
            return "ready"
        if path == "/api/echo":
            return "echo"
        if path == "/api/search":
            return {"traces": self._search(query)}
        if asked := re.fullmatch(r"/api/traces/([0-9a-f]{1,32})", path):
            return self._trace(asked[1].zfill(32))
        raise Refused(404, f"{path} not found")

    def content(self) -> list[list[tuple[Resource, Span]]]:
        """Return the spans of each trace, with the resource that each belongs to."""
        with self._lock:
            return [[(resource, span) for resource, _, span in spans.values()] for spans in self._traces.values()]

    def _trace(self, trace_id: str) -> dict[str, Any]:
        with self._lock:
            spans = list(self._traces.get(trace_id, {}).values())
        if not spans:
            raise Refused(404, "trace not found")
        return {
            "batches": [
                {
                    "resource": MessageToDict(resource),
                    "scopeSpans": [{"scope": MessageToDict(scope), "spans": [MessageToDict(span)]}],
                }
                for resource, scope, span in spans
            ]
        }

    def _search(self, query: dict[str, str]) -> list[dict[str, Any]]:
        text, most_recent = _hints(query.get("q", "{}"))
        wanted = _span_set(text)
        start, end = int(query.get("start", 0)) * 10**9, int(query.get("end", 1 << 33)) * 10**9
        matches: list[dict[str, Any]] = []
        with self._lock:
            traces = [(trace_id, list(spans.values())) for trace_id, spans in self._traces.items()]
        for trace_id, spans in traces:
            matching = [
                span
                for resource, _, span in spans
                if all(any(_matches(each, resource, span) for each in either) for either in wanted)
            ]
            if not matching or not start <= min(span.start_time_unix_nano for span in matching) <= end:
                continue
            root = next(((res, span) for res, _, span in spans if not span.parent_span_id), (spans[0][0], spans[0][2]))
            matches.append(
                {
                    "traceID": trace_id,
                    "rootServiceName": attributes(root[0].attributes).get("service.name", ""),
                    "rootTraceName": root[1].name,
                    "startTimeUnixNano": str(root[1].start_time_unix_nano),
                    "durationMs": (root[1].end_time_unix_nano - root[1].start_time_unix_nano) // 10**6,
                }
            )
        matches.sort(key=lambda trace: int(trace["startTimeUnixNano"]), reverse=most_recent)
        return matches[: int(query.get("limit", 20))]


def _hints(text: str) -> tuple[str, bool]:
    """Return a query without its hints, and whether they ask for the newest traces."""
    query, _, hints = text.partition(" with ")
    if hints.strip() not in ("", "(most_recent=true)"):
        raise Refused(400, f"not a hint that this stand-in knows: {hints}")
    return query, bool(hints)


_COMPARISON = re.compile(r"\s*([\w.:]+)\s*(!?=|>)\s*(?:\"([^\"]*)\"|([\w.]+))\s*")


Comparison = tuple[str, str, str]


def _span_set(text: str) -> list[list[Comparison]]:
    """Return what all has to hold, each as what any of may hold."""
    inner = re.fullmatch(r"\s*\{(.*)\}\s*", text)
    if not inner:
        raise Refused(400, f"not a span set that this stand-in knows: {text}")
    return [
        [_comparison(each) for each in re.sub(r"^\s*\((.*)\)\s*$", r"\1", part).split("||")]
        for part in filter(str.strip, inner[1].split("&&"))
    ]


def _comparison(text: str) -> Comparison:
    comparison = _COMPARISON.fullmatch(text)
    if not comparison:
        raise Refused(400, f"not a comparison that this stand-in knows: {text}")
    field, operator, quoted, bare = comparison.groups()
    return field, operator, bare if quoted is None else quoted


def _matches(wanted: Comparison, resource: Resource, span: Span) -> bool:
    field, operator, value = wanted
    of_resource, of_span = attributes(resource.attributes), attributes(span.attributes)
    if field == "duration" and operator == ">" and (limit := re.fullmatch(r"([\d.]+)(m?s)", value)):
        unit = 10**6 if limit[2] == "ms" else 10**9
        return span.end_time_unix_nano - span.start_time_unix_nano > float(limit[1]) * unit
    if operator == ">":
        raise Refused(400, f"not a comparison that this stand-in knows: {field} > {value}")
    actual: str | None
    if field == "name":
        actual = span.name
    elif field == "kind":
        actual = Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower()
    elif field == "status":
        actual = Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_").lower()
    elif field == "trace:id":
        actual = span.trace_id.hex()
    elif field.startswith("resource."):
        actual = of_resource.get(field.removeprefix("resource."))
    elif field.startswith("span."):
        actual = of_span.get(field.removeprefix("span."))
    elif field.startswith("."):
        actual = of_span.get(field[1:], of_resource.get(field[1:]))
    else:
        raise Refused(400, f"unknown field {field}")
    return (actual == value) == (operator == "=")


# Loki makes stream labels of these resource attributes and keeps everything else as structured metadata.
INDEXED = (
    "service.name",
    "service.namespace",
    "service.instance.id",
    "deployment.environment.name",
    "k8s.namespace.name",
)


class LogStore(HttpService):
    """Loki's stand-in: ``POST /otlp/v1/logs`` in; ``GET /ready`` and ``/loki/api/v1/query_range`` out.

    Queries are a stream selector of ``=`` matchers, then any of ``| label = "value"``, ``| label =~ "regex"``,
    ``|= "text"`` and ``|~ "regex"``; or ``sum by (label) (count_over_time(query [range]))``, counted once, up to the end.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._lines: list[tuple[int, str, dict[str, str]]] = []
        self.keep_trace_ids = True

    def post(self, path: str, body: bytes, content_type: str) -> bytes:
        if path != "/otlp/v1/logs":
            raise Refused(404, f"{path} not found")
        if content_type != "application/x-protobuf":
            raise Refused(415, f"unsupported content type {content_type}")
        try:
            request = ExportLogsServiceRequest.FromString(body)
        except DecodeError as error:
            raise Refused(400, str(error)) from error
        with self._lock:
            for resource in request.resource_logs:
                of_resource = {k.replace(".", "_"): v for k, v in attributes(resource.resource.attributes).items()}
                for scope in resource.scope_logs:
                    for record in scope.log_records:
                        labels = of_resource | {
                            k.replace(".", "_"): v for k, v in attributes(record.attributes).items()
                        }
                        labels["severity_text"] = record.severity_text
                        if record.trace_id and self.keep_trace_ids:
                            labels |= {"trace_id": record.trace_id.hex(), "span_id": record.span_id.hex()}
                        time = record.time_unix_nano or record.observed_time_unix_nano
                        self._lines.append((time, plain(record.body), labels))
        return ExportLogsServiceResponse().SerializeToString()

    def get(self, path: str, query: dict[str, str]) -> object:
        if path == "/ready":
            return "ready"
        if path != "/loki/api/v1/query_range":
            raise Refused(404, f"{path} not found")
        counted = _COUNT.fullmatch(query.get("query", ""))
        selector, filters = _log_query(counted["query"] if counted else query.get("query", ""))
        start, end = int(query.get("start", 0)), int(query.get("end", 1 << 62))
        with self._lock:
            lines = list(self._lines)
        streams: dict[str, dict[str, Any]] = {}
        kept = sorted(
            (
                entry
                for entry in lines
                if start <= entry[0] <= end
                and all(entry[2].get(name) == value for name, value in selector)
                and all(keep(entry[1], entry[2]) for keep in filters)
            ),
            key=lambda entry: entry[0],
            reverse=query.get("direction", "backward") == "backward",
        )
        if counted:
            counts = Counter(labels.get(counted["label"], "") for _, _, labels in kept)
            series = [
                {"metric": {counted["label"]: value}, "values": [[end / 1e9, str(count)]]}
                for value, count in counts.items()
            ]
            return {"status": "success", "data": {"resultType": "matrix", "result": series}}
        for time, line, labels in kept[: int(query.get("limit", 100))]:
            key = json.dumps(labels, sort_keys=True)
            streams.setdefault(key, {"stream": labels, "values": []})["values"].append([str(time), line])
        return {"status": "success", "data": {"resultType": "streams", "result": list(streams.values())}}


_COUNT = re.compile(r"sum by \((?P<label>\w+)\) \(count_over_time\((?P<query>.*) \[\d+ms\]\)\)")
_SELECTOR = re.compile(r"\s*\{([^}]*)\}")
_MATCHER = re.compile(r"\s*(\w+)\s*=\s*\"([^\"]*)\"\s*")
_STAGE = re.compile(r"\s*(?:\|\s*(?P<label>\w+)\s*(?P<how>=~?)|\|(?P<line>[=~]))\s*\"(?P<value>[^\"]*)\"\s*")


Filter = Callable[[str, Mapping[str, str]], object]


def _log_query(text: str) -> tuple[list[tuple[str, str]], list[Filter]]:
    """Return what a query's stream selector wants of labels, and a check of line and labels for each stage after it."""
    head = _SELECTOR.match(text)
    if not head:
        raise Refused(400, f"parse error: no stream selector in {text!r}")
    selector = []
    for part in head[1].split(","):
        matcher = _MATCHER.fullmatch(part)
        if not matcher:
            raise Refused(400, f"parse error: not a matcher that this stand-in knows: {part!r}")
        if matcher[1] not in {name.replace(".", "_") for name in INDEXED}:
            raise Refused(400, f"{matcher[1]} is structured metadata in Loki, not a stream label")
        selector.append((matcher[1], matcher[2]))
    filters, at = [], head.end()
    while at < len(text):
        stage = _STAGE.match(text, at)
        if not stage:
            raise Refused(400, f"parse error: not a stage that this stand-in knows: {text[at:]!r}")
        filters.append(_filter(stage))
        at = stage.end()
    return selector, filters


def _filter(stage: re.Match[str]) -> Filter:
    wanted = stage["value"]
    if stage["line"] == "=":
        return lambda line, _labels: wanted in line
    if stage["line"] == "~":
        return lambda line, _labels: re.search(wanted, line)
    name, pattern = stage["label"], wanted if stage["how"] == "=~" else re.escape(wanted)
    return lambda _line, labels: re.fullmatch(pattern, labels.get(name, ""))
