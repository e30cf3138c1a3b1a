"""With the real upstream charts and the real Helm provider at hand, which no registry has to be asked for.

UPSTREAM_CHARTS   a folder of the packaged charts that platform-apps/*/Chart.yaml name (<name>-<version>.tgz)
TF_PLUGIN_MIRROR  a Terraform filesystem mirror that holds hashicorp/helm; `terraform` has to be on PATH
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest

from scripts.charts import dependencies, documents, folders
from scripts.facts import facts
from tests import charts, finders, platforms
from tests.pins import pinned
from tests.platforms import Baked

PLATFORMS = {"default": "local", "everything": "production", "production-s3": "production"}
# And the components and object stores that none of these three has.
MORE = {"none-s3-proprietary": "production", "gcs-gcs-mit": "production", "azure-azurerm-apache-2.0": "production"}
RENDERED = PLATFORMS | MORE
UPSTREAM = Path(os.environ.get("UPSTREAM_CHARTS", "/nonexistent"))
MIRROR = Path(os.environ.get("TF_PLUGIN_MIRROR", "/nonexistent"))

needs_charts = pytest.mark.skipif(
    not UPSTREAM.is_dir(), reason="UPSTREAM_CHARTS names no folder of packaged charts: umbrella charts are not rendered"
)
needs_provider = pytest.mark.skipif(
    not (MIRROR.is_dir() and shutil.which("terraform")),
    reason="TF_PLUGIN_MIRROR names no mirror of the Helm provider, or terraform is missing: no init, validate, test",
)


def umbrellas(platform: Path) -> Iterator[Path]:
    """The charts whose dependencies are at hand; a warning names the others."""
    for chart in charts.charts(platform):
        wanted = {f"{name}-{version}.tgz" for name, version in dependencies(chart)}
        absent = sorted(package for package in wanted if not (UPSTREAM / package).exists())
        if absent:
            warnings.warn(f"{chart.name} was not rendered: {', '.join(absent)} is not in UPSTREAM_CHARTS", stacklevel=2)
        elif wanted:
            yield chart


@needs_charts
@pytest.mark.parametrize("name", RENDERED)
def test_umbrella_charts_render_strictly(name: str, platform: Baked) -> None:
    """Every object is one that Kubernetes takes, and a second render is the same (else Argo CD never comes to rest)."""
    problems, rendered = [], []
    for chart in umbrellas(platform(name)):
        for environment in dict.fromkeys(("local", RENDERED[name])):
            where = f"{chart.name} ({environment})"
            try:
                one, two = (charts.rendered(chart, environment, UPSTREAM) for _ in range(2))
            except helm.HelmError as error:
                problems.append(f"{where}: {error}")
                continue
            rendered.append(where)
            problems += [f"{where}: {file} changes at every render" for file in one if one[file] != two.get(file)]
            problems += [f"{where}: {problem}" for problem in filter(None, map(charts.invalid, charts.objects(one)))]
    # CustomResourceDefinitions bring kinds of their own whose schemas are not at hand.
    problems = [problem for problem in problems if "unknown kind" not in problem]
    assert not problems, "\n" + "\n".join(problems)
    assert rendered
    print(f"rendered and validated: {', '.join(rendered)}")


@needs_charts
@pytest.mark.parametrize("name", RENDERED)
def test_the_contract_s_services_are_rendered(name: str, platform: Baked) -> None:
    """What the files call by name and port is what the upstream charts make."""
    made: dict[tuple[str, str], set[int]] = {}
    for chart in umbrellas(platform(name)):
        for each in charts.render(chart, RENDERED[name], UPSTREAM):
            if each["kind"] == "Service":
                namespace = each["metadata"].get("namespace") or charts.deployed_to(chart)
                made[each["metadata"]["name"], namespace] = {port["port"] for port in each["spec"]["ports"]}
    answers = platforms.complete(platforms.load(platforms.VALID[name]))
    # The operator and Terraform make these.
    elsewhere = {"otel-collector", "argocd-server"}
    missing, read = [], finders.Bake(platform(name), answers)
    for file, (service, _, port) in finders.addresses(read):
        where = read.services[service][0]
        at_hand = made.get((service, where), set())
        if service not in elsewhere and file.startswith("platform-apps/") and port not in at_hand:
            missing.append(f"{file}: {service}.{where}:{port} (rendered: {at_hand or 'no such Service'})")
    assert not missing, "\n" + "\n".join(missing)


@needs_charts
def test_pods_that_are_scraped_by_name_have_one(platform: Baked) -> None:
    """`portName` in a scrape fact: a headless Service with that port, which governs a StatefulSet."""
    named = set()
    for name in RENDERED:
        objects = [
            each for chart in umbrellas(platform(name)) for each in charts.render(chart, RENDERED[name], UPSTREAM)
        ]
        governed = {each["spec"]["serviceName"] for each in objects if each["kind"] == "StatefulSet"}
        headless = {
            each["metadata"]["name"]: {(port.get("name"), port["port"]) for port in each["spec"]["ports"]}
            for each in objects
            if each["kind"] == "Service" and each["spec"].get("clusterIP") == "None"
        }
        for job, target in facts(platform(name), RENDERED[name])["scrape"].items():
            if "portName" in target:
                named.add(job)
                assert target["host"] in governed, job
                assert (target["portName"], target["port"]) in headless[target["host"]], job
    assert {"thanos-receive-ingestor", "thanos-store-gateway", "loki"} <= named


# Kubernetes' own kinds that are in no namespace; a CRD says it of its kind.
CLUSTER_SCOPED = {
    "admissionregistration.k8s.io/MutatingWebhookConfiguration",
    "admissionregistration.k8s.io/ValidatingAdmissionPolicy",
    "admissionregistration.k8s.io/ValidatingAdmissionPolicyBinding",
    "admissionregistration.k8s.io/ValidatingWebhookConfiguration",
    "apiextensions.k8s.io/CustomResourceDefinition",
    "apiregistration.k8s.io/APIService",
    "networking.k8s.io/IngressClass",
    "rbac.authorization.k8s.io/ClusterRole",
    "rbac.authorization.k8s.io/ClusterRoleBinding",
    "scheduling.k8s.io/PriorityClass",
    "storage.k8s.io/StorageClass",
    "/Namespace",
    "/PersistentVolume",
}


def crds(chart: Path) -> list[dict[str, Any]]:
    """The CRDs of a chart's `crds` folder, which are no templates; Argo CD applies them all the same."""
    found: list[dict[str, Any]] = []
    for name, version in dependencies(chart):
        with tarfile.open(UPSTREAM / f"{name}-{version}.tgz") as package:
            for member in package:
                if re.fullmatch(r"[^/]+/crds/.*\.ya?ml", member.name):
                    content = package.extractfile(member)
                    assert content
                    found += documents(content.read().decode())
    return found


@needs_charts
def test_the_cluster_scoped_kinds_are_those_of_application_yaml(platform: Baked) -> None:
    """A kind that is missing there stops the sync; one too many is a right that nobody needs."""
    said: dict[str, set[str]] = {}
    made: dict[str, set[str]] = {}
    scoped = set(CLUSTER_SCOPED)
    objects: list[tuple[str, dict[str, Any]]] = []
    for name in RENDERED:
        for chart in folders(platform(name)):
            application = chart / "application.yaml"
            if application.exists():
                said[chart.name] = set(charts.parsed(application.read_text()).get("clusterKinds", []))
            for environment in charts.ENVIRONMENTS:
                objects += [(chart.name, each) for each in charts.render(chart, environment, UPSTREAM)]
            objects += [(chart.name, each) for each in crds(chart)]
    for _, each in objects:
        if each["kind"] == "CustomResourceDefinition" and each["spec"]["scope"] == "Cluster":
            scoped.add(f"{each['spec']['group']}/{each['spec']['names']['kind']}")
    for name, each in objects:
        group = each["apiVersion"].rpartition("/")[0]
        if f"{group}/{each['kind']}" in scoped:
            made.setdefault(name, set()).add(f"{group}/{each['kind']}")
    assert made == {name: kinds for name, kinds in said.items() if kinds}


@needs_charts
@pytest.mark.parametrize(
    ("name", "chart", "image", "version"),
    [
        ("default", "thanos-query", "thanos/thanos", f"v{pinned('thanos')}"),
        ("s3-local-mit", "sealed-secrets", "bitnami/sealed-secrets-controller", pinned("sealed-secrets")),
    ],
)
def test_the_image_that_runs_is_the_version_that_the_suites_build(
    name: str, chart: str, image: str, version: str, platform: Baked
) -> None:
    made = charts.render(platform(name) / "platform-apps" / chart, "production", UPSTREAM)
    images = [ref.rpartition(":") for ref in finders.deep(made, "image") if isinstance(ref, str)]
    assert {tag for name, _, tag in images if name.endswith(f"/{image}")} == {version}


@needs_charts
def test_the_argo_cd_that_runs_is_the_version_that_the_suites_build(platform: Baked) -> None:
    made = charts.render_argo_cd(platform("default"), "production", UPSTREAM)
    images = {ref for ref in finders.deep(made, "image") if isinstance(ref, str) and "argoproj" in ref}
    assert images == {f"quay.io/argoproj/argocd:v{pinned('argocd')}"}


@needs_provider
@pytest.mark.parametrize("name", PLATFORMS)
def test_terraform(name: str, platform: Baked, tmp_path: Path) -> None:
    """init, validate and test with the real provider."""
    folder = Path(shutil.copytree(platform(name), tmp_path / "platform"))
    config = tmp_path / "terraform.rc"
    config.write_text(f'provider_installation {{\n  filesystem_mirror {{\n    path = "{MIRROR}"\n  }}\n}}\n')
    env = {**os.environ, "TF_CLI_CONFIG_FILE": str(config), "TF_IN_AUTOMATION": "1"}
    for arguments in (["init", "-backend=false", "-input=false"], ["validate"], ["test"]):
        done = subprocess.run(
            ["terraform", f"-chdir={folder / 'terraform'}", *arguments, "-no-color"],
            env=env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "Success!" in done.stdout
