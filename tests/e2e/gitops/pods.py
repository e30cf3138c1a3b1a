"""The pods that a bake's manifests lead to, worked out without running them."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass

from tests.e2e.gitops.kube import Manifest

TEMPLATED = ("Deployment", "StatefulSet", "DaemonSet", "Job", "ReplicaSet")


@dataclass(frozen=True)
class Workload:
    """Something that makes pods, and one such pod as a manifest of its own."""

    kind: str
    name: str
    replicas: int
    pod: Manifest


def workloads(manifests: Iterable[Manifest], namespace: str) -> list[Workload]:
    """Return all that makes pods among manifests; the operator's resources count with the pods it would make of them.

    Pods of ``helm test`` are left out: Argo CD does not run them.
    """
    all_workloads = []
    for item in manifests:
        kind, name = item["kind"], item["metadata"]["name"]
        if "test" in (item["metadata"].get("annotations") or {}).get("helm.sh/hook", ""):
            continue
        if kind in TEMPLATED:
            template = item["spec"]["template"]
            claims = [claim["metadata"]["name"] for claim in item["spec"].get("volumeClaimTemplates", [])]
        elif kind == "CronJob":
            template, claims = item["spec"]["jobTemplate"]["spec"]["template"], []
        elif kind == "Pod":
            template, claims = item, []
        elif kind == "OpenTelemetryCollector":
            template = _collector_pod(item)
            claims = [claim["metadata"]["name"] for claim in item["spec"].get("volumeClaimTemplates", [])]
        else:
            continue
        where = item["metadata"].get("namespace", namespace)
        all_workloads.append(
            Workload(kind, name, item["spec"].get("replicas", 1), _pod(f"{kind}-{name}", where, template, claims))
        )
    return all_workloads


def _pod(name: str, namespace: str, template: Manifest, claims: list[str]) -> Manifest:
    spec = deepcopy(template["spec"])
    # Whether the account exists is no question of the pod's security.
    spec.pop("serviceAccountName", None)
    spec.pop("serviceAccount", None)
    spec.pop("priorityClassName", None)
    spec.setdefault("volumes", []).extend({"name": claim, "emptyDir": {}} for claim in claims)
    about = {
        "name": name.lower()[:60],
        "namespace": namespace,
        "labels": template.get("metadata", {}).get("labels", {}),
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec}


def _collector_pod(item: Manifest) -> Manifest:
    """Return the pod template that the operator makes of an OpenTelemetryCollector."""
    spec, name = item["spec"], item["metadata"]["name"]
    container = {
        "name": "otc-container",
        "image": spec.get("image", "default"),
        "ports": [{"containerPort": port} for port in _receiver_ports(spec["config"])],
        "resources": spec.get("resources", {}),
        "securityContext": spec.get("securityContext", {}),
        "volumeMounts": spec.get("volumeMounts", []),
    }
    labels = {
        "app.kubernetes.io/name": f"{name}-collector",
        "app.kubernetes.io/instance": f"{item['metadata'].get('namespace', '')}.{name}",
        "app.kubernetes.io/component": "opentelemetry-collector",
        "app.kubernetes.io/part-of": "opentelemetry",
        "app.kubernetes.io/managed-by": "opentelemetry-operator",
    }
    return {
        "metadata": {"labels": {**item["metadata"].get("labels", {}), **labels}},
        "spec": {
            "containers": [container],
            "securityContext": spec.get("podSecurityContext", {}),
            "volumes": deepcopy(spec.get("volumes", [])),
            "topologySpreadConstraints": spec.get("topologySpreadConstraints", []),
        },
    }


def _receiver_ports(config: Manifest) -> list[int]:
    ports = []
    for receiver in config.get("receivers", {}).values():
        for protocol in ((receiver or {}).get("protocols") or {}).values():
            ports.append(int(protocol["endpoint"].rsplit(":", 1)[1]))
    return ports


def instrumented(app: Workload, instrumentation: Manifest) -> Manifest:
    """Return an app's pod with the init container that the operator adds to it."""
    pod = deepcopy(app.pod)
    spec = instrumentation["spec"]
    pod["metadata"]["name"] += "-injected"
    pod["spec"].setdefault("volumes", []).append({"name": "opentelemetry-auto-instrumentation-python", "emptyDir": {}})
    pod["spec"].setdefault("initContainers", []).append(
        {
            "name": "opentelemetry-auto-instrumentation-python",
            "image": spec["python"]["image"],
            "securityContext": spec.get("initContainerSecurityContext", {}),
            "resources": spec["python"].get("resourceRequirements", {}),
            "volumeMounts": [{"name": "opentelemetry-auto-instrumentation-python", "mountPath": "/otel"}],
        }
    )
    return pod
