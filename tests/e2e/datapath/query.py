"""Asks Thanos what Grafana asks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, TypedDict

from tests.e2e.processes import HTTP


class Refused(AssertionError):
    """Thanos answered with an error."""


class Series(TypedDict, total=False):
    """One series of an answer: (Unix seconds, value) once or several times, each a number as text or a histogram."""

    metric: dict[str, str]
    value: tuple[float, str]
    values: list[tuple[float, str]]
    histogram: tuple[float, dict[str, Any]]
    histograms: list[tuple[float, dict[str, Any]]]


@dataclass(frozen=True)
class Exemplar:
    """One exemplar and the labels of its series; ``seconds`` is its value, ``time`` in Unix seconds."""

    series: dict[str, str]
    trace_id: str
    span_id: str
    seconds: float
    time: float


@dataclass(frozen=True)
class Thanos:
    """The HTTP API of a Thanos Query or Query Frontend."""

    url: str

    def _get(self, path: str, **parameters: str | float | None) -> Any:
        answer = HTTP.get(f"{self.url}/api/v1/{path}", params={k: v for k, v in parameters.items() if v is not None})
        content = answer.json() if answer.headers.get("content-type", "").startswith("application/json") else {}
        if answer.status_code != 200 or content.get("status") != "success":
            raise Refused(f"{path} {parameters}: {answer.status_code} {answer.text[:300]}")
        return content["data"]

    def instant(self, expression: str, time: float | None = None) -> list[Series]:
        """Return the instant vector: series with ``value`` or ``histogram``; of a range selector, what a range has."""
        return list(self._get("query", query=expression, time=time)["result"])

    def value(self, expression: str, time: float | None = None) -> float | None:
        """Return the one float of an instant vector, None where it is empty."""
        result = self.instant(expression, time)
        assert len(result) < 2, f"{expression} has {len(result)} series"
        return float(result[0]["value"][1]) if result else None

    def range(self, expression: str, start: float, end: float, step: float, **more: str) -> list[Series]:
        """Return the range vector: series with ``values`` or ``histograms``."""
        return list(self._get("query_range", query=expression, start=start, end=end, step=step, **more)["result"])

    def exemplars(self, expression: str, start: float, end: float) -> list[Exemplar]:
        """Return the exemplars of every series that ``expression`` selects."""
        return [
            Exemplar(
                entry["seriesLabels"],
                exemplar["labels"].get("trace_id", ""),
                exemplar["labels"].get("span_id", ""),
                float(exemplar["value"]),
                float(exemplar["timestamp"]),
            )
            for entry in self._get("query_exemplars", query=expression, start=start, end=end)
            for exemplar in entry["exemplars"]
        ]

    def endpoints(self, kind: str) -> list[dict[str, Any]]:
        """Return all that Query knows of its endpoints of a type, those that it cannot reach too."""
        return [*self._get("stores").get(kind, [])]

    def stores(self) -> Counter[str]:
        """Return how many healthy endpoints of each type (receive, store, rule, sidecar) Query is connected to."""
        healthy: Counter[str] = Counter()
        for kind, endpoints in self._get("stores").items():
            healthy[kind] += sum(1 for endpoint in endpoints if not endpoint.get("lastError"))
        return healthy
