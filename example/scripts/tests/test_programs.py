"""How the tools run programs."""

from __future__ import annotations

import pytest

from scripts.programs import CommandError, ProgramError, run


def test_a_failed_program_says_why() -> None:
    assert run("echo", "hello") == "hello\n"
    with pytest.raises(CommandError, match="No such file"):
        run("ls", "/no/such/folder")
    with pytest.raises(CommandError, match="gave up after 0.01 s"):
        run("sleep", "9", timeout=0.01)
    with pytest.raises(ProgramError, match="no-such-program is not installed"):
        run("no-such-program")
