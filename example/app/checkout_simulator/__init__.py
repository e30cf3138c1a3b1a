"""Checkout simulator: a Flask service whose latency and errors rise on a schedule."""

__version__ = "0.1.0"
