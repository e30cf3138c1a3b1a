"""Answers, and the platforms baked from them."""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from cookiecutter.generate import generate_context
from cookiecutter.main import cookiecutter
from cookiecutter.prompt import prompt_for_config

ROOT = Path(__file__).resolve().parents[1]
ANSWERS = ROOT / "tests" / "answers"
VALID = {path.stem: path for path in sorted((ANSWERS / "valid").glob("*.yaml"))}
INVALID = {path.stem: path for path in sorted((ANSWERS / "invalid").glob("*.yaml"))}

PROMPTS = json.loads((ROOT / "cookiecutter.json").read_text())
CHOICES = {key: value for key, value in PROMPTS.items() if isinstance(value, list) and not key.startswith("_")}
# Baked("default") is the folder baked from tests/answers/valid/default.yaml.
Baked = Callable[[str], Path]
# The prompts that take any text.
FREE = [key for key, value in PROMPTS.items() if isinstance(value, str) and not key.startswith("_")]


def snapshot(folder: Path) -> Path:
    """A copy of the template as git sees it, uncommitted work included: no caches, and still while tests run."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        source, target = ROOT / name, folder / name
        if name and source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    return folder


def template() -> Path:
    """What the tests bake: one snapshot, made before the workers of a test run start, which inherit its name."""
    if "TEMPLATE_SNAPSHOT" not in os.environ:
        folder = tempfile.mkdtemp(prefix="template-")
        atexit.register(shutil.rmtree, folder)
        os.environ["TEMPLATE_SNAPSHOT"] = str(snapshot(Path(folder) / ROOT.name))
    return Path(os.environ["TEMPLATE_SNAPSHOT"])


def environment(**more: str) -> dict[str, str]:
    """What a person's command in a platform sees: nothing of the make that runs these tests, and one cache of mypy's."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("MAKE") and key != "VIRTUAL_ENV"}
    return {**own, "MYPY_CACHE_DIR": str(template().parent / "mypy"), **more}


# Settings of make with which a platform's tools run by the programs of these tests, and no .venv is made.
OWN_TOOLS = ("STAMP=", f"VENV={Path(sys.executable).parent}")


def load(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()) or {})


def literal(value: object) -> object:
    """Cookiecutter renders what it is given without asking; write `value` so that rendering gives it back."""
    if isinstance(value, str) and re.search(r"{[{%#]", value):
        return "{{ " + json.dumps(value, ensure_ascii=False) + " }}"
    return value


def complete(answers: Mapping[str, object]) -> dict[str, Any]:
    """Answers to every prompt: these, and the defaults that follow. Choices are taken as they are, also bad ones."""
    context = generate_context(context_file=str(ROOT / "cookiecutter.json"))
    for prompt, value in answers.items():
        context["cookiecutter"][prompt] = [value] if prompt in CHOICES else literal(value)
    return dict(prompt_for_config(context, no_input=True))


def bake(answers: Mapping[str, object], folder: Path) -> Path:
    """Bake below `folder` and return the platform's folder.

    The answers go in by a replay file, which Cookiecutter takes literally.
    Raises cookiecutter.exceptions.FailedHookException where the answers are refused.
    """
    with tempfile.TemporaryDirectory() as scratch:
        config, replay = Path(scratch, "config.yaml"), Path(scratch, "answers.json")
        config.write_text(yaml.safe_dump({"replay_dir": scratch, "cookiecutters_dir": scratch}))
        replay.write_text(json.dumps({"cookiecutter": complete(answers)}))
        folder.mkdir(parents=True, exist_ok=True)
        return Path(cookiecutter(str(template()), replay=str(replay), output_dir=str(folder), config_file=str(config)))


def bake_once(name: str, shared: Path) -> Path:
    """The platform of tests/answers/valid/<name>.yaml, baked once for all workers of a test run."""
    shared.mkdir(parents=True, exist_ok=True)
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = shared / f"{name}.path"
        if not done.exists():
            done.write_text(str(bake(load(VALID[name]), shared / name)))
        return Path(done.read_text())


def files(root: Path) -> list[Path]:
    """Every file of a platform, sorted; nothing that a tool left behind."""
    left_behind = {".git", ".venv", ".terraform", ".mypy_cache", ".ruff_cache", ".pytest_cache", "__pycache__"}
    paths = []
    for folder, names, entries in os.walk(root):
        names[:] = sorted(set(names) - left_behind)
        paths += [Path(folder, entry) for entry in sorted(entries)]
    return paths
