"""Live figures of a load, one line every five seconds: a second Locust file for `make traffic`."""

from __future__ import annotations

import gevent
from locust import events
from locust.env import Environment
from locust.runners import STATE_CLEANUP, STATE_STOPPED, STATE_STOPPING

INTERVAL_S = 5


def line(environment: Environment) -> str:
    """Requests a second and the share of failures over Locust's last ten seconds, the durations in milliseconds."""
    total = environment.stats.total
    failed = total.current_fail_per_sec / total.current_rps if total.current_rps else 0.0
    p50, p95 = (total.get_current_response_time_percentile(share) or 0 for share in (0.5, 0.95))
    return f"{total.current_rps:6.1f} requests/s  {failed:4.0%} failed  p50 {p50:5.0f} ms  p95 {p95:5.0f} ms"


def show(environment: Environment, **_: object) -> None:
    """Print lines until the load ends."""

    def loop() -> None:
        ended = {STATE_STOPPING, STATE_STOPPED, STATE_CLEANUP}
        while environment.runner and environment.runner.state not in ended:
            gevent.sleep(INTERVAL_S)
            print(line(environment), flush=True)

    gevent.spawn(loop)


events.test_start.add_listener(show)
