"""The shapes of what the backends answer, as far as the doctor reads them; what is more in an answer is left alone."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class Series(BaseModel):
    """One element of an instant vector: labels, and (Unix time in seconds, value as text); a histogram has no value."""

    metric: dict[str, str]
    value: tuple[float, str] | None = None


class Vector(BaseModel):
    """What an instant query gives."""

    result: list[Series]


class QueryAnswer(BaseModel):
    """Query's ``/api/v1/query``."""

    data: Vector


class StoresAnswer(BaseModel):
    """Query's ``/api/v1/stores``: its endpoints by kind, each with its last error."""

    data: dict[str, list[dict[str, Any]] | None]


class StoredExemplar(BaseModel):
    """One exemplar; its time is Unix seconds."""

    labels: dict[str, str]
    value: float
    timestamp: float


class ExemplarSeries(BaseModel):
    """The exemplars of one series."""

    exemplars: list[StoredExemplar]


class ExemplarsAnswer(BaseModel):
    """Query's ``/api/v1/query_exemplars``."""

    data: list[ExemplarSeries] | None = None


class SearchAnswer(BaseModel):
    """Tempo's ``/api/search``."""

    traces: list[dict[str, Any]] | None = None


class Span(BaseModel):
    """One span of a trace; the id is hexadecimal or base64."""

    spanId: str  # noqa: N815 - as Tempo writes it
    events: list[dict[str, Any]] | None = None


class ScopeSpans(BaseModel):
    """The spans of one instrumentation library."""

    spans: list[Span] = []


class ResourceSpans(BaseModel):
    """The spans of one resource."""

    scopeSpans: list[ScopeSpans] = []  # noqa: N815


class Trace(BaseModel):
    """A trace as OTLP JSON, under the name that Tempo's version gives it."""

    batches: list[ResourceSpans] | None = None
    resourceSpans: list[ResourceSpans] | None = None  # noqa: N815


class TraceAnswer(Trace):
    """Tempo's ``/api/traces/<id>``, wrapped or not."""

    trace: Trace | None = None


class Stream(BaseModel):
    """One log stream: (Unix nanoseconds as text, line, and maybe metadata) an entry."""

    values: list[list[Any]]


class Streams(BaseModel):
    """What a log query gives."""

    result: list[Stream]


class LogsAnswer(BaseModel):
    """Loki's ``/loki/api/v1/query_range``."""

    data: Streams


class DataSource(BaseModel):
    """One of Grafana's data sources."""

    uid: str
    type: str
    jsonData: dict[str, Any] | None = None  # noqa: N815


class DashboardAnswer(BaseModel):
    """Grafana's ``/api/dashboards/uid/<uid>``."""

    dashboard: dict[str, Any]


class Alert(BaseModel):
    """One of Alertmanager's ``/api/v2/alerts``."""

    labels: dict[str, str]
