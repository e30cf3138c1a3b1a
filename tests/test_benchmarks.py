"""docs/benchmarks and the constants of `make capacity` come from one run."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/benchmarks/README.md").read_text()
CONSTANTS = yaml.safe_load((ROOT / "{{cookiecutter.project_slug}}/scripts/constants.yaml").read_text())


def test_the_page_tells_the_constants_that_capacity_counts_with() -> None:
    told = {
        name: (float(value), unit) for name, value, unit in re.findall(r"^\| `(\w+)` \| (\S+) \| (\S+) \|$", PAGE, re.M)
    }
    counted = {
        name: (entry["value"], entry["unit"])
        for name, entry in CONSTANTS.items()
        if entry["source"].startswith("measured")
    }
    assert told == counted


def test_no_other_file_repeats_a_constant() -> None:
    for path in (ROOT / "{{cookiecutter.project_slug}}").rglob("*"):
        if path.suffix in (".md", ".yaml") and path.name != "constants.yaml":
            assert not re.search(r"\d+ bytes (?:of memory )?each", path.read_text()), path
