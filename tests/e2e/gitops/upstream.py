"""The upstream charts of a bake, as packages: the real ones where the folder ``UPSTREAM_CHARTS`` has them, else stand-ins.

A stand-in has a chart's name and version and renders the workloads, Services and kinds that the platform relies on, no more. Where
the cluster suite runs its containers, these have the arguments and files that the real chart would give them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import yaml

from tests.e2e.gitops.argocd import manifests
from tests.e2e.toolchain import tool

STANDINS = Path(__file__).parent / "standins"


def packages(
    charts: Iterable[tuple[str, str]], folder: Path, source: str | None = os.environ.get("UPSTREAM_CHARTS")
) -> dict[Path, bool]:
    """Return the packages of these charts, and whether each is the real one; stand-ins are made in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    packed = {}
    for name, version in sorted(charts):
        package = Path(source or folder) / f"{name}-{version}.tgz"
        real = bool(source) and package.is_file()
        packed[package if real else _standin(name, version, folder)] = real
    return packed


def _standin(name: str, version: str, folder: Path) -> Path:
    template = STANDINS / f"{name}.yaml"
    assert template.is_file(), f"no stand-in for the chart {name}: write {template}, or set UPSTREAM_CHARTS"
    with tempfile.TemporaryDirectory() as scratch:
        chart = Path(scratch) / name
        (chart / "templates").mkdir(parents=True)
        about = {"apiVersion": "v2", "name": name, "version": version, "description": "Stand-in for tests"}
        (chart / "Chart.yaml").write_text(yaml.safe_dump(about))
        shutil.copy(STANDINS / "_standin.tpl", chart / "templates")
        shutil.copy(template, chart / "templates" / "all.yaml")
        values = STANDINS / f"{name}.values.yaml"
        if values.is_file():
            shutil.copy(values, chart / "values.yaml")
        if name == "argo-cd":
            # Not Helm's own crds/ mechanism, which would leave them behind: the real chart has them as templates, too.
            shutil.copytree(manifests("crds"), chart / "files")
        command: list[str | Path] = [tool("helm"), "package", chart, "--destination", folder]
        subprocess.run(command, check=True, capture_output=True, text=True)
    return folder / f"{name}-{version}.tgz"
