"""The platform's own commands, as its README gives them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests import platforms


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A platform that these tests may write to, with a name that needs quoting."""
    answers = {**platforms.load(platforms.VALID["default"]), "platform_name": 'Größe "1" {{ braces }} \\ it\'s'}
    return platforms.bake({**answers, "project_slug": "generated"}, tmp_path_factory.mktemp("generated"))


def make(folder: Path, target: str) -> str:
    # Not the settings of the make that may have started these tests.
    env = {key: value for key, value in os.environ.items() if not key.startswith("MAKE") and key != "VIRTUAL_ENV"}
    done = subprocess.run(["make", target], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    return done.stdout


def test_make_lists_its_targets(copy: Path) -> None:
    listed = make(copy, "help")
    for target in (
        "run",
        "traffic",
        "test",
        "lint",
        "up",
        "down",
        "open",
        "apply",
        "secrets",
        "doctor",
        "mirror",
        "capacity",
    ):
        assert f"  {target} " in listed


def test_its_own_tests_pass(copy: Path) -> None:
    """Simulator statistics and telemetry, and the tools in scripts/."""
    assert " passed" in make(copy, "test")


def test_its_own_lint_passes(copy: Path) -> None:
    make(copy, "lint")
