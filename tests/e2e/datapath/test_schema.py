"""The baked dashboards against Grafana's own types: the models of its foundation SDK.

The SDK reads a dashboard into those models and writes it again; what they do not know is gone then. It does not check the
values that it reads, so these are compared with the models' annotations here.
"""

from __future__ import annotations

import enum
import json
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.datapath.declared import Declared

SDK = "grafana_foundation_sdk."
pytest.importorskip(f"{SDK}cog.plugins", reason="Grafana's foundation SDK needs Python 3.11").register_default_plugins()
JSONEncoder = pytest.importorskip(f"{SDK}cog.encoder").JSONEncoder
Dashboard = pytest.importorskip(f"{SDK}models.dashboard").Dashboard


def lost(given: object, kept: object, path: str = "") -> Iterator[str]:
    """Yield the path of everything in ``given`` that is not the same in ``kept``."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            if key in kept:
                yield from lost(value, kept[key], f"{path}.{key}")
            else:
                yield f"{path}.{key} is not known"
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for number, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from lost(one, other, f"{path}[{number}]")
    elif given != kept:
        yield f"{path} is {given!r}, and becomes {kept!r}"


def mistyped(model: object, path: str = "") -> Iterator[str]:
    """Yield the path of every value inside ``model`` that is not of its annotated type."""
    if isinstance(model, list | tuple):
        for number, each in enumerate(model):
            yield from mistyped(each, f"{path}[{number}]")
    elif isinstance(model, dict):
        for key, each in model.items():
            yield from mistyped(each, f"{path}.{key}")
    elif type(model).__module__.startswith(SDK) and not isinstance(model, enum.Enum):
        hints = typing.get_type_hints(type(model))
        for name, value in vars(model).items():
            if value is not None and name in hints and not fits(value, hints[name]):
                yield f"{path}.{name} is {value!r}, not {hints[name]}"
            yield from mistyped(value, f"{path}.{name}")


def fits(value: object, hint: object) -> bool:
    """Whether a value may stand where ``hint`` is annotated; a model's own values are looked at on their own."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, each) for each in typing.get_args(hint))
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin is list:
        return isinstance(value, list) and all(fits(each, typing.get_args(hint)[0]) for each in value)
    if origin is dict:
        return isinstance(value, dict)
    if hint is types.NoneType:
        return value is None
    if not isinstance(hint, type):
        return True
    if issubclass(hint, enum.Enum):
        return value in [each.value for each in hint]
    if hint in (str, bool):
        return isinstance(value, hint)
    if hint in (int, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return True


def problems(dashboard: dict[str, Any]) -> list[str]:
    read = Dashboard.from_json(dashboard)
    return [*lost(dashboard, json.loads(JSONEncoder().encode(read))), *mistyped(read)]


def test_grafana_knows_all_of_every_dashboard(declared: Declared) -> None:
    dashboards = declared.dashboards()
    assert len(dashboards) == 4
    assert {uid: wrong for uid, dashboard in dashboards.items() if (wrong := problems(dashboard))} == {}


def stat(dashboard: dict[str, Any]) -> dict[str, Any]:
    return next(panel for panel in dashboard["panels"] if panel["type"] == "stat")


def lines(dashboard: dict[str, Any]) -> dict[str, Any]:
    return next(panel for panel in dashboard["panels"] if panel["type"] == "timeseries")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: stat(d).update(descripton="x"), "descripton is not known"),
        (lambda d: stat(d)["options"].update(sparkline=True), "options.sparkline is not known"),
        (lambda d: stat(d)["options"].update(graphMode="bars"), "graph_mode is 'bars'"),
        (lambda d: lines(d)["fieldConfig"]["defaults"].update(noValues="0"), "defaults.noValues is not known"),
        (lambda d: lines(d)["fieldConfig"]["defaults"]["custom"].update(drawStyle="dots"), "draw_style is 'dots'"),
        (lambda d: lines(d)["fieldConfig"]["defaults"].update(min="0"), "min_val is '0'"),
        (lambda d: lines(d)["targets"][0].update(expression="up"), "targets[0].expression is not known"),
        (lambda d: d["annotations"]["list"][0].update(stepp="5s"), "annotations.list[0].stepp is not known"),
        (lambda d: stat(d).update(title=7), "title is 7"),
    ],
)
def test_what_grafana_does_not_know_is_noticed(
    declared: Declared, change: Callable[[dict[str, Any]], None], problem: str
) -> None:
    dashboard = declared.dashboard("checkout-red")
    change(dashboard)
    told = problems(dashboard)
    assert any(problem in each for each in told), told
