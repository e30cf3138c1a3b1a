"""Receive, Query, the app's metric and its exemplars."""

from __future__ import annotations

import time
from datetime import datetime, timezone

from ..context import Context
from ..model import MissingError, Result, UnreachableError, fail, ok, warn
from ..names import EXEMPLAR_FLAG, METRIC, OLD_METRIC, PROMOTE_FLAG, TRACE_LABEL


def receive_settings(context: Context) -> Result:
    """The ingestor has room for exemplars, and the router puts service.name on series."""
    receive = context.repository.values("thanos-receive").get("thanos", {}).get("receive", {})
    ingestor = receive.get("ingestor", {}).get("extraArgs") or []
    room = _flag(ingestor, EXEMPLAR_FLAG)
    if not room or int(room[0]) <= 0:
        return fail("exemplar-flag-missing", f"platform-apps/thanos-receive: ingestor without {EXEMPLAR_FLAG} above 0")
    promoted = _flag(receive.get("router", {}).get("extraArgs") or [], PROMOTE_FLAG)
    if "service.name" not in promoted:
        return fail(
            "service-name-not-promoted", f"platform-apps/thanos-receive: router without {PROMOTE_FLAG}=service.name"
        )
    return ok(f"{EXEMPLAR_FLAG}={room[0]}, labels from {', '.join(promoted)}")


def _flag(arguments: list[str], flag: str) -> list[str]:
    return [argument.split("=", 1)[1] for argument in arguments if argument.startswith(f"{flag}=")]


def receive(context: Context) -> Result:
    """Router and ingestor answer, and the ingestor keeps exemplars."""
    if not (context.reaches("router") or context.reaches("receive") or context.reaches("query")):
        raise context.no_way_to("receive", "router", "query")
    if context.receive_problem:
        raise UnreachableError("receive", context.receive_problem)
    room = context.ingestor_metric("prometheus_tsdb_exemplar_max_exemplars")
    if room is None and not context.reaches("receive"):
        raise MissingError("Query has no metrics of the ingestor, and there is no other way to it")
    if not room:
        return fail(
            "exemplar-flag-missing", "the ingestor has room for 0 exemplars (prometheus_tsdb_exemplar_max_exemplars)"
        )
    stored = context.ingestor_metric("prometheus_tsdb_exemplar_exemplars_in_storage") or 0
    evidence = f"{stored:.0f} exemplars stored, room for {room:.0f} ({stored / room:.0%})"
    oldest = context.ingestor_metric("prometheus_tsdb_exemplar_last_exemplars_timestamp_seconds", min)
    reach = time.time() - oldest if oldest else context.since
    if stored >= room and reach < context.since:
        return warn(f"{evidence}; the buffer is full and reaches back {reach / 60:.0f} min only: raise {EXEMPLAR_FLAG}")
    return ok(evidence)


def query_settings(context: Context) -> Result:
    """Query's endpoints include the Receive ingestors."""
    if not context.repository.has("thanos-query"):
        raise MissingError("platform-apps/thanos-query is not in this repository")
    endpoints = list(context.repository.facts.get("queryEndpoints", {}).values())
    if not any("thanos-receive-ingestor" in endpoint for endpoint in endpoints):
        return fail("query-not-connected", f"platform-apps/*/platform.yaml: queryEndpoints are {endpoints or 'empty'}")
    return ok(f"{len(endpoints)} endpoints, the Receive ingestors among them")


def query(context: Context) -> Result:
    """Query answers and is connected to an ingestor."""
    context.get("query", "/-/ready")
    if not context.stores:
        return fail("query-not-connected", "/api/v1/stores lists no Receive ingestor")
    errors = [f"{store['name']}: {store['lastError']}" for store in context.stores if store.get("lastError")]
    if len(errors) == len(context.stores):
        return fail("receive-down", "; ".join(errors))
    return ok(f"connected to {len(context.stores) - len(errors)} Receive ingestors")


def metric(context: Context) -> Result:
    """The app's histogram arrives, under its name, native and with its service's name."""
    mine = f'service_name="{context.service}"'
    age = context.age(context.selector)
    if age is not None and age <= context.max_age:
        requests = context.number(f"sum(histogram_count({context.selector}))") or 0
        return ok(f"{METRIC}: native, {requests:.0f} requests counted, newest sample {age:.0f} s old")
    seen = "no sample in 5 min" if age is None else f"newest sample {age:.0f} s old"
    if context.fresh(f'{{__name__=~"{OLD_METRIC}(_bucket|_count)?",{mine}}}'):
        return fail("semconv-opt-in-missing", f"{METRIC}: {seen}; {OLD_METRIC} arrives instead")
    if context.fresh(f"{METRIC}_bucket{{{mine}}}"):
        return fail("histogram-not-native", f"{METRIC}: {seen}; {METRIC}_bucket arrives instead")
    if context.fresh(f'{METRIC}{{service_name=""}}'):
        return fail("service-name-not-promoted", f"{METRIC} arrives without a label service_name")
    return fail("app-silent", f"{METRIC}{{{mine}}}: {seen}, and no other name of it either")


def exemplars(context: Context) -> Result:
    """Query returns exemplars that carry a trace id, the newest as young as the requests."""
    exemplars = context.exemplars
    if exemplars and not any(exemplar.trace_id for exemplar in exemplars):
        return fail("exemplars-missing", f"exemplars have labels {sorted(exemplars[0].labels)}, and not {TRACE_LABEL}")
    age = time.time() - exemplars[0].time if exemplars else None
    seen = f"newest is {age:.0f} s old" if age is not None else f"none in {context.since / 60:.0f} min"
    if age is not None and age <= context.max_age:
        when = datetime.fromtimestamp(exemplars[0].time, timezone.utc).strftime("%H:%M:%S UTC")
        return ok(
            f"{len(exemplars)} found, newest {when}, {exemplars[0].value * 1000:.0f} ms, {TRACE_LABEL} "
            f"{exemplars[0].trace_id}"
        )
    window = f"{max(context.max_age, 30):.0f}s"
    if not context.number(f"sum(histogram_count(increase({context.selector}[{window}])))"):
        return warn(f"{seen}, but there was no request in the last {window} either: `make traffic`")
    if context.reaches("tempo") and not context.recent_traces(context.max_age):
        return fail(
            "sampling-off", f"{seen}, while requests arrive, and Tempo has no trace of the last {context.max_age:g} s"
        )
    return fail("exemplars-missing", f"{seen}, while requests and traces arrive")
