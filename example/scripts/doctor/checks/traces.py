"""From an exemplar to its trace and to its request's log line."""

from __future__ import annotations

import time

from ..context import Context, Exemplar
from ..model import MissingError, Result, fail, ok, warn
from ..names import COLLECTOR_UPTIME

SAMPLE = 5
QUEUED = 'sum(otelcol_exporter_queue_size{exporter="otlp_grpc/tempo"})'
# Seconds before the window in which a report shows that the collector is older than the window.
BEFORE = 300


def settled(context: Context) -> list[Exemplar]:
    """Return a few exemplars whose trace had time to arrive, spread evenly from the newest to the oldest.

    Those from before the collector's first report are left out where there are later ones: an SDK that waits for a
    collector for more than half a minute gives up the spans of its first seconds.
    """
    # The steps of a subquery are multiples of 10 s: the first may lie that much after its range began.
    reach = f"{context.since + BEFORE:.0f}s:10s"
    first = context.number(f"min(min_over_time(timestamp({COLLECTOR_UPTIME})[{reach}]))") or 0
    traced = [exemplar for exemplar in context.exemplars if exemplar.trace_id]
    traced = [exemplar for exemplar in traced if exemplar.time >= first] or traced
    old = [exemplar for exemplar in traced if time.time() - exemplar.time >= context.settle] or traced
    places = {round(step * (len(old) - 1) / (SAMPLE - 1)) for step in range(SAMPLE)} if old else ()
    return [old[place] for place in sorted(places)]


def trace(context: Context) -> Result:
    """Tempo has the traces of the exemplars, with their spans."""
    context.get("tempo", "/ready")
    sample = settled(context)
    if not sample:
        raise MissingError("there is no exemplar to follow")
    for exemplar in sample:
        spans = context.spans(exemplar.trace_id)
        if spans is None:
            age = time.time() - exemplar.time
            if waiting := context.number(QUEUED):
                # Tempo was away, and the collector has not tried again yet: nothing is wrong with the sampler.
                return warn(f"{waiting / 1e6:.1f} MB of traces wait in the collector's queue; ask again in a minute")
            # A trace of the same time or later shows that traces do arrive.
            arrive = context.recent_traces(age + 60)
            seen = f"{exemplar.trace_id} (exemplar of {age / 60:.0f} min ago): 404"
            return fail("trace-expired" if arrive else "traces-missing", seen)
        if exemplar.span_id not in spans:
            return fail(
                "span-mismatch", f"trace {exemplar.trace_id} has {len(spans)} spans, and not {exemplar.span_id}"
            )
    return ok(f"{len(sample)} of {len(sample)} exemplars lead to their trace and span, such as {sample[0].trace_id}")


def logs(context: Context) -> Result:
    """Loki has the log lines of that request; without a log backend they are on its trace."""
    sample = settled(context)
    if not sample:
        raise MissingError("there is no exemplar to follow")
    if "loki" not in context.urls and not context.repository.has("loki"):
        return _span_events(context, sample[0])
    context.get("loki", "/ready")
    stream = f'{{service_name="{context.service}"}}'
    start = time.time() - context.since
    lines = context.log_lines(f'{stream} | trace_id = "{sample[0].trace_id}"', start)
    if lines:
        return ok(f"{len(lines)} lines, such as: {lines[0].strip()[:100]}")
    any_lines = context.log_lines(stream, start)
    if any_lines:
        return fail(
            "logs-without-trace-id",
            f"none of trace {sample[0].trace_id}, but others of the app: {any_lines[0].strip()[:100]}",
        )
    return fail("logs-missing", f"no line of {stream} in {context.since / 60:.0f} min")


def _span_events(context: Context, exemplar: Exemplar) -> Result:
    events = [event for span in (context.spans(exemplar.trace_id) or {}).values() for event in span.events or []]
    if not events:
        return fail("span-events-missing", f"trace {exemplar.trace_id} has no span event")
    return ok(f"no log backend; {len(events)} span events on trace {exemplar.trace_id}")
