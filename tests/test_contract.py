"""Names, labels, uids, Services and ports agree across all files of every platform, and the test notices where not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import contract, platforms

Platform = Callable[[str], Path]


@pytest.mark.parametrize("name", platforms.VALID)
def test_contract(name: str, platform: Platform) -> None:
    found = contract.violations(platform(name), platforms.complete(platforms.load(platforms.VALID[name])))
    assert not found, "\n" + "\n".join(found)


# fact that must be violated: (file, what stands there, what is put there instead)
RECEIVE, RECEIVE_FACTS = "platform-apps/thanos-receive/values.yaml", "platform-apps/thanos-receive/platform.yaml"
TEMPO, LOKI, QUERY = (f"platform-apps/{folder}/platform.yaml" for folder in ("tempo", "loki", "thanos-query"))
RED = "platform-apps/grafana/dashboards/checkout-red.json"
MUTATIONS = {
    "exemplar label": (TEMPO, "{name: trace_id, datasourceUid: tempo", "{name: traceID, datasourceUid: tempo"),
    "trace id of a log line": (LOKI, '| trace_id = "', '| traceid = "'),
    "exemplars are kept by Receive": (RECEIVE, "--tsdb.max-exemplars=100000", "--tsdb.max-exemplars=0"),
    "data source uids": ("platform-apps/grafana/templates/*", '"uid" $uid', '"uid" "one"'),
    "references to data sources": (RED, '"uid": "thanos"', '"uid": "prometheus"'),
    "links to dashboards": (RED, '"uid": "checkout-red"', '"uid": "checkout"'),
    "the RED metric is a native histogram": (RED, contract.METRIC, f"{contract.METRIC}_bucket"),
    "labels of the RED metric": (RED, "service_name=", "service="),
    "resource attributes on series": (RECEIVE, "attributes=service.name", "attributes=service.version"),
    "addresses of Services": (QUERY, ":10902", ":9090"),
    "names of Services": (LOKI, "http://loki.", "http://loki-gateway."),
    "paths of Receive": (RECEIVE_FACTS, "/api/v1/otlp", "/otlp"),
    "the size of the ingestors' volumes": (RECEIVE, "size: 10Gi", "size: 20Gi"),
    "full names of the Thanos releases": (RECEIVE, "fullnameOverride: thanos", "fullnameOverride: receive"),
    "namespaces of workloads": ("platform-apps/tempo/application.yaml", "observability", "tracing"),
    "the app's Services": ("k8s/helm-charts/flask-app/templates/service.yaml", "http", "web"),
    "where a checkout is charged": ("k8s/helm-charts/flask-app/application.yaml", "http://payment", "http://payments"),
    "OTEL_SEMCONV_STABILITY_OPT_IN": ("platform-apps/otel-instrumentation/*", "OTEL_SEMCONV_STABILITY_OPT_IN", "X"),
    "versions of the injected and the local instrumentation": (
        "app/requirements-dev.txt",
        "opentelemetry-instrumentation==0.64b0",
        "opentelemetry-instrumentation==0.65b0",
    ),
    "team in Terraform": ("terraform/terraform.tfvars", '"checkout"', '"payments"'),
}


@pytest.mark.parametrize("fact", MUTATIONS)
def test_a_broken_contract_is_noticed(fact: str, platform: Platform, tmp_path: Path) -> None:
    glob, old, new = MUTATIONS[fact]
    answers = platforms.complete({})
    folder = Path(shutil.copytree(platform("default"), tmp_path / "platform"))
    hits = [path for path in folder.glob(glob) for path in ([path] if path.is_file() else path.rglob("*"))]
    changed = [path for path in hits if path.is_file() and old in path.read_text()]
    assert changed, f"{glob} does not hold {old!r}: mend this mutation"
    for path in changed:
        path.write_text(path.read_text().replace(old, new))
    found = contract.violations(folder, answers)
    assert any(line.startswith(f"{fact}: ") for line in found), found


def test_mutations_name_facts() -> None:
    assert set(MUTATIONS) <= {fact.name for fact in contract.CONTRACT}
    assert len(MUTATIONS) >= 8
