"""A Kubernetes control plane on loopback: etcd, API server, controllers, scheduler, and KWOK's nodes, where pods "run".

    python -m tests.e2e.gitops.control_plane     start one, print its kubeconfig, and wait for Ctrl-C

Nothing answers behind a pod or a Service; everything that the API server, its admission and its controllers do is real.
``tests/e2e/cluster`` starts the same programs elsewhere and brings kubelets (``Site``).
"""

from __future__ import annotations

import base64
import ipaddress
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme
import yaml

from tests.e2e.gitops.kube import Kube, Manifest, Refused
from tests.e2e.processes import LOOPBACK, Processes, free_port, wait_until
from tests.e2e.toolchain import tool

ZONES = ("a", "b", "c")


@dataclass(frozen=True)
class Site:
    """Where a control plane's programs run, and the networks that they hand out.

    ``enter`` is put before every command (say, to enter a network namespace) and ``address`` is what they listen on. A site
    that is not on loopback has ports of its own, and its API server can be reached by pods.
    """

    address: str = LOOPBACK
    enter: tuple[str, ...] = ()
    services: str = "10.96.0.0/16"
    # Names that log in with a token, and the group that each belongs to.
    users: tuple[tuple[str, str], ...] = (("admin", "system:masters"),)
    # For how long a node may say nothing before its pods count as gone. A busy machine is no lost node.
    patience: str = "5m"

    @property
    def private(self) -> bool:
        return self.address == LOOPBACK

    def port(self, usual: int) -> int:
        return free_port() if self.private else usual

    def client(self, folder: Path, user: str) -> Path:
        """Return the kubeconfig of a user, which ``start`` has written below ``folder``."""
        return folder / ("kubeconfig" if user == "admin" else f"kubeconfig-{user.rsplit(':', 1)[-1]}")


@contextmanager
def control_plane(folder: Path) -> Iterator[Kube]:
    """Run a control plane with an empty etcd below ``folder``; it has three ready nodes when this yields."""
    with Processes(folder / "logs") as processes:
        kube = Kube(start(processes, folder))
        _start_kwok(processes, kube.kubeconfig)
        kube.apply([_storage_class(), *map(_node, ZONES)])
        wait_until(lambda: _nodes_ready(kube), "the nodes are ready", interval=0.2)
        try:
            yield kube
        finally:
            # The provisioner makes a folder below /tmp for each claim, and the cluster that would delete it ends here.
            for volume in kube.list("persistentvolumes"):
                shutil.rmtree(volume["spec"]["hostPath"]["path"], ignore_errors=True)


def start(processes: Processes, folder: Path, site: Site = Site()) -> Path:
    """Start etcd, API server, controllers and scheduler below ``folder``; return the administrator's kubeconfig."""
    etcd_url, etcd_peer = (f"http://{site.address}:{site.port(usual)}" for usual in (2379, 2380))
    processes.start(
        "etcd",
        [
            *site.enter,
            tool("etcd"),
            f"--data-dir={folder / 'etcd'}",
            # The data dies with the session: no need to wait for the disk.
            "--unsafe-no-fsync",
            f"--listen-client-urls={etcd_url}",
            f"--advertise-client-urls={etcd_url}",
            f"--listen-peer-urls={etcd_peer}",
            f"--initial-advertise-peer-urls={etcd_peer}",
            f"--initial-cluster=default={etcd_peer}",
            "--log-level=warn",
        ],
        ready=f"{etcd_url}/health",
    )

    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.crt")
    service = str(ipaddress.ip_network(site.services)[1])
    names = [site.address, LOOPBACK, "localhost", service, "kubernetes.default", "kubernetes.default.svc"]
    # A service account token may be signed by any key; the serving key is at hand.
    pairs = {"serving": authority.issue_cert(*names)}
    # As whom the API server asks a kubelet for logs and port-forwards.
    pairs["kubelet-client"] = authority.issue_cert(
        "localhost", common_name="kube-apiserver", organization_name="system:masters"
    )
    # As whom it forwards calls of an aggregated API.
    pairs["front-proxy"] = authority.issue_cert("localhost", common_name="front-proxy")
    for name, pair in pairs.items():
        pair.private_key_pem.write_to_path(folder / f"{name}.key")
        pair.cert_chain_pems[0].write_to_path(folder / f"{name}.crt")
    port, lines = site.port(6443), []
    for user, group in site.users:
        token = secrets.token_hex(16)
        lines.append(f'{token},{user},{user},"{group}"\n')
        kubeconfig = site.client(folder, user)
        url = f"https://{site.address}:{port}"
        kubeconfig.write_text(yaml.safe_dump(_kubeconfig(url, authority.cert_pem.bytes(), token)))
        kubeconfig.chmod(0o600)
    (folder / "tokens.csv").write_text("".join(lines))
    kubeconfig = site.client(folder, "admin")

    account_key = folder / "serving.key"
    server = processes.start(
        "kube-apiserver",
        [
            *site.enter,
            tool("kubernetes", "kube-apiserver"),
            f"--etcd-servers={etcd_url}",
            f"--bind-address={site.address}",
            f"--secure-port={port}",
            f"--tls-cert-file={folder / 'serving.crt'}",
            f"--tls-private-key-file={folder / 'serving.key'}",
            f"--client-ca-file={folder / 'ca.crt'}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--service-cluster-ip-range={site.services}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={account_key}",
            f"--service-account-signing-key-file={account_key}",
            f"--kubelet-client-certificate={folder / 'kubelet-client.crt'}",
            f"--kubelet-client-key={folder / 'kubelet-client.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--proxy-client-cert-file={folder / 'front-proxy.crt'}",
            f"--proxy-client-key-file={folder / 'front-proxy.key'}",
            f"--requestheader-client-ca-file={folder / 'ca.crt'}",
            "--requestheader-allowed-names=front-proxy",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--allow-privileged=true",  # admission, not this switch, is what the tests are about
            # A loopback address is no valid endpoint.
            *(["--endpoint-reconciler-type=none"] if site.private else [f"--advertise-address={site.address}"]),
            "--profiling=false",
        ],
    )
    kube = Kube(kubeconfig)

    def ready() -> bool:
        assert server.running, server.tail()
        try:
            return kube.run("get", "--raw", "/readyz") == "ok"
        except Refused as refused:
            raise AssertionError(str(refused)) from None

    wait_until(ready, "kube-apiserver is ready", interval=0.2)
    processes.start(
        "kube-controller-manager",
        [
            *site.enter,
            tool("kubernetes", "kube-controller-manager"),
            f"--kubeconfig={kubeconfig}",
            f"--service-account-private-key-file={account_key}",
            f"--root-ca-file={folder / 'ca.crt'}",
            "--enable-hostpath-provisioner=true",
            "--leader-elect=false",
            f"--node-monitor-grace-period={site.patience}",
            "--secure-port=0",
        ],
    )
    processes.start(
        "kube-scheduler",
        [
            *site.enter,
            tool("kubernetes", "kube-scheduler"),
            f"--kubeconfig={kubeconfig}",
            "--leader-elect=false",
            "--secure-port=0",
        ],
    )
    return kubeconfig


def _start_kwok(processes: Processes, kubeconfig: Path) -> None:
    processes.start(
        "kwok",
        [
            tool("kwok"),
            f"--kubeconfig={kubeconfig}",
            "--manage-all-nodes=false",
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
            "--cidr=10.244.0.0/16",
            "--node-ip=10.0.0.1",
            "--node-lease-duration-seconds=40",  # no leases by default: pods would turn unready after a minute
        ],
    )


def _kubeconfig(server: str, authority: bytes, token: str) -> Manifest:
    cluster = {
        "server": server,
        "certificate-authority-data": base64.b64encode(authority).decode(),
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "e2e",
        "clusters": [{"name": "e2e", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "admin"}}],
    }


def _storage_class() -> Manifest:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": "host-path",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/host-path",
        "reclaimPolicy": "Delete",
    }


def _node(zone: str) -> Manifest:
    name = f"node-{zone}"
    room = {"cpu": "64", "memory": "256Gi", "pods": "500", "ephemeral-storage": "1Ti"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "topology.kubernetes.io/zone": zone,
            },
        },
        "status": {"allocatable": room, "capacity": room},
    }


def _nodes_ready(kube: Kube) -> bool:
    nodes = kube.list("nodes")
    ready = [
        c
        for node in nodes
        for c in node["status"].get("conditions", [])
        if c["type"] == "Ready" and c["status"] == "True"
    ]
    return len(ready) == len(ZONES) and not any(node["spec"].get("taints") for node in nodes)


def by_hand(running: Callable[[Path], AbstractContextManager[Kube]]) -> int:
    """Start a cluster below a folder of its own, print its kubeconfig, and stop it on Ctrl-C or SIGTERM."""

    def leave(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, leave)
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="cluster-") as folder, running(Path(folder)) as kube:
            print(f"ready in {time.monotonic() - started:.1f} s; Ctrl-C stops it and forgets it", file=sys.stderr)
            print(f"export KUBECONFIG={kube.kubeconfig}", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(by_hand(control_plane))
