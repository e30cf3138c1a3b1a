"""A bake's charts as manifests, rendered by the bake's own ``scripts/render.sh``."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import yaml

from tests.e2e.gitops.kube import Manifest
from tests.e2e.toolchain import tool


def render(platform: Path, environment: str, out: Path, trust: dict[str, str]) -> dict[str, list[Manifest]]:
    """Render every chart for an environment, at work in the folder ``out``, and return the manifests of each component."""
    copy = out / "platform"  # Helm leaves the dependencies beside each chart
    shutil.copytree(platform, copy, ignore=shutil.ignore_patterns(".git", ".terraform"))
    env = {**os.environ, **trust, "PATH": f"{tool('helm').parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", copy / "scripts" / "render.sh", environment, out / "rendered"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env)
    assert not done.returncode, f"scripts/render.sh {environment}:\n{done.stdout}\n{done.stderr}"
    return {
        path.stem: list(filter(None, yaml.safe_load_all(path.read_text())))
        for path in sorted((out / "rendered").glob("*.yaml"))
    }


def namespaces(platform: Path) -> dict[str, str]:
    """Return the namespace of each component, by its folder's name."""
    files = [*platform.glob("platform-apps/*/application.yaml"), *platform.glob("k8s/helm-charts/*/application.yaml")]
    found = {path.parent.name: yaml.safe_load(path.read_text())["namespace"] for path in files}
    return {**found, "otel-instrumentation": found["flask-app"]}
