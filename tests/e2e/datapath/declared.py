"""What a baked platform declares: the collector's configuration, Thanos' arguments, the SDK's settings, the panels' queries.

Nothing here is written by hand but the arguments that the Thanos chart itself adds (``CHART_ARGUMENTS``); with
``UPSTREAM_CHARTS`` (a folder of packaged charts) the real chart is rendered instead, and a test compares the two.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import yaml

from scripts.charts import merge
from scripts.charts import values as values_of
from tests.charts import render

T = TypeVar("T")
NAMESPACE = "observability"
UPSTREAM_CHARTS = os.environ.get("UPSTREAM_CHARTS")

# Program: its component folder, its key in the chart's values, and the arguments the chart writes for it.
_LOG = ["--log.level=info", "--log.format=logfmt"]
_GRPC, _HTTP = "--grpc-address=0.0.0.0:10901", "--http-address=0.0.0.0:10902"
_STORE = "--objstore.config-file=/etc/thanos/objstore.yaml"
CHART_ARGUMENTS: dict[str, tuple[str, tuple[str, ...], list[str]]] = {
    "ingestor": (
        "thanos-receive",
        ("receive", "ingestor"),
        ["receive", *_LOG, _GRPC, _HTTP, "--remote-write.address=0.0.0.0:19291", _STORE, "--tsdb.path=/var/thanos/receive",
         "--tsdb.retention={receive.retention}", '--label=receive_replica="$(NAME)"',
         "--receive.local-endpoint=$(NAME).thanos-receive-ingestor-headless.observability.svc.cluster.local:10901"],
    ),
    "router": (
        "thanos-receive",
        ("receive", "router"),
        ["receive", *_LOG, _GRPC, _HTTP, "--remote-write.address=0.0.0.0:19291",
         "--receive.hashrings-file=/etc/thanos/hashrings.json",
         "--receive.replication-factor={receive.replicationFactor}", '--label=receive_replica="$(NAME)"'],
    ),
    "query": ("thanos-query", ("query",), ["query", *_LOG, _GRPC, _HTTP]),
    "query-frontend": (
        "thanos-query",
        ("queryFrontend",),
        ["query-frontend", *_LOG, _HTTP,
         "--query-frontend.downstream-url=http://thanos-query.observability.svc.cluster.local:10902"],
    ),
    "store-gateway": ("thanos-store", ("storeGateway",), ["store", *_LOG, _GRPC, _HTTP, "--data-dir=/var/thanos/store", _STORE]),
    "compact": ("thanos-store", ("compact",), ["compact", "--wait", *_LOG, _HTTP, "--data-dir=/var/thanos/compact", _STORE]),
    "rule": (
        "thanos-ruler",
        ("rule",),
        ["rule", *_LOG, _GRPC, _HTTP, "--data-dir=/var/thanos/rule", _STORE, '--label=rule_replica="$(NAME)"',
         "--alert.label-drop=rule_replica", "--tsdb.retention={rule.retention}",
         "--tsdb.block-duration={rule.blockDuration}", "--rule-file=/etc/thanos/rules/*.yaml",
         "--eval-interval={rule.evalInterval}", "--alertmanagers.config-file=/etc/thanos/alertmanagers-config.yaml"],
    ),
}  # fmt: skip
# The chart's own defaults of the values above.
CHART_DEFAULTS = {
    "receive": {"retention": "48h", "replicationFactor": 1},
    "rule": {"retention": "48h", "blockDuration": "2h", "evalInterval": "1m"},
}


class NothingReplaced(AssertionError):
    """A substitution matched nothing: the baked file no longer has what the test thinks it replaces."""


def substitute(value: T, table: Mapping[str, str]) -> T:
    """Return ``value`` (nested dicts, lists, text) with every key of ``table`` replaced in every text.

    Raises:
        NothingReplaced: one of the keys occurs nowhere.
    """
    used: set[str] = set()

    def walk(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: walk(content) for key, content in item.items()}
        if isinstance(item, list):
            return [walk(content) for content in item]
        if isinstance(item, str):
            for old, new in table.items():
                if old in item:
                    used.add(old)
                    item = item.replace(old, new)
        return item

    result: T = walk(value)
    if unused := table.keys() - used:
        raise NothingReplaced(f"nothing to replace for {sorted(unused)}")
    return result


def replace_flags(arguments: list[str], table: Mapping[str, str | list[str]]) -> list[str]:
    """Return command-line ``arguments`` with each flag of ``table`` set to its value, or to several values.

    Raises:
        NothingReplaced: one of the flags is not there.
    """
    names = [argument.split("=", 1)[0] for argument in arguments]
    if missing := table.keys() - set(names):
        raise NothingReplaced(f"{arguments[0]}: no {sorted(missing)} in {arguments}")
    kept = [argument for argument, name in zip(arguments, names, strict=True) if name not in table]
    return kept + [
        f"{flag}={value}"
        for flag, values in table.items()
        for value in ([values] if isinstance(values, str) else values)
    ]


def static_targets(config: dict[str, Any], table: Mapping[str, str]) -> dict[str, Any]:
    """Return a scraping collector's ``config`` with each DNS name of ``table`` (name:port) replaced by a static address.

    Jobs whose name is not in ``table`` are left out: nothing answers to them here.

    Raises:
        NothingReplaced: no job looks up one of the names.
    """
    scrape, jobs, used = config["receivers"]["prometheus"]["config"], [], set()
    for job in scrape["scrape_configs"]:
        (lookup,) = job["dns_sd_configs"]
        name = lookup["names"][0].rpartition("._tcp.")[2]  # without the service of an SRV record
        if address := table.get(f"{name}:{lookup['port']}"):
            used.add(f"{name}:{lookup['port']}")
            kept = {key: value for key, value in job.items() if key != "dns_sd_configs"}
            jobs.append({**kept, "static_configs": [{"targets": [address]}]})
    if unused := table.keys() - used:
        raise NothingReplaced(f"no job scrapes {sorted(unused)}")
    return merge(config, {"receivers": {"prometheus": {"config": {"scrape_configs": jobs}}}})


@dataclass(frozen=True)
class Declared:
    """Reads ``platform``, the folder of a bake, as one environment deploys it."""

    platform: Path
    environment: str = "production"

    def values(self, component: str) -> dict[str, Any]:
        """Return a component's merged values."""
        return values_of(self.platform / "platform-apps" / component, self.environment)

    def render(self, component: str, charts: str | None = None) -> list[dict[str, Any]]:
        """Return a component's manifests; of its dependencies only with ``charts``, a folder of packaged charts."""
        return render(self.platform / "platform-apps" / component, self.environment, Path(charts) if charts else None)

    def _one(self, component: str, kind: str, name: str, part: str) -> dict[str, Any]:
        """Return a part (``spec`` or ``data``) of the one object of that kind and name."""
        parts = [d[part] for d in self.render(component) if d["kind"] == kind and d["metadata"]["name"] == name]
        assert len(parts) == 1, f"{component} renders {len(parts)} {kind} named {name}"
        return dict(parts[0])

    def collector(self) -> dict[str, Any]:
        """Return the configuration of the OpenTelemetryCollector ``otel``."""
        return dict(self._one("otel-collector", "OpenTelemetryCollector", "otel", "spec")["config"])

    def scraper(self) -> dict[str, Any]:
        """Return the configuration of the OpenTelemetryCollector ``otel-scrape``."""
        return dict(self._one("otel-collector", "OpenTelemetryCollector", "otel-scrape", "spec")["config"])

    def query_endpoints(self) -> dict[str, Any]:
        """Return the file of the ConfigMap `thanos-query-endpoints`, which Query reads."""
        data = self._one("thanos-query", "ConfigMap", "thanos-query-endpoints", "data")
        return dict(yaml.safe_load(data["endpoints.yaml"]))

    def sdk_environment(self) -> dict[str, str]:
        """Return what the operator puts into an app's environment for the Instrumentation resource ``python``."""
        spec = self._one("otel-instrumentation", "Instrumentation", "python", "spec")
        env = {
            # The operator's own defaults for Python.
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_LOGS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": spec["exporter"]["endpoint"],
        }
        if spec.get("propagators"):
            env["OTEL_PROPAGATORS"] = ",".join(spec["propagators"])
        if spec.get("sampler"):
            env["OTEL_TRACES_SAMPLER"] = spec["sampler"]["type"]
            env["OTEL_TRACES_SAMPLER_ARG"] = str(spec["sampler"].get("argument", ""))
        for item in [*spec.get("env", []), *spec["python"].get("env", [])]:
            env[item["name"]] = str(item["value"])
        return env

    def trace_limits(self) -> dict[str, float]:
        """Return the limits that Tempo is given, by the names of ``stores.TraceLimits``; Tempo's defaults are left out."""
        told = dict(self.values("tempo")["tempo"]["tempo"]["overrides"]["defaults"].get("ingestion", {}))
        templates = (self.platform / "platform-apps" / "tempo" / "templates").glob("*.tpl")
        text = "".join(path.read_text() for path in templates)
        if retry := re.search(r"(?m)^ *retry_after_on_resource_exhausted: (\d+)s$", text):
            told["retry_after"] = int(retry[1])
        return told

    def thanos(self, program: str) -> list[str]:
        """Return the arguments of a Thanos program (a key of ``CHART_ARGUMENTS``), the subcommand first."""
        return self._rendered_thanos(program, UPSTREAM_CHARTS) if UPSTREAM_CHARTS else self._valued_thanos(program)

    def _rendered_thanos(self, program: str, charts: str) -> list[str]:
        subcommand = CHART_ARGUMENTS[program][2][0]
        for document in self.render(CHART_ARGUMENTS[program][0], charts):
            if document["kind"] in ("Deployment", "StatefulSet"):
                for container in document["spec"]["template"]["spec"]["containers"]:
                    is_router = any(argument.startswith("--receive.hashrings-file") for argument in container["args"])
                    if container["args"][0] == subcommand and is_router == (program == "router"):
                        return list(container["args"])
        raise AssertionError(f"no container runs `thanos {subcommand}` for {program}")

    def _valued_thanos(self, program: str) -> list[str]:
        component, path, arguments = CHART_ARGUMENTS[program]
        values = merge(CHART_DEFAULTS, self.values(component)["thanos"])

        def at(dotted: str) -> str:
            node = values
            for key in dotted.split("."):
                node = node[key]
            return str(node)

        result = []
        for argument in arguments:
            flag, brace, rest = argument.partition("{")
            result.append(flag + at(rest.rstrip("}")) if brace else argument)
        own = values
        for key in path:
            own = own.get(key) or {}
        if program == "query":
            labels = [*values.get("additionalReplicaLabels", []), *own.get("replicaLabels", [])]
            result += [f"--query.replica-label={label}" for label in dict.fromkeys(labels)]
        if program == "rule":
            result += [f"--query={endpoint}" for endpoint in own.get("overrideQueryEndpoints", [])]
        if program == "compact" and (dedup := own.get("deduplication", {})).get("enabled", True):
            result += ["--compact.enable-vertical-compaction"]
            result += [f"--deduplication.replica-label={label}" for label in values.get("additionalReplicaLabels", [])]
            result += [f"--deduplication.func={dedup['func']}"] if dedup.get("func") else []
        if (values.get("autoGomemlimit") or {}).get("enabled"):
            result.append("--enable-auto-gomemlimit")
        return [*result, *map(str, own.get("extraArgs", []))]

    def dashboards(self) -> dict[str, dict[str, Any]]:
        """Return every baked dashboard by its uid."""
        paths = sorted((self.platform / "platform-apps").glob("*/dashboards/*.json"))
        return {content["uid"]: content for content in (json.loads(path.read_text()) for path in paths)}

    def dashboard(self, uid: str) -> dict[str, Any]:
        """Return a baked dashboard."""
        return self.dashboards()[uid]

    def targets(self, uid: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (panel title, target) of every query of a dashboard."""
        for panel in self.dashboard(uid)["panels"]:
            for inner in [panel, *panel.get("panels", [])]:
                for target in inner.get("targets", []):
                    yield inner.get("title", ""), target

    @cached_property
    def app(self) -> Path:
        """The simulator's folder."""
        return self.platform / "app"


def fill(expression: str, window: str, **variables: str) -> str:
    """Return a panel's query with Grafana's variables filled in; intervals become ``window`` (a PromQL duration).

    Raises:
        AssertionError: a variable is left over.
    """
    for name in ("$__rate_interval", "$__interval", "$__range", "$__auto"):
        expression = expression.replace(name, window)
    for name, value in variables.items():
        expression = expression.replace(f"${name}", value)
    assert not re.search(r"\$(?!\d)", expression), f"not every variable is filled in: {expression}"
    return expression
