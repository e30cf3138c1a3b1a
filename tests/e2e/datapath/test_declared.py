"""How the suite reads a bake: what it replaces must be there, and what it adds itself must be what the real chart adds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.datapath.declared import (
    CHART_ARGUMENTS,
    UPSTREAM_CHARTS,
    Declared,
    NothingReplaced,
    fill,
    replace_flags,
    substitute,
)
from tests.e2e.datapath.wiring import LONG_TERM
from tests.pins import pinned


def test_the_app_is_instrumented_with_what_the_operators_image_holds(declared: Declared) -> None:
    """The list is the image's, at its version; where the baked app pins one of these too, it is the same version."""
    image, app = (
        dict(re.findall(r"(?m)^(opentelemetry-[\w-]+)==(\S+)$", file.read_text()))
        for file in (Path(__file__).parent / "requirements-operator.txt", declared.app / "requirements-dev.txt")
    )
    assert image["opentelemetry-distro"] == pinned("instrumentation")
    assert image["opentelemetry-instrumentation-system-metrics"] == pinned("instrumentation")
    assert {name: app[name] for name in image.keys() & app.keys()} == {
        name: image[name] for name in image.keys() & app.keys()
    }


def test_a_substitution_that_matches_nothing_fails() -> None:
    assert substitute({"a": ["x:1", {"b": "y:2"}]}, {"x:1": "X", "y:2": "Y"}) == {"a": ["X", {"b": "Y"}]}
    with pytest.raises(NothingReplaced, match="z:3"):
        substitute({"a": ["x:1"]}, {"x:1": "X", "z:3": "Z"})


def test_a_flag_that_is_not_there_fails() -> None:
    assert replace_flags(["query", "--a=1", "--b=2", "--b=3"], {"--b": ["4", "5"]}) == [
        "query",
        "--a=1",
        "--b=4",
        "--b=5",
    ]
    with pytest.raises(NothingReplaced, match="--c"):
        replace_flags(["query", "--a=1"], {"--c": "1"})


def test_a_variable_that_is_left_over_fails() -> None:
    assert fill('rate(m{s="$service"}[$__rate_interval])', "9ms", service="x") == 'rate(m{s="x"}[9ms])'
    with pytest.raises(AssertionError, match="filled in"):
        fill('m{s="$service"}', "9ms")


# Without a bucket, as in the local environment, there is no long-term storage.
@pytest.mark.parametrize(
    ("environment", "program"),
    [
        (environment, program)
        for environment in ("local", "production")
        for program in CHART_ARGUMENTS
        if environment == "production" or program not in LONG_TERM
    ],
)
@pytest.mark.skipif(not UPSTREAM_CHARTS, reason="UPSTREAM_CHARTS names no folder of packaged charts")
def test_arguments_are_those_of_the_real_chart(declared: Declared, environment: str, program: str) -> None:
    assert UPSTREAM_CHARTS
    platform = Declared(declared.platform, environment)
    written, rendered = platform._valued_thanos(program), platform._rendered_thanos(program, UPSTREAM_CHARTS)
    assert sorted(written) == sorted(rendered)
    assert written[0] == rendered[0]
