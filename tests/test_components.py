"""Folder in, folder out: a component that nobody foresaw, and each existing one deleted in turn.

After either the platform holds (contract, manifests, the bake's own reading of its folders, what `make mirror` would copy,
the doctor's checks of the files), or the folder that cannot do without the deleted one is named.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import mirror
from scripts.charts import HOMES, images, values
from scripts.doctor.checks import walk
from scripts.doctor.context import Context
from scripts.doctor.model import Status
from scripts.doctor.repository import Repository
from scripts.facts import problems
from tests import charts, contract, finders, platforms
from tests.platforms import Baked
from tests.test_operations import UPSTREAM, is_test

BAKES = ("default", "everything")
FOLDERS = {
    name: sorted(
        path.parent.name
        for home in ("platform-apps", "k8s/helm-charts")
        for path in (platforms.ROOT / "{{cookiecutter.project_slug}}").glob(f"{home}/*/Chart.yaml")
    )
    for name in BAKES
}

MIMIR = {
    "Chart.yaml": {"apiVersion": "v2", "name": "mimir", "type": "application", "version": "0.1.0"},
    "application.yaml": {
        "namespace": "metrics",
        "requires": ["otel-collector"],
        "clusterKinds": ["example.com/MetricStore"],
    },
    "values.yaml": {},
    "platform.yaml": {
        "global": {
            "platform": {
                "workloads": {
                    "mimir": {
                        "namespace": "metrics",
                        "podLabels": {"app.kubernetes.io/name": "mimir"},
                        "reaches": ["dns"],
                    }
                },
                "edges": {
                    "collector-mimir": {"from": "otel-collector", "to": "mimir", "ports": [8080]},
                    "grafana-mimir": {"from": "grafana", "to": "mimir", "ports": [8080]},
                    "stranger-mimir": {"from": "nobody", "to": "mimir", "ports": [1]},
                },
                "scrape": {"mimir": {"host": "mimir", "port": 8080, "workload": "mimir"}},
                "endpoints": {"mimir": {"metrics": "http://mimir.metrics.svc.cluster.local:8080/otlp/v1/metrics"}},
                "dataSources": {
                    "mimir": {
                        "name": "Mimir",
                        "type": "prometheus",
                        "url": "http://mimir.metrics.svc.cluster.local:8080/prometheus",
                    }
                },
                "charts": {"mimir-distributed": "oci://ghcr.io/grafana/helm-charts"},
                "images": {"grafana": "docker.io"},
            }
        }
    },
    "templates/service.yaml": {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "mimir", "namespace": "metrics"},
        "spec": {"ports": [{"port": 8080}], "selector": {"app.kubernetes.io/name": "mimir"}},
    },
    "templates/pod.yaml": {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "mimir", "namespace": "metrics", "labels": {"app.kubernetes.io/name": "mimir"}},
        "spec": {"containers": [{"name": "mimir", "image": "docker.io/grafana/mimir:3.0.0"}]},
    },
}


@pytest.fixture
def copy(request: pytest.FixtureRequest, platform: Baked, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A platform that a test may change, and the answers it was baked from."""
    name = request.param
    folder = Path(shutil.copytree(platform(name), tmp_path / "platform"))
    return folder, platforms.complete(platforms.load(platforms.VALID[name]))


def holds(folder: Path, answers: dict[str, Any]) -> None:
    """The contract is kept, every manifest is one that Kubernetes takes, and the scripts read the repository."""
    assert contract.violations(folder, answers) == []
    for chart in charts.charts(folder):
        for environment in charts.ENVIRONMENTS:
            invalid = filter(None, map(charts.invalid, charts.render(chart, environment)))
            assert [each for each in invalid if "unknown kind" not in each] == []
    planned(folder)
    assert broken(folder) == []


def planned(folder: Path) -> set[str]:
    """Every chart and image that `make mirror` would copy; raises where a publisher is not known.

    With UPSTREAM_CHARTS the images of the upstream charts are among them.
    """
    sources, own = mirror.publishers(folder), mirror.own_images(folder)
    used = {
        image
        for chart in charts.charts(folder)
        for environment in charts.ENVIRONMENTS
        for image in images(each for each in charts.render(chart, environment, UPSTREAM) if not is_test(each))
        if image.rpartition(":")[0] not in own
    }
    found = {chart.reference for chart in mirror.charts(folder, sources["charts"])}
    return found | {mirror.upstream(image, sources["registry"], sources["images"])[0] for image in used}


def broken(folder: Path) -> list[str]:
    """The hops of `make doctor` that fail where it has nothing but the files."""
    found = []
    for environment in charts.ENVIRONMENTS:
        repository = Repository(folder, environment)
        first, *more = sorted(repository.facts.get("apps", {})) or [""]
        for check, result in walk(Context(repository, service=first), *more):
            if result.status is Status.FAIL:
                found.append(f"{environment}: {check.name}: {result.finding}: {result.evidence}")
    return found


def rendered(folder: Path, component: str, kind: str) -> list[dict[str, Any]]:
    return [each for each in charts.render(folder / "platform-apps" / component, "production") if each["kind"] == kind]


@pytest.mark.parametrize("copy", BAKES, indirect=True)
def test_a_component_that_nobody_foresaw(copy: tuple[Path, dict[str, Any]]) -> None:
    folder, answers = copy
    for name, content in MIMIR.items():
        path = folder / "platform-apps" / "mimir" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content))
    assert problems(folder) == []
    holds(folder, answers)
    assert "docker.io/grafana/mimir:3.0.0" in planned(folder)

    gateway, scraper = (
        next(
            each
            for each in rendered(folder, "otel-collector", "OpenTelemetryCollector")
            if each["metadata"]["name"] == name
        )
        for name in ("otel", "otel-scrape")
    )
    assert gateway["spec"]["config"]["service"]["pipelines"]["metrics"]["exporters"] == [
        "otlp_http/mimir",
        "otlp_http/thanos",
    ]
    (names,) = [
        job["dns_sd_configs"][0]["names"]
        for job in finders.deep(scraper, "scrape_configs")
        if job["job_name"] == "mimir"
    ]
    assert names == ["mimir.metrics.svc.cluster.local"]

    policies = {each["metadata"]["name"]: each for each in rendered(folder, "network-policies", "NetworkPolicy")}
    assert policies["mimir"]["metadata"]["namespace"] == "metrics"
    callers = finders.deep(policies["mimir"]["spec"]["ingress"], "podSelector", "matchLabels", "app.kubernetes.io/name")
    assert sorted(callers) == ["grafana", "otel-collector", "otel-scrape-collector"]
    for client in ("grafana", "otel-collector", "otel-scrape"):
        assert "metrics" in finders.deep(policies[client]["spec"]["egress"], "kubernetes.io/metadata.name"), client

    sources = [
        yaml.safe_load(each["data"].get("datasources.yaml", "{}")) for each in rendered(folder, "grafana", "ConfigMap")
    ]
    assert "mimir" in list(finders.deep(sources, "datasources", "uid"))


def left_of(deleted: str, said: str, folder: Path) -> list[str]:
    """The charts that still speak of a deleted folder: of its policy, or of an address that it said to have."""
    hosts = {*re.findall(r"([\w-]+)\.\w[\w-]*\.svc\b", said), *re.findall(r"\bhost: ([\w-]+)", said)}
    names = "|".join(sorted(re.escape(host.removesuffix("-headless")) for host in hosts)) or "(?!)"
    address = re.compile(rf"\b(?<!-)({names})(-headless)?\.\w[\w-]*\.svc\b")
    lost = []
    for chart in charts.charts(folder):
        for environment in charts.ENVIRONMENTS:
            made = charts.render(chart, environment)
            if address.search(json.dumps([values(chart, environment), made])):
                lost.append(f"{chart.name}: {names}")
            lost += [
                chart.name for each in made if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == deleted
            ]
    return lost


@pytest.mark.parametrize("deleted", FOLDERS["everything"])
@pytest.mark.parametrize("copy", BAKES, indirect=True)
def test_a_folder_is_deleted(copy: tuple[Path, dict[str, Any]], deleted: str) -> None:
    folder, answers = copy
    path = next((each for home in HOMES for each in folder.glob(f"{home}/{deleted}")), None)
    if path is None:
        return  # this bake is without it already, and has its own tests
    said_by_it = "".join(file.read_text() for file in path.glob("platform*.yaml"))
    shutil.rmtree(path)
    if said := problems(folder):
        assert all(f"cannot do without {deleted}" in each for each in said), said
        return
    holds(folder, answers)
    assert left_of(deleted, said_by_it, folder) == []


def test_teams_may_not_be_called_like_a_namespace_of_the_platform(platform: Baked) -> None:
    """The hook runs without the tree, so it has a list; this is what the folders say."""
    sys.path.insert(0, str(platforms.ROOT / "hooks"))
    try:
        from pre_gen_project import RESERVED_TEAMS
    finally:
        sys.path.pop(0)
    namespaces = {"argocd", "default"}
    for name in platforms.VALID:
        team = platforms.complete(platforms.load(platforms.VALID[name]))["team"]
        namespaces |= {charts.deployed_to(chart) for chart in charts.charts(platform(name))} - {team}
    assert namespaces == RESERVED_TEAMS
