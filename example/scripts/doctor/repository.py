"""What the files of this repository say."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .. import charts
from ..charts import UnreadableError
from ..facts import facts
from ..programs import CommandError, ProgramError
from .model import MissingError


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
            MissingError: there is no such component.
            UnreadableError: a value file is no YAML.
        """
        return charts.values(self._folder(component), self.environment)

    def rendered(self, component: str, kind: str) -> dict[str, Any]:
        """Return the first resource of ``kind`` that the component's own templates make.

        Raises:
            MissingError: helm is not installed, or the chart does not render, or has no such resource.
        """
        try:
            text = charts.template(self._folder(component), self.environment)
        except CommandError as error:
            raise MissingError(f"platform-apps/{component} does not render: {error}") from None
        except ProgramError as error:
            raise MissingError(f"{error}, so templates cannot be read") from None
        for resource in charts.documents(text):
            if resource["kind"] == kind:
                return resource
        raise MissingError(f"platform-apps/{component} makes no {kind}")

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Return what the folders say of themselves (``global.platform``), by kind."""
        return facts(self.root, self.environment)

    @cached_property
    def dashboards(self) -> dict[str, dict[str, Any]]:
        """Return Grafana's dashboards by file name."""
        files = sorted(self.root.glob("platform-apps/*/dashboards/*.json"))
        return {path.name: self._load(path) for path in files}

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
        contexts = re.findall(r'^kube_context\s*=\s*"(.+)"', path.read_text(encoding="utf-8"), re.MULTILINE)
        return contexts[-1] if contexts else None

    def _load(self, path: Path) -> dict[str, Any]:
        try:
            dashboard: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UnreadableError(f"{path.relative_to(self.root)}: {error}") from None
        return dashboard

    def _folder(self, component: str) -> Path:
        folder = self.root / "platform-apps" / component
        if not folder.is_dir():
            raise MissingError(f"{folder.relative_to(self.root)} is not in this repository")
        return folder
