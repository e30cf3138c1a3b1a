"""What people type: parsed and bounded, with a reason when it is wrong."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """An inclusive range of int or float."""

    low: float
    high: float
    whole: bool = False

    def __str__(self) -> str:
        return f"a {'whole number' if self.whole else 'number'} from {self.low:.10g} to {self.high:.10g}"

    def parse(self, text: str) -> int | float:
        """The number in `text`; ValueError, whose message is the reason, if it is none or out of range."""
        try:
            value = int(text) if self.whole else float(text)
        except ValueError:
            raise ValueError(f"is not a {'whole number' if self.whole else 'number'}") from None
        if not math.isfinite(value):
            raise ValueError("is not finite")
        if not self.low <= value <= self.high:
            raise ValueError(f"is not within {self.low:.10g} to {self.high:.10g}")
        return value


@dataclass(frozen=True)
class Address:
    """Where an HTTP service listens, without a path; empty: nowhere."""

    pattern = r"https?://(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*|\[[0-9A-Fa-f:]+\])(?::[1-9][0-9]{0,4})?"

    def __str__(self) -> str:
        return "http://host or http://host:port, or nothing"

    def parse(self, text: str) -> str:
        """The address in `text`; ValueError, whose message is the reason, if it is none."""
        if text and not re.fullmatch(self.pattern, text):
            raise ValueError("is not the address of an HTTP service")
        return text
