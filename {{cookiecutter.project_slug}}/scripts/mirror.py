"""Copy every chart and image that this repository uses into one registry.

The list is made from the repository itself: charts from every ``Chart.yaml`` and from Terraform's modules, images from
the rendered charts of both environments. Each component's ``platform.yaml`` says who publishes them. What the registry
already holds is skipped, so a run that broke off goes on where it stopped.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.progress import Progress

from .charts import (
    ARGO_CD,
    ENVIRONMENTS,
    ROOT,
    dependencies,
    documents,
    folders,
    images,
    pinned_charts,
    template,
    terraform_charts,
)
from .facts import facts
from .programs import CommandError, ProgramError, run


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
    def location(self) -> list[str]:
        """Where `helm pull` finds it, as arguments."""
        return (
            [f"{self.source}/{self.name}"] if self.source.startswith("oci://") else [self.name, "--repo", self.source]
        )

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


def charts(root: Path, sources: Mapping[str, str]) -> list[Chart]:
    """Return every upstream chart that the repository pins.

    Raises:
        MirrorError: nothing says where a chart comes from.
    """
    pinned = pinned_charts(root)
    unknown = sorted(name for name, _ in pinned if name not in sources)
    if unknown:
        raise MirrorError(f"no platform.yaml has an entry in charts for {', '.join(unknown)}: add who publishes it")
    return sorted(Chart(name, version, sources[name]) for name, version in pinned)


def fetch(root: Path, packages: Path) -> Path:
    """Get the upstream charts of a repository into ``packages``, from its mirror where it has one, and return that.

    Raises:
        CommandError: one cannot be had.
    """
    packages.mkdir(parents=True, exist_ok=True)
    known = publishers(root)
    for chart in charts(root, known["charts"]):
        if not (packages / chart.package).is_file():
            pull(replace(chart, source=f"oci://{known['registry']}") if known["registry"] else chart, packages)
    return packages


def pull(chart: Chart, packages: Path) -> None:
    """Get the package of a chart."""
    run("helm", "pull", *chart.location, "--version", chart.version, "--destination", str(packages))


def rendered(root: Path, packages: Path) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """Yield name, environment and manifests of every chart; ``packages`` holds the fetched upstream charts.

    Neither CRDs nor `helm test` pods are among them: those hold no images, and Argo CD never runs these.

    Raises:
        MirrorError: a package is missing.
    """
    for name, version in pinned_charts(root):
        if not (packages / f"{name}-{version}.tgz").is_file():
            raise MirrorError(f"{packages} has no {name}-{version}.tgz")
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor() as pool:
        # The folder of a chart's value files, and the chart.
        pairs = []
        for folder in folders(root):
            chart = Path(scratch) / folder.name
            shutil.copytree(folder, chart, ignore=shutil.ignore_patterns("charts", "Chart.lock"))
            (chart / "charts").mkdir()
            for name, version in dependencies(folder):
                shutil.copy2(packages / f"{name}-{version}.tgz", chart / "charts")
            pairs.append((folder, chart))
        for name, version in terraform_charts(root):
            if name == "argo-cd":  # argocd-apps makes no pods
                pairs.append((root / ARGO_CD, packages / f"{name}-{version}.tgz"))
        made = [
            (folder.name, environment, pool.submit(template, folder, environment, "--skip-tests", chart=chart))
            for (folder, chart), environment in product(pairs, ENVIRONMENTS)
        ]
        for name, environment, each in made:
            yield name, environment, list(documents(each.result()))


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
    sources: dict[str, Any] = yaml.safe_load((root / "mirror.yaml").read_text())
    known = [facts(root, environment) for environment in ENVIRONMENTS]
    for kind in ("charts", "images"):
        sources[kind] = {**(sources.get(kind) or {}), **{k: v for each in known for k, v in each.get(kind, {}).items()}}
    return sources


def own_images(root: Path) -> set[str]:
    """Return the images of the repository's own apps, without a tag: they are published by what builds them."""
    values = (yaml.safe_load(file.read_text(encoding="utf-8")) for file in root.glob("k8s/helm-charts/*/values.yaml"))
    return {each["image"]["repository"] for each in values if each and "image" in each}


def planned(root: Path, sources: Mapping[str, Any], registry: str, packages: Path, pulled: bool) -> list[Copy]:
    """Return every copy that fills ``registry``, charts first; ``pulled`` gets the charts into ``packages``."""
    copies = []
    for chart in charts(root, sources["charts"]):
        if pulled:
            pull(chart, packages)
        source = f"{chart.source}/{chart.reference}"
        copies.append(Copy("chart", source, f"{registry}/{chart.reference}", packages / chart.package))
    own = (*(f"{name.rstrip('/')}/" for name in sources.get("own") or []), *(f"{image}:" for image in own_images(root)))
    manifests = (each for _, _, objects in rendered(root, packages) for each in objects)
    used = {image for image in images(manifests) if not image.startswith(own)}
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
            copies = planned(ROOT, sources, registry, charts_from or Path(scratch), pulled=not charts_from)
            if dry_run:
                for copy in copies:
                    if not copy.held():
                        out.print(f"{copy.kind} {copy.source} -> {copy.target}", soft_wrap=True)
                return
            failed = copy_missing(out, copies)
    except (MirrorError, ProgramError) as error:
        out.print(f"mirror: {error}", style="red", soft_wrap=True)
        raise typer.Exit(2) from None
    if failed:
        out.print("Run the command again: it goes on with what is missing.")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
