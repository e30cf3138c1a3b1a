"""The instrumented simulator against the bare one: a handler that does nothing, and /checkout."""

from __future__ import annotations

import http.client
import os
import threading
import time
from dataclasses import dataclass
from statistics import median, quantiles

from tests.e2e.datapath.bench.usage import usage
from tests.e2e.datapath.stack import Stack
from tests.e2e.datapath.wiring import python_environment
from tests.e2e.processes import LOOPBACK, free_port

ROUNDS = 3
SECONDS = 4
# Handler: connections that are kept busy.
HANDLERS = {"/healthz": 4, "/checkout": 32}
# No peaks, and nothing left out of instrumentation, or the handler that does nothing would be.
SETTINGS = {"CHECKOUT_PEAK_LENGTH_S": "1", "CHECKOUT_PEAK_GAP_MIN_S": "86400", "CHECKOUT_PEAK_GAP_MAX_S": "86400"}


@dataclass(frozen=True)
class Load:
    """Requests/s, percentiles in seconds, and CPU seconds of the simulator for each request."""

    rate: float
    p50: float
    p99: float
    cpu: float


def run(stack: Stack) -> dict[str, dict[str, Load]]:
    """Return, by handler and ``bare`` or ``instrumented``, the medians of alternating rounds. The stack's collector runs."""
    environment = python_environment(stack.declared)
    servers = {}
    for kind in ("bare", "instrumented"):
        port = free_port()
        env = {"PATH": f"{environment}/bin:{os.environ['PATH']}", "PORT": str(port), **SETTINGS}
        command = [environment / "bin" / "gunicorn"]
        if kind == "instrumented":
            baked = stack.baked_environment()
            env = baked | env | {"OTEL_SERVICE_NAME": "overhead", "OTEL_PYTHON_EXCLUDED_URLS": ""}
            command.insert(0, environment / "bin" / "opentelemetry-instrument")
        process = stack.processes.start(
            f"simulator-{kind}", command, ready=f"http://{LOOPBACK}:{port}/readyz", env=env, cwd=stack.declared.app
        )
        servers[kind] = process, port
    results: dict[str, dict[str, Load]] = {}
    for path, connections in HANDLERS.items():
        rounds: dict[str, list[Load]] = {kind: [] for kind in servers}
        for _ in range(ROUNDS):
            for kind, (process, port) in servers.items():
                before = usage(process).cpu_seconds
                durations = _drive(port, path, connections)
                cpu = usage(process).cpu_seconds - before
                cuts = quantiles(durations, n=100)
                rounds[kind].append(Load(len(durations) / SECONDS, cuts[49], cuts[98], cpu / len(durations)))
        results[path] = {
            kind: Load(*(median(getattr(load, name) for load in loads) for name in ("rate", "p50", "p99", "cpu")))
            for kind, loads in rounds.items()
        }
    for process, _ in servers.values():
        process.stop()
    return results


def _drive(port: int, path: str, connections: int) -> list[float]:
    durations: list[float] = []
    end = time.monotonic() + SECONDS

    def one() -> None:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=30)
        while (start := time.monotonic()) < end:
            connection.request("GET", path)
            connection.getresponse().read()
            durations.append(time.monotonic() - start)
        connection.close()

    threads = [threading.Thread(target=one) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return durations
