"""Writes what was measured as a page and a plot."""

from __future__ import annotations

import os
import platform
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

from tests.e2e import toolchain
from tests.e2e.datapath.bench import capacity, constants, histograms, longterm, overhead

matplotlib.use("svg")
from matplotlib import pyplot


@dataclass(frozen=True)
class Results:
    delay: dict[str, float]
    overhead: dict[str, dict[str, overhead.Load]]
    histograms: list[histograms.Row]
    longterm: list[longterm.Row]
    longterm_memory: dict[str, int]
    limits: capacity.Limits
    growth: list[capacity.Growth]
    saturation: capacity.Saturation
    known: dict[str, dict[str, Any]]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def percent(error: float | None) -> str:
    return "no answer" if error is None else f"{error * 100:+.2f} %"


def page(results: Results) -> str:
    """Return the page in Markdown."""
    delay = results.delay
    loads = results.overhead
    versions = f"Thanos {toolchain.TOOLS['thanos'].version}, OpenTelemetry Collector {toolchain.COLLECTOR_VERSION}"
    cores, machine = os.cpu_count(), platform.machine()
    sections = [
        "# Benchmarks of the data path",
        "`make bench` measures this and writes this page and the plot (about nine minutes on 2 cores; it needs what `make e2e` "
        f"needs). Last run: {cores} cores, {machine}, Linux, {versions}, parts and load on the same machine. Absolute "
        "numbers are this machine's; compare the ratios. Method: the modules of `tests/e2e/datapath/bench/`. What "
        "the whole platform needs in containers: [the first minutes](first-minutes.md).",
        "## Native or classic histograms",
        "The same simulator, the same load profile, one histogram each way. p95 errors are against the simulator's own log "
        "lines; the bytes are those of one OTLP export of one label set; at the baked export interval, "
        "exemplars kept are the share of requests whose exemplar Thanos holds, and refused those of the SDK's that it does not: "
        "of a native series the SDK reports up to 20 requests an export, from the 20th on in any order, and Receive takes none "
        "that is older than the newest it has.",
        table(
            ["", "series", "bytes an export", "p95 error, normal", "p95 error, peak", "exemplars kept", "refused"],
            [
                [
                    row.kind,
                    str(row.series),
                    f"{row.bytes_per_sample:.0f}",
                    percent(row.p95_errors["normal"]),
                    percent(row.p95_errors["peak"]),
                    f"{row.exemplars:.0%}",
                    f"{row.refused} of {row.offered}",
                ]
                for row in results.histograms
            ],
        ),
        "Through the bucket: two weeks and a half of back-dated minutes, written to Receive, merged to a two-week block and "
        "downsampled by the Compactor, read through the Store Gateway over 12 hours with the sources deleted.",
        table(
            ["", "resolution", "bytes of the block", "count error", "p95 error"],
            [
                [row.kind, row.resolution, f"{row.bytes:,}", percent(row.count_error), percent(row.p95_error)]
                for row in results.longterm
            ],
        ),
        verdict(results),
        "For that one service, written both ways, the Compactor needed "
        f"{results.longterm_memory['compactor'] / 1e6:.0f} MB at most, the Store Gateway held "
        f"{results.longterm_memory['store-gateway'] / 1e6:.0f} MB after the queries.",
        "## From the end of a request to its exemplar",
        f"{delay['found']:.0f} of {delay['requests']:.0f} exemplars were found through Query Frontend. Against the export "
        f"interval of {delay['interval']:g} s: "
        f"p50 {delay['p50'] / delay['interval']:.2f}, p95 {delay['p95'] / delay['interval']:.2f}, "
        f"longest {delay['max'] / delay['interval']:.2f}.",
        "## Instrumented against bare simulator",
        "Medians of alternating rounds; `/healthz` stands for a handler that does nothing, with instrumentation not left out.",
        table(
            ["handler", "requests/s", "p50", "p99", "CPU a request", "CPU more a request"],
            [
                [
                    f"`{path}`",
                    f"{kinds['instrumented'].rate / kinds['bare'].rate:.2f} ×",
                    f"{kinds['instrumented'].p50 / kinds['bare'].p50:.2f} ×",
                    f"{kinds['instrumented'].p99 / kinds['bare'].p99:.2f} ×",
                    f"{kinds['instrumented'].cpu / kinds['bare'].cpu:.2f} ×",
                    f"{(kinds['instrumented'].cpu - kinds['bare'].cpu) * 1000:.2f} ms",
                ]
                for path, kinds in loads.items()
            ],
        ),
        "## Room and growth",
        f"One collector took and delivered {results.limits.collector_requests:,.0f} simulated requests/s "
        f"({capacity.SPANS} spans each, through the queue on disk); one router with one ingestor took "
        f"{results.saturation.one:,.0f} native histogram samples/s. A checkout simulator exports a few every "
        "interval, so traces set the limit, not metrics.",
        f"Three ingestors at replication factor 3, to saturation: {results.saturation.three:,.0f} samples/s in, against "
        f"{results.saturation.one:,.0f} with one ingestor on the same cores: {results.saturation.ratio:.2f} ×. Each sample is "
        "written three times, so 0.33 × is what the same work costs; on nodes of their own the three together take about what "
        "one takes.",
        f"Services of {capacity.RATE} requests/s with an export every second:",
        table(
            ["services", *(f"{name}: MB (cores)" for name in capacity.PROCESSES)],
            [
                [
                    str(growth.services),
                    *(f"{growth.resident[name] / 1e6:.0f} ({growth.cpu[name]:.3f})" for name in capacity.PROCESSES),
                ]
                for growth in results.growth
            ],
        ),
        "## Constants of `make capacity`",
        "What a platform's `make capacity` counts with: this run wrote them into `scripts/constants.yaml`. How far Tempo and "
        "Loki compress is an estimate there, since neither runs here.",
        table(
            ["constant", "value", "unit"],
            [
                [f"`{name}`", constants.rounded(entry["value"]), entry["unit"]]
                for name, entry in results.known.items()
                if entry["source"].startswith("measured")
            ],
        ),
        "![Errors of p95, bytes of the blocks, memory and CPU by number of services](datapath.svg)",
    ]
    return "\n\n".join(section if section[0] in "#|!" else wrapped(section) for section in sections) + "\n"


def wrapped(paragraph: str) -> str:
    """Return a paragraph in lines of .editorconfig's length."""
    return textwrap.fill(paragraph, 120, break_long_words=False, break_on_hyphens=False)


def verdict(results: Results) -> str:
    """Return what the numbers say about the baked default, native."""
    native, classic = (next(row for row in results.histograms if row.kind == kind) for kind in longterm.KINDS)
    far = {
        kind: max(
            abs(row.p95_error) if row.p95_error is not None else float("inf")
            for row in results.longterm
            if row.kind == kind
        )
        for kind in longterm.KINDS
    }
    sizes = {kind: sum(row.bytes for row in results.longterm if row.kind == kind) for kind in longterm.KINDS}
    answers = all(
        row.count_error is not None and row.p95_error is not None for row in results.longterm if row.kind == "native"
    )
    wins = answers and far["native"] < far["classic"] and native.series < classic.series
    said = "Native is the baked default" if wins else "These numbers speak against the baked default, native"
    return (
        f"**{said}**: {native.series / classic.series:.2f} × the series, {sizes['native'] / sizes['classic']:.2f} × the bytes in the "
        f"bucket, a p95 that is at most {far['native']:.1%} off at any resolution (classic: {far['classic']:.1%}), and "
        f"{native.exemplars:.0%} of the exemplars (classic: {classic.exemplars:.0%})."
    )


def plot(results: Results, path: Path) -> None:
    """Draw the four comparisons into an SVG."""
    matplotlib.rcParams["svg.hashsalt"] = "bench"
    figure, axes = pyplot.subplots(2, 2, figsize=(10, 7), layout="constrained")
    colours = {"native": "#1f77b4", "classic": "#ff7f0e"}
    for number, kind in enumerate(longterm.KINDS):
        of_kind = [row for row in results.longterm if row.kind == kind]
        live = next(row for row in results.histograms if row.kind == kind)
        errors = {f"live, {mode}": abs(error) * 100 for mode, error in live.p95_errors.items()}
        errors |= {f"bucket, {row.resolution}": abs(row.p95_error or 0) * 100 for row in of_kind}
        places = [index + number * 0.4 for index in range(len(errors))]
        axes[0, 0].bar(places, errors.values(), 0.4, label=kind, color=colours[kind])
        axes[0, 0].set_xticks([index + 0.2 for index in range(len(errors))], errors, rotation=20, fontsize=8)
        places = [index + number * 0.4 for index in range(len(of_kind))]
        axes[0, 1].bar(places, [row.bytes / 1e3 for row in of_kind], 0.4, label=kind, color=colours[kind])
        axes[0, 1].set_xticks([index + 0.2 for index in range(len(of_kind))], [row.resolution for row in of_kind])
    axes[0, 0].set_yscale("log")
    axes[0, 0].set_title("Error of p95 (%)")
    axes[0, 1].set_title("Two-week block of one service (kB)")
    counts = [growth.services for growth in results.growth]
    for name in capacity.PROCESSES:
        axes[1, 0].plot(counts, [growth.resident[name] / 1e6 for growth in results.growth], marker="o", label=name)
        axes[1, 1].plot(counts, [growth.cpu[name] for growth in results.growth], marker="o", label=name)
    axes[1, 0].set_title("Resident memory (MB)")
    axes[1, 1].set_title("CPU (cores)")
    axes[0, 0].yaxis.set_major_formatter("{x:g}")
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.set_axisbelow(True)
    for axis in axes[1]:
        axis.set_xscale("log")
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.minorticks_off()
        axis.set_ylim(bottom=0)
        axis.set_xlabel("services")
    for axis in (*axes[0], axes[1, 1]):  # the lines of the last two are the same
        axis.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})
