"""What runs on stand-ins of the charts is worth as much as they resemble the real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.charts import pinned_charts
from tests.charts import render_argo_cd
from tests.e2e.datapath.declared import CHART_ARGUMENTS, UPSTREAM_CHARTS, Declared
from tests.e2e.gitops.kube import Manifest
from tests.e2e.gitops.upstream import packages

OF_WORKLOADS = ("alertmanager", "cert-manager", "grafana", "loki", "otel-operator", "tempo")


@pytest.fixture(scope="module")
def folder(baked: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A platform with an object store, which every Thanos program needs."""
    return baked(object_storage="s3")


@pytest.fixture(scope="module")
def standins(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the stand-ins for every chart of that platform."""
    where = tmp_path_factory.mktemp("standins")
    assert not any(packages(pinned_charts(folder), where, None).values())
    return str(where)


@pytest.mark.parametrize("environment", ["local", "production"])
@pytest.mark.parametrize("program", CHART_ARGUMENTS)
def test_thanos_gets_the_arguments_of_the_real_chart(
    folder: Path, standins: str, environment: str, program: str
) -> None:
    """Those that the data path suite runs Thanos with, which another test holds against the real chart."""
    declared = Declared(folder, environment)
    if not declared.render(CHART_ARGUMENTS[program][0], standins):
        pytest.skip("not in this environment")
    assert sorted(declared._rendered_thanos(program, standins)) == sorted(declared._valued_thanos(program))


def promises(manifests: list[Manifest]) -> Iterator[tuple[object, ...]]:
    """Yield what others call by name: labels and containers of pods, and ports of Services."""
    for item in manifests:
        kind, name = item["kind"], item["metadata"]["name"]
        if kind in ("Deployment", "StatefulSet", "DaemonSet"):
            for label in item["spec"]["template"]["metadata"]["labels"].items():
                yield kind, name, *label
            for container in item["spec"]["template"]["spec"]["containers"]:
                yield kind, name, container["name"]
        elif kind == "Service":
            for port in item["spec"]["ports"]:
                yield kind, name, item["spec"].get("clusterIP"), port["port"]


@pytest.mark.skipif(not UPSTREAM_CHARTS, reason="UPSTREAM_CHARTS names no folder of packaged charts")
@pytest.mark.parametrize(
    "component", ["argo-cd", *OF_WORKLOADS, *sorted({component for component, _, _ in CHART_ARGUMENTS.values()})]
)
def test_real_charts_keep_what_their_stand_ins_promise(folder: Path, standins: str, component: str) -> None:
    """Each label, each container and each port of a Service that a stand-in has is the real chart's, too."""
    assert UPSTREAM_CHARTS
    made = []
    for charts in (standins, UPSTREAM_CHARTS):
        if component == "argo-cd":
            manifests = render_argo_cd(folder, "production", Path(charts))
        else:
            manifests = Declared(folder).render(component, charts)
        made.append(set(promises(manifests)))
    assert made[0]
    assert made[0] - made[1] == set()
