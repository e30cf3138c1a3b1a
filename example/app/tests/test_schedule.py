"""Peaks: their length, the gaps between them, and that time and seed alone decide."""

from __future__ import annotations

from itertools import islice, pairwise
from typing import Any

import pytest
from checkout_simulator.schedule import PeakSchedule
from checkout_simulator.settings import Settings

EPOCH = 1_790_000_000.0
SEEDS = range(20)


def schedule(seed: int = 42, **changes: Any) -> PeakSchedule:
    return PeakSchedule.of(Settings(seed=seed, **changes))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_peak_starts_every_one_to_three_minutes(seed: int) -> None:
    starts = list(islice(schedule(seed).starts_after(EPOCH), 2000))
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert min(gaps) >= 60 and max(gaps) <= 180
    # The whole range is used: over 2000 gaps the rarest tenth of it (each end: 0.5 %) is not met with chance e^-10.
    assert min(gaps) < 66 and max(gaps) > 174


@pytest.mark.parametrize("seed", SEEDS)
def test_a_peak_lasts_thirty_seconds(seed: int) -> None:
    peaks = schedule(seed)
    for start in islice(peaks.starts_after(EPOCH), 200):
        assert not peaks.in_peak(start - 0.001)
        assert peaks.in_peak(start)
        assert peaks.in_peak(start + 29.999)
        assert not peaks.in_peak(start + 30.001)


def test_a_quarter_of_the_time_is_peak() -> None:
    # 30 s in every 120 s on average; over 2000 periods the edges account for less than one period.
    peaks = schedule()
    share = sum(peaks.in_peak(EPOCH + second) for second in range(240_000)) / 240_000
    assert share == pytest.approx(0.25, abs=0.001)


def test_replicas_agree_whenever_they_start() -> None:
    walker = islice(schedule().starts_after(EPOCH), 500)
    for start in walker:
        # Another replica, asked only about this moment.
        assert schedule().last_start(start + 1) == start


def test_seeds_differ() -> None:
    firsts = {next(schedule(seed).starts_after(EPOCH)) for seed in SEEDS}
    assert len(firsts) == len(SEEDS)


def test_the_next_gap_cannot_be_told_from_the_last() -> None:
    # Gaps share an offset with their neighbours only: two apart, their correlation is 0 within 5 / sqrt(n).
    starts = list(islice(schedule().starts_after(EPOCH), 5003))
    gaps = [later - earlier - 120 for earlier, later in pairwise(starts)]
    pairs = list(zip(gaps, gaps[2:], strict=False))
    correlation = sum(a * b for a, b in pairs) / sum(a * a for a in gaps)
    assert abs(correlation) < 5 / len(pairs) ** 0.5


def test_other_lengths_and_gaps() -> None:
    peaks = schedule(peak_length_s=5, peak_gap_min_s=10, peak_gap_max_s=10)
    starts = list(islice(peaks.starts_after(EPOCH), 10))
    assert [later - earlier for earlier, later in pairwise(starts)] == [10] * 9
    assert peaks.in_peak(starts[0] + 4.9) and not peaks.in_peak(starts[0] + 5.1)
