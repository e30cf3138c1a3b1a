"""What the code itself adds to its telemetry; the rest comes from auto-instrumentation."""

from __future__ import annotations

import copy
import logging

from opentelemetry import trace


def trace_id() -> str | None:
    """Trace id of the current request as 32 hex digits; None where no SDK runs."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


class SpanEventHandler(logging.Handler):
    """Puts each log record on the current span too, so that it stays with the trace where logs are not kept."""

    def emit(self, record: logging.LogRecord) -> None:
        span = trace.get_current_span()
        if span.is_recording():
            span.add_event("log", {"log.severity": record.levelname, "log.message": record.getMessage()})


class ConsoleFormatter(logging.Formatter):
    """Puts the ids of the request before the message.

    `OTEL_PYTHON_LOG_CORRELATION` would put them on the record, and the SDK export them beside the record's own ids.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s%(ids)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        context, shown = trace.get_current_span().get_span_context(), copy.copy(record)
        ids = f" trace_id={trace.format_trace_id(context.trace_id)} span_id={trace.format_span_id(context.span_id)}"
        shown.ids = ids if context.is_valid else ""
        return super().format(shown)


def configure_logging() -> None:
    """Console and span events, for every logger; safe to call twice."""
    root, console = logging.getLogger(), logging.StreamHandler()
    console.setFormatter(ConsoleFormatter())
    logging.basicConfig(handlers=[console])
    if not any(isinstance(handler, SpanEventHandler) for handler in root.handlers):
        root.addHandler(SpanEventHandler())
    logging.getLogger(__package__).setLevel(logging.INFO)
