"""How `make capacity` reads values and adds up."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from typer import Typer
from typer.testing import CliRunner

from scripts import capacity
from scripts.capacity import Load, Need
from scripts.charts import ENVIRONMENTS, ROOT


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


@pytest.mark.parametrize(
    ("text", "need"),
    [
        ("a: {resources: {requests: {cpu: 100m, memory: 1Ki}}}", Need(0.1, 1024)),
        ("replicas: 3\na: {resources: {requests: {cpu: 1}}}", Need(3)),
        ("replicas: 3\na: {replicas: 2, resources: {requests: {cpu: 1}}}", Need(2)),
        ("replicaCount: 2\npersistence: {enabled: true, size: 1Ki}", Need(disk=2048)),
        ("autoscaling: {enabled: true, minReplicas: 4}\nreplicas: 1\na: {resources: {requests: {cpu: 1}}}", Need(4)),
        ("a: {enabled: false, resources: {requests: {cpu: 1}}}", Need()),
        ("persistence: {enabled: false, size: 1Ki}", Need()),
        ("a: {init: {resources: {requests: {cpu: 1}}}}", Need()),
        ("a: {resources: {limits: {memory: 1Gi}}}", Need()),
    ],
)
def test_needs(text: str, need: Need) -> None:
    total = Need()
    for each in capacity.needs(yaml.safe_load(text)):
        total.add(each)
    assert total == need


def amounts(environment: str, load: Load) -> dict[str, float]:
    return {line.what: line.amount for line in capacity.estimate(ROOT, environment, load)}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_estimate_grows_with_the_load(environment: str) -> None:
    one, ten = amounts(environment, Load(1, 2, 10)), amounts(environment, Load(10, 2, 10))
    for what in ("Active series", "Samples a second", "Memory for series", "Metrics on disk", "Traces", "Logs"):
        assert ten[what] == pytest.approx(10 * one[what])
    assert ten["Memory for exemplars"] == one["Memory for exemplars"]
    assert ten["Exemplars reach back"] == pytest.approx(one["Exemplars reach back"] / 10)
    idle = amounts(environment, Load(1, 2, 0))
    assert idle["Traces"] == 0
    assert idle["Exemplars reach back"] == idle["Queue fills in an outage after"] == float("inf")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_limits_come_nearer_with_every_service_and_the_first_is_named(environment: str) -> None:
    def shares(services: int) -> dict[str, float]:
        return {limit.what: limit.share for limit in capacity.limits(ROOT, environment, Load(services, 2, 10))}

    one, thousand = shares(1), shares(1000)
    assert all(thousand[what] > one[what] for what in one)
    line = re.fullmatch(
        r"The first limit is met above ([\d,]+) services: (.+?)\. Then: .+\.", capacity.first_limit(environment, 2, 10)
    )
    assert line
    fits = int(line[1].replace(",", ""))
    assert max(shares(fits).values()) <= 1 if fits else True
    beyond = shares(fits + 1)
    assert beyond[line[2]] == max(beyond.values()) > 1


def test_the_command_prints_both_environments_and_its_constants() -> None:
    app = Typer()
    app.command()(capacity.main)
    text = CliRunner().invoke(app, ["--services", "3"]).output
    for wanted in ("Requests in local", "Requests in production", "3 x 2 pods", "thanos-receive", "float_sample"):
        assert wanted in text
    document = json.loads(CliRunner().invoke(app, ["--json"]).output)
    assert document["production"]["components"]["thanos-receive"]["memory"] > 0
    assert document["local"]["load"]["Active series"] > 0


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
