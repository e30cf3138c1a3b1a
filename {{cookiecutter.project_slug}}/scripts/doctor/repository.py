"""What the files of this repository say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ..facts import fact_files, merge, named, value_files
from .model import MissingError, UnreadableError


@dataclass(frozen=True)
class Repository:
    """A generated repository at ``root``, seen as environment ``environment`` deploys it."""

    root: Path
    environment: str

    def has(self, component: str) -> bool:
        """Return whether ``platform-apps/<component>`` exists."""
        return (self.root / "platform-apps" / component).is_dir()

    def values(self, component: str) -> dict[str, Any]:
        """Return the merged Helm values of a component.

        Raises:
            MissingError: the component has no values.yaml.
        """
        return self._merged(self._value_files(component))

    def rendered(self, component: str, kind: str) -> dict[str, Any]:
        """Return the first resource of ``kind`` that the component's own templates make.

        Raises:
            MissingError: helm is not installed, or the chart does not render, or has no such resource.
        """
        if not shutil.which("helm"):
            raise MissingError("helm is not installed, so templates cannot be read")
        command = [
            "helm",
            "template",
            component,
            str(self.root / "platform-apps" / component),
            "--namespace",
            "default",
        ]
        for path in self._value_files(component):
            command += ["--values", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise MissingError(f"platform-apps/{component} does not render: {done.stderr.strip().splitlines()[-1]}")
        for resource in yaml.safe_load_all(done.stdout):
            if resource and resource["kind"] == kind:
                return resource
        raise MissingError(f"platform-apps/{component} makes no {kind}")

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Return what the folders say of themselves (``global.platform``), by kind."""
        return named(self._merged(fact_files(self.root, self.environment)))

    @cached_property
    def dashboards(self) -> dict[str, dict[str, Any]]:
        """Return Grafana's dashboards by file name."""
        files = sorted(self.root.glob("platform-apps/*/dashboards/*.json"))
        return {path.name: self._load(path) for path in files}

    @cached_property
    def app_namespace(self) -> str | None:
        """Return the namespace that the flask app's Application deploys to."""
        path = self.root / "k8s/helm-charts/flask-app/application.yaml"
        return self._load(path).get("namespace") if path.is_file() else None

    @property
    def kube_context(self) -> str | None:
        """Return the context that the environment's variables name; None where they leave it to the kubeconfig.

        Raises:
            MissingError: there is no such environment.
        """
        path = self.root / "terraform/environments" / f"{self.environment}.tfvars"
        if not path.is_file():
            known = ", ".join(sorted(each.stem for each in path.parent.glob("*.tfvars")))
            raise MissingError(f"there is no environment '{self.environment}'; there are: {known}")
        # As scripts/lib.sh reads it.
        found = re.findall(r'^kube_context\s*=\s*"(.+)"', path.read_text(encoding="utf-8"), re.MULTILINE)
        return found[-1] if found else None

    def _merged(self, files: list[Path]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path in files:
            found = merge(found, self._load(path) or {})
        return found

    def _load(self, path: Path) -> dict[str, Any]:
        text = path.read_text(encoding="utf-8")
        try:
            return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        except (ValueError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise UnreadableError(f"{path.relative_to(self.root)}: {reason}") from None

    def _value_files(self, component: str) -> list[Path]:
        folder = self.root / "platform-apps" / component
        if not folder.is_dir():
            raise MissingError(f"{folder.relative_to(self.root)} is not in this repository")
        return value_files(folder, self.environment)
