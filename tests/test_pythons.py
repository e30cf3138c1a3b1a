"""The template bakes on every Python that Cookiecutter may run on: the same bytes, and the same refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests import platforms
from tests.checks import installed
from tests.platforms import Baked

PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def interpreter(version: str) -> str | None:
    """A Python of this version: this one, one on PATH, or one that pyenv or uv keeps. None is downloaded."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return sys.executable
    kept = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{version}.*/bin/python"))
    find = [installed("uv"), "python", "find", "--no-python-downloads", "--system", version]
    done = subprocess.run(find, capture_output=True, text=True)
    return str(kept[-1]) if kept else done.stdout.strip() or None


@pytest.mark.parametrize("version", PYTHONS)
def test_bakes_on(version: str, platform: Baked, tmp_path: Path) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    venv = tmp_path / "venv"
    subprocess.run([installed("uv"), "venv", "--quiet", "--python", python, str(venv)], check=True)
    install = [installed("uv"), "pip", "install", "--quiet", "--python", str(venv), "cookiecutter"]
    subprocess.run([*install, "--constraint", str(platforms.ROOT / "requirements-test.txt")], check=True)

    config = tmp_path / "config.yaml"
    answers = platforms.load(platforms.VALID["everything"])
    places = {"replay_dir": str(tmp_path / "replay"), "cookiecutters_dir": str(tmp_path / "templates")}
    config.write_text(yaml.safe_dump({"default_context": answers, **places}))
    command = [
        str(venv / "bin" / "cookiecutter"),
        "--no-input",
        "--config-file",
        str(config),
        "-o",
        str(tmp_path / "out"),
    ]
    subprocess.run([*command, str(platforms.template())], check=True, capture_output=True)
    baked, expected = tmp_path / "out" / str(answers["project_slug"]), platform("everything")
    assert {path.relative_to(baked): path.read_bytes() for path in platforms.files(baked)} == {
        path.relative_to(expected): path.read_bytes() for path in platforms.files(expected)
    }

    refused = [*command, str(platforms.template()), "project_slug=other", "team=default", "domain=https://x.example"]
    done = subprocess.run(refused, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert done.returncode == 1
    assert "2 answers need a change. Nothing was baked." in done.stderr
    assert not (tmp_path / "out" / "other").exists()
