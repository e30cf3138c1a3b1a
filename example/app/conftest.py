"""Fixtures of the simulator's tests: a clock that does not wait, and the SDK with exporters in memory."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from typing import Any

# Before anything reads it: the instrumentation looks once in the life of the process.
os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http"

import pytest
from checkout_simulator.app import create_app
from checkout_simulator.clock import Clock
from checkout_simulator.schedule import PeakSchedule
from checkout_simulator.settings import Settings
from checkout_simulator.simulator import Simulator
from flask import Flask
from flask.testing import FlaskClient
from opentelemetry import metrics, trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    InMemoryMetricReader,
)
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

EPOCH = 1_790_000_000.0


class FakeClock(Clock):
    """Time that passes only when something sleeps."""

    def __init__(self, now: float = EPOCH) -> None:
        self._now = now

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now - EPOCH

    def set(self, now: float) -> None:
        self._now = now

    def sleep(self, seconds: float) -> None:
        self._now += seconds


class Telemetry:
    """What the SDK recorded since the test began."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._reader = InMemoryMetricReader(
            preferred_temporality={Histogram: AggregationTemporality.DELTA},
            preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()},
        )
        tracer_provider = TracerProvider()
        tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        trace.set_tracer_provider(tracer_provider)
        metrics.set_meter_provider(MeterProvider([self._reader]))

    def clear(self) -> None:
        self._spans.clear()
        self._reader.get_metrics_data()

    def spans(self) -> dict[str, ReadableSpan]:
        """Finished spans by name."""
        return {span.name: span for span in self._spans.get_finished_spans()}

    def durations(self) -> list[HistogramDataPoint | ExponentialHistogramDataPoint]:
        """Points of http.server.request.duration."""
        data = self._reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == "http.server.request.duration"
            for point in metric.data.data_points
            if isinstance(point, HistogramDataPoint | ExponentialHistogramDataPoint)
        ]


@pytest.fixture(scope="session")
def _sdk() -> Telemetry:
    return Telemetry()


@pytest.fixture
def telemetry(_sdk: Telemetry) -> Telemetry:
    _sdk.clear()
    return _sdk


@pytest.fixture(scope="session")
def make_clock() -> type[FakeClock]:
    return FakeClock


@pytest.fixture(scope="session")
def make_simulator() -> Callable[..., Simulator]:
    """Makes a simulator with a fake clock and seeded dice; other keyword arguments are settings."""

    def make(clock: Clock | None = None, **settings: Any) -> Simulator:
        return Simulator(Settings(**settings), clock or FakeClock(), random.Random(7))  # noqa: S311 (dice)

    return make


@pytest.fixture(scope="session")
def normal_time() -> float:
    """A moment outside any peak of the default settings."""
    return next(PeakSchedule.of(Settings()).starts_after(EPOCH)) - 5


@pytest.fixture(scope="session")
def peak_time() -> float:
    """A moment inside a peak of the default settings."""
    return next(PeakSchedule.of(Settings()).starts_after(EPOCH)) + 5


@pytest.fixture
def make_client(make_simulator: Callable[..., Simulator], telemetry: Telemetry) -> Iterator[Callable[..., FlaskClient]]:
    """A client of an instrumented app; arguments as in make_simulator."""
    apps: list[Flask] = []

    def make(**arguments: Any) -> FlaskClient:
        app = create_app(make_simulator(**arguments))
        FlaskInstrumentor().instrument_app(app, excluded_urls="healthz,readyz")
        apps.append(app)
        return app.test_client()

    yield make
    for app in apps:
        FlaskInstrumentor.uninstrument_app(app)
