"""What a check may say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .findings import FINDINGS


class Status(str, Enum):
    """How a hop is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True)
class Result:
    """A status, what was seen, and for a failure the finding: its slug in ``FINDINGS``."""

    status: Status
    evidence: str
    finding: str | None = None

    @property
    def cause(self) -> str:
        """Return the likely cause ("" where nothing was found)."""
        return FINDINGS[self.finding].cause if self.finding else ""

    @property
    def fix(self) -> str:
        """Return the command or file that mends it ("" where nothing was found)."""
        return FINDINGS[self.finding].fix if self.finding else ""


class UnreachableError(Exception):
    """A backend did not answer, or refused; the message says how, ``backend`` which ("cluster": the API server)."""

    def __init__(self, backend: str, message: str) -> None:
        super().__init__(message)
        self.backend = backend


class UnexpectedAnswerError(Exception):
    """A backend answered, but not as it does; the message says which and how."""


class MissingError(Exception):
    """A check cannot look: a tool, an address or a file is not there; the message says which."""


def ok(evidence: str) -> Result:
    """Return that the hop works."""
    return Result(Status.OK, evidence)


def warn(evidence: str) -> Result:
    """Return that the hop works, but not for long, or not for all."""
    return Result(Status.WARN, evidence)


def skip(reason: str) -> Result:
    """Return that the hop was not looked at."""
    return Result(Status.SKIP, reason)


def fail(finding: str, evidence: str) -> Result:
    """Return that the hop is broken."""
    if finding not in FINDINGS:
        raise KeyError(finding)
    return Result(Status.FAIL, evidence, finding)
