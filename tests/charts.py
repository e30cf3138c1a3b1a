"""Render the charts of a platform in this process (no helm binary, no cluster) and validate what comes out."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import helm_python as helm
import jsonschema
import kubernetes_validate
import yaml

from tests.pins import pinned
from tests.platforms import ROOT

ENVIRONMENTS = ("local", "production")
KUBERNETES = pinned("kubernetes").rpartition(".")[0]  # schemas are those of a minor version
SCHEMAS = Path(os.environ.get("CRD_SCHEMAS") or ROOT.parent / "shared" / "reference" / "schemas")
# It reads its two megabytes of definitions for every object.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)


def charts(platform: Path) -> list[Path]:
    """Every chart folder of a platform."""
    homes = ("platform-apps/*", "k8s/helm-charts/*", "terraform/modules/*/chart")
    return sorted(path.parent for home in homes for path in platform.glob(f"{home}/Chart.yaml"))


def release(chart: Path) -> dict[str, str]:
    """Release name and namespace that Argo CD gives the chart in this folder."""
    application = chart / "application.yaml"
    settings = yaml.safe_load(application.read_text()) if application.exists() else {}
    return {"name": chart.name, "namespace": settings.get("namespace", "default")}


def merge(base: dict, over: dict) -> dict:
    """`over` laid on `base`, as Helm lays one value file on another."""
    both = {
        key: merge(base[key], over[key])
        for key in base.keys() & over.keys()
        if isinstance(base[key], dict) and isinstance(over[key], dict)
    }
    return {**base, **over, **both}


def fact_files(platform: Path, environment: str) -> list[Path]:
    """What the folders of a platform say of themselves, in the order in which Argo CD hands it to Helm."""
    names = ("platform.yaml", f"platform-{environment}.yaml")
    homes = ("platform-apps", "k8s/helm-charts")
    return [file for name in names for home in homes for file in sorted(platform.glob(f"{home}/*/{name}"))]


def value_files(chart: Path, environment: str) -> list[Path]:
    """The value files that Argo CD gives the chart in this folder, the strongest last."""
    facts = fact_files(chart.parent.parent, environment) if chart.parent.name == "platform-apps" else []
    own = (chart / "values.yaml", chart / f"values-{environment}.yaml")
    return [*facts, *(file for file in own if file.exists())]


def merged_values(chart: Path, environment: str) -> dict:
    """All values of a chart in an environment."""
    return functools.reduce(
        merge, (yaml.safe_load(file.read_text()) or {} for file in value_files(chart, environment)), {}
    )


def facts(platform: Path, environment: str) -> dict[str, dict]:
    """`global.platform` of every chart, by kind."""
    files = (yaml.safe_load(file.read_text()) or {} for file in fact_files(platform, environment))
    return functools.reduce(merge, files, {}).get("global", {}).get("platform", {})


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


_rendered: dict[tuple, dict[str, str]] = {}


def render(chart: Path, environment: str, dependencies: Path | None = None) -> list[dict]:
    """The Kubernetes objects of a chart in an environment.

    `dependencies` is a folder of packaged upstream charts; without it the chart's own templates are rendered alone.
    Equal folders are rendered once: most charts are the same in most platforms.
    """
    values = merged_values(chart, environment)
    key = (_digest(chart), json.dumps(values, sort_keys=True, default=str), dependencies, *release(chart).values())
    if key not in _rendered:
        with tempfile.TemporaryDirectory() as scratch:
            copy = prepared(chart, Path(scratch), dependencies)
            with helm.Chart.load(copy) as loaded:
                _rendered[key] = loaded.render(values, **release(chart))
    return list(objects(_rendered[key]))


def objects(manifests: dict[str, str]) -> Iterator[dict]:
    for name, text in manifests.items():
        if not name.endswith("NOTES.txt"):
            # As Helm splits them: a `---# comment` starts an object too.
            documents = (yaml.load(part, Loader=_Loader) for part in re.split(r"(?:^|\s*\n)---\s*", text))
            yield from (each for each in documents if each)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML 1.1 makes a value of a lone `=`; Kubernetes reads text."""


_Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: loader.construct_scalar(node))


def prepared(chart: Path, scratch: Path, dependencies: Path | None = None) -> Path:
    """A copy of a chart that renders offline: its dependency unpacked beside it, or no longer asked for."""
    copy = Path(shutil.copytree(chart, scratch / chart.name))
    metadata = yaml.safe_load((copy / "Chart.yaml").read_text())
    wanted = metadata.get("dependencies", [])
    if dependencies is None:
        metadata.pop("dependencies", None)
        (copy / "Chart.yaml").write_text(yaml.safe_dump(metadata))
        for lock in copy.glob("Chart.lock"):
            lock.unlink()
    for dependency in wanted if dependencies else []:
        archive = dependencies / f"{dependency['name']}-{dependency['version']}.tgz"
        (copy / "charts").mkdir(exist_ok=True)
        shutil.copy(archive, copy / "charts")
    return copy


@functools.cache
def _schema(kind: str, group_version: str) -> dict | None:
    path = SCHEMAS / f"{kind.lower()}-{group_version.replace('/', '-')}.json"
    return json.loads(path.read_text()) if path.exists() else None


@functools.cache
def _invalid(text: str) -> str | None:
    """Why this object is not one that Kubernetes takes; `unknown kind` where no schema is at hand."""
    each = json.loads(text)
    crd = _schema(each["kind"], each["apiVersion"])
    try:
        if crd:
            jsonschema.validate(each, crd)
        else:
            kubernetes_validate.validate(each, KUBERNETES, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        return f"unknown kind {each['apiVersion']} {each['kind']}"
    except jsonschema.ValidationError as error:
        return f"{error.json_path}: {error.message[:300]}"
    return None


def invalid(each: dict) -> str | None:
    """Strictly: an unknown field is an error. A schema of a custom resource is used where SCHEMAS holds it."""
    if not isinstance(each, dict) or "kind" not in each or "apiVersion" not in each:
        return f"not a Kubernetes object: {str(each)[:100]}"
    problem = _invalid(json.dumps(each, sort_keys=True, default=str))
    return f"{each['kind']}/{each['metadata'].get('name')}: {problem}" if problem else None
