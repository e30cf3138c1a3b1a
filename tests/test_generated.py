"""The platform's own commands, as its README gives them."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import platforms

# One worker makes one platform, and one .venv in it, for all of these.
pytestmark = pytest.mark.xdist_group("generated")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A platform that these tests may write to, with a name that needs quoting."""
    answers = {**platforms.load(platforms.VALID["default"]), "platform_name": 'Größe "1" {{ braces }} \\ it\'s'}
    return platforms.bake({**answers, "project_slug": "generated"}, tmp_path_factory.mktemp("generated"))


def run(folder: Path, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=platforms.environment(**env), capture_output=True, text=True)


def make(folder: Path, target: str) -> str:
    done = run(folder, "make", target)
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    return done.stdout


def test_make_lists_its_targets(copy: Path) -> None:
    listed = make(copy, "help")
    for target in (
        "run",
        "traffic",
        "test",
        "lint",
        "up",
        "down",
        "open",
        "apply",
        "secrets",
        "doctor",
        "mirror",
        "capacity",
        "status",
        "logs",
    ):
        assert f"  {target} " in listed


def test_its_own_tests_pass(copy: Path) -> None:
    """Simulator statistics and telemetry, and the tools in scripts/."""
    assert " passed" in make(copy, "test")


def test_its_own_lint_passes(copy: Path) -> None:
    make(copy, "lint")


def test_its_commit_hooks_pass(copy: Path, tmp_path: Path) -> None:
    """On every file, with Terraform where there is one and without it."""
    make(copy, "setup")
    for command in (["git", "init", "--quiet"], ["git", "add", "."]):
        assert run(copy, *command).returncode == 0
    hooks = [".venv/bin/pre-commit", "run", "--all-files"]
    done = run(copy, *hooks)
    assert done.returncode == 0, done.stdout + done.stderr
    without = tmp_path / "bin"
    without.mkdir()
    for program in ("bash", "env", "git"):
        (without / program).symlink_to(str(shutil.which(program)))
    done = run(copy, *hooks, PATH=str(without))
    assert done.returncode == 0, done.stdout + done.stderr
    assert run(copy, "git", "diff", "--exit-code").returncode == 0


def test_update_says_what_to_do_without_a_link_to_the_template(copy: Path) -> None:
    for command in (["make", "update"], ["scripts/update.sh"]):
        done = run(copy, *command)
        assert done.returncode != 0
        assert "docs/upgrading.md tells how to link it" in done.stderr
    assert "cruft link" in (copy / "docs" / "upgrading.md").read_text()


def test_a_broken_venv_heals_itself(copy: Path) -> None:
    """Its Python went away, or became another version with none of the packages."""
    make(copy, "setup")
    assert "venv" not in run(copy, "make", "--dry-run", "setup").stdout
    (packages,) = (copy / ".venv" / "lib").glob("python3*")
    packages.rename(packages.with_name("python3.1"))
    assert "-m venv --clear .venv" in run(copy, "make", "--dry-run", "setup").stdout
    python = copy / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    make(copy, "setup")
    assert run(copy, str(python), "-c", "import typer").returncode == 0
    assert "venv" not in run(copy, "make", "--dry-run", "setup").stdout


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of this machine on which something listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_taken_port_is_named_with_the_way_out(copy: Path, taken: int) -> None:
    make(copy, "setup")
    done = run(copy, "make", "run", f"PORT={taken}")
    assert done.returncode != 0
    assert f"port {taken} of this machine is taken" in done.stderr
    assert f"make run PORT={taken + 1}" in done.stderr


@contextmanager
def running(folder: Path, target: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """A target that ends with the block."""
    process = subprocess.Popen(
        ["make", target], cwd=folder, env=platforms.environment(**env), stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def test_traffic_shows_live_figures_and_the_next_peak(copy: Path) -> None:
    make(copy, "setup")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with running(copy, "run", PORT=port) as simulator:
        while run(copy, "bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}").returncode:
            assert simulator.poll() is None
            time.sleep(0.1)
        with running(copy, "traffic", PORT=port, RUN_TIME="300s") as traffic:
            assert traffic.stdout
            printed, live = "", re.compile(r"^ *(?!0\.0)[\d.]+ requests/s +\d+% failed", re.MULTILINE)
            while not live.search(printed):
                line = traffic.stdout.readline()
                assert line, f"it ended without live figures:\n{printed}"
                printed += line
    assert re.search(r"in \d+ s, for 30 s", printed)
