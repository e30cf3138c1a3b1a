"""The containers of a node, as the node's own root sees them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.cluster.node import CGROUPS, Node, run
from tests.e2e.gitops.kube import Kube, Manifest


@dataclass(frozen=True)
class Container:
    """One running container of a ``pod``; ``pid`` is its first process, by its number in the node."""

    node: Node
    pod: str
    id: str
    pid: int

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment with which its program was started."""
        text = run(*self.node.enter, "cat", f"/proc/{self.pid}/environ")
        return dict(pair.split("=", 1) for pair in text.split("\0") if "=" in pair)

    def read(self, path: str) -> str:
        """Return the content of a file as the program sees it."""
        return run(*self.node.enter, "cat", f"/proc/{self.pid}/root{path}")

    @property
    def ended(self) -> bool:
        return self.id not in tasks(self.node)

    def kill(self) -> None:
        """SIGKILL the program."""
        run(*self.node.enter, *_CTR, "task", "kill", "--signal", "SIGKILL", self.id)

    def pause(self) -> None:
        """Freeze every process of it."""
        run(*self.node.enter, *_CTR, "task", "pause", self.id)

    def resume(self) -> None:
        """Let it go on."""
        run(*self.node.enter, *_CTR, "task", "resume", self.id)

    def exhaust_memory(self) -> None:
        """Take what its limit leaves, as a process beside the program; the kernel ends the program, by its higher score."""
        folder = self._memory
        known = ("memory.limit_in_bytes", "memory.max")
        (limit,) = (int((folder / name).read_text()) for name in known if (folder / name).exists())
        take = f"import sys; [b'.' * (1 << 20) for _ in range({limit >> 20} - 16)]"
        enter = f'echo $$ > {folder}/cgroup.procs && exec {sys.executable} -c "$1"'
        subprocess.run(["sh", "-c", enter, "hog", take], check=False)

    @property
    def _memory(self) -> Path:
        """Return the folder of its cgroup that accounts for memory."""
        lines = run(*self.node.enter, "cat", f"/proc/{self.pid}/cgroup").splitlines()
        paths = {name: path for _, names, path in (line.split(":", 2) for line in lines) for name in names.split(",")}
        if "memory" in paths:
            return CGROUPS / "memory" / paths["memory"].strip("/")
        return CGROUPS / paths[""].strip("/")


_CTR = ("ctr", "--address", "/run/containerd/containerd.sock", "--namespace", "k8s.io")


def tasks(node: Node) -> dict[str, int]:
    """Return the first process of every container that runs on a node, by the container's id."""
    lines = (line.split() for line in run(*node.enter, *_CTR, "task", "list").splitlines()[1:])
    return {identity: int(pid) for identity, pid, status in lines if status != "STOPPED"}


def containers(kube: Kube, nodes: dict[str, Node], namespace: str, selector: str, name: str) -> list[Container]:
    """Return the running containers called ``name`` of the pods that a label selector selects and that are here to stay."""
    running = {node.name: tasks(node) if node.running else {} for node in nodes.values()}
    found = []
    for pod in kube.list("pods", namespace, selector):
        if pod["metadata"].get("deletionTimestamp") or "nodeName" not in pod["spec"]:
            continue
        where = pod["spec"]["nodeName"]
        for identity in (_id(it) for it in pod["status"].get("containerStatuses", []) if it["name"] == name):
            if identity in running[where]:
                found.append(Container(nodes[where], pod["metadata"]["name"], identity, running[where][identity]))
    return found


def _id(status: Manifest) -> str:
    return str(status.get("containerID", "")).removeprefix("containerd://")
