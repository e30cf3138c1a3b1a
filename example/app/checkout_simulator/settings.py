"""Settings, each an environment variable: the field's name in capitals after `CHECKOUT_`.

What really happened to a request is on its log line, beside its trace id (telemetry.ConsoleFormatter):
mode, outcome and duration in milliseconds. A test that needs the truth reads those lines; there is no other record.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .bounds import Address, Bounds

PREFIX = "CHECKOUT_"
MILLISECONDS = Bounds(0, 60_000)
RATE = Bounds(0, 1)
SECONDS = Bounds(1, 86_400)


class SettingsError(ValueError):
    """One or more settings are wrong; the message has a line for each."""


def _setting(default: Any, bounds: Bounds | Address, example: object = None) -> Any:
    return field(default=default, metadata={"bounds": bounds, "example": default if example is None else example})


@dataclass(frozen=True)
class Settings:
    """All settings; the defaults are the simulator's contract."""

    # Replicas with the same seed peak together. It decides the schedule alone, not the requests.
    seed: int = _setting(42, Bounds(0, 999_999_999, whole=True))

    normal_min_ms: float = _setting(50, MILLISECONDS)
    normal_max_ms: float = _setting(150, MILLISECONDS)
    normal_error_rate: float = _setting(0.05, RATE)

    peak_min_ms: float = _setting(1800, MILLISECONDS)
    peak_max_ms: float = _setting(2500, MILLISECONDS)
    peak_error_rate: float = _setting(0.7, RATE)
    peak_length_s: float = _setting(30, SECONDS)
    # Seconds from the start of one peak to the start of the next.
    peak_gap_min_s: float = _setting(60, SECONDS)
    peak_gap_max_s: float = _setting(180, SECONDS)

    # /unstable: the random latency, and the most that a caller may ask for.
    unstable_min_ms: float = _setting(50, MILLISECONDS)
    unstable_max_ms: float = _setting(1000, MILLISECONDS)
    unstable_limit_ms: float = _setting(10_000, MILLISECONDS)

    # Where a checkout is charged: another simulator; empty: in this process.
    payment_url: str = _setting("", Address(), "http://payment:80")

    # Requests served at once by the one worker process.
    threads: int = _setting(32, Bounds(1, 512, whole=True))

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Settings from the environment; SettingsError names everything that is wrong at once."""
        known = {PREFIX + item.name.upper(): item for item in fields(cls)}
        values: dict[str, Any] = {}
        problems = []
        for name in sorted(key for key in env if key.startswith(PREFIX)):
            if name not in known:
                problems.append(f"{name}={env[name]!r} is not a setting: {_instead(name, known)}")
                continue
            item = known[name]
            bounds = item.metadata["bounds"]
            try:
                values[item.name] = bounds.parse(env[name])
            except ValueError as reason:
                example = item.metadata["example"]
                problems.append(f"{name}={env[name]!r} {reason}: type {bounds}, such as {name}={example}")
        if not problems:
            problems = cls(**values)._contradictions()
        if problems:
            raise SettingsError("\n  ".join(["The checkout simulator cannot start:", *problems]))
        return cls(**values)

    def _contradictions(self) -> list[str]:
        problems = []
        for low, high in (
            ("normal_min_ms", "normal_max_ms"),
            ("peak_min_ms", "peak_max_ms"),
            ("unstable_min_ms", "unstable_max_ms"),
            ("unstable_max_ms", "unstable_limit_ms"),
            ("peak_gap_min_s", "peak_gap_max_s"),
            ("peak_length_s", "peak_gap_min_s"),
        ):
            lower, upper = getattr(self, low), getattr(self, high)
            if lower > upper:
                problems.append(
                    f"{PREFIX}{low.upper()}={lower:g} is above {PREFIX}{high.upper()}={upper:g}: "
                    f"type at most {upper:g} for the first or at least {lower:g} for the second"
                )
        return problems


def _instead(name: str, known: Iterable[str]) -> str:
    # Compared without the prefix, which would make any two names alike.
    names = [key.removeprefix(PREFIX) for key in known]
    close = difflib.get_close_matches(name.removeprefix(PREFIX), names, n=1)
    return f"use {PREFIX}{close[0]}" if close else f"remove it, or use one of {', '.join(known)}"
