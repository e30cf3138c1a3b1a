"""The default platform in real containers on one node: it comes up, tells the story, and is as closed as it says.

Without the real charts (``UPSTREAM_CHARTS``) it runs on stand-ins of them, which the run names.
"""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.e2e.cluster.node import Node
from tests.e2e.cluster.packets import connections, listening, namespaces, running
from tests.e2e.cluster.platform import Platform
from tests.e2e.cluster.telemetry import Telemetry
from tests.e2e.datapath.query import Exemplar
from tests.e2e.gitops.kube import Manifest, Refused
from tests.e2e.gitops.network import Network, endpoint
from tests.e2e.processes import HTTP, wait_until

# Warnings that a healthy start brings, by reason, and what of their message is allowed.
EXPLAINED = {
    "CgroupV1": "",  # about the machine
    "ClusterIPNotAllocated": "repairing",  # the API server looks for lost addresses before it has heard of a new Service
    # A node or a volume that is not ready yet, a claim made a moment before its pod.
    "FailedScheduling": "no nodes available|untolerated taint|unbound|didn't find available persistent volumes"
    '|did not have enough|persistentvolumeclaim ".*" not found',
    # Not ready yet, or asked before it listens; that nobody was restarted for it is a test of its own.
    "Unhealthy": "(Readiness|Startup) probe failed|Liveness probe failed: .*connection refused",
    "FailedMount": "not found|failed to sync|Unable to attach or mount",  # a Secret that the next step makes
    "FailedCreate": "webhook",  # the app before the operator's webhook answers, or knows its Instrumentation
    "FailedToUpdateEndpoint": "",
    "FailedToUpdateEndpointSlices": "",
}

LAPTOP_MIB = 1843  # 1.8 GiB


def test_every_component_is_synced_and_healthy(platform: Platform) -> None:
    """Argo CD says so of every folder with an application.yaml."""
    folders = {path.parent.name for path in platform.folder.glob("*/*/application.yaml")}
    folders |= {path.parent.name for path in platform.folder.glob("k8s/helm-charts/*/application.yaml")}
    assert platform.argocd.wait_synced(timeout=60).keys() == folders


def test_no_container_was_restarted(platform: Platform) -> None:
    """No program ended on its way to Healthy."""
    restarts = {
        f"{pod['metadata']['name']}/{status['name']}": status["restartCount"]
        for pod in platform.pods()
        for status in pod["status"].get("containerStatuses", [])
        if status["restartCount"]
    }
    assert restarts == {}


def test_every_warning_is_explained(platform: Platform) -> None:
    """No event warns of what is not known to be harmless."""
    strange = [
        f"{event['involvedObject']['kind']}/{event['involvedObject']['name']} {event['reason']}: {event['message']}"
        for event in platform.cluster.kube.list("events")
        if event["type"] == "Warning"
        and (event["reason"] not in EXPLAINED or not re.search(EXPLAINED[event["reason"]], event["message"]))
    ]
    assert strange == []


@pytest.mark.usefixtures("nodes")
def test_every_image_is_one_that_the_manifests_name(platform: Platform) -> None:
    """The node has no way to another registry; what runs came under a name that the rendered charts ask for."""
    platform_pods = [pod for pod in platform.pods() if pod["metadata"]["namespace"] != "kube-system"]
    used = {container["image"] for pod in platform_pods for container in pod["spec"]["containers"]}
    used |= {container["image"] for pod in platform_pods for container in pod["spec"].get("initContainers", [])}
    assert used <= platform.sources.found.keys()


def test_the_sdk_is_injected_where_restricted_is_enforced(platform: Platform) -> None:
    """The app's pod has the operator's init container, in a namespace that admits nothing less than restricted."""
    namespace = platform.cluster.kube.get("namespace", platform.team)
    assert namespace
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    pods = platform.cluster.kube.list("pods", platform.team, "app.kubernetes.io/name=flask-app")
    assert pods
    for pod in pods:
        assert [it["name"] for it in pod["spec"]["initContainers"]] == ["opentelemetry-auto-instrumentation-python"]


def test_admission_enforces_what_a_namespace_claims(platform: Platform) -> None:
    """Every namespace of the platform that claims restricted refuses a pod that is not, and holds none that is not."""
    kube = platform.cluster.kube
    label = "pod-security.kubernetes.io/enforce"
    claimed = [it for it in kube.list("namespaces") if it["metadata"].get("labels", {}).get(label) == "restricted"]
    assert len(claimed) >= 3
    root = {"containers": [{"name": "it", "image": "it", "securityContext": {"privileged": True}}]}
    for namespace in (it["metadata"]["name"] for it in claimed):
        about = {"name": "root", "namespace": namespace}
        with pytest.raises(Refused, match="violates PodSecurity"):
            kube.apply([{"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": root}], "--dry-run=server")
        said = kube.run("label", "namespace", namespace, f"{label}=restricted", "--overwrite", "--dry-run=server")
        assert "violate" not in said


def test_policies_hold_by_packets(platform: Platform, nodes: dict[str, Node]) -> None:
    """A connection opens exactly where the policies allow it: every pod to every port on which another listens."""
    kube = platform.cluster.kube
    (node,) = nodes.values()
    found = running(platform.pods())
    network = Network(tuple(kube.list("networkpolicies")))
    inside = namespaces(node)
    targets = {
        (pod["status"]["podIP"], port): pod for pod in found for port in listening(node, inside[pod["status"]["podIP"]])
    }

    def tried(pod: Manifest) -> dict[tuple[str, int], bool]:
        """Return for every port of another pod whether this one reaches it."""
        address = pod["status"]["podIP"]
        others = [target for target in targets if target[0] != address]
        reached = connections(node, inside[address], others)
        return {target: target in reached for target in others}

    opened, denied, wrong = 0, 0, []
    with ThreadPoolExecutor(12) as pool:  # each mostly waits for what is refused
        results = list(pool.map(tried, found))
    for pod, result in zip(found, results, strict=True):
        for target, reached in result.items():
            client, server = (endpoint(it["metadata"]["name"], it) for it in (pod, targets[target]))
            allowed = network.allows(client, server, target[1])
            opened, denied = opened + allowed, denied + (not allowed)
            if allowed != reached:
                wrong.append(f"{client.name} -> {server.name}:{target[1]}: {'refused' if allowed else 'open'}")
    assert wrong == []
    assert denied >= 30
    assert opened >= 10


def answers(url: str) -> bool:
    return HTTP.get(url).status_code == 200


def test_make_open_leads_to_every_page(platform: Platform) -> None:
    """Grafana, Argo CD and the app answer at the addresses that `make open` prints, until it is told to end."""
    opened = platform.processes.start("open", ["bash", platform.folder / "scripts/open.sh"], env=platform.env)

    def said() -> str:
        text = opened.log.read_text()
        return text if "Ctrl-C stops." in text else ""

    pages = dict(re.findall(r"(?m)^(\S.*?) +(http://localhost:\d+)$", wait_until(said, "all is open", 60)))
    assert pages.keys() == {"Grafana", "Argo CD", "flask-app"}
    for page, path in {"Grafana": "/api/health", "Argo CD": "/healthz", "flask-app": "/readyz"}.items():
        wait_until(partial(answers, pages[page] + path), f"{page} answers", 30)
    opened.stop()


def test_the_doctor_finds_nothing(platform: Platform) -> None:
    """Every hop is whole, through the doctor's own port-forwards; a stand-in of Grafana has nothing to show."""

    def whole() -> bool:
        hops = {hop["hop"]: hop for hop in platform.doctor()["hops"]}
        broken = {name: hop for name, hop in hops.items() if hop["status"] not in ("ok", "skip")}
        if platform.stands_in("grafana"):
            broken = {name: hop for name, hop in broken.items() if not name.endswith("in Grafana")}
        assert broken == {}
        assert len(hops) >= 8
        return True

    # Of the first exemplars the traces are still under way.
    wait_until(whole, "every hop is whole", 60, 5)


def test_a_spike_leads_to_the_request_s_log_line(platform: Platform, telemetry: Telemetry) -> None:
    """The exemplar of a slow checkout, its trace and its one log line, of a request that the app's own log tells of."""

    def spike() -> Exemplar | None:
        now = time.time()
        found = telemetry.exemplars(now - 900, now)
        # The payment of a slow checkout is slow too, and of the same trace.
        return next((it for it in found if it.series["service_name"] == "checkout" and it.seconds > 1.5), None)

    # Peaks are at most three minutes apart, and last half a minute.
    found = wait_until(spike, "an exemplar of a peak", 240, 2)
    told = {request.trace_id: request for request in platform.record.requests()}[found.trace_id]
    assert told.mode == "peak"
    assert told.duration_ms / 1000 == pytest.approx(found.seconds, abs=0.1)
    wait_until(lambda: telemetry.has_trace(found.trace_id), "its trace", 30)
    assert wait_until(lambda: telemetry.lines(found.trace_id), "its log line", 30) == {(found.trace_id, told.line)}
    if platform.started:
        first = min(it.time for it in telemetry.exemplars(platform.started, time.time()))
        platform.measured["seconds from an empty cluster to the first exemplar"] = f"{first - platform.started:.0f}"


def test_no_pod_reaches_its_limit(platform: Platform) -> None:
    """After a peak every pod is below its limit, and all together ask for no more than a laptop has to spare."""
    memory = platform.memory()
    for name, (used, request, limit) in sorted(memory.items()):
        platform.measured[f"MiB of {name}"] = f"uses {used}, asks for {request}, limit {limit}"
    total = [sum(column) for column in zip(*memory.values(), strict=True)]
    platform.measured["MiB of all"] = f"use {total[0]}, ask for {total[1]}, limits {total[2]}"
    assert {name for name, (used, _, limit) in memory.items() if used >= limit} == set()
    assert total[1] <= LAPTOP_MIB
