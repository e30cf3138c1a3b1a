"""The tests of the template. What a bake's own tools know of charts is not written again: `scripts` is their package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "{{cookiecutter.project_slug}}"))
