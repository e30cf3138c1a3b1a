"""The evidence that checks share: addresses, HTTP, and what the backends say."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from .answers import (
    ExemplarsAnswer,
    LogsAnswer,
    QueryAnswer,
    SearchAnswer,
    Span,
    StoresAnswer,
    TraceAnswer,
)
from .cluster import Cluster
from .model import MissingError, UnexpectedAnswerError, UnreachableError
from .names import METRIC, SPAN_LABEL, TRACE_LABEL
from .repository import Repository

Shape = TypeVar("Shape")


class Target(NamedTuple):
    """Where a backend is in the cluster: its workload, as its folder describes it, and what to forward a port of."""

    workload: str
    resource: str
    port: int


TARGETS = {
    "collector": Target("otel-collector", "statefulset/otel-collector", 13133),
    "router": Target("thanos-receive-router", "deployment/thanos-receive-router", 10902),
    "receive": Target("thanos-receive-ingestor", "statefulset/thanos-receive-ingestor", 10902),
    "query": Target("thanos-query", "service/thanos-query", 10902),
    "tempo": Target("tempo", "service/tempo", 3200),
    "loki": Target("loki", "service/loki", 3100),
    "grafana": Target("grafana", "service/grafana", 80),
    "alertmanager": Target("alertmanager", "service/alertmanager", 9093),
}


class Exemplar(NamedTuple):
    """One exemplar: its labels, its value in seconds, and its Unix time in seconds."""

    labels: dict[str, str]
    value: float
    time: float

    @property
    def trace_id(self) -> str:
        """Return the id of its trace ("" without one)."""
        return self.labels.get(TRACE_LABEL, "")

    @property
    def span_id(self) -> str:
        """Return the id of its span ("" without one)."""
        return self.labels.get(SPAN_LABEL, "")


@dataclass
class Context:
    """What the checks may look at.

    ``urls`` are given addresses; where one is not given and ``cluster`` is set, a port is forwarded on first use.
    ``since`` and ``max_age`` are seconds: how far back to look, and how old the newest sample may be. ``settle`` is how
    long (seconds) a trace and its log line may take to arrive.
    """

    repository: Repository
    urls: Mapping[str, str] = field(default_factory=dict)
    cluster: Cluster | None = None
    service: str = ""
    app_namespace: str | None = None
    since: float = 3600
    max_age: float = 120
    settle: float = 15
    timeout: float = 5
    test_page: bool = False
    grafana_auth: tuple[str, str] | None = None
    grafana_token: str | None = None
    transport: httpx.BaseTransport | None = None
    _forwarded: dict[str, str] = field(default_factory=dict)
    _no_cluster: str = ""

    def leave_cluster(self, reason: str) -> None:
        """Look at the cluster no more; what would have needed it is skipped for this reason."""
        self.cluster, self._no_cluster = None, reason

    def no_cluster(self) -> MissingError:
        """Return that there is no cluster to look at, and why."""
        return MissingError(self._no_cluster or "addresses were given")

    def no_way_to(self, *backends: str) -> MissingError:
        """Return that none of these backends can be looked at, and why."""
        return MissingError(self._no_cluster or f"no {' or '.join(f'--{name}-url' for name in backends)} was given")

    @cached_property
    def http(self) -> httpx.Client:
        """Return the client of all requests; it uses no proxy, because forwarded ports are on this machine."""
        return httpx.Client(timeout=self.timeout, transport=self.transport, trust_env=False, follow_redirects=True)

    @property
    def namespace(self) -> str:
        """Return the app's namespace."""
        return self.app_namespace or self.workload.get("namespace") or self.service

    @property
    def workload(self) -> dict[str, Any]:
        """Return the pods of the app as its folder describes them; empty where no folder knows it."""
        facts = self.repository.facts
        name = facts.get("apps", {}).get(self.service, {}).get("workload")
        workload: dict[str, Any] = facts.get("workloads", {}).get(name, {})
        return workload

    def of(self, service: str) -> Context:
        """Return the same view of another app."""
        other = replace(self, service=service)
        other.__dict__["http"] = self.http
        return other

    @property
    def selector(self) -> str:
        """Return the selector of the app's histogram."""
        return f'{METRIC}{{service_name="{self.service}"}}'

    def url(self, backend: str) -> str:
        """Return the base URL of a backend.

        Raises:
            MissingError: none was given, and there is no cluster to forward it from, or no folder describes it.
            UnreachableError: the port could not be forwarded.
        """
        if backend in self.urls:
            return self.urls[backend].rstrip("/")
        if not self.cluster:
            raise self.no_way_to(backend)
        if backend not in self._forwarded:
            target, namespace = TARGETS[backend], self.home(backend)
            if not namespace:
                raise MissingError(f"no platform.yaml describes the workload {target.workload}")
            try:
                self._forwarded[backend] = self.cluster.forward(namespace, target.resource, target.port)
            except UnreachableError as error:
                raise UnreachableError(backend, str(error)) from None
        return self._forwarded[backend]

    def reaches(self, backend: str) -> bool:
        """Return whether there is a way to a backend; says nothing about whether it answers."""
        return backend in self.urls or bool(self.cluster and self.home(backend))

    def home(self, backend: str) -> str:
        """Return the namespace of a backend ("" where no folder describes it: it is not part of the platform)."""
        workloads = self.repository.facts.get("workloads", {})
        return str(workloads.get(TARGETS[backend].workload, {}).get("namespace", ""))

    def get(self, backend: str, path: str, allow: tuple[int, ...] = (), **params: str | float) -> httpx.Response:
        """GET a backend's path; any status but 200 and those of ``allow`` is an error.

        Raises:
            MissingError: as ``url``.
            UnreachableError: no answer, or another status.
        """
        headers = {"Accept": "application/json"} if path != "/metrics" else {}
        return self._ask(backend, "GET", path, allow, headers, params=params)

    def post(self, backend: str, path: str, content: object) -> httpx.Response:
        """POST JSON; errors as ``get``."""
        return self._ask(backend, "POST", path, (), {}, json=content)

    def _ask(
        self, backend: str, method: str, path: str, allow: tuple[int, ...], headers: dict[str, str], **more: Any
    ) -> httpx.Response:
        base = self.url(backend)
        auth = self.grafana_auth if backend == "grafana" else None
        if backend == "grafana" and self.grafana_token:
            auth, headers = None, {**headers, "Authorization": f"Bearer {self.grafana_token}"}
        try:
            answer = self.http.request(method, base + path, headers=headers, auth=auth, **more)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UnreachableError(
                backend, f"{backend} at {_shown(base)}: {str(error) or type(error).__name__}"
            ) from None
        if answer.status_code != 200 and answer.status_code not in allow:
            raise UnreachableError(backend, f"{backend} at {_shown(base)}: {method} {path} says {answer.status_code}")
        return answer

    def json(self, backend: str, path: str, shape: type[Shape], **params: str | float) -> Shape:
        """GET and decode JSON of a shape (of ``answers``).

        Raises:
            MissingError: as ``url``.
            UnreachableError: as ``get``.
            UnexpectedAnswerError: the answer is no JSON, or of another shape.
        """
        return decoded(backend, path, shape, self.get(backend, path, (), **params))

    # Thanos Query -------------------------------------------------------------------------------------------------

    def query(self, expr: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Evaluate an expression now and return value by label set (without the metric's name)."""
        answer = self.json("query", "/api/v1/query", QueryAnswer, query=expr)
        return {
            tuple(sorted((k, v) for k, v in series.metric.items() if k != "__name__")): float(series.value[1])
            for series in answer.data.result
            if series.value
        }

    def number(self, expr: str) -> float | None:
        """Evaluate an expression to its first value; None where it has none."""
        return next(iter(self.query(expr).values()), None)

    def by(self, label: str, expr: str) -> dict[str, float]:
        """Evaluate an expression and return its values by one label."""
        return {dict(labels).get(label, ""): value for labels, value in self.query(expr).items()}

    def age(self, selector: str) -> float | None:
        """Return the age in seconds of the newest sample of some series; None where the last 5 minutes have none."""
        return self.number(f"time() - max(timestamp({selector}))")

    def fresh(self, selector: str) -> bool:
        """Return whether some series have a sample that is not older than ``max_age``."""
        age = self.age(selector)
        return age is not None and age <= self.max_age

    @cached_property
    def stores(self) -> list[dict[str, Any]]:
        """Return the ingestors that Query knows, each with its last error."""
        return self.json("query", "/api/v1/stores", StoresAnswer).data.get("receive") or []

    @cached_property
    def exemplars(self) -> list[Exemplar]:
        """Return the app's exemplars, the newest first."""
        now = time.time()
        window = {"start": now - self.since, "end": now + 1}
        answer = self.json("query", "/api/v1/query_exemplars", ExemplarsAnswer, query=self.selector, **window)
        exemplars = [
            Exemplar(exemplar.labels, exemplar.value, exemplar.timestamp)
            for series in answer.data or []
            for exemplar in series.exemplars
        ]
        return sorted(exemplars, key=lambda exemplar: -exemplar.time)

    # Receive ------------------------------------------------------------------------------------------------------

    @cached_property
    def receive_problem(self) -> str:
        """Return why the write path of the metrics cannot work ("" where it can, or cannot be looked at)."""
        try:
            for backend in ("router", "receive"):
                if self.reaches(backend):
                    self.get(backend, "/-/ready")
        except UnreachableError as error:
            return str(error)
        return ""

    def ingestor_metric(self, name: str, fold: Callable[[list[float]], float] = sum) -> float | None:
        """Return a metric of the ingestors, ``sum`` or ``min`` over them and their tenants; None where it has none."""
        if self.reaches("receive"):
            lines = self.get("receive", "/metrics").text.splitlines()
            values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
            return fold(values) if values else None
        try:
            # The Ruler has a TSDB, and so these metrics, too.
            return self.number(f'{fold.__name__}({name}{{job="thanos-receive-ingestor"}})')
        except UnreachableError as error:
            raise MissingError(
                f"the ingestors' metrics are read through Query, which does not answer: {error}"
            ) from None

    # Traces and logs ----------------------------------------------------------------------------------------------

    def recent_traces(self, seconds: float) -> int:
        """Return how many of the app's traces of the last ``seconds`` Tempo finds (it stops at 1)."""
        now = time.time()
        answer = self.json(
            "tempo",
            "/api/search",
            SearchAnswer,
            q=f'{{resource.service.name="{self.service}"}}',
            limit=1,
            start=int(now - seconds),
            end=int(now) + 1,
        )
        return len(answer.traces or [])

    def spans(self, trace_id: str) -> dict[str, Span] | None:
        """Return the spans of a trace by hexadecimal id; None where Tempo does not have it."""
        path = f"/api/traces/{trace_id}"
        answer = self.get("tempo", path, allow=(404,))
        if answer.status_code == 404:
            return None
        content = decoded("tempo", path, TraceAnswer, answer)
        trace = content.trace or content
        return {
            hexadecimal(span.spanId): span
            for resource in trace.batches or trace.resourceSpans or []
            for scope in resource.scopeSpans
            for span in scope.spans
        }

    def log_lines(self, query: str, start: float, limit: int = 20) -> list[str]:
        """Return the newest lines of a LogQL query since ``start`` (Unix time in seconds)."""
        answer = self.json(
            "loki",
            "/loki/api/v1/query_range",
            LogsAnswer,
            query=query,
            start=int(start * 1e9),
            end=int(time.time() * 1e9),
            limit=limit,
        )
        return [str(line) for stream in answer.data.result for _, line, *_ in stream.values]


def decoded(backend: str, path: str, shape: type[Shape], answer: httpx.Response) -> Shape:
    """Return an answer's JSON in a shape.

    Raises:
        UnexpectedAnswerError: it is no JSON, or of another shape.
    """
    try:
        return TypeAdapter(shape).validate_json(answer.content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise UnexpectedAnswerError(f"{backend}: GET {path}: {place + ': ' if place else ''}{first['msg']}") from None


def hexadecimal(identifier: str) -> str:
    """Return a trace or span id in hexadecimal; JSON of protobuf has it in base64."""
    if len(identifier) in (16, 32):
        return identifier.lower()
    try:
        return base64.b64decode(identifier, validate=True).hex()
    except binascii.Error:
        return identifier


def _shown(url: str) -> str:
    """Return a URL without the user and password that it may hold."""
    return str(httpx.URL(url).copy_with(username=None, password=None)) if "@" in url else url
