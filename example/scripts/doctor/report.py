"""How a walk is shown: a table for people, JSON for programs."""

from __future__ import annotations

import json

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .checks import Check
from .model import Result, Status

STYLES = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "bold red", Status.SKIP: "dim"}
RUNBOOK = "docs/runbook.md"


def first_broken(walked: list[tuple[Check, Result]]) -> tuple[Check, Result] | None:
    """Return the first hop that failed."""
    return next(((check, result) for check, result in walked if result.status is Status.FAIL), None)


def show(walked: list[tuple[Check, Result]], console: Console) -> None:
    """Print the table and, below it, the first broken hop with its likely cause and what mends it."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("Hop", no_wrap=True)
    table.add_column("Evidence", overflow="fold")
    for check, result in walked:
        # The word says what the colour says, so that the table reads without colours.
        word = Text(result.status.value.upper(), style=STYLES[result.status])
        table.add_row(word, check.name, Text(result.evidence, style="dim" if result.status is Status.SKIP else ""))
    console.print(table)
    broken = first_broken(walked)
    if not broken:
        skipped = sum(result.status is Status.SKIP for _, result in walked)
        console.print(f"No hop is broken ({skipped} of {len(walked)} were not looked at).", highlight=False)
        return
    check, result = broken
    for name, text in {
        "First broken hop": f"{check.name} ({result.finding})",
        "Likely cause": result.cause,
        "Fix": result.fix,
        "Run-book": f"{RUNBOOK}#{result.finding}",
    }.items():
        console.print(Text.assemble((f"{name + ':':<18}", "bold"), text), soft_wrap=True)


def as_json(walked: list[tuple[Check, Result]]) -> str:
    """Return the walk as JSON: ``healthy``, ``first`` (the first broken hop or null) and ``hops``."""
    broken = first_broken(walked)
    hops = [_hop(check, result) for check, result in walked]
    return json.dumps({"healthy": broken is None, "first": _hop(*broken) if broken else None, "hops": hops}, indent=2)


def _hop(check: Check, result: Result) -> dict[str, str | None]:
    return {
        "hop": check.name,
        "status": result.status.value,
        "evidence": result.evidence,
        "finding": result.finding,
        "cause": result.cause or None,
        "fix": result.fix or None,
        "runbook": f"{RUNBOOK}#{result.finding}" if result.finding else None,
    }
