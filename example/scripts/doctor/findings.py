"""Everything that the doctor can find, read from the run-book: one section each below *Findings of the doctor*.

A section's heading is the finding's slug; its paragraphs *Cause* and *Fix* are what the doctor prints.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

RUNBOOK = Path(__file__).resolve().parents[2] / "docs" / "runbook.md"
_PART = re.compile(r"^\*\*(Cause|Fix)\.\*\* (.+?)(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)


class Finding(NamedTuple):
    """The likely cause, and the command or file that mends it."""

    cause: str
    fix: str


def read(text: str) -> dict[str, Finding]:
    """Return the findings of a run-book by slug.

    Raises:
        ValueError: a section lacks its cause or its fix; the message names it.
    """
    by_slug = {}
    for section in text.split("## Findings of the doctor", 1)[1].split("\n### ")[1:]:
        slug, _, body = section.partition("\n")
        parts = {name.lower(): " ".join(said.split()) for name, said in _PART.findall(body.strip())}
        if parts.keys() != {"cause", "fix"}:
            raise ValueError(f"{RUNBOOK.name}: section {slug} needs a paragraph **Cause.** and a paragraph **Fix.**")
        by_slug[slug.strip()] = Finding(**parts)
    return by_slug


FINDINGS = read(RUNBOOK.read_text(encoding="utf-8"))
