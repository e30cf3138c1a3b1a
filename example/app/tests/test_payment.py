"""A checkout that another simulator charges: one trace through both; without a payment it fails."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from checkout_simulator import payment
from flask import Flask
from flask.testing import FlaskClient
from opentelemetry.instrumentation.urllib import URLLibInstrumentor
from opentelemetry.trace import SpanKind, StatusCode
from werkzeug.serving import make_server

if TYPE_CHECKING:
    from conftest import FakeClock


@contextmanager
def served(app: Flask) -> Iterator[str]:
    """Serve an app on loopback, and yield its address."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def checkouts(
    make_client: Callable[..., FlaskClient], make_clock: type[FakeClock], peak_time: float
) -> Iterator[Callable[..., FlaskClient]]:
    """checkouts(url, **settings): a client of a checkout in a peak, which is charged at the address."""
    URLLibInstrumentor().instrument()

    def make(url: str, **settings: Any) -> FlaskClient:
        return make_client(clock=make_clock(peak_time), payment_url=url, **settings)

    yield make
    URLLibInstrumentor().uninstrument()


@pytest.mark.parametrize("fails", [False, True])
def test_the_trace_goes_through_both(
    make_client: Callable[..., FlaskClient],
    checkouts: Callable[..., FlaskClient],
    telemetry: Any,
    caplog: pytest.LogCaptureFixture,
    fails: bool,
) -> None:
    with served(make_client().application) as url:
        body = checkouts(url, peak_error_rate=int(fails)).get("/checkout").get_json()
    spans = telemetry.spans()
    step, call, server = (spans[name] for name in ("charge payment", "POST", "POST /charge"))
    assert (call.kind, server.kind) == (SpanKind.CLIENT, SpanKind.SERVER)
    assert call.parent.span_id == step.context.span_id
    assert server.parent.span_id == call.context.span_id
    assert spans["authorize card"].parent.span_id == server.context.span_id
    assert {format(span.context.trace_id, "032x") for span in spans.values()} == {body["trace_id"]}

    # The caller decides; the payment does it. Its clock is another one, so nobody waits here.
    outcome = "failure" if fails else "success"
    assert body["status"] == server.attributes["checkout.outcome"] == outcome
    assert server.attributes["checkout.mode"] == "payment"
    waits = [spans[name].attributes["checkout.step.wait_ms"] for name in ("charge payment", "authorize card")]
    assert waits[0] == pytest.approx(waits[1], abs=0.01)
    assert waits[0] >= 0.7 * 1800
    assert server.attributes["checkout.duration_ms"] == pytest.approx(waits[0], abs=0.02)
    for name in ("charge payment", "POST", "POST /charge", "authorize card"):
        assert (spans[name].status.status_code is StatusCode.ERROR) is fails, name
    said = "FAILED \\(Simulated Error\\)" if fails else "SUCCESS"
    lines = [line for line in caplog.messages if line.startswith("[")]
    assert re.fullmatch(rf"\[PAYMENT\] Charge {said} after [\d.]+ms", lines[0])
    assert re.fullmatch(rf"\[PEAK MODE\] Checkout {said} after [\d.]+ms", lines[1])


def refuses() -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def hangs() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections wait in its backlog for ever
        yield f"http://127.0.0.1:{silent.getsockname()[1]}"


def another() -> Iterator[str]:
    with served(Flask("another")) as url:
        yield url


@pytest.mark.parametrize(
    ("service", "reason"),
    [
        (refuses, r"no answer from http://127\.0\.0\.1:\d+: .*[Cc]onnection refused"),
        (hangs, r"no answer from http://127\.0\.0\.1:\d+: timed out"),
        (another, r"http://127\.0\.0\.1:\d+ answered 404 in place of 200"),
    ],
)
def test_a_payment_that_is_missing_fails_the_checkout(
    checkouts: Callable[..., FlaskClient],
    telemetry: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    service: Callable[[], Iterator[str]],
    reason: str,
) -> None:
    monkeypatch.setattr(payment, "GRACE_S", 0.2)
    client = contextmanager(service)
    with client() as url:
        response = checkouts(url, peak_min_ms=0, peak_max_ms=0, peak_error_rate=0).get("/checkout")
    assert response.status_code == 500
    assert response.get_json()["status"] == "failure"
    (event,) = telemetry.spans()["charge payment"].events
    assert event.attributes["exception.type"].endswith("PaymentError")
    assert re.fullmatch(reason, event.attributes["exception.message"])
    assert any(re.fullmatch(rf"\[PEAK MODE\] Checkout FAILED \({reason}\) after [\d.]+ms", m) for m in caplog.messages)


def test_a_charge_that_is_told_to_fail_and_does_not(checkouts: Callable[..., FlaskClient]) -> None:
    app = Flask("another")
    app.post("/charge")(lambda: "charged")
    with served(app) as url, pytest.raises(payment.PaymentError, match="answered 200 in place of 500"):
        payment.charge(url, 0, fails=True)


def test_a_charge_is_told_what_to_do(make_client: Callable[..., FlaskClient], caplog: pytest.LogCaptureFixture) -> None:
    client = make_client()
    assert client.post("/charge?delay_ms=60000").get_json()["duration_ms"] == 60000
    assert client.post("/charge?delay_ms=1&error_rate=1").status_code == 500
    assert client.get("/charge").status_code == 405
    caplog.clear()
    response = client.post("/charge?delay_ms=60001&amount=5")
    assert response.status_code == 400
    assert [problem["reason"] for problem in response.get_json()["problems"]] == [
        "is not within 0 to 60000",
        "is not a parameter of /charge",
    ]
    assert caplog.messages == ["[CHARGE] Request REJECTED (2 bad parameters)"]
