"""No network: ``make mirror`` fills a registry from its sources, and Argo CD syncs from that alone, the sources being gone."""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.charts import images, merge, pinned_charts
from tests.e2e.gitops.argocd import NAMESPACE
from tests.e2e.gitops.kube import Manifest
from tests.e2e.gitops.platform import Platform, git, write_overlay
from tests.e2e.gitops.registry import Registry, registry
from tests.e2e.gitops.upstream import packages
from tests.e2e.processes import wait_until
from tests.e2e.toolchain import python, tool
from tests.platforms import bake

PREFIX = "airgap"
# Those that make nothing outside their namespace, so that they may run a second time beside the platform's own.
SYNCED = ("thanos-receive", "thanos-query", "tempo", "grafana", "load-generator")


@dataclass
class Site:
    """A bake whose charts and images come from ``sources`` and go to ``mirror``; both need ``trust`` in the environment."""

    platform: Platform
    sources: Registry
    mirror: Registry
    trust: dict[str, str]
    running: ExitStack

    @property
    def prefix(self) -> str:
        return f"{self.mirror.host}/{PREFIX}/"

    def command(self, *options: str) -> tuple[list[str | Path], dict[str, Any]]:
        """Return what ``make mirror`` runs, and how."""
        path = os.pathsep.join([str(tool("helm").parent), str(tool("crane").parent), os.environ["PATH"]])
        python_of_tools = python(self.platform.folder / "scripts" / "requirements.txt") / "bin" / "python"
        how = {"cwd": self.platform.folder, "env": {**os.environ, **self.trust, "PATH": path}, "text": True}
        return [python_of_tools, "-m", "scripts.mirror", *options], how

    def fill(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run ``make mirror`` to its end."""
        command, how = self.command(*options)
        return subprocess.run(command, check=False, capture_output=True, **how)

    def crane(self, *args: str | Path) -> str:
        done = subprocess.run(
            [tool("crane"), *args], check=False, capture_output=True, text=True, env={**os.environ, **self.trust}
        )
        assert not done.returncode, done.stderr
        return done.stdout.strip()


def lines(output: str, kind: str) -> dict[str, str]:
    """Return source and target of each chart or image that a dry run lists."""
    return dict(line.removeprefix(f"{kind} ").split(" -> ") for line in output.splitlines() if line.startswith(kind))


@pytest.fixture(scope="module")
def site(platform: Platform, mirror: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A bake with every component, its sources in a registry of their own, its mirror empty."""
    folder = tmp_path_factory.mktemp("airgap")
    answers = {"chart_registry": f"{mirror.host}/{PREFIX}", "oci_registry": f"{mirror.host}/acme"}
    baked = bake({**answers, "include_fluent_bit": True}, folder)
    with ExitStack() as running:
        sources = running.enter_context(registry(folder / "sources"))
        authorities = folder / "authorities.crt"
        authorities.write_bytes(sources.authority.read_bytes() + mirror.authority.read_bytes())
        sources.push_charts(packages(pinned_charts(baked), folder / "packages"), "charts")
        take_from(sources.host, baked)
        git(baked, "init", "--quiet", "-b", "main")
        git(baked, "add", "--all")
        git(baked, "commit", "--quiet", "-m", "Scaffold the platform")
        here = Platform(baked, "local", platform.kube, mirror, platform.argocd)
        yield Site(here, sources, mirror, {"SSL_CERT_FILE": str(authorities)}, running)


def take_from(host: str, baked: Path) -> None:
    """Let a bake find every chart and image in the registry ``host``, instead of where they are published."""
    for path in (baked / "mirror.yaml", *baked.glob("platform-apps/*/platform.yaml")):
        said = yaml.safe_load(path.read_text())
        known = said if path.name == "mirror.yaml" else said["global"]["platform"]
        for kind, source in (("charts", f"oci://{host}/charts"), ("images", host)):
            known[kind] = dict.fromkeys(known.get(kind, {}), source)
        path.write_text(yaml.safe_dump(said))
    # What Terraform's values take over from the argo-cd chart, and what stand-ins of charts run.
    redis, haproxy = ({"image": {"repository": f"{host}/docker/library/{name}"}} for name in ("redis", "haproxy"))
    argocd = {
        "global": {"image": {"repository": f"{host}/argoproj/argocd"}, "standinRegistry": host},
        "redis": redis,
        "redis-ha": {**redis, "haproxy": haproxy},
    }
    values = baked / "terraform" / "modules" / "argocd-server" / "values.yaml"
    values.write_text(yaml.safe_dump(merge(yaml.safe_load(values.read_text()), argocd)))
    for component in baked.glob("platform-apps/*/Chart.yaml"):
        for environment in ("local", "production"):
            write_overlay(baked, component.parent.name, environment, {"global": {"standinRegistry": host}})


@pytest.fixture(scope="module")
def listed(site: Site) -> dict[str, str]:
    """The images that a dry run on an empty mirror lists (source: target); the sources have all of them."""
    done = site.fill("--dry-run")
    assert not done.returncode, done.stdout
    charts = lines(done.stdout, "chart")
    host, prefix = site.sources.host, site.prefix
    assert charts == {
        f"oci://{host}/charts/{name}:{version}": f"{prefix}{name}:{version}"
        for name, version in pinned_charts(site.platform.folder)
    }
    images = lines(done.stdout, "image")
    assert images == {f"{host}/{target.removeprefix(prefix)}": target for target in images.values()}
    layer = site.platform.folder.parent / "layer.tar"
    with tarfile.open(layer, "w") as archive:
        archive.add(site.platform.folder / "README.md", "README.md")
    for image in images:
        site.crane("append", "--new_layer", layer, "--new_tag", image)
    return images


@pytest.fixture(scope="module")
def filled(site: Site, listed: dict[str, str]) -> Site:
    """The mirror, filled by a run that was killed, one that lacked an image, and one that completed it."""
    late = next(image for image in listed if "thanos" in image)
    digest = site.crane("digest", late)
    site.crane("delete", f"{late.rsplit(':', 1)[0]}@{digest}")

    command, how = site.command()
    with subprocess.Popen(command, stdout=subprocess.PIPE, **how) as run:
        assert run.stdout
        assert any(line.startswith("copied image") for line in run.stdout)
        run.kill()

    lacking = site.fill()
    assert lacking.returncode == 1
    assert f"failed image {late}" in lacking.stdout
    assert ", 1 failed" in lacking.stdout
    assert ", 0 already there" not in lacking.stdout, "the second run began anew"

    site.crane("append", "--new_layer", site.platform.folder.parent / "layer.tar", "--new_tag", late)
    complete = site.fill()
    assert not complete.returncode, complete.stdout
    total = len(listed) + len(pinned_charts(site.platform.folder))
    assert f"1 copied, {total - 1} already there, 0 failed" in complete.stdout
    return site


def test_mirror_holds_everything_that_was_listed(filled: Site, listed: dict[str, str]) -> None:
    for source, target in listed.items():
        assert filled.crane("digest", target) == filled.crane("digest", source)
    for name, version in pinned_charts(filled.platform.folder):
        assert filled.crane("digest", f"{filled.prefix}{name}:{version}")


def test_a_full_mirror_is_left_alone(filled: Site, listed: dict[str, str]) -> None:
    done = filled.fill("--dry-run")
    assert (done.returncode, done.stdout) == (0, "")


def test_argo_cd_itself_runs_from_the_mirror(filled: Site, listed: dict[str, str]) -> None:
    """In production, which has more parts; the values are those that Terraform works out."""
    platform = Platform(filled.platform.folder, "production", filled.platform.kube, filled.mirror)
    (release,) = [each for each in platform.releases() if each.name == "argocd"]
    assert release.repository == f"oci://{filled.prefix}".rstrip("/")
    used = images(release.manifests(filled.trust, "--skip-tests"))
    assert used
    # A stand-in of the chart names its image itself; it stands in for the image's path alone.
    used = {image.replace(f"{filled.sources.host}/standin/", f"{filled.prefix}standin/") for image in used}
    assert used <= set(listed.values())


@pytest.fixture
def project(filled: Site) -> Iterator[str]:
    """A namespace and a project of the same name for the Applications below; they and it go afterwards."""
    kube = filled.platform.kube
    spec = {"sourceRepos": ["*"], "destinations": [{"server": "*", "namespace": PREFIX}]}
    about = {"name": PREFIX, "namespace": NAMESPACE}
    kube.apply(
        [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PREFIX}},
            {"apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject", "metadata": about, "spec": spec},
        ]
    )
    yield PREFIX
    kube.delete("applications.argoproj.io", *(f"{PREFIX}-{name}" for name in SYNCED), namespace=NAMESPACE)
    kube.delete("namespace", PREFIX, wait=False)
    kube.delete("appprojects.argoproj.io", PREFIX, namespace=NAMESPACE)


def test_argo_cd_syncs_from_the_mirror_alone(filled: Site, project: str, listed: dict[str, str]) -> None:
    filled.running.close()  # the sources are gone
    with pytest.raises(AssertionError, match="connection refused"):
        filled.crane("digest", next(iter(listed)))

    platform = filled.platform
    assert platform.argocd
    apps = [twin(platform.application(name), name, project) for name in SYNCED]
    platform.kube.apply(apps)
    platform.argocd.wait_synced(*(app["metadata"]["name"] for app in apps), timeout=180)

    def pods() -> list[Manifest]:
        pods = {pod["metadata"]["name"]: pod for pod in platform.kube.list("pods", project)}
        assert any(name.startswith("load-generator") for name in pods), list(pods)
        assert all(pod["status"]["phase"] == "Running" for pod in pods.values()), list(pods)
        return list(pods.values())

    used = images(wait_until(pods, "the pods run", timeout=60))
    # Only stand-ins of charts have images that no value can point elsewhere.
    ours = {image for image in used if "/standin/" not in image}
    assert ours
    assert ours <= set(listed.values())


def twin(app: Manifest, component: str, project: str) -> Manifest:
    """Return a component's Application again, in the namespace and project ``project``."""
    again = deepcopy(app)
    again["metadata"] = {
        "name": f"{project}-{component}",
        "namespace": NAMESPACE,
        "finalizers": app["metadata"]["finalizers"],
    }
    again["spec"]["project"] = again["spec"]["destination"]["namespace"] = project
    return again
