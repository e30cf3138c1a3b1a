"""Bad answers are refused all at once, each with what to type instead, and nothing is left on disk."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cookiecutter.exceptions import FailedHookException
from cookiecutter.prompt import YesNoPrompt
from hypothesis import given
from hypothesis import strategies as st

from tests import platforms
from tests.test_updates import template_repository

_spec = importlib.util.spec_from_file_location("pre_gen_project", platforms.ROOT / "hooks" / "pre_gen_project.py")
assert _spec
assert _spec.loader
hook = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hook)


def refusal(answers: dict[str, object], folder: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """What the refused person reads; fails where the bake went through or left something behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder.parent))  # where the answers are kept
        with pytest.raises(FailedHookException):
            platforms.bake(answers, folder)
    assert list(folder.iterdir()) == []
    return capfd.readouterr().err


CASES = {name: platforms.load(path) for name, path in platforms.INVALID.items()}
# One for each rule goes through Cookiecutter, which takes half a second; what the hook says of the others it says
# itself.
BAKED = {case["rule"]: name for name, case in CASES.items()}.values()


@pytest.mark.parametrize("name", CASES)
def test_refused_with_its_message(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    case = CASES[name]
    if name in BAKED:
        message = refusal(case["answers"], tmp_path / "out", capfd)
    else:
        answers = platforms.complete(case["answers"])
        message = hook.report(answers, hook.judge(answers)[0])
    assert "1 answer needs a change. Nothing was baked." in message
    assert f"[{case['rule']}]" in message
    assert re.search(case["message"], message, re.MULTILINE), message


def test_a_slug_that_is_a_path_leaves_what_one_command_removes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Cookiecutter makes folder and parents before any hook runs, and removes the folder alone."""
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path))
        with pytest.raises(FailedHookException):
            platforms.bake({"project_slug": "one/two/three"}, out)
    [command] = re.findall(
        r"^Cookiecutter leaves a folder behind:\n  (rmdir .*)$", capfd.readouterr().err, re.MULTILINE
    )
    assert [path.relative_to(out).as_posix() for path in sorted(out.rglob("*"))] == ["one", "one/two"]
    subprocess.run(shlex.split(command), check=True)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("name", ["repo-url-password", "chart-registry-password"])
def test_a_refused_password_is_neither_printed_nor_kept(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name]
    assert "hunter2" not in refusal(case["answers"], tmp_path / "out", capfd)
    [answers] = tmp_path.glob("*-answers-*.yaml")
    assert "hunter2" not in answers.read_text()
    assert answers.stat().st_mode & 0o077 == 0


def test_three_wrong_answers_give_three_messages(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    message = refusal(
        {"team": "default", "repo_revision": "a..b", "domain": "https://x.example"}, tmp_path / "out", capfd
    )
    assert "3 answers need a change" in message
    assert re.findall(r"\[([a-z-]+)\]", message) == ["team-reserved", "repo-revision", "domain"]


def test_every_rule_has_an_invalid_file() -> None:
    assert {case["rule"] for case in CASES.values()} == {rule.name for rule in hook.RULES}
    assert len(platforms.INVALID) >= 30


def test_every_free_prompt_has_a_rule() -> None:
    prompts = {prompt for prompt in platforms.PROMPTS if not prompt.startswith("_")}
    assert {rule.prompt for rule in hook.RULES} == prompts


def test_the_rules_know_the_choices_of_the_prompts() -> None:
    assert {prompt: list(options) for prompt, options in hook.CHOICES.items()} == platforms.CHOICES


def proposals(answers: dict[str, object]) -> dict[str, str]:
    """prompt -> what the message tells the person to type, as it is read there."""
    message = hook.report(answers, hook.judge(answers)[0])
    advice = re.findall(r"^(\w+): .* \[[a-z0-9-]+\]\n  why:  .*\n  type: (.*)$", message, re.MULTILINE)
    return {prompt: "" if typed.startswith("nothing (") else typed for prompt, typed in advice}


def typed(answers: dict[str, object], proposed: dict[str, str]) -> dict[str, object]:
    """The answers after these were typed at their prompts; untouched defaults follow, as at the prompts."""
    read = {prompt: YesNoPrompt().process_response(value) if prompt == "include_fluent_bit" else value
            for prompt, value in proposed.items()}  # fmt: skip
    return dict(hook.changed(answers, read))


@pytest.mark.parametrize("name", CASES)
def test_what_is_proposed_is_accepted(name: str) -> None:
    """Whoever types what the message proposes is through, and one bad answer is one proposal."""
    answers = platforms.complete(CASES[name]["answers"])
    proposed = proposals(answers)
    assert len(proposed) == 1
    assert hook.judge(typed(answers, proposed))[0] == []


# What people type, or nearly: pieces of addresses, reserved words, numbers and units, and any text.
PIECES = """
https:// HTTPS:// oci:// git:// ssh:// git@ bot:pw@ [::1] localhost ghcr.io reg..example.com Acme.io grafana. *. : / //
.. . - -- _ @ %20 %0a :0 :99999 :5000 :latest ?a=b #x goog google xn-- sthree- amzn-s3-demo- -s3alias .mrap --x-s3 true
null default kube- argocd main 30 2w 1.5y 0d 9999999d ٥٠٠٠ 10.0.0.1 acme Größe 漢 é İ a 3
"""
pieces = st.sampled_from([*PIECES.split(), " ", "\n", "\t", "{{", "%}", "t" * 40, "a-" * 40])
typed_badly = st.one_of(st.lists(pieces, max_size=6).map("".join), st.text(max_size=60))
BAD = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(platforms.FREE, typed_badly),
        **{prompt: st.sampled_from(options) | typed_badly for prompt, options in platforms.CHOICES.items()},
        "include_fluent_bit": st.booleans() | typed_badly,
    },
)


@given(BAD)
def test_every_proposal_is_accepted(changes: dict[str, object]) -> None:
    answers = hook.changed(platforms.complete({}), changes)
    problems, corrected = hook.judge(answers)
    assert hook.judge(corrected)[0] == []
    assert len({rule.prompt for rule, _ in problems}) == len(problems)
    assert hook.judge(typed(answers, proposals(answers)))[0] == []


@pytest.mark.parametrize(
    ("answers", "proposed"),
    [
        ({"logs_retention": "36h"}, {"logs_retention": "2d"}),
        ({"logs_retention": "2 weeks"}, {"logs_retention": "14d"}),
        ({"logs_retention": "1y"}, {"logs_retention": "365d"}),
        ({"traces_retention": "forever"}, {"traces_retention": "7d"}),
        ({"repo_url": "http://git.example.com/a"}, {"repo_url": "https://git.example.com/a"}),
        ({"repo_url": "github.com/acme/p"}, {"repo_url": "https://github.com/acme/p"}),
        ({"domain": "*.Acme.io."}, {"domain": "acme.io"}),
        ({"git_owner": "Acme Corp"}, {"git_owner": "acme-corp"}),
        ({"git_owner": "https://gitlab.com/acme/sub"}, {"git_owner": "acme/sub"}),
        ({"project_slug": "Größe", "object_storage": "s3"}, {"project_slug": "groe"}),
        ({"log_backend": "Loki", "include_fluent_bit": "Yes "}, {"log_backend": "loki", "include_fluent_bit": "yes"}),
        ({"license": "mit license"}, {"license": "MIT"}),
        ({"object_storage": "s3", "object_storage_location": "EU_Central_1"}, {"object_storage_location": "eu-central-1"}),
        ({"object_storage": "s3", "object_storage_bucket": "Acme_Logs"}, {"object_storage_bucket": "acme-logs"}),
    ],
)  # fmt: skip
def test_a_proposal_keeps_the_intent(answers: dict[str, object], proposed: dict[str, str]) -> None:
    """One bad answer is one problem: what follows from it by default is not asked again."""
    assert proposals(platforms.complete(answers)) == proposed


@pytest.mark.parametrize(
    "answers",
    [
        {"repo_url": "https://dev.azure.com/acme/My%20Team/_git/p"},
        {"object_storage": "azure", "object_storage_location": "acme1", "object_storage_bucket": "a-b"},
        {"oci_registry": "localhost:65535/acme"},
        {"team": "t" * 38},
    ],
)
def test_bounds_are_the_real_ones(answers: dict[str, object]) -> None:
    assert proposals(platforms.complete(answers)) == {}


def test_the_longest_team_fills_a_helm_release_name() -> None:
    module = platforms.ROOT / "{{cookiecutter.project_slug}}/terraform/modules/argocd-server/main.tf"
    [name] = re.findall(r'"([a-z-]+)\$\{var\.team\}"', module.read_text())
    assert len(name) + hook.TEAM == 53


def run(
    folder: Path, program: str, *arguments: str, **environment: str
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """A command of a person in `folder`, and the command that its refusal prints."""
    scratch = folder.parent / f"{folder.name}-home"
    scratch.mkdir(exist_ok=True)
    folder.mkdir(exist_ok=True)
    places = {"HOME": str(scratch), "TMPDIR": str(scratch), "PWD": str(folder), **environment}
    command = [program, *arguments] if "/" in program else [sys.executable, "-m", program, *arguments]
    env = {**os.environ, **places}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, input="")
    printed = re.search(r"^Go on.*:\n  (.*)$", done.stderr, re.MULTILINE)
    return done, shlex.split(printed[1]) if printed else []


@pytest.mark.parametrize("path", ["", str(Path(sys.executable).parent)], ids=["python-m", "on-path"])
def test_one_command_goes_on_after_a_refusal(path: str, tmp_path: Path) -> None:
    """The printed command is run as it stands: what was typed is kept, what was refused is what was proposed."""
    paths = path + os.pathsep + "/usr/bin:/bin"
    awkward = """A {{ 7 }} "b" \\ é🚀 #{%"""
    said = tmp_path / "said.json"
    said.write_text(json.dumps({"default_context": {"platform_name": platforms.literal(awkward)}}, ensure_ascii=False))
    arguments = ("--no-input", "--config-file", "../said.json", "--output-dir", "out", str(platforms.template()))
    answers = ("project_slug=shop", "team=default", "logs_retention=2w", "log_backend=loki", "license=MIT")
    refused, command = run(tmp_path / "here", "cookiecutter", *arguments, *answers, PATH=paths)
    assert refused.returncode == 1
    assert Path(command[0]).name == ("cookiecutter" if path else Path(sys.executable).name)
    done, _ = run(tmp_path / "here", shutil.which(command[0], path=paths) or command[0], *command[1:], PATH=paths)
    assert done.returncode == 0, done.stderr
    platform = tmp_path / "here/out/shop"
    assert 'team           = "team-default"' in (platform / "terraform/terraform.tfvars").read_text()
    assert awkward in done.stdout
    assert "MIT" in (platform / "LICENSE").read_text()
    assert "retention_period: 336h" in (platform / "platform-apps/loki/values.yaml").read_text()


def test_one_command_goes_on_with_cruft_too(tmp_path: Path) -> None:
    template = template_repository(tmp_path / "template")
    answers = json.dumps({"team": "default", "project_slug": "shop"})
    create = ("create", "--no-input", "--extra-context", answers, str(template))
    refused, command = run(tmp_path / "here", "cruft", *create, PATH="/usr/bin:/bin")
    assert refused.returncode == 1
    done, _ = run(tmp_path / "here", *command, PATH="/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    assert (
        json.loads((tmp_path / "here/shop/.cruft.json").read_text())["context"]["cookiecutter"]["team"]
        == "team-default"
    )


@pytest.mark.parametrize("program", ["cookiecutter", "cruft"])
def test_nobody_gets_a_platform_that_the_configuration_file_did_not_ask_for(program: str, tmp_path: Path) -> None:
    """Cookiecutter drops a choice that does not exist and all answers after it."""
    said = {"project_slug": "shop", "object_storage": "S3", "team": "payments", "license": "MIT"}
    (tmp_path / "said.yaml").write_text(json.dumps({"default_context": said}))
    template = template_repository(tmp_path / "template") if program == "cruft" else platforms.template()
    start = ("create",) if program == "cruft" else ()
    command = (*start, "--no-input", "--config-file", "../said.yaml", str(template))
    refused, go_on = run(tmp_path / "here", program, *command, PATH="/usr/bin:/bin")
    assert refused.returncode == 1
    assert 'object_storage: "S3" [object-storage-choice]' in refused.stderr
    assert list((tmp_path / "here").iterdir()) == []
    done, _ = run(tmp_path / "here", *go_on, PATH="/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    platform = tmp_path / "here/shop"
    assert 'team           = "payments"' in (platform / "terraform/terraform.tfvars").read_text()
    assert "MIT" in (platform / "LICENSE").read_text()
    assert (platform / "platform-apps/thanos-store").is_dir()


def test_a_default_configuration_file_is_read_too(tmp_path: Path) -> None:
    home = tmp_path / "here-home"
    home.mkdir()
    (home / ".cookiecutterrc").write_text("default_context: {log_backend: Loki, team: payments}")
    refused, _ = run(tmp_path / "here", "cookiecutter", "--no-input", str(platforms.template()))
    assert "[log-backend-choice]" in refused.stderr
    done, _ = run(tmp_path / "here", "cookiecutter", "--no-input", "--default-config", str(platforms.template()))
    assert done.returncode == 0, done.stderr


def test_the_command_line_refuses_with_an_exit_status(tmp_path: Path) -> None:
    arguments = ("--no-input", "--default-config", str(platforms.template()), "team=kube-public")
    done, _ = run(tmp_path / "here", "cookiecutter", *arguments)
    assert done.returncode == 1
    assert "type: team-kube-public" in done.stderr
    assert list((tmp_path / "here").iterdir()) == []


def test_a_second_bake_into_one_folder_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cookiecutter", "--no-input", "--default-config", "-o", str(tmp_path)]
    platform = platforms.bake({}, tmp_path)
    kept = {path: path.read_bytes() for path in platforms.files(platform)}
    again = subprocess.run([*command, str(platforms.template())], capture_output=True, text=True)
    assert again.returncode == 1
    assert "already exists" in again.stderr + again.stdout
    assert {path: path.read_bytes() for path in platforms.files(platform)} == kept


def test_a_hook_reads_any_answer_as_data() -> None:
    """The line that carries the answers into a hook, with the text that could end it."""
    for name in ("pre_gen_project", "post_gen_project"):
        source = (platforms.ROOT / "hooks" / f"{name}.py").read_text()
        assert 'json.loads(r"""{{ cookiecutter | jsonify }}""")' in source
        for text in ('"', '""', '"""', "\\", '\\"', "\\\\", "'''", "\n", "\\u0041", "é", "🚀", "{{ x }}", "#"):
            carried = source.replace("{{ cookiecutter | jsonify }}", json.dumps({"x": text, "y": ""}, indent=4))
            [line] = re.findall(r'json\.loads\((r"""(?s:.*)""")\)', carried)
            assert json.loads(eval(line))["x"] == text
