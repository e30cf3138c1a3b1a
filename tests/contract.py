"""The names on which the parts of a platform have to agree, as one table of facts.

A fact says where a name is written down (`tests/finders.py`) and what may stand there; so a name that changes in one file
alone is a violation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.finders import (
    METRIC,
    Bake,
    Finder,
    addresses,
    allowed_addresses,
    allowed_cluster_names,
    answer,
    application_namespaces,
    cluster_names,
    dashboard_uids,
    data,
    deep,
    env,
    exemplar_limit,
    manifest,
    metric_labels,
    of_apps,
    ports,
    provisioned_uids,
    python_pin,
    source_references,
    source_uids,
    text,
    together,
    workload_namespaces,
)
from tests.pins import pinned

METRIC_LABELS = {
    "service_name", "k8s_namespace_name", "job", "instance", "http_request_method", "http_route",
    "http_response_status_code", "le", "__name__",
}  # fmt: skip
# `kubernetes`: what Fluent Bit calls the containers that name no service.
PLATFORM_SERVICES = {"otel-collector", "otel-scrape", "kubernetes"}
BUILT_IN_SOURCES = {"grafana", "-- Grafana --", "-- Dashboard --", "-- Mixed --"}


@dataclass(frozen=True)
class Fact:
    """`find` yields (file, value); each value must be `allowed`, and at least one must be found unless `optional`.

    With `all`, every allowed value must be found as well. Without the folder `of`, which a team may delete, there is no fact.
    """

    name: str
    allowed: Collection[Any] | Callable[[Bake], Collection[Any]]
    find: Finder
    optional: bool = False
    all: bool = False
    of: str = "."

    def violations(self, bake: Bake) -> Iterator[str]:
        if not (bake.folder / self.of).is_dir():
            return
        allowed = self.allowed(bake) if callable(self.allowed) else self.allowed
        mentions = list(self.find(bake))
        for file, value in mentions:
            if value not in allowed:
                yield f"{self.name}: {file} says {value!r}, not {' or '.join(map(repr, sorted(allowed, key=str)))}"
        if not mentions and not self.optional:
            yield f"{self.name}: nothing found"
        if self.all and mentions:
            for value in sorted(set(allowed) - {value for _, value in mentions}, key=str):
                yield f"{self.name}: {value!r} is missing"


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
    Fact(
        "the collectors' names",
        {"otel", "otel-scrape"},
        manifest("platform-apps/otel-collector", "OpenTelemetryCollector", lambda each: [each["metadata"]["name"]]),
        all=True,
    ),
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
        {"python"},
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
    bake = Bake(folder, answers)
    return [line for fact in CONTRACT for line in fact.violations(bake)]
