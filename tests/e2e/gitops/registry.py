"""A TLS registry on loopback: where charts and images come from when there is no way out."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import run

import httpx
import trustme
import yaml

from tests.e2e.processes import LOOPBACK, Processes, free_port, wait_until
from tests.e2e.toolchain import tool


@dataclass(frozen=True)
class Registry:
    """A running registry: its ``host:port``, and the certificate authority that its clients must trust."""

    host: str
    authority: Path

    @property
    def trust(self) -> dict[str, str]:
        """The environment with which Helm, crane and Argo CD trust this registry."""
        return {"SSL_CERT_FILE": str(self.authority)}

    def push_chart(self, package: Path, repository: str) -> None:
        """Push a packaged chart to ``oci://<host>/<repository>/<chart>``."""
        command: list[str | Path] = [tool("helm"), "push", package, f"oci://{self.host}/{repository}"]
        run(
            command,
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, **self.trust},
        )

    def push_charts(self, packages: Iterable[Path], repository: str) -> None:
        """Push every packaged chart."""
        for package in packages:
            self.push_chart(package, repository)

    def repositories(self) -> set[str]:
        """Return the names of everything that the registry holds."""
        answer = httpx.get(
            f"https://{self.host}/v2/_catalog?n=1000",
            verify=ssl.create_default_context(cafile=self.authority),
            trust_env=False,
        )
        answer.raise_for_status()
        return set(answer.json()["repositories"])


@contextmanager
def registry(folder: Path, address: str = LOOPBACK, enter: Sequence[str] = ()) -> Iterator[Registry]:
    """Run an empty registry below ``folder``, with a certificate of its own.

    ``enter`` is put before its command (say, to enter the network namespace that has ``address``).
    """
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    serving = authority.issue_cert(address, "localhost")
    # Whoever trusts this registry goes on trusting the public ones.
    public = Path(ssl.get_default_verify_paths().cafile or "")
    (folder / "ca.crt").write_bytes(authority.cert_pem.bytes() + (public.read_bytes() if public.is_file() else b""))
    serving.private_key_and_cert_chain_pem.write_to_path(folder / "serving.pem")
    host = f"{address}:{free_port()}"
    pair = {
        "certificate": str(folder / "serving.pem"),
        "key": str(folder / "serving.pem"),
    }
    config = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(folder / "data")},
            "delete": {"enabled": True},
        },
        "http": {"addr": host, "tls": pair},
    }
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    with Processes(folder / "logs") as processes:
        server = processes.start("registry", [*enter, tool("registry"), "serve", folder / "config.yml"])
        it = Registry(host, folder / "ca.crt")

        def answers() -> bool:
            assert server.running, server.tail()
            return it.repositories() is not None

        wait_until(answers, "the registry answers")
        yield it
