"""Render every chart as Argo CD would for an environment, one file a chart."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

from .charts import ROOT, folders, namespace, template
from .programs import ProgramError, run


def fetch(folder: Path) -> None:
    """Get the upstream charts that the chart in ``folder`` pins, unless they lie beside it.

    Raises:
        CommandError: they cannot be had.
    """
    rows = run("helm", "dependency", "list", str(folder)).splitlines()[1:]
    # The status of a dependency is its last column: ok, missing, wrong version.
    if any(row.split()[-1] != "ok" for row in rows if row.strip()):
        run("helm", "dependency", "update", str(folder))


def main(
    environment: Annotated[str, typer.Argument(help="local or production.")] = "local",
    out: Annotated[Path | None, typer.Argument(help="Output folder (default: build/rendered/ENVIRONMENT).")] = None,
) -> None:
    """Render every chart for an environment."""
    out = out or ROOT / "build" / "rendered" / environment
    tfvars = f"terraform/environments/{environment}.tfvars"
    try:
        if not (ROOT / tfvars).is_file():
            raise ProgramError(f"no environment '{environment}': there is no {tfvars}")
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)

        def render(folder: Path) -> Path:
            fetch(folder)
            file = out / f"{folder.name}.yaml"
            file.write_text(template(folder, environment, "--include-crds"), encoding="utf-8")
            return file

        with ThreadPoolExecutor() as pool:
            for file in pool.map(render, filter(namespace, folders(ROOT))):  # the others have no Application
                typer.echo(f"{file.stem:20} {file}")
    except ProgramError as error:
        typer.echo(f"render: {error}", err=True)
        raise typer.Exit(2) from None


if __name__ == "__main__":
    typer.run(main)
