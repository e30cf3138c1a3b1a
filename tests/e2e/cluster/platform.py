"""A baked platform on a cluster of real nodes, made by the bake's own scripts."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from scripts import charts
from tests.e2e.cluster.cluster import Cluster
from tests.e2e.cluster.containers import Container, containers
from tests.e2e.cluster.node import Node, run
from tests.e2e.cluster.shoppers import Record
from tests.e2e.cluster.sources import Sources
from tests.e2e.gitops.argocd import ArgoCD
from tests.e2e.gitops.kube import Manifest
from tests.e2e.gitops.platform import git
from tests.e2e.gitops.registry import Registry
from tests.e2e.gitops.releases import Release, releases
from tests.e2e.gitops.rendering import render
from tests.e2e.gitops.upstream import packages
from tests.e2e.processes import LOOPBACK, Process, Processes, free_port, wait_until
from tests.e2e.toolchain import python, tool
from tests.platforms import bake

MIRROR = "mirror"
REPOSITORY = Path("/run/repository")  # where a node has the working copy
PEAK_AFTER = 90  # seconds, from before the first command
# Takes the app's folder and a number: prints the seed whose first peak begins soonest after so many seconds. At some
# times of day no seed has one for a minute.
_SEED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from checkout_simulator.schedule import PeakSchedule
from checkout_simulator.settings import Settings
first, it = time.time() + float(sys.argv[2]), Settings()
def begins(seed):
    return next(PeakSchedule(seed, it.peak_length_s, it.peak_gap_min_s, it.peak_gap_max_s).starts_after(first))
print(min(range(1000), key=begins))
"""
BEHIND_SECONDS = 3  # for which it stays known which pods are behind a Service

_NAME = "app.kubernetes.io/name"
_INSTANCE = "app.kubernetes.io/instance"
_COMPONENT = "app.kubernetes.io/component"
# Part: its namespace (empty: the app's own), its workload, the labels of its pods and the name of its container.
PARTS = {
    "app": ("", "deployment/flask-app", f"{_INSTANCE}=flask-app", "flask-app"),
    "collector": ("observability", "statefulset/otel-collector", f"{_NAME}=otel-collector", "otc-container"),
    "router": (
        "observability",
        "deployment/thanos-receive-router",
        f"{_COMPONENT}=receive-router",
        "thanos-receive-router",
    ),
    "ingestor": (
        "observability",
        "statefulset/thanos-receive-ingestor",
        f"{_COMPONENT}=receive-ingestor",
        "thanos-receive-ingestor",
    ),
    "query": ("observability", "deployment/thanos-query", f"{_COMPONENT}=query", "thanos-query"),
    "tempo": ("observability", "statefulset/tempo", f"{_NAME}=tempo", "tempo"),
    "operator": (
        "opentelemetry-operator-system",
        "deployment/opentelemetry-operator",
        f"{_NAME}=opentelemetry-operator",
        "manager",
    ),
}


@dataclass
class Platform:
    """A baked repository, the cluster that follows it, and what made it."""

    folder: Path
    cluster: Cluster
    sources: Sources
    processes: Processes
    record: Record
    environment: str = "local"
    context: str = "e2e"  # of the kubeconfig
    at_first: set[str] = field(default_factory=set)
    started: float = 0  # when its first command ran, in Unix seconds
    measured: dict[str, str] = field(default_factory=dict)  # what the run says at its end
    charts: dict[str, bool] = field(default_factory=dict)  # by file name, whether each is the real one
    _forwards: dict[str, tuple[Process, str]] = field(default_factory=dict, repr=False)
    _behind: dict[str, tuple[float, list[str]]] = field(default_factory=dict, repr=False)

    @property
    def team(self) -> str:
        """The namespace of the app."""
        return charts.namespace(self.folder / "k8s/helm-charts/flask-app") or ""

    def containers(self, part: str) -> list[Container]:
        """Return the running containers of a part of the platform (``PARTS``)."""
        namespace, _, selector, name = PARTS[part]
        return containers(self.cluster.kube, self.cluster.nodes, namespace or self.team, selector, name)

    @property
    def terraform(self) -> bool:
        """Whether Terraform and its Helm provider are at hand."""
        return bool(os.environ.get("TF_PLUGIN_MIRROR") and shutil.which("terraform"))

    @property
    def argocd(self) -> ArgoCD:
        return ArgoCD(self.cluster.kube)

    @property
    def env(self) -> dict[str, str]:
        """The environment in which the bake's scripts run, as a user's shell has it."""
        plugins = os.environ.get("TF_PLUGIN_MIRROR")
        config = self.folder.parent / "terraformrc"
        text = f'provider_installation {{\n  filesystem_mirror {{\n    path = "{plugins}"\n  }}\n}}\n'
        config.write_text(text if plugins else "")
        path = [str(tool("kubernetes", "kubectl").parent), str(tool("helm").parent), os.environ["PATH"]]
        return {
            **os.environ,
            **(self.cluster.registry.trust if self.cluster.nodes else {}),
            "KUBECONFIG": str(self.cluster.kube.kubeconfig),
            "KUBE_CONTEXT": self.context,
            "PATH": os.pathsep.join(path),
            "TF_CLI_CONFIG_FILE": str(config),
            "WORKING_COPY": str(REPOSITORY),
        }

    def up(self, *given: Manifest) -> None:
        """Bring the platform up by the README's commands; ``given`` is what docs/operations.md asks the team for.

        Without Terraform's provider, Helm installs the releases that Terraform works out.
        """
        self.started = time.time()
        if self.terraform and self.environment == "local":
            self.script("up", timeout=900)
        else:
            if self.terraform:
                more = ("-auto-approve", "-input=false", "-no-color", "-var", f"working_copy={REPOSITORY}")
                self.script("terraform", self.environment, "apply", *more)
            else:
                self._install()
            if given:
                self.cluster.kube.apply(given)
            self.script("secrets", self.environment)
            self.argocd.wait_synced(timeout=900)
        self.measured["seconds from an empty cluster to all Healthy"] = f"{time.time() - self.started:.0f}"

    def _install(self) -> None:
        """Install what Terraform would, in its order, and the Applications at the same time as it does."""
        wanted = releases(self.folder, self.environment, working_copy=str(REPOSITORY))
        apps = [release for release in wanted if release.address.startswith("module.argocd_app")]

        def install(release: Release) -> None:
            release.install(self.cluster.kube, self.cluster.registry.trust)

        for release in (it for it in wanted if it not in apps):
            install(release)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(install, apps))

    def peak_soon(self) -> None:
        """Give the app a seed by which a peak begins when the platform has just come up, so that nobody waits for one."""
        seed = run(sys.executable, "-B", "-c", _SEED, self.folder / "app", str(PEAK_AFTER))
        self.write("k8s/helm-charts/flask-app", {"settings": {"seed": int(seed)}})
        self.commit("A peak soon")

    def mount(self, node: Node) -> None:
        """Let a node have the working copy, as kind's configuration does; after each boot."""
        run(*node.enter, "mkdir", "-p", REPOSITORY)
        run(*node.enter, "mount", "--bind", self.folder / ".git", REPOSITORY)

    def memory(self) -> dict[str, tuple[int, int, int]]:
        """Return what each pod outside of kube-system uses, asks for and may have at most, in MiB."""
        used: dict[str, int] = {}
        for node in (it["metadata"]["name"] for it in self.cluster.kube.list("nodes")):
            said = json.loads(self.cluster.kube.run("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary"))
            used |= {it["podRef"]["uid"]: it["memory"].get("workingSetBytes", 0) >> 20 for it in said["pods"]}
        return {
            pod["metadata"]["name"]: (
                used[pod["metadata"]["uid"]],
                sum(_mebibytes(container, "requests") for container in pod["spec"]["containers"]),
                sum(_mebibytes(container, "limits") for container in pod["spec"]["containers"]),
            )
            for pod in self.pods()
            if pod["metadata"]["namespace"] != "kube-system" and pod["metadata"]["uid"] in used
        }

    def script(self, name: str, *args: str, timeout: float = 600) -> str:
        """Run one of the bake's scripts to its end and return what it printed."""
        done = subprocess.run(
            ["bash", f"scripts/{name}.sh", *args],
            check=False,
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        assert not done.returncode, done.stdout
        return done.stdout

    def doctor(self) -> dict[str, Any]:
        """Return what the bake's doctor says of the cluster, as its JSON."""
        of_tools = python(self.folder / "scripts" / "requirements.txt") / "bin" / "python"
        command: list[str | Path] = [of_tools, "-m", "scripts.doctor", "--json"]
        done = subprocess.run(command, check=False, cwd=self.folder, env=self.env, capture_output=True, text=True)
        assert done.stdout, done.stderr
        return dict(json.loads(done.stdout))

    def url(self, service: str, port: int) -> str:
        """Return where a pod behind a Service of observability, on a node that runs, answers on this machine."""
        return self.urls(service, port)[0]

    def urls(self, service: str, port: int) -> list[str]:
        """Return where each such pod answers; a port-forward that ended is made anew."""
        at, pods = self._behind.get(service, (0.0, []))
        if time.monotonic() - at > BEHIND_SECONDS:
            pods = wait_until(lambda: self._ready_behind(service), f"a pod of {service} is ready", 90, 0.5)
            self._behind[service] = time.monotonic(), pods
        return [self._forward(pod, port) for pod in pods]

    def _ready_behind(self, service: str) -> list[str]:
        found = self.cluster.kube.get("service", service, "observability")
        assert found, f"no Service {service}"
        stopped = {name for name, node in self.cluster.nodes.items() if not node.running}
        selector = ",".join(f"{key}={value}" for key, value in found["spec"]["selector"].items())
        return sorted(
            pod["metadata"]["name"]
            for pod in self.cluster.kube.list("pods", "observability", selector)
            if "deletionTimestamp" not in pod["metadata"]
            and all(it["ready"] for it in pod["status"].get("containerStatuses", [{"ready": False}]))
            and pod["spec"]["nodeName"] not in stopped
        )

    def _forward(self, pod: str, port: int) -> str:
        process, url = self._forwards.get(pod, (None, ""))
        if not process or not process.running:
            local = free_port()
            forward = ("-n", "observability", "port-forward", f"pod/{pod}", f"{local}:{port}")
            kubectl = (tool("kubernetes", "kubectl"), "--kubeconfig", self.cluster.kube.kubeconfig)
            process = self.processes.start(f"forward-{pod}", [*kubectl, *forward])
            url = f"http://{LOOPBACK}:{local}"
            self._forwards[pod] = process, url
            wait_until(lambda: socket.create_connection((LOOPBACK, local), 1), f"{pod} is forwarded", 20).close()
        return url

    def cluster_scoped(self) -> set[str]:
        """Return every object, as kind/name, of those kinds without a namespace of which the platform makes some."""
        kinds = (
            *("apiservices", "clusterrolebindings", "clusterroles", "crds", "namespaces", "priorityclasses"),
            *("mutatingwebhookconfigurations", "validatingwebhookconfigurations"),
            *("validatingadmissionpolicies", "validatingadmissionpolicybindings"),
        )
        return set(self.cluster.kube.run("get", ",".join(kinds), "-o", "name").split())

    def pods(self, selector: str = "") -> list[Manifest]:
        """Return the pods of the whole cluster that a label selector selects."""
        return self.cluster.kube.list("pods", selector=selector)

    def stands_in(self, image: str) -> bool:
        """Return whether the real image of this short name was to be had nowhere."""
        return any(name.rsplit("/", 1)[-1].split(":")[0] == image for name in self.sources.of("stand-in"))

    def overlay(self, folder: str, values: dict[str, Any], message: str) -> str:
        """Commit values for the environment of the chart in ``folder``, and return the commit's id."""
        self.write(folder, values)
        return self.commit(message)

    def write(self, folder: str, values: dict[str, Any]) -> None:
        """Merge values into those for the environment of the chart in ``folder``."""
        file = self.folder / folder / f"values-{self.environment}.yaml"
        old = yaml.safe_load(file.read_text()) if file.is_file() else None
        file.write_text(yaml.safe_dump(charts.merge(old or {}, values)))

    def revert(self, revision: str) -> str:
        """Undo a commit by another, and return its id."""
        git(self.folder, "revert", "--no-edit", revision)
        return git(self.folder, "rev-parse", "HEAD")

    def commit(self, message: str) -> str:
        """Commit every change in the folder and return the commit's id."""
        git(self.folder, "add", "--all")
        git(self.folder, "commit", "--quiet", "-m", message)
        return git(self.folder, "rev-parse", "HEAD")


def _mebibytes(container: Manifest, kind: str) -> int:
    text = container["resources"].get(kind, {}).get("memory", "0Mi")
    return int(text[:-2]) * {"Mi": 1, "Gi": 1024}[text[-2:]]


def prepare(
    folder: Path, cluster: Cluster, processes: Processes, environment: str = "local", **answers: object
) -> Platform:
    """Bake a platform below ``folder``, fill the registry with its charts and images, and mount it into every node."""
    registry = cluster.registry
    baked = bake({"chart_registry": f"{registry.host}/{MIRROR}", **answers}, folder)
    git(baked, "init", "--quiet", "-b", "main")
    record = Record([*cluster.nodes.values()], "*_flask-app-*", folder.parent / "record")
    made = Platform(baked, cluster, Sources(baked, registry), processes, record, environment)
    made.commit("Scaffold the platform")
    made.at_first = made.cluster_scoped()
    packed = packages(charts.pinned_charts(baked), folder / "packages")
    registry.push_charts(packed, MIRROR)
    made.charts = {package.stem: real for package, real in packed.items()}
    made.sources.provide(images(baked, registry, environment))
    for node in cluster.nodes.values():
        made.mount(node)
    return made


def images(platform: Path, registry: Registry, environment: str) -> set[str]:
    """Return the names of all images that the manifests of an environment ask for."""
    components = render(platform, environment, platform.parent / "rendered", registry.trust)
    manifests = [manifest for found in components.values() for manifest in found]
    for release in releases(platform, environment):
        if not release.name.startswith("argocd-app-"):
            manifests += release.manifests(registry.trust)
    # Argo CD and Terraform run no tests of charts.
    return charts.images(it for it in manifests if "test" not in _hook(it))


def _hook(manifest: Manifest) -> str:
    return str((manifest["metadata"].get("annotations") or {}).get("helm.sh/hook", ""))
