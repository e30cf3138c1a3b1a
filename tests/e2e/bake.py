"""Bake a platform out of this template."""

from __future__ import annotations

from pathlib import Path

from cookiecutter.main import cookiecutter

TEMPLATE = Path(__file__).resolve().parents[2]


def bake(folder: Path, **answers: str) -> Path:
    """Bake into ``folder`` with the default answers and these, reading no user configuration; return the platform's folder."""
    return Path(
        cookiecutter(str(TEMPLATE), no_input=True, default_config=True, output_dir=str(folder), extra_context=answers)
    )
