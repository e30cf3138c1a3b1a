"""What runs in an image that no source has: it answers the probes and the calls that the platform makes of the real one.

python -m tests.e2e.cluster.standin NAME [ARGUMENT ...]      NAME: grafana, k8s-sidecar, loki or tempo
"""

from __future__ import annotations

import os
import signal
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.e2e.datapath import stores

# In a pod every address is its own.
stores.HttpService.listen = "0.0.0.0"


class Grafana(stores.HttpService):
    """Answers every page."""

    def get(self, path: str, query: dict[str, str]) -> object:
        return "ok"


class Journal:
    """What a store has taken, on the volume of its pod: a SIGKILL loses nothing of it, as with the real ones."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "journal"
        self._file.touch()
        self._lock = threading.Lock()

    def add(self, record: bytes) -> None:
        with self._lock, self._file.open("ab") as file:
            file.write(struct.pack(">I", len(record)) + record)

    def records(self) -> Iterator[bytes]:
        """Return every whole record, from the first."""
        content, at = self._file.read_bytes(), 0
        while at + 4 <= len(content):
            end = at + 4 + int(struct.unpack_from(">I", content, at)[0])
            if end > len(content):
                return
            yield content[at + 4 : end]
            at = end


class Tempo(stores.TraceStore):
    """The suite's trace store, on its volume."""

    def start(self) -> None:
        self.journal = Journal(Path("/var/tempo"))
        for record in self.journal.records():
            super().keep(ExportTraceServiceRequest.FromString(record))
        super().start()

    def keep(self, request: ExportTraceServiceRequest) -> None:
        super().keep(request)
        self.journal.add(request.SerializeToString())


class Loki(stores.LogStore):
    """The suite's log store, on its volume, with the page that the liveness probe asks for."""

    def start(self) -> None:
        self.journal = Journal(Path("/var/loki"))
        for record in self.journal.records():
            super().post(_LOGS, record, _PROTOBUF)
        super().start()

    def get(self, path: str, query: dict[str, str]) -> object:
        return {} if path == "/loki/api/v1/status/buildinfo" else super().get(path, query)

    def post(self, path: str, body: bytes, content_type: str) -> bytes:
        answer = super().post(path, body, content_type)
        self.journal.add(body)
        return answer


_LOGS, _PROTOBUF = "/otlp/v1/logs", "application/x-protobuf"


def main(name: str) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if name == "k8s-sidecar":
        if os.environ.get("METHOD") != "LIST":  # as an init container it ends, as a sidecar it watches
            signal.pause()
        return 0
    store: stores.HttpService
    if name == "tempo":
        store = tempo = Tempo()
        store.port, tempo.grpc_port = 3200, 4317
    elif name == "loki":
        store = Loki()
        store.port = 3100
    else:
        store = Grafana()
        store.port = 3000
    store.start()
    signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
