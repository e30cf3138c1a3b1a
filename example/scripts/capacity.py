"""What the platform asks for, and what a load adds: every number with the formula and the constants behind it.

Pods are those of the rendered charts, so requests, limits, replicas, volumes and flags are what the cluster gets. What
is configuration and no pod (a queue, a retention of Tempo or Loki) is read from the values. A number that no file says
is a constant of constants.yaml, with where it was measured.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from .charts import ENVIRONMENTS, ROOT, folders, values
from .facts import named
from .mirror import MirrorError, fetch, rendered
from .programs import ProgramError

DAY = 86_400
SERVICES = (1, 10, 100, 1000)  # for which the limits are shown
_UNITS = {"": 1, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 1e3, "M": 1e6, "G": 1e9}


class CapacityError(Exception):
    """Something that the estimate counts with is not there; the message says what, and where it was looked for."""


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


@dataclass(frozen=True)
class Need:
    """What pods request (cores, bytes of memory), may have at most (bytes of memory) and keep (bytes of volumes).

    ``memory_limit`` is infinite where one of the containers has none.
    """

    cpu: float = 0
    memory: float = 0
    memory_limit: float = 0
    disk: float = 0

    def __add__(self, other: Need) -> Need:
        return Need(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, count: int) -> Need:
        return Need(*(count * mine if count else 0 for mine in astuple(self)))


@dataclass(frozen=True)
class Pods:
    """The pods of a workload: how many, what each needs, and the arguments of their containers."""

    count: int
    each: Need
    arguments: tuple[str, ...] = ()

    def flag(self, name: str) -> str:
        """Return the value of a flag of these pods.

        Raises:
            CapacityError: none of their containers has it.
        """
        found = [each.partition("=")[2] for each in self.arguments if each.startswith(f"{name}=")]
        if not found:
            raise CapacityError(f"no container has the flag {name}, which says how much fits in")
        return found[-1]


def pods(objects: Iterable[dict[str, Any]]) -> dict[str, Pods]:
    """Return the pods of each workload in Kubernetes objects by name, and what no workload claims of volumes as one.

    Jobs come and go and are left out. A DaemonSet counts as one pod: no chart knows how many nodes there are. An
    autoscaler counts with its minimum.
    """
    found: dict[str, Pods] = {}
    scaled: dict[str, int] = {}
    for each in objects:
        kind, spec, name = each["kind"], each.get("spec") or {}, each["metadata"]["name"]
        if kind in ("Deployment", "StatefulSet", "DaemonSet"):
            found[name] = _pods(spec, spec["template"]["spec"])
        elif kind == "OpenTelemetryCollector":
            found[name] = _pods(spec, {"containers": [{"resources": spec.get("resources")}]})
        elif kind == "PersistentVolumeClaim":
            found[f"{name} (volume)"] = Pods(1, Need(disk=_storage(each)))
        elif kind == "HorizontalPodAutoscaler":
            scaled[spec["scaleTargetRef"]["name"]] = spec.get("minReplicas", 1)
    return found | {name: replace(found[name], count=count) for name, count in scaled.items()}


def _pods(spec: dict[str, Any], pod: dict[str, Any]) -> Pods:
    """Return pods as the scheduler counts them: their containers, or the greatest of those that run before them."""
    before: list[dict[str, Any]] = []
    beside = list(pod["containers"])
    for container in pod.get("initContainers") or []:
        (beside if container.get("restartPolicy") == "Always" else before).append(container)

    def wanted(containers: list[dict[str, Any]], kind: str, resource: str, absent: float) -> list[float]:
        of_each = [(container.get("resources") or {}).get(kind) or {} for container in containers]
        return [quantity(each[resource]) if resource in each else absent for each in of_each]

    def most(kind: str, resource: str, absent: float = 0) -> float:
        return max(sum(wanted(beside, kind, resource, absent)), *wanted(before, kind, resource, absent), 0)

    need = Need(
        most("requests", "cpu"),
        most("requests", "memory"),
        most("limits", "memory", math.inf),
        sum(map(_storage, spec.get("volumeClaimTemplates") or [])),
    )
    arguments = (str(each) for container in beside for each in container.get("args") or [])
    return Pods(spec.get("replicas", 1), need, tuple(arguments))


def _storage(claim: dict[str, Any]) -> float:
    return quantity(claim["spec"]["resources"]["requests"]["storage"])


def total(every: Iterable[Pods]) -> Need:
    """Return what pods need together."""
    return sum((it.each * it.count for it in every), Need())


@dataclass(frozen=True)
class Environment:
    """An environment of a repository: merged values by component, and its pods by component and workload."""

    name: str
    values: dict[str, dict[str, Any]]
    pods: dict[str, dict[str, Pods]]

    def workload(self, component: str, name: str) -> Pods:
        """Return the pods of a workload.

        Raises:
            CapacityError: the component's charts make none of this name.
        """
        made = self.pods.get(component, {})
        if name not in made:
            raise CapacityError(f"the chart of {component} makes no workload {name}, but {', '.join(made) or 'none'}")
        return made[name]


def environments(root: Path, packages: Path) -> list[Environment]:
    """Return both environments as Helm makes them of the charts, whose upstream packages are in ``packages``.

    Raises:
        MirrorError: a package is missing.
        ProgramError: Helm is missing, or a chart does not render.
    """
    made = {name: Environment(name, {}, {}) for name in ENVIRONMENTS}
    for folder in folders(root):
        for name, of in made.items():
            of.values[folder.name] = values(folder, name)
    for component, name, objects in rendered(root, packages):
        if found := pods(objects):
            made[name].pods[component] = found
    return list(made.values())


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


def estimate(of: Environment, load: Load) -> list[Line]:
    """Return what a load adds in an environment."""
    ingestor, router = (of.workload("thanos-receive", f"thanos-receive-{part}") for part in ("ingestor", "router"))
    copies, ingestors = int(router.flag("--receive.replication-factor")), ingestor.count
    buffer = int(ingestor.flag("--tsdb.max-exemplars"))
    interval = of.values["otel-instrumentation"]["metricExportIntervalMs"] / 1000
    collectors = of.workload("otel-collector", "otel").count
    queue = of.values["otel-collector"]["gateway"]["queue"]["bytesPerSignal"] * collectors
    c = {name: constant.value for name, constant in CONSTANTS.items()}

    instances, requests = load.services * load.pods, load.services * load.rate
    series, histograms = instances * c["series_per_pod"], instances * c["histograms_per_pod"]
    metrics = (histograms * c["histogram_sample"] + (series - histograms) * c["float_sample"]) / interval * DAY
    spans = requests * c["spans_per_request"] * c["span"]
    traces = spans * c["trace_compression"] * DAY
    logs = requests * c["logs_per_request"] * c["log_line"] * c["log_compression"] * DAY
    if "loki" not in of.pods:
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
    if "thanos-store" in of.pods:
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


def limits(of: Environment, load: Load) -> list[Limit]:
    """Return what a load uses of each limit of an environment, the nearest first."""
    ingestor, router = (of.workload("thanos-receive", f"thanos-receive-{part}") for part in ("ingestor", "router"))
    ingestors, copies = ingestor.count, int(router.flag("--receive.replication-factor"))
    tempo = of.values["tempo"]
    amounts = {line.what: line.amount for line in estimate(of, load)}
    c = {name: constant.value for name, constant in CONSTANTS.items()}

    requests = load.services * load.rate
    memory = c["ingestor_memory"] + amounts["Memory for series"] + amounts["Memory for exemplars"]
    samples = c["receive_samples"] * (c["receive_ratio"] if copies > 1 else 1)
    rate = tempo["tempo"]["tempo"]["overrides"]["defaults"]["ingestion"]["rate_limit_bytes"]
    found = [
        Limit(
            "Memory of an ingestor",
            memory,
            ingestor.each.memory_limit,
            "bytes",
            "more ingestors",
        ),
        Limit(
            "Disk of an ingestor",
            amounts["Metrics on disk"] / ingestors * days(ingestor.flag("--tsdb.retention")),
            ingestor.each.disk,
            "bytes",
            "more ingestors, or larger volumes",
        ),
        Limit("Samples through Receive", amounts["Samples a second"], samples, "a second", "more ingestors and cores"),
        Limit(
            "Requests through the collectors",
            requests,
            c["collector_requests"] * of.workload("otel-collector", "otel").count,
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
    in_bucket = {name for name, it in named(tempo)["workloads"].items() if "object-store" in it.get("reaches", [])}
    if "loki" in of.pods and "loki" not in in_bucket:
        kept = amounts["Logs"] * days(of.values["loki"]["loki"]["loki"]["limits_config"]["retention_period"])
        room = of.workload("loki", "loki").each.disk
        found.append(Limit("Disk of Loki", kept, room, "bytes", "an object store, or a larger volume"))
    if "tempo" not in in_bucket:
        kept = amounts["Traces"] * days(tempo["tempo"]["tempo"]["retention"])
        room = of.workload("tempo", "tempo").each.disk
        found.append(Limit("Disk of Tempo", kept, room, "bytes", "an object store, or a larger volume"))
    return sorted(found, key=lambda limit: -limit.share)


def first_limit(of: Environment, pods: int, rate: float) -> str:
    """Return in words how many services of a kind an environment takes, and what ends first."""

    def nearest(services: int) -> Limit:
        return limits(of, Load(services, pods, rate))[0]

    count = int(nearest(1).share <= 1)
    while count and nearest(2 * count).share <= 1 and count < 1_000_000:
        count *= 2
    step = count
    while step > 1:
        step //= 2
        if nearest(count + step).share <= 1:
            count += step
    ends = nearest(count + 1)
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


def finite(amount: float) -> float | None:
    """Return a number as JSON has it, which knows no infinity."""
    return amount if math.isfinite(amount) else None


def report(every: list[Environment], load: Load) -> dict[str, Any]:
    """Return all numbers of all environments, in plain units."""
    return {
        of.name: {
            "components": {
                name: {key: finite(value) for key, value in vars(total(made.values())).items()}
                for name, made in sorted(of.pods.items())
            },
            "load": {line.what: finite(line.amount) for line in estimate(of, load)},
            "limits": {
                count: {limit.what: round(limit.share, 4) for limit in limits(of, Load(count, load.pods, load.rate))}
                for count in SERVICES
            },
        }
        for of in every
    }


def tables(of: Environment, load: Load) -> Iterator[Table]:
    """Yield the tables of an environment: what is asked for, what the load adds, what it uses of each limit."""
    columns = ("CPU", "memory", "memory limit", "disk")
    table = Table("component", *columns, title=f"Requests and limits in {of.name}", title_justify="left")
    if "fluent-bit" in of.pods:
        table.caption = "fluent-bit: on every node, counted once"

    def row(name: str, made: Iterable[Pods]) -> None:
        it = total(made)
        limit = size(it.memory_limit) if math.isfinite(it.memory_limit) else "none"
        table.add_row(name, f"{it.cpu:.4g}", size(it.memory), limit, size(it.disk))

    for name, made in sorted(of.pods.items()):
        row(name, made.values())
    table.add_section()
    row("total", (each for made in of.pods.values() for each in made.values()))
    yield table
    added = f"{load.services} x {load.pods} pods at {load.rate:g} requests a second of each service"
    table = Table("what", "amount", "from", title=f"Added in {of.name} by {added}", title_justify="left")
    for line in estimate(of, load):
        table.add_row(line.what, str(line), line.formula)
    yield table
    title = f"Used of each limit in {of.name}, services of {load.pods} pods at {load.rate:g} requests a second"
    table = Table("limit", *(f"{count:,}" for count in SERVICES), "then", title=title, title_justify="left")
    by_count = {count: limits(of, Load(count, load.pods, load.rate)) for count in SERVICES}
    for nearest in by_count[SERVICES[-1]]:
        shares = [next(limit.share for limit in found if limit.what == nearest.what) for found in by_count.values()]
        table.add_row(nearest.what, *(f"{share:.1%}" for share in shares), nearest.grow)
    table.caption = first_limit(of, load.pods, load.rate)
    yield table


def main(
    services: Annotated[int, typer.Option(min=1, help="Services that send telemetry.")] = 1,
    pods: Annotated[int, typer.Option(min=1, help="Pods of each service.")] = 2,
    rate: Annotated[float, typer.Option(min=0, help="Requests a second of each service.")] = 10,
    charts_from: Annotated[Path | None, typer.Option(help="Take chart packages from this folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Print what the platform's pods ask for in each environment, and what a load adds."""
    load, out = Load(services, pods, rate), Console()
    try:
        every = environments(ROOT, charts_from or fetch(ROOT, ROOT / "build" / "charts"))
        document = report(every, load)
        shown = [table for of in every for table in tables(of, load)]
    except (CapacityError, MirrorError, ProgramError) as error:
        typer.echo(f"capacity: {error}", err=True)
        raise typer.Exit(2) from None
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    table = Table("constant", "value", "source", title="Constants", title_justify="left")
    for name, constant in CONSTANTS.items():
        table.add_row(name, f"{constant.value:g} {constant.unit}", constant.source)
    for each in [*shown, table]:
        out.print(each)


if __name__ == "__main__":
    typer.run(main)
