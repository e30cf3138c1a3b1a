"""example/ is what the default answers make, byte for byte."""

from __future__ import annotations

from pathlib import Path

from tests import platforms
from tests.example import EXAMPLE
from tests.platforms import Baked


def contents(root: Path) -> dict[str, tuple[bytes, int]]:
    """Content and execute bits of every file, by its path."""
    return {
        path.relative_to(root).as_posix(): (path.read_bytes(), path.stat().st_mode & 0o111)
        for path in platforms.files(root)
    }


def test_the_example_is_what_the_default_answers_make(platform: Baked) -> None:
    assert platforms.load(platforms.VALID["default"]) == {}
    # As git has it: nothing of it may be ignored.
    shown, made = contents(platforms.template() / EXAMPLE.name), contents(platform("default"))
    other = sorted(name for name in {*shown, *made} if shown.get(name) != made.get(name))
    assert other == [], "the template has changed: make example, and commit what it does to a platform"
