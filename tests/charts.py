"""Render the charts of a platform in this process (no helm binary, no cluster) and validate what comes out."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python as helm
import jsonschema
import kubernetes_validate
import yaml
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for

import scripts.charts
from scripts.charts import ARGO_CD, Loader, documents, folders, merge, namespace, releases, terraform_charts, values
from scripts.charts import ENVIRONMENTS as ENVIRONMENTS
from tests.pins import pinned

KUBERNETES = pinned("kubernetes").rpartition(".")[0]  # schemas are those of a minor version
SCHEMAS = Path(os.environ.get("CRD_SCHEMAS", "/nonexistent"))


@functools.cache
def _pickled(text: str) -> bytes:
    return pickle.dumps(list(yaml.load_all(text, Loader)))


def parsed(text: str) -> Any:
    """The one document of a YAML text. Most platforms have the same texts, so each is parsed once, and pickle copies it."""
    (document,) = pickle.loads(_pickled(text)) or [None]
    return document


def all_parsed(text: str) -> list[Any]:
    """The documents of a YAML text."""
    return list(pickle.loads(_pickled(text)))


scripts.charts._parse = parsed
# It reads its two megabytes of definitions for every object.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)


def charts(platform: Path) -> list[Path]:
    """Every chart folder of a platform, Terraform's own among them."""
    return sorted(
        [*folders(platform), *(file.parent for file in platform.glob("terraform/modules/*/chart/Chart.yaml"))]
    )


def deployed_to(chart: Path) -> str:
    """The namespace that Argo CD deploys the chart in this folder to."""
    return namespace(chart) or "default"


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


_rendered: dict[tuple[Any, ...], dict[str, str]] = {}


def render(chart: Path, environment: str, dependencies: Path | None = None) -> list[dict[str, Any]]:
    """The Kubernetes objects of a chart in an environment.

    `dependencies` is a folder of packaged upstream charts; without it the chart's own templates are rendered alone.
    Equal folders with equal values are rendered once: most charts are the same in most platforms.
    """
    given = json.dumps(values(chart, environment), sort_keys=True, default=str)
    key = (_digest(chart), given, dependencies, chart.name, deployed_to(chart))
    if key not in _rendered:
        _rendered[key] = rendered(chart, environment, dependencies)
    return list(objects(_rendered[key]))


def rendered(chart: Path, environment: str, dependencies: Path | None = None) -> dict[str, str]:
    """The text of every template of a chart, by release and name, rendered anew."""
    given, where = values(chart, environment), deployed_to(chart)
    made: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        copy = prepared(chart, Path(scratch), dependencies)
        for each in releases(chart):
            texts = _made(copy, merge(given, each.values), name=each.name, namespace=where)
            made |= {f"{each.name}/{name}": text for name, text in texts.items()}
    return made


def render_argo_cd(platform: Path, environment: str, dependencies: Path) -> list[dict[str, Any]]:
    """The Kubernetes objects of Argo CD itself: Terraform installs its chart with the value files of a module."""
    ((name, version),) = [pin for pin in terraform_charts(platform) if pin[0] == "argo-cd"]
    given = values(platform / ARGO_CD, environment)
    return list(objects(_made(dependencies / f"{name}-{version}.tgz", given, name="argocd", namespace="argocd")))


def _made(chart: Path, given: dict[str, Any], **of_release: Any) -> dict[str, str]:
    with helm.Chart.load(chart) as loaded:
        return loaded.render(given, **of_release)


def objects(manifests: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The Kubernetes objects of rendered templates."""
    return (each for name, text in manifests.items() if not name.endswith("NOTES.txt") for each in documents(text))


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
        assert dependencies
        archive = dependencies / f"{dependency['name']}-{dependency['version']}.tgz"
        (copy / "charts").mkdir(exist_ok=True)
        shutil.copy(archive, copy / "charts")
    return copy


@functools.cache
def _custom(kind: str, group_version: str) -> Validator | None:
    """What judges a custom resource, where SCHEMAS holds its schema."""
    path = SCHEMAS / f"{kind.lower()}-{group_version.replace('/', '-')}.json"
    if not path.exists():
        return None
    schema = json.loads(path.read_text())
    return validator_for(schema)(schema)


@functools.cache
def _invalid(text: str) -> str | None:
    """Why this object is not one that Kubernetes takes; `unknown kind` where no schema is at hand."""
    each = json.loads(text)
    custom = _custom(each["kind"], each["apiVersion"])
    try:
        if custom:
            custom.validate(each)
        else:
            kubernetes_validate.validate(each, KUBERNETES, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        return f"unknown kind {each['apiVersion']} {each['kind']}"
    except jsonschema.ValidationError as error:
        return f"{error.json_path}: {error.message[:300]}"
    return None


def invalid(each: dict[str, Any]) -> str | None:
    """Strictly: an unknown field is an error. A schema of a custom resource is used where SCHEMAS holds it."""
    if not isinstance(each, dict) or "kind" not in each or "apiVersion" not in each:
        return f"not a Kubernetes object: {str(each)[:100]}"
    problem = _invalid(json.dumps(each, sort_keys=True, default=str))
    return f"{each['kind']}/{each['metadata'].get('name')}: {problem}" if problem else None
