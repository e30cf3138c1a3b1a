"""A hand edit goes, a commit arrives, a broken commit changes nothing and says why, and a revert undoes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.gitops.argocd import ArgoCD
from tests.e2e.gitops.kube import Manifest
from tests.e2e.gitops.platform import Platform, git
from tests.e2e.gitops.rendering import render
from tests.e2e.processes import wait_until

OBSERVABILITY = "observability"
COLLECTOR = "opentelemetrycollectors.opentelemetry.io"


@pytest.fixture
def app(platform: Platform, synced: ArgoCD) -> Callable[[], Manifest]:
    """Return a function that reads the flask app's Deployment."""

    def read() -> Manifest:
        deployment = platform.kube.get("deployment", "flask-app", "checkout")
        assert deployment
        return deployment

    return read


def test_hand_edit_is_reverted(platform: Platform, app: Callable[[], Manifest]) -> None:
    before = app()["spec"]
    change = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "example.com/by-hand:1"}]
    platform.kube.patch("deployment", "flask-app", "checkout", change, how="json")
    wait_until(lambda: app()["spec"] == before, "the hand edit is gone", interval=0.5)


def test_object_deleted_by_hand_comes_back(platform: Platform, synced: ArgoCD) -> None:
    old = platform.kube.get("service", "thanos-query", OBSERVABILITY)
    assert old
    platform.kube.delete("service", "thanos-query", namespace=OBSERVABILITY)

    def back() -> bool:
        new = platform.kube.get("service", "thanos-query", OBSERVABILITY)
        return new is not None and new["metadata"]["uid"] != old["metadata"]["uid"]

    wait_until(back, "the Service is back", interval=0.5)


def test_commit_rolls_out_and_a_revert_rolls_back(platform: Platform, synced: ArgoCD) -> None:
    def replicas() -> int:
        collector = platform.kube.get(COLLECTOR, "otel", OBSERVABILITY)
        assert collector
        return int(collector["spec"]["replicas"])

    before = replicas()
    overlay(platform, "otel-collector", f"gateway: {{replicas: {before + 1}}}\n")
    pushed = platform.commit("One collector more")
    synced.refresh("otel-collector")
    synced.wait_synced("otel-collector", revision=pushed)
    assert replicas() == before + 1

    git(platform.folder, "revert", "--no-edit", "HEAD")
    reverted = git(platform.folder, "rev-parse", "HEAD")
    synced.refresh("otel-collector")
    synced.wait_synced("otel-collector", revision=reverted)
    assert replicas() == before


def test_a_change_of_the_collectors_configuration_alone_rolls_out(platform: Platform, synced: ArgoCD) -> None:
    """Its kind keeps unknown fields below ``spec.config``, where a server-side diff may see no change (argo-cd#28818)."""

    def spec() -> Manifest:
        collector = platform.kube.get(COLLECTOR, "otel", OBSERVABILITY)
        assert collector
        return dict(collector["spec"])

    def queue(of: Manifest) -> int:
        return int(of["config"]["exporters"]["otlp_grpc/tempo"]["sending_queue"].pop("queue_size"))

    before = spec()
    overlay(platform, "otel-collector", "gateway: {queue: {bytesPerSignal: 134217728}}\n")
    pushed = platform.commit("A smaller queue")
    synced.refresh("otel-collector")
    synced.wait_synced("otel-collector", revision=pushed)
    after = spec()
    assert (queue(before), queue(after)) == (268435456, 134217728)
    assert before.keys() == after.keys()
    assert {key for key in after if after[key] != before[key]} == {"config"}

    git(platform.folder, "revert", "--no-edit", "HEAD")
    synced.refresh("otel-collector")
    synced.wait_synced("otel-collector", revision=git(platform.folder, "rev-parse", "HEAD"))
    assert queue(spec()) == 268435456


def overlay(platform: Platform, component: str, text: str) -> None:
    """Write a component's values-local.yaml."""
    (folder,) = [
        f
        for f in (platform.folder / "platform-apps" / component, platform.folder / "k8s/helm-charts" / component)
        if f.is_dir()
    ]
    (folder / "values-local.yaml").write_text(text)


@pytest.fixture
def broken(platform: Platform, synced: ArgoCD) -> Iterator[Callable[[str, str], None]]:
    """Return a function that commits a component's values-local.yaml; the commit is reverted in the end, and all is well."""

    def push(component: str, text: str) -> None:
        overlay(platform, component, text)
        platform.commit("Something that does not work")
        synced.refresh(component)

    yield push
    git(platform.folder, "revert", "--no-edit", "HEAD")
    synced.refresh("flask-app")
    synced.wait_synced("flask-app", revision=git(platform.folder, "rev-parse", "HEAD"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param("replicaCount: [", "did not find expected node content", id="bad YAML"),
        pytest.param("replicaCount: many", "got string, want integer", id="wrong type"),
        pytest.param("replicaCuont: 2", "additional properties 'replicaCuont' not allowed", id="unknown key"),
        pytest.param(
            "resources: {requests: {cpu: 50m, memory: 2Gi}, limits: {memory: 1Gi}}",
            "must be less than or equal to memory limit",
            id="refused by the API server",
        ),
    ],
)
def test_broken_commit_leaves_the_running_state_alone_and_says_why(
    broken: Callable[[str, str], None], synced: ArgoCD, app: Callable[[], Manifest], values: str, message: str
) -> None:
    before = app()
    broken("flask-app", values)
    synced.wait_message("flask-app", message)
    after = app()
    assert after["spec"] == before["spec"]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert (synced.application("flask-app") or {})["status"]["health"]["status"] == "Healthy"


@pytest.mark.parametrize("environment", ["local", "production"])
def test_two_renders_are_identical(platform: Platform, environment: str, tmp_path: Path) -> None:
    first, second = (render(platform.folder, environment, tmp_path / name, platform.registry.trust) for name in "ab")
    for component, manifests in first.items():
        assert second[component] == manifests, f"{component} renders differently each time: OutOfSync for ever"


def test_nothing_is_out_of_sync_after_another_look(platform: Platform, synced: ArgoCD) -> None:
    before = {name: app["status"]["reconciledAt"] for name, app in synced.applications().items()}
    synced.refresh(hard=True)

    def looked() -> bool:
        return all(
            app["status"]["reconciledAt"] > before[name]
            and "argocd.argoproj.io/refresh" not in app["metadata"].get("annotations", {})
            for name, app in synced.applications().items()
        )

    wait_until(looked, "every Application was looked at again", interval=1)
    states = {name: app["status"]["sync"]["status"] for name, app in synced.applications().items()}
    assert set(states.values()) == {"Synced"}, states
