"""A repository made by an earlier template, edited as teams edit theirs, takes the present template in without a conflict."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import cruft
import pytest

from scripts.charts import pinned_charts
from tests import platforms
from tests.e2e.gitops.conftest import ANSWERS, MIRROR
from tests.e2e.gitops.platform import WEBHOOKS_OFF, Platform, git, write_overlay
from tests.e2e.gitops.rendering import render
from tests.e2e.gitops.upstream import packages

# The commit of the template that the repository is made from.
FROM = os.environ.get("E2E_UPDATE_FROM", "HEAD~1")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template's repository with the working tree as its newest commit, and the tag ``before`` on the earlier one."""
    known = subprocess.run(
        ["git", "-C", platforms.ROOT, "rev-parse", "--verify", "--quiet", f"{FROM}^{{commit}}"],
        check=False,
        capture_output=True,
        text=True,
    )
    if known.returncode:
        pytest.skip(f"the template's history does not reach {FROM}: fetch it, or set E2E_UPDATE_FROM")
    copy = tmp_path_factory.mktemp("template") / "template"
    git(platforms.ROOT, "clone", "--quiet", "--no-hardlinks", str(platforms.ROOT), str(copy))
    git(copy, "tag", "before", known.stdout.strip())
    git(copy, "rm", "-r", "--quiet", ".")
    shutil.copytree(platforms.template(), copy, dirs_exist_ok=True)
    # The update must bring something even where the working tree is the earlier commit.
    readme = copy / "{{cookiecutter.project_slug}}" / "docs" / "news.md"
    readme.parent.mkdir(exist_ok=True)
    readme.write_text("# News\n\nFrom the template's newest commit.\n")
    git(copy, "add", "--all")
    git(copy, "commit", "--quiet", "-m", "The working tree")
    return copy


def edit(folder: Path) -> dict[Path, str]:
    """Make the edits that teams make; return the content of each file that was touched."""
    new = folder / "platform-apps" / "team-notes"
    (new / "templates").mkdir(parents=True)
    (new / "Chart.yaml").write_text("apiVersion: v2\nname: team-notes\nversion: 0.1.0\n")
    (new / "values.yaml").write_text("text: hello\n")
    (new / "application.yaml").write_text("namespace: observability\n")
    (new / "templates" / "note.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: team-notes\ndata:\n  text: {{ .Values.text }}\n"
    )
    dashboards = folder / "platform-apps" / "grafana" / "dashboards"
    (dashboards / "team.json").write_text(json.dumps({"uid": "team", "title": "Team", "panels": []}))
    receive = folder / "platform-apps" / "thanos-receive" / "values.yaml"
    receive.write_text(receive.read_text().replace("retention: 15d", "retention: 30d", 1))
    makefile = folder / "Makefile"
    text = makefile.read_text()
    target = "help:  ##"
    assert text.count(target) == 1
    makefile.write_text(text.replace(target, "greet:  ## greet the team\n\t@echo hello\n\n" + target))
    touched = [*new.rglob("*.yaml"), dashboards / "team.json", receive, makefile]
    return {path.relative_to(folder): path.read_text() for path in touched}


@pytest.fixture(scope="module")
def updated(
    template: Path, platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[Path, str]]:
    """The updated repository, and what the team had written."""
    answers = {
        **ANSWERS,
        "chart_registry": f"{platform.registry.host}/{MIRROR}",
        "oci_registry": f"{platform.registry.host}/acme",
    }
    root = tmp_path_factory.mktemp("update")
    folder = cruft.create(
        str(template), output_dir=root, checkout="before", no_input=True, default_config=True, extra_context=answers
    )
    git(folder, "init", "--quiet", "-b", "main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "Scaffold the platform")
    edits = edit(folder)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "What the team needs")
    who = dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "e2e")
    mail = dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "e2e@example.com")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**who, **mail}.items():
            patch.setenv(name, value)
        assert cruft.update(folder, skip_apply_ask=True)
    return folder, edits


def test_no_conflict(updated: tuple[Path, dict[Path, str]]) -> None:
    folder, _ = updated
    assert list(folder.rglob("*.rej")) == []
    assert list(folder.rglob("*.orig")) == []
    assert git(folder, "diff", "--name-only", "--diff-filter=U") == ""
    for path in git(folder, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        if (folder / path).is_file():
            assert b"\n<<<<<<< " not in (folder / path).read_bytes(), path


def test_update_brings_what_is_new(updated: tuple[Path, dict[Path, str]]) -> None:
    folder, _ = updated
    assert (folder / "docs" / "news.md").is_file()


def test_edits_survive(updated: tuple[Path, dict[Path, str]]) -> None:
    folder, edits = updated
    for path, text in edits.items():
        if "team" in str(path):
            assert (folder / path).read_text() == text, path
    assert "greet:" in (folder / "Makefile").read_text()
    assert "retention: 30d" in (folder / "platform-apps/thanos-receive/values.yaml").read_text()


def test_untouched_files_are_the_present_templates(
    updated: tuple[Path, dict[Path, str]], template: Path, platform: Platform, tmp_path: Path
) -> None:
    folder, edits = updated
    answers = {
        **ANSWERS,
        "chart_registry": f"{platform.registry.host}/{MIRROR}",
        "oci_registry": f"{platform.registry.host}/acme",
    }
    fresh = cruft.create(str(template), output_dir=tmp_path, no_input=True, default_config=True, extra_context=answers)
    for path in sorted(p.relative_to(fresh) for p in fresh.rglob("*") if p.is_file()):
        if path not in edits and path.name != ".cruft.json":
            assert (folder / path).read_bytes() == (fresh / path).read_bytes(), path


@pytest.mark.parametrize("environment", ["local", "production"])
def test_updated_repository_renders(
    updated: tuple[Path, dict[Path, str]], platform: Platform, environment: str, tmp_path: Path
) -> None:
    folder, _ = updated
    rendered = render(folder, environment, tmp_path, platform.registry.trust)
    assert rendered["team-notes"]


def test_updated_repository_syncs(updated: tuple[Path, dict[Path, str]], platform: Platform, tmp_path: Path) -> None:
    """The platform's repository becomes the updated one; last in its file, for the team's component stays."""
    folder, _ = updated
    argo = platform.argocd
    assert argo
    platform.registry.push_charts(packages(pinned_charts(folder), tmp_path), MIRROR)
    for old in platform.folder.iterdir():
        if old.name != ".git":
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    shutil.copytree(folder, platform.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".git"))
    for component, values in WEBHOOKS_OFF.items():
        write_overlay(platform.folder, component, "local", values)
    pushed = platform.commit("Update from the template")
    platform.install([release for release in platform.releases() if release.name.startswith("argocd-app-")])
    argo.refresh()
    argo.wait_synced("team-notes", "thanos-receive", "grafana", revision=pushed, timeout=180)
    argo.wait_synced(timeout=180)
    note = platform.kube.get("configmap", "team-notes", "observability")
    assert note
    dashboards = [item.get("data", {}) for item in platform.kube.list("configmaps", "observability")]
    assert any("team.json" in data for data in dashboards)
