"""One control plane, one registry, one platform and one Argo CD for the whole session."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.bake import bake
from tests.e2e.gitops.argocd import ArgoCD, argocd
from tests.e2e.gitops.control_plane import control_plane
from tests.e2e.gitops.controllers import controllers
from tests.e2e.gitops.kube import Kube
from tests.e2e.gitops.platform import WEBHOOKS_OFF, Platform, git, write_overlay
from tests.e2e.gitops.registry import Registry, registry
from tests.e2e.gitops.upstream import packages, wanted

# Every component that is there unless a choice takes it away.
ANSWERS = {"include_fluent_bit": "true", "log_backend": "loki"}
MIRROR = "mirror"


def pytest_report_header() -> str:
    """Say which charts and which cluster the suite works with."""
    charts = os.environ.get("UPSTREAM_CHARTS")
    return (
        f"gitops: charts: {f'those in {charts}, stand-ins for others' if charts else 'stand-ins (UPSTREAM_CHARTS is not set)'}; "
        f"cluster: {os.environ.get('E2E_KUBECONFIG') or 'a control plane on loopback'}; "
        f"Terraform: {os.environ.get('TF_PLUGIN_MIRROR') or 'without the Helm provider (TF_PLUGIN_MIRROR is not set)'}"
    )


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    """A cluster: the one of ``E2E_KUBECONFIG``, else a control plane with an empty etcd."""
    given = os.environ.get("E2E_KUBECONFIG")
    if given:
        yield Kube(Path(given))
        return
    with control_plane(tmp_path_factory.mktemp("control-plane")) as kube:
        yield kube


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """An empty registry."""
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


def bake_for(folder: Path, mirror: Registry, **answers: str) -> Path:
    """Bake a platform that takes its charts from the mirror, push those there, and commit the platform to git."""
    baked = bake(folder, chart_registry=f"{mirror.host}/{MIRROR}", oci_registry=f"{mirror.host}/acme", **answers)
    mirror.push_charts(packages(wanted(baked), folder / "packages"), MIRROR)
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
    with (
        argocd(tmp_path_factory.mktemp("argocd"), cluster, mirror.trust) as running,
        controllers(cluster),
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
