"""What a caller sees."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from checkout_simulator.app import create_app
from checkout_simulator.simulator import Simulator
from flask.testing import FlaskClient

if TYPE_CHECKING:
    from conftest import FakeClock

TRACE_ID = re.compile(r"[0-9a-f]{32}")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_checkout(
    make_client: Callable[..., FlaskClient], make_clock: type[FakeClock], normal_time: float, method: str
) -> None:
    response = make_client(clock=make_clock(normal_time), normal_error_rate=0).open("/checkout", method=method)
    assert response.status_code == 200
    body = response.get_json()
    assert body["status"] == "success" and body["mode"] == "normal"
    assert 50 <= body["duration_ms"] <= 150
    assert TRACE_ID.fullmatch(body["trace_id"])
    assert response.headers["X-Trace-Id"] == body["trace_id"]


def test_failed_checkout(
    make_client: Callable[..., FlaskClient], make_clock: type[FakeClock], peak_time: float
) -> None:
    response = make_client(clock=make_clock(peak_time), peak_error_rate=1).get("/checkout")
    assert response.status_code == 500
    body = response.get_json()
    assert body["status"] == "failure" and body["mode"] == "peak"
    assert 1800 <= body["duration_ms"] <= 2500
    assert response.headers["X-Trace-Id"] == body["trace_id"]


def test_the_caller_s_trace_goes_on(make_client: Callable[..., FlaskClient]) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
    assert make_client().get("/checkout", headers=headers).headers["X-Trace-Id"] == trace_id


def test_unstable(make_client: Callable[..., FlaskClient]) -> None:
    client = make_client()
    assert client.get("/unstable?delay_ms=250").get_json()["duration_ms"] == 250
    assert 50 <= client.get("/unstable").get_json()["duration_ms"] <= 1000
    assert client.get("/unstable?error_rate=1&delay_ms=0").status_code == 500


@pytest.mark.parametrize(
    ("query", "parameter", "reason", "use"),
    [
        ("delay_ms=soon", "delay_ms", "is not a number", "a number from 0 to 10000, such as delay_ms=500"),
        ("delay_ms=10001", "delay_ms", "is not within 0 to 10000", "a number from 0 to 10000, such as delay_ms=500"),
        ("delay_ms=-1", "delay_ms", "is not within 0 to 10000", "a number from 0 to 10000, such as delay_ms=500"),
        ("delay_ms=nan", "delay_ms", "is not finite", "a number from 0 to 10000, such as delay_ms=500"),
        ("delay_ms=1&delay_ms=2", "delay_ms", "is given more than once", "delay_ms once"),
        ("delay_ms=", "delay_ms", "is not a number", "a number from 0 to 10000, such as delay_ms=500"),
        ("error_rate=2", "error_rate", "is not within 0 to 1", "a number from 0 to 1, such as error_rate=0.3"),
        ("delay=5", "delay", "is not a parameter of /unstable", "one of delay_ms, error_rate"),
    ],
)
def test_a_bad_parameter_is_explained(
    make_client: Callable[..., FlaskClient], query: str, parameter: str, reason: str, use: str
) -> None:
    response = make_client().get(f"/unstable?{query}")
    assert response.status_code == 400
    (problem,) = response.get_json()["problems"]
    given = ", ".join(part.partition("=")[2] for part in query.split("&"))
    assert problem == {"parameter": parameter, "value": given, "reason": reason, "use": use}


def test_all_bad_parameters_are_named_at_once(
    make_client: Callable[..., FlaskClient], caplog: pytest.LogCaptureFixture
) -> None:
    response = make_client().get("/unstable?delay_ms=x&error_rate=y&z=1")
    assert [problem["parameter"] for problem in response.get_json()["problems"]] == ["delay_ms", "error_rate", "z"]
    assert caplog.messages == ["[UNSTABLE] Request REJECTED (3 bad parameters)"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_are_not_traced(make_client: Callable[..., FlaskClient], telemetry: Any, path: str) -> None:
    response = make_client().get(path)
    assert response.status_code == 200
    assert not telemetry.spans() and not telemetry.durations()


def test_an_unknown_path_is_json(make_client: Callable[..., FlaskClient]) -> None:
    response = make_client().get("/nowhere")
    assert response.status_code == 404 and response.get_json()["error"] == "not found"


def test_without_an_sdk_there_is_no_trace_id(make_simulator: Callable[..., Simulator]) -> None:
    response = create_app(make_simulator(normal_error_rate=0, peak_error_rate=0)).test_client().get("/checkout")
    assert response.status_code == 200
    assert "X-Trace-Id" not in response.headers and response.get_json()["trace_id"] is None
