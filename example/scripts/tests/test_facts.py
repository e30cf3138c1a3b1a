"""What the folders say of themselves, and what cannot be without what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from scripts.charts import value_files
from scripts.facts import facts, problems

ROOT = Path(__file__).resolve().parents[2]


def component(root: Path, name: str, **files: object) -> Path:
    folder = root / "platform-apps" / name
    folder.mkdir(parents=True)
    for file, content in {"Chart": {"name": name}, "application": {"namespace": "observability"}, **files}.items():
        (folder / f"{file.replace('_', '-')}.yaml").write_text(yaml.safe_dump(content))
    return folder


def platform(**known: object) -> dict[str, Any]:
    return {"global": {"platform": known}}


def test_nothing_that_is_required_is_missing() -> None:
    assert problems(ROOT) == []


def test_a_folder_that_is_required_is_missed(tmp_path: Path) -> None:
    component(tmp_path, "collector", application={"namespace": "observability", "requires": ["operator"]})
    (said,) = problems(tmp_path)
    assert "collector cannot do without operator" in said
    component(tmp_path, "operator")
    assert problems(tmp_path) == []


def test_every_folder_hears_of_the_others_and_the_environment_wins(tmp_path: Path) -> None:
    first = component(
        tmp_path,
        "first",
        platform=platform(scrape={"first": {"port": 1}, "gone": {"port": 2}}),
        platform_production=platform(scrape={"first": {"port": 3}, "gone": None}),
        values={"a": 1},
    )
    component(tmp_path, "second", platform=platform(scrape={"first": {"host": "second"}}))
    assert facts(tmp_path, "local") == {"scrape": {"first": {"port": 1, "host": "second"}, "gone": {"port": 2}}}
    assert facts(tmp_path, "production") == {"scrape": {"first": {"port": 3, "host": "second"}}}
    names = [str(file.relative_to(tmp_path / "platform-apps")) for file in value_files(first, "production")]
    facts_first = ["first/platform.yaml", "second/platform.yaml", "first/platform-production.yaml"]
    assert names == [*facts_first, "first/values.yaml"]


def test_an_apps_chart_hears_of_nobody(tmp_path: Path) -> None:
    component(tmp_path, "first", platform=platform(scrape={}))
    app = tmp_path / "k8s" / "helm-charts" / "shop"
    app.mkdir(parents=True)
    (app / "values.yaml").touch()
    assert value_files(app, "local") == [app / "values.yaml"]
