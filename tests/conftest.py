"""Shared by every tier: the valid bakes, one for each file of answers in a test run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests import platforms
from tests.platforms import Baked

# The same examples each time, so that a change breaks a test and not the day; new ones every night: random.yml.
settings.register_profile("same", deadline=None, print_blob=True, derandomize=True, max_examples=100)
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
def platform(shared: Path) -> Baked:
    """platform("default") is the folder baked from tests/answers/valid/default.yaml. Tests read it and never write."""
    return lambda name: platforms.bake_once(name, shared / "bakes")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--listed-skips", action="store_true", help="fail when a test skips for a reason not in LISTED_SKIPS"
    )


# Why a test may skip where everything that it could need was fetched: what no workflow has.
LISTED_SKIPS = ("no Python 3.", "no schemas of custom resources")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With --listed-skips, a skip for any other reason is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not reporter or not session.config.getoption("listed_skips"):
        return
    reasons = sorted({str(report.longrepr[2]) for report in reporter.stats.get("skipped", [])})
    if unlisted := [why for why in reasons if not why.removeprefix("Skipped: ").startswith(LISTED_SKIPS)]:
        reporter.write_line("Skips that are not in LISTED_SKIPS:\n  " + "\n  ".join(unlisted), red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
