"""CPU time and resident memory of a process group, from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.processes import Process

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    cpu_seconds: float
    resident_bytes: int


def usage(process: Process) -> Usage:
    """Return what the processes of a group have used so far."""
    ticks = pages = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            if int(fields[2]) == process.pid:  # the group
                ticks += int(fields[11]) + int(fields[12])
                pages += int(fields[21])
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile
    return Usage(ticks / _TICK, pages * _PAGE)
