"""What the component folders say of themselves, for every chart to know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .charts import HOMES, fact_files, folders, load


def facts(root: Path, environment: str) -> dict[str, Any]:
    """Return ``global.platform`` as every chart of a repository sees it; a fact that is null is none."""
    return named(load(fact_files(root, environment)))


def named(values: dict[str, Any]) -> dict[str, Any]:
    """Return the facts in merged value files, by kind and name."""
    known = values.get("global", {}).get("platform", {})
    return {kind: {name: fact for name, fact in each.items() if fact is not None} for kind, each in known.items()}


def problems(root: Path) -> list[str]:
    """Return what is wrong between the folders of a repository, in the words of its Terraform; empty: nothing."""
    there, found = {folder.name for folder in folders(root)}, []
    for file in sorted(file for home in HOMES for file in root.glob(f"{home}/*/application.yaml")):
        name, application = file.parent.name, load([file])
        if missing := sorted(set(application.get("requires") or []) - there):
            found.append(
                f"{name} cannot do without {', '.join(missing)}, which is not there. Put it back, or delete {name} "
                f"too, or, when something else does its work, take it out of `requires:` in {name}/application.yaml."
            )
    return found
