"""What every panel of every dashboard states, read from the JSON alone: unit, description, minimum, place, links."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

from scripts.charts import values as values_of
from scripts.facts import facts
from tests import charts, checks, finders, platforms
from tests.platforms import Baked

# Units of what cannot be below zero.
COUNTS = {"short", "none", "reqps", "cps", "ops", "bytes", "s", "percentunit"}
# What shows values that have a unit; lines of text and rows have none, and Tempo sets the service graph's.
WITH_UNIT = {"timeseries", "stat", "heatmap", "table", "state-timeline"}
WITHOUT_UNIT = {"logs", "nodeGraph"}
# May fall below zero: a budget that is overspent.
BELOW_ZERO = {"Error budget left"}
COLUMNS = 24


def dashboards(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        path.name: json.loads(path.read_text()) for path in sorted(folder.glob("platform-apps/*/dashboards/*.json"))
    }


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in dashboard["panels"]:
        for each in (panel, *panel.get("panels", [])):
            if each["type"] != "row":
                yield each


@pytest.fixture(scope="module")
def every_dashboard(platform: Baked) -> dict[str, dict[str, Any]]:
    """Of all platforms; they are copied byte for byte, so each name has one content."""
    by_uid: dict[str, dict[str, Any]] = {}
    for name in platforms.VALID:
        by_uid |= dashboards(platform(name))
    assert by_uid.keys() == {
        "checkout-red.json",
        "checkout-logs.json",
        "telemetry-pipeline.json",
        "thanos-long-term.json",
    }
    return by_uid


def problems(name: str, dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in panels(dashboard):
        where, defaults = f"{name}: {panel['title']}", panel["fieldConfig"]["defaults"]
        if len(panel.get("description", "")) < len("Requests a second."):
            yield f"{where} has no description"
        if panel["type"] not in WITH_UNIT | WITHOUT_UNIT:
            yield f"{where}: {panel['type']} is in neither WITH_UNIT nor WITHOUT_UNIT"
        if panel["type"] in WITH_UNIT and "unit" not in defaults:
            yield f"{where} has no unit"
        if defaults.get("unit") in COUNTS and (panel["title"] in BELOW_ZERO) == ("min" in defaults):
            yield f"{where}: a minimum is {'given' if 'min' in defaults else 'missing'}"
        if panel["type"] == "stat" and panel["options"]["graphMode"] != "none":
            yield f"{where}: the number would stand on its sparkline"
        if panel["type"] == "timeseries" and panel["options"]["legend"]["displayMode"] == "table":
            yield f"{where}: a table of a legend is cut at its third row"


def test_every_panel_says_what_it_shows(every_dashboard: dict[str, dict[str, Any]]) -> None:
    assert [problem for name, each in every_dashboard.items() for problem in problems(name, each)] == []


@pytest.mark.parametrize(
    ("panel", "path"),
    [("Items in", ("unit",)), ("Head series", ("min",)), ("CPU", ("description",))],
)
def test_what_a_panel_does_not_say_is_noticed(
    every_dashboard: dict[str, dict[str, Any]], panel: str, path: tuple[str]
) -> None:
    dashboard = json.loads(json.dumps(every_dashboard["telemetry-pipeline.json"]))
    (target,) = [each for each in panels(dashboard) if each["title"] == panel]
    del (target if path == ("description",) else target["fieldConfig"]["defaults"])[path[0]]
    assert [problem.split(": ")[1].split(" has")[0] for problem in problems("x", dashboard)] == [panel]


def test_panels_do_not_overlap(every_dashboard: dict[str, dict[str, Any]]) -> None:
    for name, dashboard in every_dashboard.items():
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(ids)) == len(ids), f"{name}: {ids}"
        taken: dict[tuple[int, int], str] = {}
        for panel in dashboard["panels"]:
            at = panel["gridPos"]
            assert at["x"] + at["w"] <= COLUMNS, f"{name}: {panel['title']}"
            for x in range(at["x"], at["x"] + at["w"]):
                for y in range(at["y"], at["y"] + at["h"]):
                    assert (x, y) not in taken, f"{name}: {panel['title']} lies on {taken[x, y]}"
                    taken[x, y] = panel["title"]


def test_the_home_page_is_the_red_dashboard(platform: Baked) -> None:
    folder = platform("default") / "platform-apps/grafana"
    values = yaml.safe_load((folder / "values.yaml").read_text())
    home = values["grafana"]["grafana.ini"]["dashboards"]["default_home_dashboard_path"]
    red = next(
        path for path in folder.glob("dashboards/*.json") if json.loads(path.read_text())["uid"] == "checkout-red"
    )
    # The chart's sidecar writes below /tmp/dashboards, by the folder that each ConfigMap names.
    assert home == f"/tmp/dashboards/{values['dashboardFolder']}/{red.name}"
    for each in (platform("default") / "platform-apps").glob("*/values.yaml"):
        assert (yaml.safe_load(each.read_text()) or {}).get("dashboardFolder", "Platform") == values["dashboardFolder"]


def test_the_long_term_is_shown_where_there_is_a_bucket(platform: Baked) -> None:
    """The dashboard belongs to the store's folder, and to the environments in which the store runs."""
    assert "thanos-long-term.json" not in dashboards(platform("default"))
    folder = platform("production-s3") / "platform-apps/thanos-store"
    for environment, names in (("local", set()), ("production", {"grafana-dashboard-thanos-long-term"})):
        rendered = charts.render(folder, environment)
        maps = [each for each in rendered if each["kind"] == "ConfigMap"]
        shown = {each["metadata"]["name"] for each in maps if "grafana_dashboard" in each["metadata"].get("labels", {})}
        assert shown == names, environment


def test_every_search_for_traces_asks_for_the_newest(platform: Baked) -> None:
    """Without the hint Tempo answers with any matches: minutes old ones, none of the spike."""
    folder, asked = platform("default"), 0
    for path in (*folder.glob("platform-apps/*/dashboards/*.json"), *folder.glob("platform-apps/*/templates/*.tpl")):
        for query in re.findall(r"\{ resource\.service\.name = .*", unquote(path.read_text())):
            asked += 1
            assert re.search(r"\} with \(most_recent=true\)", query), f"{path.name}: {query[:160]}"
    assert asked >= 3


def test_rates_follow_the_width_of_the_panel(platform: Baked) -> None:
    """A fixed window is too wide for a peak of 30 s, or too narrow for two samples at a long range."""
    folder, fixed = platform("default"), r"rate\([^()]*\[(\d+\w)\]"
    for path in folder.glob("platform-apps/*/dashboards/*.json"):
        for panel in panels(json.loads(path.read_text())):
            for target in panel.get("targets", []):
                assert not re.search(fixed, target.get("expr", "")), f"{path.name}: {panel['title']}"
    queries = [
        each["query"]
        for each in checks.walk(facts(folder, "production")["dataSources"])
        if "rate(" in str(each.get("query", ""))
    ]
    assert len(queries) == 3
    assert [query for query in queries if "[$$__rate_interval]" not in query or re.search(fixed, query)] == []


def test_what_goes_by_its_instance_goes_by_its_pod(platform: Baked) -> None:
    """An address changes with every restart; a collector reports its pod's name itself."""
    folder, jobs = platform("production-s3"), set()
    for path in folder.glob("platform-apps/*/dashboards/*.json"):
        for panel in panels(json.loads(path.read_text())):
            for target in panel.get("targets", []):
                if "{{instance}}" in target.get("legendFormat", "") and "(otelcol_" not in target["expr"]:
                    jobs |= set(re.findall(r'job="([\w-]+)"', target["expr"])) or {target["expr"]}
    assert jobs == {"thanos-receive-ingestor", "thanos-store-gateway"}
    made = charts.render(folder / "platform-apps/otel-collector", "production")
    (scraper,) = [each for each in made if each["metadata"]["name"] == "otel-scrape"]
    for job in finders.deep(scraper, "scrape_configs"):
        if job["job_name"] in jobs:
            (lookup,), (relabel,) = job["dns_sd_configs"], job["relabel_configs"]
            assert (lookup["type"], relabel["target_label"]) == ("SRV", "instance")
            assert lookup["names"][0] == f"_http._tcp.{job['job_name']}-headless.observability.svc.cluster.local"
            pod = f"{job['job_name']}-0"
            address = f"{pod}.{job['job_name']}-headless.observability.svc.cluster.local:10902"
            found = re.fullmatch(relabel["regex"], address)
            assert found
            assert found[1] == pod
            jobs.remove(job["job_name"])
    assert jobs == set()


def test_exports_are_as_frequent_as_grafana_believes(platform: Baked) -> None:
    """`$__rate_interval` is four of the data source's intervals: shorter than an export, and a rate has no two samples."""
    folder = platform("default")
    for environment in charts.ENVIRONMENTS:
        interval = facts(folder, environment)["dataSources"]["thanos"]["jsonData"]["timeInterval"]
        values = values_of(folder / "platform-apps/otel-instrumentation", environment)
        assert values["metricExportIntervalMs"] == 1000 * int(interval.removesuffix("s"))
