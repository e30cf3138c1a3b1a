"""A baked platform's data path, run as processes on loopback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.e2e import toolchain
from tests.e2e.datapath.backends import Loki, Tempo
from tests.e2e.datapath.declared import NAMESPACE, Declared, replace_flags, static_targets, substitute
from tests.e2e.datapath.query import Thanos
from tests.e2e.datapath.stores import LogStore, TraceLimits, TraceStore
from tests.e2e.processes import HTTP, LOOPBACK, NotReady, Process, Processes, free_port, wait_until

CORE = ("ingestor", "router", "query", "query-frontend", "collector", "app")
LONG_TERM = ("store-gateway", "compact")
THANOS = ("ingestor", "router", "query", "query-frontend", "store-gateway", "compact", "rule")
# The Services (without -headless) that the scraping collector looks up and a part answers for.
SCRAPED = {
    "thanos-receive-router": "router",
    "thanos-receive-ingestor": "ingestor",
    "thanos-query": "query",
    "thanos-query-frontend": "query-frontend",
    "thanos-rule": "rule",
    "thanos-store-gateway": "store-gateway",
    "thanos-compact": "compact",
    "alertmanager": "alertmanager",
}
ALERTMANAGER = f"alertmanager-headless.{NAMESPACE}.svc.cluster.local"

# An ingestor that starts in the minute in which it prunes (every fourth hour) may end with a panic in this function, until
# the minute is over (thanos-io/thanos#8990, not in 0.42.4). It is started again, as the kubelet does.
PRUNING, PRUNING_SECONDS = "shouldBeMarkedInactive", 90

# The simulator's schedule and the SDK's delays, compressed; everything else is as baked.
COMPRESSED = {
    "CHECKOUT_PEAK_LENGTH_S": "14",
    "CHECKOUT_PEAK_GAP_MIN_S": "34",
    "CHECKOUT_PEAK_GAP_MAX_S": "38",
    "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    "OTEL_BSP_SCHEDULE_DELAY": "500",
    "OTEL_BLRP_SCHEDULE_DELAY": "500",
}

ACTIVE = 'http_server_active_requests{service_name="checkout"}'
SERVED = 'http_server_request_duration_seconds{service_name="checkout",http_response_status_code=~"200|500"}'

Change = Callable[[object], object]


def unchanged(given: object) -> object:
    """Return what is given."""
    return given


def reports_every_second(config: dict[str, Any]) -> dict[str, Any]:
    """Return a collector's configuration with its own metrics pushed every second instead of every ten."""
    (reader,) = config["service"]["telemetry"]["metrics"]["readers"]
    assert reader["periodic"]["interval"] == 10_000
    reader["periodic"]["interval"] = 1000
    return config


@dataclass(frozen=True)
class Request:
    """One request by the simulator's own record: its log line."""

    trace_id: str
    span_id: str
    mode: str  # normal, peak or unstable
    ok: bool
    duration_ms: float
    line: str

    @property
    def route(self) -> str:
        return "/unstable" if self.mode == "unstable" else "/checkout"


_LINE = re.compile(
    r"trace_id=(?P<trace>[0-9a-f]{32}) span_id=(?P<span>[0-9a-f]{16}).*?"
    r"(?P<line>\[(?P<mode>NORMAL MODE|PEAK MODE|UNSTABLE)\] (?:Checkout|Request) "
    r"(?P<outcome>SUCCESS|FAILED \(Simulated Error\)) after (?P<ms>[\d.]+)ms)$",
    re.M,
)


def requests_in(log: str) -> list[Request]:
    """Return the requests that a simulator's log tells of, in order of their end."""
    return [
        Request(
            found["trace"],
            found["span"],
            found["mode"].split()[0].lower(),
            found["outcome"] == "SUCCESS",
            float(found["ms"]),
            found["line"],
        )
        for found in _LINE.finditer(log)
    ]


@dataclass
class Stack:
    """Starts and stops the parts of ``declared`` below ``folder``; each part can be started with a change.

    A change takes what the part is started with and returns it changed: for ``collector`` and ``scraper`` their
    configuration, likewise for ``alertmanager``, for ``app`` its environment, for a Thanos program its arguments.
    """

    declared: Declared
    processes: Processes
    folder: Path
    parts: dict[str, Process] = field(default_factory=dict)
    changes: dict[str, Change] = field(default_factory=dict)
    traces: TraceStore | Tempo = field(default_factory=TraceStore)
    logs: LogStore | Loki = field(default_factory=LogStore)
    thanos_environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ports: dict[tuple[str, str], int] = {}
        (self.folder / "bucket").mkdir(parents=True, exist_ok=True)

    # Where things are.

    def address(self, part: str, port: str = "http") -> str:
        """Return host:port of a part's ``http``, ``grpc``, ``write``, ``otlp-http`` or ``otlp-grpc`` port."""
        key = (part, port)
        if key not in self._ports:
            self._ports[key] = free_port()
        return f"{LOOPBACK}:{self._ports[key]}"

    def url(self, part: str, port: str = "http") -> str:
        """Return ``http://host:port`` of a part; ``tempo`` and ``loki`` are the stores."""
        if part in ("tempo", "loki"):
            return (self.traces if part == "tempo" else self.logs).url
        return f"http://{self.address(part, port)}"

    @property
    def query(self) -> Thanos:
        """Thanos Query."""
        return Thanos(self.url("query"))

    @property
    def frontend(self) -> Thanos:
        """Thanos Query Frontend: what Grafana asks."""
        return Thanos(self.url("query-frontend"))

    # What the parts are started with.

    def data(self, part: str) -> Path:
        """Return a part's own folder."""
        path = self.folder / part
        path.mkdir(parents=True, exist_ok=True)
        return path

    @cached_property
    def objstore(self) -> Path:
        """The configuration of the bucket: a folder."""
        path = self.folder / "objstore.yaml"
        path.write_text(yaml.safe_dump({"type": "FILESYSTEM", "config": {"directory": str(self.folder / "bucket")}}))
        return path

    def collector_config(self) -> dict[str, Any]:
        """Return the baked configuration with endpoints and the queue's folder replaced.

        Raises:
            NothingReplaced: the baked file has none of one of the endpoints.
        """
        inside = f"{NAMESPACE}.svc.cluster.local"
        config = substitute(
            self.declared.collector(),
            {
                "0.0.0.0:13133": self.address("collector"),
                "0.0.0.0:4317": self.address("collector", "otlp-grpc"),
                "0.0.0.0:4318": self.address("collector", "otlp-http"),
                "localhost:4318": self.address("collector", "otlp-http"),
                "/var/lib/otelcol": str(self.data("collector")),
                f"thanos-receive-router.{inside}:19291": self.address("router", "write"),
                f"tempo.{inside}:4317": f"{LOOPBACK}:{self.traces.grpc_port}",
                f"loki.{inside}:3100": f"{LOOPBACK}:{self.logs.port}",
            },
        )
        assert "svc.cluster.local" not in json.dumps(config), (
            "an endpoint of the cluster is left in the collector's configuration"
        )
        return config

    def scraper_config(self) -> dict[str, Any]:
        """Return the baked configuration of ``otel-scrape`` with addresses replaced, and static targets for DNS names.

        Raises:
            NothingReplaced: the baked file has none of one of the addresses.
        """
        inside = f"{NAMESPACE}.svc.cluster.local"
        ports = {"alertmanager": 9093}
        targets = {
            f"{name}-headless.{inside}:{ports.get(name, 10902)}": self.address(part) for name, part in SCRAPED.items()
        }
        for name, port, store in (("tempo", 3200, self.traces), ("loki-headless", 3100, self.logs)):
            if not isinstance(store, TraceStore | LogStore):  # the stand-ins have no metrics
                targets[f"{name}.{inside}:{port}"] = f"{LOOPBACK}:{store.port}"
        config = substitute(
            static_targets(self.declared.scraper(), targets),
            {
                "0.0.0.0:13133": self.address("scraper"),
                f"otel-collector.{inside}:4317": self.address("collector", "otlp-grpc"),
                f"otel-collector.{inside}:4318": self.address("collector", "otlp-http"),
            },
        )
        assert "svc.cluster.local" not in json.dumps(config), (
            "an address of the cluster is left in the scraping collector's configuration"
        )
        return config

    def thanos_arguments(self, part: str) -> list[str]:
        """Return the baked arguments of a Thanos program with addresses and paths replaced, one ingestor and one replica."""
        table: dict[str, str | list[str]] = {"--http-address": self.address(part)}
        if part != "query-frontend" and part != "compact":
            table["--grpc-address"] = self.address(part, "grpc")
        if part in ("ingestor", "router"):
            table["--remote-write.address"] = self.address(part, "write")
        if part == "ingestor":
            table |= {
                "--tsdb.path": str(self.data(part)),
                "--objstore.config-file": str(self.objstore),
                "--receive.local-endpoint": self.address(part, "grpc"),
            }
        elif part == "router":
            hashrings = self.folder / "hashrings.json"
            hashrings.write_text(json.dumps([{"hashring": "default", "endpoints": [self.address("ingestor", "grpc")]}]))
            table |= {"--receive.hashrings-file": str(hashrings), "--receive.replication-factor": "1"}
        elif part == "query":
            lookup = "dnssrv+_grpc._tcp.thanos-{}-headless.observability.svc.cluster.local"
            names = {"ingestor": "receive-ingestor", "store-gateway": "store-gateway", "rule": "rule"}
            addresses = {lookup.format(name): self.address(each, "grpc") for each, name in names.items()}
            endpoints = self.folder / "endpoints.yaml"
            endpoints.write_text(yaml.safe_dump(substitute(self.declared.query_endpoints(), addresses)))
            table["--endpoint.sd-config-file"] = str(endpoints)
        elif part == "query-frontend":
            table["--query-frontend.downstream-url"] = self.url("query")
        else:
            table |= {"--data-dir": str(self.data(part)), "--objstore.config-file": str(self.objstore)}
            if part == "rule":
                managers = self.folder / "alertmanagers.yaml"
                managers.write_text(
                    substitute(
                        self.declared.values("thanos-ruler")["thanos"]["rule"]["alertmanagersConfig"]["value"],
                        {f"dnssrv+_http._tcp.{ALERTMANAGER}": self.address("alertmanager")},
                    )
                )
                nowhere = self.folder / "no-objstore.yaml"
                nowhere.touch()
                table |= {
                    "--objstore.config-file": str(nowhere),
                    "--query": self.address("query"),
                    "--rule-file": str(self.data("rules") / "*.yaml"),
                    "--alertmanagers.config-file": str(managers),
                }
        arguments = replace_flags(self.declared.thanos(part), table)
        if part in ("ingestor", "router"):  # a default port that two processes on one host cannot share
            arguments.append(f"--receive.capnproto-address={self.address(part, 'capnproto')}")
        return [argument.replace("$(NAME)", f"thanos-{part}-0") for argument in arguments]

    def alertmanager_config(self) -> dict[str, Any]:
        """Return Alertmanager's baked configuration, and write the templates that it names."""
        baked = self.declared.values("alertmanager")["alertmanager"]
        for name, text in baked["templates"].items():
            (self.data("alertmanager") / name).write_text(text)
        return substitute(
            {**baked["config"]},
            {"/etc/alertmanager/": f"{self.data('alertmanager')}/"},
        )

    def baked_environment(self) -> dict[str, str]:
        """Return the environment that the Instrumentation resource gives an app, sending to our collector."""
        return substitute(
            self.declared.sdk_environment(),
            {f"otel-collector.{NAMESPACE}.svc.cluster.local:4318": self.address("collector", "otlp-http")},
        )

    def app_environment(self) -> dict[str, str]:
        """Return the environment of the simulator: as baked, but compressed."""
        return (
            self.baked_environment()
            | COMPRESSED
            | {
                "OTEL_SERVICE_NAME": "checkout",
                "OTEL_RESOURCE_ATTRIBUTES": "k8s.namespace.name=checkout,service.instance.id=checkout.flask-app-0.flask-app",
                "PORT": self.address("app").rsplit(":", 1)[1],
                "PYTHONUNBUFFERED": "1",
            }
        )

    # Start, stop, change.

    def start(self, *names: str) -> Stack:
        """Start parts in the order given (default: stores and ``CORE``) and wait until each is ready."""
        if not names:
            if isinstance(self.traces, TraceStore):
                self.traces.limits = TraceLimits(**self.declared.trace_limits())
            self.traces.start()
            self.logs.start()
        for name in names or CORE:
            self._start(name)
        if not names:
            self.wait_connected()
        return self

    def _start(self, name: str) -> None:
        change = self.changes.get(name, unchanged)
        if name in ("collector", "scraper"):
            binary = toolchain.collector(self.declared.collector(), self.declared.scraper())
            path = self.folder / f"{name}.yaml"
            config = self.collector_config() if name == "collector" else self.scraper_config()
            path.write_text(yaml.safe_dump(change(config)))
            self.parts[name] = self.processes.start(name, [binary, "--config", path], ready=self.url(name) + "/")
        elif name == "app":
            environment = python_environment(self.declared)
            env = change(self.app_environment()) | {"PATH": f"{environment}/bin:{os.environ['PATH']}"}
            self.parts[name] = self.processes.start(
                name,
                [environment / "bin" / "opentelemetry-instrument", "gunicorn"],
                ready=self.url(name) + "/readyz",
                env=env,
                cwd=self.declared.app,
            )
        elif name == "alertmanager":
            config = change(self.alertmanager_config())
            path = self.data(name) / "alertmanager.yml"
            path.write_text(yaml.safe_dump(config))
            arguments = [f"--config.file={path}", f"--storage.path={self.data(name)}", "--cluster.listen-address="]
            self.parts[name] = self.processes.start(
                name,
                [toolchain.tool(name), *arguments, f"--web.listen-address={self.address(name)}"],
                ready=self.url(name) + "/-/ready",
            )
        elif name in THANOS:
            arguments = change(self.thanos_arguments(name))
            self.parts[name] = self._start_thanos(name, [toolchain.tool("thanos"), *arguments])
        else:
            raise ValueError(f"no part named {name}")

    def _start_thanos(self, name: str, command: list[Any]) -> Process:
        deadline = time.monotonic() + PRUNING_SECONDS
        while True:
            try:
                ready = self.url(name) + "/-/ready"
                return self.processes.start(name, command, ready=ready, env=self.thanos_environment)
            except NotReady as error:
                if PRUNING not in str(error) or time.monotonic() > deadline:
                    raise

    def stop(self, *names: str) -> None:
        """Stop parts; everything, the stores too, when none is named."""
        if not names:
            self.stop("app", "load")  # while there is still a collector that takes what they have left
            self.processes.stop()
            self.parts.clear()
            self.traces.stop()
            self.logs.stop()
        for name in names:
            if name in self.parts:
                self.parts.pop(name).stop()

    def kill(self, name: str) -> None:
        """SIGKILL a part."""
        self.parts.pop(name).kill()

    @contextmanager
    def changed(self, name: str, change: Change) -> Iterator[None]:
        """Run the block with one part restarted under ``change``; afterwards it runs as before."""
        before = self.changes.get(name, unchanged)
        self.stop(name)
        self.changes[name] = lambda given: change(before(given))
        try:
            self._start(name)
            yield
        finally:
            self.changes[name] = before
            self.stop(name)
            self._start(name)
            self.wait_connected()

    def wait_connected(self) -> None:
        """Wait until Query sees the ingestor and the router delivers to it."""
        if "query" in self.parts and "ingestor" in self.parts:
            wait_until(lambda: self.query.stores().get("receive"), "Query sees the ingestor")

    # What happens.

    def requests(self) -> list[Request]:
        """Return every request that the simulator has answered, by its own log."""
        return requests_in((self.processes.folder / "app.log").read_text(errors="replace"))

    def get(self, path: str = "/checkout") -> httpx.Response:
        """Send one request to the simulator."""
        return HTTP.get(self.url("app") + path)

    def checkouts(self, count: int, path: str = "/checkout", threads: int = 8) -> None:
        """Send ``count`` requests to the simulator from several threads and wait for their answers."""
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda _: self.get(path), range(count)))

    def warm_up(self) -> None:
        """Send requests until every series of the simulator exists, so that no later rate misses a first sample."""
        self.checkouts(4, "/unstable?delay_ms=10")
        while not {True, False} <= {request.ok for request in self.requests() if request.route == "/checkout"}:
            self.checkouts(16)
        self.settle()

    def settle(self, timeout: float = 60) -> float:
        """Wait until Thanos counts exactly the requests that the simulator tells of and none is under way.

        Returns the time of the sample that says so (Unix seconds).

        Raises:
            NotReady: it does not come to that within ``timeout`` seconds.
        """
        since = time.time()

        def settled() -> float:
            at = self.query.value(f"max(timestamp({ACTIVE}))") or 0
            assert at > since, f"no sample after {since}"
            assert self.query.value(f"sum({ACTIVE})", at) == 0, "requests are under way"
            counted, told = self.query.value(f"sum(histogram_count({SERVED}))", at) or 0, len(self.requests())
            assert counted == told, f"Thanos counts {counted:g} requests, the simulator tells of {told}"
            last = self.requests()[-1]
            assert self.has_trace(last.trace_id), "the trace store lacks the last request"
            assert self.has_line(last.trace_id), "the log store lacks the last request"
            return at

        return wait_until(settled, "counts are exact", timeout)

    def has_trace(self, trace_id: str) -> bool:
        return HTTP.get(f"{self.url('tempo')}/api/traces/{trace_id}").status_code == 200

    def has_line(self, trace_id: str) -> bool:
        query = f'{{service_name="checkout"}} | trace_id="{trace_id}"'
        answer = HTTP.get(f"{self.url('loki')}/loki/api/v1/query_range", params={"query": query})
        return bool(answer.json()["data"]["result"])

    def peaks(self, count: int = 3) -> list[tuple[float, float]]:
        """Return start and end (Unix seconds) of the current peak, if one is on, and of those that follow."""
        script = (
            "import json, sys, time, itertools\n"
            "from checkout_simulator.schedule import PeakSchedule\n"
            "from checkout_simulator.settings import Settings\n"
            "s, now = PeakSchedule.of(Settings.from_env()), time.time()\n"
            "starts = [s.last_start(now)] * s.in_peak(now) + list(itertools.islice(s.starts_after(now), int(sys.argv[1])))\n"
            "print(json.dumps([(t, t + s.length_s) for t in starts]))"
        )
        env = {**os.environ, **{name: value for name, value in COMPRESSED.items() if name.startswith("CHECKOUT_")}}
        python = python_environment(self.declared) / "bin" / "python"
        answer = subprocess.run(
            [python, "-c", script, str(count)],
            cwd=self.declared.app,
            env=env,
            check=True,
            capture_output=True,
            text=True,
        )
        return [(start, end) for start, end in json.loads(answer.stdout)]

    def wait_mode(self, mode: str, seconds: float) -> None:
        """Wait for a stretch of ``normal`` or ``peak`` mode that has at least ``seconds`` to go."""

        def remaining() -> bool:
            now, peaks = time.time(), self.peaks()
            start, end = peaks[0]
            if mode == "peak":
                return start <= now and end - now >= seconds
            return now < start and start - now >= seconds

        wait_until(remaining, f"{seconds:g} s of {mode} mode", timeout=120, interval=0.5)

    def load(self, users: int, seconds: float, name: str = "load", host: str | None = None) -> Process:
        """Start the baked load profile (``app/traffic.sh``) against a simulator (default: ours); it ends by itself."""
        environment = python_environment(self.declared)
        return self.processes.start(
            name,
            ["bash", self.declared.app / "traffic.sh"],
            env={
                "PATH": f"{environment}/bin:{os.environ['PATH']}",
                "HOST": host or self.url("app"),
                "USERS": str(users),
                "SPAWN_RATE": str(users),
                "RUN_TIME": f"{seconds:g}s",
            },
        )


def python_environment(declared: Declared) -> Path:
    """Return the virtual environment of the baked app with all that the operator's image brings into a pod, made once."""
    return toolchain.python(declared.app / "requirements-dev.txt", Path(__file__).parent / "requirements-operator.txt")
