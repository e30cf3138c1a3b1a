"""Every valid file of answers becomes a platform that passes every check."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.charts import values
from tests import charts, platforms
from tests.checks import CHECKS
from tests.finders import deep
from tests.platforms import Baked


@pytest.mark.parametrize("name", platforms.VALID)
def test_bake(name: str, platform: Baked) -> None:
    answers = platforms.complete(platforms.load(platforms.VALID[name]))
    problems = [f"{label}: {line}" for label, check in CHECKS.items() for line in check(platform(name), answers)]
    assert not problems, "\n" + "\n".join(problems)


def test_every_pair_of_choices_occurs() -> None:
    """Each two answers of two choice prompts stand together in at least one file."""
    # Of a domain and a chart registry it matters whether they are there.
    options = {**platforms.CHOICES, "include_fluent_bit": [False, True], "domain": [False, True]}
    options["chart_registry"] = [False, True]
    rows = []
    for path in platforms.VALID.values():
        row = platforms.complete(platforms.load(path))
        rows.append({key: bool(row[key]) if options[key] == [False, True] else row[key] for key in options})
    refused = {("log_backend", "none", "include_fluent_bit", True)}
    missing = [
        (one, a, other, b)
        for one, other in itertools.combinations(options, 2)
        for a in options[one]
        for b in options[other]
        if (one, a, other, b) not in refused and not any(row[one] == a and row[other] == b for row in rows)
    ]
    assert not missing
    assert len(rows) >= 12


def test_two_bakes_are_the_same_bytes(platform: Baked, tmp_path: Path) -> None:
    for name in ("default", "everything"):
        again = platforms.bake(platforms.load(platforms.VALID[name]), tmp_path)
        one, two = (
            {path.relative_to(root): (path.read_bytes(), path.stat().st_mode) for path in platforms.files(root)}
            for root in (platform(name), again)
        )
        assert one == two


def test_every_tier_bakes_the_snapshot() -> None:
    """One function bakes, for the end-to-end suites too, and never from a working tree that may change under it."""
    importing = "from cookiecutter." + "main import"
    importers = [path.name for path in (platforms.ROOT / "tests").rglob("*.py") if importing in path.read_text()]
    assert importers == ["platforms.py"]
    assert platforms.template() == platforms.template() != platforms.ROOT
    assert platforms.ROOT not in platforms.template().parents


def test_every_way_of_answering_gives_the_same_platform(platform: Baked, tmp_path: Path) -> None:
    """Arguments, a configuration file and a replay (which made the shared bake)."""
    answers = platforms.load(platforms.VALID["everything"])
    command = [sys.executable, "-m", "cookiecutter", "--no-input", str(platforms.template())]
    config = tmp_path / "config.yaml"
    scratch = {"replay_dir": str(tmp_path / "replay"), "cookiecutters_dir": str(tmp_path / "templates")}
    config.write_text(yaml.safe_dump({"default_context": answers, **scratch}))
    empty = tmp_path / "empty.yaml"
    empty.write_text(yaml.safe_dump(scratch))
    ways = {
        "arguments": ["--config-file", str(empty), *(f"{key}={value}" for key, value in answers.items())],
        "config": ["--config-file", str(config)],
    }
    want = {p.relative_to(platform("everything")): p.read_bytes() for p in platforms.files(platform("everything"))}
    for way, arguments in ways.items():
        out = tmp_path / way
        options, extra = arguments[:2], arguments[2:]
        subprocess.run([*command[:-1], *options, "-o", str(out), command[-1], *extra], check=True, capture_output=True)
        root = out / str(answers["project_slug"])
        assert {path.relative_to(root): path.read_bytes() for path in platforms.files(root)} == want, way


@pytest.mark.parametrize("name", platforms.VALID)
def test_only_what_was_chosen_is_there(name: str, platform: Baked) -> None:
    answers = platforms.complete(platforms.load(platforms.VALID[name]))
    there = {path.name for path in (platform(name) / "platform-apps").iterdir()}
    chosen = {
        "thanos-store": answers["object_storage"] != "none",
        "loki": answers["log_backend"] == "loki",
        "fluent-bit": answers["include_fluent_bit"] is True,
        "external-secrets": answers["secrets_backend"] == "external-secrets",
        "sealed-secrets": answers["secrets_backend"] == "sealed-secrets",
    }
    always = {path.name for path in platforms.ROOT.glob("*/platform-apps/*")} - chosen.keys()
    assert there == always | {name for name, wanted in chosen.items() if wanted}


@pytest.mark.parametrize("name", platforms.VALID)
def test_the_platform_carries_its_answers(name: str, platform: Baked) -> None:
    """Free text arrives as it was typed, however it has to be quoted."""
    answers = platforms.complete(platforms.load(platforms.VALID[name]))
    root = platform(name)
    assert answers["platform_name"] in (root / "README.md").read_text()
    production: list[Any] = [values(chart, "production") for chart in charts.charts(root)]
    production += [yaml.safe_load(text) for text in deep(production, "objstoreConfig", "value") if text]
    buckets = [
        each for key in ("bucket", "bucket_name", "container", "container_name") for each in deep(production, key)
    ]
    if answers["object_storage"] != "none":
        assert answers["object_storage_bucket"] in buckets
    # `12345` and `true` are buckets too, and text
    assert all(isinstance(bucket, str) for bucket in buckets)


def test_custom_resources_have_a_schema(platform: Baked) -> None:
    """Which of our kinds the manifests check could not validate, and why."""
    if not charts.SCHEMAS.is_dir():
        pytest.skip(f"no schemas of custom resources: {charts.SCHEMAS} is not there (set CRD_SCHEMAS)")
    without = {
        problem.split(": ", 1)[1]
        for name in ("default", "everything")
        for chart in charts.charts(platform(name))
        for environment in charts.ENVIRONMENTS
        for problem in filter(None, map(charts.invalid, charts.render(chart, environment)))
        if "unknown kind" in problem
    }
    # These operators' schemas are not in the reference.
    assert {each for each in without if "external-secrets.io" not in each and "bitnami.com" not in each} == set()


@pytest.mark.parametrize(
    ("revision", "branch"),
    [("trunk", "trunk"), ("release/1.x", "release/1.x"), ("HEAD", "main"), ("refs/heads/trunk", "trunk"),
     ("refs/tags/v1", "main")],
)  # fmt: skip
def test_workflows_and_instructions_follow_the_revision(
    revision: str, branch: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = platforms.bake({"repo_revision": revision}, tmp_path)
    assert f"git init -b {branch} &&" in capfd.readouterr().out
    assert f"git init -b {branch} &&" in (folder / "README.md").read_text()
    assert "git init -b" not in (folder / "scripts" / "up.sh").read_text()  # copied: it cannot know
    for workflow in (folder / ".github" / "workflows").glob("*.yml"):
        push = yaml.load(workflow.read_text(), yaml.BaseLoader)["on"].get("push")
        assert push is None or push["branches"] == ["**"], workflow.name
