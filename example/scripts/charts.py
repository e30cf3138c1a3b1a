"""The charts of a repository: what they pin, their values in an environment, and what Helm makes of them."""

from __future__ import annotations

import functools
import json
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hcl2
import yaml
from hcl2 import SerializationOptions

from .programs import run

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ("local", "production")
HOMES = ("platform-apps", "k8s/helm-charts")  # of the chart folders
# Charts refuse a version that is too old, and Helm alone assumes the one that it was built with.
KUBERNETES = "1.34.4"
# Terraform installs Argo CD itself, with the value files of this folder.
ARGO_CD = "terraform/modules/argocd-server"
# An image stands in a pod's or a custom resource's `image`, or in an operator's `--…-image=` argument.
_IMAGE_ARGUMENT = re.compile(r"^--[a-z0-9-]*image=(?P<image>\S+)$")


class UnreadableError(Exception):
    """A file of the repository is no valid YAML or JSON; the message says which and where."""


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # ten times faster, where there is one
    """YAML 1.1 makes a value of a lone `=`; Kubernetes reads text."""


Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: loader.construct_scalar(node))


def folders(root: Path) -> list[Path]:
    """Return the chart folders of every component and app."""
    return sorted(file.parent for home in HOMES for file in root.glob(f"{home}/*/Chart.yaml"))


def namespace(folder: Path) -> str | None:
    """Return the namespace that a chart is deployed to, by its Application or by the one that it is a source of."""
    own, root = folder / "application.yaml", _root(folder)
    if not own.is_file():
        name = folder.relative_to(root).as_posix()
        files = (each / "application.yaml" for each in folders(root))
        of_others = (file for file in files if file.is_file() and name in _paths(_read(file)))
        own = next(of_others, own)
    return _read(own).get("namespace") if own.is_file() else None


@dataclass(frozen=True)
class Release:
    """What Argo CD makes of a chart: the Helm release's name, and values that are stronger than those of its files."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)


def releases(folder: Path) -> list[Release]:
    """Return the releases of a chart: one for each time that its own Application has it as a source."""
    own = folder / "application.yaml"
    sources = _read(own).get("sources") or [] if own.is_file() else []
    path = folder.relative_to(_root(folder)).as_posix()
    helm = [each.get("helm") or {} for each in sources if each.get("path") == path or each.get("chart") == folder.name]
    return [Release(each.get("releaseName", folder.name), each.get("valuesObject") or {}) for each in helm or [{}]]


def _paths(application: dict[str, Any]) -> list[str]:
    return [source.get("path", "") for source in application.get("sources") or []]


def _root(path: Path) -> Path:
    """Return the repository that a file or folder is in."""
    return next((parent for parent in path.parents if (parent / "platform-apps").is_dir()), path.parent)


def _parse(text: str) -> Any:
    return yaml.load(text, Loader)  # noqa: S506 - a child of the safe loader


def _read(file: Path) -> dict[str, Any]:
    try:
        return _parse(file.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise UnreadableError(f"{file.relative_to(_root(file))}: {' '.join(str(error).split())}") from None


# --- Values ---


def fact_files(root: Path, environment: str) -> list[Path]:
    """Return what the folders of a repository say of themselves, in the order in which Helm reads it."""
    names = ("platform.yaml", f"platform-{environment}.yaml")
    return [file for name in names for home in HOMES for file in sorted(root.glob(f"{home}/*/{name}"))]


def value_files(folder: Path, environment: str) -> list[Path]:
    """Return the value files that the chart in ``folder`` is given in an environment, the strongest last.

    In the same order as Argo CD (``terraform/modules/argocd-app``): only charts in platform-apps get what the folders
    say of themselves.
    """
    own = (folder / "values.yaml", folder / f"values-{environment}.yaml")
    known = fact_files(folder.parent.parent, environment) if folder.parent.name == "platform-apps" else []
    return [*known, *(file for file in own if file.is_file())]


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return ``over`` laid on ``base`` as Helm lays value files: maps are merged, all else is replaced."""
    both = base.keys() & over.keys()
    maps = {key: (base[key], over[key]) for key in both if isinstance(base[key], dict) and isinstance(over[key], dict)}
    return {**base, **over, **{key: merge(*pair) for key, pair in maps.items()}}


def load(files: Iterable[Path]) -> dict[str, Any]:
    """Return value files, each laid on those before it.

    Raises:
        UnreadableError: a file is no YAML.
    """
    merged: dict[str, Any] = {}
    for file in files:
        merged = merge(merged, _read(file))
    return merged


def values(folder: Path, environment: str) -> dict[str, Any]:
    """Return the merged values of the chart in ``folder`` in an environment."""
    return load(value_files(folder, environment))


# --- Upstream charts ---


def dependencies(folder: Path) -> set[tuple[str, str]]:
    """Return (name, version) of the upstream charts that the chart in ``folder`` pins."""
    return {(each["name"], str(each["version"])) for each in _read(folder / "Chart.yaml").get("dependencies") or []}


def pinned_charts(root: Path) -> set[tuple[str, str]]:
    """Return (name, version) of every upstream chart: the components' dependencies, and what Terraform installs."""
    return terraform_charts(root).union(*map(dependencies, folders(root)))


def terraform_charts(root: Path) -> set[tuple[str, str]]:
    """Return (name, version) of the upstream charts that Terraform itself installs; one in a folder has no version."""
    charts: set[tuple[str, str]] = set()
    return charts.union(*(_releases(file.read_text("utf-8")) for file in root.glob("terraform/modules/*/*.tf")))


@functools.cache
def _releases(text: str) -> frozenset[tuple[str, str]]:
    options = SerializationOptions(strip_string_quotes=True)
    resources = hcl2.loads(text, serialization_options=options).get("resource", [])
    releases = [release for block in resources for release in block.get("helm_release", {}).values()]
    return frozenset((release["chart"], release["version"]) for release in releases if "version" in release)


# --- Manifests ---


def template(folder: Path, environment: str, *options: str, chart: Path | None = None) -> str:
    """Return the manifests of the chart in ``folder`` in an environment, as Argo CD has them rendered: every release.

    ``chart`` is what to render instead with the same values: a copy of the folder, or a package.

    Raises:
        ProgramError: Helm is missing.
        CommandError: it does not render.
    """
    where = ["--namespace", namespace(folder) or "default", "--kube-version", KUBERNETES]
    made = []
    with tempfile.TemporaryDirectory() as scratch:
        for release in releases(folder):
            own = Path(scratch) / "values.json"
            own.write_text(json.dumps(release.values), encoding="utf-8")
            files = [word for file in (*value_files(folder, environment), own) for word in ("--values", str(file))]
            made.append(run("helm", "template", release.name, str(chart or folder), *where, *options, *files))
    return "".join(made)


def documents(text: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of rendered manifests, split as Helm splits them: a `---# comment` starts an object too."""
    for part in re.split(r"(?:^|\s*\n)---\s*", text):
        if document := _parse(part):
            yield document


def images(objects: Iterable[object]) -> set[str]:
    """Return every image reference in Kubernetes objects."""
    images: set[str] = set()
    pending = list(objects)
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            image = node.get("image")
            if isinstance(image, str) and image:
                images.add(image)
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
        elif isinstance(node, str) and (match := _IMAGE_ARGUMENT.match(node)):
            images.add(match["image"])
    return images
