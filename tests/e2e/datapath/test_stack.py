"""How the suite starts a Thanos program that may crash at its start for a known reason."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.datapath.stack import PRUNING, Stack
from tests.e2e.datapath.wiring import Program
from tests.e2e.processes import NotReady

PROGRAM = """
import http.server, pathlib, sys
seen = pathlib.Path(sys.argv[1])
if not seen.exists():
    seen.touch()
    sys.exit("panic: nil pointer dereference\\n" + sys.argv[2])

class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

http.server.HTTPServer(("127.0.0.1", int(sys.argv[3])), Ready).serve_forever()
"""


def start(stack: Stack, seen: Path, says: str) -> bool:
    port = stack.address("ingestor").rsplit(":", 1)[1]
    program = Program([sys.executable, "-c", PROGRAM, str(seen), says, port], stack.url("ingestor"))
    return stack.start_program("ingestor", program).running


def test_a_panic_while_pruning_is_followed_by_another_start(new_stack: Callable[[], Stack], tmp_path: Path) -> None:
    assert start(new_stack(), tmp_path / "seen", f"receive.(*tenant).{PRUNING}(0x0)")


def test_any_other_panic_is_a_failure(new_stack: Callable[[], Stack], tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=r"receive\.Open"):
        start(new_stack(), tmp_path / "seen", "receive.Open(0x0)")
