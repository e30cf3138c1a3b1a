"""Names, labels, uids, Services and ports agree across all files of every platform, and the test notices where not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import contract, finders, platforms
from tests.platforms import Baked


@pytest.mark.parametrize("name", platforms.VALID)
def test_contract(name: str, platform: Baked) -> None:
    violations = contract.violations(platform(name), platforms.complete(platforms.load(platforms.VALID[name])))
    assert not violations, "\n" + "\n".join(violations)


# fact that must be violated: (files, what stands there, what is put there instead)
RECEIVE, RECEIVE_FACTS = "platform-apps/thanos-receive/values.yaml", "platform-apps/thanos-receive/platform.yaml"
TEMPO, LOKI, QUERY = (f"platform-apps/{folder}/platform.yaml" for folder in ("tempo", "loki", "thanos-query"))
APP, SDK = "k8s/helm-charts/flask-app", "platform-apps/otel-instrumentation"
RED = "platform-apps/grafana/dashboards/checkout-red.json"
MUTATIONS = {
    "exemplar label": (TEMPO, "{name: trace_id, datasourceUid: tempo", "{name: traceID, datasourceUid: tempo"),
    "trace id of a log line": (LOKI, '| trace_id = "', '| traceid = "'),
    "exemplars are kept by Receive": (RECEIVE, "--tsdb.max-exemplars=100000", "--tsdb.max-exemplars=0"),
    "data source uids": ("platform-apps/grafana/templates/*", '"uid" $uid', '"uid" "one"'),
    "references to data sources": (RED, '"uid": "thanos"', '"uid": "prometheus"'),
    "links to dashboards": (RED, '"uid": "checkout-red"', '"uid": "checkout"'),
    "the RED metric is a native histogram": (RED, finders.METRIC, f"{finders.METRIC}_bucket"),
    "labels of the RED metric": (RED, "service_name=", "service="),
    "resource attributes on series": (RECEIVE, "attributes=service.name", "attributes=service.version"),
    "addresses of Services": (QUERY, ":10902", ":9090"),
    "names of Services": (LOKI, "http://loki.", "http://loki-gateway."),
    "paths of Receive": (RECEIVE_FACTS, "/api/v1/otlp", "/otlp"),
    "the size of the ingestors' volumes": (RECEIVE, "size: 10Gi", "size: 20Gi"),
    "full names of the Thanos releases": (RECEIVE, "fullnameOverride: thanos", "fullnameOverride: receive"),
    "namespaces of workloads": ("platform-apps/tempo/application.yaml", "observability", "tracing"),
    "the app's Service": (f"{APP}/templates/service.yaml", "http", "web"),
    "OTEL_SEMCONV_STABILITY_OPT_IN": (f"{SDK}/templates/*", "OTEL_SEMCONV_STABILITY_OPT_IN", "X"),
    "versions of the injected and the local instrumentation": (
        "app/requirements-dev.txt",
        "opentelemetry-instrumentation==0.64b0",
        "opentelemetry-instrumentation==0.65b0",
    ),
    "the service's name": ("platform-apps/thanos-ruler/tests/slo_test.yaml", 'name="checkout"', 'name="shop"'),
    "OTEL_SERVICE_NAME": (f"{APP}/values.yaml", "serviceName: checkout", "serviceName: shop"),
    "default histogram": (f"{SDK}/templates/*", "base2_exponential_bucket_histogram", "explicit_bucket_histogram"),
    "path of Loki": (LOKI, ":3100/otlp", ":3100/loki"),
    "the collectors' names": ("platform-apps/otel-collector/templates/*", "name: otel-scrape", "name: otel-pull"),
    "full names": ("platform-apps/tempo/values.yaml", "fullnameOverride: tempo", "fullnameOverride: traces"),
    "the app's port": (f"{APP}/values.yaml", "port: 8000", "port: 8080"),
    "the app's image": (f"{APP}/values.yaml", "/checkout-simulator", "/shop"),
    "the load's target": ("platform-apps/load-generator/values.yaml", "http://flask-app", "http://flask-app.shop"),
    "Instrumentation": (f"{SDK}/templates/*", "name: python", "name: py"),
    "the app asks for it": (f"{APP}/values.yaml", "instrumentation: python", "instrumentation: py"),
    "where the app's telemetry goes": (f"{SDK}/values.yaml", ":4318", ":4317"),
    "the trace id's header": ("app/checkout_simulator/app.py", "X-Trace-Id", "X-TraceId"),
    "Grafana's login": ("platform-apps/grafana/values.yaml", "grafana-admin", "grafana-login"),
    "collector version": ("platform-apps/otel-collector/values.yaml", ":0.158.0", ":0.157.0"),
    "Thanos version": (RECEIVE, "tag: v0.42.4", "tag: v0.42.3"),
    "team in Terraform": ("terraform/terraform.tfvars", '"checkout"', '"payments"'),
    "repo_url in Terraform": ("terraform/terraform.tfvars", "github.com", "gitlab.com"),
    "repo_revision in Terraform": ("terraform/terraform.tfvars", '"main"', '"master"'),
    "chart_registry in Terraform": ("terraform/terraform.tfvars", '= ""', '= "registry.example.com"'),
}


@pytest.mark.parametrize("fact", contract.CONTRACT, ids=lambda fact: fact.name)
def test_a_broken_contract_is_noticed(fact: contract.Fact, platform: Baked, tmp_path: Path) -> None:
    glob, old, new = MUTATIONS[fact.name]
    folder = Path(shutil.copytree(platform("default"), tmp_path / "platform"))
    hits = [path for path in folder.glob(glob) for path in ([path] if path.is_file() else path.rglob("*"))]
    changed = [path for path in hits if path.is_file() and old in path.read_text()]
    assert changed, f"{glob} does not hold {old!r}: mend this mutation"
    for path in changed:
        path.write_text(path.read_text().replace(old, new))
    assert list(fact.violations(finders.Bake(folder, platforms.complete({}))))


def test_each_mutation_is_of_one_fact() -> None:
    assert sorted(MUTATIONS) == sorted(fact.name for fact in contract.CONTRACT)
