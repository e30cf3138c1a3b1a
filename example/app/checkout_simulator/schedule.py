"""When peaks happen: a pure function of (seed, time), so that all replicas peak together and need not talk.

Time is cut into periods of the mean gap, (min + max) / 2. Each period holds the start of one peak, moved from the
period's beginning by a hash of (seed, period) within (max - min) / 2. So the gap between two starts is

    period + (offset of the next - offset of this) * (max - min) / 2,    each offset in [0, 1)

which lies between min and max whatever the hash says. The start of any peak is one hash away: no history is walked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

from .settings import Settings


@dataclass(frozen=True)
class PeakSchedule:
    """Peaks of `length_s` seconds, their starts `gap_min_s` to `gap_max_s` seconds apart; times are Unix seconds."""

    seed: int
    length_s: float
    gap_min_s: float
    gap_max_s: float

    @classmethod
    def of(cls, settings: Settings) -> PeakSchedule:
        """The schedule that the settings describe."""
        return cls(settings.seed, settings.peak_length_s, settings.peak_gap_min_s, settings.peak_gap_max_s)

    def in_peak(self, now: float) -> bool:
        """Whether `now` is inside a peak: its start is in, its end is out."""
        return now - self.last_start(now) < self.length_s

    def last_start(self, now: float) -> float:
        """Start of the latest peak that began at or before `now`."""
        period = math.floor(now / self._period_s)
        start = self._start(period)
        return start if start <= now else self._start(period - 1)

    def starts_after(self, now: float) -> Iterator[float]:
        """Starts of the peaks that begin after `now`, without end."""
        period = math.floor(now / self._period_s)
        while True:
            start = self._start(period)
            if start > now:
                yield start
            period += 1

    @property
    def _period_s(self) -> float:
        return (self.gap_min_s + self.gap_max_s) / 2

    def _start(self, period: int) -> float:
        digest = blake2b(f"{self.seed}:{period}".encode(), digest_size=6).digest()
        offset = int.from_bytes(digest, "big") / 2**48
        return period * self._period_s + offset * (self.gap_max_s - self.gap_min_s) / 2
