"""Bad answers are refused all at once, each with what to type instead, and nothing is left on disk."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cookiecutter.exceptions import FailedHookException

from tests import platforms

_spec = importlib.util.spec_from_file_location("pre_gen_project", platforms.ROOT / "hooks" / "pre_gen_project.py")
hook = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hook)


def refusal(answers: dict[str, object], folder: Path, capfd: pytest.CaptureFixture) -> str:
    """What the refused person reads; fails where the bake went through or left something behind."""
    with pytest.raises(FailedHookException):
        platforms.bake(answers, folder)
    assert list(folder.iterdir()) == []
    return capfd.readouterr().err


@pytest.mark.parametrize("name", platforms.INVALID)
def test_refused_with_its_message(name: str, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    case = platforms.load(platforms.INVALID[name])
    message = refusal(case["answers"], tmp_path, capfd)
    assert "1 answer needs a change. Nothing was written." in message
    assert f"[{case['rule']}]" in message
    assert re.search(case["message"], message), message


def test_a_refused_password_is_not_printed(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    case = platforms.load(platforms.INVALID["repo-url-password"])
    assert "hunter2" not in refusal(case["answers"], tmp_path, capfd)


def test_three_wrong_answers_give_three_messages(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    message = refusal({"team": "default", "repo_revision": "a..b", "domain": "https://x.example"}, tmp_path, capfd)
    assert "3 answers need a change" in message
    assert re.findall(r"\[([a-z-]+)\]", message) == ["team-reserved", "repo-revision", "domain"]


def test_every_rule_has_an_invalid_file() -> None:
    assert {platforms.load(path)["rule"] for path in platforms.INVALID.values()} == {rule.name for rule in hook.RULES}
    assert len(platforms.INVALID) >= 30


def test_every_free_prompt_has_a_rule() -> None:
    prompts = {prompt for prompt in platforms.PROMPTS if not prompt.startswith("_")}
    assert {rule.prompt for rule in hook.RULES} == prompts


def test_the_rules_know_the_choices_of_the_prompts() -> None:
    assert {prompt: list(options) for prompt, options in hook.CHOICES.items()} == platforms.CHOICES


def test_what_is_proposed_is_accepted() -> None:
    """Whoever types what the message proposes is through."""
    for name, path in platforms.INVALID.items():
        answers = platforms.complete(platforms.load(path)["answers"])
        [(rule, problem)] = hook.problems(answers)
        proposal = re.split(r", or | or ", problem.instead)[0].removeprefix("a name such as ")
        fixed = {**answers, rule.prompt: proposal if rule.prompt != "include_fluent_bit" else "false"}
        assert hook.problems(fixed) == [], name


def test_the_command_line_refuses_with_an_exit_status(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cookiecutter", "--no-input", "--default-config", "-o", str(tmp_path)]
    done = subprocess.run([*command, str(platforms.template()), "team=kube-public"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "type: team-kube-public" in done.stderr
    assert list(tmp_path.iterdir()) == []


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
