"""Reads a trace the way Grafana does: Tempo's ``GET /api/traces/<id>``."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from tests.e2e.datapath.stack import Stack
from tests.e2e.processes import HTTP


def _values(pairs: list[dict[str, Any]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for pair in pairs:
        ((kind, value),) = pair["value"].items()
        result[pair["key"]] = int(value) if kind == "intValue" else value
    return result


@dataclass(frozen=True)
class Span:
    """One span; times in Unix nanoseconds."""

    content: dict[str, Any]
    resource: dict[str, object]

    @property
    def id(self) -> str:
        return _hex(self.content["spanId"])

    @property
    def parent(self) -> str:
        return _hex(self.content.get("parentSpanId", ""))

    @property
    def name(self) -> str:
        return str(self.content["name"])

    @property
    def kind(self) -> str:
        return str(self.content["kind"])

    @property
    def status(self) -> str:
        return str(self.content.get("status", {}).get("code", "STATUS_CODE_UNSET"))

    @property
    def start(self) -> int:
        return int(self.content["startTimeUnixNano"])

    @property
    def end(self) -> int:
        return int(self.content["endTimeUnixNano"])

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / 1e9

    @property
    def attributes(self) -> dict[str, object]:
        return _values(self.content.get("attributes", []))

    def events(self, name: str) -> list[dict[str, object]]:
        """Return the attributes of each event of that name; ``{"": name}`` stands in where an event has none."""
        return [
            _values(event.get("attributes", [])) or {"": name}
            for event in self.content.get("events", [])
            if event["name"] == name
        ]


def _hex(encoded: str) -> str:
    return base64.b64decode(encoded).hex()


def trace(stack: Stack, trace_id: str) -> dict[str, Span]:
    """Return the spans of a trace by their id.

    Raises:
        KeyError: the store does not have that trace.
    """
    answer = HTTP.get(f"{stack.url('tempo')}/api/traces/{trace_id}", headers={"Accept": "application/json"})
    if answer.status_code == 404:
        raise KeyError(trace_id)
    answer.raise_for_status()
    return {
        span.id: span
        for batch in answer.json()["batches"]
        for scope in batch["scopeSpans"]
        for span in (Span(content, _values(batch["resource"]["attributes"])) for content in scope["spans"])
    }
