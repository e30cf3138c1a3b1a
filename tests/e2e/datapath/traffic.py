"""Requests to a running stack's simulator, and waiting until what they leave has arrived."""

from __future__ import annotations

import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.e2e.datapath.served import Request, requests_in
from tests.e2e.datapath.stack import Stack
from tests.e2e.datapath.wiring import COMPRESSED, SIMULATORS, python_environment
from tests.e2e.processes import HTTP, Process, wait_until

_ACTIVE = 'http_server_active_requests{{service_name="{}"}}'
_SERVED = 'http_server_request_duration_seconds{{service_name="{}",http_response_status_code=~"200|500"}}'
SERVED = _SERVED.format("checkout")


def requests(stack: Stack, part: str = "app") -> list[Request]:
    """Return every request that a simulator has answered, by its own log."""
    return requests_in((stack.processes.folder / f"{part}.log").read_text(errors="replace"))


def get(stack: Stack, path: str = "/checkout") -> httpx.Response:
    """Send one request to the simulator."""
    return HTTP.get(stack.url("app") + path)


def checkouts(stack: Stack, count: int, path: str = "/checkout", threads: int = 8) -> None:
    """Send ``count`` requests to the simulator from several threads and wait for their answers."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: get(stack, path), range(count)))


def warm_up(stack: Stack) -> None:
    """Send requests until every series of the simulator exists, so that no later rate misses a first sample."""
    checkouts(stack, 4, "/unstable?delay_ms=10")
    while not {True, False} <= {request.ok for request in requests(stack) if request.route == "/checkout"}:
        checkouts(stack, 16)
    settle(stack)


def settle(stack: Stack, timeout: float = 60) -> float:
    """Wait until Thanos counts exactly the requests that each simulator tells of and none is under way.

    Returns the time of the checkout's sample that says so (Unix seconds): rates that begin and end at such are exact.

    Raises:
        NotReady: it does not come to that within ``timeout`` seconds.
    """
    since = time.time()

    def settled(part: str, service: str) -> float:
        active, served = _ACTIVE.format(service), _SERVED.format(service)
        at = stack.query.value(f"max(timestamp({active}))") or 0
        assert at > since, f"no sample of {service} after {since}"
        assert stack.query.value(f"sum({active})", at) == 0, f"requests to {service} are under way"
        counted, told = stack.query.value(f"sum(histogram_count({served}))", at) or 0, len(requests(stack, part))
        assert counted == told, f"Thanos counts {counted:g} requests to {service}, which itself tells of {told}"
        last = requests(stack, part)[-1]
        assert has_trace(stack, last.trace_id), f"the trace store lacks the last request to {service}"
        assert has_line(stack, last.trace_id, service), f"the log store lacks the last request to {service}"
        return at

    parts = {part: service for part, (service, _) in SIMULATORS.items() if part in stack.parts}
    return wait_until(
        lambda: {part: settled(part, service) for part, service in parts.items()}["app"], "counts are exact", timeout
    )


def has_trace(stack: Stack, trace_id: str) -> bool:
    return HTTP.get(f"{stack.url('tempo')}/api/traces/{trace_id}").status_code == 200


def has_line(stack: Stack, trace_id: str, service: str = "checkout") -> bool:
    query = f'{{service_name="{service}"}} | trace_id="{trace_id}"'
    answer = HTTP.get(f"{stack.url('loki')}/loki/api/v1/query_range", params={"query": query})
    return bool(answer.json()["data"]["result"])


def peaks(stack: Stack, count: int = 3) -> list[tuple[float, float]]:
    """Return start and end (Unix seconds) of the current peak, if one is on, and of those that follow."""
    script = (
        "import json, sys, time, itertools\n"
        "from checkout_simulator.schedule import PeakSchedule\n"
        "from checkout_simulator.settings import Settings\n"
        "s, now = PeakSchedule.of(Settings.from_env()), time.time()\n"
        "starts = [s.last_start(now)] * s.in_peak(now) + list(itertools.islice(s.starts_after(now), int(sys.argv[1])))\n"
        "print(json.dumps([(t, t + s.length_s) for t in starts]))"
    )
    env = {**os.environ, **{name: value for name, value in COMPRESSED.items() if name.startswith("CHECKOUT_")}}
    python = python_environment(stack.declared) / "bin" / "python"
    answer = subprocess.run(
        [python, "-c", script, str(count)],
        cwd=stack.declared.app,
        env=env,
        check=True,
        capture_output=True,
        text=True,
    )
    return [(start, end) for start, end in json.loads(answer.stdout)]


def wait_mode(stack: Stack, mode: str, seconds: float) -> None:
    """Wait for a stretch of ``normal`` or ``peak`` mode that has at least ``seconds`` to go."""

    def remaining() -> bool:
        now, (start, end) = time.time(), peaks(stack)[0]
        if mode == "peak":
            return start <= now and end - now >= seconds
        return now < start and start - now >= seconds

    wait_until(remaining, f"{seconds:g} s of {mode} mode", timeout=120, interval=0.5)


def load(stack: Stack, users: int, seconds: float, name: str = "load", host: str | None = None) -> Process:
    """Start the baked load profile (``app/traffic.sh``) against a simulator (default: ours); it ends by itself."""
    environment = python_environment(stack.declared)
    return stack.processes.start(
        name,
        ["bash", stack.declared.app / "traffic.sh"],
        env={
            "PATH": f"{environment}/bin:{os.environ['PATH']}",
            "HOST": host or stack.url("app"),
            "USERS": str(users),
            "SPAWN_RATE": str(users),
            "RUN_TIME": f"{seconds:g}s",
        },
    )
