"""The command line."""

from __future__ import annotations

import base64
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..charts import UnreadableError
from .checks import walk
from .cluster import Cluster
from .context import TARGETS, Context
from .model import MissingError, UnreachableError
from .report import as_json, first_broken, show
from .repository import Repository

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
ROOT = Path(__file__).resolve().parents[2]


def _url(backend: str, what: str) -> object:
    return typer.Option(f"--{backend}-url", envvar=f"{backend.upper()}_URL", help=what, show_default=False)


@app.command()
def doctor(
    collector_url: Annotated[str | None, _url("collector", "Health check of the collector.")] = None,
    router_url: Annotated[str | None, _url("router", "HTTP port of the Receive router.")] = None,
    receive_url: Annotated[str | None, _url("receive", "HTTP port of a Receive ingestor.")] = None,
    query_url: Annotated[str | None, _url("query", "Thanos Query.")] = None,
    tempo_url: Annotated[str | None, _url("tempo", "Tempo.")] = None,
    loki_url: Annotated[str | None, _url("loki", "Loki.")] = None,
    grafana_url: Annotated[str | None, _url("grafana", "Grafana.")] = None,
    alertmanager_url: Annotated[str | None, _url("alertmanager", "Alertmanager.")] = None,
    environment: Annotated[str, typer.Option("--env", envvar="ENV", help="Whose values files to read.")] = "local",
    repository: Annotated[Path, typer.Option("--repo", help="The repository to read.", show_default="this one")] = ROOT,
    context: Annotated[
        str | None,
        typer.Option(envvar="KUBE_CONTEXT", help="Context of the kubeconfig.", show_default="the environment's"),
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(help="Namespace of the app.", show_default="from the repository")
    ] = None,
    service: Annotated[
        str | None, typer.Option(help="service.name of the app.", show_default="every app of the repository")
    ] = None,
    since: Annotated[float, typer.Option(min=1, help="How far back to look for exemplars (seconds).")] = 3600,
    max_age: Annotated[float, typer.Option(min=1, help="How old the newest sample may be (seconds).")] = 120,
    settle: Annotated[float, typer.Option(min=0, help="How long a trace may take to arrive (seconds).")] = 15,
    timeout: Annotated[float, typer.Option(min=0.1, help="How long to wait for each answer (seconds).")] = 5,
    test_page: Annotated[bool, typer.Option("--test-page", help="Send a page that says it is a test.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    grafana_token: Annotated[str | None, typer.Option(envvar="GRAFANA_TOKEN", hidden=True)] = None,
    grafana_user: Annotated[str | None, typer.Option(envvar="GRAFANA_USER", hidden=True)] = None,
    grafana_password: Annotated[str | None, typer.Option(envvar="GRAFANA_PASSWORD", hidden=True)] = None,
) -> None:
    """Walk from the app to the dashboard, show the evidence at every hop, and name the first that is broken.

    Without addresses it looks into the cluster of the kubeconfig and forwards ports while it runs. With any --…-url it
    leaves the cluster alone and looks at those only. It prints no secret, and changes nothing, unless it is told to
    send a test page. Grafana's login comes from GRAFANA_TOKEN, or GRAFANA_USER and GRAFANA_PASSWORD, or in a cluster
    from the Secret grafana-admin.

    Exit status: 0 no hop is broken, 1 one is.
    """
    addresses = (
        *(collector_url, router_url, receive_url, query_url, tempo_url, loki_url, grafana_url),
        alertmanager_url,
    )
    given = dict(zip(TARGETS, addresses, strict=True))
    urls = {backend: url for backend, url in given.items() if url}
    with ExitStack() as stack:
        files = Repository(repository.resolve(), environment)
        try:
            services = [service] if service else sorted(files.facts.get("apps", {}))
        except UnreadableError:  # a hop of its own says which file, and why
            services = []
        try:
            cluster = None if urls else stack.enter_context(Cluster(context or files.kube_context, max(timeout, 10)))
        except MissingError as error:
            raise typer.BadParameter(str(error), param_hint="--env") from None
        seen = Context(
            repository=files,
            urls=urls,
            cluster=cluster,
            service=services[0] if services else "",
            app_namespace=namespace,
            since=since,
            max_age=max_age,
            settle=settle,
            timeout=timeout,
            test_page=test_page,
            grafana_token=grafana_token,
            grafana_auth=_login(grafana_user, grafana_password, None if grafana_token else cluster),
        )
        stack.callback(lambda: seen.http.close())
        console = Console(stderr=json_output)
        with console.status("looking …"):
            walked = list(walk(seen, *services[1:]))
    if json_output:
        sys.stdout.write(as_json(walked) + "\n")
    else:
        show(walked, console)
    raise typer.Exit(1 if first_broken(walked) else 0)


def _login(user: str | None, password: str | None, cluster: Cluster | None) -> tuple[str, str] | None:
    if user and password:
        return user, password
    if cluster:
        try:
            data = cluster.get("secret", "grafana-admin", "-n", "observability")["data"]
            name, secret = (base64.b64decode(data[key]).decode() for key in ("admin-user", "admin-password"))
            return name, secret
        except (MissingError, UnreachableError, KeyError):
            return None
    return None
