"""Follow the logs of an app or a component, every pod of it, until Ctrl-C."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import Annotated, Any

import typer

from .charts import ROOT, UnreadableError, fact_files, load
from .doctor.model import MissingError
from .doctor.repository import Repository
from .facts import named
from .programs import ProgramError, required

# Where a folder's pods have a namespace of their own, all of them but those of jobs.
EVERY_POD = "!batch.kubernetes.io/job-name"


class UnknownError(Exception):
    """Nothing of that name has pods; the message has the names."""


def workloads(root: Path, environment: str, name: str) -> dict[str, dict[str, Any]]:
    """Return the workloads that ``name`` is, or that the folder ``name`` describes; without one, those of every app.

    Raises:
        UnknownError: it is neither.
    """
    files = fact_files(root, environment)
    facts = named(load(files))
    known = facts.get("workloads", {})
    if name:
        of_folder = named(load(file for file in files if file.parent.name == name)).get("workloads", {})
        wanted = [name] if name in known else list(of_folder)
    else:
        wanted = [app["workload"] for app in facts.get("apps", {}).values()]
    if not wanted:
        of = f"'{name}' has no pods" if name else "there is no app here"
        raise UnknownError(f"{of}; APP= one of: {', '.join(sorted(known))}")
    return {each: known[each] for each in sorted(wanted)}


def command(workload: dict[str, Any], context: str | None, tail: int) -> list[str]:
    """Return the kubectl that follows a workload, each line after its pod and container."""
    labels = ",".join(f"{key}={value}" for key, value in workload.get("podLabels", {}).items())
    where = [*(["--context", context] if context else []), "--namespace", workload["namespace"]]
    # By default five pods at most.
    options = ["--follow", "--prefix", "--all-containers", "--ignore-errors", "--max-log-requests=50"]
    return ["kubectl", *where, "logs", *options, f"--tail={tail}", f"--selector={labels or EVERY_POD}"]


def main(
    environment: Annotated[str, typer.Argument(help="local or production.")] = "local",
    name: Annotated[str, typer.Option("--app", help="App, component or workload (default: every app).")] = "",
    context: Annotated[str | None, typer.Option(envvar="KUBE_CONTEXT", help="Context of the kubeconfig.")] = None,
    tail: Annotated[int, typer.Option(help="How many earlier lines of each container to show first.")] = 20,
) -> None:
    """Follow the logs of an app or a component until Ctrl-C."""
    try:
        required("kubectl")
        context = context or Repository(ROOT, environment).kube_context
        found = workloads(ROOT, environment, name)
    except (MissingError, ProgramError, UnknownError, UnreadableError) as error:
        typer.echo(f"logs: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(f"Following {', '.join(found)}; Ctrl-C stops.", err=True)
    following = [subprocess.Popen(command(workload, context, tail)) for workload in found.values()]
    with contextlib.suppress(KeyboardInterrupt):  # kubectl has had the signal too
        raise typer.Exit(max(process.wait() for process in following))


if __name__ == "__main__":
    typer.run(main)
