"""Make what another app of this platform needs: one folder in k8s/helm-charts, and nothing outside it.

The chart is that of an app which is there, without what is that app's alone: its image, its settings, its tests. All
else that a platform has to know of an app follows from the folder (docs/architecture.md).
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from scripts.charts import HOMES
from scripts.facts import facts

ROOT = Path(__file__).resolve().parent.parent
HOME = "k8s/helm-charts"
INSTRUMENTATION = "platform-apps/otel-instrumentation"
# What Argo CD and Kubernetes have taken for themselves.
RESERVED = {"argocd", "default", "observability"}

# A Service's name, which starts with a letter; the Helm release of its Application has a prefix before it.
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,40}[a-z0-9])?")
# A registry's grammar of a name, and its port.
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"((?:{_PART}(?::[1-9][0-9]{{0,4}})?/)?{_PART}(?:/{_PART})*)(?::([A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?"
)
# It ends up between quotes in PromQL, TraceQL and alerts, and `{{` would be a template there.
_PATH = re.compile(r"/(?!.*(?:\{\{|\}\}))[^\s\"'`\\]*", re.ASCII)

ENV = """{{/* What the container is told in its environment. */}}
{{- define "NAME.env" -}}
{{- range $name, $value := .Values.env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- /* Kubernetes' questions are no traffic. Regular expressions, looked for in the whole URL. */}}
{{- $probes := list }}
{{- range without (uniq (list .Values.probes.ready .Values.probes.live)) "/" }}
{{- $probes = append $probes (printf "://[^/]+%s$" (regexQuoteMeta .)) }}
{{- end }}
{{- with $probes }}
- {name: OTEL_PYTHON_EXCLUDED_URLS, value: {{ join "," . | quote }}}
{{- end }}
{{- end }}
"""
ENV_SCHEMA = {
    "description": "Environment variables of the container.",
    "type": "object",
    "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}


@dataclass(frozen=True)
class App:
    """An app as it was asked for; ``port`` is text, because it is as it was typed."""

    name: str
    image: str
    port: str = "8000"
    route: str = "/"
    ready: str = "/readyz"
    live: str = "/healthz"


@dataclass(frozen=True)
class Refusal:
    """A value that cannot be: what was typed for which variable, why not, and what to type instead."""

    variable: str
    value: str
    reason: str
    instead: str


def taken(root: Path) -> dict[str, str]:
    """Return every name that an app cannot have, and what has it."""
    names = dict.fromkeys(RESERVED, "Kubernetes or Argo CD")
    known = facts(root, "local")
    for kind in ("objectives", "workloads", "apps"):
        names |= dict.fromkeys(known.get(kind, {}), f"an entry in {kind} of a platform.yaml")
    for file in (file for home in HOMES for file in root.glob(f"{home}/*/application.yaml")):
        names[yaml.safe_load(file.read_text(encoding="utf-8"))["namespace"]] = f"the namespace of {file.parent.name}"
    for file in (file for home in HOMES for file in root.glob(f"{home}/*/Chart.yaml")):
        names[file.parent.name] = f"the folder {file.parent.relative_to(root)}"
    return names


def registry(root: Path) -> str:
    """Return where the images of a repository's own apps are published."""
    own = yaml.safe_load((root / "mirror.yaml").read_text(encoding="utf-8")).get("own") or ["registry.example.com"]
    return str(own[0]).rstrip("/")


def refusals(root: Path, app: App) -> Iterator[Refusal]:
    """Yield what is wrong with an app; each ``instead`` is accepted when it is typed."""
    names = taken(root)
    name = _name(app.name, names)
    if not _NAME.fullmatch(app.name) or app.name.startswith("kube-") or yaml.safe_load(app.name) != app.name:
        reason = "not a name of 1 to 42 lower-case letters, digits and dashes that starts with a letter"
        if _NAME.fullmatch(app.name):
            reason = "YAML reads it as another type" if not app.name.startswith("kube-") else "kube- is Kubernetes' own"
        yield Refusal("NAME", app.name, reason, name)
    elif app.name in names:
        yield Refusal("NAME", app.name, f"taken by {names[app.name]}", name)
    if not _IMAGE.fullmatch(app.image):
        reason = "not an image: registry/path, optionally with :tag, in lower case"
        lower = app.image.lower()
        yield Refusal("IMAGE", app.image, reason, lower if _IMAGE.fullmatch(lower) else f"{registry(root)}/{name}")
    if not re.fullmatch(r"[1-9][0-9]{0,4}", app.port) or int(app.port) > 65535:
        yield Refusal("PORT", app.port, "not a port, a number from 1 to 65535", "8000")
    for variable, path, instead in (
        ("ROUTE", app.route, "/"), ("READY", app.ready, "/readyz"), ("LIVE", app.live, "/healthz")
    ):  # fmt: skip
        if not _PATH.fullmatch(path):
            fixed = f"/{path}"
            reason = "not a path: it starts with / and has no blanks, quotes, backslashes or double braces"
            yield Refusal(variable, path, reason, fixed if _PATH.fullmatch(fixed) else instead)


def _name(wanted: str, names: Mapping[str, str]) -> str:
    """Return the name nearest to a wanted one that an app can have."""
    base = re.sub(r"[^a-z0-9]+", "-", wanted.lower())
    base = re.sub(r"^(kube-|[-0-9])+", "", base)[:36].strip("-") or "app"
    tries = (base, f"{base}-app", *(f"{base}-{number}" for number in range(2, 1000)))
    return next(name for name in tries if name not in names and yaml.safe_load(name) == name)


def pattern(root: Path) -> Path | None:
    """Return the chart that a new one is made from; None where there is no app left."""
    return next((file.parents[1] for file in sorted(root.glob(f"{HOME}/*/templates/_env.tpl"))), None)


def write(root: Path, app: App) -> Path:
    """Make the folder of an app, whole or not at all, and return it.

    Raises:
        LookupError: no app's chart is left to make it from.
    """
    source = pattern(root)
    if not source:
        raise LookupError(f"no chart in {HOME} has templates/_env.tpl, so there is none to make another from")
    target = root / HOME / app.name
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new-") as scratch:
        folder = Path(scratch) / app.name
        own = shutil.ignore_patterns("tests", "charts", "application.yaml", "platform*.yaml", "_env.tpl")
        shutil.copytree(source, folder, ignore=own)
        _fill(folder, source.name, app)
        folder.rename(target)
    return target


def _fill(folder: Path, source: str, app: App) -> None:
    for file in folder.glob("templates/*"):
        text = file.read_text(encoding="utf-8")
        file.write_text(re.sub(rf'"{re.escape(source)}\.', f'"{app.name}.', text), encoding="utf-8")
    (folder / "templates/_env.tpl").write_text(ENV.replace("NAME", app.name, 1), encoding="utf-8")

    image = _IMAGE.fullmatch(app.image)
    assert image, "refusals() lets no other through"  # noqa: S101
    repository, tag = image.groups()
    chart = yaml.safe_load((folder / "Chart.yaml").read_text(encoding="utf-8"))
    chart |= {"name": app.name, "description": f"The service {app.name}", "version": "0.1.0"}
    _dump(folder / "Chart.yaml", chart | {"appVersion": tag or "0.1.0"}, "appVersion is the image's tag.")

    values = yaml.safe_load((folder / "values.yaml").read_text(encoding="utf-8"))
    values = {key: value for key, value in values.items() if key not in ("settings", "env")}
    values |= {"serviceName": app.name, "port": int(app.port), "probes": {"ready": app.ready, "live": app.live}}
    values |= {"image": {**values["image"], "repository": repository, "tag": "", "digest": ""}, "env": {}}
    _dump(folder / "values.yaml", values, "Every key is described in values.schema.json.")

    schema = json.loads((folder / "values.schema.json").read_text(encoding="utf-8"))
    schema["title"] = f"Values of the {app.name} chart"
    schema["required"] = [key for key in schema["required"] if key not in ("settings", "env")]
    schema["properties"] = {k: v for k, v in schema["properties"].items() if k != "settings"} | {"env": ENV_SCHEMA}
    (folder / "values.schema.json").write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")

    application = {
        # A namespace of its own: the Instrumentation resource in it belongs to one Application.
        "namespace": app.name,
        "requires": ["otel-instrumentation", "otel-operator", "otel-collector"],
        # The Instrumentation goes first, by its sync wave, so no pod starts before it would be instrumented.
        "sources": [{"path": f"{HOME}/{app.name}"}, {"path": INSTRUMENTATION}],
    }
    _dump(folder / "application.yaml", application, "How Argo CD deploys this folder: terraform/modules/argocd-app.")
    workload = {"namespace": app.name, "podLabels": {"app.kubernetes.io/name": app.name}, "ownPolicy": True}
    objective: dict[str, Any] = {"service": app.name, "route": app.route}
    objective |= {"availability": {"objective": 99}, "latency": {"objective": 95, "threshold": 1}}
    known = {
        "workloads": {app.name: workload},
        "apps": {app.name: {"workload": app.name}},  # by its service.name; the edge to the collector follows
        "objectives": {app.name: objective},
    }
    about = "What the rest of the platform has to know of this folder: docs/architecture.md."
    _dump(folder / "platform.yaml", {"global": {"platform": known}}, about)


def _dump(file: Path, content: Mapping[str, Any], comment: str) -> None:
    # One key at a time: PyYAML writes a map of scalars on one line, and the file itself is to be none.
    text = "".join(_yaml({key: value}) for key, value in content.items())
    file.write_text(f"# {comment}\n{text}", encoding="utf-8")


def _yaml(entry: dict[str, Any]) -> str:
    (value,) = entry.values()
    flow = yaml.dump(entry, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=sys.maxsize)
    if isinstance(value, (dict, list)) and all(len(line) <= 80 for line in flow.splitlines()):
        return flow
    return yaml.dump(entry, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=sys.maxsize)


class _Dumper(yaml.SafeDumper):
    """Lists are indented, as yamllint wants them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def main(
    name: Annotated[str, typer.Option(help="Name of the app, its namespace, Service and service.name.")] = "",
    image: Annotated[
        str | None, typer.Option(help="Its image, registry/path[:tag].", show_default="own registry/NAME:0.1.0")
    ] = None,
    port: Annotated[str, typer.Option(help="Port that its container listens on.")] = App.port,
    route: Annotated[str, typer.Option(help="Route of its objective, as its framework names it.")] = App.route,
    ready: Annotated[str, typer.Option(help="Path of its readiness probe.")] = App.ready,
    live: Annotated[str, typer.Option(help="Path of its liveness probe.")] = App.live,
    root: Annotated[Path, typer.Option("--repo", help="The repository.", show_default="this one")] = ROOT,
) -> None:
    """Make the folder of a new app. What is refused is named with a value that is not, and then nothing is written.

    Exit status: 0 it is made, 2 a value is refused.
    """
    # A name that is refused is not the image's fault.
    app = App(name, image if image is not None else f"{registry(root)}/{_name(name, {})}", port, route, ready, live)
    if refused := list(refusals(root, app)):
        for each in refused:
            print(f"{each.variable}={each.value!r}: {each.reason}.", file=sys.stderr)
        typed = {"NAME": name, "IMAGE": image, "PORT": port, "ROUTE": route, "READY": ready, "LIVE": live}
        given = {k: v for k, v in typed.items() if v is not None and v != getattr(App, k.lower(), None)}
        given |= {each.variable: each.instead for each in refused}
        print("Nothing was written. Type instead:", file=sys.stderr)
        print(f"  make new-app {' '.join(f'{k}={_quoted(v)}' for k, v in given.items())}", file=sys.stderr)
        raise typer.Exit(2)
    try:
        folder = write(root, app)
    except LookupError as error:
        print(f"{error}. Nothing was written. Type instead:", file=sys.stderr)
        print(f"  git log --diff-filter=D --oneline -- {HOME}   # and take one back from there", file=sys.stderr)
        raise typer.Exit(2) from None
    made = folder.relative_to(root)
    print(f"{made} is made. Look through its values.yaml and the objective in its platform.yaml, then:")
    print(f"  git add {made} && git commit -m 'Add {name}'")
    print("  make up                      # or, in a real cluster: git push && make apply ENV=production")
    print(f'  make doctor ARGS="--service {name}"')


def _quoted(value: str) -> str:
    # `$` is Make's own; a shell's quotes hold the rest.
    return value if re.fullmatch(r"[\w./:@%+=,-]+", value, re.ASCII) else "'" + value.replace("$", "$$") + "'"


if __name__ == "__main__":
    typer.run(main)
