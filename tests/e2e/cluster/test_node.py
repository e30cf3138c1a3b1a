"""A node starts in seconds, works as nodes do, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster.cluster import DNS_IMAGE, cluster, missing
from tests.e2e.cluster.node import CGROUPS, MACHINE_SYSCTLS, run
from tests.e2e.gitops.kube import Kube
from tests.e2e.processes import NotReady, wait_until
from tests.platforms import ROOT


@pytest.fixture(scope="module", autouse=True)
def here() -> None:
    """Skip where no node can run; the session would have ended, did it not go on with somebody else's cluster."""
    if problems := missing():
        pytest.skip(f"no node can run on this machine, which lacks {'; '.join(problems)}")


def trace() -> dict[str, set[str]]:
    """Return what a node could leave on this machine: of each kind, the names of all that is there."""
    found: dict[str, set[str]] = {
        "links": set(run("ip", "-o", "link", "show").splitlines()),
        "routes": set(run("ip", "route", "show", "table", "all").splitlines()),
        "mounts": {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()},
        "sysctls": {
            f"{key} = {Path('/proc/sys', key).read_text()}" for key in (*MACHINE_SYSCTLS, "net/ipv4/ip_forward")
        },
        "rules": set(run("nft", "list", "ruleset").splitlines()),
        "cgroups": {str(path) for path in CGROUPS.rglob("*e2e-cluster*") if path.is_dir()},
        "folders": {str(path) for name in ("/var/lib", "/run", "/var/log", "/") for path in Path(name).iterdir()},
        "namespaces": set(),
    }
    # Other sessions come and go: a process counts where it lives in namespaces that this one has not.
    for process in Path("/proc").glob("[0-9]*"):
        try:
            namespace = (process / "ns" / "net").readlink()
            if namespace != Path("/proc/self/ns/net").readlink():
                found["namespaces"].add(f"{process.name} {(process / 'comm').read_text().strip()}")
        except OSError:
            continue
    # What the kernel counts down in a link's line is no trace.
    found["links"] = {line.split(" mtu ")[0].split(": ", 1)[1] for line in found["links"]}
    return found


@pytest.fixture
def untouched() -> Iterator[None]:
    """Fail the test where the machine is not as before."""
    before = trace()
    yield
    assert left(before) == {}


def left(before: dict[str, set[str]], timeout: float = 20) -> dict[str, set[str]]:
    """Return what is still there after ``timeout`` seconds and was not before."""
    more: dict[str, set[str]] = {}

    def clean() -> bool:
        nonlocal more
        more = {kind: names - before[kind] for kind, names in trace().items() if names - before[kind]}
        return not more

    try:
        wait_until(clean, "no trace", timeout, 0.2)
    except NotReady:
        return more
    return {}


BY_HAND = [sys.executable, "-m", "tests.e2e.cluster.cluster"]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda end: end.name)
def test_by_hand(untouched: None, end: signal.Signals) -> None:
    """`make node` prints a kubeconfig that works; Ctrl-C, and also a kill, end it all."""
    with subprocess.Popen(BY_HAND, cwd=ROOT, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout
        line = node.stdout.readline()
        kube = Kube(Path(line.removeprefix("export KUBECONFIG=").strip()))
        assert [item["metadata"]["name"] for item in kube.list("nodes")] == ["node-1"]
        node.send_signal(end)
        assert node.wait(40) == (0 if end != signal.SIGKILL else -signal.SIGKILL)
    if end == signal.SIGKILL:
        # Empty cgroups and its folder are all that a killed session cannot remove; the next one removes the cgroups.
        with subprocess.Popen(BY_HAND, cwd=ROOT, stdout=subprocess.PIPE, text=True) as node:
            assert node.stdout
            assert node.stdout.readline()
            node.send_signal(signal.SIGINT)
            assert node.wait(40) == 0
        shutil.rmtree(kube.kubeconfig.parent)
    else:
        assert not kube.kubeconfig.parent.exists()


def test_failure(untouched: None, tmp_path: Path) -> None:
    """A test that fails inside leaves nothing behind either."""
    with pytest.raises(ZeroDivisionError), cluster(tmp_path / "cluster"):
        raise ZeroDivisionError


def pod(name: str, node: str) -> dict[str, Any]:
    """Return a pod on a node, with a server on port 5353."""
    mount = {"name": "server", "mountPath": "/etc/coredns"}
    container = {"name": "it", "image": DNS_IMAGE, "args": ["-conf", "/etc/coredns/Corefile"], "volumeMounts": [mount]}
    volume = {"name": "server", "configMap": {"name": "server"}}
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container], "volumes": [volume]}
    about = {"name": name, "namespace": "default", "labels": {"app": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec}


def connects(address: str, port: int) -> bool:
    """Return whether a TCP connection from this machine is accepted; a filter drops its packets."""
    with socket.socket() as client:
        client.settimeout(2)
        return client.connect_ex((address, port)) == 0


def test_nodes(untouched: None, tmp_path: Path) -> None:
    """Pods of two nodes get addresses and filters; a node that lost its power comes back with its volumes."""
    with cluster(tmp_path / "cluster", nodes=2) as running:
        kube = running.kube
        kube.run("create", "configmap", "server", "--from-literal=Corefile=.:5353 {\nerrors\n}")
        kube.apply([pod(f"on-{name}", name) for name in running.nodes])
        kube.run("wait", "pod", "--all", "--for=condition=Ready", "--timeout=60s")
        addresses = {item["metadata"]["name"]: item["status"]["podIP"] for item in kube.list("pods", "default")}
        for address in addresses.values():
            wait_until(partial(connects, address, 5353), f"{address} answers")
        deny = {"podSelector": {"matchLabels": {"app": "on-node-2"}}, "policyTypes": ["Ingress"]}
        about = {"name": "deny", "namespace": "default"}
        kube.apply([{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": about, "spec": deny}])
        wait_until(lambda: not connects(addresses["on-node-2"], 5353), "the policy is enforced")
        assert connects(addresses["on-node-1"], 5353)
        assert "CoreDNS" in kube.run("logs", "on-node-2")

        # As the API server calls a webhook: through its Service.
        dns = kube.get("service", "kube-dns", "kube-system")
        assert dns
        service = dns["spec"]["clusterIP"]
        call = f"import socket; socket.create_connection(({service!r}, 53), 5)"
        inside = [*running.rack, sys.executable, "-c", call]
        wait_until(lambda: subprocess.run(inside, check=False).returncode == 0, "the rack reaches a Service")

        node = running.nodes["node-2"]
        kept = node.folder / "volumes" / "0" / "kept"
        kept.touch()
        node.kill()
        wait_until(lambda: not connects(node.address, 10250), "the kubelet is gone")
        running.boot(node)
        assert kept.exists()
        kube.delete("networkpolicy", "deny", namespace="default")

        def answers() -> bool:
            found = kube.get("pod", "on-node-2", "default")
            return found is not None and connects(found["status"].get("podIP", ""), 5353)

        wait_until(answers, "the pod runs again on the node that came back", 180, 0.5)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without root or without the programs it says so, and starts nothing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"apt-get install .*containerd"), cluster(tmp_path / "cluster"):
        pass
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(RuntimeError, match="root"), cluster(tmp_path / "cluster"):
        pass
