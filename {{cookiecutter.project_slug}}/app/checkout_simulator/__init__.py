"""Checkout simulator: a Flask service whose latency and errors rise on a schedule, so that telemetry has something to show."""

__version__ = "0.1.0"
