"""What the component folders say: the value files of a chart, and of these the facts that every chart knows.

The same order as Argo CD's (``terraform/modules/argocd-app``) and ``scripts/render.sh``: ``platform.yaml`` of every
folder, then ``platform-<environment>.yaml`` of every folder, then the chart's own ``values.yaml`` and
``values-<environment>.yaml``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

HOMES = ("platform-apps", "k8s/helm-charts")


def merge(base: dict, over: dict) -> dict:
    """Return ``over`` laid on ``base`` as Helm lays value files: maps are merged, all else is replaced."""
    both = {key: merge(base[key], over[key]) for key in base.keys() & over.keys() if _maps(base[key], over[key])}
    return {**base, **over, **both}


def _maps(*values: object) -> bool:
    return all(isinstance(value, dict) for value in values)


def load(files: list[Path]) -> dict[str, Any]:
    """Return value files, each laid on those before it."""
    merged: dict[str, Any] = {}
    for file in files:
        merged = merge(merged, yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    return merged


def fact_files(root: Path, environment: str) -> list[Path]:
    """Return what the folders of a repository say of themselves, in the order in which Helm reads it."""
    names = ("platform.yaml", f"platform-{environment}.yaml")
    return [file for name in names for home in HOMES for file in sorted(root.glob(f"{home}/*/{name}"))]


def value_files(folder: Path, environment: str) -> list[Path]:
    """Return the value files of a chart's folder, the strongest last; only charts in platform-apps get the facts."""
    own = [folder / "values.yaml", folder / f"values-{environment}.yaml"]
    known = fact_files(folder.parent.parent, environment) if folder.parent.name == "platform-apps" else []
    return [*known, *(file for file in own if file.is_file())]


def facts(root: Path, environment: str) -> dict[str, Any]:
    """Return ``global.platform`` as every chart of a repository sees it; a fact that is null is none."""
    return named(load(fact_files(root, environment)))


def named(values: dict[str, Any]) -> dict[str, Any]:
    """Return the facts in merged value files, by kind and name."""
    known = values.get("global", {}).get("platform", {})
    return {kind: {name: fact for name, fact in each.items() if fact is not None} for kind, each in known.items()}


def problems(root: Path) -> list[str]:
    """Return what is wrong between the folders of a repository, in the words of its Terraform; empty: nothing."""
    folders = {file.parent.name for home in HOMES for file in root.glob(f"{home}/*/Chart.yaml")}
    found = []
    for file in sorted(file for home in HOMES for file in root.glob(f"{home}/*/application.yaml")):
        name, application = file.parent.name, yaml.safe_load(file.read_text(encoding="utf-8"))
        if missing := sorted(set(application.get("requires") or []) - folders):
            found.append(
                f"{name} cannot do without {', '.join(missing)}, which is not there. Put it back, or delete {name} "
                f"too, or, when something else does its work, take it out of `requires:` in {name}/application.yaml."
            )
    return found
