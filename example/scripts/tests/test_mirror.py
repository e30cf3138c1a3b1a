"""What `make mirror` reads out of a repository; that it copies is for a registry to show."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from scripts import mirror
from scripts.charts import ROOT

MIRROR = "registry.example.com/mirror"
SOURCES = {"grafana": "docker.io", "thanos": "quay.io"}


@pytest.mark.parametrize(
    ("image", "registry", "source", "path"),
    [
        (f"{MIRROR}/thanos/thanos:v1", MIRROR, "quay.io/thanos/thanos:v1", "thanos/thanos:v1"),
        ("quay.io/thanos/thanos:v1", "", "quay.io/thanos/thanos:v1", "thanos/thanos:v1"),
        ("quay.io/thanos/thanos:v1", MIRROR, "quay.io/thanos/thanos:v1", "thanos/thanos:v1"),
        ("localhost:5000/a/b@sha256:0", "", "localhost:5000/a/b@sha256:0", "a/b@sha256:0"),
        ("grafana/grafana:1", "", "docker.io/grafana/grafana:1", "grafana/grafana:1"),
        ("redis:8", "", "docker.io/library/redis:8", "library/redis:8"),
        (f"{MIRROR}-2/thanos/thanos:v1", MIRROR, f"{MIRROR}-2/thanos/thanos:v1", "mirror-2/thanos/thanos:v1"),
    ],
)
def test_upstream(image: str, registry: str, source: str, path: str) -> None:
    assert mirror.upstream(image, registry, SOURCES) == (source, path)


def test_upstream_of_an_unknown_publisher() -> None:
    with pytest.raises(mirror.MirrorError, match="an entry in images for acme .acme/tool:1"):
        mirror.upstream(f"{MIRROR}/acme/tool:1", MIRROR, SOURCES)


def test_a_chart_has_a_publisher(tmp_path: Path) -> None:
    component = tmp_path / "platform-apps" / "metrics" / "Chart.yaml"
    component.parent.mkdir(parents=True)
    component.write_text(yaml.safe_dump({"dependencies": [{"name": "thanos", "version": "1.2.3+4"}]}))
    (chart,) = mirror.charts(tmp_path, {"thanos": "oci://one"})
    assert chart == mirror.Chart("thanos", "1.2.3+4", "oci://one")
    assert (chart.package, chart.reference) == ("thanos-1.2.3+4.tgz", "thanos:1.2.3_4")
    with pytest.raises(mirror.MirrorError, match="an entry in charts for thanos"):
        mirror.charts(tmp_path, {"argo-cd": "https://two"})


def test_every_chart_of_this_repository_has_a_source() -> None:
    sources = mirror.publishers(ROOT)["charts"]
    assert {"argo-cd", "argocd-apps", "thanos"} <= {chart.name for chart in mirror.charts(ROOT, sources)}
