"""The platform's view of itself: the baked `otel-scrape`, and every query of every dashboard in a healthy run.

The scraping collector runs as a process beside the gateway, with static addresses for the DNS names and everything a
second; the long-term parts and the Ruler with its rules run too. Two quiet moments with traffic between them are compared.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.e2e import toolchain
from tests.e2e.datapath import traffic
from tests.e2e.datapath.declared import Declared, NothingReplaced, fill, static_targets
from tests.e2e.datapath.servicegraph import push, series_of
from tests.e2e.datapath.stack import Stack
from tests.e2e.datapath.stores import LogStore, TraceStore
from tests.e2e.datapath.test_slo import rules
from tests.e2e.datapath.wiring import LONG_TERM, SCRAPED, reports_every_second
from tests.e2e.processes import HTTP, wait_until

ITEMS = ("spans", "log_records")
# Counters that do not exist before the first such event: the panel shows 0 meanwhile.
ONLY_AFTER_A_FAILURE = "Failed to send or to queue"
# What the dashboards' variables are set to.
VARIABLES = {"service": "checkout", "route": ".*", "status": ".*", "trace_id": "", "search": ""}
# Jobs of otel-scrape that nothing answers for here, beside stand-ins: no cluster, and Grafana is not built (AGPL).
NOT_HERE = {"grafana", "cert-manager", "argocd-application-controller"}


def every_second(config: dict[str, Any]) -> dict[str, Any]:
    config["receivers"]["prometheus"]["config"]["global"]["scrape_interval"] = "1s"
    return reports_every_second(config)


def evaluates_every_second(arguments: list[str]) -> list[str]:
    return [*(each for each in arguments if not each.startswith("--eval-interval=")), "--eval-interval=1s"]


@dataclass(frozen=True)
class Watched:
    """The stack, and the quiet moments (Unix seconds) before and after its traffic."""

    stack: Stack
    start: float
    end: float
    requests: int

    @property
    def window(self) -> str:
        """The range that holds both moments, as a PromQL duration."""
        return f"{round((self.end - self.start) * 1000) + 1}ms"

    def ask(self, expression: str) -> dict[str, float]:
        """Return what a panel's query shows for the traffic: value by its labels, asked where Grafana asks."""
        filled = fill(expression, self.window, **VARIABLES)
        return {
            ",".join(
                f"{name}={value}" for name, value in sorted(series["metric"].items()) if name != "__name__"
            ): float(series["value"][1] if "value" in series else series["histogram"][1]["count"])
            for series in self.stack.frontend.instant(filled, self.end)
        }

    def lines(self, expression: str) -> list[dict[str, Any]]:
        """Return what Loki answers to a panel's query for the traffic."""
        answer = HTTP.get(
            f"{self.stack.url('loki')}/loki/api/v1/query_range",
            params={
                "query": fill(expression, self.window, **VARIABLES),
                "start": int(self.start * 1e9),
                "end": int(self.end * 1e9),
            },
        )
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"]["result"])

    def panel(self, title: str, ref: str = "A") -> dict[str, float]:
        (expression,) = [t["expr"] for name, t in targets(self.stack.declared) if name == title and t["refId"] == ref]
        return self.ask(expression)


def targets(declared: Declared) -> Iterator[tuple[str, dict[str, Any]]]:
    for uid in declared.dashboards():
        yield from declared.targets(uid)


def quiet(stack: Stack) -> tuple[float, float]:
    """Wait until the collector says that all it took has left it.

    Returns the times (Unix seconds) of the first and the last sample of the report that says so: each has its own.
    """
    since = traffic.settle(stack)

    def all_sent() -> tuple[float, float]:
        times = []
        for items in ITEMS:
            taken, sent = f"otelcol_receiver_accepted_{items}_total", f"otelcol_exporter_sent_{items}_total"
            times += [stack.query.value(f"max(timestamp({each}))") or 0 for each in (taken, sent)]
            counts = [stack.query.value(f"sum({each})") for each in (taken, sent)]
            assert counts[0] == counts[1], f"{counts[0]} {items} accepted, {counts[1]} sent"
            assert counts[0]
        first, last = min(times), max(times)
        assert first > since, f"no report after {since}"
        assert last - first < 0.5, "the samples are of two reports"
        return first, last

    return wait_until(all_sent, "all that was accepted is sent")


@pytest.fixture(scope="module")
def watched(new_stack: Callable[[], Stack]) -> Iterator[Watched]:
    stack = new_stack()
    stack.changes |= {"collector": reports_every_second, "scraper": every_second, "rule": evaluates_every_second}
    rules(stack.declared, stack.data("rules"))
    stack.start_charged().start("alertmanager", "rule", *LONG_TERM, "scraper")
    traffic.warm_up(stack)
    wait_until(lambda: stack.query.stores().keys() >= {"receive", "store", "rule"}, "Query sees every store")
    wait_until(lambda: (stack.query.value("count(up == 1)") or 0) >= len(SCRAPED), "every target is scraped")
    (start, _), told = quiet(stack), len(traffic.requests(stack))
    graph(stack, start)
    load = traffic.load(stack, 12, 8)
    while load.running:  # someone looks at the dashboard meanwhile
        stack.frontend.range("up", start - 60, start, 15)
        stack.frontend.instant("up")
        stack.frontend.exemplars("http_server_request_duration_seconds", start - 60, start)
    assert load.wait_end(60) == 0
    loaded = time.time()
    # The Ruler's ratios are NaN, which the panels leave out, until it has evaluated requests.
    evaluated = "min(timestamp(slo:bad_requests:ratio_rate5m))"
    wait_until(lambda: (stack.query.value(evaluated) or 0) > loaded, "the rules have seen the traffic")
    _, end = quiet(stack)
    graph(stack, end)
    yield Watched(stack, start, end, len(traffic.requests(stack)) - told)
    stack.stop()


def graph(stack: Stack, time: float) -> None:
    """Write the service graph as of ``time``, where no real Tempo does."""
    if isinstance(stack.traces, TraceStore):
        push(stack.url("router", "write") + "/api/v1/receive", series_of(stack.traces), time)


def scraped_jobs(config: dict[str, Any]) -> set[str]:
    return {job["job_name"] for job in config["receivers"]["prometheus"]["config"]["scrape_configs"]}


def test_every_target_is_up(watched: Watched) -> None:
    stack = watched.stack
    without_metrics = {"tempo"} if isinstance(stack.traces, TraceStore) else set()
    without_metrics |= {"loki"} if isinstance(stack.logs, LogStore) else set()
    assert scraped_jobs(stack.declared.scraper()) - scraped_jobs(stack.scraper_config()) == NOT_HERE | without_metrics
    expected = {f"job={job}": 1.0 for job in scraped_jobs(stack.scraper_config())}
    assert watched.panel("Scrape targets up") == expected


def test_a_name_that_no_job_looks_up_fails(declared: Declared) -> None:
    with pytest.raises(NothingReplaced, match="thanos-sidecar"):
        static_targets(declared.scraper(), {"thanos-sidecar.observability.svc.cluster.local:10902": "127.0.0.1:1"})


def test_every_panel_of_every_dashboard_has_data(watched: Watched) -> None:
    """Each query of a healthy run has an answer, which is 0 and not nothing where nothing failed."""
    empty, asked = [], 0
    for uid in watched.stack.declared.dashboards():
        for title, target in watched.stack.declared.targets(uid):
            kind, where = target["datasource"]["type"], f"{uid}: {title} {target['refId']}"
            asked += 1
            if kind == "prometheus" and any(value != value for value in watched.ask(target["expr"]).values()):
                empty.append(f"{where} is NaN")
            if not (watched.ask(target["expr"]) if kind == "prometheus" else watched.lines(target["expr"])):
                empty.append(where)
    assert asked > 55
    assert empty == []


def test_what_nobody_asks_for_any_more_is_never_nan(watched: Watched) -> None:
    """A ratio of no requests is left out: a row or an edge is blank there."""

    def later() -> Watched:
        idle = replace(watched, start=watched.end, end=time.time())
        requests = idle.panel("Routes by failed requests", "B")
        assert requests
        assert set(requests.values()) == {0}
        return idle

    idle = wait_until(later, "a stretch of samples without a request", interval=1)
    graph(watched.stack, idle.end)
    shown = {
        f"{title} {target['refId']}": idle.ask(target["expr"]).values()
        for title, target in targets(watched.stack.declared)
        if target["datasource"]["type"] == "prometheus"
    }
    assert {where for where, values in shown.items() if any(value != value for value in values)} == set()


def test_the_service_graph_counts_each_request_once(watched: Watched) -> None:
    """On the edge, which is the call; a node that only calls, such as `user`, serves 0 requests a second."""
    seconds = watched.end - watched.start + 0.001
    told = traffic.requests(watched.stack)[-watched.requests :]
    charged = [request for request in told if request.route == "/checkout"]
    edges = {"user → checkout": told, "checkout → payment": charged}
    rates, failed = (
        {labels.split("id=")[1].split(",")[0]: value for labels, value in watched.panel("Service graph", ref).items()}
        for ref in "AC"
    )
    assert {edge: rate * seconds for edge, rate in rates.items()} == pytest.approx(
        {edge: len(requests) for edge, requests in edges.items()}, rel=0.01
    )
    assert failed == pytest.approx(
        {edge: sum(not request.ok for request in requests) / len(requests) for edge, requests in edges.items()},
        rel=0.01,
    )


def test_panels_of_failures_show_zero(watched: Watched) -> None:
    exporters = {f"exporter={name}" for name in watched.stack.declared.collector()["exporters"]}
    for ref in "AB":
        shown = watched.panel(ONLY_AFTER_A_FAILURE, ref)
        assert shown.keys() >= exporters
        assert set(shown.values()) == {0}
    assert set(watched.panel("Refused at the door").values()) == {0}


def test_counters_of_failures_are_the_collectors_own(watched: Watched) -> None:
    """What a healthy run cannot show: the program at least has counters of these names."""
    declared = watched.stack.declared
    program = toolchain.collector(declared.collector(), declared.scraper()).read_bytes()
    names = {
        name
        for title, target in targets(declared)
        if title == ONLY_AFTER_A_FAILURE
        for name in re.findall(r"otelcol_\w+_failed_\w+", target["expr"])
    }
    assert len(names) == 6
    assert [name for name in names if name.removesuffix("_total").encode() not in program] == []


def test_what_is_accepted_is_sent(watched: Watched) -> None:
    seconds = watched.end - watched.start + 0.001
    for ref, exporter in (("A", "otlp_grpc/tempo"), ("C", "otlp_http/loki")):
        (rate,) = watched.panel("Accepted", ref).values()
        assert watched.panel("Sent", ref) == {f"exporter={exporter}": pytest.approx(rate, rel=1e-3)}
        assert rate * seconds >= watched.requests
    # Scraped points go through both collectors. Their own reports and scrapes are always under way.
    accepted, sent = watched.panel("Accepted", "B"), watched.panel("Sent", "B")
    assert sent == {
        "exporter=otlp_grpc/gateway": pytest.approx(accepted["receiver=prometheus"], rel=0.3),
        "exporter=otlp_http/thanos": pytest.approx(accepted["receiver=otlp"], rel=0.3),
    }
    taken = accepted["receiver=otlp"] + sum(sum(watched.panel("Accepted", ref).values()) for ref in "AC")
    assert watched.panel("Items in")[""] == pytest.approx(taken, rel=1e-6)
    assert watched.panel("Items refused") == watched.panel("Items lost") == {"": 0}


def test_queues_are_shares_of_the_baked_capacity(watched: Watched) -> None:
    exporters = watched.stack.declared.collector()["exporters"]
    for name, each in exporters.items():
        capacity = watched.ask(f'max(otelcol_exporter_queue_capacity{{exporter="{name}"}})')
        assert capacity == {"": each["sending_queue"]["queue_size"]}
    shown = watched.panel("Queues, share of capacity")
    # The scraping collector has a queue of its own, in memory.
    assert shown.keys() == {f"exporter={name}" for name in [*exporters, "otlp_grpc/gateway"]}
    assert all(0 <= share < 0.5 for share in shown.values())
    assert watched.panel("Fullest queue")[""] == pytest.approx(max(shown.values()), abs=0.01)


def test_exemplars_have_the_room_of_the_flag(watched: Watched) -> None:
    (flag,) = [a for a in watched.stack.declared.thanos("ingestor") if a.startswith("--tsdb.max-exemplars=")]
    ingestor = f"instance={watched.stack.address('ingestor')}"
    assert watched.panel("Exemplars stored and room for them", "B") == {ingestor: float(flag.split("=")[1])}
    stored = watched.panel("Exemplars stored and room for them", "A")[ingestor]
    assert stored >= 10
    assert watched.panel("Exemplar buffer")[""] == stored / float(flag.split("=")[1])
    assert watched.panel("Exemplars appended and refused", "A")[ingestor] > 0
    assert 0 < watched.panel("How far back exemplars reach")[ingestor] < 600


def test_receive_shows_its_samples_and_answers(watched: Watched) -> None:
    assert watched.panel("Samples received").keys() == {"code=200"}
    assert watched.panel("Write requests").keys() == {
        f"code=200,handler={handler}"
        for handler in ("otlp", "receive")  # the service graph comes by remote write
    }
    assert watched.panel("Forwarding between router and ingestors", "A")["result=success"] > 0
    assert watched.panel("Series in the head")[""] >= 100
    for title, handlers in (("Write latency", ["otlp"]), ("Query latency", ["query", "query_range", "exemplars"])):
        median, slowest = watched.panel(title, "A"), watched.panel(title, "B")
        for handler in handlers:
            assert 0 < median[f"handler={handler}"] <= slowest[f"handler={handler}"] < 60


def test_query_shows_its_stores_and_questions(watched: Watched) -> None:
    assert watched.panel("Stores connected to Query") == {
        f"store_type={kind}": 1 for kind in ("receive", "rule", "store")
    }
    asked = {tuple(key.split(",")) for key, rate in watched.panel("Queries").items() if rate > 0}
    assert {handler.removeprefix("handler=") for _, handler in asked} >= {"query", "query_range", "exemplars"}


def test_memory_and_cpu_are_those_of_two_collectors(watched: Watched) -> None:
    memory, cpu = watched.panel("Memory"), watched.panel("CPU")
    assert len(memory) == 2
    assert memory.keys() == cpu.keys()
    assert all(10e6 < size < 2e9 for size in memory.values())
    assert all(0 < cores < 4 for cores in cpu.values())


def test_long_term_is_at_work(watched: Watched) -> None:
    title = "Compactor: work left and halted"
    assert [watched.panel(title, ref)[""] for ref in "ABC"] == [0, 0, 0]
    done, failed = (watched.panel("Object store operations and failures", ref) for ref in "AB")
    assert done.keys() == failed.keys() >= {f"operation={name}" for name in ("exists", "get", "iter", "upload")}
    assert sum(failed.values()) == 0
