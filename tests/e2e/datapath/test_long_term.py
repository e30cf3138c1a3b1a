"""Long-term storage: what the ingestor uploads, the Compactor takes and the Store Gateway answers, natively as it came."""

from __future__ import annotations

import re

from tests.e2e.datapath import traffic
from tests.e2e.datapath.query import Thanos
from tests.e2e.datapath.stack import Stack
from tests.e2e.datapath.traffic import SERVED
from tests.e2e.datapath.wiring import LONG_TERM
from tests.e2e.processes import HTTP, wait_until


def metric(stack: Stack, part: str, name: str) -> float:
    """Return the sum of a program's own metric, 0 where it has none yet."""
    values = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", HTTP.get(f"{stack.url(part)}/metrics").text, re.M)
    return sum(map(float, values))


def test_blocks_outlive_the_ingestor(stack: Stack) -> None:
    traffic.checkouts(stack, 20)
    at = traffic.settle(stack)
    counted = f"sum by (http_route, http_response_status_code) (histogram_count({SERVED}))"
    quantile = f"histogram_quantile(0.95, sum({SERVED}))"
    before = {query: stack.query.instant(query, at) for query in (counted, quantile)}
    # On an orderly end an ingestor writes its head as a block and uploads it, all but the last sample, which its WAL
    # keeps.
    traffic.settle(stack)
    stack.stop("ingestor")
    try:
        stack.start(*LONG_TERM)
        wait_until(lambda: metric(stack, "store-gateway", "thanos_bucket_store_blocks_loaded"), "a block is loaded")
        query = Thanos(stack.url("query"))
        wait_until(lambda: query.stores()["store"] and not query.stores()["receive"], "only the Store Gateway is asked")
        for expression, answer in before.items():
            assert query.instant(expression, at) == answer
            assert answer
        wait_until(lambda: metric(stack, "compact", "thanos_compact_iterations_total"), "the Compactor made a round")
        assert metric(stack, "compact", "thanos_compact_halted") == 0
        assert metric(stack, "compact", "thanos_compact_group_compactions_failures_total") == 0
    finally:
        stack.start("ingestor")
        stack.stop(*LONG_TERM)
        stack.wait_connected()
    # What came from the head and what comes from the bucket is one series.
    traffic.checkouts(stack, 5)
    traffic.settle(stack)
