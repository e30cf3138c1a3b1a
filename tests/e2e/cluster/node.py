"""A Kubernetes node in namespaces of its own: containerd, kubelet, CNI, kube-proxy, and NetworkPolicies that are enforced.

All of a node lives below one process, which is PID 1 of its namespaces: when that ends, the kernel ends every other
process, and drops every mount, link, route and rule. Where programs insist on a path of the whole machine (``/var/lib``,
``/run``, ``/var/log``, a few sysctls), the node has a folder or file of its own mounted there. Only cgroups outlive it, and
have to be removed.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.gitops.control_plane import Site
from tests.e2e.gitops.registry import Registry
from tests.e2e.processes import NotReady, Process, Processes, wait_until
from tests.e2e.toolchain import tool

CNI_PLUGINS = Path("/usr/lib/cni")
CGROUPS = Path("/sys/fs/cgroup")
PAUSE = "registry.k8s.io/pause:3.10"
# Registries whose names a node resolves to folders of the registry on this machine; it has no way to any other.
REGISTRIES = ("docker.io", "ghcr.io", "quay.io", "registry.k8s.io", "public.ecr.aws", "localhost", "standin.invalid")
QUEUE = 100
# The kubelet insists on values of its own for these. They belong to the whole machine, so it gets files to write to.
MACHINE_SYSCTLS = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
)
# PID 1 of a node: $1 its name, $2 its folder, $3 the Python that then reaps what is orphaned, the rest sysctl names.
# From sys/ the kubelet learns how many cores there are.
_INIT = """
set -e
name=$1 folder=$2 python=$3; shift 3
mount --make-rshared /
hostname "$name"
mount --bind "$folder/lib" /var/lib
mount --bind "$folder/log" /var/log
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir /var/lib/containerd 2>/dev/null || true
mount -t tmpfs -o mode=0700 tmpfs /var/lib/containerd
for key; do mount --bind "$folder/sysctl/$key" "/proc/sys/$key"; done
if [ -d "$folder/sys" ]; then
  for name in node cpu; do mount --bind "$folder/sys/$name" "/sys/devices/system/$name"; done
fi
ip link set lo up
for key in net/ipv4/ip_forward=1 net/ipv4/conf/all/rp_filter=0 net/ipv4/conf/default/rp_filter=0 \\
  net/ipv4/conf/all/send_redirects=0; do echo "${key#*=}" > "/proc/sys/${key%%=*}"; done
touch "$folder/whole"
exec "$python" -c 'import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True: signal.pause()'
"""


def run(*args: str | Path, env: Mapping[str, str] | None = None) -> str:
    """Run a command, with ``env`` added to the environment, and return what it printed.

    Raises:
        RuntimeError: it failed; the message is what it said.
    """
    command, environment = [str(arg) for arg in args], {**os.environ, **(env or {})}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, args))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


@dataclass
class Node:
    """One node; ``start`` it, ``kill`` it, ``start`` it again: volumes, logs and what the kubelet remembers stay."""

    name: str
    folder: Path
    address: str
    pods: str  # the CIDR of its pods
    all_pods: str
    site: Site
    control_plane: Path
    registry: Registry
    cgroup: str
    processes: Processes
    cores: int = 0  # that the kubelet tells of; 0: the machine's
    init: int = 0
    parts: dict[str, Process] = field(default_factory=dict)

    @property
    def user(self) -> str:
        return f"system:node:{self.name}"

    @property
    def running(self) -> bool:
        return bool(self.parts)

    @property
    def enter(self) -> tuple[str, ...]:
        """What to put before a command to run it in the node."""
        return ("nsenter", "--target", str(self.init), "--mount", "--net", "--pid", "--uts", "--ipc", "--")

    def start(self) -> None:
        """Start the node; the cluster has to give it a link (``link``) and to wait until it is Ready."""
        self._write()
        make_cgroup(self.cgroup)
        (self.folder / "whole").unlink(missing_ok=True)
        namespaces = ("--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc")
        script = ("sh", "-c", _INIT, "init", self.name, self.folder, sys.executable, *MACHINE_SYSCTLS)
        started = self._start("init", "unshare", *namespaces, *script, entered=False)

        def first() -> int:
            if not started.running:
                raise NotReady(f"{self.name} ended:\n{started.tail()}")
            children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
            return int(children[0]) if children and (self.folder / "whole").exists() else 0

        self.init = wait_until(first, f"the namespaces of {self.name}", 20, 0.02)

    def link(self, rack: tuple[str, ...], port: str, gateway: str) -> None:
        """Plug the node into the bridge of the rack."""
        run(*rack, "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(self.init))
        run(*rack, "ip", "link", "set", port, "master", "bridge", "up")
        run(*self.enter, "ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        run(*self.enter, "ip", "link", "set", "eth0", "up")
        run(*self.enter, "ip", "route", "add", "default", "via", gateway)

    def serve(self) -> None:
        """Start what makes a node of the namespaces."""
        self._filter()
        proxy = self.site.client(self.control_plane, PROXY_USER)
        agent = tool("policy-agent", "policy-agent")
        self._start("policy-agent", agent, f"--kubeconfig={proxy}", f"--node={self.name}", f"--queue={QUEUE}")
        self._start("containerd", "containerd", "--config", self.folder / "containerd.toml")
        # A kubelet that finds no runtime ends.
        wait_until(self._has_runtime, f"containerd of {self.name} answers", 60, 0.05)
        self.start_kubelet()
        self._start("kube-proxy", tool("kubelet", "kube-proxy"), f"--config={self.folder / 'kube-proxy.yaml'}")

    def start_kubelet(self) -> None:
        """Start the kubelet (again)."""
        kubeconfig = self.site.client(self.control_plane, self.user)
        settings = (f"--config={self.folder / 'kubelet.yaml'}", f"--kubeconfig={kubeconfig}")
        labels = f"--node-labels=topology.kubernetes.io/zone={self.name}"
        identity = (f"--node-ip={self.address}", f"--hostname-override={self.name}", labels)
        self._start("kubelet", tool("kubelet", "kubelet"), *settings, *identity)

    def kill(self) -> None:
        """End everything in the node at once, as a power cut does; a node that does not run is fine."""
        for part in self.parts.values():  # the first is PID 1
            part.kill()
        self.parts = {}
        remove_cgroup(self.cgroup)

    def stop_part(self, name: str) -> None:
        """Stop one of the node's programs (kubelet, containerd, kube-proxy, policy-agent)."""
        self.parts.pop(name).stop()

    def volumes(self, count: int) -> list[dict[str, Any]]:
        """Return empty ``local`` PersistentVolumes on this node: the kubelet applies fsGroup to them, as to a disk."""
        made = []
        for number in range(count):
            folder = self.folder / "volumes" / str(number)
            folder.mkdir(parents=True, exist_ok=True)
            here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [self.name]}
            spec = {
                "capacity": {"storage": "500Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "local",
                "local": {"path": str(folder)},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
            }
            about = {"name": f"{self.name}-{number}"}
            made.append({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": about, "spec": spec})
        return made

    def _has_runtime(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(f"/proc/{self.init}/root/run/containerd/containerd.sock") == 0

    def _start(self, part: str, *args: str | Path, entered: bool = True) -> Process:
        command = [*(self.enter if entered else ()), *args]
        self.parts[part] = self.processes.start(f"{self.name}-{part}", command)
        return self.parts[part]

    def _filter(self) -> None:
        """Hand every packet from or to a pod that opens a connection to the policy agent; a dead agent drops them."""
        chain = ("iptables-nft", "-t", "mangle")
        for rule in (
            ("-N", "POLICY"),
            ("-A", "POLICY", "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "RETURN"),
            ("-A", "POLICY", "-o", "lo", "-j", "RETURN"),
            # The node itself: probes and port-forwards.
            ("-A", "POLICY", "-m", "addrtype", "--src-type", "LOCAL", "-j", "RETURN"),
            ("-A", "POLICY", "-s", self.pods, "-j", "NFQUEUE", "--queue-num", QUEUE),
            ("-A", "POLICY", "-d", self.pods, "-j", "NFQUEUE", "--queue-num", QUEUE),
            ("-A", "POSTROUTING", "-j", "POLICY"),
        ):
            run(*self.enter, *chain, *map(str, rule))

    def _write(self) -> None:
        for name in ("lib", "log", "cni", "hosts"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for key in MACHINE_SYSCTLS:
            file = self.folder / "sysctl" / key
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(Path("/proc/sys", key).read_bytes())
        if self.cores:
            (self.folder / "sys" / "node").mkdir(parents=True, exist_ok=True)
            for number in range(self.cores):
                (self.folder / "sys" / "cpu" / f"cpu{number}").mkdir(parents=True, exist_ok=True)
        mirrors = {name: f"https://{self.registry.host}/v2/{name}" for name in REGISTRIES}
        mirrors[self.registry.host] = f"https://{self.registry.host}/v2"
        for name, mirror in mirrors.items():
            hosts = self.folder / "hosts" / name / "hosts.toml"
            hosts.parent.mkdir(exist_ok=True)
            hosts.write_text(
                f'server = "{mirror}"\n[host."{mirror}"]\n  capabilities = ["pull", "resolve"]\n'
                f'  override_path = true\n  ca = "{self.registry.authority}"\n'
            )
        (self.folder / "resolv.conf").write_text("")  # pods that use the node's DNS find none
        (self.folder / "cni" / "10-ptp.conflist").write_text(json.dumps(self._network(), indent=1))
        (self.folder / "containerd.toml").write_text(
            _CONTAINERD.format(folder=self.folder, cni=CNI_PLUGINS, pause=PAUSE)
        )
        for name, settings in (("kubelet", self._kubelet()), ("kube-proxy", kube_proxy(self))):
            (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(settings))

    def _network(self) -> dict[str, Any]:
        # ptp, so that the node routes, and filters, every packet, also between two of its pods.
        addresses = {"type": "host-local", "ranges": [[{"subnet": self.pods}]], "routes": [{"dst": "0.0.0.0/0"}]}
        ptp = {"type": "ptp", "mtu": 1500, "ipam": addresses}
        return {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [ptp, {"type": "portmap", "capabilities": {"portMappings": True}}],
        }

    def _kubelet(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self.control_plane / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "clusterDNS": [dns_address(self.site)],
            "clusterDomain": "cluster.local",
            "resolvConf": str(self.folder / "resolv.conf"),
            "serializeImagePulls": False,
            # Other sessions share the disk: their use of it must evict nobody here.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "nodeStatusUpdateFrequency": "5s",
            "syncFrequency": "10s",
            "maxPods": 200,
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        }


PROXY_USER = "system:kube-proxy"

_CONTAINERD = """
version = 2
oom_score = 0
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_tcp_service = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{folder}/hosts"
"""


def kube_proxy(node: Node) -> dict[str, Any]:
    """Return kube-proxy's configuration; it speaks for ``node``."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(node.site.client(node.control_plane, PROXY_USER))},
        "mode": "nftables",
        "hostnameOverride": node.name,
        "clusterCIDR": node.all_pods,
        # The size of the connection table belongs to the whole machine.
        "conntrack": {"maxPerCore": 0, "min": 0},
        "oomScoreAdj": 0,
    }


def dns_address(site: Site) -> str:
    """Return the ClusterIP of the cluster's DNS."""
    return site.services.split(".0.0/")[0] + ".0.10"


def make_cgroup(name: str) -> None:
    """Make the cgroup in which a kubelet makes those of its pods, in every hierarchy."""
    if (CGROUPS / "cgroup.controllers").exists():
        folder = CGROUPS / name
        folder.mkdir(exist_ok=True)
        # Pods' limits need these controllers all the way down.
        wanted = (CGROUPS / "cgroup.controllers").read_text().split()
        for parent in (CGROUPS, folder):
            for controller in wanted:
                with suppress(OSError):
                    (parent / "cgroup.subtree_control").write_text(f"+{controller}")
        return
    for hierarchy in _hierarchies():
        (hierarchy / name).mkdir(exist_ok=True)
        for key in ("cpuset.cpus", "cpuset.mems"):  # empty in a new cgroup, and nothing can run in it then
            if (hierarchy / name / key).exists():
                (hierarchy / name / key).write_text((hierarchy / key).read_text())


def remove_cgroup(name: str) -> None:
    """Remove a cgroup and all below it; its processes must be dying or dead."""

    def gone() -> bool:
        for hierarchy in (CGROUPS, *_hierarchies()):
            for folder in sorted((hierarchy / name).rglob("*"), key=lambda path: len(path.parts), reverse=True):
                if folder.is_dir():
                    folder.rmdir()
            with suppress(FileNotFoundError):
                (hierarchy / name).rmdir()
        return True

    wait_until(gone, f"cgroup {name} is empty", 30)


def _hierarchies() -> list[Path]:
    """Return the folders of the cgroup hierarchies (version 1; a unified one beside them included)."""
    if (CGROUPS / "cgroup.controllers").exists():
        return []
    return [path for path in CGROUPS.iterdir() if (path / "cgroup.procs").exists() and not path.is_symlink()]
