"""Time, in one place, so that tests can bring their own."""

from __future__ import annotations

import time


class Clock:
    """The machine's clock, in seconds."""

    def now(self) -> float:
        """Unix time."""
        return time.time()

    def monotonic(self) -> float:
        """Time that never steps back, for durations."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
