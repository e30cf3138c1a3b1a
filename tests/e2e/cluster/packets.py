"""Who reaches whom, found out by packets: a TCP connection from the network namespace of each pod to each port of each."""

from __future__ import annotations

import json
import sys

from tests.e2e.cluster.node import Node, run
from tests.e2e.gitops.kube import Manifest

# Takes addresses and ports as its argument, and prints which accepted. A filter drops packets, so silence is a refusal.
_CONNECT = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def connects(target):
    with socket.socket() as client:
        client.settimeout(4)
        return client.connect_ex(tuple(target)) == 0
targets = json.loads(sys.argv[1])
with ThreadPoolExecutor(64) as pool:
    print(json.dumps(list(pool.map(connects, targets))))
"""


def namespaces(node: Node) -> dict[str, str]:
    """Return the path (in the node) of the network namespace of each pod on it, by the pod's address."""
    found = {}
    for name in run(*node.enter, "ls", "/run/netns").split():
        path = f"/run/netns/{name}"
        for link in json.loads(run(*node.enter, "nsenter", f"--net={path}", "ip", "-4", "-json", "address")):
            if link["ifname"] == "eth0":
                found[link["addr_info"][0]["local"]] = path
    return found


def connections(node: Node, namespace: str, targets: list[tuple[str, int]]) -> set[tuple[str, int]]:
    """Return which targets (address, port) accept a connection from a pod, by the path of its network namespace."""
    command = ["nsenter", f"--net={namespace}", sys.executable, "-c", _CONNECT, json.dumps(targets)]
    answers = json.loads(run(*node.enter, *command))
    return {target for target, answer in zip(targets, answers, strict=True) if answer}


def listening(node: Node, namespace: str) -> set[int]:
    """Return the TCP ports on which something in a pod listens for other pods."""
    command = ["nsenter", f"--net={namespace}", "ss", "-Hltn"]
    found = [line.split()[3].rsplit(":", 1) for line in run(*node.enter, *command).splitlines()]
    return {int(port) for host, port in found if not host.startswith(("127.", "[::1]"))}


def running(pods: list[Manifest]) -> list[Manifest]:
    """Return the pods that run and have an address of their own."""
    return [pod for pod in pods if pod["status"].get("phase") == "Running" and not pod["spec"].get("hostNetwork")]
