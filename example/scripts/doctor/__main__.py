"""``python -m scripts.doctor``."""

from .cli import app

app(prog_name="doctor")
