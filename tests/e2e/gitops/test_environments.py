"""One repository, two environments: they differ where the overlay says, and production is built to lose a node."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from scripts.charts import pinned_charts
from tests.e2e.gitops.kube import Manifest
from tests.e2e.gitops.network import matches
from tests.e2e.gitops.platform import Platform
from tests.e2e.gitops.pods import Workload, workloads
from tests.e2e.gitops.rendering import namespaces, render
from tests.e2e.gitops.upstream import packages

Rendered = dict[str, list[Manifest]]


@pytest.fixture(scope="module")
def environments(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rendered]:
    """Every chart, rendered for each environment."""
    return {
        name: render(platform.folder, name, tmp_path_factory.mktemp(name), platform.registry.trust)
        for name in ("local", "production")
    }


@pytest.fixture(scope="module")
def production(platform: Platform, environments: dict[str, Rendered]) -> list[tuple[str, Workload]]:
    """Component and workload, for all that makes pods in production."""
    where = namespaces(platform.folder)
    return [
        (name, it) for name, manifests in environments["production"].items() for it in workloads(manifests, where[name])
    ]


@pytest.fixture
def real_charts(platform: Platform, tmp_path: Path) -> None:
    """Skip where a stand-in would be judged instead of a chart."""
    standins = [path.name for path, real in packages(pinned_charts(platform.folder), tmp_path).items() if not real]
    if standins:
        pytest.skip(f"needs the real charts (UPSTREAM_CHARTS), not stand-ins: {', '.join(standins)}")


def test_environments_differ_exactly_where_an_overlay_says(
    platform: Platform, environments: dict[str, Rendered]
) -> None:
    for component in environments["production"]:
        (folder,) = [path.parent for path in platform.folder.glob(f"*/**/{component}/Chart.yaml")]
        overlays = [folder / f"values-{name}.yaml" for name in environments]
        has_overlay = any(path.is_file() and yaml.safe_load(path.read_text()) for path in overlays)
        same = environments["local"][component] == environments["production"][component]
        assert same is not has_overlay, f"{component}: overlay {has_overlay}, the same {same}"


WRITE_PATH = {
    ("otel-collector", "otel"),
    ("thanos-receive", "thanos-receive-router"),
    ("thanos-receive", "thanos-receive-ingestor"),
}


def test_production_has_no_single_replica_on_the_write_path(production: list[tuple[str, Workload]]) -> None:
    replicas = {(component, it.name): it.replicas for component, it in production}
    assert replicas.keys() >= WRITE_PATH
    assert {key: replicas[key] for key in WRITE_PATH if replicas[key] < 2} == {}


@pytest.mark.usefixtures("real_charts")
def test_production_requests_are_never_empty(production: list[tuple[str, Workload]]) -> None:
    empty = [
        f"{component}: {it.kind} {it.name}, container {container['name']}"
        for component, it in production
        for container in [*it.pod["spec"]["containers"], *it.pod["spec"].get("initContainers", [])]
        if not {"cpu", "memory"} <= container.get("resources", {}).get("requests", {}).keys()
    ]
    assert not empty, "\n".join(empty)


def _replicated(production: list[tuple[str, Workload]]) -> list[tuple[str, Workload]]:
    return [(component, it) for component, it in production if it.kind != "DaemonSet" and it.replicas > 1]


@pytest.mark.usefixtures("real_charts")
def test_production_has_a_disruption_budget_for_each_replicated_workload(
    production: list[tuple[str, Workload]], environments: dict[str, Rendered]
) -> None:
    replicated = _replicated(production)
    assert replicated
    without = []
    for component, it in replicated:
        manifests = environments["production"][component]
        budgets = [m["spec"] for m in manifests if m["kind"] == "PodDisruptionBudget"]
        covering = [b for b in budgets if matches(b["selector"], it.pod["metadata"]["labels"])]
        # The operator makes one of what its resource says.
        own = [
            m["spec"].get("podDisruptionBudget")
            for m in manifests
            if (m["kind"], m["metadata"]["name"]) == (it.kind, it.name)
        ]
        covering += [budget for budget in own if budget]
        if not covering:
            without.append(f"{component}: {it.name} has {it.replicas} replicas and no budget")
        for budget in covering:
            # A budget that allows no eviction at all would block every drain.
            assert budget.get("maxUnavailable") != 0, it.name
            assert budget.get("minAvailable") != it.replicas, it.name
    assert not without, "\n".join(without)


@pytest.mark.usefixtures("real_charts")
def test_production_spreads_each_replicated_workload(production: list[tuple[str, Workload]]) -> None:
    for component, it in _replicated(production):
        constraints = it.pod["spec"].get("topologySpreadConstraints", [])
        assert constraints, f"{component}: {it.name} may land on one node"
        for constraint in constraints:
            assert matches(constraint["labelSelector"], it.pod["metadata"]["labels"]), (
                f"{component}: {it.name} spreads by labels that its pods lack: {constraint['labelSelector']}"
            )
