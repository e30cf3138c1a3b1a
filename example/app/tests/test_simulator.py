"""Latency, errors and log lines over many simulated requests.

A share of errors is checked within 5 standard deviations of the binomial, sqrt(p * (1 - p) / n): a correct simulator
with fresh dice would miss that once in 1.7 million runs. The dice here are seeded, so a result never changes by itself.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from math import sqrt
from typing import TYPE_CHECKING

import pytest
from checkout_simulator.simulator import Outcome, Simulator
from opentelemetry import trace

if TYPE_CHECKING:
    from conftest import FakeClock

REQUESTS = 24_000
MODES = {"normal": (50, 150, 0.05), "peak": (1800, 2500, 0.70)}
LINE = re.compile(r"\[(NORMAL|PEAK) MODE\] Checkout (SUCCESS|FAILED \(Simulated Error\)) after (\d+\.\d\d)ms")

# A parent that is not sampled: keeping three spans for each of so many requests would be slow.
UNSAMPLED = trace.NonRecordingSpan(trace.SpanContext(trace_id=1, span_id=1, is_remote=True))

History = list[tuple[bool, Outcome, str]]


class Lines(logging.Handler):
    """Keeps messages only: records of 24,000 requests would be many."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture(scope="module")
def history(make_simulator: Callable[..., Simulator], make_clock: type[FakeClock]) -> History:
    """For each of REQUESTS checkouts, one every half second: whether it came in a peak, its outcome, its log line."""
    clock = make_clock()
    start = clock.now()
    simulator = make_simulator(clock)
    logger = logging.getLogger("checkout_simulator.simulator")
    lines = Lines()
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    arrivals, outcomes = [], []
    try:
        with trace.use_span(UNSAMPLED):
            for arrival in (start + number / 2 for number in range(REQUESTS)):
                arrivals.append(simulator.schedule.in_peak(arrival))
                clock.set(arrival)
                outcomes.append(simulator.checkout())
    finally:
        logger.removeHandler(lines)
        logger.setLevel(logging.NOTSET)
        logger.propagate = True
    assert len(lines.messages) == REQUESTS  # one line a request
    return list(zip(arrivals, outcomes, lines.messages, strict=True))


def test_the_schedule_decides_the_mode(history: History) -> None:
    assert all((outcome.mode == "peak") == in_peak for in_peak, outcome, _ in history)


@pytest.mark.parametrize("mode", MODES)
def test_latency_fills_its_band(history: History, mode: str) -> None:
    low, high, _ = MODES[mode]
    durations = [outcome.duration_ms for _, outcome, _ in history if outcome.mode == mode]
    # The clock is a float of Unix seconds, good to a microsecond: 0.001 ms.
    assert low - 0.001 <= min(durations) and max(durations) <= high + 0.001
    # An even spread: the mean within 5 standard errors of (high - low) / sqrt(12), and both ends are reached.
    mean = sum(durations) / len(durations)
    assert abs(mean - (low + high) / 2) < 5 * (high - low) / sqrt(12 * len(durations))
    assert min(durations) < low + 0.01 * (high - low) and max(durations) > high - 0.01 * (high - low)


@pytest.mark.parametrize("mode", MODES)
def test_errors_come_at_their_rate(history: History, mode: str) -> None:
    *_, rate = MODES[mode]
    outcomes = [outcome for _, outcome, _ in history if outcome.mode == mode]
    assert len(outcomes) > 5000
    share = sum(not outcome.ok for outcome in outcomes) / len(outcomes)
    assert abs(share - rate) < 5 * sqrt(rate * (1 - rate) / len(outcomes))


def test_every_line_says_what_happened(history: History) -> None:
    for _, outcome, line in history:
        match = LINE.fullmatch(line)
        assert match, line
        mode, status, duration = match.groups()
        assert mode.lower() == outcome.mode
        assert (status == "SUCCESS") == outcome.ok
        assert duration == f"{outcome.duration_ms:.2f}"


def test_failures_are_as_slow_as_successes(history: History) -> None:
    # Otherwise errors and latency would not rise together on the dashboard.
    peaks = [outcome for _, outcome, _ in history if outcome.mode == "peak"]
    assert min(outcome.duration_ms for outcome in peaks if not outcome.ok) > 1799.999


def test_settings_change_the_behaviour(make_simulator: Callable[..., Simulator]) -> None:
    simulator = make_simulator(
        normal_min_ms=7, normal_max_ms=7, normal_error_rate=1, peak_min_ms=7, peak_max_ms=7, peak_error_rate=1
    )
    outcome = simulator.checkout()
    assert not outcome.ok
    assert outcome.duration_ms == pytest.approx(7, abs=0.001)


def test_unstable_waits_as_told_or_at_random(make_simulator: Callable[..., Simulator]) -> None:
    simulator = make_simulator()
    told = simulator.unstable(delay_ms=321)
    assert told.ok and told.duration_ms == pytest.approx(321, abs=0.001)
    assert not simulator.unstable(delay_ms=0, error_rate=1).ok
    chosen = {round(simulator.unstable().duration_ms) for _ in range(200)}
    assert min(chosen) >= 50 and max(chosen) <= 1000 and len(chosen) > 100
