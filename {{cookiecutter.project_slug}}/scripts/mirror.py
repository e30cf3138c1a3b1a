"""Copy every chart and image that this repository uses into one registry.

The list is made from the repository itself: charts from every ``Chart.yaml`` and from Terraform's modules, images from
the rendered charts of both environments. Each component's ``platform.yaml`` says who publishes them. What the registry
already holds is skipped, so a run that broke off goes on where it stopped.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.progress import Progress

from scripts.facts import facts, value_files

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ("local", "production")
# Charts refuse a version that is too old, and Helm alone assumes the one that it was built with.
KUBERNETES = "1.34.4"
# An image stands in a pod's or a custom resource's `image`, or in an operator's `--…-image=` argument.
_IMAGE_ARGUMENT = re.compile(r"^--[a-z0-9-]*image=(?P<image>\S+)$")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where PyYAML has it


class MirrorError(Exception):
    """The mirror cannot be filled; the message says why and what to do."""


@dataclass(frozen=True, order=True)
class Chart:
    """A chart at one version; ``source`` is its repository, with scheme."""

    name: str
    version: str
    source: str

    @property
    def package(self) -> str:
        """Name of its packaged file."""
        return f"{self.name}-{self.version}.tgz"

    @property
    def reference(self) -> str:
        """Name and tag in a registry; a tag has no ``+``, which Helm writes as ``_``."""
        return f"{self.name}:{self.version.replace('+', '_')}"


@dataclass(frozen=True)
class Copy:
    """One thing to copy, from ``source`` to ``target`` (``host/path:tag``); a chart is pushed from its ``package``."""

    kind: str
    source: str
    target: str
    package: Path | None = None

    def held(self) -> bool:
        """Tell whether the mirror has it. A tag appears last, so what has one is whole."""
        try:
            run("crane", "digest", self.target)
        except CommandError:
            return False
        return True

    def make(self) -> None:
        """Copy it, an image with all its platforms."""
        if self.package:
            run("helm", "push", str(self.package), f"oci://{self.target.rsplit('/', 1)[0]}")
        else:
            run("crane", "copy", self.source, self.target)


class CommandError(MirrorError):
    """A program ended with an error; its last line is in the message."""


def run(*args: str) -> str:
    """Run a program and return its standard output.

    Raises:
        MirrorError: the program is missing.
        CommandError: it failed, or took more than half an hour.
    """
    if not shutil.which(args[0]):
        raise MirrorError(f"{args[0]} is not installed; `make mirror` needs helm and crane")
    try:
        done = subprocess.run(args, capture_output=True, text=True, check=False, timeout=1800)
    except subprocess.TimeoutExpired:
        raise CommandError(f"`{' '.join(args[:4])} ...`: gave up after half an hour") from None
    if done.returncode:
        # Helm ends with advice on --debug; its error is the line that says so.
        lines = done.stderr.strip().splitlines() or ["failed"]
        said = next((line for line in lines if line.startswith("Error:")), lines[-1])
        raise CommandError(f"`{' '.join(args[:4])} ...`: {said}")
    return done.stdout


def charts(root: Path, sources: Mapping[str, str]) -> list[Chart]:
    """Return every upstream chart that the repository pins.

    Raises:
        MirrorError: nothing says where a chart comes from.
    """
    pinned = terraform_charts(root)
    for file in chart_files(root):
        pinned |= dependencies(file)
    unknown = sorted(name for name, _ in pinned if name not in sources)
    if unknown:
        raise MirrorError(f"no platform.yaml has an entry in charts for {', '.join(unknown)}: add who publishes it")
    return sorted(Chart(name, version, sources[name]) for name, version in pinned)


def chart_files(root: Path) -> list[Path]:
    """Return the ``Chart.yaml`` of every component and app."""
    return sorted([*root.glob("platform-apps/*/Chart.yaml"), *root.glob("k8s/helm-charts/*/Chart.yaml")])


def dependencies(file: Path) -> set[tuple[str, str]]:
    """Return (name, version) of the upstream charts that a ``Chart.yaml`` pins."""
    return {(each["name"], str(each["version"])) for each in yaml.safe_load(file.read_text()).get("dependencies") or []}


def terraform_charts(root: Path) -> set[tuple[str, str]]:
    """Return (name, version) of the charts that Terraform itself installs."""
    pinned = re.compile(r'^ +chart += "([\w-]+)"$.*?^ +version += "([^"]+)"$', re.M | re.S)
    files = sorted(root.glob("terraform/modules/*/*.tf"))
    return {found for file in files for found in pinned.findall(file.read_text())}


def images_of(documents: Iterable[object]) -> set[str]:
    """Return every image reference in rendered manifests."""
    found: set[str] = set()
    pending = list(documents)
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            image = node.get("image")
            if isinstance(image, str) and image:
                found.add(image)
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
        elif isinstance(node, str) and (match := _IMAGE_ARGUMENT.match(node)):
            found.add(match["image"])
    return found


def rendered(root: Path, packages: Path) -> Iterator[object]:
    """Yield every manifest of every chart, in both environments; ``packages`` holds the fetched upstream charts.

    Neither CRDs nor `helm test` pods are among them: those hold no images, and Argo CD never runs these.
    """
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor() as pool:
        # A chart, and the folder of its value files.
        pairs = []
        for source in chart_files(root):
            folder = Path(scratch) / source.parent.name
            shutil.copytree(source.parent, folder, ignore=shutil.ignore_patterns("charts", "Chart.lock"))
            (folder / "charts").mkdir()
            for name, version in dependencies(source):
                shutil.copy2(packages / f"{name}-{version}.tgz", folder / "charts")
            pairs.append((folder, source.parent))
        for name, version in terraform_charts(root):
            if name == "argo-cd":  # argocd-apps makes no pods
                pairs.append((packages / f"{name}-{version}.tgz", root / "terraform/modules/argocd-server"))
        for text in pool.map(template, *zip(*product(pairs, ENVIRONMENTS), strict=True)):
            yield from yaml.load_all(text, Loader=_Loader)


def template(pair: tuple[Path, Path], environment: str) -> str:
    """Return the manifests of a chart with the value files of an environment, of those that there are."""
    chart, values = pair
    options = [word for file in value_files(values, environment) for word in ("--values", str(file))]
    return run("helm", "template", "mirror", str(chart), "--skip-tests", "--kube-version", KUBERNETES, *options)


def upstream(image: str, registry: str, sources: Mapping[str, str]) -> tuple[str, str]:
    """Return where an image comes from and its path below the mirror ``registry`` (empty: there is none yet).

    Raises:
        MirrorError: nothing says which registry publishes it.
    """
    if registry and image.startswith(f"{registry}/"):
        path = image.removeprefix(f"{registry}/")
        first = path.split("/")[0]
        if first not in sources:
            raise MirrorError(f"no platform.yaml has an entry in images for {first} ({path}): add who publishes it")
        return f"{sources[first]}/{path}", path
    host, _, path = image.partition("/")
    if path and ("." in host or ":" in host or host == "localhost"):
        return image, path
    # Docker's short forms: `redis:8` is docker.io/library/redis:8.
    path = image if path else f"library/{image}"
    return f"docker.io/{path}", path


def publishers(root: Path) -> dict[str, Any]:
    """Return ``mirror.yaml`` with the ``charts`` and ``images`` that the components name, in any environment."""
    found = yaml.safe_load((root / "mirror.yaml").read_text())
    known = [facts(root, environment) for environment in ENVIRONMENTS]
    for kind in ("charts", "images"):
        found[kind] = {**(found.get(kind) or {}), **{k: v for each in known for k, v in each.get(kind, {}).items()}}
    return found


def planned(root: Path, sources: Mapping, registry: str, packages: Path, fetch: bool) -> list[Copy]:
    """Return every copy that fills ``registry``, charts first; ``fetch`` gets the charts into ``packages``."""
    copies = []
    for chart in charts(root, sources["charts"]):
        if fetch:
            location = [f"{chart.source}/{chart.name}"]
            if not chart.source.startswith("oci://"):
                location = [chart.name, "--repo", chart.source]
            run("helm", "pull", *location, "--version", chart.version, "--destination", str(packages))
        elif not (packages / chart.package).is_file():
            raise MirrorError(f"--charts-from {packages}: it has no {chart.package}")
        source = f"{chart.source}/{chart.reference}"
        copies.append(Copy("chart", source, f"{registry}/{chart.reference}", packages / chart.package))
    own = tuple(f"{name.rstrip('/')}/" for name in sources.get("own") or [])
    used = {image for image in images_of(rendered(root, packages)) if not image.startswith(own)}
    for source, path in sorted({upstream(image, sources["registry"], sources["images"]) for image in used}):
        copies.append(Copy("image", source, f"{registry}/{path}"))
    return copies


def copy_missing(out: Console, copies: list[Copy]) -> list[Copy]:
    """Make the copies that the mirror does not hold, four at a time, and return those that failed."""
    copied, failed = 0, []
    with Progress(console=out) as progress, ThreadPoolExecutor(4) as pool:
        done = zip(copies, pool.map(attempt, copies), strict=True)
        for copy, result in progress.track(done, total=len(copies), description="mirror"):
            if isinstance(result, CommandError):
                failed.append(copy)
                out.print(f"failed {copy.kind} {copy.source}: {result}", style="red", soft_wrap=True)
            elif result:
                copied += 1
                out.print(f"copied {copy.kind} {copy.target}", soft_wrap=True)
    out.print(f"{copied} copied, {len(copies) - copied - len(failed)} already there, {len(failed)} failed")
    return failed


def attempt(copy: Copy) -> bool | CommandError:
    """Make a copy unless the mirror holds it; return whether it was made, or why it failed."""
    if copy.held():
        return False
    try:
        copy.make()
    except CommandError as error:
        return error
    return True


def main(
    to: Annotated[str, typer.Option(help="Registry to fill, host/path (default: that of mirror.yaml).")] = "",
    charts_from: Annotated[Path | None, typer.Option(help="Take chart packages from this folder.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what a run would copy, and copy nothing.")] = False,
) -> None:
    """Copy every chart and image of this repository into one registry; safe to repeat."""
    out = Console(highlight=False)
    try:
        sources = publishers(ROOT)
        registry = (to or sources["registry"]).rstrip("/")
        if "://" in registry:
            raise MirrorError(f"--to {registry}: leave out the scheme: {registry.split('://')[1]}")
        if not registry:
            raise MirrorError("no registry to fill: mirror.yaml has none, so name one with --to host/path")
        with tempfile.TemporaryDirectory() as scratch:
            copies = planned(ROOT, sources, registry, charts_from or Path(scratch), fetch=not charts_from)
            if dry_run:
                for copy in copies:
                    if not copy.held():
                        out.print(f"{copy.kind} {copy.source} -> {copy.target}", soft_wrap=True)
                return
            failed = copy_missing(out, copies)
    except MirrorError as error:
        out.print(f"mirror: {error}", style="red", soft_wrap=True)
        raise typer.Exit(2) from None
    if failed:
        out.print("Run the command again: it goes on with what is missing.")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
