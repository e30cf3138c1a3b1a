"""A platform that runs already, on a cluster of somebody else: only what its API answers can be tested there.

``E2E_KUBECONFIG`` names the cluster, ``E2E_PLATFORM`` the folder of the repository that was brought up on it.
"""

from __future__ import annotations

import os
from pathlib import Path

from scripts import charts
from tests.e2e.cluster.cluster import Cluster
from tests.e2e.cluster.platform import PARTS, Platform
from tests.e2e.cluster.shoppers import Record
from tests.e2e.cluster.sources import Sources
from tests.e2e.datapath.served import Request, requests_in
from tests.e2e.gitops.kube import Kube
from tests.e2e.gitops.registry import Registry
from tests.e2e.processes import Processes

KUBECONFIG, REPOSITORY = "E2E_KUBECONFIG", "E2E_PLATFORM"


def named() -> bool:
    """Return whether somebody else's cluster is to be used.

    Raises:
        ValueError: it is not said which platform runs there.
    """
    if KUBECONFIG not in os.environ:
        return False
    folder = os.environ.get(REPOSITORY, "")
    if not (Path(folder) / "platform-apps").is_dir():
        raise ValueError(f"{KUBECONFIG} is set; set {REPOSITORY} to the repository that runs there (now: {folder!r})")
    return True


class PodLogs(Record):
    """The app's record of what it served, as far as its running pods still tell."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        super().__init__([], "", Path())
        self.kube, self.namespace = kube, namespace

    def requests(self, pod: str = "") -> list[Request]:
        """Return every request that was served (by one pod), by the app's own log, in no particular order."""
        which = [f"pod/{pod}"] if pod else ["--selector", PARTS["app"][2], "--max-log-requests=50"]
        return requests_in(
            self.kube.run("-n", self.namespace, "logs", *which, "--container", PARTS["app"][3], "--tail=-1")
        )


def platform(processes: Processes) -> Platform:
    """Return the platform that runs there."""
    kube, folder = Kube(Path(os.environ[KUBECONFIG]).resolve()), Path(os.environ[REPOSITORY]).resolve()
    nowhere = Registry("", Path())
    record = PodLogs(kube, charts.namespace(folder / "k8s/helm-charts/flask-app") or "")
    context = kube.run("config", "current-context").strip()
    cluster = Cluster(kube, nowhere, {}, (), "")
    return Platform(folder, cluster, Sources(folder, nowhere), processes, record, context=context)
