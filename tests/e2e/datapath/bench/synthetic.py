"""A service's request durations, both as a native and as a classic OTLP histogram of the same observations."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
)

# The bounds that the SDK uses for http.server.request.duration, and the scale it settles on for 0.05 to 2.5 s.
BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
SCALE = 4


def durations(rng: random.Random, peak: bool, count: int) -> list[tuple[float, bool]]:
    """Return (seconds, ok) of ``count`` checkouts, as the simulator draws them."""
    low, high, errors = (1.8, 2.5, 0.7) if peak else (0.05, 0.15, 0.05)
    return [(rng.uniform(low, high), rng.random() >= errors) for _ in range(count)]


@dataclass
class Histogram:
    """Cumulative counts of one series (one status) in both forms."""

    count: int = 0
    total: float = 0
    native: Counter[int] = field(default_factory=Counter)
    classic: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))

    def observe(self, seconds: float) -> None:
        self.count += 1
        self.total += seconds
        self.native[math.ceil(math.log2(seconds) * 2**SCALE) - 1] += 1
        self.classic[bisect_left(BOUNDS, seconds)] += 1


@dataclass
class Service:
    """One service with a series for each status; ``kind`` is native or classic."""

    name: str
    kind: str
    start: float
    by_status: dict[str, Histogram] = field(default_factory=dict)

    def observe(self, observations: list[tuple[float, bool]]) -> None:
        for seconds, ok in observations:
            self.by_status.setdefault("200" if ok else "500", Histogram()).observe(seconds)

    def write(self, metric: Metric, time: float) -> None:
        """Append the present counts as data points at ``time`` (Unix seconds)."""
        for status, histogram in self.by_status.items():
            point: HistogramDataPoint | ExponentialHistogramDataPoint
            if self.kind == "native":
                metric.exponential_histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
                point = metric.exponential_histogram.data_points.add(scale=SCALE)
                low, high = min(histogram.native), max(histogram.native)
                point.positive.offset = low
                point.positive.bucket_counts.extend(histogram.native.get(index, 0) for index in range(low, high + 1))
            else:
                metric.histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
                point = metric.histogram.data_points.add(explicit_bounds=BOUNDS, bucket_counts=histogram.classic)
            point.start_time_unix_nano, point.time_unix_nano = int(self.start * 1e9), int(time * 1e9)
            point.count, point.sum = histogram.count, histogram.total
            for key, value in (("http.route", "/checkout"), ("http.request.method", "GET")):
                point.attributes.add(key=key).value.string_value = value
            point.attributes.add(key="http.response.status_code").value.int_value = int(status)


def request(services: list[Service]) -> tuple[ExportMetricsServiceRequest, list[Metric]]:
    """Return an empty request and the metric of each service in it, to be filled by ``Service.write``."""
    message, metrics = ExportMetricsServiceRequest(), []
    for service in services:
        resource = message.resource_metrics.add()
        for key, value in (("service.name", service.name), ("service.instance.id", f"{service.name}-0")):
            resource.resource.attributes.add(key=key).value.string_value = value
        metrics.append(resource.scope_metrics.add().metrics.add(name="http.server.request.duration", unit="s"))
    return message, metrics
