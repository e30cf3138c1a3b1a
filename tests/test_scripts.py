"""The cluster scripts with programs in their place that write down how they were called and answer as the real ones do."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import platforms

KIND = """case "$1 $2" in
  "version ") echo "kind v0.30.0 go1.25.1 linux/amd64" ;;
  "create cluster") cat >"$STATE/cluster.yaml" ;;
esac"""
KUBECTL = 'case "$*" in *version*) echo "Server Version: v1.34.4" ;; esac'


@dataclass(frozen=True)
class Machine:
    """A machine whose programs are scripts of ours; ``state`` is what they write to."""

    folder: Path
    state: Path

    def program(self, name: str, script: str) -> None:
        path = self.folder / name
        path.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >>"$STATE/calls"\n{script}\n')
        path.chmod(0o755)

    def run(self, script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}", "STATE": str(self.state)}
        env |= {"WAIT_SECONDS": "0"}
        return subprocess.run(
            ["bash", script, *arguments], env=env, capture_output=True, text=True, timeout=60, check=False
        )

    def calls(self, program: str) -> list[str]:
        return [line for line in (self.state / "calls").read_text().splitlines() if line.startswith(f"{program} ")]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path / "bin", tmp_path / "state")
    made.folder.mkdir()
    made.state.mkdir()
    made.program("docker", "")
    made.program("terraform", "echo Done.")
    made.program("kind", KIND)
    made.program("kubectl", KUBECTL)
    return made


@pytest.fixture
def committed(tmp_path: Path) -> Path:
    """A bake that is a Git repository with one commit."""
    folder = platforms.bake({}, tmp_path / "real")
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "Scaffold the platform"]):
        who = ["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", folder, *who, *command], check=True)
    return folder


def test_up_works_below_a_link(machine: Machine, committed: Path, tmp_path: Path) -> None:
    """Git speaks of the real path, the shell of the one that led here."""
    (tmp_path / "link").symlink_to(committed.parent)
    done = machine.run(tmp_path / "link" / committed.name / "scripts" / "up.sh")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f'hostPath: "{committed / ".git"}"' in (machine.state / "cluster.yaml").read_text()


@pytest.mark.parametrize(
    ("program", "answer", "said"),
    [
        ("kind", KIND.replace("0.30.0", "0.23.0"), "kind 0.23.0 is too old"),
        (
            "kubectl",
            KUBECTL.replace("1.34.4", "1.29.14"),
            "The cluster runs Kubernetes 1.29.14; the platform needs 1.30",
        ),
    ],
)
def test_up_says_what_is_too_old(machine: Machine, committed: Path, program: str, answer: str, said: str) -> None:
    machine.program(program, answer)
    done = machine.run(committed / "scripts" / "up.sh")
    assert done.returncode == 1
    assert said in done.stderr
    assert machine.calls("terraform") == []
