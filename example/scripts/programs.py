"""Programs that the tools run."""

from __future__ import annotations

import shutil
import subprocess


class ProgramError(Exception):
    """A program is not installed; the message says which."""


class CommandError(ProgramError):
    """A program ended with an error, or not in time; the message says which, and its error."""


def required(program: str) -> None:
    """Raise ProgramError where a program is missing."""
    if not shutil.which(program):
        raise ProgramError(f"{program} is not installed")


def run(*args: str, timeout: float = 1800) -> str:
    """Run a program and return its standard output.

    Raises:
        ProgramError: the program is missing.
        CommandError: it failed, or took more than ``timeout`` seconds.
    """
    required(args[0])
    short = f"`{' '.join(args[:4])} ...`"
    try:
        done = subprocess.run(args, capture_output=True, text=True, check=False, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise CommandError(f"{short}: gave up after {timeout:g} s") from None
    if done.returncode:
        # Helm ends with advice on --debug; its error is the line that says so.
        lines = done.stderr.strip().splitlines() or ["failed"]
        said = next((line for line in lines if line.startswith("Error:")), lines[-1])
        raise CommandError(f"{short}: {said}")
    return done.stdout
