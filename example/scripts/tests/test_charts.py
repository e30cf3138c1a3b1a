"""How the tools read charts; what Helm itself makes of them is for Helm to show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from scripts import charts


def write(file: Path, content: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return file


def test_values_are_merged_as_helm_does(tmp_path: Path) -> None:
    write(tmp_path / "values.yaml", "a: {b: 1, c: [1, 2], f: {g: 1}}\nd: 1\n")
    write(tmp_path / "values-production.yaml", "a: {c: [3], e: 2, f: 3}\nd: {h: 1}\n")
    assert charts.values(tmp_path, "production") == {"a": {"b": 1, "c": [3], "e": 2, "f": 3}, "d": {"h": 1}}
    assert charts.values(tmp_path, "local") == {"a": {"b": 1, "c": [1, 2], "f": {"g": 1}}, "d": 1}


def test_a_file_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "platform-apps" / "grafana" / "values.yaml", "a: [").parent
    with pytest.raises(charts.UnreadableError, match="^platform-apps/grafana/values.yaml: while parsing"):
        charts.values(folder, "local")


def test_charts_that_components_and_terraform_pin(tmp_path: Path) -> None:
    pins = {"dependencies": [{"name": "thanos", "version": "1.2.3+4"}]}
    folder = write(tmp_path / "platform-apps" / "metrics" / "Chart.yaml", pins).parent
    app = write(tmp_path / "k8s" / "helm-charts" / "shop" / "Chart.yaml", "name: shop\n").parent
    write(
        tmp_path / "terraform" / "modules" / "argocd" / "main.tf",
        'resource "helm_release" "a" {\n  chart   = "argo-cd" # a comment\n\n  set = [{ version = "0" }]\n'
        '  version = "10.1.1"\n}\n'
        'resource "helm_release" "b" {\n  chart = "${path.module}/chart"\n}\n'
        'resource "other" "c" {\n  chart   = "none"\n  version = "1"\n}\n',
    )
    assert charts.folders(tmp_path) == [app, folder]
    assert charts.dependencies(app) == set()
    assert charts.pinned_charts(tmp_path) == {("thanos", "1.2.3+4"), ("argo-cd", "10.1.1")}


def test_the_namespace_is_that_of_the_application(tmp_path: Path) -> None:
    app = write(tmp_path / "k8s/helm-charts/shop/Chart.yaml", "name: shop\n").parent
    sources = [{"path": "k8s/helm-charts/shop"}, {"path": "platform-apps/second"}]
    write(app / "application.yaml", {"namespace": "team", "sources": sources})
    second, nobodys = (
        write(tmp_path / f"platform-apps/{n}/Chart.yaml", f"name: {n}\n").parent for n in ("second", "x")
    )
    assert [charts.namespace(each) for each in (app, second, nobodys)] == ["team", "team", None]


def test_a_chart_is_a_source_as_often_as_its_application_says(tmp_path: Path) -> None:
    app = write(tmp_path / "k8s/helm-charts/shop/Chart.yaml", "name: shop\n").parent
    second = write(tmp_path / "platform-apps/second/Chart.yaml", "name: second\n").parent
    assert charts.releases(app) == [charts.Release("shop")]
    again = {"releaseName": "till", "valuesObject": {"a": {"b": 1}}}
    sources = [
        {"path": "k8s/helm-charts/shop"},
        {"path": "platform-apps/second"},
        {"chart": "shop", "repoURL": "registry.example.com", "helm": again},
    ]
    write(app / "application.yaml", {"namespace": "team", "sources": sources})
    assert charts.releases(app) == [charts.Release("shop"), charts.Release("till", {"a": {"b": 1}})]
    assert charts.releases(second) == [charts.Release("second")]


def test_every_release_is_rendered_with_its_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = write(tmp_path / "k8s/helm-charts/shop/values.yaml", "a: 1\n").parent
    write(tmp_path / "platform-apps/x/Chart.yaml", "name: x\n")
    path = {"path": "k8s/helm-charts/shop"}
    till = {**path, "helm": {"releaseName": "till", "valuesObject": {"a": 2}}}
    write(app / "application.yaml", {"namespace": "team", "sources": [path, till]})

    def run(*words: str) -> str:
        return f"---\n{json.dumps({'kind': words[2], **charts.load(map(Path, (words[-3], words[-1])))})}\n"

    monkeypatch.setattr(charts, "run", run)
    made = list(charts.documents(charts.template(app, "local")))
    assert made == [{"kind": "shop", "a": 1}, {"kind": "till", "a": 2}]


def test_documents_are_split_as_helm_does() -> None:
    text = "---\n# Source: a\nkind: A\nop: =\n--- # next\nkind: B\n---\n---\n# nothing\n"
    assert list(charts.documents(text)) == [{"kind": "A", "op": "="}, {"kind": "B"}]


def test_images_of_pods_custom_resources_and_arguments() -> None:
    pod = {"initContainers": [{"image": "init:1"}], "containers": [{"image": "main:1", "args": ["--log-level=info"]}]}
    operator = {"args": ["--collector-image=collector:1", "--acme-http01-solver-image=solver:1", "--image-pull=x"]}
    instrumentation = {"spec": {"python": {"image": "python:1"}}}
    images = charts.images([{"spec": {"template": {"spec": pod}}}, {"containers": [operator]}, instrumentation, None])
    assert images == {"init:1", "main:1", "collector:1", "solver:1", "python:1"}
