"""Run programs on loopback for a test session and leave none of them behind."""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import httpx

T = TypeVar("T")
LOOPBACK = "127.0.0.1"
# One client, because each makes a TLS context; no connection is kept, because servers come and go.
HTTP = httpx.Client(trust_env=False, timeout=30, limits=httpx.Limits(max_keepalive_connections=0))


class NotReady(AssertionError):
    """A wait reached its deadline, or the program that was waited for ended; the message holds its last log lines."""


def wait_until(
    check: Callable[[], T | Literal[False] | None], what: str, timeout: float = 60, interval: float = 0.1
) -> T:
    """Call ``check`` until it returns something true, and return that.

    A failed assertion or a connection error inside ``check`` means "not yet"; the last one is part of the final message.

    Raises:
        NotReady: ``timeout`` seconds passed.
    """
    deadline = time.monotonic() + timeout
    last: object = None
    while True:
        try:
            last = answer = check()
            if answer:
                return answer
        except NotReady:
            raise
        except (AssertionError, httpx.HTTPError, OSError) as error:
            last = error
        if time.monotonic() > deadline:
            raise NotReady(f"{what}: not within {timeout:g} s (last: {last!r})")
        time.sleep(interval)


# Each port that was given out, and the UDP socket that claims it among the sessions of this machine.
_claims: dict[int, socket.socket] = {}
_ports_lock = threading.Lock()


def free_port() -> int:
    """Return a loopback port that nobody listens on and that no session that still runs has given out before.

    Ports come from below the usual ephemeral range, so that no outgoing connection takes one before its server binds it.
    """
    with _ports_lock:
        for port in random.SystemRandom().sample(range(15000, 32000), 500):
            claim = socket.socket(type=socket.SOCK_DGRAM)
            with socket.socket() as probe, suppress(OSError):
                claim.bind((LOOPBACK, port))
                probe.bind((LOOPBACK, port))
                _claims[port] = claim
                return port
            claim.close()
    raise RuntimeError("no free port found on loopback")


# The kernel ends what is left when the session itself is killed; call `start` from a thread that lives as long.
_BOUND_TO_PARENT = ("setpriv", "--pdeathsig", "KILL", "--") if shutil.which("setpriv") else ()


@dataclass
class Process:
    """One running program in a process group of its own, writing stdout and stderr to ``log``."""

    name: str
    args: list[str]
    log: Path
    popen: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def tail(self, lines: int = 25) -> str:
        """Return the end of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def wait_http(self, url: str, timeout: float = 60, status: int = 200) -> None:
        """Wait until ``url`` answers with ``status``.

        Raises:
            NotReady: the program ended first, or the deadline passed.
        """

        def answers() -> bool:
            if not self.running:
                raise NotReady(f"{self.name} ended with status {self.popen.returncode}:\n{self.tail()}")
            return HTTP.get(url, timeout=2).status_code == status

        try:
            wait_until(answers, f"{self.name} at {url}", timeout)
        except NotReady as error:
            if not self.running:
                raise
            raise NotReady(f"{error}\n{self.tail()}") from None

    def wait_end(self, timeout: float = 30) -> int:
        """Wait for the program to end by itself and return its exit status."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise NotReady(f"{self.name} still runs after {timeout:g} s:\n{self.tail()}") from None

    def kill(self) -> None:
        """SIGKILL the whole group and wait for its end."""
        self._signal(signal.SIGKILL)
        self.popen.wait(10)

    def stop(self, grace: float = 10) -> None:
        """SIGTERM, then SIGKILL what is left of the group after ``grace`` seconds."""
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(grace)
        self.kill()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # the whole group has ended
            os.killpg(self.popen.pid, number)


@dataclass
class Processes:
    """A group of programs that end together: use it as a context manager. Logs land in ``folder``/<name>.log.

    The group also ends at interpreter exit, whatever ended the session (conftest turns SIGTERM into an orderly exit).
    """

    folder: Path
    started: list[Process] = field(default_factory=list)

    def __enter__(self) -> Processes:
        self.folder.mkdir(parents=True, exist_ok=True)
        atexit.register(self.stop)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        atexit.unregister(self.stop)

    def start(
        self,
        name: str,
        args: Sequence[str | Path],
        *,
        ready: str | None = None,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Process:
        """Start a program and, where ``ready`` is a URL, wait until it answers 200.

        ``env`` is added to the session's environment; the log of an earlier run of the same name is continued.

        Raises:
            NotReady: the program ended, or was not ready within ``timeout`` seconds; its last lines are in the message.
        """
        log = self.folder / f"{name}.log"
        command = [*_BOUND_TO_PARENT, *map(str, args)]
        with log.open("ab") as out:
            popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                start_new_session=True,  # Ctrl-C reaches only the session, which then stops its programs in order
            )
        process = Process(name, command, log, popen)
        self.started.append(process)
        if ready:
            process.wait_http(ready, timeout)
        return process

    def stop(self) -> None:
        """Stop everything, the last started first."""
        processes, self.started = self.started[::-1], []
        for process in processes:
            process._signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        for process in processes:
            process.stop(max(0.1, deadline - time.monotonic()))
