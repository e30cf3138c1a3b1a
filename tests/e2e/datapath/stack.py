"""A baked platform's data path, run as processes on loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.e2e.datapath.stores import TraceLimits, TraceStore
from tests.e2e.datapath.wiring import CORE, SIMULATORS, Change, Program, Wiring, unchanged
from tests.e2e.processes import NotReady, Process, Processes, wait_until

# An ingestor that starts in the minute in which it prunes (every fourth hour) may end with a panic in this function,
# until the minute is over (thanos-io/thanos#8990, not in 0.42.4). It is started again, as the kubelet does.
PRUNING, PRUNING_SECONDS = "shouldBeMarkedInactive", 90


@dataclass
class Stack(Wiring):
    """Starts and stops the parts; each can be started with a change.

    A change takes what the part is started with and returns it changed: for ``collector`` and ``scraper`` their
    configuration, likewise for ``alertmanager``, for ``app`` its environment, for a Thanos program its arguments.
    """

    processes: Processes
    parts: dict[str, Process] = field(default_factory=dict, kw_only=True)
    changes: dict[str, Change] = field(default_factory=dict, kw_only=True)

    def start(self, *names: str) -> Stack:
        """Start parts in the order given (default: stores and ``CORE``) and wait until each is ready."""
        if not names:
            if isinstance(self.traces, TraceStore):
                self.traces.limits = TraceLimits(**self.declared.trace_limits())
            self.traces.start()
            self.logs.start()
        for name in names or CORE:
            self._start(name)
        if not names:
            self.wait_connected()
        return self

    def start_charged(self) -> Stack:
        """Start ``CORE`` with a second simulator that charges the checkouts, as the platform has it."""
        before = self.changes.get("app", unchanged)
        self.changes["app"] = lambda given: before(given) | {"CHECKOUT_PAYMENT_URL": self.url("payment")}
        return self.start().start("payment")

    def _start(self, name: str) -> None:
        self.parts[name] = self.start_program(name, self.program(name, self.changes.get(name, unchanged)))

    def start_program(self, name: str, program: Program) -> Process:
        """Start what a part is started with and wait until it is ready; again, where a Thanos program fell while pruning."""
        deadline = time.monotonic() + PRUNING_SECONDS
        while True:
            try:
                return self.processes.start(
                    name, program.command, ready=program.ready, env=program.environment, cwd=program.folder
                )
            except NotReady as error:
                if PRUNING not in str(error) or time.monotonic() > deadline:
                    raise

    def stop(self, *names: str) -> None:
        """Stop parts; everything, the stores too, when none is named."""
        if not names:
            self.stop(*SIMULATORS)  # while there is still a collector that takes what they have left
            self.processes.stop()
            self.parts.clear()
            self.traces.stop()
            self.logs.stop()
        for name in names:
            if name in self.parts:
                self.parts.pop(name).stop()

    def kill(self, name: str) -> None:
        """SIGKILL a part."""
        self.parts.pop(name).kill()

    @contextmanager
    def changed(self, name: str, change: Change) -> Iterator[None]:
        """Run the block with one part restarted under ``change``; afterwards it runs as before."""
        before = self.changes.get(name, unchanged)
        self.stop(name)
        self.changes[name] = lambda given: change(before(given))
        try:
            self._start(name)
            yield
        finally:
            self.changes[name] = before
            self.stop(name)
            self._start(name)
            self.wait_connected()

    def wait_connected(self) -> None:
        """Wait until Query sees the ingestor and the router delivers to it."""
        if "query" in self.parts and "ingestor" in self.parts:
            wait_until(lambda: self.query.stores().get("receive"), "Query sees the ingestor")
