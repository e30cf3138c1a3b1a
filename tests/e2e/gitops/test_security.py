"""Pods meet the restricted standard, policies allow the contract's edges and no other, nothing secret is in git, roles end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from scripts.charts import merge
from tests import platforms
from tests.e2e.gitops.argocd import can_i
from tests.e2e.gitops.kube import Kube, Manifest, Refused
from tests.e2e.gitops.network import Endpoint, Network, endpoint
from tests.e2e.gitops.platform import Platform
from tests.e2e.gitops.pods import Workload, instrumented, workloads
from tests.e2e.gitops.rendering import namespaces, render

Rendered = dict[str, list[Manifest]]


@pytest.fixture(scope="module", params=["local", "production"])
def rendered(request: pytest.FixtureRequest, platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """Every chart of the platform, rendered for an environment."""
    return render(platform.folder, request.param, tmp_path_factory.mktemp(request.param), platform.registry.trust)


@pytest.fixture
def components(platform: Platform, rendered: Rendered) -> dict[str, list[Workload]]:
    """The workloads of each component."""
    where = namespaces(platform.folder)
    return {name: workloads(manifests, where[name]) for name, manifests in rendered.items()}


def refusals(kube: Kube, pods: list[Manifest]) -> list[str]:
    """Ask the API server whether it would take pods; return what it said against each that it would not."""
    try:
        kube.run(
            "create",
            "--dry-run=server",
            "-f",
            "-",
            stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}),
        )
    except Refused as refused:
        return str(refused).splitlines()
    return []


def test_api_server_admits_every_pod(
    platform: Platform, components: dict[str, list[Workload]], rendered: Rendered
) -> None:
    """Namespaces enforce the level that the component asks for: restricted, except where its application.yaml says otherwise."""
    pods = [workload.pod for of_component in components.values() for workload in of_component]
    (instrumentation,) = [m for m in rendered["otel-instrumentation"] if m["kind"] == "Instrumentation"]
    pods += [instrumented(app, instrumentation) for app in components["flask-app"] if app.kind == "Deployment"]
    assert len(pods) > len(components) / 2
    assert refusals(platform.kube, pods) == []


def test_argocds_own_pods_are_admitted(platform: Platform) -> None:
    (release,) = [r for r in platform.releases() if r.name == "argocd"]
    argocds = workloads(release.manifests(platform.registry.trust), "argocd")
    assert argocds
    assert refusals(platform.kube, [workload.pod for workload in argocds]) == []


@pytest.mark.parametrize(
    "change",
    [{"hostNetwork": True}, {"containers": [{"name": "a", "image": "b", "securityContext": {"privileged": True}}]}],
    ids=["host network", "privileged"],
)
def test_namespaces_refuse_a_pod_that_asks_for_more(platform: Platform, change: Manifest) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "more", "namespace": "observability"},
        "spec": {"containers": [{"name": "a", "image": "b"}], **change},
    }
    (said,) = refusals(platform.kube, [pod])
    assert "violates PodSecurity" in said


# Who calls whom on which port: the data path, the queries, and what the scraper reads.
EDGES = {
    ("load-generator", "flask-app", 8000),
    ("flask-app", "otel-collector", 4318),
    ("fluent-bit-collector", "otel-collector", 4318),
    ("otel-scrape-collector", "otel-collector", 4317),
    ("otel-scrape-collector", "otel-collector", 4318),
    ("otel-collector", "thanos/receive-router", 19291),
    ("otel-collector", "tempo", 4317),
    ("otel-collector", "loki", 3100),
    ("tempo", "thanos/receive-router", 19291),
    ("thanos/receive-router", "thanos/receive-ingestor", 10901),
    ("thanos/query", "thanos/receive-ingestor", 10901),
    ("thanos/query", "thanos/rule", 10901),
    ("thanos/query-frontend", "thanos/query", 10902),
    ("thanos/rule", "thanos/query", 10902),
    ("grafana", "thanos/query-frontend", 10902),
    ("grafana", "tempo", 3200),
    ("grafana", "loki", 3100),
    ("thanos/rule", "alertmanager", 9093),
    ("grafana", "alertmanager", 9093),
    ("otel-scrape-collector", "alertmanager", 9093),
    ("loki", "loki", 7946),
    ("loki", "loki", 9095),
    *(("otel-scrape-collector", f"thanos/{part}", 10902) for part in ("receive-router", "receive-ingestor", "query", "query-frontend", "rule")),
    ("otel-scrape-collector", "tempo", 3200),
    ("otel-scrape-collector", "loki", 3100),
    ("otel-scrape-collector", "grafana", 3000),
}  # fmt: skip
# Gossip between replicas; a single one names no port for it.
PEERS = ("alertmanager", "alertmanager", 9094)
# Namespaces whose pods belong to no edge: they talk to the API server only, which no policy can name.
OUTSIDE = {"cert-manager", "opentelemetry-operator-system"}


def _name(workload: Workload) -> str:
    labels = workload.pod["metadata"]["labels"]
    name = labels.get("app.kubernetes.io/name", workload.name)
    # Thanos is one program in many parts; of the others, the name says it all.
    return f"{name}/{labels['app.kubernetes.io/component']}" if name == "thanos" else name


@pytest.fixture
def network(platform: Platform, rendered: Rendered) -> Network:
    """Every NetworkPolicy of the platform."""
    where = namespaces(platform.folder)
    policies = []
    for component, manifests in rendered.items():
        for item in manifests:
            if item["kind"] == "NetworkPolicy":
                about = {"namespace": where[component], **item["metadata"]}
                policies.append({**item, "metadata": about})
    return Network(tuple(policies))


@pytest.fixture
def endpoints(components: dict[str, list[Workload]]) -> list[Endpoint]:
    """Every pod of the platform, one for each workload."""
    return [
        endpoint(_name(workload), workload.pod) for of_component in components.values() for workload in of_component
    ]


def test_every_pod_is_isolated_in_both_directions(endpoints: list[Endpoint], network: Network) -> None:
    open_ones = {
        (pod.name, direction)
        for pod in endpoints
        for direction in ("Ingress", "Egress")
        if not network.isolated(pod, direction)
    }
    assert not open_ones


def test_policies_allow_the_contracts_edges_and_no_other(endpoints: list[Endpoint], network: Network) -> None:
    inside = [pod for pod in endpoints if pod.namespace not in OUTSIDE]
    allowed = network.edges(inside)
    present = {pod.name for pod in inside}
    # Production has no load generator; nothing else may be missing.
    assert {name for edge in EDGES for name in edge[:2]} - present <= {"load-generator"}
    expected = {edge for edge in EDGES if {*edge[:2]} <= present}
    if any(pod.name == PEERS[1] and PEERS[2] in pod.ports.values() for pod in inside):
        expected.add(PEERS)
    assert allowed - expected == set(), "allowed, but in no contract"
    assert expected - allowed == set(), "in the contract, but not allowed"


def test_platform_is_closed_to_strangers(endpoints: list[Endpoint], network: Network) -> None:
    stranger = Endpoint("stranger", "elsewhere", {}, {})
    reached = {
        (server.name, port)
        for server in endpoints
        if server.namespace not in OUTSIDE
        for port in server.ports.values()
        if network.allows(stranger, server, port)
    }
    assert not reached


# Lines that look like a secret and are none.
NO_SECRETS = {
    r"automountServiceAccountToken:": "a switch",
    r"^\s*(external|sealed)-secrets: ": "names of charts and registries",
    r"(existingSecret|secretName): ": "the name of a Secret",
    r"password: \"?admin-password\b": "the name of a key in a Secret",
    r"^secret_suffix ": "part of the name of the Secret that holds Terraform's state",
    r"@sha256:": "the digest of an image",
    r"^TRACE, SPAN = ": "the example ids of the W3C's trace context",
}


def secrets_in(folder: Path) -> list[str]:
    """Return what detect-secrets finds below a folder, a line for each."""
    flags = [flag for line in NO_SECRETS for flag in ("--exclude-lines", line)]
    command = [sys.executable, "-m", "detect_secrets", "-C", str(folder), "scan", "--all-files", *flags]
    command += ["--exclude-files", r"\.ruff_cache/", "."]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    results = json.loads(done.stdout)["results"]
    return sorted(f"{path}:{item['line_number']}: {item['type']}" for path, items in results.items() for item in items)


@pytest.mark.parametrize(
    "answers", ["default", "everything", "azure-azurerm-apache-2.0", "gcs-kubernetes-bsd-3-clause"]
)
def test_no_secret_is_in_git(baked: Callable[..., Path], answers: str) -> None:
    assert secrets_in(baked(**platforms.load(platforms.VALID[answers]))) == []


def test_detect_secrets_would_find_one(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text("adminPassword: 'hunter2-Xk29fLq81'\n")
    assert secrets_in(tmp_path) == ["values.yaml:1: Secret Keyword"]


def test_rendered_secrets_hold_nothing(rendered: Rendered) -> None:
    """A Secret that a chart renders may carry configuration, but no value that opens anything."""
    for component, manifests in rendered.items():
        for item in manifests:
            if item["kind"] == "Secret":
                keys = {**item.get("data", {}), **item.get("stringData", {})}.keys()
                suspicious = [
                    key for key in keys if any(word in key.lower() for word in ("password", "token", "key", "secret"))
                ]
                assert not suspicious, f"{component}: {item['metadata']['name']} has {suspicious}"


@pytest.fixture(scope="module")
def policy(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Argo CD's RBAC policy, as Terraform hands it to the argo-cd chart."""
    (release,) = [r for r in platform.releases() if r.name == "argocd"]
    values: Manifest = {}
    for text in release.values:
        values = merge(values, yaml.safe_load(text) or {})
    assert values["configs"]["rbac"]["policy.default"] == ""
    path = tmp_path_factory.mktemp("rbac") / "policy.csv"
    path.write_text(values["configs"]["rbac"]["policy.csv"])
    return path


@pytest.mark.parametrize(
    ("action", "resource", "item", "allowed"),
    [
        ("get", "applications", "checkout/flask-app", True),
        ("sync", "applications", "checkout/flask-app", True),
        ("get", "logs", "checkout/flask-app", True),
        ("get", "projects", "checkout", True),
        ("get", "applications", "default/other", False),
        ("sync", "applications", "another-team/flask-app", False),
        ("create", "applications", "checkout/new", False),
        ("delete", "applications", "checkout/flask-app", False),
        ("override", "applications", "checkout/flask-app", False),
        ("update", "projects", "checkout", False),
        ("create", "projects", "new", False),
        ("create", "exec", "checkout/flask-app", False),
        ("get", "logs", "another-team/flask-app", False),
        ("create", "clusters", "*", False),
        ("create", "repositories", "*", False),
        ("update", "accounts", "admin", False),
    ],
)
def test_team_role_ends_at_its_project(
    cluster: Kube, policy: Path, action: str, resource: str, item: str, allowed: bool
) -> None:
    assert can_i(cluster, policy, "role:checkout", action, resource, item) is allowed


@pytest.mark.parametrize("resource", ["applications", "projects", "logs", "clusters"])
def test_nobody_else_may_anything(cluster: Kube, policy: Path, resource: str) -> None:
    assert not can_i(cluster, policy, "role:somebody", "get", resource, "checkout/flask-app")
