"""Tempo and Loki themselves in the stand-ins' place, where ``TEMPO_BIN`` or ``LOKI_BIN`` names a program.

They run what the real chart makes of the baked values of the environment ``local`` (production wants a bucket), with only
addresses and paths replaced. What the suite asks of a stand-in alone (forget a trace, drop trace ids) they do not know.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from scripts.charts import merge
from tests.e2e.datapath import declared
from tests.e2e.datapath.declared import NAMESPACE, Declared, NothingReplaced, replace_flags, substitute
from tests.e2e.processes import LOOPBACK, Process, free_port

if TYPE_CHECKING:
    from tests.e2e.datapath.stack import Stack

VARIABLES = {"tempo": "TEMPO_BIN", "loki": "LOKI_BIN"}
INSIDE = f"{NAMESPACE}.svc.cluster.local"
# Both are ready 15 s after their ring is, at the earliest.
READY_SECONDS = 120


class BackendError(RuntimeError):
    """A real store cannot be run; the message says what is missing."""


def binary(component: str) -> str | None:
    """Return the program that the environment names for ``tempo`` or ``loki``, None for the stand-in.

    Raises:
        BackendError: it cannot be run, or there is no chart to configure it by.
    """
    variable = VARIABLES[component]
    path = os.environ.get(variable)
    if not path:
        return None
    if not Path(path).is_file() or not os.access(path, os.X_OK):
        raise BackendError(f"{variable}={path} is not a program that can be run")
    if not declared.UPSTREAM_CHARTS:
        raise BackendError(
            f"{variable} is set, but UPSTREAM_CHARTS is not: the chart of {component} turns the baked values into its "
            "configuration. Set it to a folder of the packaged charts (helm pull)."
        )
    return path


def use_named(stack: Stack) -> Stack:
    """Replace the stand-ins of a stack that is not started yet by the programs that the environment names."""
    if path := binary("tempo"):
        stack.traces = Tempo(stack, path)
    if path := binary("loki"):
        stack.logs = Loki(stack, path)
    return stack


def replace_ports(config: dict[str, Any], table: Mapping[str, int]) -> dict[str, Any]:
    """Return ``config`` with the number at each dotted path of ``table`` replaced.

    Raises:
        NothingReplaced: there is no number at one of the paths.
    """
    for path, port in table.items():
        *parents, last = path.split(".")
        node = config
        for key in parents:
            node = node.get(key) or {}
        if not isinstance(node.get(last), int):
            raise NothingReplaced(f"no number at {path}")
        over: dict[str, Any] = {last: port}
        for key in reversed(parents):
            over = {key: over}
        config = merge(config, over)
    return config


class Backend:
    """A store as a program: the stand-ins' ``url``, ``port``, ``start`` and ``stop``."""

    component = ""
    main_file = ""

    def __init__(self, stack: Stack, path: str) -> None:
        self.stack = stack
        self.path = path
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.ports: dict[str, int] = {}
        self._process: Process | None = None

    def configuration(self, files: Mapping[str, str]) -> dict[str, Any]:
        """Return the program's configuration for this machine; ``files`` are those of the chart's ConfigMaps by name.

        Raises:
            NothingReplaced: an address or a path that is to be replaced is not there.
        """
        raise NotImplementedError

    def flags(self) -> dict[str, str]:
        """Return the flags to replace beside that of the configuration."""
        return {}

    def local(self, name: str) -> int:
        """Return this program's port of that name."""
        return self.ports.setdefault(name, free_port())

    def command(self) -> list[str]:
        """Write the configuration, and return the chart's arguments with what is replaced.

        Raises:
            NothingReplaced: as ``configuration``, or a flag is not there.
        """
        documents = Declared(self.stack.declared.platform, "local").render(self.component, declared.UPSTREAM_CHARTS)
        maps = [document["data"] for document in documents if document["kind"] == "ConfigMap"]
        files = {name: text for data in maps for name, text in data.items()}
        folder = self.stack.data(self.component)
        for name, text in files.items():
            (folder / name).write_text(text)
        config = self.configuration(files)
        left = [place for place in ("svc.cluster.local", "0.0.0.0") if place in yaml.safe_dump(config)]
        assert not left, f"{left} is left in the configuration of {self.component}"
        (folder / self.main_file).write_text(yaml.safe_dump(config))
        (arguments,) = [
            container["args"]
            for document in documents
            if document["kind"] == "StatefulSet"
            for container in document["spec"]["template"]["spec"]["containers"]
            if container["name"] == self.component
        ]
        return [
            self.path,
            *replace_flags(arguments, {"-config.file": str(folder / self.main_file), **self.flags()}),
        ]

    def start(self) -> None:
        self._process = self.stack.processes.start(
            self.component, self.command(), ready=f"{self.url}/ready", timeout=READY_SECONDS
        )

    def stop(self) -> None:
        if self._process:
            self._process.stop(grace=30)  # it writes what it holds to disk
            self._process = None


class Tempo(Backend):
    """Tempo as one program, with its files below the stack's folder."""

    component, main_file = "tempo", "tempo.yaml"

    @property
    def grpc_port(self) -> int:
        return self.local("otlp-grpc")

    def configuration(self, files: Mapping[str, str]) -> dict[str, Any]:
        folder = self.stack.data(self.component)
        receivers = {
            4317: "otlp-grpc",
            4318: "otlp-http",
            **{port: f"jaeger-{port}" for port in (14250, 14268, 6831, 6832)},
        }
        config = substitute(
            yaml.safe_load(files[self.main_file]),
            {
                **{f"0.0.0.0:{port}": f"{LOOPBACK}:{self.local(name)}" for port, name in receivers.items()},
                f"thanos-receive-router.{INSIDE}:19291": self.stack.address("router", "write"),
                "/conf/overrides.yaml": str(folder / "overrides.yaml"),
                "/var/tempo": str(folder / "var"),
                "/tmp/traces": str(folder / "generator"),
            },
        )
        config = replace_ports(config, {"server.http_listen_port": self.port})
        # What the chart leaves to a pod of its own: every interface, and ports that Loki has too.
        return merge(
            config,
            {
                "server": {
                    "http_listen_address": LOOPBACK,
                    "grpc_listen_address": LOOPBACK,
                    "grpc_listen_port": self.local("grpc"),
                },
                "memberlist": {"bind_addr": [LOOPBACK], "bind_port": self.local("gossip")},
                "ingester": {"lifecycler": {"address": LOOPBACK}},
                "metrics_generator": {"ring": {"instance_addr": LOOPBACK}},
            },
        )


class Loki(Backend):
    """Loki as one program, with its files below the stack's folder."""

    component, main_file = "loki", "config.yaml"

    def configuration(self, files: Mapping[str, str]) -> dict[str, Any]:
        folder = self.stack.data(self.component)
        config = substitute(
            yaml.safe_load(files[self.main_file]),
            {
                f"loki-memberlist.{INSIDE}": f"{LOOPBACK}:{self.local('gossip')}",
                f"loki.{INSIDE}:9095": f"{LOOPBACK}:{self.local('grpc')}",
                "/etc/loki/runtime-config/runtime-config.yaml": str(folder / "runtime-config.yaml"),
                "/var/loki": str(folder / "var"),
            },
        )
        config = replace_ports(
            config,
            {
                "server.http_listen_port": self.port,
                "server.grpc_listen_port": self.local("grpc"),
                "memberlist.bind_port": self.local("gossip"),
                "memberlist.advertise_port": self.local("gossip"),
            },
        )
        return merge(
            config,
            {
                "server": {"http_listen_address": LOOPBACK, "grpc_listen_address": LOOPBACK},
                "memberlist": {"bind_addr": [LOOPBACK]},
                "common": {"instance_addr": LOOPBACK},
            },
        )

    def flags(self) -> dict[str, str]:
        return {"-memberlist.advertise-addr": LOOPBACK}
