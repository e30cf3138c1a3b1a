"""What `make mirror` reads out of a repository; that it copies is for a registry to show."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from scripts import mirror

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


def test_images_of_pods_custom_resources_and_arguments() -> None:
    pod = {"initContainers": [{"image": "init:1"}], "containers": [{"image": "main:1", "args": ["--log-level=info"]}]}
    operator = {"args": ["--collector-image=collector:1", "--acme-http01-solver-image=solver:1", "--image-pull=x"]}
    instrumentation = {"spec": {"python": {"image": "python:1"}}}
    found = mirror.images_of([{"spec": {"template": {"spec": pod}}}, {"containers": [operator]}, instrumentation, None])
    assert found == {"init:1", "main:1", "collector:1", "solver:1", "python:1"}


def test_charts_of_components_and_of_terraform(tmp_path: Path) -> None:
    component = tmp_path / "platform-apps" / "metrics" / "Chart.yaml"
    component.parent.mkdir(parents=True)
    component.write_text(yaml.safe_dump({"dependencies": [{"name": "thanos", "version": "1.2.3+4"}]}))
    module = tmp_path / "terraform" / "modules" / "argocd" / "main.tf"
    module.parent.mkdir(parents=True)
    module.write_text(
        'resource "helm_release" "a" {\n  chart      = "argo-cd"\n  # a comment\n  version = "10.1.1"\n}\n'
        'resource "helm_release" "b" {\n  chart = "${path.module}/chart"\n}\n'
    )
    sources = {"thanos": "oci://one", "argo-cd": "https://two"}
    found = mirror.charts(tmp_path, sources)
    assert found == [mirror.Chart("argo-cd", "10.1.1", "https://two"), mirror.Chart("thanos", "1.2.3+4", "oci://one")]
    assert (found[1].package, found[1].reference) == ("thanos-1.2.3+4.tgz", "thanos:1.2.3_4")
    with pytest.raises(mirror.MirrorError, match="an entry in charts for thanos"):
        mirror.charts(tmp_path, {"argo-cd": "https://two"})


def test_every_chart_of_this_repository_has_a_source() -> None:
    sources = mirror.publishers(mirror.ROOT)["charts"]
    assert {"argo-cd", "argocd-apps", "thanos"} <= {chart.name for chart in mirror.charts(mirror.ROOT, sources)}


def test_a_failed_program_says_why() -> None:
    with pytest.raises(mirror.CommandError, match="No such file"):
        mirror.run("ls", "/no/such/folder")
    with pytest.raises(mirror.MirrorError, match="no-such-program is not installed"):
        mirror.run("no-such-program")
