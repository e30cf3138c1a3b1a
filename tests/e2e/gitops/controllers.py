"""What the controllers of the OpenTelemetry operator and of cert-manager would report, since their pods only pretend to run.

They write status and nothing else: Argo CD's health of their kinds reads it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.e2e.gitops.kube import Kube, Manifest, Refused

_READY = {"conditions": [{"type": "Ready", "status": "True", "reason": "E2E", "message": "reported by the test suite"}]}


def _status(item: Manifest) -> Manifest:
    if item["kind"] != "OpenTelemetryCollector":
        return _READY
    count = item["spec"].get("replicas", 1)
    return {"scale": {"replicas": count, "statusReplicas": f"{count}/{count}"}}


KINDS = (
    "opentelemetrycollectors.opentelemetry.io",
    "certificates.cert-manager.io",
    "issuers.cert-manager.io",
    "clusterissuers.cert-manager.io",
    "externalsecrets.external-secrets.io",
    "secretstores.external-secrets.io",
    "clustersecretstores.external-secrets.io",
)


@contextmanager
def controllers(kube: Kube) -> Iterator[None]:
    """Report every object of these kinds as ready, until the block ends."""
    done = threading.Event()
    thread = threading.Thread(target=_report, args=(kube, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(30)


def _report(kube: Kube, done: threading.Event) -> None:
    while not done.wait(1):
        for kind in kube.known(*KINDS):
            # An object may go, and a kind with it, between the question and the answer.
            with suppress(Refused):
                for item in kube.list(kind):
                    wanted = _status(item)
                    if wanted.items() <= item.get("status", {}).items():
                        continue
                    about = item["metadata"]
                    kube.patch(kind, about["name"], about.get("namespace"), {"status": wanted}, subresource="status")
