"""Native and classic histograms through Receive, the bucket, Compactor (with downsampling) and Store Gateway.

Two weeks and a half of back-dated minutes are written in order into a fresh Receive; its blocks go to the bucket, the
Compactor merges them up to two weeks and downsamples them to 5 minutes and 1 hour, and Query reads them through the
Store Gateway at each resolution.
"""

from __future__ import annotations

import json
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

from tests.e2e import toolchain
from tests.e2e.datapath.bench.synthetic import Service, durations, request
from tests.e2e.datapath.bench.usage import usage
from tests.e2e.datapath.query import Refused
from tests.e2e.datapath.stack import Stack
from tests.e2e.processes import HTTP, wait_until

STEP = 60
REQUESTS = 20
# The Compactor makes 1-hour points of blocks of at least ten days, and its largest blocks are two weeks, aligned.
BLOCK = 14 * 86400
AFTER = 60 * 3600
# Samples of a series in one request, and in one block.
WRITE = 720
SEGMENT = 2 * 86400 // STEP
RESOLUTIONS = {"raw": "0s", "5m": "5m", "1h": "1h"}
KINDS = ("native", "classic")


@dataclass(frozen=True)
class Row:
    """What a kind of histogram costs and answers at a resolution; errors are relative to the truth, None: no answer."""

    kind: str
    resolution: str
    bytes: int
    count_error: float | None
    p95_error: float | None


def run(stack: Stack) -> tuple[list[Row], dict[str, int]]:
    """Return a row for each kind and resolution, and the resident bytes of the Compactor at its most and of the Store
    Gateway after the queries. ``stack`` must not be started."""
    truth = _write(stack)
    sizes, compactor = _compact(stack)
    stack.start("store-gateway", "query")
    wait_until(lambda: stack.query.stores()["store"], "Query sees the Store Gateway")
    rows = []
    for kind in KINDS:
        for resolution, limit in RESOLUTIONS.items():
            count, p95 = _answers(stack, kind, limit, truth)
            rows.append(Row(kind, resolution, sizes.get((kind, resolution), 0), count, p95))
    gateway = usage(stack.parts["store-gateway"]).resident_bytes
    return rows, {"compactor": compactor, "store-gateway": gateway}


def _write(stack: Stack) -> dict[int, list[float]]:
    """Write the samples of both kinds, each to a tenant of its own, and return the durations by minute."""
    end = math.floor((time.time() - AFTER - 86400) / BLOCK) * BLOCK
    start = end - BLOCK
    stack.changes["ingestor"] = lambda arguments: [
        *(argument for argument in arguments if not argument.startswith("--tsdb.retention")),
        "--tsdb.retention=400d",
    ]
    stack.start("ingestor", "router")
    rng, truth = random.Random(7), {}
    services = {kind: Service("checkout", kind, start - STEP) for kind in KINDS}
    moments = range(start, end + AFTER, STEP)
    for first in range(0, len(moments), WRITE):
        if first % SEGMENT == 0:
            # An orderly end makes and uploads a block, as time does in a running ingestor.
            stack.stop("ingestor")
            stack.start("ingestor")
            wait_until(lambda: _accepts(stack), "the router delivers")
        messages = {kind: request([service]) for kind, service in services.items()}
        for at in moments[first : first + WRITE]:
            observations = durations(rng, peak=at // STEP % 5 == 0, count=REQUESTS)
            truth[at] = [seconds for seconds, _ in observations]
            for kind, service in services.items():
                service.observe(observations)
                service.write(messages[kind][1][0], at)
        for kind, (message, _) in messages.items():
            answer = HTTP.post(
                f"{stack.url('router', 'write')}/api/v1/otlp",
                content=message.SerializeToString(),
                headers={"Content-Type": "application/x-protobuf", "THANOS-TENANT": kind},
            )
            answer.raise_for_status()
    stack.stop("router", "ingestor")
    return truth


def _accepts(stack: Stack) -> bool:
    answer = HTTP.post(
        f"{stack.url('router', 'write')}/api/v1/otlp",
        content=request([])[0].SerializeToString(),
        headers={"Content-Type": "application/x-protobuf"},
    )
    return answer.status_code == 200


def _compact(stack: Stack) -> tuple[dict[tuple[str, str], int], int]:
    """Run the Compactor to its end and return the bytes of the two-week blocks by kind and resolution, and its most memory."""
    arguments = [argument for argument in stack.thanos_arguments("compact") if argument != "--wait"]
    # Sources are deleted at once instead of after two days: as long as they are there, Query answers from them.
    arguments += ["--consistency-delay=0s", "--delete-delay=0s"]
    most = 0
    for name in ("compact-once", "compact-clean"):
        process = stack.processes.start(name, [toolchain.tool("thanos"), *arguments])
        deadline = time.monotonic() + 600
        while process.running and time.monotonic() < deadline:
            most = max(most, usage(process).resident_bytes)
            time.sleep(0.2)
        if process.wait_end(1):
            raise RuntimeError(f"the Compactor failed:\n{process.tail()}")
    sizes: dict[tuple[str, str], int] = {}
    for meta in (stack.folder / "bucket").glob("*/meta.json"):
        content = json.loads(meta.read_text())
        if content["maxTime"] - content["minTime"] < BLOCK * 900:
            continue
        kind = content["thanos"]["labels"].get("tenant_id", "")
        resolution = {0: "raw", 300_000: "5m", 3_600_000: "1h"}[content["thanos"]["downsample"]["resolution"]]
        sizes[kind, resolution] = sizes.get((kind, resolution), 0) + _size(meta.parent)
    return sizes, most


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _answers(stack: Stack, kind: str, limit: str, truth: dict[int, list[float]]) -> tuple[float | None, float | None]:
    """Return the relative errors of a count and of a p95 over 12 hours in the middle of the block."""
    window = 12 * 3600
    at = (min(truth) + BLOCK // 2) // 3600 * 3600
    told = sorted(seconds for moment, values in truth.items() if at - window < moment <= at for seconds in values)
    selector = f'http_server_request_duration_seconds{{service_name="checkout",tenant_id="{kind}"}}[{window}s]'
    if kind == "native":
        queries = f"histogram_count(sum(increase({selector})))", f"histogram_quantile(0.95, sum(rate({selector})))"
    else:
        count = selector.replace("seconds{", "seconds_count{")
        buckets = selector.replace("seconds{", "seconds_bucket{")
        queries = f"sum(increase({count}))", f"histogram_quantile(0.95, sum by (le) (rate({buckets})))"
    wanted = len(told), told[math.ceil(0.95 * len(told)) - 1]
    errors = []
    for query, value in zip(queries, wanted, strict=True):
        try:
            # The range API, because only it takes a source resolution from a panel.
            result = stack.query.range(query, at, at, 1, max_source_resolution=limit)
            shown = float(result[0]["values"][0][1]) if result else math.nan
        except Refused as error:
            print(f"{kind} at {limit}: {error}")
            shown = math.nan
        errors.append(None if math.isnan(shown) else shown / value - 1)
    return errors[0], errors[1]
