"""What runs in an image that no source has: it answers the probes and the calls that the platform makes of the real one.

python -m tests.e2e.cluster.standin NAME [ARGUMENT ...]      NAME: grafana, k8s-sidecar, loki or tempo
"""

from __future__ import annotations

import os
import signal
import sys


def main(name: str) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if name == "k8s-sidecar":
        if os.environ.get("METHOD") != "LIST":  # as an init container it ends, as a sidecar it watches
            signal.pause()
        return 0
    from tests.e2e.datapath import stores

    stores.LOOPBACK = "0.0.0.0"
    if name == "tempo":
        store = stores.TraceStore()
        store.port, store.grpc_port = 3200, 4317
    elif name == "loki":
        store = stores.LogStore()
        store.port = 3100
        asked = store.get
        # Its liveness probe.
        store.get = lambda path, query: {} if path == "/loki/api/v1/status/buildinfo" else asked(path, query)
    else:
        store = stores.HttpService()
        store.port = 3000
        store.get = lambda path, query: "ok"
    store.start()
    signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
