"""example/: what the default answers make, to look at without scaffolding. `make example` writes it anew."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tests import platforms

EXAMPLE = platforms.ROOT / "example"


def write() -> None:
    """Bake the default answers into example/."""
    with tempfile.TemporaryDirectory() as scratch:
        made = platforms.bake({}, Path(scratch))
        shutil.rmtree(EXAMPLE, ignore_errors=True)
        shutil.move(made, EXAMPLE)


if __name__ == "__main__":
    write()
