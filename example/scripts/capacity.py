"""What the platform asks for, and what a load adds: every number with the formula and the constants behind it.

Requests and volumes are read from the values files (``values.yaml``, then ``values-<environment>.yaml``), so they
follow every change there. A number that no file says is a constant of constants.yaml, with where it was measured.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.table import Table

from .charts import ARGO_CD, ENVIRONMENTS, ROOT, folders, values
from .facts import named

DAY = 86_400
SERVICES = (1, 10, 100, 1000)  # for which the limits are shown
_UNITS = {"": 1, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 1e3, "M": 1e6, "G": 1e9}

# Values of containers that run before their pod's others and ask for less (init containers), of one-time Jobs and of
# `helm test`: the scheduler has no room to keep for them.
PASSING = {"init", "copyutil", "redisSecretInit", "testFramework"}


@dataclass(frozen=True)
class Constant:
    """A measured number, its unit and where it comes from."""

    value: float
    unit: str
    source: str


CONSTANTS = {
    name: Constant(**entry)
    for name, entry in yaml.safe_load((Path(__file__).parent / "constants.yaml").read_text()).items()
}


def quantity(text: object) -> float:
    """Return a Kubernetes quantity such as ``250m`` or ``4Gi`` as a number (cores or bytes).

    Raises:
        ValueError: the text is no quantity.
    """
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text))
    if not match or match[2] not in _UNITS:
        raise ValueError(f"{text!r} is no Kubernetes quantity")
    return float(match[1]) * _UNITS[match[2]]


@dataclass
class Need:
    """What containers request: cores, bytes of memory and bytes of volumes."""

    cpu: float = 0
    memory: float = 0
    disk: float = 0

    def add(self, other: Need) -> None:
        """Add another need to this one."""
        self.cpu += other.cpu
        self.memory += other.memory
        self.disk += other.disk


def needs(node: object, replicas: int = 1) -> Iterator[Need]:
    """Yield what each container and volume below ``node`` asks for, times the replicas that hold there.

    A DaemonSet counts as one pod: its values do not know how many nodes there are.
    """
    if not isinstance(node, Mapping) or node.get("enabled") is False:
        return
    for key in ("replicas", "replicaCount"):
        if isinstance(node.get(key), int):
            replicas = node[key]
    autoscaling = node.get("autoscaling")
    if isinstance(autoscaling, Mapping) and autoscaling.get("enabled"):
        replicas = autoscaling["minReplicas"]
    for key, child in node.items():
        if key == "resources" and isinstance(child, Mapping):
            requests = child.get("requests") or {}
            cpu, memory = quantity(requests.get("cpu", 0)), quantity(requests.get("memory", 0))
            yield Need(cpu * replicas, memory * replicas)
        elif key == "persistence" and isinstance(child, Mapping):
            if child.get("enabled", True) and "size" in child:
                yield Need(disk=quantity(child["size"]) * replicas)
        elif key == "volumeSize":
            yield Need(disk=quantity(child) * replicas)
        elif key not in PASSING:
            yield from needs(child, replicas)


def components(root: Path, environment: str) -> dict[str, Need]:
    """Return what every component asks for in an environment, Argo CD among them."""
    result = {}
    for folder in sorted([*folders(root), root / ARGO_CD], key=lambda path: path.name):
        total = Need()
        for need in needs(values(folder, environment)):
            total.add(need)
        result[folder.name] = total
    return result


@dataclass(frozen=True)
class Load:
    """A load: services, their pods, requests a second of each service."""

    services: int
    pods: int
    rate: float


@dataclass(frozen=True)
class Line:
    """One amount: in ``unit`` (empty for a plain number, bytes, bytes a day, seconds), and how it comes about."""

    what: str
    amount: float
    unit: str
    formula: str

    def __str__(self) -> str:
        if self.unit == "seconds":
            return duration(self.amount)
        if self.unit.startswith("bytes"):
            return size(self.amount) + self.unit.removeprefix("bytes")
        return f"{self.amount:,.0f}"


def estimate(root: Path, environment: str, load: Load) -> list[Line]:
    """Return what a load adds in an environment."""
    receive = values(root / "platform-apps/thanos-receive", environment)["thanos"]["receive"]
    copies, ingestors = receive.get("replicationFactor", 1), receive["ingestor"].get("replicas", 1)
    prefix = "--tsdb.max-exemplars="
    buffer = next(
        int(flag.removeprefix(prefix)) for flag in receive["ingestor"]["extraArgs"] if flag.startswith(prefix)
    )
    interval = values(root / "platform-apps/otel-instrumentation", environment)["metricExportIntervalMs"] / 1000
    gateway = values(root / "platform-apps/otel-collector", environment)["gateway"]
    queue = gateway["queue"]["bytesPerSignal"] * gateway.get("replicas", 1)
    store = values(root / "platform-apps/thanos-store", environment).get("thanos", {}).get("storeGateway", {})
    c = {name: constant.value for name, constant in CONSTANTS.items()}

    pods, requests = load.services * load.pods, load.services * load.rate
    series, histograms = pods * c["series_per_pod"], pods * c["histograms_per_pod"]
    metrics = (histograms * c["histogram_sample"] + (series - histograms) * c["float_sample"]) / interval * DAY
    spans = requests * c["spans_per_request"] * c["span"]
    traces = spans * c["trace_compression"] * DAY
    logs = requests * c["logs_per_request"] * c["log_line"] * c["log_compression"] * DAY
    if not (root / "platform-apps/loki").is_dir():
        logs = 0
    exemplars = min(requests, histograms * c["exemplars_per_export"] / interval)

    share = f"x {copies} copies / {ingestors} ingestors"
    lines = [
        Line("Active series", series, "", "services x pods x series_per_pod"),
        Line("Samples a second", series / interval, "", f"series / export interval ({interval:g} s)"),
        Line(
            "Memory for series",
            series * c["series_memory"] * copies / ingestors,
            "bytes",
            f"of an ingestor: series x series_memory {share}",
        ),
        Line("Memory for exemplars", buffer * c["exemplar"], "bytes", f"of an ingestor: {buffer:,} x exemplar"),
        Line(
            "Exemplars reach back",
            buffer * ingestors / copies / exemplars if exemplars else float("inf"),
            "seconds",
            f"{buffer:,} x {ingestors} ingestors / {copies} copies / exemplars a second: "
            "one a request, at most exemplars_per_export x histograms / interval",
        ),
        Line("Metrics on disk", metrics * copies, "bytes a day", f"samples x bytes of a sample x {copies} copies"),
        Line("Traces", traces, "bytes a day", "requests x spans_per_request x span x trace_compression"),
        Line("Logs", logs, "bytes a day", "requests x logs_per_request x log_line x log_compression"),
    ]
    if store.get("enabled"):
        formula = "traces + logs + one copy of the metrics (the Compactor drops the others)"
        lines.append(Line("Growth of the object store", metrics + traces + logs, "bytes a day", formula))
    lines.append(
        Line(
            "Queue fills in an outage after",
            queue / spans if spans else float("inf"),
            "seconds",
            f"{size(queue)} / (requests x spans_per_request x span): traces fill it first",
        )
    )
    return lines


@dataclass(frozen=True)
class Limit:
    """What a load uses of something that ends: ``used`` of ``available``, both in ``unit``."""

    what: str
    used: float
    available: float
    unit: str
    grow: str

    @property
    def share(self) -> float:
        return self.used / self.available


def limits(root: Path, environment: str, load: Load) -> list[Limit]:
    """Return what a load uses of each limit of an environment, the nearest first."""
    receive = values(root / "platform-apps/thanos-receive", environment)["thanos"]["receive"]
    ingestor, copies = receive["ingestor"], receive.get("replicationFactor", 1)
    ingestors = ingestor.get("replicas", 1)
    gateway = values(root / "platform-apps/otel-collector", environment)["gateway"]
    tempo = values(root / "platform-apps/tempo", environment)
    amounts = {line.what: line.amount for line in estimate(root, environment, load)}
    c = {name: constant.value for name, constant in CONSTANTS.items()}

    requests = load.services * load.rate
    memory = c["ingestor_memory"] + amounts["Memory for series"] + amounts["Memory for exemplars"]
    samples = c["receive_samples"] * (c["receive_ratio"] if copies > 1 else 1)
    rate = tempo["tempo"]["tempo"]["overrides"]["defaults"]["ingestion"]["rate_limit_bytes"]
    found = [
        Limit(
            "Memory of an ingestor",
            memory,
            quantity(ingestor["resources"]["limits"]["memory"]),
            "bytes",
            "more ingestors",
        ),
        Limit(
            "Disk of an ingestor",
            amounts["Metrics on disk"] / ingestors * days(receive["retention"]),
            quantity(ingestor["persistence"]["size"]),
            "bytes",
            "more ingestors, or larger volumes",
        ),
        Limit("Samples through Receive", amounts["Samples a second"], samples, "a second", "more ingestors and cores"),
        Limit(
            "Requests through the collectors",
            requests,
            c["collector_requests"] * gateway.get("replicas", 1),
            "a second",
            "more collectors",
        ),
        Limit(
            "Spans into Tempo",
            requests * c["spans_per_request"] * c["span"],
            rate,
            "bytes a second",
            "a lower sampling ratio, or Tempo's distributed mode and a higher ingestion.rate_limit_bytes",
        ),
    ]
    loki = root / "platform-apps/loki"
    in_bucket = {name for name, it in named(tempo)["workloads"].items() if "object-store" in it.get("reaches", [])}
    if loki.is_dir() and "loki" not in in_bucket:
        logs = values(loki, environment)
        kept = amounts["Logs"] * days(logs["loki"]["loki"]["limits_config"]["retention_period"])
        room = quantity(logs["loki"]["singleBinary"]["persistence"]["size"])
        found.append(Limit("Disk of Loki", kept, room, "bytes", "an object store, or a larger volume"))
    if "tempo" not in in_bucket:
        kept = amounts["Traces"] * days(tempo["tempo"]["tempo"]["retention"])
        room = quantity(tempo["tempo"]["persistence"]["size"])
        found.append(Limit("Disk of Tempo", kept, room, "bytes", "an object store, or a larger volume"))
    return sorted(found, key=lambda limit: -limit.share)


def first_limit(environment: str, pods: int, rate: float) -> str:
    """Return in words how many services of a kind an environment takes, and what ends first."""
    count = int(limits(ROOT, environment, Load(1, pods, rate))[0].share <= 1)
    while count and limits(ROOT, environment, Load(2 * count, pods, rate))[0].share <= 1 and count < 1_000_000:
        count *= 2
    step = count
    while step > 1:
        step //= 2
        if limits(ROOT, environment, Load(count + step, pods, rate))[0].share <= 1:
            count += step
    ends = limits(ROOT, environment, Load(count + 1, pods, rate))[0]
    return f"The first limit is met above {count:,} services: {ends.what}. Then: {ends.grow}."


def days(text: str) -> float:
    """Return a retention such as ``48h`` or ``30d`` in days."""
    return float(text[:-1]) / {"h": 24, "d": 1}[text[-1]]


def size(count: float) -> str:
    """Return a count of bytes as people read it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def duration(seconds: float) -> str:
    """Return seconds as people read them."""
    for unit, length in (("days", DAY), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return "for ever" if seconds == float("inf") else f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.0f} s"


def main(
    services: Annotated[int, typer.Option(min=1, help="Services that send telemetry.")] = 1,
    pods: Annotated[int, typer.Option(min=1, help="Pods of each service.")] = 2,
    rate: Annotated[float, typer.Option(min=0, help="Requests a second of each service.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Print what the platform asks for in each environment, and what a load adds."""
    load = Load(services, pods, rate)
    if as_json:
        document = {
            environment: {
                "components": {name: vars(need) for name, need in components(ROOT, environment).items()},
                "load": {
                    line.what: line.amount if math.isfinite(line.amount) else None
                    for line in estimate(ROOT, environment, load)
                },
                "limits": {
                    count: {
                        limit.what: round(limit.share, 4)
                        for limit in limits(ROOT, environment, Load(count, pods, rate))
                    }
                    for count in SERVICES
                },
            }
            for environment in ENVIRONMENTS
        }
        typer.echo(json.dumps(document, indent=2))
        return
    out = Console()
    for environment in ENVIRONMENTS:
        table = Table("component", "CPU", "memory", "disk", title=f"Requests in {environment}", title_justify="left")
        if (ROOT / "platform-apps/fluent-bit").is_dir():
            table.caption = "fluent-bit: on every node, counted once"
        total = Need()
        for name, need in components(ROOT, environment).items():
            total.add(need)
            table.add_row(name, f"{need.cpu:g}", size(need.memory), size(need.disk))
        table.add_section()
        table.add_row("total", f"{total.cpu:.4g}", size(total.memory), size(total.disk))
        out.print(table)
        title = f"Added in {environment} by {services} x {pods} pods at {rate:g} requests a second of each service"
        table = Table("what", "amount", "from", title=title, title_justify="left")
        for line in estimate(ROOT, environment, load):
            table.add_row(line.what, str(line), line.formula)
        out.print(table)
        title = f"Used of each limit in {environment}, services of {pods} pods at {rate:g} requests a second"
        table = Table("limit", *(f"{count:,}" for count in SERVICES), "then", title=title, title_justify="left")
        by_count = {count: limits(ROOT, environment, Load(count, pods, rate)) for count in SERVICES}
        for nearest in by_count[SERVICES[-1]]:
            shares = [next(limit.share for limit in found if limit.what == nearest.what) for found in by_count.values()]
            table.add_row(nearest.what, *(f"{share:.1%}" for share in shares), nearest.grow)
        table.caption = first_limit(environment, pods, rate)
        out.print(table)
    table = Table("constant", "value", "source", title="Constants", title_justify="left")
    for name, constant in CONSTANTS.items():
        table.add_row(name, f"{constant.value:g} {constant.unit}", constant.source)
    out.print(table)


if __name__ == "__main__":
    typer.run(main)
