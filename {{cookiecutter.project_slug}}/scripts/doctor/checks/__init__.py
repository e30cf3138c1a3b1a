"""The hops in their order, from the tools to the panels."""

from __future__ import annotations

from collections.abc import Iterator

from ..context import Context
from ..model import Check, MissingError, Result, Status, UnreachableError, UnreadableError, fail, skip
from . import app, collector, grafana, metrics, platform, traces

CHECKS = (
    Check("Tools", platform.tools),
    Check("Cluster", platform.cluster, needs=("Tools",)),
    Check("Argo CD Applications", platform.applications, needs=("Cluster",)),
    Check("App pods", app.pods, needs=("Cluster",)),
    Check("App telemetry settings", app.settings),
    Check("Collector settings", collector.settings),
    Check("Collector", collector.live),
    Check("Receive settings", metrics.receive_settings),
    Check("Receive", metrics.receive),
    Check("Query settings", metrics.query_settings),
    Check("Query", metrics.query),
    Check("Metric", metrics.metric, needs=("Receive", "Query")),
    Check("Exemplars", metrics.exemplars, needs=("Receive", "Query", "Metric")),
    Check("Trace of an exemplar", traces.trace, needs=("Query",)),
    Check("Log line of that request", traces.logs, needs=("Query", "Trace of an exemplar")),
    Check("Data sources in git", grafana.datasources_in_git),
    Check("Panels in git", grafana.panels_in_git),
    Check("Data sources in Grafana", grafana.datasources_live),
    Check("Panels in Grafana", grafana.panels_live, needs=("Data sources in Grafana",)),
)

# What an exception from a hop's own backend means.
_DOWN = {
    "Tools": "tool-missing",
    "Cluster": "cluster-unreachable",
    "Argo CD Applications": "cluster-unreachable",
    "App pods": "cluster-unreachable",
    "Collector": "collector-down",
    "Receive": "receive-down",
    "Trace of an exemplar": "tempo-down",
    "Log line of that request": "loki-down",
    "Data sources in Grafana": "grafana-down",
    "Panels in Grafana": "grafana-down",
}


def walk(context: Context) -> Iterator[tuple[Check, Result]]:
    """Run every check in order and yield it with what it found; a check never raises."""
    failed: set[str] = set()
    for check in CHECKS:
        if broken := [name for name in check.needs if name in failed]:
            result = skip(f"needs {broken[0]}")
        else:
            result = _run(check, context)
        if result.status is Status.FAIL or broken:
            failed.add(check.name)
        if check.name == "Cluster" and result.status is not Status.OK:
            context.cluster = None  # what git says can be checked all the same
        yield check, result


def _run(check: Check, context: Context) -> Result:
    try:
        return check.run(context)
    except MissingError as error:
        return skip(str(error))
    except UnreadableError as error:
        return fail("file-unreadable", str(error))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return fail("answer-unexpected", f"{type(error).__name__}: {error}")
    except UnreachableError as error:
        return fail(_DOWN.get(check.name, "query-down"), str(error))
