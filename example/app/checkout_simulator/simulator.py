"""What a request does: it waits, step by step, then succeeds or fails."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass

from opentelemetry import trace

from .clock import Clock
from .payment import PaymentError, charge
from .schedule import PeakSchedule
from .settings import Settings

logger = logging.getLogger(__name__)
tracer = trace.get_tracer(__name__)

Steps = tuple[tuple[str, float], ...]
# Steps of a checkout and their shares of its latency: the slow part of a peak is the payment.
PAYMENT = "charge payment"
CHECKOUT: Steps = (("validate cart", 0.1), ("reserve stock", 0.2), (PAYMENT, 0.7))
CHARGE: Steps = (("authorize card", 1.0),)
UNSTABLE: Steps = (("wait", 1.0),)


class SimulatedError(RuntimeError):
    """The failure that the simulator makes on purpose."""


@dataclass(frozen=True)
class Outcome:
    """What happened to one request; `mode` is normal, peak, unstable or payment."""

    mode: str
    ok: bool
    duration_ms: float

    @property
    def status(self) -> str:
        return "success" if self.ok else "failure"


@dataclass(frozen=True)
class Profile:
    """How a kind of request behaves: latency in ms, drawn evenly; a share of failures; steps that split the latency."""

    mode: str
    headline: str
    min_ms: float
    max_ms: float
    error_rate: float
    steps: Steps


class Simulator:
    """Runs requests by the settings; clock and randomness can be replaced."""

    def __init__(self, settings: Settings, clock: Clock | None = None, rng: random.Random | None = None) -> None:
        self.settings = s = settings
        self.schedule = PeakSchedule.of(s)
        self._clock = clock or Clock()
        # Not seeded by the settings: replicas share the schedule, not their dice.
        self._rng = rng or random.Random()  # noqa: S311 (dice, not secrets)
        self._normal = Profile(
            "normal", "[NORMAL MODE] Checkout", s.normal_min_ms, s.normal_max_ms, s.normal_error_rate, CHECKOUT
        )
        self._peak = Profile("peak", "[PEAK MODE] Checkout", s.peak_min_ms, s.peak_max_ms, s.peak_error_rate, CHECKOUT)

    def checkout(self) -> Outcome:
        """One checkout; its mode is decided when it arrives."""
        return self._run(self._peak if self.schedule.in_peak(self._clock.now()) else self._normal)

    def unstable(self, delay_ms: float | None = None, error_rate: float = 0) -> Outcome:
        """One request of `delay_ms`, or of a random latency."""
        return self._run(Profile("unstable", "[UNSTABLE] Request", *self._band(delay_ms), error_rate, UNSTABLE))

    def charge(self, delay_ms: float | None = None, error_rate: float = 0) -> Outcome:
        """One payment of `delay_ms`, or of a random latency: the checkout that asks for it has the schedule."""
        return self._run(Profile("payment", "[PAYMENT] Charge", *self._band(delay_ms), error_rate, CHARGE))

    def _band(self, delay_ms: float | None) -> tuple[float, float]:
        s = self.settings
        return (s.unstable_min_ms, s.unstable_max_ms) if delay_ms is None else (delay_ms, delay_ms)

    def _run(self, profile: Profile) -> Outcome:
        latency_ms = self._rng.uniform(profile.min_ms, profile.max_ms)
        fails = self._rng.random() < profile.error_rate
        last = len(profile.steps)
        started = self._clock.monotonic()
        try:
            for number, (name, share) in enumerate(profile.steps, start=1):
                self._step(name, latency_ms * share, fails and number == last)
            ok, ending = True, "SUCCESS"
        except SimulatedError:
            ok, ending = False, "FAILED (Simulated Error)"
        except PaymentError as error:
            ok, ending = False, f"FAILED ({error})"
        outcome = Outcome(profile.mode, ok, (self._clock.monotonic() - started) * 1000)
        facts: dict[str, str | float] = {
            "checkout.mode": outcome.mode,
            "checkout.outcome": outcome.status,
            "checkout.duration_ms": round(outcome.duration_ms, 2),
        }
        trace.get_current_span().set_attributes(facts)
        logger.log(
            logging.INFO if ok else logging.ERROR,
            "%s %s after %.2fms",
            profile.headline,
            ending,
            outcome.duration_ms,
            extra=facts,
        )
        return outcome

    def _step(self, name: str, wait_ms: float, fails: bool) -> None:
        # The tracer records an exception that leaves the block and sets the span's status to ERROR.
        with tracer.start_as_current_span(name, attributes={"checkout.step.wait_ms": round(wait_ms, 2)}) as span:
            if name == PAYMENT and self.settings.payment_url:
                charge(self.settings.payment_url, wait_ms, fails)
            else:
                self._clock.sleep(wait_ms / 1000)
            if fails:
                raise SimulatedError(f"{name} failed after {wait_ms:.0f} ms")
            span.add_event(f"{name} done")
