"""Shared by every tier: the valid bakes, one for each file of answers in a test run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from tests import platforms

# The same examples each time, so that a change breaks a test and not the day; new ones every night: random.yml.
settings.register_profile("same", deadline=None, print_blob=True, derandomize=True, max_examples=300)
settings.register_profile("random", deadline=None, print_blob=True, max_examples=3000)
settings.load_profile(os.environ.get("EXAMPLES", "same"))


def pytest_configure() -> None:
    platforms.template()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all pytest-xdist workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    return (base if worker_id == "master" else base.parent) / "shared"


@pytest.fixture(scope="session")
def platform(shared: Path) -> Callable[[str], Path]:
    """platform("default") is the folder baked from tests/answers/valid/default.yaml. Tests read it and never write."""
    return lambda name: platforms.bake_once(name, shared / "bakes")
