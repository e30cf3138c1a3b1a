"""Everything that the doctor can find: findings.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import yaml


class Finding(NamedTuple):
    """The likely cause, and the command or file that mends it."""

    cause: str
    fix: str


FINDINGS = {
    slug: Finding(**texts)
    for slug, texts in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")).items()
}
