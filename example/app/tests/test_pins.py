"""Two sets of pins that must agree: what the tests run, and what the operator injects in the cluster."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

APP = Path(__file__).parents[1]
PLATFORM_APPS = APP.parent / "platform-apps"


def pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w-]+)==([\w.]+)", (APP / name).read_text(), re.MULTILINE))


def test_everything_is_pinned() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        lines = [line for line in (APP / name).read_text().splitlines() if line and not line.startswith(("#", "-r "))]
        assert len(lines) == len(pins(name))


def test_the_image_holds_the_api_alone() -> None:
    opentelemetry = [name for name in pins("requirements.txt") if name.startswith("opentelemetry")]
    assert opentelemetry == ["opentelemetry-api"]


def test_the_opentelemetry_set_is_one() -> None:
    versions = {**pins("requirements.txt"), **pins("requirements-dev.txt")}
    core, contrib = versions["opentelemetry-api"], versions["opentelemetry-distro"]
    # SDK 1.N goes with instrumentation 0.(N+21)b0.
    assert contrib == f"0.{int(core.split('.')[1]) + 21}b0"
    assert {version for name, version in versions.items() if name.startswith("opentelemetry")} == {core, contrib}


def test_the_cluster_runs_the_same_set() -> None:
    folders = [PLATFORM_APPS / name for name in ("otel-operator", "otel-instrumentation")]
    if not any(folder.is_dir() for folder in folders):
        pytest.skip("the app is alone: there is no platform beside it to compare with")
    files = [path for folder in folders for path in folder.rglob("*.yaml") if "charts" not in path.parts]
    image = re.compile(r"autoinstrumentation-python(?::|\s+tag:\s*)[\"']?(\d[\w.]*)")
    versions = {version for path in files for version in image.findall(path.read_text())}
    assert versions == {pins("requirements-dev.txt")["opentelemetry-distro"]}
