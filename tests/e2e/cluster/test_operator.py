"""The OpenTelemetry operator and its stand-in make the same of the same resources: all that the stand-in sets is there.

With the real operator this says how far the stand-in can be trusted; with the stand-in, that the API server took it all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.e2e.cluster.operator import INIT, injected, objects
from tests.e2e.cluster.platform import PARTS, Platform


def differences(wanted: Any, found: Any, path: str = "") -> Iterator[str]:
    """Yield what is wanted and not found; what is found beside it does not matter. Items with names have no order."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key, value in wanted.items():
            yield from differences(value, found.get(key), f"{path}.{key}")
    elif isinstance(wanted, list) and isinstance(found, list):
        named = all(isinstance(it, dict) and "name" in it for it in [*wanted, *found])
        others = {it["name"]: it for it in found} if named else dict(enumerate(found))
        for key, value in ({it["name"]: it for it in wanted} if named else dict(enumerate(wanted))).items():
            yield from differences(value, others.get(key), f"{path}.{key}")
    elif wanted != found and (wanted or found):
        yield f"{path}: {wanted!r}, not {found!r}"


def test_injected_pods(platform: Platform) -> None:
    """The app's pods have exactly the environment, and all the rest, that the stand-in gives to a pod without SDK."""
    kube = platform.cluster.kube
    instrumentation = kube.get("instrumentations.opentelemetry.io", "python", platform.team)
    assert instrumentation
    pods = platform.pods(PARTS["app"][2])
    assert pods
    for pod in pods:
        (owner,) = pod["metadata"]["ownerReferences"]
        template = kube.get("replicaset", owner["name"], platform.team)
        assert template
        about = {**template["spec"]["template"]["metadata"], "ownerReferences": [owner]}
        bare = {"metadata": about, "spec": template["spec"]["template"]["spec"]}
        assert INIT not in str(bare)
        wanted = injected(bare, platform.team, instrumentation)["spec"]
        env = [[it["name"] for it in spec["containers"][0]["env"]] for spec in (wanted, pod["spec"])]
        assert sorted(env[0]) == sorted(env[1])
        assert [*differences(wanted, pod["spec"])] == []


def test_collectors(platform: Platform) -> None:
    """Everything that the stand-in makes of a collector is there; its configuration has a name of each one's own."""
    kube, found = platform.cluster.kube, []
    collectors = kube.list("opentelemetrycollectors.opentelemetry.io", "observability")
    assert len(collectors) == 2
    for collector in collectors:
        for item in objects(collector):
            about = item["metadata"]
            if item["kind"] == "ConfigMap":
                continue
            if "template" in item["spec"]:
                del item["spec"]["template"]["metadata"]["annotations"]
                del item["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"]
            live = kube.get(item["kind"], about["name"], about["namespace"])
            found += [f"{about['name']}{it}" for it in differences(item, live)]
    assert found == []
