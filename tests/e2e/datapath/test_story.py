"""The story on real parts: a spike on the dashboard → its exemplar → that trace → that request's log line.

One run with a normal and a peak phase, between which everything stands still, is compared with the simulator's own
record: its log lines. Queries are those of the baked dashboards with Grafana's variables filled in.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.e2e.datapath import traffic
from tests.e2e.datapath.declared import fill
from tests.e2e.datapath.query import Exemplar, Series
from tests.e2e.datapath.served import Request
from tests.e2e.datapath.stack import Stack
from tests.e2e.datapath.stores import TraceStore
from tests.e2e.datapath.trace import Span, trace
from tests.e2e.processes import HTTP, wait_until

RED = "checkout-red"
# Between the simulator's own clock around a checkout and the SDK's around the whole request.
OVERHEAD_MS = 5


@pytest.fixture(scope="module")
def stack(new_stack: Callable[[], Stack]) -> Iterator[Stack]:
    """The platform's two services: a checkout, and the payment behind it."""
    running = new_stack().start_charged()
    traffic.warm_up(running)
    yield running
    running.stop()


@dataclass(frozen=True)
class Phase:
    """A stretch of traffic between two quiet samples."""

    mode: str
    start: float
    end: float
    requests: list[Request]

    @property
    def window(self) -> str:
        """The PromQL range that begins just before the first sample and ends at the last: rate() then extrapolates by 1 ms."""
        return f"{round((self.end - self.start) * 1000) + 1}ms"

    @property
    def seconds(self) -> float:
        return self.end - self.start + 0.001

    def of(self, route: str) -> list[Request]:
        return [request for request in self.requests if route in (".*", request.route)]


@dataclass(frozen=True)
class Story:
    stack: Stack
    phases: dict[str, Phase]

    def panel(
        self,
        title: str,
        phase: Phase,
        route: str = "/checkout",
        ref: str = "A",
        status: str = ".*",
        service: str = "checkout",
    ) -> list[Series]:
        """Return what a panel of the RED dashboard shows at the end of a phase, asked where Grafana asks."""
        expressions = [t["expr"] for name, t in self.stack.declared.targets(RED) if name == title and t["refId"] == ref]
        assert len(expressions) == 1, f"{len(expressions)} queries {ref} in a panel named {title!r}"
        filled = fill(expressions[0], phase.window, service=service, route=route, status=status)
        return self.stack.frontend.instant(filled, phase.end)

    def number(self, title: str, phase: Phase, **more: str) -> float:
        result = self.panel(title, phase, **more)
        assert len(result) == 1, f"{title}: {len(result)} series"
        return float(result[0]["value"][1])


def spread(stack: Stack) -> None:
    """Send requests until the durations of every series are a factor of 2 apart, so that the SDK's scale is 7 or less.

    Scales above 8, which only a few alike durations have, Receive 0.42.4 must merge, and may put a count one bucket too low
    (convertBucketsLayout). The next sample, at a scale that fits, then looks like a counter reset to rate().
    """

    def spreads() -> bool:
        traffic.checkouts(stack, 16)
        durations: dict[tuple[str, bool], list[float]] = defaultdict(list)
        for request in traffic.requests(stack):
            durations[request.route, request.ok].append(request.duration_ms)
        return all(max(values) >= 2 * min(values) for values in durations.values())

    traffic.checkouts(stack, 2, "/unstable?delay_ms=200")
    wait_until(spreads, "durations of every series are a factor of 2 apart", timeout=120)


@pytest.fixture(scope="module")
def story(stack: Stack) -> Story:
    spread(stack)
    phases, start, told = {}, traffic.settle(stack), len(traffic.requests(stack))
    for mode, users, seconds in (("normal", 12, 10), ("peak", 24, 10)):
        traffic.wait_mode(stack, mode, seconds + 2.5)
        assert traffic.load(stack, users, seconds).wait_end(60) == 0
        end, requests = traffic.settle(stack), traffic.requests(stack)
        phases[mode] = Phase(mode, start, end, requests[told:])
        start, told = end, len(requests)
    return Story(stack, phases)


@pytest.fixture(params=["normal", "peak"])
def phase(story: Story, request: pytest.FixtureRequest) -> Phase:
    return story.phases[request.param]


def test_each_phase_is_of_its_mode(phase: Phase) -> None:
    modes = Counter(request.mode for request in phase.of("/checkout"))
    assert set(modes) == {phase.mode}
    assert modes[phase.mode] >= 40
    assert phase.of("/unstable"), "the load profile has /unstable too"


@pytest.mark.parametrize("route", ["/checkout", "/unstable", ".*"])
def test_request_count_is_exact(story: Story, phase: Phase, route: str) -> None:
    counted = story.number("Request rate", phase, route=route) * phase.seconds
    assert counted == pytest.approx(len(phase.of(route)), rel=1e-3)
    assert round(counted) == len(phase.of(route))


def test_request_count_by_status_is_exact(story: Story, phase: Phase) -> None:
    shown = {
        (series["metric"]["http_route"], series["metric"]["http_response_status_code"]): round(
            float(series["value"][1]) * phase.seconds
        )
        for series in story.panel("Requests by route and status", phase, route=".*")
    }
    told = Counter((request.route, "200" if request.ok else "500") for request in phase.requests)
    assert {key: count for key, count in shown.items() if count} == told


def test_requests_since_start_are_exact(story: Story) -> None:
    last = story.phases["peak"]
    shown = {
        series["metric"]["http_response_status_code"]: float(series["value"][1])
        for series in story.panel("Requests since start, by status", last, route=".*")
    }
    everything = traffic.requests(story.stack)
    told = Counter("200" if request.ok else "500" for request in everything[: everything.index(last.requests[-1]) + 1])
    assert shown == told


@pytest.mark.parametrize("route", ["/checkout", ".*"])
def test_error_ratio_is_exact(story: Story, phase: Phase, route: str) -> None:
    told = phase.of(route)
    assert story.number("Error ratio", phase, route=route) == pytest.approx(
        sum(not request.ok for request in told) / len(told), rel=1e-9
    )


@pytest.mark.parametrize(("ref", "quantile"), [("A", 0.5), ("B", 0.95)])
def test_percentiles_are_within_the_stated_error(story: Story, phase: Phase, ref: str, quantile: float) -> None:
    shown = story.number("Duration percentiles", phase, ref=ref)
    durations = sorted(request.duration_ms / 1000 for request in phase.of("/checkout"))
    told = durations[math.ceil(quantile * len(durations)) - 1]
    (heatmap,) = story.panel("Duration heatmap with exemplars", phase)
    buckets = [(float(low), float(high)) for _, low, high, _ in heatmap["histogram"][1]["buckets"]]
    # A native histogram states its own error: the width of the bucket that the quantile falls into.
    (error,) = {high / low - 1 for low, high in buckets if low < shown <= high}
    assert error < 0.1, f"buckets are {error:.1%} wide"
    assert shown == pytest.approx(told, abs=told * error + OVERHEAD_MS / 1000)


def test_slow_share_tells_the_modes_apart(story: Story, phase: Phase) -> None:
    assert story.number("Slower than 1 s", phase) == pytest.approx({"normal": 0, "peak": 1}[phase.mode], abs=1e-9)


def marks(stack: Stack, start: float, end: float, step: float) -> list[float]:
    """Return the times at which Grafana draws the peak mark of the RED dashboard."""
    (mark,) = [each for each in stack.declared.dashboard(RED)["annotations"]["list"] if each["name"] == "Peak"]
    assert mark["expr"] == mark["target"]["expr"]
    query = fill(mark["expr"], f"{step:g}s", service="checkout", route=".*")
    # Query Frontend moves the start to a multiple of the step, which is before it.
    return [
        at
        for series in stack.frontend.range(query, start, end, step)
        for at, value in series["values"]
        if at >= start and float(value) > 0
    ]


# Grafana asks for as many points as the window has pixels: at 1,600 of them 15 minutes, 6 hours and 2 days are the
# first three.
@pytest.mark.parametrize("step", [5, 15, 120, 10, 60])
def test_a_peak_has_one_mark_at_any_step(story: Story, step: float) -> None:
    normal, peak = story.phases["normal"], story.phases["peak"]
    sees = step + 20  # seconds that a mark looks back over: its step, and the window of its rates
    marked = marks(story.stack, normal.start, peak.end + sees, step)
    begin = min(request_start(story, request) for request in peak.requests if request.mode == "peak")
    # What is marked before the peak sees the peaks in which the stack warmed up; normal mode alone marks nothing.
    assert [at for at in marked if normal.start + sees <= at < begin] == []
    band = [at for at in marked if at >= begin]
    assert band[0] <= peak.end + step
    # Grafana joins what a step parts.
    assert {after - before for before, after in pairwise(band)} <= {step}
    assert band[-1] <= peak.end + sees


def request_start(story: Story, request: Request) -> float:
    """Return when a request began, in Unix seconds."""
    return trace(story.stack, request.trace_id)[request.span_id].start / 1e9


def test_the_search_for_failed_or_slow_traces_finds_the_spike(story: Story) -> None:
    """By the query of the dashboard's link: of what failed or was slow the newest, which is the peak; not any 20."""
    (link,) = [
        each for each in story.stack.declared.dashboard(RED)["links"] if each["title"] == "Failed or slow traces"
    ]
    panes = json.loads(parse_qs(urlsplit(link["url"]).query)["panes"][0])
    (query,) = panes["traces"]["queries"]
    asked = query["query"].replace("${service:raw}", "checkout")

    def ids(q: str) -> set[str]:
        answer = HTTP.get(f"{story.stack.url('tempo')}/api/search", params={"q": q, "limit": query["limit"]})
        assert answer.status_code == 200, answer.text
        return {each["traceID"].zfill(32) for each in answer.json()["traces"]}

    bad = [request for request in traffic.requests(story.stack) if not request.ok or request.duration_ms > 1000]
    newest = sorted(bad, key=lambda request: request_start(story, request))[-query["limit"] :]
    spike = {request.trace_id for request in story.phases["peak"].requests}
    assert ids(asked) == {request.trace_id for request in newest}
    assert ids(asked) <= spike
    if isinstance(story.stack.traces, TraceStore):  # Tempo itself may be lucky
        assert not ids(asked.removesuffix(" with (most_recent=true)")) <= spike


def exemplars(story: Story, phase: Phase) -> Iterator[tuple[str, Exemplar]]:
    """Yield every exemplar that the dashboard's exemplar queries get for a phase, with its panel's title."""
    asked = 0
    for title, target in story.stack.declared.targets(RED):
        if target.get("exemplar"):
            asked += 1
            query = fill(target["expr"], phase.window, service="checkout", route=".*", status=".*")
            for exemplar in story.stack.frontend.exemplars(query, phase.start, phase.end):
                yield title, exemplar
    assert asked, "no panel of the RED dashboard asks for exemplars"


def test_no_exemplar_dangles(story: Story, phase: Phase) -> None:
    shown = list(exemplars(story, phase))
    panels = Counter(title for title, _ in shown)
    assert len(panels) >= 2
    assert min(panels.values()) >= 20, panels
    told = {request.trace_id: request for request in phase.requests}
    for title, exemplar in shown:
        where = f"{title}: {exemplar}"
        assert exemplar.trace_id in told, f"not a request of this phase: {where}"
        span = trace(story.stack, exemplar.trace_id)[exemplar.span_id]
        assert span.kind == "SPAN_KIND_SERVER", where
        assert span.attributes["http.route"] == exemplar.series["http_route"], where
        assert span.resource["service.name"] == exemplar.series["service_name"], where
        assert str(span.attributes["http.response.status_code"]) == exemplar.series["http_response_status_code"], where
        assert exemplar.seconds == pytest.approx(span.seconds, abs=0.005), where
        assert span.attributes["checkout.mode"] == told[exemplar.trace_id].mode, where
        if exemplar.series["http_route"] == "/checkout":
            assert span.attributes["checkout.mode"] == phase.mode, where


def test_peak_exemplars_come_from_peak_requests(story: Story) -> None:
    slowest = {
        mode: max(
            (e for _, e in exemplars(story, phase) if e.series["http_route"] == "/checkout"), key=lambda e: e.seconds
        )
        for mode, phase in story.phases.items()
    }
    assert slowest["peak"].seconds >= 1.8 > 0.5 > slowest["normal"].seconds
    assert trace(story.stack, slowest["peak"].trace_id)[slowest["peak"].span_id].attributes["checkout.mode"] == "peak"


def test_the_trace_tells_what_happened(story: Story, phase: Phase) -> None:
    told = {request.trace_id: request for request in phase.requests}
    outcomes: set[bool] = set()
    for trace_id in {e.trace_id for _, e in exemplars(story, phase) if e.series["http_route"] == "/checkout"}:
        request, spans = told[trace_id], trace(story.stack, trace_id)
        server = spans[request.span_id]
        children = sorted((span for span in spans.values() if span.parent == server.id), key=lambda span: span.start)
        assert [child.name for child in children] == CHECKOUT_STEPS
        assert server.attributes["checkout.outcome"] == ("success" if request.ok else "failure")
        assert server.attributes["checkout.duration_ms"] == pytest.approx(request.duration_ms, abs=0.01)
        assert all(child.start >= server.start and child.end <= server.end for child in children)
        assert [event["log.message"] for event in server.events("log")] == [request.line]
        failing = children[-1]
        assert (failing.status == "STATUS_CODE_ERROR") == (server.status == "STATUS_CODE_ERROR") == (not request.ok)
        assert len(failing.events("exception")) == (not request.ok)
        assert all(child.events(f"{child.name} done") for child in (children if request.ok else children[:-1]))
        if not request.ok:
            assert str(failing.events("exception")[0]["exception.type"]).endswith("SimulatedError")
        outcomes.add(request.ok)
    # In normal mode few requests fail, and in some phases none.
    assert outcomes == {request.ok for request in phase.of("/checkout")}
    assert phase.mode == "normal" or outcomes == {True, False}


CHECKOUT_STEPS = ["validate cart", "reserve stock", "charge payment"]


def test_the_trace_goes_on_in_the_payment(story: Story, phase: Phase) -> None:
    """From the exemplar to a second service: seven spans, and a line of each service with that trace id."""
    charges = {request.trace_id: request for request in traffic.requests(story.stack, "payment")}
    told = {request.trace_id: request for request in phase.of("/checkout")}
    found = {e.trace_id for _, e in exemplars(story, phase)} & told.keys()
    assert len(found) >= 20
    for trace_id in found:
        spans = trace(story.stack, trace_id)
        server = spans[charges[trace_id].span_id]
        assert server.kind == "SPAN_KIND_SERVER"
        assert server.attributes["http.route"] == "/charge"
        call = spans[server.parent]
        assert call.kind == "SPAN_KIND_CLIENT"
        assert spans[call.parent].name == "charge payment"
        by_service = Counter(str(span.resource["service.name"]) for span in spans.values())
        assert by_service == {"checkout": 5, "payment": 2}
        assert charges[trace_id].ok == told[trace_id].ok
        assert (server.status == "STATUS_CODE_ERROR") == (not charges[trace_id].ok)
        for service, request in (("checkout", told[trace_id]), ("payment", charges[trace_id])):
            query = f'{{service_name="{service}"}} | trace_id = "{trace_id}"'
            assert lines(story, query, phase) == [request.line]


def lines(story: Story, query: str, phase: Phase) -> list[str]:
    """Return the lines that the log store has for a query."""
    answer = HTTP.get(
        f"{story.stack.url('loki')}/loki/api/v1/query_range",
        params={"query": query, "start": int((phase.start - 60) * 1e9), "end": int(time.time() * 1e9)},
    )
    assert answer.status_code == 200, answer.text
    return [line for stream in answer.json()["data"]["result"] for _, line in stream["values"]]


def test_every_checkout_is_charged_once(story: Story, phase: Phase) -> None:
    """By the payment's log; its own metric counts what that tells, and its service is a choice of the dashboard."""
    charges = Counter(request.trace_id for request in traffic.requests(story.stack, "payment"))
    assert {charges[request.trace_id] for request in phase.of("/checkout")} == {1}
    assert story.number("Request rate", phase, service="payment", route="/charge") > 0
    (variable,) = (v for v in story.stack.declared.dashboard(RED)["templating"]["list"] if v["name"] == "service")
    assert variable["query"]["query"] == "label_values(http_server_request_duration_seconds, service_name)"
    services = story.stack.query.instant("count by (service_name) (http_server_request_duration_seconds)")
    assert {series["metric"]["service_name"] for series in services} == {"checkout", "payment"}


def test_the_log_store_has_exactly_that_line(story: Story, phase: Phase) -> None:
    (query,) = [t["expr"] for title, t in story.stack.declared.targets("checkout-logs") if title == "Lines"]
    told = {request.trace_id: request for request in phase.requests}
    for trace_id in {exemplar.trace_id for _, exemplar in exemplars(story, phase)}:
        for asked in (
            fill(query, phase.window, service="checkout", trace_id=trace_id, search=""),
            f'{{service_name="checkout"}} | trace_id = "{trace_id}"',
        ):
            answer = HTTP.get(
                f"{story.stack.url('loki')}/loki/api/v1/query_range",
                params={"query": asked, "start": int((phase.start - 60) * 1e9), "end": int(time.time() * 1e9)},
            )
            assert answer.status_code == 200, answer.text
            streams = answer.json()["data"]["result"]
            assert [line for stream in streams for _, line in stream["values"]] == [told[trace_id].line]
            assert streams[0]["stream"]["span_id"] == told[trace_id].span_id


def test_a_pod_sends_the_series_of_its_requests_alone(story: Story) -> None:
    """The operator's image would instrument the host too: 169 series a pod of what nobody asks for."""
    vector = story.stack.query.instant('count by (__name__) ({service_name="checkout"})')
    names = {series["metric"]["__name__"] for series in vector}
    served = {"http_server_request_duration_seconds", "http_server_active_requests"}
    # The call of the payment, by the instrumentation of urllib.
    called = {"request_duration_seconds", "request_body_size_bytes", "response_body_size_bytes"}
    assert names == {*served, *(f"http_client_{name}" for name in called)}


def test_an_unknown_trace_is_not_found(stack: Stack) -> None:
    with pytest.raises(KeyError):
        trace(stack, "0123456789abcdef" * 2)


def test_without_the_exemplar_flag_there_are_none(story: Story) -> None:
    """The negative control: the same stack without that one flag counts everything and has no exemplar, and says nothing."""

    def without(arguments: list[str]) -> list[str]:
        kept = [argument for argument in arguments if not argument.startswith("--tsdb.max-exemplars")]
        assert len(kept) == len(arguments) - 1, "the baked ingestor has no --tsdb.max-exemplars"
        return kept

    stack, since = story.stack, time.time()
    with stack.changed("ingestor", without):
        traffic.checkouts(stack, 16)
        traffic.settle(stack)
        assert stack.query.exemplars("http_server_request_duration_seconds", since - 600, time.time()) == []
    traffic.checkouts(stack, 16)
    traffic.settle(stack)
    assert stack.query.exemplars("http_server_request_duration_seconds", since, time.time())


def test_trace_ids_of_answers_are_those_of_their_traces(stack: Stack) -> None:
    answer = traffic.get(stack)
    traffic.settle(stack)
    assert answer.headers["X-Trace-Id"] == answer.json()["trace_id"] == traffic.requests(stack)[-1].trace_id
    spans: dict[str, Span] = trace(stack, answer.headers["X-Trace-Id"])
    assert any(span.kind == "SPAN_KIND_SERVER" for span in spans.values())
