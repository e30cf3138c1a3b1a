"""``make mirror`` fills a registry with every chart and image; then nothing in the platform points anywhere else."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.e2e.bake import bake
from tests.e2e.gitops.conftest import ANSWERS
from tests.e2e.gitops.platform import Platform
from tests.e2e.gitops.pods import workloads
from tests.e2e.gitops.registry import Registry, registry
from tests.e2e.gitops.rendering import namespaces, render
from tests.e2e.gitops.upstream import packages, wanted
from tests.e2e.toolchain import tool


@dataclass
class AirGap:
    """A bake that takes everything from ``mirror``, and ``upstream``, which plays the public registries."""

    folder: Path
    upstream: Registry
    mirror: Registry
    env: dict[str, str]
    held: list[str] = field(default_factory=list)

    def make_mirror(self, *flags: str) -> subprocess.CompletedProcess[str]:
        """Run what ``make mirror`` runs."""
        command = [sys.executable, "-m", "scripts.mirror", *flags]
        return subprocess.run(command, check=False, cwd=self.folder, env=self.env, capture_output=True, text=True)

    def plan(self) -> dict[str, str]:
        """Return what a run would copy: sources by their targets."""
        done = self.make_mirror("--dry-run")
        assert not done.returncode, done.stdout + done.stderr
        lines = [line.split() for line in done.stdout.splitlines() if " -> " in line]
        return {target: source for _, source, _, target in lines}

    def publish(self, image: str, layer: Path) -> None:
        """Put a small image with this name into the upstream registry."""
        command = [tool("crane"), "append", "--new_layer", layer, "--new_tag", image.split("@")[0]]
        subprocess.run(command, check=True, env=self.env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def airgap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirGap]:
    """A bake, its mirror, empty, and an upstream registry that has every chart and image that the bake asks for."""
    root = tmp_path_factory.mktemp("airgap")
    with registry(root / "upstream") as upstream, registry(root / "mirror") as mirror:
        folder = bake(root, chart_registry=f"{mirror.host}/platform", **ANSWERS)
        sources = yaml.safe_load((folder / "mirror.yaml").read_text())
        for name in sources["charts"]:
            sources["charts"][name] = f"oci://{upstream.host}/charts"
        for name, host in sources["images"].items():
            sources["images"][name] = f"{upstream.host}/{host}"
        (folder / "mirror.yaml").write_text(yaml.safe_dump(sources))
        upstream.push_charts(packages(wanted(folder), root / "packages"), "charts")

        bundle = root / "both.crt"
        bundle.write_bytes(upstream.authority.read_bytes() + mirror.authority.read_bytes())
        path = os.pathsep.join([str(tool("helm").parent), str(tool("crane").parent), os.environ["PATH"]])
        it = AirGap(
            folder, upstream, mirror, {**os.environ, "PATH": path, "SSL_CERT_FILE": str(bundle), "COLUMNS": "400"}
        )
        layer = root / "layer.tar"
        with tarfile.open(layer, "w") as archive:
            archive.add(folder / "mirror.yaml", "content")
        for target, source in it.plan().items():
            assert target.startswith(f"{mirror.host}/platform/")
            if source.startswith(f"{upstream.host}/"):
                it.publish(source, layer)
            elif not source.startswith("oci://"):
                # Terraform's own values name public registries, which cannot be reached here: an earlier run had these.
                it.publish(target, layer)
                it.held.append(target)
        yield it


def test_dry_run_copies_nothing(airgap: AirGap) -> None:
    before = airgap.mirror.repositories()
    assert len(airgap.plan()) > len(airgap.held)
    assert airgap.mirror.repositories() == before


def test_the_list_holds_every_chart_that_a_bake_asks_for(airgap: AirGap) -> None:
    charts = {target.rsplit("/", 1)[1] for target, source in airgap.plan().items() if source.startswith("oci://")}
    assert charts == {f"{name}:{version}" for name, version in wanted(airgap.folder)}


def test_a_run_that_broke_off_goes_on_and_the_next_finds_nothing_to_do(airgap: AirGap, tmp_path: Path) -> None:
    targets = airgap.plan()
    there = len(airgap.held)
    missing = next(source for source in targets.values() if "/thanos/thanos:" in source)
    subprocess.run(
        [tool("crane"), "delete", _by_digest(airgap, missing)], check=True, env=airgap.env, capture_output=True
    )

    broken = airgap.make_mirror()
    assert broken.returncode == 1
    assert missing in broken.stdout
    assert f"{len(targets) - there - 1} copied, {there} already there, 1 failed" in broken.stdout

    layer = tmp_path / "layer.tar"
    with tarfile.open(layer, "w") as archive:
        archive.add(airgap.folder / "mirror.yaml", "content")
    airgap.publish(missing, layer)
    resumed = airgap.make_mirror()
    assert not resumed.returncode, resumed.stdout + resumed.stderr
    assert f"1 copied, {len(targets) - 1} already there, 0 failed" in resumed.stdout
    assert f"0 copied, {len(targets)} already there, 0 failed" in airgap.make_mirror().stdout


def _by_digest(airgap: AirGap, image: str) -> str:
    digest = subprocess.run(
        [tool("crane"), "digest", image], check=True, env=airgap.env, capture_output=True, text=True
    )
    return f"{image.rsplit(':', 1)[0]}@{digest.stdout.strip()}"


@pytest.mark.parametrize("environment", ["local", "production"])
def test_every_image_and_chart_of_the_platform_is_in_its_mirror(
    airgap: AirGap, environment: str, tmp_path: Path
) -> None:
    """After the run above: the bake renders from the mirror's charts alone, and each image that it names is there."""
    assert not airgap.make_mirror().returncode
    manifests = render(airgap.folder, environment, tmp_path, airgap.mirror.trust)
    where = namespaces(airgap.folder)
    held = airgap.mirror.repositories()
    own = "checkout-simulator"  # the app's own image comes from the team's registry
    for component, rendered in manifests.items():
        for workload in workloads(rendered, where[component]):
            spec = workload.pod["spec"]
            for container in [*spec["containers"], *spec.get("initContainers", [])]:
                image = container["image"]
                if own in image or image.startswith("standin.invalid/"):
                    continue
                repository = image.split("@")[0].rsplit(":", 1)[0]
                assert repository.startswith(f"{airgap.mirror.host}/platform/"), f"{component}: {image}"
                assert repository.removeprefix(f"{airgap.mirror.host}/") in held, (
                    f"{component}: {image} is not in the mirror"
                )


def test_the_platform_is_synced_from_the_mirror_alone(platform: Platform) -> None:
    """Every source and every chart dependency of the session's platform, which is Synced and Healthy, is local."""
    argo = platform.argocd
    assert argo
    for name, app in argo.wait_synced(timeout=300).items():
        for source in app["spec"]["sources"]:
            assert source["repoURL"].startswith(("file://", platform.registry.host)), f"{name}: {source}"
    for path in platform.folder.glob("platform-apps/*/Chart.yaml"):
        for dependency in yaml.safe_load(path.read_text()).get("dependencies") or []:
            assert dependency["repository"].startswith(f"oci://{platform.registry.host}/"), path
