"""Grafana: data sources and panels, as git has them and as Grafana runs them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from ..answers import DashboardAnswer, DataSource
from ..context import Context
from ..model import MissingError, Result, fail, ok
from ..names import DASHBOARD_UID, METRIC, TRACE_LABEL

# A metric's name, as it stands before its selector or its range.
_NAME = re.compile(r"[a-zA-Z_:][\w:]*(?=\s*[\[{])")
_SUFFIX = re.compile(rf"{METRIC}_(count|sum|bucket)\b")


def datasources_in_git(context: Context) -> Result:
    """The folders describe the data sources that the dashboards name."""
    _need_folder(context)
    described = context.repository.facts.get("dataSources", {})
    sources = [{"uid": uid, **source} for uid, source in described.items() if "type" in source]
    return judge_datasources(sources, named_by(context.repository.dashboards.values()))


def datasources_live(context: Context) -> Result:
    """Grafana runs with those data sources."""
    _need_login(context)
    answer = context.json("grafana", "/api/datasources", list[DataSource])
    sources = [source.model_dump(exclude_none=True) for source in answer]
    return judge_datasources(sources, named_by(context.repository.dashboards.values()))


def named_by(dashboards: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Return the type by uid of every data source that the panels of these dashboards name."""
    panels = (panel for board in dashboards for panel in _panels(board))
    asked = (each.get("datasource") for panel in panels for each in (panel, *(panel.get("targets") or [])))
    return {source["uid"]: source["type"] for source in asked if source}


def judge_datasources(sources: list[dict[str, Any]], wanted: dict[str, str]) -> Result:
    """Judge Grafana's data sources: uids, types (as ``wanted``), the label that leads from an exemplar to its trace."""
    by_uid = {source.get("uid"): source for source in sources}
    for uid, kind in wanted.items():
        if by_uid.get(uid, {}).get("type") != kind:
            return fail("datasource-wrong", f"uid {uid} of type {kind} is not among {sorted(map(str, by_uid))}")
    metrics = [uid for uid, kind in wanted.items() if kind == "prometheus"]
    links = [link for uid in metrics for link in by_uid[uid].get("jsonData", {}).get("exemplarTraceIdDestinations", [])]
    labels = [link.get("name") for link in links]
    if TRACE_LABEL not in labels:
        return fail(
            "exemplar-label-wrong",
            f"data source {', '.join(metrics)} follows {labels or 'no label'}, exemplars carry {TRACE_LABEL}",
        )
    target = next(link.get("datasourceUid") for link in links if link.get("name") == TRACE_LABEL)
    if by_uid.get(target, {}).get("type") != "tempo":
        return fail("datasource-wrong", f"exemplars lead to data source {target}, which is no Tempo")
    return ok(f"{', '.join(map(str, by_uid))}; label {TRACE_LABEL} leads to {target}")


def panels_in_git(context: Context) -> Result:
    """The dashboard in git asks for exemplars of the app's histogram."""
    _need_folder(context)
    boards = context.repository.dashboards
    if not boards:
        raise MissingError("platform-apps/grafana/dashboards has no dashboard")
    board = next((board for board in boards.values() if board.get("uid") == DASHBOARD_UID), None)
    if not board:
        return fail("panel-without-exemplars", f"none of {', '.join(boards)} has uid {DASHBOARD_UID}")
    return judge_panels(board)


def panels_live(context: Context) -> Result:
    """The dashboard in Grafana does too."""
    _need_login(context)
    return judge_panels(context.json("grafana", f"/api/dashboards/uid/{DASHBOARD_UID}", DashboardAnswer).dashboard)


def judge_panels(dashboard: dict[str, Any]) -> Result:
    """Judge a dashboard's queries: which series, and whether exemplars can come with them."""
    targets = [
        (panel.get("title", "?"), target) for panel in _panels(dashboard) for target in panel.get("targets") or []
    ]
    for title, target in targets:
        if suffix := _SUFFIX.search(target.get("expr", "")):
            return fail("panel-on-count", f"panel “{title}” queries {suffix[0]}")
    dotted = [(title, target) for title, target in targets if target.get("exemplar")]
    if not dotted:
        return fail("panel-without-exemplars", f"none of {len(targets)} queries has exemplar: true")
    for title, target in dotted:
        names = set(_NAME.findall(target["expr"]))
        if METRIC not in names:
            return fail("panel-wrong-metric", f"panel “{title}” queries {', '.join(sorted(names)) or 'nothing'}")
        if target.get("instant") or target.get("range") is False:
            return fail("panel-instant", f"panel “{title}” is an instant query")
    return ok(f"{len(dotted)} of {len(targets)} queries ask for exemplars of {METRIC}")


def _panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in board.get("panels") or []:
        yield panel
        yield from _panels(panel)


def _need_folder(context: Context) -> None:
    if not context.repository.has("grafana"):
        raise MissingError("platform-apps/grafana is not in this repository")


def _need_login(context: Context) -> None:
    if context.reaches("grafana") and not (context.grafana_token or context.grafana_auth):
        raise MissingError("no login: set GRAFANA_TOKEN, or GRAFANA_USER and GRAFANA_PASSWORD")
    context.url("grafana")
