"""The hops in their order, from the tools to the panels."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ...charts import UnreadableError
from ..context import Context
from ..model import (
    MissingError,
    Result,
    Status,
    UnexpectedAnswerError,
    UnreachableError,
    fail,
    skip,
)
from . import alerting, app, collector, grafana, metrics, platform, traces


@dataclass(frozen=True)
class Check:
    """A hop. It is skipped where one of the hops in ``needs`` failed, because it could only repeat that.

    One ``of_app`` is walked for each app.
    """

    name: str
    run: Callable[[Context], Result]
    needs: tuple[str, ...] = ()
    of_app: bool = False


CHECKS = (
    Check("Tools", platform.tools),
    Check("Cluster", platform.cluster, needs=("Tools",)),
    Check("Argo CD Applications", platform.applications, needs=("Cluster",)),
    Check("App pods", app.pods, needs=("Cluster",), of_app=True),
    Check("App telemetry settings", app.settings, of_app=True),
    Check("Collector settings", collector.settings),
    Check("Collector", collector.live),
    Check("Receive settings", metrics.receive_settings),
    Check("Receive", metrics.receive),
    Check("Query settings", metrics.query_settings),
    Check("Query", metrics.query),
    Check("Metric", metrics.metric, needs=("Receive", "Query"), of_app=True),
    Check("Exemplars", metrics.exemplars, needs=("Receive", "Query", "Metric"), of_app=True),
    Check("Trace of an exemplar", traces.trace, needs=("Query",), of_app=True),
    Check("Log line of that request", traces.logs, needs=("Query", "Trace of an exemplar"), of_app=True),
    Check("Alerts", alerting.alerts, needs=("Query",)),
    Check("Receivers", alerting.receivers, needs=("Query",)),
    Check("Test page", alerting.test_page, needs=("Alerts",)),
    Check("Data sources in git", grafana.datasources_in_git),
    Check("Panels in git", grafana.panels_in_git),
    Check("Data sources in Grafana", grafana.datasources_live),
    Check("Panels in Grafana", grafana.panels_live, needs=("Data sources in Grafana",)),
)

# What it means that a backend does not answer.
_DOWN = {
    "collector": "collector-down",
    "router": "receive-down",
    "receive": "receive-down",
    "query": "query-down",
    "tempo": "tempo-down",
    "loki": "loki-down",
    "grafana": "grafana-down",
    "alertmanager": "alertmanager-down",
}


def walk(context: Context, *more: str) -> Iterator[tuple[Check, Result]]:
    """Run every check in order and yield it with what it found; a check never raises.

    What is an app's own is looked at for each of ``more`` services too, and then carries the service's name.
    """
    failed: set[str] = set()
    yield from _walk(context, CHECKS, failed, f" ({context.service})" if more else "")
    for service in more:
        own = tuple(check for check in CHECKS if check.of_app)
        yield from _walk(context.of(service), own, failed - {check.name for check in own}, f" ({service})")


def _walk(context: Context, checks: tuple[Check, ...], failed: set[str], suffix: str) -> Iterator[tuple[Check, Result]]:
    for check in checks:
        broken = [name for name in check.needs if name in failed]
        if check.of_app and not context.service:
            result = skip("no platform.yaml has an entry in apps; make new-app makes one")
        elif broken:
            result = skip(f"needs {broken[0]}")
        else:
            result = _run(check, context)
        if result.status is Status.FAIL or broken:
            failed.add(check.name)
        if check.name == "Cluster" and result.status is not Status.OK and context.cluster:
            context.leave_cluster("the cluster does not answer")  # what git says can be checked all the same
        yield (replace(check, name=check.name + suffix) if check.of_app else check), result


def _run(check: Check, context: Context) -> Result:
    try:
        return check.run(context)
    except MissingError as error:
        return skip(str(error))
    except UnreadableError as error:
        return fail("file-unreadable", str(error))
    except UnexpectedAnswerError as error:
        return fail("answer-unexpected", str(error))
    except UnreachableError as error:
        if error.backend != "cluster":
            return fail(_DOWN[error.backend], str(error))
        # The API server itself has a hop of its own, and the others come after it.
        return fail("cluster-unreachable" if check.name == "Cluster" else "resource-unreadable", str(error))
    except Exception as error:  # the report of the other hops is worth more than a traceback
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return fail("doctor-broken", f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})")
