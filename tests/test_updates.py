"""A platform follows its template: cruft create, a team's edits, a change in the template, cruft update."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import platforms


def template_repository(folder: Path) -> Path:
    """The template as a git repository of its own, uncommitted work included."""
    platforms.snapshot(folder)
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder, "the template")
    return folder


@pytest.fixture
def template(tmp_path: Path) -> Path:
    return template_repository(tmp_path / "template")


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


def cruft(folder: Path, *arguments: str) -> str:
    # cruft reads the user's configuration of Cookiecutter from HOME.
    done = subprocess.run(
        [sys.executable, "-m", "cruft", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(folder.parent / "home")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def edit(path: Path, change: Callable[[str], str]) -> None:
    before = path.read_text()
    after = change(before)
    assert after != before, f"the edit of {path.name} changes nothing"
    path.write_text(after)


def test_an_update_meets_a_team_s_edits(template: Path, tmp_path: Path) -> None:
    cruft(tmp_path, "create", str(template), "--no-input", "--output-dir", str(tmp_path / "out"))
    [platform] = (tmp_path / "out").iterdir()
    git(platform, "init", "--quiet", "--initial-branch=main")
    commit(platform, "scaffold")

    # What teams do: change a retention, add a component and a dashboard, change a target.
    edit(
        platform / "platform-apps/thanos-receive/values.yaml",
        lambda text: text.replace("retention: 15d", "retention: 20d"),
    )
    component = platform / "platform-apps/team-api"
    component.mkdir()
    (component / "Chart.yaml").write_text("apiVersion: v2\nname: team-api\nversion: 0.1.0\n")
    (component / "application.yaml").write_text("namespace: checkout\n")
    (platform / "platform-apps/grafana/dashboards/team.json").write_text(
        '{"uid": "team", "title": "Team", "panels": []}\n'
    )
    edit(platform / "Makefile", lambda text: text + "\nours: ## a target of the team\n\techo ours\n")
    commit(platform, "the team's work")

    # What the template does meanwhile: another default, a new file, a removed file, a change beside the team's.
    inside = template / "{{cookiecutter.project_slug}}"
    edit(
        inside / "platform-apps/thanos-receive/values.yaml",
        lambda text: text.replace("max-exemplars=100000", "max-exemplars=150000"),
    )
    edit(inside / "Makefile", lambda text: text.replace("PYTHON ?= python3\n", "PYTHON ?= python3.12\n"))
    (inside / "docs/new.md").write_text("# {{ cookiecutter.platform_name }}, new\n")
    (inside / "docs/upgrading.md").unlink()
    commit(template, "a change in the template")

    cruft(platform, "update", "--skip-apply-ask")
    assert [path.name for path in platform.rglob("*.rej")] == []
    assert "<<<<<<<" not in "".join(path.read_text() for path in platform.rglob("*.yaml"))

    receive = (platform / "platform-apps/thanos-receive/values.yaml").read_text()
    assert "max-exemplars=150000" in receive
    assert "retention: 20d" in receive
    makefile = (platform / "Makefile").read_text()
    assert "PYTHON ?= python3.12\n" in makefile
    assert "echo ours" in makefile
    assert (platform / "docs/new.md").read_text() == "# Acme Platform, new\n"
    assert not (platform / "docs/upgrading.md").exists()
    assert (component / "Chart.yaml").exists()
    commit(platform, "the update")
    cruft(platform, "check")


def test_an_update_without_a_change_does_nothing(template: Path, tmp_path: Path) -> None:
    cruft(tmp_path, "create", str(template), "--no-input", "--output-dir", str(tmp_path / "out"))
    [platform] = (tmp_path / "out").iterdir()
    git(platform, "init", "--quiet", "--initial-branch=main")
    commit(platform, "scaffold")
    cruft(platform, "update", "--skip-apply-ask")
    assert git(platform, "status", "--porcelain") == ""


def test_cruft_refuses_bad_answers_too(template: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cruft", "create", str(template), "--no-input", "--extra-context", '{"team": "kube-x"}'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(tmp_path / "home")},
    )
    assert done.returncode != 0
    assert "type: team-kube-x" in done.stderr
    assert not (tmp_path / "acme-platform").exists()


def test_a_release_is_taken_by_its_tag(template: Path, tmp_path: Path) -> None:
    git(template, "tag", "v0.0.1")
    edit(template / "{{cookiecutter.project_slug}}" / "Makefile", lambda text: f"# later than the release\n{text}")
    commit(template, "a change after the release")
    config = tmp_path / "config.yaml"
    config.write_text(f"cookiecutters_dir: {tmp_path}/templates\nreplay_dir: {tmp_path}/replay\n")
    command = [sys.executable, "-m", "cookiecutter", "--no-input", "--config-file", str(config)]
    for checkout, later in (["--checkout", "v0.0.1"], False), ([], True):
        out = tmp_path / f"out-{later}"
        subprocess.run(
            [*command, *checkout, "--output-dir", str(out), f"git+file://{template}"], check=True, capture_output=True
        )
        assert ("later than the release" in (out / "acme-platform" / "Makefile").read_text()) is later
