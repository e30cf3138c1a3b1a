"""The default platform in real containers on one node: it comes up, tells the story, and is as closed as it says.

Needs charts (``UPSTREAM_CHARTS``) and the images of cert-manager and the operator (``E2E_IMAGES``); skips with that reason.
"""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import yaml

from tests.e2e.cluster.packets import connections, listening, namespaces, running
from tests.e2e.cluster.platform import Platform
from tests.e2e.datapath.query import Thanos
from tests.e2e.gitops.kube import Manifest, Refused
from tests.e2e.gitops.network import Network, endpoint
from tests.e2e.processes import LOOPBACK, Processes, free_port, wait_until
from tests.e2e.toolchain import tool

# Warnings that a healthy start brings, by reason, and what of their message is allowed.
EXPLAINED = {
    "CgroupV1": "",  # about the machine
    "FailedScheduling": "no nodes available|unbound|didn't find available persistent volumes|did not have enough",
    "Unhealthy": "(Readiness|Startup) probe failed",  # not ready yet
    "FailedMount": "not found|failed to sync|Unable to attach or mount",  # a Secret that the next step makes
    "FailedCreate": "webhook",  # the app before the operator's webhook answers
    "FailedToUpdateEndpoint": "",
    "FailedToUpdateEndpointSlices": "",
}


def pods(platform: Platform) -> list[Manifest]:
    return platform.cluster.kube.list("pods")


def test_every_component_is_synced_and_healthy(platform: Platform) -> None:
    """Argo CD says so of every folder with an application.yaml."""
    folders = {path.parent.name for path in platform.folder.glob("*/*/application.yaml")}
    folders |= {path.parent.name for path in platform.folder.glob("k8s/helm-charts/*/application.yaml")}
    assert platform.argocd.wait_synced(timeout=60).keys() == folders


def test_no_container_was_restarted(platform: Platform) -> None:
    """No program ended on its way to Healthy."""
    restarts = {
        f"{pod['metadata']['name']}/{status['name']}": status["restartCount"]
        for pod in pods(platform)
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


def test_every_image_is_one_that_the_manifests_name(platform: Platform) -> None:
    """The node has no way to another registry; what runs came under a name that the rendered charts ask for."""
    platform_pods = [pod for pod in pods(platform) if pod["metadata"]["namespace"] != "kube-system"]
    used = {container["image"] for pod in platform_pods for container in pod["spec"]["containers"]}
    used |= {container["image"] for pod in platform_pods for container in pod["spec"].get("initContainers", [])}
    assert used <= platform.sources.found.keys()


def test_the_sdk_is_injected_where_restricted_is_enforced(platform: Platform) -> None:
    """The app's pod has the operator's init container, in a namespace that admits nothing less than restricted."""
    (team,) = {
        pod["metadata"]["namespace"] for pod in pods(platform) if pod["metadata"]["name"].startswith("flask-app")
    }
    namespace = platform.cluster.kube.get("namespace", team)
    assert namespace
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for pod in platform.cluster.kube.list("pods", team):
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


def test_policies_hold_by_packets(platform: Platform) -> None:
    """A connection opens exactly where the policies allow it: every pod to every port on which another listens."""
    kube = platform.cluster.kube
    (node,) = platform.cluster.nodes.values()
    found = running(pods(platform))
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
    with ThreadPoolExecutor(4) as pool:
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


def test_an_exemplar_of_the_app_is_in_thanos(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> None:
    """From the injected SDK over collector and router to Query, asked through a port-forward as the doctor does."""
    port = free_port()
    with Processes(tmp_path_factory.mktemp("forward")) as processes:
        forward = ["-n", "observability", "port-forward", "service/thanos-query-frontend", f"{port}:http"]
        kubectl = tool("kubernetes", "kubectl")
        processes.start("forward", [kubectl, "--kubeconfig", platform.cluster.kube.kubeconfig, *forward])
        thanos = Thanos(f"http://{LOOPBACK}:{port}")

        def exemplar() -> bool:
            now = time.time()
            found = thanos.exemplars("http_server_request_duration_seconds", now - 600, now)
            return any(len(it.trace_id) == 32 for it in found)

        wait_until(exemplar, "an exemplar of the app", 120, 1)


def test_a_commit_rolls_out_and_its_revert_rolls_back(platform: Platform) -> None:
    """The number of users in the running load generator's arguments is what the commit says, and then what it was."""
    file = platform.folder / "platform-apps/load-generator/values.yaml"
    before = file.read_text()
    users = yaml.safe_load(before)["users"]

    def runs(count: int) -> bool:
        found = platform.cluster.kube.list("pods", selector="app.kubernetes.io/name=load-generator")
        ready = [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]
        arguments = [pod["spec"]["containers"][0]["args"] for pod in ready if pod["status"]["phase"] == "Running"]
        return bool(arguments) and all(f"--users={count}" in argument for argument in arguments)

    wait_until(lambda: runs(users), "the load generator runs", 60, 1)
    for text, count in ((before.replace(f"users: {users}", f"users: {users + 1}"), users + 1), (before, users)):
        file.write_text(text)
        revision = platform.commit(f"{count} users")
        platform.argocd.refresh("load-generator")
        platform.argocd.wait_synced("load-generator", revision=revision, timeout=180)
        wait_until(partial(runs, count), f"{count} users", 120, 1)
