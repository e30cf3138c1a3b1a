"""A bake's charts as manifests, rendered by the bake's own ``make render``."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from scripts.charts import documents, folders, namespace
from tests.e2e.gitops.kube import Manifest
from tests.e2e.toolchain import python, tool


def render(platform: Path, environment: str, out: Path, trust: dict[str, str]) -> dict[str, list[Manifest]]:
    """Render every chart for an environment, at work in the folder ``out``, and return the manifests of each component."""
    copy = out / "platform"  # Helm leaves the dependencies beside each chart
    shutil.copytree(platform, copy, ignore=shutil.ignore_patterns(".git", ".terraform"))
    env = {**os.environ, **trust, "PATH": f"{tool('helm').parent}{os.pathsep}{os.environ['PATH']}"}
    of_tools = python(copy / "scripts" / "requirements.txt") / "bin" / "python"
    command: list[str | Path] = [of_tools, "-m", "scripts.render", environment, out / "rendered"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env, cwd=copy)
    assert not done.returncode, f"scripts.render {environment}:\n{done.stdout}\n{done.stderr}"
    return {path.stem: list(documents(path.read_text())) for path in sorted((out / "rendered").glob("*.yaml"))}


def namespaces(platform: Path) -> dict[str, str]:
    """Return the namespace of each component, by its folder's name."""
    return {folder.name: namespace(folder) or "" for folder in folders(platform)}
