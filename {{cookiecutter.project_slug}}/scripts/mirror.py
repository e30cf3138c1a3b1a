"""Copy every chart and image that this repository uses into one registry.

The list is made from the repository itself: charts from every ``Chart.yaml`` and from Terraform's modules, images from
the rendered charts of both environments. ``mirror.yaml`` says where each comes from. What the registry already holds is
skipped, so a run that broke off goes on where it stopped.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.progress import Progress

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ("local", "production")
# An image stands in a pod's or a custom resource's `image`, or in an operator's `--…-image=` argument.
_IMAGE_ARGUMENT = re.compile(r"^--[a-z-]*image=(?P<image>\S+)$")


class MirrorError(Exception):
    """The mirror cannot be filled; the message says why and what to do."""


@dataclass(frozen=True, order=True)
class Chart:
    """A chart at one version; ``source`` is its repository, with scheme."""

    name: str
    version: str
    source: str


def run(*args: str) -> str:
    """Run a program and return its standard output.

    Raises:
        MirrorError: the program is missing, or it failed (its last line is in the message).
    """
    if not shutil.which(args[0]):
        raise MirrorError(f"{args[0]} is not installed; `make mirror` needs helm and crane")
    done = subprocess.run(args, capture_output=True, text=True, check=False, timeout=1800)
    if done.returncode:
        raise MirrorError(f"`{' '.join(args[:4])} ...`: {(done.stderr.strip() or 'failed').splitlines()[-1]}")
    return done.stdout


def charts(root: Path, sources: dict[str, str]) -> list[Chart]:
    """Return every upstream chart that the repository pins.

    Raises:
        MirrorError: ``mirror.yaml`` does not say where a chart comes from.
    """
    pinned = set()
    for file in sorted(root.glob("platform-apps/*/Chart.yaml")):
        for dependency in yaml.safe_load(file.read_text()).get("dependencies") or []:
            pinned.add((dependency["name"], str(dependency["version"])))
    pinned |= terraform_charts(root)
    unknown = sorted(name for name, _ in pinned if name not in sources)
    if unknown:
        raise MirrorError(f"mirror.yaml: charts has no entry for {', '.join(unknown)}: add who publishes it")
    return sorted(Chart(name, version, sources[name]) for name, version in pinned)


def terraform_charts(root: Path) -> set[tuple[str, str]]:
    """Return (name, version) of the charts that Terraform itself installs."""
    text = "\n".join(file.read_text() for file in sorted(root.glob("terraform/modules/*/main.tf")))
    return set(re.findall(r'chart\s*=\s*"([a-z-]+)"\s*\n\s*version\s*=\s*"([^"]+)"', text))


def images_of(documents: Iterator[object]) -> set[str]:
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
    """Yield every manifest of every chart, in both environments; ``packages`` holds the fetched upstream charts."""
    with tempfile.TemporaryDirectory() as scratch:
        for source in sorted([*root.glob("platform-apps/*/Chart.yaml"), *root.glob("k8s/helm-charts/*/Chart.yaml")]):
            folder = Path(shutil.copytree(source.parent, Path(scratch) / source.parent.name))
            for dependency in yaml.safe_load(source.read_text()).get("dependencies") or []:
                (folder / "charts").mkdir(exist_ok=True)
                shutil.copy2(packages / f"{dependency['name']}-{dependency['version']}.tgz", folder / "charts")
            yield from template(folder, folder)
        for name, version in sorted(terraform_charts(root)):
            if name == "argo-cd":
                yield from template(packages / f"{name}-{version}.tgz", root / "terraform/modules/argocd-server")


def template(chart: Path, values: Path) -> Iterator[object]:
    """Yield the manifests of a chart with the value files of each environment that stand in ``values``."""
    for environment in ENVIRONMENTS:
        files = [file for file in (values / "values.yaml", values / f"values-{environment}.yaml") if file.is_file()]
        options = [word for file in files for word in ("--values", str(file))]
        yield from yaml.safe_load_all(run("helm", "template", "mirror", str(chart), "--include-crds", *options))


def upstream(image: str, registry: str, sources: dict[str, str]) -> tuple[str, str]:
    """Return where an image comes from and its path below the mirror.

    Raises:
        MirrorError: ``mirror.yaml`` does not say which registry publishes it.
    """
    if registry and image.startswith(f"{registry}/"):
        path = image.removeprefix(f"{registry}/")
        first = path.split("/")[0]
        if first not in sources:
            raise MirrorError(f"mirror.yaml: images has no entry for {first} ({path}): add who publishes it")
        return f"{sources[first]}/{path}", path
    host, _, path = image.partition("/")
    if path and ("." in host or ":" in host):
        return image, path
    # Docker's short forms: `redis:8` is docker.io/library/redis:8.
    path = image if path else f"library/{image}"
    return f"docker.io/{path}", path


@dataclass(frozen=True)
class Copy:
    """One thing to copy, from ``source`` to ``target`` (with tags); a chart is pushed from its ``package``."""

    kind: str
    source: str
    target: str
    package: Path | None = None

    def make(self) -> None:
        """Copy it, with every platform of an image."""
        if self.package:
            run("helm", "push", str(self.package), f"oci://{self.target.rsplit('/', 1)[0]}")
        else:
            run("crane", "copy", self.source, self.target)


def held(reference: str) -> bool:
    """Tell whether the mirror already holds a reference."""
    try:
        run("crane", "digest", reference)
    except MirrorError:
        return False
    return True


def main(
    to: Annotated[str, typer.Option(help="Registry to fill, host/path (default: that of mirror.yaml).")] = "",
    charts_from: Annotated[Path | None, typer.Option(help="Take chart packages from this folder.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be copied, and copy nothing.")] = False,
    only: Annotated[str, typer.Option(help="Copy only `charts` or only `images`.")] = "",
) -> None:
    """Copy every chart and image of this repository into one registry; safe to repeat."""
    out = Console(highlight=False)
    try:
        failures = fill(out, to, charts_from, dry_run, only)
    except MirrorError as error:
        out.print(f"mirror: {error}", style="red", soft_wrap=True)
        raise typer.Exit(2) from None
    for failure in failures:
        out.print(f"failed: {failure}", style="red", soft_wrap=True)
    if failures:
        out.print(f"{len(failures)} copies failed; run the command again, it goes on with what is missing")
        raise typer.Exit(1)


def fill(out: Console, to: str, charts_from: Path | None, dry_run: bool, only: str) -> list[str]:
    """Copy what is missing and return a line for each copy that failed."""
    if only not in ("", "charts", "images"):
        raise MirrorError(f"--only {only}: type charts or images")
    sources = yaml.safe_load((ROOT / "mirror.yaml").read_text())
    registry = (to or sources["registry"]).rstrip("/")
    if "://" in registry:
        raise MirrorError(f"--to {registry}: leave out the scheme, such as {registry.split('://')[1]}")
    if not registry:
        raise MirrorError("no registry to fill: mirror.yaml has none, so name one with --to host/path")
    with tempfile.TemporaryDirectory() as scratch:
        packages = charts_from or Path(scratch)
        copies = planned(sources, registry, packages, fetch=not charts_from)
        copies = [copy for copy in copies if only in ("", f"{copy.kind}s")]
        if dry_run:
            for copy in copies:
                out.print(f"{copy.kind}  {copy.source} -> {copy.target}", soft_wrap=True)
            return []
        return copy_missing(out, copies)


def planned(sources: dict, registry: str, packages: Path, fetch: bool) -> list[Copy]:
    """Return every copy that fills ``registry``, charts first; ``fetch`` gets the charts into ``packages``."""
    copies = []
    for chart in charts(ROOT, sources["charts"]):
        if fetch:
            location = [f"{chart.source}/{chart.name}"]
            if not chart.source.startswith("oci://"):
                location = [chart.name, "--repo", chart.source]
            run("helm", "pull", *location, "--version", chart.version, "--destination", str(packages))
        # A tag has no `+`: Helm writes it as `_`.
        target = f"{registry}/{chart.name}:{chart.version.replace('+', '_')}"
        package = packages / f"{chart.name}-{chart.version}.tgz"
        copies.append(Copy("chart", f"{chart.source}/{chart.name}:{chart.version}", target, package))
    used = images_of(rendered(ROOT, packages))
    for source, path in sorted({upstream(image, sources["registry"], sources["images"]) for image in used}):
        copies.append(Copy("image", source, f"{registry}/{path}"))
    return copies


def copy_missing(out: Console, copies: list[Copy]) -> list[str]:
    """Make the copies that the mirror does not hold, and return a line for each that failed."""
    copied, failures = 0, []
    with Progress(console=out) as progress:
        for copy in progress.track(copies, description="copying"):
            if held(copy.target):
                continue
            try:
                copy.make()
                copied += 1
            except MirrorError as error:
                failures.append(f"{copy.kind} {copy.source}: {error}")
    out.print(f"{copied} copied, {len(copies) - copied - len(failures)} already there, {len(failures)} failed")
    return failures


if __name__ == "__main__":
    typer.run(main)
