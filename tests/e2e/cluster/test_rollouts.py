"""What is committed is what runs: compared with the running containers, not with what Argo CD says of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.e2e.cluster.platform import Platform
from tests.e2e.processes import wait_until

DASHBOARD = "checkout-red"
pytestmark = pytest.mark.usefixtures("nodes")


@dataclass(frozen=True)
class Change:
    """A change of values or of a file, and how to see what runs."""

    component: str
    folder: str
    values: dict[str, Any]
    runs: Callable[[Platform], object]
    wanted: object


def queue_size(platform: Platform) -> object:
    """Return the size of the queue for traces in the file that the running collector has before it."""
    return {
        exporter["sending_queue"]["queue_size"]
        for one in platform.containers("collector")  # none while the one pod is replaced
        for exporter in yaml.safe_load(one.read("/conf/collector.yaml"))["exporters"].values()
        if "sending_queue" in exporter
    }


def peak_length(platform: Platform) -> object:
    """Return the setting in the environment of the app's process; of two processes while one replaces the other."""
    return {one.environment.get("CHECKOUT_PEAK_LENGTH_S") for one in platform.containers("app")}


def users(platform: Platform) -> object:
    """Return how many users the running load generator has been told of."""
    pods = platform.pods("app.kubernetes.io/name=load-generator")
    return [
        argument
        for pod in pods
        if pod["status"]["phase"] == "Running" and not pod["metadata"].get("deletionTimestamp")
        for argument in pod["spec"]["containers"][0]["args"]
        if argument.startswith("--users")
    ]


CHANGES = {
    "collector": Change(
        "otel-collector",
        "platform-apps/otel-collector",
        {"gateway": {"queue": {"bytesPerSignal": 201326592}}},
        queue_size,
        {201326592},
    ),
    "app": Change("flask-app", "k8s/helm-charts/flask-app", {"settings": {"peakLengthS": 31}}, peak_length, {"31"}),
    "load": Change(
        "load-generator",
        "platform-apps/load-generator",
        {"enabled": True, "users": 7},
        users,
        ["--users=7"],
    ),
}


def follow(platform: Platform, revision: str, wanted: dict[str, object]) -> None:
    """Wait until Argo CD calls every changed component Synced at a commit, and each runs what is wanted of it."""
    components = [change.component for change in CHANGES.values()]
    platform.argocd.refresh(*components)
    platform.argocd.wait_synced(*components, revision=revision, timeout=180)

    def runs() -> bool:
        assert {name: change.runs(platform) for name, change in CHANGES.items()} == wanted
        return True

    wait_until(runs, "what was committed runs", 120, 1)


def test_a_commit_rolls_out_and_its_revert_rolls_back(platform: Platform) -> None:
    """What Argo CD calls Synced at that commit is what the running programs have; the revert brings the old state back."""
    before = {name: change.runs(platform) for name, change in CHANGES.items()}
    for name, change in CHANGES.items():
        assert before[name] != change.wanted
        platform.write(change.folder, change.values)
    revision = platform.commit("A change of three components")
    follow(platform, revision, {name: change.wanted for name, change in CHANGES.items()})
    follow(platform, platform.revert(revision), before)


def test_a_dashboard_rolls_out(platform: Platform) -> None:
    """The ConfigMap that Grafana's sidecar watches has the dashboard of the commit."""
    file = platform.folder / f"platform-apps/grafana/dashboards/{DASHBOARD}.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "title": "Another title"}, indent=2))
    revision = platform.commit("A dashboard")
    platform.argocd.refresh("grafana")
    platform.argocd.wait_synced("grafana", revision=revision, timeout=120)
    found = platform.cluster.kube.get("configmap", f"grafana-dashboard-{DASHBOARD}", "observability")
    assert found
    assert json.loads(found["data"][f"{DASHBOARD}.json"])["title"] == "Another title"
    platform.revert(revision)
