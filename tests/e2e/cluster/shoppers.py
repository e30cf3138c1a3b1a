"""Requests to the app through its Service, as pods send them, and the app's own record of what it served."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.cluster.node import Node
from tests.e2e.datapath.served import Request, requests_in

# Takes an address and a number of shoppers, shops until its input ends, prints what it has seen. A new connection for
# each request, so that the Service spreads them.
_SHOP = """
import collections, json, sys, threading, urllib.error, urllib.request
url, shoppers = sys.argv[1], int(sys.argv[2])
seen, over = [], threading.Event()
def shop():
    while not over.wait(0.4):
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                seen.append(str(answer.status))
        except urllib.error.HTTPError as error:
            seen.append(str(error.code))
        except OSError as error:
            seen.append(repr(error))
threads = [threading.Thread(target=shop) for _ in range(shoppers)]
for thread in threads:
    thread.start()
sys.stdin.read()
over.set()
for thread in threads:
    thread.join()
print(json.dumps(collections.Counter(seen)))
"""


@dataclass
class Seen:
    """What the shoppers saw, filled when they have gone home: how often which status, or which error of the network."""

    answers: dict[str, int] = field(default_factory=dict)

    @property
    def failed(self) -> dict[str, int]:
        """Return what was no answer of the app; the 500 of the simulation is one."""
        return {what: count for what, count in self.answers.items() if what not in ("200", "500")}


@contextmanager
def shoppers(node: Node, url: str, count: int = 5, namespace: str = "") -> Iterator[Seen]:
    """Send requests from a node's network, or that of a pod on it (``packets.namespaces``), until the block ends."""
    seen = Seen()
    inside = ("nsenter", f"--net={namespace}") if namespace else ()
    command = [*node.enter, *inside, sys.executable, "-c", _SHOP, url, str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield seen
        finally:
            said, _ = process.communicate(timeout=60)
    seen.answers = json.loads(said)


@dataclass
class Record:
    """Every line that containers of one kind wrote, also of pods that are gone: use it as a context manager.

    The kubelet removes the log files of a pod with the pod; this keeps a second link to each in ``folder``. ``pods`` is the
    pattern of their folders' names: namespace_pod_uid.
    """

    nodes: list[Node]
    pods: str
    folder: Path
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Record:
        self.folder.mkdir(parents=True)
        self._keep()
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def requests(self, pod: str = "") -> list[Request]:
        """Return every request that was served (by one pod), by the app's own log, in no particular order."""
        return [
            request
            for file in sorted(self.folder.glob(f"*_{pod}_*" if pod else "*"))
            for request in requests_in(file.read_text(errors="replace"))
        ]

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            self._keep()

    def _keep(self) -> None:
        for node in self.nodes:
            for file in (node.folder / "log" / "pods").glob(f"{self.pods}/*/*.log"):
                with suppress(FileNotFoundError):
                    kept = self.folder / f"{file.stat().st_ino}-{file.parent.parent.name}.log"
                    if not kept.exists():
                        os.link(file, kept)


def newer(requests: list[Request], than: list[Request]) -> list[Request]:
    """Return the requests that an earlier reading of the record had not."""
    known = {request.span_id for request in than}
    return [request for request in requests if request.span_id not in known]
