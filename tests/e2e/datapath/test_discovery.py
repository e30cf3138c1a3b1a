"""How Query finds the ingestors: by the baked DNS name, of which a name server here says who is there.

Query alone sees it, as the name server of a mount namespace of its own.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from scripts.charts import ENVIRONMENTS
from tests.e2e.datapath.declared import Declared, replace_flags
from tests.e2e.datapath.stack import Stack
from tests.e2e.datapath.wiring import Program
from tests.e2e.processes import LOOPBACK, wait_until

NAME_SERVER = "127.53.0.53"
A, SRV = 1, 33  # types of DNS records

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="a name server of one's own needs root and unshare"
)


def encoded(name: str) -> bytes:
    """Return a name as DNS has it: labels with their lengths."""
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


class NameServer:
    """Answers with an SRV record for each port of ``pods`` below its name, and with loopback for the pods themselves.

    ``asked`` counts the questions for the SRV records.
    """

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, int]] = {}
        self.asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((NAME_SERVER, 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                question, sender = self._socket.recvfrom(4096)
                self._socket.sendto(self._answer(question), sender)
            except OSError:  # closed
                return

    def _answer(self, message: bytes) -> bytes:
        labels, at = [], 12
        while length := message[at]:
            labels.append(message[at + 1 : at + 1 + length].decode())
            at += 1 + length
        question = message[12 : at + 5]
        (kind,) = struct.unpack("!H", message[at + 1 : at + 3])
        name, records = ".".join(labels), []
        if kind == SRV and name in self.pods:
            self.asked += 1
            records = [
                struct.pack("!HHH", 0, 0, port) + encoded(f"{pod}.{name}") for pod, port in self.pods[name].items()
            ]
        elif kind == A:
            records = [socket.inet_aton(LOOPBACK)]
        answers = b"".join(
            # A pointer to the question's name, the type, class IN, a TTL of 5 s.
            struct.pack("!HHHIH", 0xC00C, kind, 1, 5, len(record)) + record
            for record in records
        )
        return message[:2] + struct.pack("!HHHHH", 0x8580, 1, len(records), 0, 0) + question + answers

    def stop(self) -> None:
        self._socket.close()


@pytest.fixture
def names() -> Iterator[NameServer]:
    made = NameServer()
    yield made
    made.stop()


def test_the_address_of_an_ingestor_that_is_gone_is_dropped_at_the_next_look_up(
    new_stack: Callable[[], Stack], names: NameServer, tmp_path: Path
) -> None:
    stack = new_stack()
    (name,) = (
        each["address"].removeprefix("dnssrv+")
        for each in stack.declared.query_endpoints()["endpoints"]
        if "receive-ingestor" in each["address"]
    )
    old, new = "thanos-receive-ingestor-0", "thanos-receive-ingestor-1"
    ports = {pod: int(stack.address(pod, "grpc").rpartition(":")[2]) for pod in (old, new)}
    for pod in (old, new):
        table: dict[str, str | list[str]] = {
            "--http-address": stack.address(pod),
            "--grpc-address": stack.address(pod, "grpc"),
            "--remote-write.address": stack.address(pod, "write"),
            "--tsdb.path": str(stack.data(pod)),
            "--receive.local-endpoint": stack.address(pod, "grpc"),
            "--receive.capnproto-address": stack.address(pod, "capnproto"),
            "--label": f'receive_replica="{pod}"',
        }
        command = [stack.program("ingestor").command[0], *replace_flags(stack.thanos_arguments("ingestor"), table)]
        stack.parts[pod] = stack.start_program(pod, Program(command, f"{stack.url(pod)}/-/ready"))
    names.pods = {name: ports}

    resolver = tmp_path / "resolv.conf"
    resolver.write_text(f"nameserver {NAME_SERVER}\n")
    query = stack.program("query")
    endpoints = stack.folder / "endpoints.yaml"
    endpoints.write_text(yaml.safe_dump(stack.declared.query_endpoints()))
    seen = ["unshare", "--mount", "sh", "-c", f'mount --bind {resolver} /etc/resolv.conf && exec "$@"', "sh"]
    stack.parts["query"] = stack.start_program("query", Program([*seen, *query.command], query.ready))
    wait_until(lambda: stack.query.stores()["receive"] == 2, "Query sees both ingestors")

    stack.kill(old)
    names.pods = {name: {new: ports[new]}}
    asked = names.asked

    def known() -> set[str]:
        return {endpoint["name"] for endpoint in stack.query.endpoints("receive")}

    wait_until(lambda: known() == {stack.address(new, "grpc")}, "Query knows the new address alone")
    assert names.asked <= asked + 2
    stack.stop()


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_query_looks_again_after_seconds(declared: Declared, environment: str) -> None:
    """The default is 30 s, and for so long an ingestor's new address would be unknown and its old one asked."""
    arguments = Declared(declared.platform, environment).thanos("query")
    assert "--store.sd-dns-interval=5s" in arguments
