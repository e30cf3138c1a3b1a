"""The requests that the simulator has served, by its own log."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """One request by the simulator's own record: its log line."""

    trace_id: str
    span_id: str
    mode: str  # normal, peak or unstable
    ok: bool
    duration_ms: float
    line: str

    @property
    def route(self) -> str:
        return "/unstable" if self.mode == "unstable" else "/checkout"


_LINE = re.compile(
    r"trace_id=(?P<trace>[0-9a-f]{32}) span_id=(?P<span>[0-9a-f]{16}).*?"
    r"(?P<line>\[(?P<mode>NORMAL MODE|PEAK MODE|UNSTABLE)\] (?:Checkout|Request) "
    r"(?P<outcome>SUCCESS|FAILED \(Simulated Error\)) after (?P<ms>[\d.]+)ms)$",
    re.M,
)


def requests_in(log: str) -> list[Request]:
    """Return the requests that a simulator's log tells of, in order of their end."""
    return [
        Request(
            line["trace"],
            line["span"],
            line["mode"].split()[0].lower(),
            line["outcome"] == "SUCCESS",
            float(line["ms"]),
            line["line"],
        )
        for line in _LINE.finditer(log)
    ]
