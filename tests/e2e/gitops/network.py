"""NetworkPolicies, evaluated: which pod may reach which, on which port."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.e2e.gitops.kube import Manifest


@dataclass(frozen=True)
class Endpoint:
    """A pod as policies see it."""

    name: str
    namespace: str
    labels: Mapping[str, str] = field(hash=False)
    ports: Mapping[str, int] = field(hash=False)  # by name; a number stands for a port without one


def endpoint(name: str, pod: Manifest) -> Endpoint:
    """Return a pod's endpoint."""
    ports = {
        str(port.get("name", port["containerPort"])): port["containerPort"]
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
    }
    return Endpoint(name, pod["metadata"]["namespace"], pod["metadata"]["labels"], ports)


def matches(selector: Manifest, labels: Mapping[str, str]) -> bool:
    """Return whether a label selector selects these labels."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for rule in selector.get("matchExpressions", []):
        value, values = labels.get(rule["key"]), rule.get("values", [])
        holds = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not holds[rule["operator"]]:
            return False
    return True


@dataclass(frozen=True)
class Network:
    """A set of policies; every namespace has the label with its name, as the API server sees to."""

    policies: tuple[Manifest, ...]

    def isolated(self, pod: Endpoint, direction: str) -> list[Manifest]:
        """Return the policies that select a pod for a direction (Ingress or Egress)."""
        return [
            policy
            for policy in self.policies
            if policy["metadata"]["namespace"] == pod.namespace
            and matches(policy["spec"].get("podSelector", {}), pod.labels)
            and direction in policy["spec"].get("policyTypes", ["Ingress"])
        ]

    def allows(self, client: Endpoint, server: Endpoint, port: int) -> bool:
        """Return whether ``client`` may open a TCP connection to ``server``."""
        return self._one_way(client, server, server, port, "Egress") and self._one_way(
            server, client, server, port, "Ingress"
        )

    def _one_way(self, subject: Endpoint, peer: Endpoint, server: Endpoint, port: int, direction: str) -> bool:
        policies = self.isolated(subject, direction)
        if not policies:
            return True
        key, side = ("egress", "to") if direction == "Egress" else ("ingress", "from")
        return any(
            _peer(rule.get(side), peer, policy["metadata"]["namespace"]) and _port(rule.get("ports"), server, port)
            for policy in policies
            for rule in policy["spec"].get(key) or []
        )

    def edges(self, pods: Iterable[Endpoint]) -> set[tuple[str, str, int]]:
        """Return every (client, server, port) that is allowed, over all ports that the pods name."""
        pods = list(pods)
        return {
            (client.name, server.name, port)
            for client in pods
            for server in pods
            for port in set(server.ports.values())
            if self.allows(client, server, port)
        }


def _peer(peers: list[Manifest] | None, pod: Endpoint, namespace: str) -> bool:
    if not peers:
        return True
    for peer in peers:
        if "ipBlock" in peer:
            # Pods have private addresses; a block of the whole internet covers them.
            if ipaddress.ip_network(peer["ipBlock"]["cidr"]).prefixlen == 0:
                return True
            continue
        if "namespaceSelector" in peer:
            if not matches(peer["namespaceSelector"], {"kubernetes.io/metadata.name": pod.namespace}):
                continue
        elif pod.namespace != namespace:
            continue
        if matches(peer.get("podSelector", {}), pod.labels):
            return True
    return False


def _port(ports: list[Manifest] | None, server: Endpoint, number: int) -> bool:
    if not ports:
        return True
    for port in ports:
        if port.get("protocol", "TCP") != "TCP":
            continue
        wanted = port.get("port")
        wanted = server.ports.get(wanted, wanted) if isinstance(wanted, str) else wanted
        if (
            wanted is None
            or wanted == number
            or (isinstance(wanted, int) and wanted <= number <= port.get("endPort", wanted))
        ):
            return True
    return False
