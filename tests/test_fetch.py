"""`make charts` asks for every chart that a platform pins, once. Helm is a stand-in: what it would fetch is not here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests import fetch, platforms

HELM = """#!/bin/sh
# pull LOCATION [--repo URL] --version V --destination D
echo "$@" >>"$CALLS"
name=$(basename "$2")
while [ $# -gt 0 ]; do
  case $1 in --version) version=$2 ;; --destination) folder=$2 ;; esac
  shift
done
: >"$folder/$name-$version.tgz"
"""


def test_every_pinned_chart_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, calls, folder = tmp_path / "bin" / "helm", tmp_path / "calls", tmp_path / "charts"
    program.parent.mkdir()
    program.write_text(HELM)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("CALLS", str(calls))
    snapshot = platforms.template()
    fetch.main(["charts", str(folder)])
    pins = {
        (dependency["name"], str(dependency["version"]))
        for file in snapshot.glob("{{cookiecutter.project_slug}}/platform-apps/*/Chart.yaml")
        for dependency in yaml.safe_load(file.read_text().replace("{%", "#").replace("{{", "#")).get("dependencies", [])
    }
    assert pins <= {tuple(path.stem.rsplit("-", 1)) for path in folder.iterdir()}
    asked = calls.read_text().splitlines()
    assert len(asked) == len(set(asked)) == len(list(folder.iterdir()))
    assert any("argo-helm/argo-cd " in line for line in asked)
    fetch.main(["charts", str(folder)])
    assert calls.read_text().splitlines() == asked


def test_what_it_can_fetch_is_said() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fetch", "images"], cwd=platforms.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "charts FOLDER" in done.stderr
