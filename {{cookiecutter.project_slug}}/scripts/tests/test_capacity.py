"""How `make capacity` counts pods and adds up."""

from __future__ import annotations

import json
import math
import re
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer import Typer
from typer.testing import CliRunner

from scripts import capacity
from scripts.capacity import CapacityError, Environment, Load, Need, Pods
from scripts.charts import ENVIRONMENTS, ROOT, folders, values


@pytest.mark.parametrize(
    ("text", "number"),
    [("250m", 0.25), (2, 2), ("1.5", 1.5), ("4Gi", 4 * 2**30), ("512M", 512e6), ("1e3", None), ("4Q", None)],
)
def test_quantity(text: object, number: float | None) -> None:
    if number is None:
        with pytest.raises(ValueError, match="is no Kubernetes quantity"):
            capacity.quantity(text)
    else:
        assert capacity.quantity(text) == number


POD = "containers: [{resources: {requests: {cpu: 100m, memory: 1Ki}, limits: {memory: 2Ki}}}]"
CLAIM = "spec: {resources: {requests: {storage: 1Ki}}}"


def workload(kind: str, pod: str, **spec: object) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": "it"}, "spec": {**spec, "template": {"spec": yaml.safe_load(pod)}}}


def other(kind: str, spec: str) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": "it"}, **yaml.safe_load(spec)}


@pytest.mark.parametrize(
    ("objects", "need"),
    [
        ([workload("Deployment", POD, replicas=3)], Need(0.3, 3072, 6144)),
        ([workload("Deployment", POD, replicas=0)], Need()),
        ([workload("DaemonSet", POD)], Need(0.1, 1024, 2048)),
        ([workload("Job", POD)], Need()),
        (
            [workload("StatefulSet", POD, replicas=2, volumeClaimTemplates=[yaml.safe_load(CLAIM)])],
            Need(0.2, 2048, 4096, 2048),
        ),
        (
            [
                workload("Deployment", POD),
                other("HorizontalPodAutoscaler", "spec: {minReplicas: 4, scaleTargetRef: {name: it}}"),
            ],
            Need(0.4, 4096, 8192),
        ),
        ([workload("Deployment", POD), other("PersistentVolumeClaim", CLAIM)], Need(0.1, 1024, 2048, 1024)),
        (
            [
                other(
                    "OpenTelemetryCollector",
                    "spec: {replicas: 2, resources: {requests: {cpu: 1}, limits: {memory: 1Ki}}}",
                )
            ],
            Need(2, 0, 2048),
        ),
        ([workload("Deployment", "containers: [{resources: {requests: {cpu: 1}}}]")], Need(1, 0, math.inf)),
        # What runs before the others needs no room beside them, what stays does.
        (
            [workload("Deployment", f"{POD}\ninitContainers: [{{resources: {{limits: {{memory: 9Ki}}}}}}]")],
            Need(0.1, 1024, 9216),
        ),
        (
            [
                workload(
                    "Deployment",
                    f"{POD}\ninitContainers: [{{restartPolicy: Always, resources: {{limits: {{memory: 9Ki}}}}}}]",
                )
            ],
            Need(0.1, 1024, 11264),
        ),
    ],
)
def test_pods_are_counted_as_the_scheduler_counts_them(objects: list[dict[str, Any]], need: Need) -> None:
    assert astuple(capacity.total(capacity.pods(objects).values())) == pytest.approx(astuple(need))


def environment(name: str) -> Environment:
    """This repository's values, with the pods that its charts make of the upstream ones, as far as an estimate asks."""
    copies = {"local": 1, "production": 3}[name]
    need = Need(1, 2**30, 2**32, 10 * 2**30)
    ingestor = Pods(copies, need, ("--tsdb.max-exemplars=1000", "--tsdb.retention=48h"))
    router = Pods(1, need, (f"--receive.replication-factor={copies}",))
    made = {"thanos-receive-ingestor": ingestor, "thanos-receive-router": router}
    of = {"thanos-receive": made, "otel-collector": {"otel": Pods(copies, need)}}
    of |= {each: {each: Pods(1, need)} for each in ("tempo", "loki") if (ROOT / "platform-apps" / each).is_dir()}
    return Environment(name, {folder.name: values(folder, name) for folder in folders(ROOT)}, of)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_estimate_grows_with_the_load(name: str) -> None:
    def amounts(load: Load) -> dict[str, float]:
        return {line.what: line.amount for line in capacity.estimate(environment(name), load)}

    one, ten = amounts(Load(1, 2, 10)), amounts(Load(10, 2, 10))
    for what in ("Active series", "Samples a second", "Memory for series", "Metrics on disk", "Traces", "Logs"):
        assert ten[what] == pytest.approx(10 * one[what])
    assert ten["Memory for exemplars"] == one["Memory for exemplars"]
    assert ten["Exemplars reach back"] == pytest.approx(one["Exemplars reach back"] / 10)
    idle = amounts(Load(1, 2, 0))
    assert idle["Traces"] == 0
    assert idle["Exemplars reach back"] == idle["Queue fills in an outage after"] == math.inf


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_limits_come_nearer_with_every_service_and_the_first_is_named(name: str) -> None:
    of = environment(name)

    def shares(services: int) -> dict[str, float]:
        return {limit.what: limit.share for limit in capacity.limits(of, Load(services, 2, 10))}

    one, thousand = shares(1), shares(1000)
    assert all(thousand[what] > one[what] for what in one)
    line = re.fullmatch(
        r"The first limit is met above ([\d,]+) services: (.+?)\. Then: .+\.", capacity.first_limit(of, 2, 10)
    )
    assert line
    fits = int(line[1].replace(",", ""))
    assert max(shares(fits).values()) <= 1 if fits else True
    beyond = shares(fits + 1)
    assert beyond[line[2]] == max(beyond.values()) > 1


def test_limits_are_those_of_the_pods() -> None:
    """More room in a pod is a smaller share of it."""
    of = environment("production")

    def share(what: str) -> float:
        return next(limit.share for limit in capacity.limits(of, Load(10, 2, 10)) if limit.what == what)

    memory, disk = share("Memory of an ingestor"), share("Disk of an ingestor")
    made = of.pods["thanos-receive"]
    ingestor = made["thanos-receive-ingestor"]
    made["thanos-receive-ingestor"] = replace(ingestor, each=ingestor.each + ingestor.each)
    assert share("Memory of an ingestor") == memory / 2
    assert share("Disk of an ingestor") == disk / 2


def test_a_chart_without_what_is_counted_with_is_named() -> None:
    of = environment("local")
    router = of.pods["thanos-receive"].pop("thanos-receive-router")
    with pytest.raises(CapacityError, match="thanos-receive makes no workload thanos-receive-router, but thanos-rec"):
        capacity.estimate(of, Load(1, 1, 1))
    of.pods["thanos-receive"]["thanos-receive-router"] = replace(router, arguments=())
    with pytest.raises(CapacityError, match="no container has the flag --receive.replication-factor"):
        capacity.estimate(of, Load(1, 1, 1))


def test_the_command_prints_both_environments_and_its_constants(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(capacity, "environments", lambda root, packages: list(map(environment, ENVIRONMENTS)))
    app = Typer()
    app.command()(capacity.main)
    text = CliRunner().invoke(app, ["--services", "3", "--charts-from", str(tmp_path)]).output
    wanted = ("limits in local", "limits in production", "3 x 2 pods", "thanos-receive", "float_sample")
    assert [each for each in wanted if each not in text] == []
    document = json.loads(CliRunner().invoke(app, ["--json", "--charts-from", str(tmp_path)]).output)
    assert document["production"]["components"]["thanos-receive"]["memory"] == 4 * 2**30
    assert document["local"]["load"]["Active series"] > 0


def test_without_the_charts_it_says_what_is_missing(tmp_path: Path) -> None:
    app = Typer()
    app.command()(capacity.main)
    done = CliRunner().invoke(app, ["--charts-from", str(tmp_path)])
    assert done.exit_code == 2
    assert f"capacity: {tmp_path} has no " in done.output


def test_people_read_sizes_and_times() -> None:
    assert [capacity.size(n) for n in (0, 1023, 1536, 5 * 2**30, 2**40)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 GiB",
        "1.0 TiB",
    ]
    assert [capacity.duration(s) for s in (30, 150, 7200, 3 * 86400, float("inf"))] == [
        "30 s",
        "2.5 min",
        "2.0 h",
        "3.0 days",
        "for ever",
    ]
