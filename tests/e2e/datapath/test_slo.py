"""The baked SLOs: promtool's opinion of the rules, and a real Thanos Ruler that fires in a peak and clears after it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import yaml

from tests.e2e import toolchain
from tests.e2e.datapath import traffic
from tests.e2e.datapath.declared import Declared
from tests.e2e.datapath.stack import Stack
from tests.e2e.processes import wait_until

RULER = "thanos-ruler"
FAST = {"AvailabilityFastBurn": "availability", "LatencyFastBurn": "latency"}
FIRING = 'ALERTS{alertname=~".*FastBurn",alertstate="firing"}'
# Peaks of the stack last 14 s and metrics come every second, so the windows shrink alike. Values alone change.
COMPRESSED = {
    "global": {
        "slo": {
            "burnRates": [
                {"name": "Fast", "long": "6s", "short": "3s", "factor": 1.5, "severity": "page"},
                {"name": "Slow", "long": "1h", "short": "5m", "factor": 1, "severity": "ticket"},
            ],
            "minRequests": 20,
        }
    },
    "thanos": {"rule": {"evalInterval": "1s"}},
}


def rules(declared: Declared, folder: Path) -> list[Path]:
    """Write the rule files that the chart renders into ``folder`` and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    maps = [document for document in declared.render(RULER) if document["kind"] == "ConfigMap"]
    files = {name: text for document in maps for name, text in document["data"].items()}
    assert set(files) == {"red.yaml", "slo.yaml", "platform.yaml"}
    for name, text in files.items():
        (folder / name).write_text(text)
    return [folder / name for name in files]


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(
        [toolchain.tool("promtool"), *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_rules(declared: Declared, tmp_path: Path) -> None:
    assert "SUCCESS" in promtool("check", "rules", *rules(declared, tmp_path))


def test_promtool_tests_of_the_rules_pass(declared: Declared, tmp_path: Path) -> None:
    rules(declared, tmp_path)
    tests = sorted((declared.platform / "platform-apps" / RULER / "tests").glob("*_test.yaml"))
    assert tests
    for test in tests:
        shutil.copy(test, tmp_path)
        promtool("test", "rules", tmp_path / test.name)


def test_the_promtool_tests_of_every_alert_fail_without_it(declared: Declared, tmp_path: Path) -> None:
    """Each alert that never fires is noticed by those of its tests that expect it."""
    alerts = set()
    for path in rules(declared, tmp_path):
        text = path.read_text()
        of_file = set(re.findall(r"(?m)^ +- alert: (\w+)$", text))
        if not of_file:
            continue
        tests = yaml.safe_load(
            (declared.platform / "platform-apps" / RULER / f"tests/{path.stem}_test.yaml").read_text()
        )
        for alert in of_file:
            groups = yaml.safe_load(text)
            for rule in (rule for group in groups["groups"] for rule in group["rules"] if rule.get("alert") == alert):
                rule["expr"] = "vector(0) > 1"
            path.write_text(yaml.safe_dump(groups))
            expecting = [test for test in tests["tests"] if f'alertname="{alert}", ' in str(test)]
            assert expecting, alert
            (tmp_path / "expecting.yaml").write_text(yaml.safe_dump({**tests, "tests": expecting[:1]}))
            with pytest.raises(AssertionError, match=alert):
                promtool("test", "rules", tmp_path / "expecting.yaml")
        path.write_text(text)
        alerts |= of_file
    assert alerts >= {*FAST, "LatencySlowBurn", "Watchdog", "ApplicationOutOfSync"}


def test_promtool_tests_fail_for_a_blunt_rule(declared: Declared, tmp_path: Path) -> None:
    for path in rules(declared, tmp_path):
        path.write_text(path.read_text().replace("> 0.15", "> 0.9"))
    shutil.copy(declared.platform / "platform-apps" / RULER / "tests/slo_test.yaml", tmp_path)
    with pytest.raises(AssertionError, match="FastBurn"):
        promtool("test", "rules", tmp_path / "slo_test.yaml")


def test_every_alert_leads_on(declared: Declared, tmp_path: Path) -> None:
    """Run-book section, dashboard and trace search of each alert are there."""
    runbook = (declared.platform / "docs/runbook.md").read_text()
    anchors = {line.lstrip("# ").lower() for line in runbook.splitlines() if line.startswith("#")}
    uids = {yaml.safe_load(p.read_text())["uid"] for p in declared.platform.glob("platform-apps/*/dashboards/*.json")}
    alerts = [
        rule
        for path in rules(declared, tmp_path)
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    of_services = {*FAST, "AvailabilitySlowBurn", "LatencySlowBurn", "ServiceSilent"}
    assert {alert["alert"] for alert in alerts if "component" not in alert["labels"]} == of_services
    for alert in alerts:
        links = alert["annotations"]
        assert alert["labels"]["severity"] in (("none",) if alert["alert"] == "Watchdog" else ("page", "ticket"))
        assert urlsplit(links["runbook_url"]).path.endswith("/docs/runbook.md")
        assert urlsplit(links["runbook_url"]).fragment in anchors
        assert urlsplit(links["dashboard_url"]).path.removeprefix("/d/") in uids
        if alert["alert"] not in of_services:
            continue
        (pane,) = yaml.safe_load(parse_qs(urlsplit(links["traces_url"]).query)["panes"][0]).values()
        assert pane["datasource"] == "tempo"
        assert 'resource.service.name = "checkout"' in pane["queries"][0]["query"]


def test_a_burn_rate_that_no_objective_can_reach_is_refused(declared: Declared, tmp_path: Path) -> None:
    unreachable = {"name": "Fast", "long": "1h", "short": "5m", "factor": 14.4, "severity": "page"}
    with pytest.raises(Exception, match=r"can burn at most 10 times its budget, never more than 14.4"):
        changed(declared, tmp_path, {"global": {"slo": {"burnRates": [unreachable]}}}).render(RULER)


def changed(declared: Declared, folder: Path, values: dict[str, Any]) -> Declared:
    """Return the Ruler of the platform with other values, as one more environment."""
    # Objectives are in the apps' folders.
    for charts in ("platform-apps", "k8s"):
        shutil.copytree(declared.platform / charts, folder / charts)
    (folder / "platform-apps" / RULER / "values-compressed.yaml").write_text(yaml.safe_dump(values))
    return Declared(folder, "compressed")


@pytest.fixture
def ruler(stack: Stack, tmp_path: Path) -> Iterator[Stack]:
    """The stack with a Ruler that runs the rules of compressed values."""
    compressed = changed(stack.declared, tmp_path, COMPRESSED)
    written = rules(compressed, stack.data("rules"))
    interval = compressed.values(RULER)["thanos"]["rule"]["evalInterval"]
    stack.changes["rule"] = lambda arguments: [
        f"--eval-interval={interval}" if argument.startswith("--eval-interval=") else argument for argument in arguments
    ]
    try:
        stack.start("rule")
        wait_until(lambda: stack.query.stores().get("rule"), "Query sees the Ruler")
        yield stack
    finally:
        stack.stop("rule")
        del stack.changes["rule"]
        for path in written:
            path.unlink()


def firing(stack: Stack) -> dict[str, dict[str, str]]:
    """Return the labels of the fast-burn alerts that Query shows as firing, by alert."""
    return {series["metric"]["alertname"]: series["metric"] for series in stack.query.instant(FIRING)}


def test_a_peak_fires_and_normal_mode_clears(ruler: Stack) -> None:
    stack = ruler
    traffic.wait_mode(stack, "normal", 18)
    assert traffic.load(stack, 24, 14).wait_end(60) == 0
    # Quiet: evaluated all the while, and never over the limit on both windows once these are full.
    evaluations = stack.query.value('min(count_over_time(slo:bad_requests:ratio_rate6s{service_name="checkout"}[5s]))')
    assert (evaluations or 0) >= 3
    assert stack.query.instant('count_over_time(ALERTS{alertname=~".*FastBurn"}[5s])') == []

    traffic.wait_mode(stack, "peak", 12)
    load = traffic.load(stack, 24, 10)
    fired = wait_until(lambda: firing(stack).keys() == FAST.keys() and firing(stack), "both alerts fire", timeout=30)
    for alert, slo in FAST.items():
        expected = {"severity": "page", "slo": slo, "service_name": "checkout", "http_route": "/checkout"}
        assert expected.items() <= fired[alert].items()
        # One alert, however many Rulers evaluate it.
        assert "rule_replica" not in fired[alert]
    told = httpx.get(f"{stack.url('query')}/api/v1/rules", params={"type": "alert"}, timeout=10, trust_env=False).json()
    states = {rule["name"]: rule["state"] for group in told["data"]["groups"] for rule in group["rules"]}
    assert {states[alert] for alert in FAST} == {"firing"}
    assert load.wait_end(60) == 0

    traffic.wait_mode(stack, "normal", 14)
    load = traffic.load(stack, 24, 10)
    wait_until(lambda: not firing(stack), "the alerts clear", timeout=30)
    assert load.wait_end(60) == 0
    assert not firing(stack)
