"""What the files of a baked platform mention: finders, each of which yields (file, value).

Files are found by glob and read as text, as YAML or JSON, or as the Kubernetes objects that a chart renders.
"""

from __future__ import annotations

import fnmatch
import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from scripts.facts import facts
from tests import charts
from tests.checks import names, read

# Services of the upstream charts, which a test without those charts cannot render (with them one does, and compares).
# Those of the platform's own templates are found there. name -> (namespace, ports). `-headless` names resolve to the
# same pods.
SERVICES = {
    "thanos-receive-router": ("observability", {19291, 10901, 10902}),
    "thanos-receive-router-headless": ("observability", {19291, 10901, 10902}),
    "thanos-receive-ingestor-headless": ("observability", {10901, 10902, 19291}),
    "thanos-query": ("observability", {10901, 10902}),
    "thanos-query-headless": ("observability", {10901, 10902}),
    "thanos-query-frontend": ("observability", {10902}),
    "thanos-query-frontend-headless": ("observability", {10902}),
    "thanos-store-gateway": ("observability", {10901, 10902}),
    "thanos-store-gateway-headless": ("observability", {10901, 10902}),
    "thanos-rule": ("observability", {10901, 10902}),
    "thanos-rule-headless": ("observability", {10901, 10902}),
    "alertmanager": ("observability", {9093}),
    "alertmanager-headless": ("observability", {9093}),
    "thanos-compact": ("observability", {10902}),
    "thanos-compact-headless": ("observability", {10902}),
    "tempo": ("observability", {3200, 4317, 4318}),
    "grafana": ("observability", {80}),
    "loki": ("observability", {3100}),
    "loki-headless": ("observability", {3100}),
    "otel-collector": ("observability", {4317, 4318}),
    "argocd-server": ("argocd", {80, 443}),
    "argocd-application-controller-metrics": ("argocd", {8082}),
}
METRIC = "http_server_request_duration_seconds"


class Bake:
    """A baked platform: its files, and what its charts render, each read once."""

    def __init__(self, folder: Path, answers: dict[str, Any]) -> None:
        self.folder, self.answers = folder, answers

    @functools.cached_property
    def texts(self) -> dict[str, str]:
        return {name: text for name, path in names(self.folder) if (text := read(path)) is not None}

    @functools.cached_property
    def facts(self) -> dict[str, dict[str, Any]]:
        """What the folders say of themselves, as production sees it."""
        return facts(self.folder, "production")

    def matching(self, *globs: str) -> Iterator[tuple[str, str]]:
        for name, text in self.texts.items():
            if any(fnmatch.fnmatch(name, glob) for glob in globs):
                yield name, text

    @functools.cached_property
    def services(self) -> dict[str, tuple[str, set[int]]]:
        """Every Service that may be called: (namespace, ports) by name."""
        services = dict(SERVICES)
        for chart in charts.charts(self.folder):
            for each in self.rendered(chart.relative_to(self.folder).as_posix(), "Service"):
                namespace = each["metadata"].get("namespace") or charts.deployed_to(chart)
                ports = {port["port"] for port in each["spec"]["ports"]}
                name = each["metadata"]["name"]
                known = services.get(name, (namespace, set()))[1]
                services[name] = (namespace, known | ports)
        return services

    def rendered(self, chart: str, kind: str, environment: str = "production") -> Iterator[dict[str, Any]]:
        folder = self.folder / chart
        for each in charts.render(folder, environment) if folder.is_dir() else ():
            if each["kind"] == kind:
                yield each


Mentions = Iterator[tuple[str, Any]]
Finder = Callable[[Bake], Mentions]


def text(pattern: str, *globs: str) -> Finder:
    """What `pattern` captures in the files of these globs."""

    def find(bake: Bake) -> Mentions:
        for name, content in bake.matching(*globs):
            yield from ((name, match) for match in re.findall(pattern, content))

    return find


def deep(value: object, *keys: str) -> Iterator[Any]:
    """The values below `keys`, each anywhere inside the one before."""
    if not keys:
        yield from value if isinstance(value, list) else [value]
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from deep(each, *keys[1:]) if key == keys[0] else deep(each, *keys)
    elif isinstance(value, list):
        for each in value:
            yield from deep(each, *keys)


def data(glob: str, *keys: str) -> Finder:
    """The values below `keys` in YAML or JSON files."""

    def find(bake: Bake) -> Mentions:
        for name, content in bake.matching(glob):
            for document in [json.loads(content)] if name.endswith(".json") else charts.all_parsed(content):
                yield from ((name, value) for value in deep(document, *keys))

    return find


def manifest(chart: str, kind: str, pick: Callable[[dict[str, Any]], Iterable[object]]) -> Finder:
    """What `pick` takes from the objects of a kind that a chart renders."""

    def find(bake: Bake) -> Mentions:
        for each in bake.rendered(chart, kind):
            yield from ((f"{chart}: {kind} {each['metadata']['name']}", value) for value in pick(each))

    return find


def of_apps(pick: Callable[[dict[str, Any]], Iterable[object]]) -> Finder:
    """What `pick` takes from the Deployments of every app."""

    def find(bake: Bake) -> Mentions:
        for chart in sorted(bake.folder.glob("k8s/helm-charts/*/Chart.yaml")):
            yield from manifest(chart.parent.relative_to(bake.folder).as_posix(), "Deployment", pick)(bake)

    return find


def env(*variables: str) -> Callable[[dict[str, Any]], Iterator[object]]:
    """The values of these environment variables, wherever an object sets them."""

    def pick(each: dict[str, Any]) -> Iterator[object]:
        for variable in deep(each, "env"):
            if isinstance(variable, dict) and variable.get("name") in variables:
                yield variable.get("value")

    return pick


def together(*finders: Finder) -> Finder:
    return lambda bake: (each for find in finders for each in find(bake))


def addresses(bake: Bake) -> Mentions:
    """(name, namespace or empty, port) of every address of one of our Services, in any file."""
    known = "|".join(sorted(map(re.escape, bake.services), key=len, reverse=True))
    pattern = re.compile(
        rf"(?:(?<=://)|(?<![\w./:-]))({known})((?:\.[a-z0-9-]+)?)(?:\.svc(?:\.cluster\.local)?)?:(\d+)(?![\w.])"
    )
    for name, content in bake.matching("*"):
        for service, namespace, port in pattern.findall(content):
            yield name, (service, namespace.lstrip("."), int(port))


def allowed_addresses(bake: Bake) -> set[Any]:
    return {
        (name, written, port)
        for name, (namespace, ports) in bake.services.items()
        for port in ports
        for written in ("", namespace)
    }


def cluster_names(bake: Bake) -> Mentions:
    """(name, namespace) of every DNS name of a Service in the platform's charts."""
    for name, content in bake.matching("platform-apps/*", "scripts/*"):
        for match in re.findall(r"(?<![\w{}-])([a-z][a-z0-9-]+)\.([a-z][a-z0-9-]*)\.svc\b", content):
            yield name, match


def allowed_cluster_names(bake: Bake) -> set[Any]:
    known = {(name, namespace) for name, (namespace, _) in bake.services.items()}
    return known | {("kubernetes", "default")}  # the API server


def source_references(bake: Bake) -> Mentions:
    """Every uid by which a data source is referred to, in values and dashboards and in the links that these carry."""
    for uid, source in bake.facts["dataSources"].items():
        if "type" in source:  # links of one that is not there are not rendered
            yield from ((f"data source {uid}", value) for value in deep(source, "datasourceUid"))
    yield from data("platform-apps/*/dashboards/*.json", "datasource", "uid")(bake)
    for name, content in bake.matching("platform-apps/*/dashboards/*.json", "platform-apps/*/*.yaml"):
        for match in re.findall(r'"datasource":\s*"(\w+)"', unquote(content)):
            yield name, match


def source_uids(bake: Bake) -> set[str]:
    """The data sources that the folders describe; those without a type are links to one that is not there."""
    return {uid for uid, source in bake.facts["dataSources"].items() if "type" in source}


def provisioned_uids(bake: Bake) -> Mentions:
    """The data sources of the file that Grafana reads."""
    for each in bake.rendered("platform-apps/grafana", "ConfigMap"):
        provisioning = charts.parsed(each["data"].get("datasources.yaml", "{}"))
        for source in provisioning.get("datasources", ()):
            yield each["metadata"]["name"], source["uid"]


def dashboard_uids(bake: Bake) -> set[str]:
    return {uid for _, uid in own_uids(bake)}


def own_uids(bake: Bake) -> Mentions:
    for name, content in bake.matching("platform-apps/*/dashboards/*.json"):
        yield name, json.loads(content)["uid"]


def metric_labels(bake: Bake) -> Mentions:
    for name, content in bake.matching("platform-apps/*", "scripts/*"):
        for selector in re.findall(rf"{METRIC}(?:\\?)\{{([^{{}}]*)\}}", content):
            for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\\?\"", selector):
                yield name, label


def workload_namespaces(bake: Bake) -> Mentions:
    """(folder, namespace) of every workload that a folder says it runs; one without labels is somebody else's."""
    for name, content in bake.matching("*/platform.yaml", "*/platform-*.yaml"):
        workloads = deep(charts.parsed(content), "workloads")
        for workload in (each for group in workloads for each in group.values()):
            if workload and "podLabels" in workload:
                yield name, (name.split("/")[-2], workload["namespace"])


def application_namespaces(bake: Bake) -> set[Any]:
    files = bake.matching("platform-apps/*/application.yaml", "k8s/helm-charts/*/application.yaml")
    return {(name.split("/")[-2], charts.parsed(content)["namespace"]) for name, content in files}


def exemplar_limit(bake: Bake) -> Mentions:
    for name, content in bake.matching("platform-apps/thanos-receive/values.yaml"):
        arguments = charts.parsed(content)["thanos"]["receive"]["ingestor"].get("extraArgs", [])
        limits = [int(each.split("=")[1]) for each in arguments if each.startswith("--tsdb.max-exemplars=")]
        yield name, bool(limits and limits[-1] >= 10_000)


def ports(each: dict[str, Any]) -> Iterator[object]:
    for port in each["spec"]["ports"]:
        yield (each["metadata"]["name"], port.get("name"), port["port"], port.get("targetPort"))


def python_pin(bake: Bake) -> set[str]:
    return {match for _, match in text(r"opentelemetry-instrumentation==(\S+)", "app/requirements-dev.txt")(bake)}


def answer(prompt: str) -> Callable[[Bake], set[str]]:
    """An answer as Terraform writes it."""
    return lambda bake: {json.dumps(bake.answers[prompt])}
