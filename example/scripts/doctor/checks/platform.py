"""Tools, the cluster and Argo CD."""

from __future__ import annotations

import json
import platform as python_platform
import shutil
import subprocess

from ..context import Context
from ..model import Result, fail, ok

ARGOCD_NAMESPACE = "argocd"


def tools(context: Context) -> Result:
    """What is installed, and whether kubectl is where it is needed."""
    versions = [f"python {python_platform.python_version()}"]
    for name, arguments in {"kubectl": ["version", "--client", "-o", "json"], "helm": ["version", "--short"]}.items():
        versions.append(f"{name} {_version(name, arguments) or 'not installed'}")
    if context.cluster and not shutil.which("kubectl"):
        return fail("tool-missing", ", ".join(versions))
    return ok(", ".join(versions))


def _version(name: str, arguments: list[str]) -> str | None:
    if not shutil.which(name):
        return None
    try:
        said = subprocess.run([name, *arguments], capture_output=True, text=True, timeout=10, check=False).stdout
    except subprocess.TimeoutExpired:
        return "does not answer"
    try:
        return str(json.loads(said)["clientVersion"]["gitVersion"])
    except (ValueError, KeyError):
        return said.strip() or "does not answer"


def cluster(context: Context) -> Result:
    """The API server answers."""
    if not context.cluster:
        raise context.no_cluster()
    version = json.loads(context.cluster.run("version", "-o", "json"))
    return ok(f"Kubernetes {version['serverVersion']['gitVersion']}")


def applications(context: Context) -> Result:
    """Every Application is Synced and Healthy."""
    if not context.cluster:
        raise context.no_cluster()
    items = context.cluster.get("applications.argoproj.io", "-n", ARGOCD_NAMESPACE)["items"]
    bad = [
        f"{item['metadata']['name']} is {sync}/{health}"
        for item in items
        for sync, health in [
            (
                item.get("status", {}).get("sync", {}).get("status", "Unknown"),
                item.get("status", {}).get("health", {}).get("status", "Unknown"),
            )
        ]
        if (sync, health) != ("Synced", "Healthy")
    ]
    if not items:
        return fail("application-unhealthy", "there are no Applications; `make apply` makes them")
    if bad:
        return fail("application-unhealthy", "; ".join(bad))
    return ok(f"{len(items)} Synced and Healthy")
