"""A Kubernetes cluster on this machine that runs containers: a control plane, a registry and one to four nodes.

    python -m tests.e2e.cluster.cluster [NODES]     start one, print its kubeconfig, and wait for Ctrl-C

The control plane is the one of the GitOps suite, in a network namespace of its own (the rack) that also holds the bridge
between the nodes and a kube-proxy, as a control-plane machine has. One link and two routes (pods, Services) lead from the
machine into the rack, so that a test reaches every pod and Service by its address. Nothing leads out: an image comes from
the registry in the rack, under the very name that a manifest asks for. Everything ends with the session, however that ends.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.e2e.cluster.images import program
from tests.e2e.cluster.node import (
    CGROUPS,
    CNI_PLUGINS,
    PAUSE,
    PROXY_USER,
    Node,
    dns_address,
    kube_proxy,
    remove_cgroup,
    run,
)
from tests.e2e.gitops.control_plane import Site, by_hand, start
from tests.e2e.gitops.kube import Kube, Manifest
from tests.e2e.gitops.registry import Registry, registry
from tests.e2e.processes import NotReady, Process, Processes, wait_until
from tests.e2e.toolchain import TOOLS, tool

MOST_NODES = 4
VOLUMES = 12  # of each node
_RECORD = """    template IN A {name} {{
        answer "{{{{ .Name }}}} 60 IN A {address}"
    }}
    template ANY ANY {name} {{
        rcode NOERROR
    }}
"""
DNS_IMAGE = f"registry.k8s.io/coredns/coredns:{TOOLS['coredns'].version}"
METRICS_IMAGE = f"registry.k8s.io/metrics-server/metrics-server:{TOOLS['metrics-server'].version}"
_PACKAGES = {
    "conntrack": "conntrack",
    "containerd": "containerd",
    "ip": "iproute2",
    "iptables-nft": "iptables",
    "nft": "nftables",
    "nsenter": "util-linux",
    "runc": "runc",
    "unshare": "util-linux",
}


def missing() -> list[str]:
    """Return what this machine lacks for a node, and what to do about it; nothing where a cluster can run."""
    if sys.platform != "linux":
        return ["Linux: a node is made of its namespaces and cgroups"]
    if os.geteuid():
        return ["root: namespaces, mounts and network links need it (sudo make ...)"]
    lacks = {package for command, package in _PACKAGES.items() if not shutil.which(command)}
    if not CNI_PLUGINS.is_dir():
        lacks.add("containernetworking-plugins")
    if lacks:
        return [f"Debian packages: apt-get install {' '.join(sorted(lacks))}"]
    found = []
    fresh = ("unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc")
    queue = ["iptables-nft", "-t", "mangle", "-A", "POSTROUTING", "-m", "addrtype", "--src-type", "LOCAL"]
    for what, probe in {
        "namespaces (net, mount, pid, uts, ipc)": ["true"],
        "kernel module bridge": ["ip", "link", "add", "probe", "type", "bridge"],
        "kernel module veth": ["ip", "link", "add", "probe", "type", "veth", "peer", "name", "probe-peer"],
        "kernel module nf_tables": ["nft", "add", "table", "ip", "probe"],
        "kernel modules xt_NFQUEUE, xt_addrtype and nft_compat": [*queue, "-j", "NFQUEUE", "--queue-num", "1"],
        "kernel module overlay": [
            "sh",
            "-c",
            "mount -t tmpfs tmpfs /mnt && cd /mnt && mkdir a b c d && mount -t overlay overlay -o lowerdir=a,upperdir=b,workdir=c d",
        ],
    }.items():
        try:
            run(*fresh, *probe)
        except RuntimeError as error:
            found.append(f"{what} ({error})")
    for controller in ("cpu", "cpuset", "memory", "pids"):
        unified = CGROUPS / "cgroup.controllers"
        known = unified.read_text().split() if unified.exists() else [path.name for path in CGROUPS.iterdir()]
        if controller not in known:
            found.append(f"cgroup controller {controller} below {CGROUPS}")
    return found


@dataclass
class Cluster:
    """A running cluster."""

    kube: Kube
    registry: Registry
    nodes: dict[str, Node]
    rack: tuple[str, ...]  # what to put before a command to run it in the rack
    gateway: str

    def boot(self, node: Node) -> None:
        """Start a node (again) and wait until the cluster counts on it."""
        node.start()
        node.link(self.rack, node.name, self.gateway)
        node.serve()
        self.wait_ready(node)

    def wait_ready(self, node: Node) -> None:
        """Wait until the cluster counts on a node.

        Raises:
            NotReady: one of its programs ended, or it takes too long.
        """

        def ready() -> bool:
            broken = [part for part in node.parts.values() if not part.running]
            if broken:
                raise NotReady(f"{broken[0].name} ended:\n{broken[0].tail()}")
            found = self.kube.get("node", node.name)
            return found is not None and _condition(found, "Ready") and not found["spec"].get("taints")

        wait_until(ready, f"{node.name} is Ready", 180, 0.2)


@contextmanager
def cluster(folder: Path, nodes: int = 1, *, cores: int = 0, outside: Sequence[str] = ()) -> Iterator[Cluster]:
    """Run a cluster below ``folder``: its nodes are Ready and its DNS answers when this yields.

    Each node tells of ``cores`` (0: what the machine has), so that the requests of more pods find room; nothing is faster
    for it. The names ``outside`` lead to the gateway, where a test may serve them. One node is never given up; of several,
    one that says nothing is lost after Kubernetes' own 50 seconds.

    Raises:
        RuntimeError: the machine lacks something; the message says what.
    """
    if not 1 <= nodes <= MOST_NODES:
        raise ValueError(f"a cluster has 1 to {MOST_NODES} nodes, not {nodes}")
    lacks = missing()
    if lacks:
        raise RuntimeError("no node can run on this machine, which lacks " + "; ".join(lacks))
    with ExitStack() as stack:
        number = stack.enter_context(_slot())
        processes = stack.enter_context(Processes(folder / "logs"))
        rack = _rack(processes, number)
        names = [f"node-{index + 1}" for index in range(nodes)]
        of_nodes = ((f"system:node:{name}", "system:nodes") for name in names)
        users = (("admin", "system:masters"), (PROXY_USER, "system:authenticated"), *of_nodes)
        gateway = f"10.250.{number}.1"
        services, patience = f"10.{96 + number}.0.0/16", Site.patience if nodes == 1 else "50s"
        site = Site(address=gateway, enter=rack, services=services, users=users, patience=patience)
        store = stack.enter_context(registry(folder / "registry", gateway, rack))
        program(tool("policy-agent", "pause")).push(store, PAUSE)
        program(tool("coredns")).push(store, DNS_IMAGE)
        kube = Kube(start(processes, folder, site))
        made = {
            name: Node(
                name=name,
                folder=folder / name,
                address=f"10.250.{number}.{index + 10}",
                pods=f"10.{224 + number}.{index}.0/24",
                all_pods=f"10.{224 + number}.0.0/16",
                site=site,
                control_plane=folder,
                registry=store,
                cgroup=_cgroup(number, name),
                processes=processes,
                cores=cores,
            )
            for index, name in enumerate(names)
        }
        it = Cluster(kube, store, made, rack, gateway)
        kube.apply([*_roles(), _storage_class(), *_dns(site, nodes, outside)])
        for node in made.values():
            kube.apply(node.volumes(VOLUMES))
            run(*rack, "ip", "route", "add", node.pods, "via", node.address)
            stack.callback(node.kill)
            it.boot(node)
        # The API server reaches webhooks through their Services.
        (folder / "kube-proxy.yaml").write_text(yaml.safe_dump(kube_proxy(made["node-1"])))
        processes.start("kube-proxy", [*rack, tool("kubelet", "kube-proxy"), f"--config={folder / 'kube-proxy.yaml'}"])
        kube.run("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=110s")
        yield it


def measure(cluster: Cluster) -> None:
    """Give a cluster metrics-server, which autoscalers ask."""
    program(tool("metrics-server")).push(cluster.registry, METRICS_IMAGE)
    text = (Path(__file__).parent / "metrics-server.yaml").read_text()
    cluster.kube.apply(yaml.safe_load_all(text.replace("$IMAGE", METRICS_IMAGE)))


def _cgroup(number: int, name: str) -> str:
    return f"e2e-cluster-{number}-{name}"


@contextmanager
def _slot() -> Iterator[int]:
    """Yield a number that no other cluster on this machine has; its networks and names follow from it."""
    for number in range(16):
        with socket.socket(socket.AF_UNIX) as claim:
            # A name without a file: the kernel forgets it with the process.
            try:
                claim.bind(f"\0cookiecutter-gitops-observability-cluster-{number}")
            except OSError:
                continue
            # A session that was killed could not.
            _sweep(number)
            try:
                yield number
            finally:
                _sweep(number)
            return
    raise RuntimeError("16 clusters run on this machine already")


def _sweep(number: int) -> None:
    """Remove what outlives the programs of a cluster: empty cgroups, and the link while a socket closes in the rack."""
    with suppress(RuntimeError):
        run("ip", "link", "delete", _link(number))
    for index in range(MOST_NODES):
        remove_cgroup(_cgroup(number, f"node-{index + 1}"))


def _link(number: int) -> str:
    return f"e2e-{number}"


def _rack(processes: Processes, number: int) -> tuple[str, ...]:
    """Make the network namespace of the control plane, with the bridge; return how to enter it."""
    holder = processes.start("rack", ["unshare", "--net", "--", "sleep", "infinity"])
    here = Path("/proc/self/ns/net").readlink()
    wait_until(lambda: _network(holder) not in (None, here), "the rack's namespace", 10, 0.01)
    rack = ("nsenter", f"--net=/proc/{holder.pid}/ns/net", "--")
    link, prefix = _link(number), f"10.250.{number}"
    # The bridge is not in the machine's own namespace, whose filters (Docker's, say) would see its packets.
    run(*rack, "ip", "link", "add", "bridge", "type", "bridge")
    run("ip", "link", "add", link, "type", "veth", "peer", "name", "uplink", "netns", str(holder.pid))
    run(*rack, "ip", "link", "set", "uplink", "master", "bridge", "up")
    run(*rack, "ip", "address", "add", f"{prefix}.1/24", "dev", "bridge")
    run(*rack, "ip", "link", "set", "bridge", "up")
    run(*rack, "ip", "link", "set", "lo", "up")
    settings = {"ip_forward": 1, "conf/all/rp_filter": 0, "conf/default/rp_filter": 0, "conf/all/send_redirects": 0}
    # A socket whose program and peer were killed keeps the namespace for minutes otherwise.
    settings["tcp_orphan_retries"] = 1
    for key, value in settings.items():
        run(*rack, "sh", "-c", f"echo {value} > /proc/sys/net/ipv4/{key}")
    # kube-proxy gives a connection to a Service its pod's address only after the kernel has found a route for it.
    run(*rack, "ip", "route", "add", f"10.{96 + number}.0.0/16", "dev", "bridge")
    run("ip", "address", "add", f"{prefix}.254/24", "dev", link)
    run("ip", "link", "set", link, "up")
    for network in (f"10.{224 + number}.0.0/16", f"10.{96 + number}.0.0/16"):
        run("ip", "route", "add", network, "via", f"{prefix}.1")
    return rack


def _network(process: Process) -> Path | None:
    with suppress(OSError):
        return Path(f"/proc/{process.pid}/ns/net").readlink()
    return None


def _condition(item: Manifest, kind: str) -> bool:
    conditions = item.get("status", {}).get("conditions", [])
    return any(found["type"] == kind and found["status"] == "True" for found in conditions)


def _storage_class() -> Manifest:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "local", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def _roles() -> list[Manifest]:
    read = {"verbs": ["list", "watch"]}
    rules = [
        {"apiGroups": [""], "resources": ["namespaces", "nodes", "pods"], **read},
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], **read},
    ]
    rbac = "rbac.authorization.k8s.io"
    subjects = [{"kind": "User", "name": PROXY_USER, "apiGroup": rbac}]
    made: list[Manifest] = [{"kind": "ClusterRole", "metadata": {"name": "policy-agent"}, "rules": rules}]
    for name, role in {"kube-proxy": "system:node-proxier", "policy-agent": "policy-agent"}.items():
        ref = {"apiGroup": rbac, "kind": "ClusterRole", "name": role}
        made.append({"kind": "ClusterRoleBinding", "metadata": {"name": name}, "roleRef": ref, "subjects": subjects})
    return [{"apiVersion": f"{rbac}/v1", **manifest} for manifest in made]


def _dns(site: Site, nodes: int, outside: Sequence[str]) -> list[Manifest]:
    made = yaml.safe_load_all((Path(__file__).parent / "coredns.yaml").read_text().replace("$IMAGE", DNS_IMAGE))
    records = "".join(_RECORD.format(name=name, address=site.address) for name in outside)
    manifests = []
    for manifest in made:
        if manifest["kind"] == "ConfigMap":
            manifest["data"]["Corefile"] = manifest["data"]["Corefile"].replace("$OUTSIDE\n", records)
        if manifest["kind"] == "Deployment":
            manifest["spec"]["replicas"] = nodes  # that one dies shall be no question of DNS
        if manifest["kind"] == "Service":
            manifest["spec"]["clusterIP"] = dns_address(site)
        manifests.append(manifest)
    return manifests


@contextmanager
def _kube(folder: Path) -> Iterator[Kube]:
    with cluster(folder, int(sys.argv[1]) if sys.argv[1:] else 1) as running:
        yield running.kube


if __name__ == "__main__":
    if problems := missing():
        sys.exit("no node can run on this machine, which lacks\n  " + "\n  ".join(problems))
    sys.exit(by_hand(_kube))
