"""What runs in an image that no source has: it answers the probes and the calls that the platform makes of the real one.

python -m tests.e2e.cluster.standin NAME [ARGUMENT ...]      NAME: grafana, k8s-sidecar, loki or tempo
"""

from __future__ import annotations

import os
import signal
import sys

from tests.e2e.datapath import stores

# In a pod every address is its own.
stores.HttpService.listen = "0.0.0.0"


class Grafana(stores.HttpService):
    """Answers every page."""

    def get(self, path: str, query: dict[str, str]) -> object:
        return "ok"


class Loki(stores.LogStore):
    """The suite's log store, with the page that the liveness probe asks for."""

    def get(self, path: str, query: dict[str, str]) -> object:
        return {} if path == "/loki/api/v1/status/buildinfo" else super().get(path, query)


def main(name: str) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if name == "k8s-sidecar":
        if os.environ.get("METHOD") != "LIST":  # as an init container it ends, as a sidecar it watches
            signal.pause()
        return 0
    store: stores.HttpService
    if name == "tempo":
        store = tempo = stores.TraceStore()
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
