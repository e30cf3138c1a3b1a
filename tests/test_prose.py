"""Prose keeps to the line length of .editorconfig, in this repository and in its bakes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import platforms
from tests.platforms import Baked

(LIMIT,) = {
    int(found)
    for file in (".editorconfig", "{{cookiecutter.project_slug}}/.editorconfig")
    for found in re.findall(r"^max_line_length = (\d+)", (platforms.ROOT / file).read_text(), re.MULTILINE)
}
# A row of a table is one line, and a word cannot be broken.
WHOLE = re.compile(r"\s*\||\s*\S+$")
# A line that is nothing but a comment.
COMMENT = re.compile(r"\s*(#|//)\s")


def too_long(path: Path) -> Iterator[str]:
    """The lines of a page, or the comments of another file, that are longer than LIMIT."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        prose = path.suffix == ".md" or COMMENT.match(line)
        if prose and len(line) > LIMIT and not WHOLE.match(line):
            yield f"{path.name}:{number}: {len(line)} characters: {line.strip()[:60]}"


@pytest.mark.parametrize("name", platforms.VALID)
def test_the_prose_of_a_platform(name: str, platform: Baked) -> None:
    assert [found for path in platforms.files(platform(name)) for found in too_long(path)] == []


def test_the_prose_of_this_repository() -> None:
    root = platforms.template()
    own = [path for path in platforms.files(root) if not path.is_relative_to(root / "{{cookiecutter.project_slug}}")]
    binary = {".png", ".svg"}
    assert [found for path in own if path.suffix not in binary for found in too_long(path)] == []


def test_links_lead_somewhere() -> None:
    pages = [path for path in platforms.files(platforms.template()) if path.suffix == ".md"]
    links = {
        (page, target)
        for page in pages
        if "{{" not in str(page)
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text())
    }
    assert len(links) > 20
    assert [f"{page.name}: {target}" for page, target in sorted(links) if not (page.parent / target).exists()] == []


def test_what_is_too_long_is_noticed(tmp_path: Path) -> None:
    long = "word " * 30
    for name, text, found in (
        ("page.md", f"{long}\n| {long} |\n{'x' * 200}\n", 1),
        ("values.yaml", f"# {long}\nkey: {long}\n  # {long}\n", 2),
    ):
        (tmp_path / name).write_text(text)
        assert len(list(too_long(tmp_path / name))) == found
