"""What restarts, dies or is away while shoppers shop: nothing that the app served may be missing afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.e2e.cluster.containers import Container
from tests.e2e.cluster.node import Node
from tests.e2e.cluster.platform import PARTS, Platform
from tests.e2e.cluster.shoppers import newer, shoppers
from tests.e2e.cluster.telemetry import Telemetry
from tests.e2e.gitops.kube import Manifest
from tests.e2e.processes import wait_until

# Parts whose restart nobody may notice, in the order of the data path.
RESTARTED = ("app", "collector", "router", "ingestor", "query", "tempo")
OUTAGE_SECONDS = 60
LONGEST_REQUEST_SECONDS = 5


@pytest.fixture(scope="module", autouse=True)
def quiet(platform: Platform, nodes: dict[str, Node]) -> None:
    """Only the tests' own shoppers shop, by a commit: counts can then be exact."""
    revision = platform.overlay("platform-apps/load-generator", {"enabled": False}, "No load")
    platform.argocd.refresh("load-generator")
    platform.argocd.wait_synced("load-generator", revision=revision, timeout=120)
    wait_until(lambda: not platform.pods("app.kubernetes.io/name=load-generator"), "no load", 60, 1)
    served, since = -1, 0.0

    def still() -> bool:
        nonlocal served, since
        if (now := len(platform.record.requests())) != served:
            served, since = now, time.monotonic()
        return time.monotonic() - since > LONGEST_REQUEST_SECONDS

    # A request whose shopper was stopped goes on in the app: counted too late, it would be one too many.
    wait_until(still, "the last requests are served", 60, 0.5)


@pytest.fixture(autouse=True)
def whole_again(platform: Platform, telemetry: Telemetry) -> Iterator[None]:
    """Every fault starts from a platform that counts exactly, and ends in one that is Healthy."""
    telemetry.settle()
    yield
    platform.argocd.wait_synced(timeout=180)


@pytest.fixture
def node(nodes: dict[str, Node]) -> Node:
    (only,) = nodes.values()
    return only


def app_url(platform: Platform) -> str:
    service = platform.cluster.kube.get("service", "flask-app", platform.team)
    assert service
    return f"http://{service['spec']['clusterIP']}/checkout"


def one(platform: Platform, part: str) -> Container:
    found = platform.containers(part)
    assert len(found) == 1, f"{part}: {len(found)} containers run"
    return found[0]


def statuses(platform: Platform, part: str) -> list[Manifest]:
    """Return the status of the part's container in each of its pods."""
    _, _, selector, name = PARTS[part]
    found = [status for pod in platform.pods(selector) for status in pod["status"].get("containerStatuses", [])]
    return [status for status in found if status["name"] == name]


def ready_again(platform: Platform, part: str, before: str) -> None:
    """Wait until a container that is not ``before`` (its id) is ready."""

    def done() -> bool:
        found = statuses(platform, part)
        return len(found) == 1 and found[0]["ready"] and not found[0].get("containerID", before).endswith(before)

    wait_until(done, f"{part} is ready again", 180, 0.5)


def started_again(platform: Platform, since: float) -> None:
    """Wait until every container is ready and was started after a moment (Unix seconds)."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))

    def late() -> list[str]:
        return [
            pod["metadata"]["name"]
            for pod in platform.pods()
            if not (seen := pod["status"].get("containerStatuses"))
            or any(not it["ready"] or it["state"]["running"]["startedAt"] < moment for it in seen)
        ]

    def done() -> bool:
        assert late() == []
        return True

    wait_until(done, "every container was started again", 300, 1)


def webhooks_answer(platform: Platform) -> None:
    """Wait until the API server reaches the operator's webhooks: it keeps its connections to pods that died for a while.

    What Argo CD compares meanwhile fails, and may be called Synced afterwards (docs/operations.md, Known of Argo CD).
    """
    kube = platform.cluster.kube
    found = kube.get("instrumentations.opentelemetry.io", "python", platform.team)
    assert found
    about = {key: found["metadata"][key] for key in ("name", "namespace")}
    asked = {**{key: found[key] for key in ("apiVersion", "kind", "spec")}, "metadata": about}

    def answer() -> bool:
        kube.apply([asked], "--dry-run=server", "--field-manager=probe")
        return True

    wait_until(answer, "the webhooks answer", 180, 1)


def served_more(platform: Platform, count: int = 15) -> None:
    """Wait until the app has served that many more requests."""
    before = len(platform.record.requests())
    wait_until(lambda: len(platform.record.requests()) >= before + count, f"{count} more requests", 90, 0.5)


def one_after_another(
    platform: Platform, telemetry: Telemetry, node: Node, parts: Sequence[str], disturb: Callable[[str], None]
) -> None:
    """Disturb one part after the other while shoppers shop: nothing may be lost, and no request may fail.

    The next part is disturbed as soon as requests are served again, so its predecessor may still be catching up. What was
    lost is told with its time, and the times of the parts are printed.
    """
    before = telemetry.settle()
    with shoppers(node, app_url(platform)) as seen:
        served_more(platform)
        for part in parts:
            print(f"{time.strftime('%X')} {part}")
            disturb(part)
            served_more(platform)
    assert seen.failed == {}
    assert len(newer(platform.record.requests(), before)) == sum(seen.answers.values()) >= 15 * (len(parts) + 1)
    assert len(telemetry.nothing_lost(before)) == sum(seen.answers.values())


def test_rolling_restarts(platform: Platform, telemetry: Telemetry, node: Node) -> None:
    """A rollout of each part: nothing is lost, and no request fails."""

    def restart(part: str) -> None:
        namespace, workload, _, _ = PARTS[part]
        for verb in (("restart", workload), ("status", workload, "--timeout=110s")):
            platform.cluster.kube.run("-n", namespace or platform.team, "rollout", *verb)

    one_after_another(platform, telemetry, node, RESTARTED, restart)


def test_killed(platform: Platform, telemetry: Telemetry, node: Node) -> None:
    """A SIGKILL of each part of the platform loses nothing, and no request of the app notices."""

    def kill(part: str) -> None:
        victim = one(platform, part)
        victim.kill()
        ready_again(platform, part, victim.id)

    one_after_another(platform, telemetry, node, RESTARTED[1:], kill)


def end_app(platform: Platform, telemetry: Telemetry, node: Node, end: Callable[[Container], None]) -> None:
    """End the app at once by ``end``; it takes with it what its SDK had not exported yet, and nothing else is missing."""
    before, victim = telemetry.settle(), one(platform, "app")
    with shoppers(node, app_url(platform)):
        served_more(platform)
        exported = platform.record.requests()
        wait_until(lambda: telemetry.counted() >= len(exported) - telemetry.lost, "they are exported", 60, 0.5)
        telemetry.kept(newer(exported, before))
        end(victim)
        wait_until(lambda: victim.ended, "the app is gone", 60, 0.1)
        telemetry.ended.append((victim.pod, time.time()))
        unknown = newer(platform.record.requests(), exported)
        ready_again(platform, "app", victim.id)
        served_more(platform)
    told = platform.record.requests()
    later = newer(told, [*exported, *unknown])
    telemetry.kept(later)
    _, moment = telemetry.ended[-1]
    wait_until(lambda: telemetry.counted(moment) == len(later), "the later ones are counted", 60, 1)
    lost = len(told) - telemetry.counted() - telemetry.lost
    assert 0 <= lost <= len(unknown)
    telemetry.lost += lost


def test_killed_app(platform: Platform, telemetry: Telemetry, node: Node) -> None:
    """A SIGKILL."""
    end_app(platform, telemetry, node, Container.kill)


def test_app_out_of_memory(platform: Platform, telemetry: Telemetry, node: Node) -> None:
    """The kernel ends it where it uses more than its limit, and the kubelet starts it again and says why."""
    end_app(platform, telemetry, node, Container.exhaust_memory)
    (status,) = statuses(platform, "app")
    assert status["lastState"]["terminated"]["reason"] == "OOMKilled"


def test_kubelet_is_away(platform: Platform, telemetry: Telemetry, node: Node) -> None:
    """A node whose kubelet is stopped for a minute goes on serving and reporting, and is Ready again afterwards."""
    before = telemetry.settle()
    with shoppers(node, app_url(platform)) as seen:
        node.stop_part("kubelet")
        time.sleep(OUTAGE_SECONDS)
        node.start_kubelet()
        platform.cluster.wait_ready(node)
        served_more(platform)
    assert len(telemetry.nothing_lost(before)) == sum(seen.answers.get(status, 0) for status in ("200", "500")) >= 60


def test_operator_is_away_while_the_app_scales(platform: Platform) -> None:
    """No pod of the app starts without the SDK, however long the webhook does not answer."""
    operator, selector = one(platform, "operator"), PARTS["app"][2]

    def refused() -> bool:
        events = platform.cluster.kube.list("events", platform.team)
        return any(it["reason"] == "FailedCreate" and "no SDK was injected" in it["message"] for it in events)

    def injected(count: int) -> bool:
        pods = [pod for pod in platform.pods(selector) if not pod["metadata"].get("deletionTimestamp")]
        ready = [pod for pod in pods if all(it["ready"] for it in pod["status"].get("containerStatuses", []))]
        inits = [[it["name"] for it in pod["spec"].get("initContainers", [])] for pod in pods]
        assert inits == [["opentelemetry-auto-instrumentation-python"]] * len(pods)
        return len(ready) == len(pods) == count

    operator.pause()
    try:
        # By hand: Argo CD would wait for the operator's other webhooks first, and puts the number back.
        platform.cluster.kube.run("-n", platform.team, "scale", PARTS["app"][1], "--replicas=2")
        wait_until(refused, "a pod is refused", 90, 1)
        assert len(platform.pods(selector)) == 1
    finally:
        if not operator.ended:  # the kubelet may have replaced it, as it did not answer
            operator.resume()
    wait_until(lambda: all(it["ready"] for it in statuses(platform, "operator")), "the operator is back", 180, 1)
    platform.overlay("k8s/helm-charts/flask-app", {"replicaCount": 2}, "Two of the app")
    platform.argocd.refresh("flask-app")
    wait_until(lambda: injected(2), "two pods with the SDK", 180, 1)
    platform.overlay("k8s/helm-charts/flask-app", {"replicaCount": 1}, "One again")
    platform.argocd.refresh("flask-app")
    wait_until(lambda: injected(1), "one pod again", 120, 1)


def test_reboot(platform: Platform, telemetry: Telemetry, node: Node) -> None:
    """A node that loses its power comes back with its volumes: all that was counted before is there."""
    before, counted, app = platform.record.requests(), telemetry.counted(), one(platform, "app")
    node.kill()
    telemetry.ended.append((app.pod, end := time.time()))
    platform.cluster.boot(node)
    platform.mount(node)
    started_again(platform, end)
    webhooks_answer(platform)
    platform.argocd.wait_synced(timeout=300)
    wait_until(lambda: telemetry.counted() == counted, "the old counts are back", 120, 1)
    with shoppers(node, app_url(platform)) as seen:
        served_more(platform)
    assert seen.failed == {}
    assert len(telemetry.nothing_lost(before)) == sum(seen.answers.values())
