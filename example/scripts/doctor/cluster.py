"""kubectl: read resources, and forward ports for as long as the doctor runs."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import IO, Any, cast

from .model import MissingError, UnexpectedAnswerError, UnreachableError


@dataclass
class Cluster(AbstractContextManager["Cluster"]):
    """A cluster as kubectl sees it. Every call ends after ``timeout`` seconds; forwards end with the ``with`` block."""

    context: str | None = None
    timeout: float = 10
    _forwards: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __exit__(self, *_: object) -> None:
        for forward in self._forwards:
            forward.terminate()
        for forward in self._forwards:
            with suppress(subprocess.TimeoutExpired):
                forward.wait(3)
            forward.kill()
            forward.wait()
            if forward.stdout:
                forward.stdout.close()

    def run(self, *args: str) -> str:
        """Run kubectl and return its output.

        Raises:
            MissingError: kubectl is not installed.
            UnreachableError: it failed or took too long.
        """
        try:
            done = subprocess.run(
                self._command(*args, f"--request-timeout={self.timeout:g}s"),
                capture_output=True,
                text=True,
                timeout=self.timeout + 5,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise UnreachableError("cluster", f"kubectl {args[0]}: no answer within {self.timeout:g} s") from None
        if done.returncode:
            raise UnreachableError(
                "cluster", f"kubectl {args[0]}: {(done.stderr.strip() or 'failed').splitlines()[-1]}"
            )
        return done.stdout

    def get(self, *args: str) -> dict[str, Any]:
        """Return ``kubectl get ... -o json``; errors as ``run``, and ``UnexpectedAnswerError`` for what is no JSON."""
        said = self.run("get", *args, "-o", "json")
        try:
            answer: dict[str, Any] = json.loads(said)
        except ValueError:
            raise UnexpectedAnswerError(f"kubectl get {args[0]} printed no JSON: {said.strip()[:100]}") from None
        return answer

    def forward(self, namespace: str, target: str, port: int) -> str:
        """Forward a free port of this machine to ``target`` (such as ``service/tempo``) and return its URL.

        Raises:
            UnreachableError: the forward was not up within the timeout; the message has kubectl's last line.
        """
        process = subprocess.Popen(
            self._command("port-forward", "--address=127.0.0.1", "-n", namespace, target, f":{port}"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._forwards.append(process)
        output, deadline, said = cast(IO[bytes], process.stdout).fileno(), time.monotonic() + self.timeout, ""
        while (left := deadline - time.monotonic()) > 0 and select.select([output], [], [], left)[0]:
            chunk = os.read(output, 4096).decode(errors="replace")
            said += chunk
            if forwarding := re.search(r"Forwarding from 127\.0\.0\.1:(\d+) ", said):
                return f"http://127.0.0.1:{forwarding[1]}"
            if not chunk:
                break
        raise UnreachableError("cluster", f"port-forward to {target}: {said.strip() or 'not up in time'}")

    def _command(self, *args: str) -> list[str]:
        if not shutil.which("kubectl"):
            raise MissingError("kubectl is not installed")
        return ["kubectl", *(["--context", self.context] if self.context else []), *args]
