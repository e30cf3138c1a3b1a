"""The HTTP service."""

from __future__ import annotations

import logging

from flask import Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from .parameters import ParameterError, Wanted
from .settings import MILLISECONDS, Settings
from .simulator import Outcome, Simulator
from .telemetry import configure_logging, trace_id

logger = logging.getLogger(__name__)


def create_app(simulator: Simulator | None = None) -> Flask:
    """The WSGI application; without a simulator, one by the environment (SettingsError if a setting is wrong)."""
    simulator = simulator or Simulator(Settings.from_env())
    configure_logging()
    app = Flask(__name__)

    @app.route("/checkout", methods=["GET", "POST"])
    def checkout() -> ResponseReturnValue:
        return _answer(simulator.checkout())

    @app.get("/unstable")
    def unstable() -> ResponseReturnValue:
        wanted = Wanted.of(request.path, request.args, simulator.settings.unstable_limit_ms)
        return _answer(simulator.unstable(wanted.delay_ms, wanted.error_rate))

    @app.post("/charge")
    def charge() -> ResponseReturnValue:
        wanted = Wanted.of(request.path, request.args, MILLISECONDS.high)
        return _answer(simulator.charge(wanted.delay_ms, wanted.error_rate))

    @app.get("/healthz")
    @app.get("/readyz")
    def health() -> ResponseReturnValue:
        # A payment that is missing is a failed checkout, which a caller is to see: alive is ready.
        return jsonify(status="ok")

    @app.errorhandler(ParameterError)
    def bad_parameter(error: ParameterError) -> ResponseReturnValue:
        logger.warning("[%s] Request REJECTED (%s)", request.path.strip("/").upper(), error)
        return jsonify(error="bad request", problems=error.problems, trace_id=trace_id()), 400

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> ResponseReturnValue:
        response = error.get_response()
        response.data = jsonify(error=error.name.lower(), trace_id=trace_id()).data
        response.content_type = "application/json"
        return response

    @app.after_request
    def add_trace_id(response: Response) -> Response:
        if current := trace_id():
            response.headers["X-Trace-Id"] = current
        return response

    return app


def _answer(outcome: Outcome) -> ResponseReturnValue:
    body = jsonify(
        status=outcome.status, mode=outcome.mode, duration_ms=round(outcome.duration_ms, 2), trace_id=trace_id()
    )
    return body, 200 if outcome.ok else 500
