"""Runs the baked doctor against a running stack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.e2e import toolchain
from tests.e2e.datapath import traffic
from tests.e2e.datapath.stack import Stack
from tests.e2e.processes import wait_until

# Seconds that a sample may be old: above the time that a report of the collector about itself takes (see `stack`).
MAX_AGE = 5
BACKENDS = {
    "collector": "collector",
    "router": "router",
    "receive": "ingestor",
    "query": "query",
    "tempo": "tempo",
    "loki": "loki",
}


def doctor(
    stack: Stack, *arguments: str, repository: Path | None = None, since: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the doctor against the stack's addresses.

    It reads the files of ``repository`` (default: the baked platform), and looks at exemplars and lines from ``since`` on
    (Unix seconds; default: of the last hour).
    """
    urls = [f"--{option}-url={stack.url(part)}" for option, part in BACKENDS.items()]
    helm = toolchain.tool("helm").parent
    return subprocess.run(
        [
            *(sys.executable, "-m", "scripts.doctor", *urls, f"--repo={repository or stack.declared.platform}"),
            # A checkout that charges itself is all that the stack runs.
            *("--env=production", "--service=checkout", f"--max-age={MAX_AGE}", "--settle=3", *arguments),
            *([f"--since={time.time() - since + 1}"] if since else []),
        ],
        cwd=stack.declared.platform,
        env={**os.environ, "PATH": f"{helm}:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def first_broken(stack: Stack, repository: Path | None, since: float) -> str:
    """Send a few requests, run the doctor, and return the first broken hop as "finding: evidence" ("" where none is)."""
    if "app" in stack.parts:
        traffic.checkouts(stack, 3, "/unstable?delay_ms=1")
    done = doctor(stack, "--json", repository=repository, since=since)
    first = json.loads(done.stdout)["first"]
    assert done.returncode == (1 if first else 0)
    return f"{first['finding']}: {first['evidence']}" if first else ""


def names(
    stack: Stack, finding: str, evidence: str = "", repository: Path | None = None, since: float | None = None
) -> None:
    """Wait until the doctor names ``finding`` ("": nothing) with ``evidence``: samples from before a fault must grow old.

    What was before ``since`` (default: before this call) does not matter: exemplars of then may lead nowhere for good.
    """
    begin = since or time.time()

    def named() -> bool:
        said = first_broken(stack, repository, begin)
        assert said.partition(":")[0] == finding, f"the doctor says {said or 'nothing'}"
        assert evidence in said
        return True

    wait_until(named, f"the doctor names {finding or 'nothing'}", timeout=60, interval=1)
