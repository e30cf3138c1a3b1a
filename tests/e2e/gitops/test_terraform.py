"""Terraform itself with the real Helm provider: one apply, no second change, repair after a kill, and a destroy without rest.

The provider comes from the filesystem mirror that ``TF_PLUGIN_MIRROR`` names, or else from the network. The argo-cd chart's
pods only pretend to run; Argo CD's own processes beside the cluster do the reconciling.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gitops.argocd import NAMESPACE, argocd
from tests.e2e.gitops.conftest import bake_for
from tests.e2e.gitops.control_plane import control_plane
from tests.e2e.gitops.controllers import controllers
from tests.e2e.gitops.kube import Kube
from tests.e2e.gitops.registry import Registry
from tests.e2e.gitops.releases import releases
from tests.e2e.processes import wait_until
from tests.e2e.toolchain import tool

APPLICATIONS = "applications.argoproj.io"
# From the first apply on, these components are enough, and quicker than all.
KEPT = {"cert-manager", "otel-operator", "otel-collector", "tempo", "flask-app"}
PLATFORM = "app.kubernetes.io/part-of=acme-platform"


@dataclass
class Terraform:
    """A baked repository, its cluster, and what its scripts need in their environment."""

    folder: Path
    kube: Kube
    env: dict[str, str]

    @property
    def variables(self) -> list[str]:
        """Where this test's platform differs from a laptop's: the repository is read from where it lies."""
        return ["-input=false", "-no-color", "-var=working_copy=", f"-var=repo_url=file://{self.folder}"]

    def start(self, script: str, *args: str) -> subprocess.Popen[str]:
        """Start one of the bake's scripts, in a process group of its own."""
        command = ["bash", f"scripts/{script}.sh", "local", *args, *self.variables]
        out = subprocess.PIPE
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.env,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, script: str, *args: str) -> str:
        """Run one of the bake's scripts to its end and return what it printed."""
        process = self.start(script, *args)
        text, _ = process.communicate(timeout=400)
        assert not process.returncode, text
        return text

    def plan(self) -> list[dict[str, Any]]:
        """Return what an apply would do to each resource."""
        self.run("terraform", "plan", "-out=planned")
        env = {**self.env, "TF_DATA_DIR": str(self.folder / "terraform/.terraform/local")}
        show = ["terraform", f"-chdir={self.folder / 'terraform'}", "show", "-json", "planned"]
        done = subprocess.run(show, check=True, capture_output=True, text=True, env=env)
        return list(json.loads(done.stdout).get("resource_changes", []))

    def planned(self) -> dict[str, list[str]]:
        """Return the resources that an apply would change, and how."""
        changes = {change["address"]: change["change"]["actions"] for change in self.plan()}
        return {address: actions for address, actions in changes.items() if actions != ["no-op"]}

    def applications(self) -> set[str]:
        """Return the names of the Applications in the cluster."""
        return {app["metadata"]["name"] for app in self.kube.list(APPLICATIONS, NAMESPACE)}

    def components(self) -> set[str]:
        """Return the names of the component folders."""
        parents = (self.folder / "platform-apps", self.folder / "k8s" / "helm-charts")
        return {path.parent.name for parent in parents for path in parent.glob("*/application.yaml")}


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory, mirror: Registry) -> Iterator[Terraform]:
    """A baked repository and an empty cluster."""
    program = shutil.which("terraform")
    if not program:
        pytest.skip("terraform is not on PATH")
    root = tmp_path_factory.mktemp("terraform")
    (root / "control-plane").mkdir()
    plugins = os.environ.get("TF_PLUGIN_MIRROR")
    config = root / "terraformrc"
    config.write_text(
        f'provider_installation {{\n  filesystem_mirror {{\n    path = "{plugins}"\n  }}\n}}\n' if plugins else ""
    )
    folder = bake_for(root / "platform", mirror)
    with control_plane(root / "control-plane") as kube:
        path = os.pathsep.join([str(tool("kubernetes", "kubectl").parent), os.environ["PATH"]])
        env = {**os.environ, "PATH": path, "KUBECONFIG": str(kube.kubeconfig), "KUBE_CONTEXT": "e2e", **mirror.trust}
        made = Terraform(folder, kube, {**env, "TF_CLI_CONFIG_FILE": str(config)})
        init = ["terraform", "-chdir=terraform", "init", "-input=false", "-no-color", "-backend=false"]
        done = subprocess.run(init, check=False, cwd=folder, env=made.env, capture_output=True, text=True)
        if done.returncode:
            assert not plugins, done.stderr
            pytest.skip(
                f"the Helm provider cannot be had (set TF_PLUGIN_MIRROR): {' '.join(done.stderr.split())[:300]}"
            )
        yield made


def test_without_the_provider_the_releases_are_the_same(terraform: Terraform, mirror: Registry) -> None:
    """What the other tests install is what the real provider plans to install."""
    variables = {"working_copy": "", "repo_url": f"file://{terraform.folder}", "kube_context": "e2e"}
    ours = releases(terraform.folder, "local", **variables)
    theirs = {change["address"]: change["change"]["after"] for change in terraform.plan()}
    assert {release.address for release in ours} == theirs.keys()
    for release in ours:
        planned = theirs[release.address]
        assert (release.name, release.namespace) == (planned["name"], planned["namespace"])
        # The provider adds the version of a chart that lies in a folder.
        assert release.version in (planned["version"], "")
        assert list(release.values) == planned["values"]


def test_an_apply_that_was_killed_is_repaired_by_the_next(terraform: Terraform) -> None:
    for component in terraform.components() - KEPT:
        shutil.rmtree(terraform.folder / "platform-apps" / component)
    process = terraform.start("terraform", "apply", "-auto-approve", "-parallelism=1")  # half-way lasts longer
    try:
        wait_until(lambda: terraform.applications(), "an Application is there", 180, interval=0.2)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert terraform.applications() != terraform.components(), "the kill came too late to prove anything"
    terraform.run("terraform", "apply", "-auto-approve")
    assert terraform.applications() == terraform.components()


def test_a_second_plan_is_empty(terraform: Terraform) -> None:
    assert terraform.planned() == {}


def test_a_folder_more_is_an_application_more_and_a_folder_less_one_less(terraform: Terraform) -> None:
    before = terraform.applications()
    added = terraform.folder / "platform-apps" / "another"
    shutil.copytree(terraform.folder / "platform-apps" / "tempo", added)
    (added / "Chart.yaml").write_text((added / "Chart.yaml").read_text().replace("name: tempo\n", "name: another\n", 1))
    address = 'module.argocd_app["another"].helm_release.argocd_app'
    assert terraform.planned() == {address: ["create"]}
    terraform.run("terraform", "apply", "-auto-approve")
    assert terraform.applications() == before | {"another"}

    shutil.rmtree(added)
    assert terraform.planned() == {address: ["delete"]}
    # Nobody answers the finalizer before Argo CD runs.
    terraform.kube.patch(APPLICATIONS, "another", NAMESPACE, {"metadata": {"finalizers": None}})
    terraform.run("terraform", "apply", "-auto-approve")
    assert terraform.applications() == before
    assert terraform.planned() == {}


def nothing_is_left(terraform: Terraform) -> None:
    """Check that no Application, namespace or definition of the platform is left."""
    kube = terraform.kube
    assert kube.list(APPLICATIONS) == []
    assert kube.list("namespaces", selector=PLATFORM) == []
    assert [item["metadata"]["name"] for item in kube.list("customresourcedefinitions")] == []
    assert [r["metadata"]["name"] for r in kube.list("secrets", selector="owner=helm")] == []


def test_destroy_leaves_nothing_while_argo_cd_is_healthy(
    terraform: Terraform, mirror: Registry, tmp_path: Path
) -> None:
    with argocd(tmp_path / "argocd", terraform.kube, mirror.trust) as running, controllers(terraform.kube):
        running.wait_synced(timeout=300)
        terraform.run("destroy", "-auto-approve")
    nothing_is_left(terraform)


@pytest.mark.parametrize("gone", ["its controller", "its release", "its definitions"])
def test_destroy_leaves_nothing_when_argo_cd_is_gone(terraform: Terraform, gone: str) -> None:
    terraform.run("terraform", "apply", "-auto-approve")
    kube = terraform.kube
    if gone == "its controller":
        kube.delete("deployments,statefulsets", "--all", namespace=NAMESPACE)
    else:
        helm: list[str | Path] = [tool("helm"), "uninstall", "argocd", "-n", NAMESPACE, "--kubeconfig", kube.kubeconfig]
        if gone == "its definitions":
            for name in terraform.applications():
                kube.patch(APPLICATIONS, name, NAMESPACE, {"metadata": {"finalizers": None}})
        subprocess.run(helm, check=True, capture_output=True)
    terraform.run("destroy", "-auto-approve")
    nothing_is_left(terraform)
