"""Random answers: either refused with a message, or a platform that passes the checks; never a traceback."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cookiecutter.exceptions import FailedHookException
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from tests import contract, platforms
from tests.checks import CHECKS
from tests.test_refusals import hook

# Text with the characters that YAML, HCL, JSON, Markdown, the shell and Jinja give a meaning.
awkward = st.text(
    st.one_of(st.sampled_from("'\"\\{}[]%#:-&*!|>@`$~,?=<é漢🚀 \t\n"), st.characters(exclude_categories=["Cs"])),
    max_size=90,
)
# Every example is a bake of a second or more: no shrinking, the answers are printed as they are.
BAKES: dict[str, Any] = {"phases": [Phase.explicit, Phase.generate], "suppress_health_check": list(HealthCheck)}
label = st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
domain = st.from_regex(r"[a-z0-9]{1,9}(-[a-z0-9]{1,9})?\.(example|xn--p1ai)", fullmatch=True)
days = st.integers(0, 4000).map("{}d".format)
registry = st.builds("{}/{}".format, st.sampled_from(["ghcr.io", "localhost:5000", "r.example.com"]), label)
SENSIBLE = {
    "platform_name": awkward.filter(lambda text: text.strip() and text.isprintable() and len(text) <= 80),
    "project_slug": label,
    "team": label,
    "git_owner": label,
    "repo_url": st.builds("https://git.example.com/{}/{}".format, label, label),
    "repo_revision": st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_./+-]{0,20}", fullmatch=True),
    "oci_registry": registry,
    "object_storage_bucket": st.from_regex(r"[a-z0-9][a-z0-9-]{1,20}[a-z0-9]", fullmatch=True),
    "object_storage_location": st.from_regex(r"[a-z0-9]{3,24}", fullmatch=True),
    "metrics_retention": days,
    "traces_retention": days,
    "logs_retention": days,
    "domain": st.just("") | domain,
    "ingress_class": label,
    "chart_registry": st.just("") | registry,
    "include_fluent_bit": st.booleans(),
    **{prompt: st.sampled_from(options) for prompt, options in platforms.CHOICES.items()},
}
AWKWARD = dict.fromkeys(platforms.FREE, awkward)
# Cookiecutter makes the folder before any hook runs, and refuses on its own what cannot name one.
AWKWARD["project_slug"] = awkward.filter(lambda t: t.strip(". \t\n") and "/" not in t and "\0" not in t and len(t) < 60)


@given(st.fixed_dictionaries({}, optional={**SENSIBLE, **AWKWARD, "include_fluent_bit": awkward | st.integers()}))
def test_the_rules_answer_whatever_is_typed(answers: dict[str, object]) -> None:
    judged, _ = hook.judge(answers)
    message = hook.report(answers, judged)
    assert all(rule.name in message and problem.why for rule, problem in judged)


def bake_and_check(answers: Mapping[str, object]) -> str:
    complete = platforms.complete(answers)
    expected, _ = hook.judge(complete)
    with (
        tempfile.TemporaryDirectory() as scratch,
        tempfile.TemporaryDirectory() as kept,
        pytest.MonkeyPatch.context() as m,
    ):
        m.setenv("TMPDIR", kept)  # a refusal keeps the answers there
        try:
            folder = platforms.bake(answers, Path(scratch))
        except FailedHookException:
            assert expected, "refused without a problem"
            assert list(Path(scratch).iterdir()) == []
            return "refused"
        assert not expected, "baked in spite of a problem"
        problems = [line for check in CHECKS.values() for line in check(folder, complete)]
        problems += contract.violations(folder, complete)
        assert not problems, "\n".join(problems)
        return "baked"


@settings(max_examples=8, **BAKES)
@given(st.fixed_dictionaries(SENSIBLE))
def test_sensible_answers_make_a_sound_platform(answers: dict[str, object]) -> None:
    event(bake_and_check(answers))


@settings(max_examples=15, **BAKES)
@given(st.dictionaries(st.sampled_from(sorted(AWKWARD)), st.none(), max_size=2), st.data())
def test_awkward_answers_never_end_in_a_traceback(
    capfd: pytest.CaptureFixture[str], prompts: dict[str, None], data: st.DataObject
) -> None:
    answers = {prompt: data.draw(AWKWARD[prompt], label=prompt) for prompt in prompts}
    capfd.readouterr()
    event(bake_and_check(answers))
    assert "Traceback" not in capfd.readouterr().err
