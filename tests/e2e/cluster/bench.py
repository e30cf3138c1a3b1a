"""The first minutes of the default platform in real containers; writes docs/benchmarks/first-minutes.md.

    python -m tests.e2e.cluster.bench

It measures what the cluster suite runs, with everything real: where charts, provider or images are missing it says so and
writes nothing.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from pathlib import Path

from tests.e2e.cluster.cluster import cluster, missing
from tests.e2e.cluster.platform import Platform, prepare
from tests.e2e.cluster.telemetry import Telemetry
from tests.e2e.processes import Processes, wait_until
from tests.platforms import ROOT

PAGE = ROOT / "docs" / "benchmarks" / "first-minutes.md"
SETTLED_SECONDS = 60  # without load, after which memory counts as idle
NEEDED = ("UPSTREAM_CHARTS", "TF_PLUGIN_MIRROR")
WORKLOAD = re.compile(r"-[0-9a-f]{6,10}-[0-9a-z]{5}$")  # what a Deployment adds to its name for a pod's
Memory = dict[str, tuple[int, int, int]]  # MiB of each pod: working set, request, limit


def idle(platform: Platform) -> Memory:
    """Return the memory of every pod when nobody has shopped for a while."""
    revision = platform.overlay("platform-apps/load-generator", {"enabled": False}, "No load")
    platform.argocd.refresh("load-generator")
    platform.argocd.wait_synced("load-generator", revision=revision, timeout=120)
    time.sleep(SETTLED_SECONDS)
    found = platform.memory()
    platform.revert(revision)
    platform.argocd.refresh("load-generator")
    return found


def peak(platform: Platform) -> Memory:
    """Return the most that every pod has used in a peak of the simulator, to its end."""

    def peaking() -> bool:
        told = platform.record.requests()
        return len(told) > 10 and all(request.mode == "peak" for request in told[-3:])

    wait_until(peaking, "a peak", 300, 1)
    most = platform.memory()
    while peaking():
        for name, (used, request, limit) in platform.memory().items():
            most[name] = (max(used, most.get(name, (0,))[0]), request, limit)
    return most


def replaced(platform: Platform) -> set[str]:
    """Return the pods of which an image is a stand-in's."""
    stand_ins = set(platform.sources.of("stand-in"))
    return {
        WORKLOAD.sub("", pod["metadata"]["name"])
        for pod in platform.pods()
        if stand_ins & {container["image"] for container in pod["spec"]["containers"]}
    }


def page(healthy: float, exemplar: float, at_rest: Memory, at_most: Memory, stand_ins: set[str]) -> str:
    """Return the page."""
    rested = {WORKLOAD.sub("", name): used for name, (used, _, _) in at_rest.items()}
    rows, rest_of_all, used_of_all = [], 0, 0
    for name, (used, request, limit) in sorted((WORKLOAD.sub("", pod), memory) for pod, memory in at_most.items()):
        if name in stand_ins:
            rows.append(f"| {name} | stand-in | stand-in | {request} | {limit} | |")
            continue
        rest = rested.get(name, 0)
        rest_of_all, used_of_all = rest_of_all + rest, used_of_all + used
        rows.append(f"| {name} | {rest} | {used} | {request} | {limit} | {used / limit:.2f} × |")
    requests, limits = (sum(memory[place] for memory in at_most.values()) for place in (1, 2))
    rows.append(f"| **all** | {rest_of_all} | {used_of_all} | {requests} | {limits} | |")
    return f"""# The first minutes

`make bench` measures this in the cluster suite's containers: the default platform, environment local, one node of
{os.cpu_count()} cores, images at hand. From an empty cluster (nodes Ready, nothing installed):

- all Applications Synced and Healthy after {healthy:.0f} s,
- the first exemplar of a request in Thanos after {exemplar:.0f} s, {exemplar / healthy:.2f} × of that.

MiB of each pod: its working set without load for {SETTLED_SECONDS} s, and the most in a peak of the simulator; what it asks
for, what it may have at most, and the share of that which the peak takes. What stand-ins use
says nothing, and is left out of the sum.

| pod | idle | peak | request | limit | peak of limit |
|---|---|---|---|---|---|
{chr(10).join(rows)}
"""


def main() -> int:
    lacks = [
        *missing(),
        *(f"{name}, which names what the platform is made of" for name in NEEDED if name not in os.environ),
    ]
    if lacks:
        print("bench: the first minutes are not measured; this lacks:\n  " + "\n  ".join(lacks), file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = Path(scratch)
        with cluster(folder / "cluster") as running, Processes(folder / "logs") as processes:
            platform = prepare(folder / "platform", running, processes)
            for source in ("stand-in", "nowhere"):
                print(f"bench: {source}: {', '.join(platform.sources.of(source)) or 'no image'}", file=sys.stderr)
            if platform.sources.of("nowhere"):
                return 0
            with platform.record:
                platform.up()
                healthy = time.time() - platform.started
                telemetry = Telemetry(platform)
                found = wait_until(lambda: telemetry.exemplars(platform.started, time.time()), "an exemplar", 120, 1)
                exemplar = min(it.time for it in found) - platform.started
                at_rest = idle(platform)
                PAGE.write_text(page(healthy, exemplar, at_rest, peak(platform), replaced(platform)))
    print(PAGE.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
