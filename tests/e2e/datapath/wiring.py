"""With what the parts of a baked platform's data path are started on loopback, and where each then listens."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tests.e2e import toolchain
from tests.e2e.datapath.backends import Loki, Tempo
from tests.e2e.datapath.declared import NAMESPACE, Declared, replace_flags, static_targets, substitute
from tests.e2e.datapath.query import Thanos
from tests.e2e.datapath.stores import LogStore, TraceStore
from tests.e2e.processes import LOOPBACK, free_port

CORE = ("ingestor", "router", "query", "query-frontend", "collector", "app")
# The releases of the simulator's chart: service.name and release by the part.
SIMULATORS = {"app": ("checkout", "flask-app"), "payment": ("payment", "payment")}
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

# The simulator's schedule and the SDK's delays, compressed; everything else is as baked.
COMPRESSED = {
    "CHECKOUT_PEAK_LENGTH_S": "14",
    "CHECKOUT_PEAK_GAP_MIN_S": "34",
    "CHECKOUT_PEAK_GAP_MAX_S": "38",
    "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    "OTEL_BSP_SCHEDULE_DELAY": "500",
    "OTEL_BLRP_SCHEDULE_DELAY": "500",
}

Change = Callable[[Any], Any]  # of a configuration, an environment or arguments, by the part


def unchanged(given: Any) -> Any:
    """Return what is given."""
    return given


def reports_every_second(config: dict[str, Any]) -> dict[str, Any]:
    """Return a collector's configuration with its own metrics pushed every second instead of every ten."""
    (reader,) = config["service"]["telemetry"]["metrics"]["readers"]
    assert reader["periodic"]["interval"] == 10_000
    reader["periodic"]["interval"] = 1000
    return config


@dataclass(frozen=True)
class Program:
    """How a part is started: its command, the URL that answers 200 once it is ready, its environment and its folder."""

    command: list[str | Path]
    ready: str
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None


@dataclass
class Wiring:
    """Ports, files and arguments of the parts of ``declared`` below ``folder``, with everything else as baked."""

    declared: Declared
    folder: Path
    _: KW_ONLY
    traces: TraceStore | Tempo = field(default_factory=TraceStore)
    logs: LogStore | Loki = field(default_factory=LogStore)
    thanos_environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ports: dict[tuple[str, str], int] = {}
        (self.folder / "bucket").mkdir(parents=True, exist_ok=True)

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

    def app_environment(self, part: str) -> dict[str, str]:
        """Return the environment of a simulator: as baked, but compressed."""
        service, release = SIMULATORS[part]
        return (
            self.baked_environment()
            | COMPRESSED
            | {
                "OTEL_SERVICE_NAME": service,
                "OTEL_RESOURCE_ATTRIBUTES": "k8s.namespace.name=checkout,"
                f"service.instance.id=checkout.{release}-0.flask-app",
                "PORT": self.address(part).rsplit(":", 1)[1],
                "PYTHONUNBUFFERED": "1",
            }
        )

    def program(self, part: str, change: Change = unchanged) -> Program:
        """Return how a part is started after ``change``; the files that it reads are written.

        Raises:
            NothingReplaced: the bake has none of what is replaced.
        """
        if part in ("collector", "scraper"):
            binary = toolchain.collector(self.declared.collector(), self.declared.scraper())
            path = self.folder / f"{part}.yaml"
            config = self.collector_config() if part == "collector" else self.scraper_config()
            path.write_text(yaml.safe_dump(change(config)))
            return Program([binary, "--config", path], self.url(part) + "/")
        if part in SIMULATORS:
            environment = python_environment(self.declared)
            return Program(
                [environment / "bin" / "opentelemetry-instrument", "gunicorn"],
                self.url(part) + "/readyz",
                change(self.app_environment(part)) | {"PATH": f"{environment}/bin:{os.environ['PATH']}"},
                self.declared.app,
            )
        if part == "alertmanager":
            path = self.data(part) / "alertmanager.yml"
            path.write_text(yaml.safe_dump(change(self.alertmanager_config())))
            arguments = [f"--config.file={path}", f"--storage.path={self.data(part)}", "--cluster.listen-address="]
            arguments.append(f"--web.listen-address={self.address(part)}")
            baked = self.declared.values(part)[part]["extraArgs"]
            arguments += [f"--{name}={value}" for name, value in baked.items()]
            return Program([toolchain.tool(part), *arguments], self.url(part) + "/-/ready")
        if part in THANOS:
            arguments = change(self.thanos_arguments(part))
            return Program([toolchain.tool("thanos"), *arguments], self.url(part) + "/-/ready", self.thanos_environment)
        raise ValueError(f"no part named {part}")


def python_environment(declared: Declared) -> Path:
    """Return the virtual environment of the baked app with all that the operator's image brings into a pod, made once."""
    return toolchain.python(declared.app / "requirements-dev.txt", Path(__file__).parent / "requirements-operator.txt")
