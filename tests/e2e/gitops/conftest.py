"""One control plane, one registry, one platform and one Argo CD for the whole session."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from scripts.charts import pinned_charts
from tests.e2e.gitops.argocd import NAMESPACE, ArgoCD, argocd
from tests.e2e.gitops.control_plane import control_plane
from tests.e2e.gitops.controllers import controllers
from tests.e2e.gitops.kube import Kube
from tests.e2e.gitops.platform import WEBHOOKS_OFF, Platform, git, write_overlay
from tests.e2e.gitops.registry import Registry, registry
from tests.e2e.gitops.upstream import packages
from tests.platforms import bake

# Every component that is there unless a choice takes it away.
ANSWERS = {"include_fluent_bit": True, "log_backend": "loki"}
MIRROR = "mirror"


# A cluster of somebody's, where pods run, webhooks answer and images come from the public registries. Else there is
# none of it.
GIVEN_CLUSTER = os.environ.get("E2E_KUBECONFIG")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which charts, which cluster and which Terraform the suite worked with."""
    charts = os.environ.get("UPSTREAM_CHARTS")
    plugins = os.environ.get("TF_PLUGIN_MIRROR")
    off = ", ".join(WEBHOOKS_OFF)
    for line in (
        f"charts: {f'the real ones of {charts}, stand-ins for others' if charts else 'stand-ins (UPSTREAM_CHARTS is not set)'}",
        f"cluster: {GIVEN_CLUSTER or f'a control plane on loopback, with the webhooks of {off} switched off'}",
        f"Helm provider: {f'from {plugins}' if plugins else 'from the network, or not at all (TF_PLUGIN_MIRROR is not set)'}",
    ):
        terminalreporter.write_line(f"gitops: {line}")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    """A cluster: the one of ``E2E_KUBECONFIG``, else a control plane with an empty etcd."""
    if GIVEN_CLUSTER:
        yield Kube(Path(GIVEN_CLUSTER))
        return
    with control_plane(tmp_path_factory.mktemp("control-plane")) as kube:
        yield kube


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """An empty registry."""
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


def bake_for(folder: Path, mirror: Registry, **answers: object) -> Path:
    """Bake a platform that takes its charts from the mirror, push those there, and commit the platform to git."""
    where = {
        "oci_registry": f"{mirror.host}/acme",
        "chart_registry": "" if GIVEN_CLUSTER else f"{mirror.host}/{MIRROR}",
    }
    baked = bake({**where, **answers}, folder)
    mirror.push_charts(packages(pinned_charts(baked), folder / "packages"), MIRROR)
    if not GIVEN_CLUSTER:
        for component, values in WEBHOOKS_OFF.items():
            write_overlay(baked, component, "local", values)
    shutil.rmtree(baked / ".git", ignore_errors=True)
    git(baked, "init", "--quiet", "-b", "main")
    git(baked, "add", "--all")
    git(baked, "commit", "--quiet", "-m", "Scaffold the platform")
    return baked


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory, cluster: Kube, mirror: Registry) -> Iterator[Platform]:
    """The platform with every component, environment local: installed, and Argo CD at work on it."""
    folder = bake_for(tmp_path_factory.mktemp("platform"), mirror, **ANSWERS)
    made = Platform(folder, "local", cluster, mirror)
    wanted_releases = made.releases()
    first = [release for release in wanted_releases if not release.name.startswith("argocd-app-")]
    made.install(first)
    if GIVEN_CLUSTER:  # its own Argo CD runs there, and cannot read a repository of this machine
        cluster.run("scale", "statefulset/argocd-application-controller", "-n", NAMESPACE, "--replicas=0")
    with (
        argocd(tmp_path_factory.mktemp("argocd"), cluster, mirror.trust) as running,
        nullcontext() if GIVEN_CLUSTER else controllers(cluster),
    ):
        made.argocd = running
        made.install([release for release in wanted_releases if release not in first])
        yield made


@pytest.fixture
def synced(platform: Platform) -> ArgoCD:
    """Argo CD, every Application Synced and Healthy."""
    assert platform.argocd
    platform.argocd.wait_synced(timeout=300)
    return platform.argocd
