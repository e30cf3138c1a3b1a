"""The default platform on a cluster of real nodes, made by the bake's own scripts."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from scripts import charts
from tests.e2e.cluster.cluster import Cluster
from tests.e2e.cluster.node import run
from tests.e2e.cluster.sources import Sources
from tests.e2e.gitops.argocd import ArgoCD
from tests.e2e.gitops.platform import git
from tests.e2e.gitops.registry import Registry
from tests.e2e.gitops.releases import releases
from tests.e2e.gitops.rendering import render
from tests.e2e.gitops.upstream import packages
from tests.e2e.toolchain import tool
from tests.platforms import bake

MIRROR = "mirror"
REPOSITORY = Path("/run/repository")  # where a node has the working copy


@dataclass
class Platform:
    """A baked repository, the cluster that follows it, and what made it."""

    folder: Path
    cluster: Cluster
    sources: Sources
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def argocd(self) -> ArgoCD:
        return ArgoCD(self.cluster.kube)

    @property
    def env(self) -> dict[str, str]:
        """The environment in which the bake's scripts run, as a user's shell has it."""
        plugins = os.environ.get("TF_PLUGIN_MIRROR")
        config = self.folder.parent / "terraformrc"
        text = f'provider_installation {{\n  filesystem_mirror {{\n    path = "{plugins}"\n  }}\n}}\n'
        config.write_text(text if plugins else "")
        path = [str(tool("kubernetes", "kubectl").parent), str(tool("helm").parent), os.environ["PATH"]]
        return {
            **os.environ,
            **self.cluster.registry.trust,
            "KUBECONFIG": str(self.cluster.kube.kubeconfig),
            "KUBE_CONTEXT": "e2e",
            "PATH": os.pathsep.join(path),
            "TF_CLI_CONFIG_FILE": str(config),
            "WORKING_COPY": str(REPOSITORY),
        }

    def script(self, name: str, *args: str, timeout: float = 600) -> str:
        """Run one of the bake's scripts to its end and return what it printed."""
        done = subprocess.run(
            ["bash", f"scripts/{name}.sh", *args],
            check=False,
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        assert not done.returncode, done.stdout
        return done.stdout

    def commit(self, message: str) -> str:
        """Commit every change in the folder and return the commit's id."""
        git(self.folder, "add", "--all")
        git(self.folder, "commit", "--quiet", "-m", message)
        return git(self.folder, "rev-parse", "HEAD")


def prepare(folder: Path, cluster: Cluster, **answers: object) -> Platform:
    """Bake a platform below ``folder``, fill the registry with its charts and images, and mount it into every node."""
    registry = cluster.registry
    baked = bake({"chart_registry": f"{registry.host}/{MIRROR}", **answers}, folder)
    git(baked, "init", "--quiet", "-b", "main")
    made = Platform(baked, cluster, Sources(baked, registry))
    made.commit("Scaffold the platform")
    registry.push_charts(packages(charts.pinned_charts(baked), folder / "packages"), MIRROR)
    started = time.monotonic()
    made.sources.provide(images(baked, registry))
    made.seconds["images"] = time.monotonic() - started
    for node in cluster.nodes.values():
        run(*node.enter, "mkdir", "-p", REPOSITORY)
        run(*node.enter, "mount", "--bind", baked / ".git", REPOSITORY)
    return made


def images(platform: Path, registry: Registry) -> set[str]:
    """Return the names of all images that the manifests of the environment local ask for."""
    components = render(platform, "local", platform.parent / "rendered", registry.trust)
    manifests = [manifest for found in components.values() for manifest in found]
    for release in releases(platform, "local"):
        if not release.name.startswith("argocd-app-"):
            manifests += release.manifests(registry.trust)
    return charts.images(manifests)
