"""The names on which the parts of a platform have to agree, as one table of facts.

A fact says where a name is written down and what may stand there. Files are found by glob and read as text, as YAML or JSON,
or as the Kubernetes objects that a chart renders; so a name that changes in one file alone is a violation.
"""

from __future__ import annotations

import fnmatch
import functools
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from scripts.facts import facts
from tests import charts
from tests.checks import names, read
from tests.pins import pinned

Found = Iterator[tuple[str, Any]]

# Services of the upstream charts, which a test without those charts cannot render (with them one does, and compares). Those
# of the platform's own templates are found there. name -> (namespace, ports). `-headless` names resolve to the same pods.
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
METRIC_LABELS = {
    "service_name", "k8s_namespace_name", "job", "instance", "http_request_method", "http_route",
    "http_response_status_code", "le", "__name__",
}  # fmt: skip
# `kubernetes`: what Fluent Bit calls the containers that name no service.
PLATFORM_SERVICES = {"otel-collector", "otel-scrape", "kubernetes"}
BUILT_IN_SOURCES = {"grafana", "-- Grafana --", "-- Dashboard --", "-- Mixed --"}


class Platform:
    """A baked platform, read once."""

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
        found = dict(SERVICES)
        for chart in charts.charts(self.folder):
            for each in self.rendered(chart.relative_to(self.folder).as_posix(), "Service"):
                namespace = each["metadata"].get("namespace") or charts.release(chart)["namespace"]
                ports = {port["port"] for port in each["spec"]["ports"]}
                name = each["metadata"]["name"]
                known = found.get(name, (namespace, set()))[1]
                found[name] = (namespace, known | ports)
        return found

    def rendered(self, chart: str, kind: str, environment: str = "production") -> Iterator[dict[str, Any]]:
        folder = self.folder / chart
        for each in charts.render(folder, environment) if folder.is_dir() else ():
            if each["kind"] == kind:
                yield each


@dataclass(frozen=True)
class Fact:
    """`find` yields (file, value); each value must be `allowed`, and at least one must be found unless `optional`.

    With `all`, every allowed value must be found as well. Without the folder `of`, which a team may delete, there is no fact.
    """

    name: str
    allowed: Collection[Any] | Callable[[Platform], Collection[Any]]
    find: Callable[[Platform], Found]
    optional: bool = False
    all: bool = False
    of: str = "."

    def violations(self, platform: Platform) -> Iterator[str]:
        if not (platform.folder / self.of).is_dir():
            return
        allowed = self.allowed(platform) if callable(self.allowed) else self.allowed
        found = list(self.find(platform))
        for file, value in found:
            if value not in allowed:
                yield f"{self.name}: {file} says {value!r}, not {' or '.join(map(repr, sorted(allowed, key=str)))}"
        if not found and not self.optional:
            yield f"{self.name}: nothing found"
        if self.all and found:
            for value in sorted(set(allowed) - {value for _, value in found}, key=str):
                yield f"{self.name}: {value!r} is missing"


# --- How a fact is found ---


def text(pattern: str, *globs: str) -> Callable[[Platform], Found]:
    """What `pattern` captures in the files of these globs."""

    def find(platform: Platform) -> Found:
        for name, content in platform.matching(*globs):
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


def data(glob: str, *keys: str) -> Callable[[Platform], Found]:
    """The values below `keys` in YAML or JSON files."""

    def find(platform: Platform) -> Found:
        for name, content in platform.matching(glob):
            for document in [json.loads(content)] if name.endswith(".json") else charts.all_parsed(content):
                yield from ((name, value) for value in deep(document, *keys))

    return find


def manifest(chart: str, kind: str, pick: Callable[[dict[str, Any]], Iterable[object]]) -> Callable[[Platform], Found]:
    """What `pick` takes from the objects of a kind that a chart renders."""

    def find(platform: Platform) -> Found:
        for each in platform.rendered(chart, kind):
            yield from ((f"{chart}: {kind} {each['metadata']['name']}", value) for value in pick(each))

    return find


def of_apps(pick: Callable[[dict[str, Any]], Iterable[object]]) -> Callable[[Platform], Found]:
    """What `pick` takes from the Deployments of every app."""

    def find(platform: Platform) -> Found:
        for chart in sorted(platform.folder.glob("k8s/helm-charts/*/Chart.yaml")):
            yield from manifest(chart.parent.relative_to(platform.folder).as_posix(), "Deployment", pick)(platform)

    return find


def env(*variables: str) -> Callable[[dict[str, Any]], Iterator[object]]:
    """The values of these environment variables, wherever an object sets them."""

    def pick(each: dict[str, Any]) -> Iterator[object]:
        for variable in deep(each, "env"):
            if isinstance(variable, dict) and variable.get("name") in variables:
                yield variable.get("value")

    return pick


def together(*finders: Callable[[Platform], Found]) -> Callable[[Platform], Found]:
    return lambda platform: (each for find in finders for each in find(platform))


# --- What is looked for in more than one way ---


def addresses(platform: Platform) -> Found:
    """(name, namespace or empty, port) of every address of one of our Services, in any file."""
    known = "|".join(sorted(map(re.escape, platform.services), key=len, reverse=True))
    pattern = re.compile(
        rf"(?:(?<=://)|(?<![\w./:-]))({known})((?:\.[a-z0-9-]+)?)(?:\.svc(?:\.cluster\.local)?)?:(\d+)(?![\w.])"
    )
    for name, content in platform.matching("*"):
        for service, namespace, port in pattern.findall(content):
            yield name, (service, namespace.lstrip("."), int(port))


def allowed_addresses(platform: Platform) -> set[Any]:
    return {
        (name, written, port)
        for name, (namespace, ports) in platform.services.items()
        for port in ports
        for written in ("", namespace)
    }


def cluster_names(platform: Platform) -> Found:
    """(name, namespace) of every DNS name of a Service in the platform's charts."""
    for name, content in platform.matching("platform-apps/*", "scripts/*"):
        for match in re.findall(r"(?<![\w{}-])([a-z][a-z0-9-]+)\.([a-z][a-z0-9-]*)\.svc\b", content):
            yield name, match


def allowed_cluster_names(platform: Platform) -> set[Any]:
    known = {(name, namespace) for name, (namespace, _) in platform.services.items()}
    return known | {("kubernetes", "default")}  # the API server


def source_references(platform: Platform) -> Found:
    """Every uid by which a data source is referred to, in values and dashboards and in the links that these carry."""
    for uid, source in platform.facts["dataSources"].items():
        if "type" in source:  # links of one that is not there are not rendered
            yield from ((f"data source {uid}", value) for value in deep(source, "datasourceUid"))
    yield from data("platform-apps/*/dashboards/*.json", "datasource", "uid")(platform)
    for name, content in platform.matching("platform-apps/*/dashboards/*.json", "platform-apps/*/*.yaml"):
        for match in re.findall(r'"datasource":\s*"(\w+)"', unquote(content)):
            yield name, match


def source_uids(platform: Platform) -> set[str]:
    """The data sources that the folders describe; those without a type are links to one that is not there."""
    return {uid for uid, source in platform.facts["dataSources"].items() if "type" in source}


def provisioned_uids(platform: Platform) -> Found:
    """The data sources of the file that Grafana reads."""
    for each in platform.rendered("platform-apps/grafana", "ConfigMap"):
        provisioning = charts.parsed(each["data"].get("datasources.yaml", "{}"))
        for source in provisioning.get("datasources", ()):
            yield each["metadata"]["name"], source["uid"]


def dashboard_uids(platform: Platform) -> set[str]:
    return {uid for _, uid in own_uids(platform)}


def own_uids(platform: Platform) -> Found:
    for name, content in platform.matching("platform-apps/*/dashboards/*.json"):
        yield name, json.loads(content)["uid"]


def metric_labels(platform: Platform) -> Found:
    for name, content in platform.matching("platform-apps/*", "scripts/*"):
        for selector in re.findall(rf"{METRIC}(?:\\?)\{{([^{{}}]*)\}}", content):
            for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\\?\"", selector):
                yield name, label


def workload_namespaces(platform: Platform) -> Found:
    """(folder, namespace) of every workload that a folder says it runs; one without labels is somebody else's."""
    for name, content in platform.matching("*/platform.yaml", "*/platform-*.yaml"):
        workloads = deep(charts.parsed(content), "workloads")
        for workload in (each for found in workloads for each in found.values()):
            if workload and "podLabels" in workload:
                yield name, (name.split("/")[-2], workload["namespace"])


def application_namespaces(platform: Platform) -> set[Any]:
    files = platform.matching("platform-apps/*/application.yaml", "k8s/helm-charts/*/application.yaml")
    return {(name.split("/")[-2], charts.parsed(content)["namespace"]) for name, content in files}


def span_attributes(platform: Platform) -> set[str]:
    app = "".join(content for _, content in platform.matching("app/checkout_simulator/*.py"))
    return set(re.findall(r"[\"'](checkout\.\w+)[\"']", app))


def exemplar_limit(platform: Platform) -> Found:
    for name, content in platform.matching("platform-apps/thanos-receive/values.yaml"):
        arguments = charts.parsed(content)["thanos"]["receive"]["ingestor"].get("extraArgs", [])
        limits = [int(each.split("=")[1]) for each in arguments if each.startswith("--tsdb.max-exemplars=")]
        yield name, bool(limits and limits[-1] >= 10_000)


def ports(each: dict[str, Any]) -> Iterator[object]:
    for port in each["spec"]["ports"]:
        yield (each["metadata"]["name"], port.get("name"), port["port"], port.get("targetPort"))


def python_pin(platform: Platform) -> set[str]:
    return {match for _, match in text(r"opentelemetry-instrumentation==(\S+)", "app/requirements-dev.txt")(platform)}


def answer(prompt: str) -> Callable[[Platform], set[str]]:
    """An answer as Terraform writes it."""
    return lambda platform: {json.dumps(platform.answers[prompt])}


APP, INSTRUMENTATION, GRAFANA = (
    "k8s/helm-charts/flask-app",
    "platform-apps/otel-instrumentation",
    "platform-apps/grafana",
)

CONTRACT = (
    # Spike -> exemplar -> trace -> log
    Fact(
        "exemplar label",
        {"trace_id"},
        together(
            data("platform-apps/*/platform.yaml", "exemplarTraceIdDestinations", "name"),
            data("platform-apps/tempo/values.yaml", "trace_id_label_name"),
        ),
    ),
    Fact(
        "trace id of a log line",
        {"trace_id"},
        together(
            data("platform-apps/*/platform.yaml", "derivedFields", "matcherRegex"),
            text(r"\| (\w+) = \"\$\$\{__trace\.traceId\}", "platform-apps/*/platform.yaml"),
        ),
        optional=True,  # without a log backend
    ),
    Fact("exemplars are kept by Receive", {True}, exemplar_limit),
    Fact("data source uids", source_uids, provisioned_uids, all=True, of=GRAFANA),
    Fact("references to data sources", lambda p: source_uids(p) | BUILT_IN_SOURCES, source_references),
    Fact(
        "links to dashboards",
        dashboard_uids,
        text(r"/d/([a-z][\w-]*)", "*.md", "platform-apps/*", "scripts/*.sh"),
        optional=True,  # most are in the alerts
        of=GRAFANA,
    ),
    # The RED metric
    Fact("the RED metric is a native histogram", {""}, text(rf"{METRIC}(_\w+|)", "platform-apps/*")),
    Fact("labels of the RED metric", METRIC_LABELS, metric_labels),
    Fact(
        "resource attributes on series",
        {"service.name", "k8s.namespace.name"},
        text(r"--receive\.otlp-promote-resource-attributes=([\w.]+)", "platform-apps/thanos-receive/values.yaml"),
        all=True,
    ),
    Fact(
        "the service's name",
        lambda p: PLATFORM_SERVICES | set(p.facts["apps"]),
        text(r'service_name=\\?"([a-z][\w-]*)\\?"', "platform-apps/*", "docs/*"),
    ),
    Fact("OTEL_SERVICE_NAME", lambda p: set(p.facts["apps"]), of_apps(env("OTEL_SERVICE_NAME")), all=True),
    Fact(
        "OTEL_SEMCONV_STABILITY_OPT_IN",
        {"http"},
        manifest(INSTRUMENTATION, "Instrumentation", env("OTEL_SEMCONV_STABILITY_OPT_IN")),
    ),
    Fact(
        "default histogram",
        {"base2_exponential_bucket_histogram"},
        manifest(INSTRUMENTATION, "Instrumentation", env("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION")),
    ),
    # Services and ports
    Fact("addresses of Services", allowed_addresses, addresses),
    Fact("names of Services", allowed_cluster_names, cluster_names),
    Fact(
        "paths of Receive",
        {"/api/v1/otlp", "/api/v1/otlp/v1/metrics", "/api/v1/receive"},
        text(r"thanos-receive-router[\w.]*:19291(/[\w/]*)", "platform-apps/*", "docs/*"),
    ),
    Fact(
        "path of Loki",
        {"/otlp"},
        text(r"http://loki[\w.]*:3100(/\w*)", "platform-apps/*"),
        optional=True,
    ),
    Fact("gateway", {"otel"}, text(r"name: (otel)\b(?!-)", "platform-apps/otel-collector/templates/*")),
    Fact(
        "full names of the Thanos releases",
        {"thanos"},
        data("platform-apps/thanos-*/values.yaml", "fullnameOverride"),
    ),
    Fact(
        "full names",
        {"grafana", "tempo", "loki", "alertmanager"},
        together(
            *(
                data(f"platform-apps/{c}/values.yaml", c, "fullnameOverride")
                for c in ("grafana", "tempo", "loki", "alertmanager")
            )
        ),
    ),
    Fact("namespaces of workloads", application_namespaces, workload_namespaces),
    # The app
    Fact("the app's Service", {("flask-app", "http", 80, "http")}, manifest(APP, "Service", ports), of=APP),
    Fact(
        "the app's port",
        {("http", 8000)},
        manifest(
            APP, "Deployment", lambda each: ((p["name"], p["containerPort"]) for p in deep(each, "containers", "ports"))
        ),
        of=APP,
    ),
    Fact(
        "the app's image",
        lambda p: {f"{p.answers['oci_registry']}/checkout-simulator:0.1.0"},
        manifest(APP, "Deployment", lambda each: deep(each, "containers", "image")),
        of=APP,
    ),
    Fact(
        "the load's target",
        lambda p: {"flask-app", f"flask-app.{p.answers['team']}"},
        text(r"http://(flask-app(?:\.[a-z][a-z0-9-]*)?)\b", "platform-apps/load-generator/values.yaml"),
        of="platform-apps/load-generator",
    ),
    Fact(
        "Instrumentation", {"python"}, manifest(INSTRUMENTATION, "Instrumentation", lambda e: [e["metadata"]["name"]])
    ),
    Fact(
        "the app asks for it",
        {"python", "true"},
        of_apps(lambda each: deep(each, "annotations", "instrumentation.opentelemetry.io/inject-python")),
    ),
    Fact(
        "where the app's telemetry goes",
        {"http://otel-collector.observability.svc.cluster.local:4318"},
        manifest(INSTRUMENTATION, "Instrumentation", lambda each: deep(each, "spec", "exporter", "endpoint")),
    ),
    Fact(
        "versions of the injected and the local instrumentation",
        python_pin,
        manifest(
            INSTRUMENTATION,
            "Instrumentation",
            lambda each: (str(image).rsplit(":", 1)[-1] for image in deep(each, "python", "image")),
        ),
        of="app",
    ),
    Fact(
        "attributes of the request's span",
        span_attributes,
        text(r"span\.(checkout\.\w+)", "platform-apps/*", "docs/*", "scripts/*"),
        optional=True,
    ),
    Fact(
        "the trace id's header",
        {"X-Trace-Id", "x-trace-id"},
        text(r"(?i)(?<!-)\b(x-trace-?id)\b", "app/*.py", "docs/*.md", "README.md"),
        of="app",
    ),
    Fact(
        "the size of the ingestors' volumes",
        lambda p: {
            (name.rpartition("values")[2], value)
            for name, value in data("platform-apps/thanos-receive/values*.yaml", "ingestor", "persistence", "size")(p)
        },
        lambda p: (
            (name, (name.rpartition("values")[2], value))
            for name, value in data("platform-apps/thanos-ruler/values*.yaml", "watch", "ingestorVolume")(p)
        ),
        all=True,
        of="platform-apps/thanos-ruler",
    ),
    # Secrets, versions, answers
    Fact(
        "Grafana's login",
        {"grafana-admin"},
        data("platform-apps/grafana/values.yaml", "admin", "existingSecret"),
        of=GRAFANA,
    ),
    Fact("collector version", {pinned("collector")}, text(r"opentelemetry-collector[\w-]*:(\d[\w.]*)", "*")),
    Fact(
        "Thanos version", {f"v{pinned('thanos')}"}, data("platform-apps/thanos-*/values.yaml", "thanos", "image", "tag")
    ),
    *(
        Fact(
            f"{prompt} in Terraform",
            answer(prompt),
            text(rf"(?m)^{prompt}\s*=\s*(.*)$", "terraform/terraform.tfvars"),
        )
        for prompt in ("team", "repo_url", "repo_revision", "chart_registry")
    ),
)


def violations(folder: Path, answers: dict[str, Any]) -> list[str]:
    platform = Platform(folder, answers)
    return [line for fact in CONTRACT for line in fact.violations(platform)]
