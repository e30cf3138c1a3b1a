"""Argo CD's own redis, repo-server and application-controller as processes beside a cluster that holds its objects.

The pods that the argo-cd chart installs only pretend to run; these processes do the reconciling. argocd-server does not run:
nobody logs in.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.e2e.gitops.kube import Kube, Manifest
from tests.e2e.processes import LOOPBACK, Processes, free_port, wait_until
from tests.e2e.toolchain import ToolchainError, module_dir, tool

NAMESPACE = "argocd"


@dataclass(frozen=True)
class ArgoCD:
    """A running Argo CD, and the cluster that it looks after."""

    kube: Kube

    def application(self, name: str) -> Manifest | None:
        """Return an Application."""
        return self.kube.get("applications.argoproj.io", name, NAMESPACE)

    def applications(self) -> dict[str, Manifest]:
        """Return every Application by its name."""
        return {app["metadata"]["name"]: app for app in self.kube.list("applications.argoproj.io", NAMESPACE)}

    def refresh(self, *names: str, hard: bool = False) -> None:
        """Make Argo CD look at the repository now, as the web hook of a git host would."""
        note = {"metadata": {"annotations": {"argocd.argoproj.io/refresh": "hard" if hard else "normal"}}}
        for name in names or self.applications():
            self.kube.patch("applications.argoproj.io", name, NAMESPACE, note)

    def wait_synced(self, *names: str, revision: str = "", timeout: float = 120) -> dict[str, Manifest]:
        """Wait until the Applications (default: all) are Synced and Healthy, at ``revision`` (any source) where given.

        Raises:
            NotReady: they were not; the message says what each of the others said.
        """

        def done() -> dict[str, Manifest]:
            apps = self.applications()
            missing = set(names) - apps.keys()
            assert not missing, f"no Application {missing}"
            wanted = {name: apps[name] for name in names or apps}
            late = {name: story(app) for name, app in wanted.items() if not _good(app, revision)}
            assert not late, json.dumps(late, indent=1)
            return wanted

        return wait_until(done, "Synced and Healthy", timeout, interval=1)

    def wait_message(self, name: str, pattern: str, timeout: float = 60) -> str:
        """Wait until an Application's conditions or its last operation hold ``pattern``; return all that it said."""

        def said() -> str:
            text = story(self.application(name) or {})
            assert pattern in text, text
            return text

        return wait_until(said, f"{name} says {pattern!r}", timeout, interval=0.5)


def story(app: Manifest) -> str:
    """Return what an Application says of itself, on few lines."""
    status = app.get("status", {})
    operation = status.get("operationState", {})
    lines = [
        f"{status.get('sync', {}).get('status')} {status.get('health', {}).get('status')} {operation.get('phase')}"
    ]
    lines += [f"{c['type']}: {c['message']}" for c in status.get("conditions", [])]
    lines += [operation.get("message", "")]
    for resource in operation.get("syncResult", {}).get("resources", []):
        if resource.get("status") not in ("Synced", "Pruned", None):
            lines.append(f"{resource['kind']}/{resource['name']}: {resource.get('message')}")
    for resource in status.get("resources", []):
        health = resource.get("health", {}).get("status", "Healthy")
        if resource.get("status") == "OutOfSync" or health != "Healthy":
            lines.append(f"{resource['kind']}/{resource['name']}: {resource.get('status')} {health}")
    return "\n".join(line for line in lines if line)


def _good(app: Manifest, revision: str) -> bool:
    status = app.get("status", {})
    sync = status.get("sync", {})
    at = {sync.get("revision"), *sync.get("revisions", [])}
    return (
        sync.get("status") == "Synced"
        and status.get("health", {}).get("status") == "Healthy"
        and status.get("operationState", {}).get("phase", "Succeeded") == "Succeeded"
        and (not revision or revision in at)
    )


def manifests(folder: str) -> Path:
    """Return a folder of the pinned Argo CD's own ``manifests/``."""
    return module_dir("argocd") / "manifests" / folder


def crds() -> list[Manifest]:
    """Return the CRDs of the pinned Argo CD."""
    return [yaml.safe_load(path.read_text()) for path in sorted(manifests("crds").glob("*-crd.yaml"))]


@contextmanager
def argocd(folder: Path, kube: Kube, trust: dict[str, str]) -> Iterator[ArgoCD]:
    """Run Argo CD against ``kube``, which has its namespace, CRDs and ``argocd-cm`` (the argo-cd chart makes them).

    ``trust`` is the environment that makes it accept the chart registry.
    """
    redis = shutil.which("redis-server")
    if not redis:
        raise ToolchainError("redis-server is not on PATH: `apt-get install redis-server` (or your system's package)")
    binaries = folder / "bin"
    binaries.mkdir(parents=True)
    (binaries / "helm").symlink_to(tool("helm"))
    shutil.copy(module_dir("argocd") / "hack" / "git-verify-wrapper.sh", binaries)
    (binaries / "git-verify-wrapper.sh").chmod(0o755)
    # Argo CD takes its namespace from the kubeconfig's context.
    kubeconfig = folder / "kubeconfig"
    shutil.copy(kube.kubeconfig, kubeconfig)
    Kube(kubeconfig).run("config", "set-context", "--current", "--namespace", NAMESPACE)
    gitconfig = folder / "gitconfig"
    gitconfig.write_text("[safe]\n\tdirectory = *\n")  # git refuses a repository that another user owns
    (folder / "tmp").mkdir()
    redis_port, repo_port = free_port(), free_port()
    common = {
        "KUBECONFIG": str(kubeconfig),
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "TMPDIR": str(folder / "tmp"),
        "GIT_CONFIG_GLOBAL": str(gitconfig),
        "ARGOCD_TLS_DATA_PATH": str(folder / "tls"),
        "ARGOCD_SSH_DATA_PATH": str(folder / "ssh"),
        "ARGOCD_GPG_ENABLED": "false",
        "ARGOCD_FAKE_IN_CLUSTER": "true",
        **trust,
    }
    with Processes(folder / "logs") as processes:
        processes.start(
            "redis",
            [
                redis,
                "--port",
                str(redis_port),
                "--bind",
                LOOPBACK,
                "--save",
                "",
                "--dir",
                folder,
            ],
        )
        metrics = free_port()
        processes.start(
            "argocd-repo-server",
            [
                tool("argocd"),
                f"--redis={LOOPBACK}:{redis_port}",
                f"--address={LOOPBACK}",
                f"--port={repo_port}",
                f"--metrics-address={LOOPBACK}",
                f"--metrics-port={metrics}",
                "--disable-tls",
                "--client-ca-path=",
                "--revision-cache-expiration=1s",  # a commit is seen at the next refresh
                "--loglevel=warn",
            ],
            env={
                **common,
                "ARGOCD_BINARY_NAME": "argocd-repo-server",
                "ARGOCD_PLUGINSOCKFILEPATH": str(folder / "tmp"),
            },
            ready=f"http://{LOOPBACK}:{metrics}/healthz",
        )
        metrics = free_port()
        processes.start(
            "argocd-application-controller",
            [
                tool("argocd"),
                f"--redis={LOOPBACK}:{redis_port}",
                f"--repo-server={LOOPBACK}:{repo_port}",
                "--repo-server-plaintext",
                f"--metrics-port={metrics}",
                "--app-resync=30",
                "--app-resync-jitter=0",
                "--self-heal-timeout-seconds=1",
                "--self-heal-backoff-timeout-seconds=1",
                "--self-heal-backoff-cap-seconds=2",
                "--kubectl-parallelism-limit=8",
                "--loglevel=warn",
            ],
            env={
                **common,
                "ARGOCD_BINARY_NAME": "argocd-application-controller",
                "HOSTNAME": "application-controller-0",
            },
            ready=f"http://{LOOPBACK}:{metrics}/healthz",
        )
        yield ArgoCD(kube)


def can_i(kube: Kube, policy: Path, role: str, action: str, resource: str, item: str) -> bool:
    """Return whether an Argo CD RBAC policy (CSV) lets a role do something, as ``argocd admin`` says."""
    command: list[str | Path] = [tool("argocd"), "admin", "settings", "rbac", "can", role, action, resource, item]
    command += ["--policy-file", policy]
    env = {**os.environ, "ARGOCD_BINARY_NAME": "argocd", "KUBECONFIG": str(kube.kubeconfig)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env)
    answer = done.stdout.strip().rpartition("\n")[2]
    assert answer in ("Yes", "No"), done.stdout + done.stderr
    return answer == "Yes"
