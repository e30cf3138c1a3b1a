"""The tools in scripts/ against the rendered charts: what `make mirror` copies, and what `make capacity` adds up.

With UPSTREAM_CHARTS (a folder of packaged charts) the upstream charts are rendered too, without it our own templates alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts import mirror
from scripts.capacity import pods, quantity, total
from scripts.charts import folders, merge
from scripts.charts import images as images_of
from tests import charts, platforms

REGISTRY = "registry.example.com/mirror"
UPSTREAM = Path(os.environ["UPSTREAM_CHARTS"]) if "UPSTREAM_CHARTS" in os.environ else None
EVERYTHING = {"include_fluent_bit": True, "object_storage": "s3", "domain": "example.com"}
BACKENDS = platforms.CHOICES["secrets_backend"]

needs_charts = pytest.mark.skipif(not UPSTREAM, reason="UPSTREAM_CHARTS is not set: upstream charts are not rendered")


@pytest.fixture(scope="module")
def with_everything(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """with_everything(answer=value): a platform that has every component."""
    done: dict[tuple[Any, ...], Path] = {}

    def get(**answers: object) -> Path:
        key = tuple(sorted(answers.items()))
        if key not in done:
            done[key] = platforms.bake({**EVERYTHING, **answers}, tmp_path_factory.mktemp("everything"))
        return done[key]

    return get


def rendered(platform: Path, environment: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Every component's name and objects, Argo CD's among them where the upstream charts are at hand."""
    for chart in charts.charts(platform):
        yield chart.name, charts.render(chart, environment, UPSTREAM)
    if UPSTREAM:
        yield "argocd-server", charts.render_argo_cd(platform, environment, UPSTREAM)


def is_test(each: dict[str, Any]) -> bool:
    return "test" in (each["metadata"].get("annotations") or {}).get("helm.sh/hook", "")


def images(platform: Path) -> dict[str, str]:
    """Every image of a platform, and a component that has it."""
    users = {}
    for environment in charts.ENVIRONMENTS:
        for name, objects in rendered(platform, environment):
            for image in images_of(each for each in objects if not is_test(each)):
                users[image] = name
    return users


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_image_comes_from_the_mirror(with_everything: Callable[..., Path], backend: str) -> None:
    """But the app's own; Argo CD's come from there by Terraform, which the end-to-end suite looks at."""
    users = images(with_everything(secrets_backend=backend, chart_registry=REGISTRY))
    assert users
    outside = {image: name for image, name in users.items() if not image.startswith(f"{REGISTRY}/")}
    assert set(outside.values()) <= {"flask-app", "argocd-server"}, outside


@pytest.mark.parametrize("backend", BACKENDS)
def test_mirror_knows_where_each_image_is_published(with_everything: Callable[..., Path], backend: str) -> None:
    """What the folders say is what the charts ask for when they are left alone."""
    mirrored = with_everything(secrets_backend=backend, chart_registry=REGISTRY)
    published = with_everything(secrets_backend=backend)
    sources = mirror.publishers(mirrored)["images"]
    known = {mirror.upstream(image, REGISTRY, sources) for image in images(mirrored)}
    assert known == {mirror.upstream(image, "", {}) for image in images(published)}


@pytest.mark.parametrize("backend", BACKENDS)
def test_mirror_knows_where_each_chart_is_published(with_everything: Callable[..., Path], backend: str) -> None:
    published = with_everything(secrets_backend=backend)
    sources = mirror.publishers(published)["charts"]
    for folder in folders(published):
        for dependency in yaml.safe_load((folder / "Chart.yaml").read_text()).get("dependencies") or []:
            assert dependency["repository"].rstrip("/") == sources[dependency["name"]], folder.name
    pinned = {(chart.name, chart.source) for chart in mirror.charts(published, sources)}
    assert {("argo-cd", sources["argo-cd"]), ("argocd-apps", sources["argocd-apps"])} <= pinned


def requested(objects: Iterable[dict[str, Any]]) -> tuple[float, ...]:
    """CPU (cores), memory, its limit and disk (bytes) that the pods of these objects ask for, as the scheduler adds."""
    asked = {("requests", "cpu"): 0.0, ("requests", "memory"): 0.0, ("limits", "memory"): 0.0}
    disk = 0.0
    for each in objects:
        spec, kind = each.get("spec") or {}, each["kind"]
        replicas = spec.get("replicas", 1)
        if kind == "PersistentVolumeClaim":
            disk += quantity(spec["resources"]["requests"]["storage"])
        elif kind in ("Deployment", "StatefulSet", "DaemonSet", "OpenTelemetryCollector"):
            pod = {"containers": [spec]} if kind == "OpenTelemetryCollector" else spec["template"]["spec"]
            for what, resource in asked:
                of_kind = [
                    [quantity(c.get("resources", {}).get(what, {}).get(resource, 0)) for c in pod.get(kind) or []]
                    for kind in ("containers", "initContainers")
                ]
                asked[what, resource] += replicas * max(sum(of_kind[0]), *of_kind[1], 0)
            for claim in spec.get("volumeClaimTemplates") or []:
                disk += replicas * quantity(claim["spec"]["resources"]["requests"]["storage"])
        if kind == "HorizontalPodAutoscaler":
            # Its target leaves the number to it, and so counts as one above.
            (target,) = (
                o for o in objects if o["kind"] == "Deployment" and o["metadata"]["name"] == each["metadata"]["name"]
            )
            for key, amount in zip(asked, requested([target]), strict=False):
                asked[key] += amount * (spec["minReplicas"] - 1)
    return (round(asked["requests", "cpu"], 6), *list(asked.values())[1:], disk)


@needs_charts
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("environment", charts.ENVIRONMENTS)
def test_capacity_adds_up_what_the_pods_request_and_may_have(
    with_everything: Callable[..., Path], backend: str, environment: str
) -> None:
    platform = with_everything(secrets_backend=backend)
    for name, objects in rendered(platform, environment):
        need = total(pods(objects).values())
        # Infinite where a container has no limit, which none of ours lacks.
        assert (round(need.cpu, 6), need.memory, need.memory_limit, need.disk) == requested(objects), name


@needs_charts
def test_the_local_profile_asks_for_what_a_laptop_can_spare(tmp_path: Path) -> None:
    """1.8 GiB for every pod of the default platform, Argo CD's among them."""
    asked = {name: requested(objects)[1] / 2**20 for name, objects in rendered(platforms.bake({}, tmp_path), "local")}
    assert asked["argocd-server"] > 0
    assert sum(asked.values()) <= 1843, asked


@needs_charts
@pytest.mark.skipif(not shutil.which("helm"), reason="helm is not installed: `make capacity` is not run")
def test_make_capacity_shows_the_pods_of_the_real_charts(with_everything: Callable[..., Path]) -> None:
    """The command itself, by Helm; and what a person changes in a values file is in its table."""
    platform = with_everything(secrets_backend="kubernetes", domain="capacity.example.com")

    def shown() -> dict[str, Any]:
        command = [sys.executable, "-m", "scripts.capacity", "--json", "--charts-from", str(UPSTREAM)]
        done = subprocess.run(command, cwd=platform, check=True, capture_output=True, text=True)
        return dict(json.loads(done.stdout))

    before = shown()
    for environment in charts.ENVIRONMENTS:
        made = {name: requested(objects) for name, objects in rendered(platform, environment)}
        made = {name: need for name, need in made.items() if any(need)}
        told = {name: tuple(each.values()) for name, each in before[environment]["components"].items()}
        assert {name: (round(cpu, 6), *rest) for name, (cpu, *rest) in told.items() if cpu or any(rest)} == made
    values = platform / "platform-apps" / "thanos-receive" / "values-production.yaml"
    text = values.read_text()
    changed = text.replace("limits: {memory: 8Gi}", "limits: {memory: 16Gi}").replace("size: 100Gi", "size: 200Gi")
    assert changed != text
    values.write_text(changed)
    after = shown()
    for environment, factor in (("local", 1), ("production", 2)):
        for what in ("Memory of an ingestor", "Disk of an ingestor"):
            share = [each[environment]["limits"]["1000"][what] for each in (before, after)]
            assert share[0] == pytest.approx(factor * share[1], rel=0.01), f"{environment}: {what}"


plain = st.one_of(st.booleans(), st.integers(-9, 9), st.text("ab", max_size=3), st.lists(st.integers(0, 3), max_size=2))
tree = st.recursive(plain, lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8)
value_file = st.dictionaries(st.sampled_from("abc"), tree, max_size=3)


@settings(max_examples=40)
@given(base=value_file, over=value_file)
def test_values_are_merged_as_helm_merges_them(
    base: dict[str, Any], over: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    chart = tmp_path_factory.mktemp("chart")
    (chart / "templates").mkdir()
    (chart / "templates" / "values.yaml").write_text("{{ toYaml .Values }}")
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: any\nversion: 0.1.0\n")
    (chart / "values.yaml").write_text(yaml.safe_dump(base))
    with helm.Chart.load(chart) as loaded:
        (text,) = loaded.render(over, name="any", namespace="any").values()
    assert yaml.safe_load(text) == merge(base, over)
