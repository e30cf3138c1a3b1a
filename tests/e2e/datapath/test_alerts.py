"""From a rule to a person: a real Ruler and a real Alertmanager page a receiver of ours, and the platform's own alerts."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from scripts.charts import merge
from tests.e2e import toolchain
from tests.e2e.datapath import traffic
from tests.e2e.datapath.declared import Declared
from tests.e2e.datapath.doctor import doctor
from tests.e2e.datapath.stack import Stack
from tests.e2e.datapath.stores import HttpService, LogStore, Refused, TraceStore
from tests.e2e.datapath.test_pipeline import every_second
from tests.e2e.datapath.test_slo import COMPRESSED, FAST, changed, rules
from tests.e2e.datapath.wiring import LONG_TERM
from tests.e2e.processes import HTTP, wait_until

# Longer than the two objectives of a peak are apart, and shorter than they last, as in the baked configuration.
GROUP_WAIT = 8
# Twice the windows of the peak alone, so that a busy machine's pauses do not part the two by more than that.
PEAK = {"name": "Fast", "long": "12s", "short": "6s", "factor": 1.5, "severity": "page"}
# What the platform waits for before it tells, compressed as the objectives' windows are.
WATCH = {"global": {"watch": {"for": "2s", "window": "10s", "missing": "6s"}}}


class Receiver(HttpService):
    """Takes Alertmanager's webhooks: ``notified`` holds what came, each with the receiver it was for; may refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.notified: list[tuple[str, dict[str, Any]]] = []
        self.refuses = False

    def post(self, path: str, body: bytes, content_type: str) -> bytes:
        if self.refuses:
            raise Refused(400, "no such integration")
        self.notified.append((path.strip("/"), json.loads(body)))
        return b""

    def of(self, receiver: str, status: str) -> list[dict[str, Any]]:
        """Return the notifications of a receiver with this status about services."""
        return [
            each
            for name, each in self.notified
            if name == receiver and each["status"] == status and each["groupLabels"].get("service_name")
        ]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def stack(
    new_stack: Callable[[], Stack], receiver: Receiver, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """Everything that alerts come from and go to, reporting, evaluating and grouping in seconds."""
    running = new_stack()
    compressed = changed(
        running.declared,
        tmp_path_factory.mktemp("rules"),
        merge(merge(COMPRESSED, {"global": {"slo": {"burnRates": [PEAK]}}}), WATCH),
    )
    rules(compressed, running.data("rules"))

    def fast(arguments: list[str]) -> list[str]:
        kept = [each for each in arguments if not each.startswith("--eval-interval=")]
        return [*kept, "--eval-interval=1s", "--resend-delay=1s"]

    def told(config: dict[str, Any]) -> dict[str, Any]:
        for each in config["receivers"]:
            hook = {"url": f"{receiver.url}/{each['name']}", "send_resolved": each["name"] != "watchdog"}
            each["webhook_configs"] = [hook]
        route = config["route"]
        for each in [route, *route["routes"]]:
            # As baked, a page that changes is told again only when the peak is over: one message then, not one an
            # alert.
            interval = "20s" if each["receiver"] == "page" else "3s"
            each |= {"group_wait": f"{GROUP_WAIT}s", "group_interval": interval}
        return config

    running.changes |= {
        "rule": fast,
        "alertmanager": told,
        "collector": every_second_of_its_own,
        "scraper": every_second,
    }
    traffic.warm_up(running.start())
    running.start(*LONG_TERM, "alertmanager", "rule", "scraper")
    wait_until(lambda: running.query.stores().get("rule"), "Query sees the Ruler")
    yield running
    running.stop()


def every_second_of_its_own(config: dict[str, Any]) -> dict[str, Any]:
    (reader,) = config["service"]["telemetry"]["metrics"]["readers"]
    reader["periodic"]["interval"] = 1000
    return config


def amtool(*arguments: str | Path) -> str:
    done = subprocess.run(
        [toolchain.tool("alertmanager", "amtool"), *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("more", [None, "receivers-example.yaml"])
def test_alertmanager_accepts_the_configuration(declared: Declared, tmp_path: Path, more: str | None) -> None:
    baked = declared.values("alertmanager")
    if more:
        baked = merge(baked, yaml.safe_load((declared.platform / "platform-apps/alertmanager" / more).read_text()))
    config = baked["alertmanager"]["config"]
    # An address or a key is in a file of the Secret, never in git.
    mounted = [each["mountPath"] for each in baked["alertmanager"]["extraVolumeMounts"]]
    files = [value for key, value in leaves(config["receivers"]) if key.endswith("_file")]
    assert bool(files) == bool(more)
    assert all(Path(str(file)).parent.as_posix() in mounted for file in files)
    for name, text in baked["alertmanager"]["templates"].items():
        (tmp_path / name).write_text(text)
    path = tmp_path / "alertmanager.yml"
    path.write_text(yaml.safe_dump({**config, "templates": [str(tmp_path / "*.tmpl")]}))
    assert "SUCCESS" in amtool("check-config", path)
    shown = amtool(
        "template", "render", f"--template.glob={tmp_path}/*.tmpl", '--template.text={{ template "platform.text" . }}'
    )
    assert "Run-book: " in shown
    for labels, receiver in (
        (("severity=page", "service_name=checkout"), "page"),
        (("severity=ticket", "component=tempo"), "ticket"),
        (("alertname=Watchdog", "severity=none"), "watchdog"),
        (("alertname=Unheard",), "ticket"),
    ):
        assert amtool("config", "routes", "test", f"--config.file={path}", *labels).strip() == receiver


def leaves(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Yield (key, value) of everything that is neither a mapping nor a list."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from leaves(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each, key)
    else:
        yield key, value


def test_a_peak_is_one_page_with_links_that_work_and_is_resolved(stack: Stack, receiver: Receiver) -> None:
    traffic.wait_mode(stack, "normal", 18)
    assert traffic.load(stack, 24, 14).wait_end(60) == 0
    assert receiver.of("page", "firing") == []

    traffic.wait_mode(stack, "peak", 12)
    load = traffic.load(stack, 24, 10)
    firing = 'count(ALERTS{alertname=~".*FastBurn",alertstate="firing"})'
    wait_until(lambda: stack.query.value(firing), "an alert fires", timeout=30)
    (page,) = wait_until(lambda: receiver.of("page", "firing"), "somebody is paged", timeout=1 + GROUP_WAIT + 10)
    assert {alert["labels"]["alertname"] for alert in page["alerts"]} == FAST.keys()
    assert page["groupLabels"] == {"service_name": "checkout"}
    assert load.wait_end(60) == 0

    traffic.wait_mode(stack, "normal", 14)
    load = traffic.load(stack, 24, 10)
    wait_until(lambda: receiver.of("page", "resolved"), "the page is resolved", timeout=60)
    assert load.wait_end(60) == 0
    assert len(receiver.of("page", "firing")) == len(receiver.of("page", "resolved")) == 1

    runbook = (stack.declared.platform / "docs/runbook.md").read_text()
    anchors = {line.lstrip("# ").lower() for line in runbook.splitlines() if line.startswith("#")}
    for alert in page["alerts"]:
        links = {name: urlsplit(link) for name, link in alert["annotations"].items() if name.endswith("_url")}
        assert links["runbook_url"].fragment in anchors
        assert stack.declared.dashboard(links["dashboard_url"].path.removeprefix("/d/"))
        (pane,) = json.loads(parse_qs(links["traces_url"].query)["panes"][0]).values()
        answer = HTTP.get(f"{stack.url('tempo')}/api/search", params={"q": pane["queries"][0]["query"]})
        assert answer.json()["traces"], pane


def test_a_silence_mutes_and_survives_a_restart(stack: Stack, receiver: Receiver) -> None:
    matcher = {"name": "service_name", "value": "checkout", "isRegex": False, "isEqual": True}
    now = time.time()
    times = {
        name: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
        for name, at in (("startsAt", now), ("endsAt", now + 600))
    }
    silence = {"matchers": [matcher], **times, "createdBy": "the suite", "comment": "known"}
    api = f"{stack.url('alertmanager')}/api/v2"
    made = HTTP.post(f"{api}/silences", json=silence).json()["silenceID"]
    try:
        stack.stop("alertmanager")
        stack.start("alertmanager")
        before = len(receiver.of("page", "firing"))
        traffic.wait_mode(stack, "peak", 12)
        load = traffic.load(stack, 24, 10)

        def muted() -> list[dict[str, Any]]:
            alerts = HTTP.get(f"{api}/alerts", params={"filter": 'severity="page"'}).json()
            return [each for each in alerts if made in each["status"]["silencedBy"]]

        silenced = wait_until(muted, "the peak's alerts are silenced", timeout=30)
        assert {each["status"]["state"] for each in silenced} == {"suppressed"}
        assert load.wait_end(60) == 0
        traffic.wait_mode(stack, "normal", 14)
        assert traffic.load(stack, 24, 10).wait_end(60) == 0
        assert len(receiver.of("page", "firing")) == before
    finally:
        HTTP.delete(f"{api}/silence/{made}")


def test_the_doctor_sends_a_page(stack: Stack, receiver: Receiver, tmp_path: Path) -> None:
    platform = Path(shutil.copytree(stack.declared.platform, tmp_path / "platform"))
    folder = platform / "platform-apps" / "alertmanager"
    production, example = (
        yaml.safe_load((folder / name).read_text()) for name in ("values-production.yaml", "receivers-example.yaml")
    )
    (folder / "values-production.yaml").write_text(yaml.safe_dump(merge(production, example)))
    where = f"--alertmanager-url={stack.url('alertmanager')}"
    hops = {
        hop["hop"]: hop
        for hop in json.loads(doctor(stack, "--json", where, "--test-page", repository=platform).stdout)["hops"]
    }
    assert {hops[name]["status"] for name in ("Alerts", "Receivers", "Test page")} == {"ok"}, hops
    assert "TestPage sent by pagerduty, slack" in hops["Test page"]["evidence"]

    def paged() -> bool:
        alerts = (alert for name, each in receiver.notified if name == "page" for alert in each["alerts"])
        return any(alert["labels"]["alertname"] == "TestPage" for alert in alerts)

    # The doctor goes by what receivers were sent, which may have been one more message of an earlier peak.
    wait_until(paged, "the test page is there", timeout=GROUP_WAIT + 10)


def fires(stack: Stack, alert: str, labels: str = "") -> float | None:
    return stack.query.value(f'count(ALERTS{{alertname="{alert}",alertstate="firing"{labels}}})')


def silent(stack: Stack, *alerts: str) -> None:
    """Wait until none of these alerts fires."""
    wait_until(lambda: not any(fires(stack, alert) for alert in alerts), f"{alerts} clear", timeout=90)


@contextmanager
def telling(stack: Stack, *alerts: str) -> Iterator[None]:
    """Run a block that makes a fault: each of these alerts is silent before, fires in it, and clears after it."""
    silent(stack, *alerts)
    yield
    silent(stack, *alerts)


def all_fire(stack: Stack, *alerts: str) -> None:
    for alert in alerts:
        wait_until(partial(fires, stack, alert), f"{alert} fires", timeout=60)


def test_the_watchdog_calls(stack: Stack, receiver: Receiver) -> None:
    wait_until(lambda: any(name == "watchdog" for name, _ in receiver.notified), "the watchdog called", timeout=90)


def test_metrics_that_stop(stack: Stack) -> None:
    with telling(stack, "MetricsMissing"):
        stack.stop("scraper")
        all_fire(stack, "MetricsMissing")
        stack.start("scraper")


def test_a_process_that_is_down_and_a_store_that_query_misses(stack: Stack) -> None:
    with telling(stack, "TargetDown"):
        stack.stop("compact")
        all_fire(stack, "TargetDown")
        stack.start("compact")

    def without_the_store(arguments: list[str]) -> list[str]:
        (given,) = (each for each in arguments if each.startswith("--endpoint.sd-config-file="))
        known = yaml.safe_load(Path(given.partition("=")[2]).read_text())
        left = [each for each in known["endpoints"] if stack.address("store-gateway", "grpc") not in each["address"]]
        assert len(left) < len(known["endpoints"])
        file = stack.folder / "endpoints-without-the-store.yaml"
        file.write_text(yaml.safe_dump({"endpoints": left}))
        return [f"--endpoint.sd-config-file={file}" if each == given else each for each in arguments]

    with telling(stack, "QueryMissesStore"), stack.changed("query", without_the_store):
        all_fire(stack, "QueryMissesStore")


def test_a_backend_that_is_away_and_a_queue_that_fills(stack: Stack) -> None:
    if not isinstance(stack.traces, TraceStore):
        pytest.skip("a queue this small is made for the stand-in")

    def small(config: dict[str, Any]) -> dict[str, Any]:
        queue = config["exporters"]["otlp_grpc/tempo"]["sending_queue"]
        queue |= {"queue_size": 20_000, "batch": {"flush_timeout": "1s", "min_size": 1000, "max_size": 10_000}}
        return config

    alerts = ("ExporterStalls", "CollectorQueueFills", "CollectorRefuses")
    with telling(stack, *alerts), stack.changed("collector", small):
        stack.traces.stop()
        load = traffic.load(stack, 12, 40)
        all_fire(stack, *alerts)
        load.stop()
        stack.traces.start()


def test_a_backend_that_refuses_for_good(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    if not isinstance(stack.logs, LogStore):
        pytest.skip("Loki itself refuses nothing here")

    def refuse(*_: object) -> bytes:
        raise Refused(400, "no labels")

    with telling(stack, "ExporterDrops"), monkeypatch.context() as patched:
        patched.setattr(stack.logs, "post", refuse)
        load = traffic.load(stack, 12, 40)
        all_fire(stack, "ExporterDrops")
        load.stop()


def test_exemplars_that_do_not_come(stack: Stack) -> None:
    def without(environment: dict[str, Any]) -> dict[str, Any]:
        return environment | {"OTEL_METRICS_EXEMPLAR_FILTER": "always_off"}

    with telling(stack, "ExemplarsMissing"), stack.changed("app", without):
        load = traffic.load(stack, 12, 60)
        all_fire(stack, "ExemplarsMissing")
        load.stop()


def test_an_object_store_that_fails(stack: Stack) -> None:
    bucket = stack.folder / "bucket"
    often = stack.changed("store-gateway", lambda arguments: [*arguments, "--sync-block-duration=1s"])
    with telling(stack, "ObjectStoreFails"), often:
        aside = bucket.rename(bucket.with_name("aside"))
        try:
            bucket.symlink_to(bucket)  # a folder that is not there would be an empty bucket, without an error
            all_fire(stack, "ObjectStoreFails")
        finally:
            bucket.unlink()
            aside.rename(bucket)


def test_rules_that_cannot_be_evaluated(stack: Stack) -> None:
    broken = stack.data("rules") / "broken.yaml"
    rule = {"record": "broken", "expr": "up + on () up"}
    with telling(stack, "RulesFail"):
        broken.write_text(yaml.safe_dump({"groups": [{"name": "broken", "rules": [rule]}]}))
        HTTP.post(f"{stack.url('rule')}/-/reload").raise_for_status()
        all_fire(stack, "RulesFail")
        broken.unlink()
        HTTP.post(f"{stack.url('rule')}/-/reload").raise_for_status()


def test_pages_that_reach_nobody(stack: Stack, receiver: Receiver) -> None:
    with telling(stack, "NotificationsFail"):
        receiver.refuses = True
        with telling(stack, "TargetDown"):
            stack.stop("compact")
            all_fire(stack, "NotificationsFail")
            stack.start("compact")
        receiver.refuses = False
    with telling(stack, "AlertsUndelivered"):
        stack.stop("alertmanager")
        all_fire(stack, "AlertsUndelivered")
        stack.start("alertmanager")
