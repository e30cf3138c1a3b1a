"""What the cluster suite needs of a machine, said before its first test, and the platform that its tests share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import elsewhere
from tests.e2e.cluster.cluster import cluster, measure, missing
from tests.e2e.cluster.node import Node
from tests.e2e.cluster.objectstore import ObjectStore, let_trust, object_store
from tests.e2e.cluster.platform import Platform, prepare
from tests.e2e.cluster.telemetry import Telemetry
from tests.e2e.processes import Processes
from tests.e2e.toolchain import tool

S3_LOCATION = "s3.storage.example:9443"
PRODUCTION_CORES = 8  # of each node: production asks for more than three times the cores of a small machine
# What a run does without each of what it may be given.
WITHOUT = {
    "UPSTREAM_CHARTS": "stand-ins of the charts, and of the operator and cert-manager; no production profile",
    "TF_PLUGIN_MIRROR": "Helm installs what Terraform works out; no make destroy",
    "E2E_IMAGES": "images are built here, pulled where a public registry is reached, or stand-ins",
}
_said: list[str] = []
_platforms: list[Platform] = []


def pytest_sessionstart(session: pytest.Session) -> None:
    """End at once where no node can run, with what is missing: a suite that skips itself proves nothing."""
    try:
        if elsewhere.named():
            return
    except ValueError as error:
        pytest.exit(str(error), returncode=3)
    if problems := missing():
        pytest.exit("no node can run on this machine, which lacks\n  " + "\n  ".join(problems), returncode=3)
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    for name, without in WITHOUT.items():
        if reporter:
            reporter.write_line(f"cluster: {name} is {os.environ.get(name) or f'not set: {without}'}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was real, and what took how long."""
    for line in _said:
        terminalreporter.write_line(f"cluster: {line}")
    for platform in _platforms:
        for what, value in platform.measured.items():
            terminalreporter.write_line(f"cluster: {what}: {value}")


def _say(line: str) -> None:
    print(f"cluster: {line}", flush=True)
    _said.append(line)


@pytest.fixture(scope="session")
def upstream() -> None:
    """Skip where the production profile cannot be installed."""
    if not os.environ.get("UPSTREAM_CHARTS"):
        pytest.skip(
            "no charts: UPSTREAM_CHARTS names no folder with the upstream charts, and stand-ins know no production"
        )
    if not (os.environ.get("TF_PLUGIN_MIRROR") and shutil.which("terraform")):
        pytest.skip("no Terraform: it is not installed, or TF_PLUGIN_MIRROR names no mirror of the Helm provider")


def _whole(platform: Platform) -> Platform:
    """Say where the charts and images of a platform came from, and skip where it lacks one."""
    for source, real in (("real charts", True), ("stand-ins of charts", False)):
        names = sorted(name for name, is_real in platform.charts.items() if is_real == real)
        _say(f"{source}: {', '.join(names) or 'none'}")
    for source in ("archive", "built here", "public registry", "stand-in"):
        _say(f"{source}: {', '.join(_short(name) for name in platform.sources.of(source)) or 'no image'}")
    if lacking := platform.sources.of("nowhere"):
        pytest.skip(f"no source has {', '.join(map(_short, lacking))}: E2E_IMAGES names no folder with their archives")
    _platforms.append(platform)
    return platform


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The default platform, environment local, on one node: every Application Synced and Healthy.

    With ``E2E_KUBECONFIG`` it is one that runs already, on somebody else's nodes.
    """
    folder = tmp_path_factory.mktemp("cluster")
    if elsewhere.named():
        with Processes(folder / "logs") as processes:
            yield elsewhere.platform(processes)
        return
    with cluster(folder / "cluster") as running, Processes(folder / "logs") as processes:
        made = _whole(prepare(folder / "platform", running, processes))
        made.peak_soon()
        with made.record:
            made.up()
            yield made


@pytest.fixture(scope="module")
def production(upstream: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, ObjectStore]]:
    """A platform with an S3 of its own, environment production, on three nodes: Synced and Healthy."""
    if elsewhere.named():
        pytest.skip("needs three nodes that this suite started: E2E_KUBECONFIG names a cluster of somebody else's")
    folder = tmp_path_factory.mktemp("production")
    for name in ("metrics-server", "versitygw"):  # nothing is built beside a running cluster
        tool(name)
    host = S3_LOCATION.partition(":")[0]
    with (
        cluster(folder / "cluster", nodes=3, cores=PRODUCTION_CORES, outside=[host]) as running,
        Processes(folder / "logs") as processes,
    ):
        measure(running)
        bucket = "telemetry"
        store = object_store(folder / "s3", running, processes, S3_LOCATION, bucket)
        answers = {"object_storage": "s3", "object_storage_location": S3_LOCATION, "object_storage_bucket": bucket}
        made = _whole(prepare(folder / "platform", running, processes, "production", **answers))
        for name in made.sources.found:
            if name.rsplit("/", 1)[-1].startswith(("loki:", "tempo:", "thanos:")):
                let_trust(running, name, store, folder / "trust")
        about = {"name": "object-store", "namespace": "observability"}
        with made.record:
            made.up({"apiVersion": "v1", "kind": "Secret", "metadata": about, "stringData": store.key})
            yield made, store


@pytest.fixture(scope="session")
def nodes(platform: Platform) -> dict[str, Node]:
    """The nodes of the platform, for tests that look behind the API or change the platform's repository."""
    if not platform.cluster.nodes:
        pytest.skip("needs nodes that this suite started: E2E_KUBECONFIG names a cluster of somebody else's")
    return platform.cluster.nodes


@pytest.fixture(scope="session")
def telemetry(platform: Platform) -> Telemetry:
    """What the platform keeps of the app's requests."""
    return Telemetry(platform)


def _short(name: str) -> str:
    return name.rsplit("/", 1)[-1]
