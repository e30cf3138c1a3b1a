"""The tools in scripts/ against the rendered charts: what `make mirror` copies, and what `make capacity` adds up.

With UPSTREAM_CHARTS (a folder of packaged charts) the upstream charts are rendered too, without it our own templates alone.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType

import helm_python as helm
import pytest
import yaml

from tests import charts, platforms

REGISTRY = "registry.example.com/mirror"
UPSTREAM = Path(os.environ["UPSTREAM_CHARTS"]) if "UPSTREAM_CHARTS" in os.environ else None
EVERYTHING = {"include_fluent_bit": True, "object_storage": "s3", "domain": "example.com"}
BACKENDS = platforms.CHOICES["secrets_backend"]

needs_charts = pytest.mark.skipif(not UPSTREAM, reason="UPSTREAM_CHARTS is not set: upstream charts are not rendered")


def tool(platform: Path, name: str) -> ModuleType:
    """A tool of a platform, as it would be imported there."""
    spec = importlib.util.spec_from_file_location(f"baked_{name}", platform / "scripts" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def with_everything(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """with_everything(answer=value): a platform that has every component."""
    done: dict[tuple, Path] = {}

    def get(**answers: object) -> Path:
        key = tuple(sorted(answers.items()))
        if key not in done:
            done[key] = platforms.bake({**EVERYTHING, **answers}, tmp_path_factory.mktemp("everything"))
        return done[key]

    return get


def rendered(platform: Path, environment: str) -> Iterator[tuple[str, list[dict]]]:
    """Every component's name and objects, Argo CD's among them where the upstream charts are at hand."""
    for chart in charts.charts(platform):
        yield chart.name, charts.render(chart, environment, UPSTREAM)
    if UPSTREAM:
        module = platform / "terraform" / "modules" / "argocd-server"
        values: dict = {}
        for name in ("values.yaml", f"values-{environment}.yaml"):
            values = merge(values, yaml.safe_load((module / name).read_text()))
        (archive,) = UPSTREAM.glob("argo-cd-*.tgz")
        with helm.Chart.load(archive) as loaded:
            yield "argocd-server", list(charts.objects(loaded.render(values, name="argocd", namespace="argocd")))


def merge(low: object, high: object) -> dict:
    if not (isinstance(low, dict) and isinstance(high, dict)):
        return high
    return {**low, **{key: merge(low.get(key), value) for key, value in high.items()}}


def is_test(each: dict) -> bool:
    return "test" in (each["metadata"].get("annotations") or {}).get("helm.sh/hook", "")


def images(platform: Path) -> dict[str, str]:
    """Every image of a platform, and a component that has it."""
    mirror, found = tool(platform, "mirror"), {}
    for environment in charts.ENVIRONMENTS:
        for name, objects in rendered(platform, environment):
            for image in mirror.images_of(each for each in objects if not is_test(each)):
                found[image] = name
    return found


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_image_comes_from_the_mirror(with_everything: Callable[..., Path], backend: str) -> None:
    """But the app's own; Argo CD's come from there by Terraform, which the end-to-end suite looks at."""
    found = images(with_everything(secrets_backend=backend, chart_registry=REGISTRY))
    assert found
    outside = {image: name for image, name in found.items() if not image.startswith(f"{REGISTRY}/")}
    assert set(outside.values()) <= {"flask-app", "argocd-server"}, outside


@pytest.mark.parametrize("backend", BACKENDS)
def test_mirror_knows_where_each_image_is_published(with_everything: Callable[..., Path], backend: str) -> None:
    """What mirror.yaml says is what the charts ask for when they are left alone."""
    mirrored = with_everything(secrets_backend=backend, chart_registry=REGISTRY)
    published = with_everything(secrets_backend=backend)
    mirror = tool(mirrored, "mirror")
    sources = yaml.safe_load((mirrored / "mirror.yaml").read_text())["images"]
    known = {mirror.upstream(image, REGISTRY, sources) for image in images(mirrored)}
    assert known == {mirror.upstream(image, "", {}) for image in images(published)}


@pytest.mark.parametrize("backend", BACKENDS)
def test_mirror_knows_where_each_chart_is_published(with_everything: Callable[..., Path], backend: str) -> None:
    published = with_everything(secrets_backend=backend)
    sources = yaml.safe_load((published / "mirror.yaml").read_text())["charts"]
    for file in tool(published, "mirror").chart_files(published):
        for dependency in yaml.safe_load(file.read_text()).get("dependencies") or []:
            assert dependency["repository"].rstrip("/") == sources[dependency["name"]], file.parent.name
    pinned = {(chart.name, chart.source) for chart in tool(published, "mirror").charts(published, sources)}
    assert {("argo-cd", sources["argo-cd"]), ("argocd-apps", sources["argocd-apps"])} <= pinned


def requested(capacity: ModuleType, objects: Iterable[dict]) -> tuple[float, float, float]:
    """CPU (cores), memory and disk (bytes) that the pods of these objects ask for, as the scheduler adds them up."""
    quantity, cpu, memory, disk = capacity.quantity, 0.0, 0.0, 0.0
    for each in objects:
        spec, kind = each.get("spec") or {}, each["kind"]
        replicas = spec.get("replicas", 1)
        if kind == "PersistentVolumeClaim":
            disk += quantity(spec["resources"]["requests"]["storage"])
        elif kind in ("Deployment", "StatefulSet", "DaemonSet", "OpenTelemetryCollector"):
            pod = {"containers": [spec]} if kind == "OpenTelemetryCollector" else spec["template"]["spec"]
            for resource in ("cpu", "memory"):
                wanted = [
                    [quantity(c.get("resources", {}).get("requests", {}).get(resource, 0)) for c in pod.get(kind) or []]
                    for kind in ("containers", "initContainers")
                ]
                total = replicas * max(sum(wanted[0]), *wanted[1], 0)
                cpu, memory = (cpu + total, memory) if resource == "cpu" else (cpu, memory + total)
            for claim in spec.get("volumeClaimTemplates") or []:
                disk += replicas * quantity(claim["spec"]["resources"]["requests"]["storage"])
        if kind == "HorizontalPodAutoscaler":
            # Its target leaves the number to it, and so counts as one above.
            (target,) = (
                o for o in objects if o["kind"] == "Deployment" and o["metadata"]["name"] == each["metadata"]["name"]
            )
            own = requested(capacity, [target])
            cpu, memory = cpu + own[0] * (spec["minReplicas"] - 1), memory + own[1] * (spec["minReplicas"] - 1)
    return round(cpu, 6), memory, disk


@needs_charts
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("environment", charts.ENVIRONMENTS)
def test_capacity_adds_up_what_the_pods_request(
    with_everything: Callable[..., Path], backend: str, environment: str
) -> None:
    platform = with_everything(secrets_backend=backend)
    capacity = tool(platform, "capacity")
    said = {
        name: (round(need.cpu, 6), need.memory, need.disk)
        for name, need in capacity.components(platform, environment).items()
    }
    made = {name: requested(capacity, objects) for name, objects in rendered(platform, environment)}
    made.pop("chart")  # of the namespaces
    assert said == made
