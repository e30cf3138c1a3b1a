"""What breaks while shoppers shop: nothing that the simulator served may be missing afterwards."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from tests.e2e.datapath.stack import SERVED, Request, Stack
from tests.e2e.processes import NotReady, wait_until

OUTAGE_SECONDS = 60


@pytest.fixture(autouse=True)
def whole_again(stack: Stack) -> Iterator[None]:
    """Every fault starts from and ends in a stack that counts exactly."""
    stack.settle()
    yield
    stack.settle()


def nothing_lost(stack: Stack, since: int, timeout: float = 60) -> list[Request]:
    """Assert that every request since the ``since``-th is counted, traced and logged, and return them."""
    stack.settle(timeout)  # the count in Thanos is the simulator's own

    def missing() -> bool:
        told = stack.requests()[since:]
        traces = [request for request in told if not stack.has_trace(request.trace_id)]
        assert not traces, f"{len(traces)} of {len(told)} requests have no trace: {traces[:3]}"
        lines = [request for request in told if not stack.has_line(request.trace_id)]
        assert not lines, f"{len(lines)} of {len(told)} requests have no log line: {lines[:3]}"
        return True

    wait_until(missing, "every trace and line is there", timeout, interval=1)
    return stack.requests()[since:]


def longest_gap(stack: Stack, start: float, end: float) -> float:
    """Return the longest time (seconds) without a sample of the simulator's request histogram."""
    (busiest,) = stack.query.instant(
        f'topk(1, histogram_count({SERVED}{{http_route="/checkout"}}))'.replace("}{", ","), end
    )
    labels = ",".join(f'{name}="{value}"' for name, value in busiest["metric"].items())
    (series,) = stack.query.instant(f"http_server_request_duration_seconds{{{labels}}}[{round(end - start)}s]", end)
    times = [start, *(float(time) for time, _ in series["histograms"]), end]
    return max(later - earlier for earlier, later in pairwise(times))


@pytest.mark.parametrize("part", ["collector", "ingestor"])
def test_killed_and_restarted(stack: Stack, part: str) -> None:
    since = len(stack.requests())
    load = stack.load(12, 8)
    wait_until(lambda: len(stack.requests()) > since + 15, "the load is on")
    stack.kill(part)
    served = len(stack.requests())
    wait_until(lambda: len(stack.requests()) > served + 15, "the simulator serves on without it")
    stack.start(part)
    assert load.wait_end(60) == 0
    assert len(nothing_lost(stack, since)) > 30


def test_outage_of_receive_and_of_the_trace_store(stack: Stack) -> None:
    """Both are away for 60 s under load; what waits in the collector's queue then arrives, in order, and nothing is lost."""
    since, start = len(stack.requests()), time.time()
    load = stack.load(8, OUTAGE_SECONDS)
    wait_until(lambda: len(stack.requests()) > since + 5, "the load is on")
    stack.stop("router", "ingestor")
    stack.traces.stop()
    assert load.wait_end(OUTAGE_SECONDS + 60) == 0
    stack.traces.start()
    stack.start("ingestor", "router")
    told = nothing_lost(stack, since, timeout=120)
    assert len(told) >= 200
    # Not only the totals: the samples that the SDK exported during the outage are there too.
    assert longest_gap(stack, start, time.time()) < OUTAGE_SECONDS / 4
    # What the collector said of itself meanwhile waited on disk too: the dashboard shows how its queue filled.
    queue = 'otelcol_exporter_queue_size{exporter="otlp_http/thanos"}'
    (reports,) = stack.query.instant(f"{queue}[{round(time.time() - start)}s]")
    assert max(float(size) for _, size in reports["values"]) > 0
    assert max(float(b) - float(a) for (a, _), (b, _) in pairwise(reports["values"])) < OUTAGE_SECONDS / 4
    assert float(reports["values"][-1][0]) - float(reports["values"][0][0]) > OUTAGE_SECONDS / 2


def test_unwritable_queue_is_refused_at_start(stack: Stack, new_stack: Callable[[], Stack], tmp_path: Path) -> None:
    """A collector that cannot keep its queue says so and ends, instead of running without one."""
    folder = tmp_path / "queue"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):  # root writes anywhere but into the kernel's own file systems
        folder = Path("/proc/self")
    other = new_stack()

    def read_only(config: dict) -> dict:
        config["extensions"]["file_storage"]["directory"] = str(folder)
        return config

    other.changes["collector"] = read_only
    with pytest.raises(NotReady, match=r"collector ended with status [1-9]") as refused:
        other.start("collector")
    message = str(refused.value)
    assert str(folder) in message
    assert "file_storage" in message
    assert yaml.safe_load((other.folder / "collector.yaml").read_text())["extensions"]["file_storage"][
        "directory"
    ] == str(folder)
