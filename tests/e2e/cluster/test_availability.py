"""The production profile on three nodes with an S3 of one's own: replication factor 3 is what it promises to be.

Only the name's record in the cluster's DNS and the authority that programs trust are put in; all else is as baked.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from scripts import charts
from tests.e2e.cluster.cluster import Cluster
from tests.e2e.cluster.node import PAUSE, Node
from tests.e2e.cluster.objectstore import ObjectStore
from tests.e2e.cluster.packets import namespaces
from tests.e2e.cluster.platform import PARTS, Platform
from tests.e2e.cluster.shoppers import Seen, newer, shoppers
from tests.e2e.cluster.telemetry import Telemetry
from tests.e2e.datapath.query import Thanos
from tests.e2e.datapath.traffic import SERVED
from tests.e2e.gitops.kube import Manifest, Refused
from tests.e2e.processes import wait_until

COUNTED = f"sum by (http_route, http_response_status_code) (histogram_count({SERVED}))"
P95 = f"histogram_quantile(0.95, sum({SERVED}))"


@pytest.fixture(scope="module")
def platform(production: tuple[Platform, ObjectStore]) -> Platform:
    return production[0]


@pytest.fixture(scope="module")
def store(production: tuple[Platform, ObjectStore]) -> ObjectStore:
    return production[1]


@pytest.fixture(scope="module")
def telemetry(platform: Platform) -> Telemetry:
    return Telemetry(platform)


def pods(platform: Platform, part: str) -> list[Manifest]:
    """Return the pods of a part that are here to stay."""
    return [pod for pod in platform.pods(PARTS[part][2]) if "deletionTimestamp" not in pod["metadata"]]


def shopper(node: Node) -> Manifest:
    """Return a pod beside the app, on a node: policies let its network shop."""
    container = {
        "name": "it",
        "image": PAUSE,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "nodeName": node.name,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"shopper-{node.name}"}, "spec": spec}


@contextmanager
def shopping(platform: Platform, on: str, count: int = 3) -> Iterator[Seen]:
    """Shop from a pod on a node until the block ends."""
    pod = platform.cluster.kube.get("pod", f"shopper-{on}", platform.team)
    service = platform.cluster.kube.get("service", "flask-app", platform.team)
    assert pod
    assert service
    node = platform.cluster.nodes[on]
    url = f"http://{service['spec']['clusterIP']}/checkout"
    with shoppers(node, url, count, namespaces(node)[pod["status"]["podIP"]]) as seen:
        yield seen


def ready(pod: Manifest) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(it["type"] == "Ready" and it["status"] == "True" for it in conditions)


def where(platform: Platform, part: str) -> list[str]:
    """Return the node of each pod of a part."""
    return [pod["spec"].get("nodeName", "") for pod in pods(platform, part)]


def all_ready(platform: Platform) -> None:
    """Wait until every pod is ready."""

    def late() -> bool:
        waiting = [pod["metadata"]["name"] for pod in platform.pods() if not ready(pod) and not finished(pod)]
        assert not waiting, waiting
        return True

    wait_until(late, "every pod is ready", 240, 1)


def finished(pod: Manifest) -> bool:
    return bool(pod["status"].get("phase") == "Succeeded")


def served_more(platform: Platform, count: int = 20) -> None:
    """Wait until the app has served that many more requests."""
    before = len(platform.record.requests())
    wait_until(lambda: len(platform.record.requests()) >= before + count, f"{count} more requests", 120, 0.5)


def once(telemetry: Telemetry) -> None:
    """Every exemplar of the run is there once."""
    found = telemetry.exemplars(telemetry.platform.started, time.time())
    seen = Counter((it.trace_id, it.span_id, it.time) for it in found)
    assert seen
    assert [key for key, count in seen.items() if count > 1] == []


@dataclass
class Asked:
    """What a person who reloads a dashboard each second has seen."""

    counts: list[float] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)


@contextmanager
def asked(query: Thanos) -> Iterator[Asked]:
    """Ask for the number of requests each second while the block runs."""
    seen, over = Asked(), threading.Event()

    def ask() -> None:
        while not over.wait(1):
            try:
                (answer,) = query.instant(f"sum(histogram_count({SERVED}))")
                seen.counts.append(float(answer["value"][1]))
            except Exception as error:  # whatever a person would see
                seen.refusals.append(repr(error))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    try:
        yield seen
    finally:
        over.set()
        asking.join(60)


SHOPPERS = ("node-1", "node-3")  # from which nodes people shop; the other one is drained


@pytest.fixture(scope="module", autouse=True)
def people(platform: Platform) -> None:
    """Somebody may shop on two of the nodes."""
    manifests = [shopper(platform.cluster.nodes[name]) for name in SHOPPERS]
    platform.cluster.kube.apply(manifests, "--namespace", platform.team)
    names = (f"pod/shopper-{name}" for name in SHOPPERS)
    platform.cluster.kube.run("--namespace", platform.team, "wait", *names, "--for=condition=Ready", "--timeout=60s")


def test_every_component_is_synced_and_healthy(platform: Platform) -> None:
    """Argo CD says so; the copies of what must outlive a node are on three of them, and nothing was restarted."""
    assert {"thanos-store", "thanos-receive", "flask-app"} <= platform.argocd.wait_synced(timeout=60).keys()
    for part in ("ingestor", "collector", "app"):
        assert sorted(where(platform, part)) == ["node-1", "node-2", "node-3"], part
    restarts = {
        pod["metadata"]["name"]: status["restartCount"]
        for pod in platform.pods()
        for status in pod["status"].get("containerStatuses", [])
        if status["restartCount"]
    }
    assert restarts == {}


def test_three_copies_are_one(platform: Platform, telemetry: Telemetry) -> None:
    """Each request is counted once, with its exemplars once, its trace and its line."""
    with shopping(platform, "node-1") as seen:
        served_more(platform, 60)
    assert seen.failed == {}
    assert len(telemetry.nothing_lost([])) == sum(seen.answers.values())
    once(telemetry)


def lost(cluster: Cluster, node: Node) -> bool:
    found = cluster.kube.get("node", node.name)
    return found is not None and any(
        it["type"] == "Ready" and it["status"] != "True" for it in found["status"]["conditions"]
    )


def test_a_node_dies_under_load(platform: Platform, telemetry: Telemetry) -> None:
    """The node that holds Tempo loses its power: queries and exemplars go on, and in the end nothing is lost or doubled."""
    before, cluster = telemetry.settle(), platform.cluster
    victim = cluster.nodes[where(platform, "tempo")[0]]
    (app,) = [pod["metadata"]["name"] for pod in pods(platform, "app") if pod["spec"]["nodeName"] == victim.name]
    with shopping(platform, next(name for name in SHOPPERS if name != victim.name), 6) as seen:
        served_more(platform, 60)
        exported = platform.record.requests()
        wait_until(lambda: telemetry.counted() >= len(exported), "they are exported", 60, 0.5)
        telemetry.kept(newer(exported, before))
        victim.kill()
        telemetry.ended.append((app, time.time()))
        unknown = newer(platform.record.requests(app), exported)
        with asked(telemetry.thanos) as answers:
            wait_until(lambda: lost(cluster, victim), "the cluster counts the node as lost", 120, 1)
            at = platform.record.requests()
            served_more(platform, 60)
            fresh = {request.trace_id for request in newer(platform.record.requests(), at)}

            def shown() -> bool:
                now = time.time()
                return any(it.trace_id in fresh for it in telemetry.exemplars(now - 120, now))

            wait_until(shown, "a fresh exemplar", 60, 1)
        assert answers.refusals == []
        assert answers.counts == sorted(answers.counts)
        assert len(answers.counts) >= 20
        cluster.boot(victim)
        platform.mount(victim)
        all_ready(platform)
        served_more(platform)
    told = platform.record.requests()
    assert len(newer(told, before)) >= sum(seen.answers.get(status, 0) for status in ("200", "500"))
    later = newer(told, [*exported, *unknown])
    telemetry.kept(later)

    def exact() -> bool:
        missing = len(told) - telemetry.counted()
        assert 0 <= missing <= len(unknown), f"{missing} are missing of {len(told)}; the killed app had {len(unknown)}"
        telemetry.lost = missing
        return True

    wait_until(exact, "the rest is counted", 120, 1)
    once(telemetry)


def test_drain_honours_the_budgets(platform: Platform, telemetry: Telemetry) -> None:
    """A node is drained under load and nobody notices; of a second one no ingestor may go meanwhile."""
    before, kube = telemetry.settle(), platform.cluster.kube
    with shopping(platform, "node-1") as seen:
        kube.run("drain", "node-2", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=110s")
        try:
            selector = f"--pod-selector={PARTS['ingestor'][2]}"
            with pytest.raises(Refused, match="disruption budget"):
                kube.run("drain", "node-3", selector, "--delete-emptydir-data", "--timeout=10s")
            assert sum(ready(pod) for pod in pods(platform, "ingestor")) == 2
            served_more(platform, 40)
        finally:
            kube.run("uncordon", "node-2", "node-3")
        all_ready(platform)
    assert seen.failed == {}
    assert len(telemetry.nothing_lost(before)) == sum(seen.answers.values())
    once(telemetry)


def test_one_ingestor_more(platform: Platform, telemetry: Telemetry) -> None:
    """By the commit that docs/operations.md describes; series that move to it are still one."""
    before = telemetry.settle()
    receive = {"ingestor": {"replicas": 4}, "router": {"podAnnotations": {"ingestors": "4"}}}
    with shopping(platform, "node-1") as seen:
        revision = platform.overlay(
            "platform-apps/thanos-receive", {"thanos": {"receive": receive}}, "One ingestor more"
        )
        platform.argocd.refresh("thanos-receive")
        platform.argocd.wait_synced("thanos-receive", revision=revision, timeout=180)
        wait_until(lambda: telemetry.thanos.stores()["receive"] == 4, "Query asks four ingestors", 90, 1)
        served_more(platform, 40)
    assert seen.failed == {}
    assert len(telemetry.nothing_lost(before)) == sum(seen.answers.values())
    once(telemetry)


def blocks(store: ObjectStore, compacted: bool) -> list[Manifest]:
    """Return the metadata of the uploaded blocks that are there to stay, from the Compactor or from ingestors."""
    found = []
    for folder in (path.parent for path in store.bucket.glob("thanos/*/meta.json")):
        meta = json.loads((folder / "meta.json").read_text())
        if not (folder / "deletion-mark.json").exists() and (meta["thanos"]["source"] == "compactor") == compacted:
            found.append(meta)
    return found


def test_blocks_outlive_the_ingestors(platform: Platform, telemetry: Telemetry, store: ObjectStore) -> None:
    """Uploaded over TLS, deduplicated by the Compactor, and read back when no ingestor has a copy any more."""
    kube, observability = platform.cluster.kube, ("-n", "observability")
    telemetry.settle()
    at = time.time()
    before = {query: telemetry.thanos.instant(query, at) for query in (COUNTED, P95)}
    assert all(before.values())
    # The newest samples stay in the write-ahead log, so there have to be later ones; pods that are gone send no more.
    newest = f"max(timestamp({SERVED}))"
    wait_until(lambda: (telemetry.thanos.value(newest) or 0) > at + 1, "later samples", 60, 1)
    names = [pod["metadata"]["name"] for pod in pods(platform, "ingestor")]
    claims = [
        volume["persistentVolumeClaim"]["claimName"]
        for pod in pods(platform, "ingestor")
        for volume in pod["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    assert len(claims) == len(names) == 4
    # With its volume, an ingestor loses all that it has not uploaded on its orderly end.
    kube.run(*observability, "delete", "pvc", *claims, "--wait=false")
    kube.run(*observability, "delete", "pod", *names, "--timeout=110s")
    all_ready(platform)
    assert len(blocks(store, compacted=False)) >= 3
    arguments = charts.values(platform.folder / "platform-apps/thanos-store", "production")["thanos"]["compact"][
        "extraArgs"
    ]
    compact = {"extraArgs": [*arguments, "--consistency-delay=0s"]}  # the one thing that nobody would wait for: 30 min
    revision = platform.overlay("platform-apps/thanos-store", {"thanos": {"compact": compact}}, "Compact at once")
    platform.argocd.refresh("thanos-store")
    platform.argocd.wait_synced("thanos-store", revision=revision, timeout=180)

    def merged() -> bool:
        left = [meta["ulid"] for meta in blocks(store, compacted=False)]
        assert not left, f"not compacted: {left}"
        return bool(blocks(store, compacted=True))

    wait_until(merged, "the Compactor merged what the ingestors uploaded", 180, 1)
    assert all("receive_replica" not in meta["thanos"]["labels"] for meta in blocks(store, compacted=True))
    kube.run(*observability, "rollout", "restart", "statefulset/thanos-store-gateway")
    kube.run(*observability, "rollout", "status", "statefulset/thanos-store-gateway", "--timeout=110s")

    def the_same() -> bool:
        assert {query: telemetry.thanos.instant(query, at) for query in before} == before
        return True

    # Query finds pods that were replaced at its next look into DNS.
    wait_until(the_same, "Query answers from the blocks as before", 60, 1)
