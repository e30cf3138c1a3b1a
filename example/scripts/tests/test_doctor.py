"""The doctor's checks against recorded kinds of answers; no network, no cluster."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner

from scripts.doctor.checks import CHECKS, alerting, app, collector, grafana, metrics, platform, traces, walk
from scripts.doctor.cli import app as doctor
from scripts.doctor.cluster import Cluster
from scripts.doctor.context import Context, hexadecimal
from scripts.doctor.findings import FINDINGS, read
from scripts.doctor.model import MissingError, Status, UnreachableError
from scripts.doctor.names import METRIC
from scripts.doctor.report import as_json, first_broken, show
from scripts.doctor.repository import Repository

ROOT = Path(__file__).resolve().parents[2]
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
# An app of this repository.
SERVICE = min(Repository(ROOT, "local").facts["apps"])
BACKENDS = ("collector", "router", "receive", "query", "tempo", "loki", "alertmanager")
Answer = Callable[[httpx.Request], object]


def vector(*values: float, **labels: str) -> dict[str, Any]:
    return {"status": "success", "data": {"result": [{"metric": labels, "value": [0, str(value)]} for value in values]}}


def backend(answers: dict[str, object], numbers: dict[str, float] | None = None) -> httpx.MockTransport:
    """Answer by path; /api/v1/query answers the number of the first key that the expression contains."""

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/api/v1/query" and numbers is not None:
            number = next((value for part, value in numbers.items() if part in request.url.params["query"]), None)
            return httpx.Response(200, json=vector() if number is None else vector(number))
        given = answers.get(path, httpx.Response(200, text="ready"))
        if isinstance(given, Exception):
            raise given
        return given if isinstance(given, httpx.Response) else httpx.Response(200, json=given)

    return httpx.MockTransport(answer)


def context(answers: dict[str, object] | None = None, numbers: dict[str, float] | None = None, **more: Any) -> Context:
    urls = {name: f"http://{name}.test" for name in BACKENDS}
    more = {"service": SERVICE, **more}
    return Context(Repository(ROOT, "local"), urls=urls, transport=backend(answers or {}, numbers), **more)


def exemplar(age: float = 20, **labels: str) -> dict[str, Any]:
    labels = labels or {"trace_id": TRACE, "span_id": SPAN}
    return {"data": [{"exemplars": [{"labels": labels, "value": "2.1", "timestamp": time.time() - age}]}]}


def span(identifier: str = SPAN, events: int = 0) -> dict[str, Any]:
    return {"batches": [{"scopeSpans": [{"spans": [{"spanId": identifier, "events": [{}] * events}]}]}]}


STORES = {"status": "success", "data": {"receive": [{"name": "ingestor:10901", "lastError": None}]}}


@pytest.mark.parametrize(
    ("numbers", "finding"),
    [
        ({METRIC: 3}, None),
        ({f"{METRIC}_bucket": 3}, "histogram-not-native"),
        ({"http_server_duration_milliseconds": 3}, "semconv-opt-in-missing"),
        ({'service_name=""': 3}, "service-name-not-promoted"),
        ({}, "app-silent"),
    ],
)
def test_the_metric_is_told_apart_by_what_arrives_instead(numbers: dict[str, float], finding: str | None) -> None:
    assert metrics.metric(context(numbers=numbers)).finding == finding


@pytest.mark.parametrize(
    ("answers", "numbers", "finding"),
    [
        ({"/api/v1/query_exemplars": exemplar()}, {}, None),
        ({"/api/v1/query_exemplars": exemplar(traceID=TRACE)}, {}, "exemplars-missing"),
        ({"/api/v1/query_exemplars": {"data": []}, "/api/search": {"traces": []}}, {"increase": 9}, "sampling-off"),
        (
            {"/api/v1/query_exemplars": {"data": []}, "/api/search": {"traces": [{"traceID": TRACE}]}},
            {"increase": 9},
            "exemplars-missing",
        ),
    ],
)
def test_missing_exemplars_are_told_apart_by_the_traces(
    answers: dict[str, Any], numbers: dict[str, Any], finding: str | None
) -> None:
    assert metrics.exemplars(context(answers, numbers)).finding == finding


def test_without_requests_nothing_is_wrong_with_exemplars() -> None:
    result = metrics.exemplars(context({"/api/v1/query_exemplars": {"data": []}}, {"increase": 0}))
    assert result.status is Status.WARN


@pytest.mark.parametrize(
    ("text", "status", "finding"),
    [
        ('{tenant="a"} 100\n', Status.OK, None),
        ('{tenant="a"} 0\n', Status.FAIL, "exemplar-flag-missing"),
        ("_unrelated 5\n", Status.FAIL, "exemplar-flag-missing"),
    ],
)
def test_receive_says_whether_it_keeps_exemplars(text: str, status: Status, finding: str | None) -> None:
    page = httpx.Response(200, text=f"prometheus_tsdb_exemplar_max_exemplars{text}")
    result = metrics.receive(context({"/metrics": page}))
    assert (result.status, result.finding) == (status, finding)


def test_a_full_buffer_that_reaches_back_minutes_is_a_warning() -> None:
    page = httpx.Response(
        200,
        text="prometheus_tsdb_exemplar_max_exemplars 10\nprometheus_tsdb_exemplar_exemplars_in_storage 10\n"
        f"prometheus_tsdb_exemplar_last_exemplars_timestamp_seconds {time.time() - 60}\n",
    )
    assert metrics.receive(context({"/metrics": page})).status is Status.WARN


@pytest.mark.parametrize(
    ("answers", "finding"),
    [
        ({f"/api/traces/{TRACE}": span()}, None),
        ({f"/api/traces/{TRACE}": span(base64.b64encode(bytes.fromhex(SPAN)).decode())}, None),
        ({f"/api/traces/{TRACE}": {"trace": {"resourceSpans": span()["batches"]}}}, None),
        ({f"/api/traces/{TRACE}": span("00f067aa0ba902b7")}, "span-mismatch"),
        ({f"/api/traces/{TRACE}": httpx.Response(404), "/api/search": {"traces": [{}]}}, "trace-expired"),
        ({f"/api/traces/{TRACE}": httpx.Response(404), "/api/search": {"traces": []}}, "traces-missing"),
    ],
)
def test_an_exemplar_leads_to_its_trace(answers: dict[str, Any], finding: str | None) -> None:
    assert traces.trace(context({"/api/v1/query_exemplars": exemplar(), **answers}, {})).finding == finding


@pytest.mark.parametrize(("first_report", "finding"), [(60, None), (600, "trace-expired")])
def test_what_the_sdk_gave_up_before_the_collector_came_is_nobody_s_fault(
    first_report: float, finding: str | None
) -> None:
    (young,), (lost,) = (exemplar(age)["data"] for age in (20, 300))
    lost["exemplars"][0]["labels"] = {"trace_id": "f" * 32, "span_id": SPAN}
    answers = {
        "/api/v1/query_exemplars": {"data": [young, lost]},
        f"/api/traces/{TRACE}": span(),
        f"/api/traces/{'f' * 32}": httpx.Response(404),
        "/api/search": {"traces": [{}]},
    }
    assert traces.trace(context(answers, {"min_over_time": time.time() - first_report})).finding == finding


def test_a_short_window_has_its_oldest_exemplars_too() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/v1/query_exemplars":
            return httpx.Response(200, json={"data": [exemplar(age)["data"][0] for age in (19, 16, 5)]})
        # A collector that reports since yesterday; the first step of a subquery lies up to 10 s after its range began.
        reach = float(re.findall(r"\[(\d+)s:10s\]", request.url.params["query"])[0])
        return httpx.Response(200, json=vector(time.time() - reach + 10))

    asked = context(since=20)
    asked.transport = httpx.MockTransport(answer)
    assert traces.settled(asked) == asked.exemplars[1:]


def test_a_trace_that_waits_in_the_collector_is_not_missing() -> None:
    answers = {"/api/v1/query_exemplars": exemplar(), f"/api/traces/{TRACE}": httpx.Response(404)}
    result = traces.trace(context({**answers, "/api/search": {"traces": []}}, {"queue_size": 2e6}))
    assert (result.status, result.finding) == (Status.WARN, None)
    assert "2.0 MB of traces wait" in result.evidence


@pytest.mark.parametrize(
    ("with_id", "any_line", "finding"), [(1, 1, None), (0, 1, "logs-without-trace-id"), (0, 0, "logs-missing")]
)
def test_a_trace_leads_to_its_log_lines(with_id: int, any_line: int, finding: str | None) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/v1/query_exemplars":
            return httpx.Response(200, json=exemplar())
        if request.url.path == "/api/v1/query":
            return httpx.Response(200, json=vector())
        count = with_id if "trace_id" in request.url.params.get("query", "") else any_line
        return httpx.Response(200, json={"data": {"result": [{"values": [["1", "a line"]] * count}]}})

    seen = context()
    seen.transport = httpx.MockTransport(answer)
    assert traces.logs(seen).finding == finding


@pytest.mark.parametrize(
    ("pipelines", "exporters"),
    [
        ({"metrics": {"exporters": ["otlp_http/thanos"]}}, {"metrics": ["otlp_http/thanos"]}),
        ({"metrics": {"exporters": ["debug"]}}, {"metrics": []}),
        ({"metrics/a": {}, "metrics/b": {"exporters": ["otlp_http/thanos"]}}, {"metrics": ["otlp_http/thanos"]}),
        ({"metrics": {"exporters": ["otlp_http/gone"]}}, {"metrics": []}),
    ],
)
def test_exporters_that_deliver(pipelines: dict[str, Any], exporters: dict[str, Any]) -> None:
    config = {"service": {"pipelines": pipelines}, "exporters": {"otlp_http/thanos": {}, "debug": {}}}
    assert collector.pipeline_exporters(config) == exporters


def test_a_silent_collector_is_not_blamed_while_receive_is_down() -> None:
    answers = {"/-/ready": httpx.ConnectError("refused"), "/api/v1/stores": STORES}
    assert collector.live(context(answers, {})).status is Status.WARN
    assert collector.live(context({"/api/v1/stores": STORES}, {})).finding == "exporter-removed"


@pytest.mark.parametrize(("waiting", "finding"), [(10, None), (90, "queue-filling")])
def test_a_queue_that_fills_is_named(waiting: float, finding: str | None) -> None:
    numbers = {"time() -": 1, "queue_capacity": 100, "queue_size": waiting, "rate": 5}
    assert collector.live(context({"/api/v1/stores": STORES}, numbers)).finding == finding


def test_this_repository_has_nothing_to_mend() -> None:
    seen = context()
    for check in (metrics.receive_settings, metrics.query_settings, grafana.datasources_in_git, grafana.panels_in_git):
        result = check(seen)
        assert result.status is Status.OK, result


def target(**more: object) -> dict[str, Any]:
    return {"panels": [{"title": "p", "targets": [{"expr": f"sum(rate({METRIC}{{}}[1m]))", "exemplar": True} | more]}]}


@pytest.mark.parametrize(
    ("board", "finding"),
    [
        (target(), None),
        (target(exemplar=False), "panel-without-exemplars"),
        (target(instant=True), "panel-instant"),
        (target(expr=f"rate({METRIC}_count{{}}[1m])"), "panel-on-count"),
        (target(expr="rate(other_seconds{}[1m])"), "panel-wrong-metric"),
        ({"panels": [{"panels": target()["panels"]}]}, None),
    ],
)
def test_panels(board: dict[str, Any], finding: str | None) -> None:
    assert grafana.judge_panels(board).finding == finding


@pytest.mark.parametrize(
    ("label", "leads_to", "finding"),
    [("trace_id", "tempo", None), ("traceID", "tempo", "exemplar-label-wrong"), ("trace_id", "x", "datasource-wrong")],
)
def test_data_sources(label: str, leads_to: str, finding: str | None) -> None:
    link = {"name": label, "datasourceUid": leads_to}
    thanos = {"uid": "thanos", "type": "prometheus", "jsonData": {"exemplarTraceIdDestinations": [link]}}
    sources: list[dict[str, Any]] = [thanos, {"uid": "tempo", "type": "tempo"}]
    assert grafana.judge_datasources(sources, {"thanos": "prometheus"}).finding == finding


def test_a_data_source_that_a_panel_names_is_missed() -> None:
    panel = {"datasource": {"uid": "loki", "type": "loki"}, "targets": []}
    wanted = grafana.named_by([{"panels": [{"panels": [panel]}]}])
    assert wanted == {"loki": "loki"}
    assert grafana.judge_datasources([{"uid": "loki", "type": "tempo"}], wanted).finding == "datasource-wrong"


def test_what_no_folder_describes_is_not_looked_for() -> None:
    class Without(Repository):
        facts = {"workloads": {"tempo": {"namespace": "traces"}}}  # noqa: RUF012 - stands for a property

    seen = Context(Without(ROOT, "local"), cluster=Cluster())
    assert seen.home("tempo") == "traces"
    assert not seen.reaches("grafana")
    with pytest.raises(MissingError, match="no platform.yaml describes the workload grafana"):
        seen.url("grafana")


@pytest.mark.parametrize(
    ("spec", "finding"),
    [
        ({"sampler": {"type": "always_off"}}, "sampling-off"),
        ({"sampler": {"type": "parentbased_traceidratio", "argument": "0"}}, "sampling-off"),
        ({"env": [{"name": "OTEL_METRICS_EXEMPLAR_FILTER", "value": "always_off"}]}, "exemplar-filter-off"),
        ({}, "semconv-opt-in-missing"),
        ({"python": {"env": [{"name": "OTEL_SEMCONV_STABILITY_OPT_IN", "value": "http"}]}}, "histogram-not-native"),
    ],
)
def test_instrumentation(monkeypatch: pytest.MonkeyPatch, spec: dict[str, Any], finding: str) -> None:
    monkeypatch.setattr(Repository, "rendered", lambda *_: {"spec": spec})
    assert app.settings(context()).finding == finding


def test_a_walk_ends_whatever_the_backends_answer_and_shows_no_password() -> None:
    marker = "s3cret"
    seen = context(grafana_token=marker)
    seen.urls = {name: f"http://user:{marker}@{name}.test" for name in (*BACKENDS, "grafana")}
    for answer in (
        httpx.Response(200, text="<html>log in</html>"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"data": None}),
        httpx.Response(500, text=marker),
    ):
        fresh = Context(
            **{**vars(seen), "transport": httpx.MockTransport(lambda _, answer=answer: answer)} | {"_forwarded": {}}
        )
        walked = list(walk(fresh))
        assert len(walked) == len(CHECKS)
        assert first_broken(walked)
        console = Console(record=True, width=200, file=None, quiet=True)
        show(walked, console)
        assert marker not in as_json(walked) + console.export_text()


def fake_kubectl(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "kubectl"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_a_forward_ends_with_the_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        f"echo $$ > {tmp_path}/pid; echo 'a warning'; echo 'Forwarding from 127.0.0.1:34567 -> 3200'; exec sleep 60"
    )
    fake_kubectl(tmp_path, monkeypatch, script)
    with Cluster(timeout=5) as cluster:
        assert cluster.forward("observability", "service/tempo", 3200) == "http://127.0.0.1:34567"
        os.kill(int((tmp_path / "pid").read_text()), 0)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(
    ("script", "says"),
    [("echo 'error: services \"tempo\" not found' >&2; exit 1", "not found"), ("exec sleep 60", "not up in time")],
)
def test_a_forward_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str) -> None:
    fake_kubectl(tmp_path, monkeypatch, script)
    with Cluster(timeout=0.5) as cluster, pytest.raises(UnreachableError, match=says):
        cluster.forward("observability", "service/tempo", 3200)


def pod(*init: str, phase: str = "Running") -> dict[str, Any]:
    return {
        "metadata": {"name": "app-0"},
        "spec": {"initContainers": [{"name": name} for name in init]},
        "status": {"phase": phase},
    }


@pytest.mark.parametrize(
    ("items", "finding"),
    [
        ([pod(app.INIT_CONTAINER)], None),
        ([pod()], "app-not-instrumented"),
        ([pod(phase="Pending")], "app-not-running"),
        ([], "app-not-running"),
    ],
)
def test_pods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, items: list[dict[str, Any]], finding: str | None
) -> None:
    (tmp_path / "answer.json").write_text(json.dumps({"items": items}))
    fake_kubectl(tmp_path, monkeypatch, f"cat {tmp_path}/answer.json")
    assert app.pods(context(cluster=Cluster())).finding == finding


@pytest.mark.parametrize(
    ("items", "finding"),
    [
        ([("Synced", "Healthy")], None),
        ([("Synced", "Healthy"), ("OutOfSync", "Healthy")], "application-unhealthy"),
        ([("Synced", "Degraded")], "application-unhealthy"),
        ([], "application-unhealthy"),
    ],
)
def test_applications(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, items: list[tuple[Any, ...]], finding: str | None
) -> None:
    status = [{"sync": {"status": sync}, "health": {"status": health}} for sync, health in items]
    answer = {"items": [{"metadata": {"name": "tempo"}, "status": each} for each in status]}
    (tmp_path / "answer.json").write_text(json.dumps(answer))
    fake_kubectl(tmp_path, monkeypatch, f"cat {tmp_path}/answer.json")
    assert platform.applications(context(cluster=Cluster())).finding == finding


def test_without_a_cluster_git_is_checked_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_kubectl(tmp_path, monkeypatch, "echo 'connection refused' >&2; exit 1")
    seen = Context(Repository(ROOT, "local"), cluster=Cluster(timeout=1))
    results = {check.name: result for check, result in walk(seen)}
    assert results["Cluster"].finding == "cluster-unreachable"
    assert [result.finding for result in results.values() if result.finding] == ["cluster-unreachable"]
    skipped = {result.evidence for result in results.values() if result.status is Status.SKIP}
    assert not [reason for reason in skipped if "-url was given" in reason]
    assert results["Panels in git"].status is Status.OK


def test_where_addresses_were_given_no_cluster_is_missed() -> None:
    walked = dict(_findings(context({"/api/v1/stores": {"status": "success", "data": {}}})))
    assert walked["App pods"][1] == "addresses were given"
    assert walked["Data sources in Grafana"][1] == "no --grafana-url was given"


def test_the_report_ends_with_cause_and_fix() -> None:
    walked = list(walk(context({"/api/v1/stores": {"status": "success", "data": {}}})))
    report = json.loads(as_json(walked))
    assert report["first"]["cause"] and report["first"]["fix"]
    assert not report["healthy"]


def test_every_finding_of_the_runbook_is_one_that_the_doctor_makes() -> None:
    code = "".join(path.read_text() for path in (ROOT / "scripts/doctor").rglob("*.py"))
    assert [slug for slug in FINDINGS if f'"{slug}"' not in code] == []


def test_a_section_of_the_runbook_without_its_fix_is_named() -> None:
    text = "## Findings of the doctor\n\n### some-slug\n\n**Cause.** A reason.\n"
    with pytest.raises(ValueError, match="some-slug needs"):
        read(text)
    assert read(f"{text}\n**Fix.** Do\nthis.\n\nMore to know.\n")["some-slug"] == ("A reason.", "Do this.")


def test_what_a_backend_cannot_say_is_not_the_doctors_bug_and_the_other_way_round() -> None:
    walked = dict(_findings(context({"/api/v1/stores": {"data": [1]}})))
    assert walked["Query"][0] == "answer-unexpected"
    assert "query: GET /api/v1/stores: data" in walked["Query"][1]
    seen = context()
    seen.repository.__dict__["dashboards"] = {"broken.json": None}
    assert dict(_findings(seen))["Panels in git"][0] == "doctor-broken"


def _findings(seen: Context, *more: str) -> Iterator[tuple[str, tuple[str | None, str]]]:
    for check, result in walk(seen, *more):
        yield check.name, (result.finding, result.evidence)


def test_a_kind_that_the_cluster_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not Query, and not the cluster, which answers."""
    version = '{"serverVersion": {"gitVersion": "v1.34.4"}, "clientVersion": {"gitVersion": "v1.34.4"}}'
    lacks = """echo "the server doesn't have a resource type $2" >&2; exit 1"""
    fake_kubectl(tmp_path, monkeypatch, f"case $1 in version) echo '{version}' ;; *) {lacks} ;; esac")
    walked = dict(_findings(Context(Repository(ROOT, "local"), cluster=Cluster(timeout=1), service=SERVICE)))
    assert walked["Cluster"][0] is None
    for hop in ("App telemetry settings", "Collector settings"):
        assert walked[hop][0] == "resource-unreadable"
        assert "doesn't have a resource type" in walked[hop][1]


def test_the_environments_context_is_the_one_that_is_looked_at(tmp_path: Path) -> None:
    folder = tmp_path / "terraform" / "environments"
    folder.mkdir(parents=True)
    (folder / "local.tfvars").write_text('kube_context = "kind-acme"\n')
    (folder / "production.tfvars").write_text('# kube_context = "not-this"\n')
    assert Repository(tmp_path, "local").kube_context == "kind-acme"
    assert Repository(tmp_path, "production").kube_context is None
    with pytest.raises(MissingError, match="there are: local, production"):
        assert Repository(tmp_path, "staging").kube_context


@pytest.mark.parametrize(
    ("given", "used"),
    [({"--env": "production"}, "eks-production"), ({"--env": "production", "--context": "other"}, "other")],
)
def test_kubectl_is_given_that_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], used: str
) -> None:
    shutil.copytree(ROOT / "terraform" / "environments", tmp_path / "terraform" / "environments")
    with (tmp_path / "terraform/environments/production.tfvars").open("a") as file:
        file.write('kube_context = "eks-production"\n')
    fake_kubectl(tmp_path, monkeypatch, f'echo "$@" >>{tmp_path}/calls; exit 1')
    options = [word for pair in given.items() for word in pair]
    assert CliRunner().invoke(doctor, [*options, f"--repo={tmp_path}"]).exit_code == 1
    calls = (tmp_path / "calls").read_text().splitlines()
    assert any(call.startswith(f"--context {used} version -o json") for call in calls)


def test_ids_are_compared_in_hexadecimal() -> None:
    assert hexadecimal(base64.b64encode(bytes.fromhex(TRACE)).decode()) == TRACE
    assert hexadecimal(SPAN.upper()) == SPAN


def alertmanager(*counts: tuple[int, int]) -> dict[str, object]:
    """Return an Alertmanager's answers by path: at each look, how many pages it counts and how many failed.

    With each look it has sent one more heartbeat, which is no page.
    """
    looks, heartbeats = iter(counts), itertools.count()

    class Metrics(dict[str, Any]):
        def get(self, path: str, default: object = None) -> object:
            if path != "/metrics":
                return super().get(path, default)
            sent, failed = next(looks)
            series = (
                ("total", "page", sent),
                ("total", "watchdog", next(heartbeats)),
                ("failed_total", "page", failed),
            )
            text = "".join(
                f'alertmanager_notifications_{name}{{integration="slack",receiver_name="{receiver}"}} {count}\n'
                for name, receiver, count in series
            )
            return httpx.Response(200, text=text)

    return Metrics({"/api/v2/alerts": [{"labels": {"alertname": "Watchdog"}}]})


def test_alerts_reach_alertmanager_where_it_has_the_watchdog() -> None:
    assert alerting.alerts(context(alertmanager())).status is Status.OK
    assert alerting.alerts(context({"/api/v2/alerts": []})).finding == "alerts-undelivered"


def test_a_receiver_that_refuses_is_named() -> None:
    assert alerting.receivers(context(numbers={"failed_total": 3})).finding == "receiver-refuses"
    quiet = alerting.receivers(context(alertmanager((7, 0)), numbers={}))
    assert quiet.status is Status.OK
    assert "7 notifications" in quiet.evidence
    assert "Grafana alone" in quiet.evidence


@pytest.mark.parametrize(
    ("counts", "finding"),
    [([(1, 0), (1, 0), (1, 0), (1, 0), (2, 0), (2, 0)], None), ([(1, 0), (1, 0), (1, 0), (1, 1)], "receiver-refuses")],
)
def test_a_test_page_is_sent_when_asked_for(
    counts: list[tuple[int, int]], finding: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerting, "integrations", lambda _: ["slack"])
    monkeypatch.setattr(time, "sleep", lambda _: None)
    assert alerting.test_page(context(alertmanager())).status is Status.SKIP
    assert alerting.test_page(context(alertmanager(*counts), test_page=True)).finding == finding


def test_without_a_receiver_a_test_page_is_for_grafana() -> None:
    result = alerting.test_page(context(alertmanager((0, 0), (0, 0)), test_page=True))
    assert result.status is Status.OK
    assert "Grafana" in result.evidence


def test_every_app_is_walked_and_the_platform_once() -> None:
    """An app that is silent does not keep the others from being looked at."""
    numbers = {f'{METRIC}{{service_name="{SERVICE}"}}': 3.0}
    page = httpx.Response(200, text='prometheus_tsdb_exemplar_max_exemplars{tenant="a"} 100\n')
    answers = {"/api/v1/stores": STORES, "/metrics": page}
    walked = dict(_findings(context(answers, numbers, service="silent"), SERVICE))
    assert [name for name in walked if name.startswith("Query")] == ["Query settings", "Query"]
    assert walked["Metric (silent)"][0] == "app-silent"
    assert walked["Exemplars (silent)"][1] == "needs Metric"
    assert walked[f"Metric ({SERVICE})"][0] is None
    assert walked[f"Exemplars ({SERVICE})"][1] != "needs Metric"


def test_the_apps_are_those_of_the_repository(tmp_path: Path) -> None:
    """All of them, unless one is asked for; and their pods are found by what their folders say."""
    shutil.copytree(ROOT / "terraform" / "environments", tmp_path / "terraform" / "environments")
    for name in ("first", "second"):
        folder = tmp_path / "k8s/helm-charts" / name
        folder.mkdir(parents=True)
        workload = {"namespace": f"{name}-space", "podLabels": {"app": f"{name}-pods"}}
        facts = {"apps": {name: {"workload": name}}, "workloads": {name: workload}}
        (folder / "Chart.yaml").write_text(f"name: {name}\n")
        (folder / "platform.yaml").write_text(json.dumps({"global": {"platform": facts}}))
    options = [f"--repo={tmp_path}", "--query-url=http://127.0.0.1:1", "--json"]
    hops = {hop["hop"] for hop in json.loads(CliRunner().invoke(doctor, options).stdout)["hops"]}
    assert {"Metric (first)", "Metric (second)"} <= hops
    only = json.loads(CliRunner().invoke(doctor, [*options, "--service=second"]).stdout)["hops"]
    assert [hop["hop"] for hop in only if "Metric" in hop["hop"]] == ["Metric"]
    seen = Context(Repository(tmp_path, "local"), service="second")
    assert (seen.namespace, seen.workload["podLabels"]) == ("second-space", {"app": "second-pods"})


def test_without_an_app_the_platform_is_walked_all_the_same() -> None:
    walked = dict(_findings(context({"/api/v1/stores": STORES}, service="")))
    assert "make new-app" in walked["Metric"][1]
    assert walked["Query"][0] is None
