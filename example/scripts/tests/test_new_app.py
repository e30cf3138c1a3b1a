"""What `make new-app` makes, and what it refuses."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from scripts.facts import facts, problems
from scripts.mirror import own_images
from scripts.new_app import HOME, ROOT, App, pattern, refusals, registry, write
from scripts.new_app import main as command

GIVEN = {"name": "quokka-1", "image": "registry.example.com:5000/team/quokka:1.2.3", "port": "9000"}
PATHS = {"route": "/items/{id}", "ready": "/ready", "live": "/"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """This repository's folders, to write to."""
    ignored = shutil.ignore_patterns("charts", "dashboards")
    for name in ("platform-apps", HOME):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "mirror.yaml", tmp_path)
    return tmp_path


def files(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(file.read_text())
    return content


def run(root: Path, *arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, [*arguments, "--repo", str(root)])
    return done.exit_code, done.output


def test_an_app_is_one_folder_that_says_all_of_itself(root: Path) -> None:
    before = files(root)
    folder = write(root, App(**GIVEN, **PATHS))
    assert {name: text for name, text in files(root).items() if not name.startswith(f"{HOME}/quokka-1/")} == before
    values, chart = read(folder / "values.yaml"), read(folder / "Chart.yaml")
    assert values["image"]["repository"] == "registry.example.com:5000/team/quokka"
    assert (chart["name"], chart["appVersion"]) == ("quokka-1", "1.2.3")
    assert (values["port"], values["serviceName"], values["env"]) == (9000, "quokka-1", {})
    assert values["probes"] == {"ready": "/ready", "live": "/"}
    application = read(folder / "application.yaml")
    assert application["namespace"] == "quokka-1"
    assert [each["path"] for each in application["sources"]] == [
        f"{HOME}/quokka-1",
        "platform-apps/otel-instrumentation",
    ]
    known = facts(root, "production")
    assert known["workloads"]["quokka-1"]["namespace"] == "quokka-1"
    assert known["apps"]["quokka-1"] == {"workload": "quokka-1"}
    assert (known["objectives"]["quokka-1"]["service"], known["objectives"]["quokka-1"]["route"]) == (
        "quokka-1",
        "/items/{id}",
    )
    assert problems(root) == []
    assert values["image"]["repository"] in own_images(root)


def test_nothing_of_the_app_it_is_made_from_is_left(root: Path) -> None:
    source = pattern(root)
    assert source
    names = {source.name, read(source / "values.yaml")["serviceName"]}
    folder = write(root, App(**GIVEN))
    said = "".join(files(folder).values())
    assert [name for name in names if re.search(rf"\b{name}\b", said, re.IGNORECASE)] == []
    schema = json.loads((folder / "values.schema.json").read_text())
    assert set(read(folder / "values.yaml")) == set(schema["properties"])
    assert set(schema["required"]) <= set(schema["properties"])


def test_an_app_can_be_made_from_one_that_was_made(root: Path) -> None:
    first = files(write(root, App(**GIVEN)))
    for folder in (root / HOME).iterdir():
        if folder.name != "quokka-1":
            shutil.rmtree(folder)
    second = files(write(root, App(**GIVEN | {"name": "quince"})))
    assert {name: text.replace("quince", "quokka-1") for name, text in second.items()} == first


TAKEN = ["argocd", "default", "observability", "grafana", "otel-instrumentation", "otel-scrape"]


@pytest.mark.parametrize(
    ("variable", "value", "instead"),
    [
        *(("NAME", name, f"{name}-app") for name in TAKEN),
        ("NAME", "", "app"),
        ("NAME", "Quokka_1", "quokka-1"),
        ("NAME", "2nd", "nd"),
        ("NAME", "demo-", "demo"),
        ("NAME", "x" * 43, "x" * 36),
        ("NAME", "true", "true-app"),
        ("NAME", "kube-kube-1", "app"),
        ("NAME", "../../etc", "etc"),
        ("IMAGE", "", None),
        ("IMAGE", "registry.example.com/Shop", "registry.example.com/shop"),
        ("IMAGE", "https://registry.example.com/shop", None),
        ("IMAGE", "reg..example.com/shop", None),
        ("IMAGE", "registry.example.com/shop@sha256:0", None),
        *(("PORT", port, "8000") for port in ("", "0", "65536", "http", "٨٠", "-1", "08")),
        *((variable, path, f"/{path}") for variable in ("ROUTE", "READY", "LIVE") for path in ("", "items")),
        ("ROUTE", '/"', "/"),
        ("ROUTE", "/{{ x }}", "/"),
        ("READY", "/a b", "/readyz"),
        ("LIVE", "/a\n", "/healthz"),
    ],
)
def test_a_refusal_says_what_to_type_instead_and_writes_nothing(
    root: Path, variable: str, value: str, instead: str | None
) -> None:
    before = files(root)
    instead = instead or f"{registry(root)}/quokka-1"
    typed = {**GIVEN, variable.lower(): value}
    (refused,) = refusals(root, App(**typed))
    assert (refused.variable, refused.value, refused.instead) == (variable, value, instead)
    code, said = run(root, *(f"--{key}={value}" for key, value in typed.items()))
    assert code == 2
    assert f"{variable}={value!r}: {refused.reason}." in said
    assert files(root) == before
    # What it proposes is accepted.
    (line,) = (line for line in said.splitlines() if line.startswith("  make new-app "))
    proposed = dict(word.split("=", 1) for word in shlex.split(line)[2:])
    assert proposed[variable] == instead
    assert list(refusals(root, App(**{key.lower(): value for key, value in proposed.items()}))) == []


def test_every_value_that_is_wrong_is_named(root: Path) -> None:
    code, said = run(root, "--name=No", "--image=No", "--port=no", "--route=no", "--ready=no no", "--live=no no")
    assert code == 2
    assert re.findall(r"^[A-Z]+(?==)", said, re.MULTILINE) == ["NAME", "IMAGE", "PORT", "ROUTE", "READY", "LIVE"]


def test_without_any_app_it_says_where_one_is(root: Path) -> None:
    shutil.rmtree(root / HOME)
    (root / HOME).mkdir()
    code, said = run(root, "--name=quokka-1")
    assert code == 2
    assert "git log" in said
    assert files(root / HOME) == {}
