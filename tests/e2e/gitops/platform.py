"""One platform on one cluster: the bake in a git repository, its releases installed, Argo CD at work on it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from scripts.charts import merge
from tests.e2e.gitops.argocd import ArgoCD
from tests.e2e.gitops.kube import Kube, Manifest
from tests.e2e.gitops.registry import Registry
from tests.e2e.gitops.releases import Release, releases

# Nothing answers behind a Service here, so no webhook can: these two charts would have every object refused.
WEBHOOKS_OFF: dict[str, dict[str, Any]] = {
    "otel-operator": {"opentelemetry-operator": {"admissionWebhooks": {"create": False}}},
    "cert-manager": {
        "cert-manager": {
            "webhook": {
                name: {"namespaceSelector": {"matchLabels": {"e2e": "never"}}}
                for name in ("validatingWebhookConfiguration", "mutatingWebhookConfiguration")
            }
        }
    },
}


def git(folder: Path, *args: str) -> str:
    """Run git in a folder, as somebody who needs no configuration, and return what it printed."""
    who = ["-c", "user.name=e2e", "-c", "user.email=e2e@example.com", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", folder, *who, *args], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def write_overlay(platform: Path, component: str, environment: str, values: dict[str, Any]) -> None:
    """Merge values into a component's ``values-<environment>.yaml``."""
    path = platform / "platform-apps" / component / f"values-{environment}.yaml"
    old = yaml.safe_load(path.read_text()) if path.is_file() else None
    path.write_text(yaml.safe_dump(merge(old or {}, values)))


@dataclass
class Platform:
    """A baked repository and the cluster that follows it."""

    folder: Path
    environment: str
    kube: Kube
    registry: Registry
    argocd: ArgoCD | None = None
    _known: dict[str, list[Release]] = field(default_factory=dict, repr=False)

    def releases(self) -> list[Release]:
        """Return the Helm releases that Terraform makes of the repository's present state."""
        # What Terraform reads decides; asking it again takes a second.
        names = ("*.tf", "*.tfvars", "*.tftpl", "application.yaml", "Chart.yaml", "values*.yaml")
        files = sorted(path for name in names for path in self.folder.rglob(name))
        state = sha256(b"".join(str(path).encode() + path.read_bytes() for path in files)).hexdigest()
        if state not in self._known:
            where = {"working_copy": "", "repo_url": f"file://{self.folder}", "kube_context": ""}
            self._known[state] = releases(self.folder, self.environment, **where)
        return self._known[state]

    def install(self, wanted: list[Release]) -> None:
        """Install releases one after the other."""
        for release in wanted:
            release.install(self.kube, self.registry.trust)

    def commit(self, message: str) -> str:
        """Commit every change in the folder and return the commit's id."""
        git(self.folder, "add", "--all")
        git(self.folder, "commit", "--quiet", "-m", message)
        return git(self.folder, "rev-parse", "HEAD")

    def application(self, name: str) -> Manifest:
        """Return the Application that Terraform makes of a component's folder, as it is rendered."""
        (release,) = [r for r in self.releases() if r.name == f"argocd-app-{name}"]
        (application,) = [m for m in release.manifests(self.registry.trust) if m["kind"] == "Application"]
        return application
