"""Renovate reads every pin of a platform: no version stands in a file where no manager of renovate.json finds it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import platforms
from tests.pins import pinned
from tests.platforms import Baked

# What a pin looks like; a range (>= 1.9) or a major.minor (3.13) is none.
VERSION = re.compile(
    r"(?<![\w.@:/-])v?\d+\.\d+\.\d+(?:\.\d+)?(?![\w.]*/)|(?<=:)v?\d+\.\d+[\w.]*|@sha256:\w+|@[0-9a-f]{40}"
)
# Files that hold pins. Tests and documents name versions without pinning anything.
PINNING = ("*.yaml", "*.yml", "*.tf", "*.txt", "Dockerfile", "*.sh")
NOT_PINNING = ("app/tests", "scripts/tests", "platform-apps/thanos-ruler/tests", "docs", "terraform/tests")
VALUES = re.compile(r"values(-[a-z]+)?\.yaml")
# No versions of other people's software: own versions, addresses, and a setting of Grafana.
OWN = re.compile(r"0\.1\.0|0\.0\.0\.0|127\.0\.0\.1|169\.254\.\d+\.\d+|prometheusVersion: \S+")


def image_pins(value: object, key: str = "") -> Iterator[str]:
    """Images as Renovate's manager `helm-values` finds them: `…image: name:tag`, and `…image: {repository: …, tag: …}`."""
    if isinstance(value, dict):
        if key.lower().endswith("image") and value.get("repository") and value.get("tag"):
            yield str(value["tag"])
        for name, inner in value.items():
            yield from image_pins(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from image_pins(inner)
    elif isinstance(value, str) and key.lower().endswith("image") and ":" in value:
        yield value


def managed(path: str, text: str, renovate: dict[str, Any]) -> Iterator[str]:
    """The pieces of a file's text that a manager reads a version from."""
    name = path.rsplit("/", 1)[-1]
    if name == "Chart.yaml":
        yield from (f"version: {dependency['version']}" for dependency in yaml.safe_load(text).get("dependencies", []))
    if re.fullmatch(r"values(-[a-z]+)?\.yaml", name):
        yield from image_pins(yaml.safe_load(text))
    if re.fullmatch(r"requirements(-\w+)?\.txt", name):
        yield from re.findall(r"^[\w.-]+==\S+", text, re.MULTILINE)
    if path.startswith(".github/workflows/"):
        yield from re.findall(r"uses: \S+@[0-9a-f]{40} # v\S+", text)
    if name == "Dockerfile":
        yield from re.findall(r"^(?:FROM|ARG \w+=)\s*\S+", text, re.MULTILINE)
    if path.endswith(".tf"):
        yield from re.findall(r'source\s*=\s*"hashicorp/\w+"\n\s*version\s*=\s*"\S+"', text)
    yield from by_pattern(path, text, renovate)


def by_pattern(path: str, text: str, renovate: dict[str, Any]) -> Iterator[str]:
    """The pieces of a file's text that a manager of `customManagers` reads a version from."""
    for manager in renovate["customManagers"]:
        if any(re.search(pattern.strip("/"), path) for pattern in manager["managerFilePatterns"]):
            for pattern in manager["matchStrings"]:
                yield from (match[0] for match in re.finditer(pattern.replace("(?<", "(?P<"), text))


def unmanaged(folder: Path) -> list[str]:
    """Lines with a version that no manager reads, as `file: line`."""
    renovate = json.loads((folder / "renovate.json").read_text())
    unmanaged = []
    for file in sorted({file for pattern in PINNING for file in folder.rglob(pattern)}):
        path = file.relative_to(folder).as_posix()
        if path.startswith(NOT_PINNING) or "/charts/" in path or path.startswith((".venv", "build")):
            continue
        text = file.read_text()
        pieces = [piece for whole in managed(path, text, renovate) for piece in whole.splitlines()]
        for line in text.splitlines():
            bare = OWN.sub("", re.sub(r"(^|\s)#.*", "", line))
            if VERSION.search(bare) and not any(piece in line for piece in pieces):
                unmanaged.append(f"{path}: {line.strip()}")
    return unmanaged


@pytest.mark.parametrize("name", ["default", "everything"])
def test_every_pin_has_a_manager(platform: Baked, name: str) -> None:
    assert unmanaged(platform(name)) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        (".github/workflows/ci.yml", f"version: v{pinned('helm')}"),
        ("terraform/modules/argocd-app/main.tf", 'version = "2.0.5"'),
    ],
)
def test_a_pin_without_its_comment_is_found(platform: Baked, tmp_path: Path, file: str, line: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(re.sub("# renovate: .*", "", (platform("default") / file).read_text()))
    (tmp_path / "renovate.json").write_text((platform("default") / "renovate.json").read_text())
    assert f"{file}: {line}" in unmanaged(tmp_path)


def test_every_pin_of_the_template_has_a_manager() -> None:
    """Where Renovate looks is the template's own renovate.json; a platform's is checked in the platform."""
    renovate = json.loads((platforms.ROOT / "renovate.json").read_text())
    # Unless it is set, config:recommended has it ignore tests/, and the toolchain in there.
    ignored = renovate.get("ignorePaths", ["**/tests/**"])
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=platforms.ROOT, capture_output=True, check=True, text=True)
    unmanaged = []
    for path in filter(None, listed.stdout.split("\0")):
        name = path.rsplit("/", 1)[-1]
        inside = path.startswith("{{cookiecutter.project_slug}}/")
        if not ((inside and name in ("Chart.yaml",)) or name in ("toolchain.py", "Makefile") or VALUES.fullmatch(name)):
            continue
        if "/terraform/tests/" in path:  # made up
            continue
        if path.startswith("example/"):  # made from the rest
            assert any(fnmatch(path, pattern) for pattern in ignored), path
            continue
        if any(fnmatch(path, pattern.replace("**/", "*")) for pattern in ignored):
            unmanaged.append(f"{path} is ignored")
        text = (platforms.ROOT / path).read_text()
        pieces = [piece for whole in by_pattern(path, text, renovate) for piece in whole.splitlines()]
        for line in text.splitlines():
            bare = OWN.sub("", re.sub(r"(^|\s)#.*", "", line))
            if VERSION.search(bare) and not any(piece.strip() in line for piece in pieces):
                unmanaged.append(f"{path}: {line.strip()}")
    assert unmanaged == []
