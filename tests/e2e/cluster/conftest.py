"""What the cluster suite needs of a machine, said before its first test."""

from __future__ import annotations

import pytest

from tests.e2e.cluster.cluster import missing


def pytest_sessionstart() -> None:
    """End at once where no node can run, with what is missing: a suite that skips itself proves nothing."""
    if problems := missing():
        pytest.exit("no node can run on this machine, which lacks\n  " + "\n  ".join(problems), returncode=3)
