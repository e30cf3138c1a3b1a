"""How long after a request ends can its exemplar be found through Query Frontend?"""

from __future__ import annotations

import time
from statistics import quantiles

from tests.e2e.datapath import traffic
from tests.e2e.datapath.stack import Stack

SECONDS = 60


def run(stack: Stack) -> dict[str, float]:
    """Return the export interval and the delays' p50, p95 and maximum (seconds). The stack's app runs as baked."""
    ended: dict[str, float] = {}
    seen: dict[str, float] = {}
    start, sent = time.time(), 0.0
    while time.time() < start + SECONDS or (len(seen) < len(ended) and time.time() < start + 2 * SECONDS):
        now = time.time()
        if now < start + SECONDS and now - sent >= 0.7:
            sent = now
            # Short enough to keep the pace, and not the same each time.
            answer = traffic.get(stack, f"/unstable?delay_ms={len(ended) % 90 + 10}")
            ended[answer.headers["X-Trace-Id"]] = time.time()
        now = time.time()
        for exemplar in stack.frontend.exemplars("http_server_request_duration_seconds", start - 1, now + 1):
            if exemplar.trace_id in ended:
                seen.setdefault(exemplar.trace_id, time.time())
        time.sleep(0.05)
    delays = sorted(seen[trace] - ended[trace] for trace in seen)
    cuts = quantiles(delays, n=20)
    interval = int(stack.declared.sdk_environment()["OTEL_METRIC_EXPORT_INTERVAL"]) / 1000
    return {
        "interval": interval,
        "p50": cuts[9],
        "p95": cuts[18],
        "max": delays[-1],
        "requests": len(ended),
        "found": len(seen),
    }
