"""Whom a real Alertmanager tells of what: the baked groups and inhibitions, with the labels of the baked rules.

Alerts are posted here, so that no cause has to be made; that the Ruler delivers them is shown in test_alerts.py. Waits of the
routes alone are shortened.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.datapath.declared import Declared
from tests.e2e.datapath.stack import Stack
from tests.e2e.datapath.test_alerts import Receiver
from tests.e2e.datapath.test_slo import rules
from tests.e2e.processes import HTTP, wait_until

CHECKOUT = {"service_name": "checkout", "http_route": "/checkout"}
SHOP = {"service_name": "shop", "http_route": "/"}
# Of no service and no component that another alert here is about: once it was told, so was what came before it.
LAST = "TempoDiscards"


@dataclass
class Manager:
    """Alertmanager, the receiver that every route leads to, and the labels of every alert that the rules can make."""

    url: str
    receiver: Receiver
    labels: dict[str, dict[str, str]]
    firing: list[dict[str, Any]] = field(default_factory=list)

    def fire(self, *alerts: tuple[str, dict[str, str]]) -> None:
        """Tell it that alerts fire, all at the same time."""
        new = [{"labels": {**self.labels[name], **labels}} for name, labels in alerts]
        self.firing += new
        HTTP.post(f"{self.url}/api/v2/alerts", json=new).raise_for_status()

    def end(self, *names: str) -> None:
        """Tell it that alerts are over, and what else still fires."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        over = [each for each in self.firing if each["labels"]["alertname"] in names]
        self.firing = [each for each in self.firing if each not in over]
        HTTP.post(f"{self.url}/api/v2/alerts", json=[{**each, "endsAt": now} for each in over]).raise_for_status()

    def status(self, name: str) -> dict[str, Any]:
        """Return what it says of an alert."""
        (found,) = HTTP.get(f"{self.url}/api/v2/alerts", params={"filter": f"alertname={name}"}).json()
        return dict(found["status"])

    def told(self) -> list[tuple[str, set[str]]]:
        """Return the notifications of firing alerts: the receiver, and the alerts' names."""
        return [
            (receiver, {alert["labels"]["alertname"] for alert in each["alerts"]})
            for receiver, each in self.receiver.notified
            if each["status"] == "firing"
        ]

    def all_over(self) -> bool:
        """Whether everybody who was told of an alert was told of its end; until then its group is not told of it again."""
        last = {alert["fingerprint"]: alert["status"] for _, each in self.receiver.notified for alert in each["alerts"]}
        return HTTP.get(f"{self.url}/api/v2/alerts/groups").json() == [] and set(last.values()) <= {"resolved"}

    def wait_told(self, name: str) -> None:
        wait_until(lambda: any(name in alerts for _, alerts in self.told()), f"somebody is told of {name}")


@pytest.fixture(scope="module")
def running(new_stack: Callable[[], Stack], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    stack, receiver = new_stack(), Receiver()
    receiver.start()

    def told(config: dict[str, Any]) -> dict[str, Any]:
        for each in config["receivers"]:
            each["webhook_configs"] = [{"url": f"{receiver.url}/{each['name']}"}]
        for route in [config["route"], *config["route"]["routes"]]:
            route |= {"group_wait": "1s", "group_interval": "1s"}
        return config

    stack.changes["alertmanager"] = told
    stack.start("alertmanager")
    yield Manager(stack.url("alertmanager"), receiver, labels_of(stack.declared, tmp_path_factory.mktemp("rules")))
    stack.stop()
    receiver.stop()


def labels_of(declared: Declared, folder: Path) -> dict[str, dict[str, str]]:
    """Return the labels that the rules put on each alert, by its name; a label of the expression becomes its own name."""
    return {
        rule["alert"]: {"alertname": rule["alert"]}
        | {name: re.sub(r"\{\{ \$labels\.(\w+) \}\}", r"\1", value) for name, value in rule["labels"].items()}
        for path in rules(declared, folder)
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }


@pytest.fixture
def manager(running: Manager) -> Iterator[Manager]:
    """Nothing fires before a test and nothing after it."""
    running.receiver.notified.clear()
    yield running
    running.end(*[each["labels"]["alertname"] for each in running.firing])
    wait_until(running.all_over, "every alert is over")


@pytest.mark.parametrize(
    ("cause", "muted", "labels"),
    [
        ("AvailabilityFastBurn", "AvailabilitySlowBurn", CHECKOUT),
        ("LatencyFastBurn", "AvailabilitySlowBurn", CHECKOUT),
        ("ReceiveFails", "ReceiveLosesReplica", {}),
        ("MetricsMissing", "ServiceSilent", CHECKOUT),
        ("MetricsMissing", "ExemplarsMissing", {}),
        ("MetricsMissing", "TargetMissing", {}),
    ],
)
def test_what_follows_from_a_page_is_muted_until_that_is_over(
    manager: Manager, cause: str, muted: str, labels: dict[str, str]
) -> None:
    of_cause = {} if cause == "MetricsMissing" else labels
    manager.fire((muted, labels), (cause, of_cause))
    manager.wait_told(cause)
    status = manager.status(muted)
    assert (status["state"], bool(status["inhibitedBy"])) == ("suppressed", True)
    manager.fire((LAST, {}))
    manager.wait_told(LAST)
    assert manager.told() == [("page", {cause}), ("ticket", {LAST})]

    manager.end(cause)
    manager.wait_told(muted)


@pytest.mark.parametrize(
    ("page", "other", "labels"),
    [
        ("AvailabilityFastBurn", "AvailabilitySlowBurn", SHOP),
        ("AvailabilityFastBurn", "AvailabilitySlowBurn", CHECKOUT | {"http_route": "/cart"}),
        ("AvailabilityFastBurn", "ReceiveLosesReplica", {}),
        ("ExporterDrops", "TempoDiscards", {}),
    ],
)
def test_a_page_mutes_nothing_of_something_else(
    manager: Manager, page: str, other: str, labels: dict[str, str]
) -> None:
    manager.fire((other, labels), (page, CHECKOUT if page == "AvailabilityFastBurn" else {}))
    manager.wait_told(page)
    manager.wait_told(other)
    assert manager.status(other)["state"] == "active"


def test_a_peak_is_one_notification(manager: Manager) -> None:
    """Both objectives of three routes burn fast and slowly: twelve alerts, and one call."""
    burns = [name for name in manager.labels if name.endswith("Burn")]
    assert len(burns) == 4
    routes = [{"service_name": "checkout", "http_route": route} for route in ("/checkout", "/cart", "/unstable")]
    manager.fire(*((name, route) for name in burns for route in routes))
    manager.wait_told("AvailabilityFastBurn")
    manager.fire((LAST, {}))
    manager.wait_told(LAST)
    assert manager.told() == [("page", {"AvailabilityFastBurn", "LatencyFastBurn"}), ("ticket", {LAST})]
    ((_, page), _) = manager.receiver.notified
    assert len(page["alerts"]) == 6
