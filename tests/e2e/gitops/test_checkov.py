"""checkov over everything that a bake holds or renders, with a short list of exceptions and the reason of each."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from scripts.charts import pinned_charts
from tests.e2e.gitops.platform import Platform
from tests.e2e.gitops.rendering import render
from tests.e2e.gitops.upstream import packages
from tests.e2e.toolchain import python

# Check: (resources that may fail it, by the end of their name; the reason). No resources: any.
EXCEPTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "CKV_K8S_11": ((), "no CPU limits: they throttle a pod while the node is idle; requests share it fairly"),
    "CKV_K8S_15": ((), "IfNotPresent: tags are pinned, and a node must start pods while the registry is away"),
    "CKV_K8S_43": ((), "tags instead of digests: charts set them, and a mirror may hold one platform of an image"),
    "CKV_K8S_38": (
        (
            "Deployment.observability.thanos-query",
            "Deployment.observability.thanos-query-frontend",
            "Deployment.observability.thanos-receive-router",
            "StatefulSet.observability.thanos-receive-ingestor",
            "StatefulSet.observability.thanos-rule",
            "Deployment.observability.grafana",
            "DaemonSet.fluent-bit.fluent-bit",
            "Deployment.cert-manager.cert-manager",
            "Deployment.cert-manager.cert-manager-cainjector",
            "Deployment.cert-manager.cert-manager-webhook",
            "Deployment.opentelemetry-operator-system.opentelemetry-operator",
        ),
        "controllers and the dashboard sidecar talk to the API server; the thanos chart's accounts have no rights",
    ),
    "CKV_K8S_40": (
        (
            "Deployment.observability.grafana",
            "DaemonSet.fluent-bit.fluent-bit",
            "Deployment.cert-manager.cert-manager",
            "Deployment.cert-manager.cert-manager-cainjector",
            "Deployment.cert-manager.cert-manager-webhook",
            "Deployment.checkout.load-generator",
        ),
        "the image's own user, below 10000",
    ),
    "CKV_K8S_23": (("DaemonSet.fluent-bit.fluent-bit",), "reads the node's log files, which belong to root"),
    "CKV_K8S_22": (
        ("Deployment.observability.grafana", "Deployment.opentelemetry-operator-system.opentelemetry-operator"),
        "these charts' programs write beside their volumes",
    ),
    "CKV_K8S_35": (("Deployment.observability.grafana",), "Grafana takes its administrator from the environment"),
    "CKV_K8S_8": (
        (
            "Deployment.observability.grafana",
            "Deployment.cert-manager.cert-manager-cainjector",
            "Deployment.checkout.load-generator",
        ),
        "the dashboard sidecar, the cainjector and the load generator have no health endpoint",
    ),
    "CKV_K8S_9": (
        (
            "Deployment.observability.grafana",
            "Deployment.cert-manager.cert-manager",
            "Deployment.cert-manager.cert-manager-cainjector",
            "Deployment.checkout.load-generator",
        ),
        "no Service leads to them (of Grafana: to the sidecar)",
    ),
    "CKV_K8S_155": (("ClusterRole.default.cert-manager-cainjector",), "writing the CA into webhooks is its task"),
}  # fmt: skip


SOURCE_EXCEPTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "CKV_DOCKER_7": (("/app/Dockerfile.FROM",), "the base image comes from an argument, which is pinned by digest"),
    "CKV_DOCKER_2": (("/app/Dockerfile.",), "the chart's probes ask, not the container runtime"),
}


def failures(folder: Path, *frameworks: str) -> tuple[set[tuple[str, str]], int]:
    """Run checkov over a folder; return (check, resource) of each failure, and how many checks passed."""
    interpreter = python(Path(__file__).parent / "checkov" / "requirements.txt") / "bin" / "python"
    command: list[str | Path] = [interpreter, "-m", "checkov.main", "-d", folder, "--framework", *frameworks]
    command += ["--skip-download", "--compact", "--quiet", "--output", "json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    reports = json.loads(done.stdout)
    reports = reports if isinstance(reports, list) else [reports]
    failed = {(f["check_id"], f["resource"]) for r in reports for f in r.get("results", {}).get("failed_checks", [])}
    return failed, sum(r.get("summary", r)["passed"] for r in reports)


def unexcused(failed: Iterable[tuple[str, str]], exceptions: dict[str, tuple[tuple[str, ...], str]]) -> list[str]:
    """Return the failures that no exception covers."""
    return sorted(
        f"{check} {resource}"
        for check, resource in failed
        if check not in exceptions or (exceptions[check][0] and not resource.endswith(exceptions[check][0]))
    )


@pytest.fixture(scope="module")
def failed(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """What checkov finds in the rendered production platform."""
    charts = packages(pinned_charts(platform.folder), tmp_path_factory.mktemp("packages"))
    if not all(charts.values()):
        pytest.skip("checkov judges the real charts (UPSTREAM_CHARTS), not stand-ins")
    out = tmp_path_factory.mktemp("checkov") / "manifests"
    out.mkdir()
    rendered = render(platform.folder, "production", tmp_path_factory.mktemp("rendered"), platform.registry.trust)
    for component, manifests in rendered.items():
        # Pods of `helm test`: Argo CD does not run them.
        kept = [m for m in manifests if "test" not in (m["metadata"].get("annotations") or {}).get("helm.sh/hook", "")]
        (out / f"{component}.yaml").write_text(yaml.safe_dump_all(kept))
    failed, passed = failures(out, "kubernetes")
    assert passed > 500
    return failed


def test_rendered_manifests_fail_no_check_but_the_excused(failed: set[tuple[str, str]]) -> None:
    assert unexcused(failed, EXCEPTIONS) == []


def test_every_exception_is_needed(failed: set[tuple[str, str]]) -> None:
    checks = {check for check, _ in failed}
    unused = [check for check in EXCEPTIONS if check not in checks]
    unused += [
        f"{check} {resource}"
        for check, (resources, _) in EXCEPTIONS.items()
        for resource in resources
        if not any(check == c and r.endswith(resource) for c, r in failed)
    ]
    assert unused == []


def test_terraform_workflows_and_dockerfile_fail_no_check(platform: Platform) -> None:
    failed, passed = failures(platform.folder, "terraform", "github_actions", "dockerfile")
    assert passed > 0
    assert unexcused(failed, SOURCE_EXCEPTIONS) == []
