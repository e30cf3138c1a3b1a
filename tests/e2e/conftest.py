"""What every end-to-end suite shares: an orderly end, and the bake."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.platforms import bake


def pytest_configure(config: pytest.Config) -> None:
    """End like Ctrl-C on SIGTERM, so that fixtures stop the programs they started."""

    def leave(*_: object) -> None:
        raise KeyboardInterrupt("terminated")

    signal.signal(signal.SIGTERM, leave)
    if "PYTEST_XDIST_WORKER" in os.environ and sys.platform == "linux":
        # A worker whose session was killed would test on: have the kernel send it the same SIGTERM (PR_SET_PDEATHSIG).
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


@pytest.fixture(scope="session")
def baked(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return ``baked(**answers)``: the folder of a platform baked with these answers (one bake per set of answers)."""
    done: dict[tuple[Any, ...], Path] = {}

    def get(**answers: object) -> Path:
        key = tuple(sorted(answers.items()))
        if key not in done:
            done[key] = bake(answers, tmp_path_factory.mktemp("bake"))
        return done[key]

    return get
