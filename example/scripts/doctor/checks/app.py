"""The app: its pods, and what its SDK is told."""

from __future__ import annotations

from typing import Any

from ..cluster import Cluster
from ..context import Context
from ..model import MissingError, Result, fail, ok

INIT_CONTAINER = "opentelemetry-auto-instrumentation-python"


def pods(context: Context) -> Result:
    """Pods of the app run, and the operator has put the SDK into them."""
    if not context.cluster:
        raise context.no_cluster()
    if not (labels := context.workload.get("podLabels")):
        raise MissingError(f"no platform.yaml has an entry in apps for {context.service}")
    selector = ",".join(f"{label}={value}" for label, value in labels.items())
    its_pods = context.cluster.get("pods", "-n", context.namespace, "-l", selector)["items"]
    running = [pod for pod in its_pods if pod.get("status", {}).get("phase") == "Running"]
    if not running:
        return fail("app-not-running", f"{len(its_pods)} pods in namespace {context.namespace}, none runs")
    bare = [pod["metadata"]["name"] for pod in running if not _instrumented(pod)]
    if bare:
        return fail("app-not-instrumented", f"{', '.join(bare)}: no init container {INIT_CONTAINER}")
    return ok(f"{len(running)} pods run, each with the operator's init container")


def _instrumented(pod: dict[str, Any]) -> bool:
    return any(container["name"] == INIT_CONTAINER for container in pod["spec"].get("initContainers") or [])


def settings(context: Context) -> Result:
    """The Instrumentation resource asks for traces, exemplars, the stable metric name and a native histogram."""
    if context.cluster:
        spec, source = _live(context.cluster, context.namespace), "in the cluster"
    else:
        spec, source = context.repository.rendered("otel-instrumentation", "Instrumentation")["spec"], "in git"
    env = {
        item["name"]: str(item.get("value", ""))
        for item in (spec.get("env") or []) + (spec.get("python", {}).get("env") or [])
    }
    sampler = spec.get("sampler") or {}
    kind = env.get("OTEL_TRACES_SAMPLER") or sampler.get("type", "")
    argument = env.get("OTEL_TRACES_SAMPLER_ARG") or sampler.get("argument", "")
    if kind.endswith("always_off") or ("ratio" in kind and argument and float(argument) == 0):
        return fail("sampling-off", f"{source}: sampler {kind} {argument}".rstrip())
    if env.get("OTEL_TRACES_EXPORTER") == "none" or env.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return fail("sampling-off", f"{source}: OTEL_TRACES_EXPORTER=none or OTEL_SDK_DISABLED=true")
    if env.get("OTEL_METRICS_EXEMPLAR_FILTER") == "always_off":
        return fail("exemplar-filter-off", f"{source}: OTEL_METRICS_EXEMPLAR_FILTER=always_off")
    if not {"http", "http/dup"} & set(env.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(",")):
        opt_in = env.get("OTEL_SEMCONV_STABILITY_OPT_IN")
        return fail("semconv-opt-in-missing", f"{source}: OTEL_SEMCONV_STABILITY_OPT_IN is {opt_in or 'not set'}")
    aggregation = env.get("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION")
    if aggregation != "base2_exponential_bucket_histogram":
        return fail("histogram-not-native", f"{source}: histogram aggregation is {aggregation or 'not set'}")
    return ok(
        f"{source}: sampler {kind or 'default'} {argument}, stable metric names, native histograms".replace(" ,", ",")
    )


def _live(cluster: Cluster, namespace: str) -> dict[str, Any]:
    items: list[dict[str, dict[str, Any]]]
    items = cluster.get("instrumentations.opentelemetry.io", "-n", namespace)["items"]
    if not items:
        raise MissingError(f"namespace {namespace} has no Instrumentation; see Argo CD Applications")
    return items[0]["spec"]
