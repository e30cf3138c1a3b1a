"""Runs every measurement on a fresh bake; writes docs/benchmarks/ and the constants of `make capacity`."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.e2e.datapath.bench import capacity, constants, delay, histograms, longterm, overhead
from tests.e2e.datapath.bench.report import Results, page, plot
from tests.e2e.datapath.conftest import ANSWERS
from tests.e2e.datapath.declared import Declared
from tests.e2e.datapath.stack import Stack
from tests.e2e.datapath.wiring import COMPRESSED
from tests.e2e.processes import Processes
from tests.e2e.toolchain import ToolchainError
from tests.platforms import ROOT, bake

T = TypeVar("T")
OUT = ROOT / "docs" / "benchmarks"


def step(name: str, measure: Callable[[Stack], T], stack: Stack) -> T:
    print(f"bench: {name} ...", file=sys.stderr, flush=True)
    began = time.monotonic()
    result = measure(stack)
    print(f"bench: {name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return result


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = Path(scratch)
        declared = Declared(bake(ANSWERS, folder / "bake"))
        with Processes(folder / "logs") as processes:
            stack = Stack(declared, folder / "live", processes)
            # The measured app runs as baked, at the baked intervals; histograms.py compresses its own simulators.
            baked = {name: value for name, value in stack.baked_environment().items() if name in COMPRESSED}
            stack.changes["app"] = lambda env: {k: v for k, v in env.items() if k not in COMPRESSED} | baked
            try:
                stack.start()
                growth = step("growth", capacity.growth, stack)
                waited = step("delay", delay.run, stack)
                costs = step("overhead", overhead.run, stack)
                rows = step("histograms", histograms.run, stack)
                limits = step("limits", capacity.limits, stack)
            finally:
                stack.stop()
        with Processes(folder / "long-logs") as processes:
            stack = Stack(declared, folder / "long", processes)
            try:
                long_rows, long_memory = step("long term", longterm.run, stack)
            finally:
                stack.stop()
        with Processes(folder / "constants-logs") as processes:
            stack = Stack(declared, folder / "constants", processes)
            try:
                measured = step("constants", constants.measure, stack)
            finally:
                stack.stop()
        with Processes(folder / "three-logs") as processes:
            stack = Stack(declared, folder / "three", processes)
            try:
                saturation = step("three ingestors", capacity.saturation, stack)
            finally:
                stack.stop()
    measured |= {
        "ingestor_memory": growth[0].resident["ingestor"],
        "collector_requests": limits.collector_requests,
        "receive_samples": saturation.one,
        "receive_ratio": saturation.ratio,
    }
    constants.write(measured)
    results = Results(waited, costs, rows, long_rows, long_memory, limits, growth, saturation, constants.known())
    OUT.mkdir(parents=True, exist_ok=True)
    text = page(results)
    (OUT / "README.md").write_text(text)
    plot(results, OUT / "datapath.svg")
    print(text)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ToolchainError as error:
        sys.exit(f"bench: {error}")
