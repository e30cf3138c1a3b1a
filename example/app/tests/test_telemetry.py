"""What a request leaves behind: spans, attributes, events, an exception, and an exemplar in the histogram."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from flask.testing import FlaskClient
from opentelemetry.sdk.metrics.export import ExponentialHistogramDataPoint
from opentelemetry.trace import StatusCode

if TYPE_CHECKING:
    from conftest import FakeClock

STEPS = ["validate cart", "reserve stock", "charge payment"]


def test_a_success_has_a_span_a_step(
    make_client: Callable[..., FlaskClient], make_clock: type[FakeClock], telemetry: Any, normal_time: float
) -> None:
    response = make_client(clock=make_clock(normal_time), normal_error_rate=0).get("/checkout")
    spans = telemetry.spans()
    assert list(spans) == [*STEPS, "GET /checkout"]
    request = spans["GET /checkout"]
    assert {format(span.context.trace_id, "032x") for span in spans.values()} == {response.headers["X-Trace-Id"]}
    assert all(spans[step].parent.span_id == request.context.span_id for step in STEPS)
    assert all([event.name for event in spans[step].events] == [f"{step} done"] for step in STEPS)
    assert all(span.status.status_code is StatusCode.UNSET for span in spans.values())
    # The steps share out the latency that the request reports.
    waited = sum(spans[step].attributes["checkout.step.wait_ms"] for step in STEPS)
    assert request.attributes["checkout.duration_ms"] == pytest.approx(waited, abs=0.02)
    assert request.attributes["checkout.mode"] == "normal"
    assert request.attributes["checkout.outcome"] == "success"
    assert request.attributes["http.route"] == "/checkout"


def test_a_failure_has_its_exception(
    make_client: Callable[..., FlaskClient], make_clock: type[FakeClock], telemetry: Any, peak_time: float
) -> None:
    make_client(clock=make_clock(peak_time), peak_error_rate=1).get("/checkout")
    spans = telemetry.spans()
    request, payment = spans["GET /checkout"], spans["charge payment"]
    assert request.status.status_code is StatusCode.ERROR
    assert request.attributes["checkout.mode"] == "peak"
    assert request.attributes["checkout.outcome"] == "failure"
    assert request.attributes["http.response.status_code"] == 500
    assert payment.status.status_code is StatusCode.ERROR
    (event,) = payment.events
    assert event.name == "exception"
    assert event.attributes["exception.type"].endswith("SimulatedError")
    assert re.fullmatch(r"charge payment failed after \d+ ms", event.attributes["exception.message"])
    assert spans["reserve stock"].status.status_code is StatusCode.UNSET


def test_the_log_line_is_on_the_request_s_span(
    make_client: Callable[..., FlaskClient],
    make_clock: type[FakeClock],
    telemetry: Any,
    peak_time: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    body = make_client(clock=make_clock(peak_time), peak_error_rate=1).get("/checkout").get_json()
    line = f"[PEAK MODE] Checkout FAILED (Simulated Error) after {body['duration_ms']:.2f}ms"
    assert caplog.messages == [line]
    (event,) = telemetry.spans()["GET /checkout"].events
    assert event.name == "log"
    assert event.attributes == {"log.severity": "ERROR", "log.message": line}


def test_the_duration_carries_an_exemplar_of_the_request(
    make_client: Callable[..., FlaskClient], make_clock: type[FakeClock], telemetry: Any, peak_time: float
) -> None:
    trace_id = make_client(clock=make_clock(peak_time), peak_error_rate=1).get("/checkout").headers["X-Trace-Id"]
    (point,) = telemetry.durations()
    assert isinstance(point, ExponentialHistogramDataPoint)
    assert point.count == 1
    assert point.attributes
    assert point.attributes["http.route"] == "/checkout"
    assert point.attributes["http.request.method"] == "GET"
    assert point.attributes["http.response.status_code"] == 500
    assert [format(exemplar.trace_id, "032x") for exemplar in point.exemplars] == [trace_id]
