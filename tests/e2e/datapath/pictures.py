"""`make pictures`: what the prompts, a refusal and the doctor look like in a terminal, from real runs, as docs/pictures/*.svg."""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
from pathlib import Path

import pexpect
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from tests.e2e.datapath import traffic
from tests.e2e.datapath.conftest import ANSWERS
from tests.e2e.datapath.declared import Declared
from tests.e2e.datapath.doctor import doctor, names
from tests.e2e.datapath.stack import Stack
from tests.e2e.datapath.wiring import reports_every_second
from tests.e2e.processes import Processes
from tests.platforms import ROOT, bake, snapshot

OUT = ROOT / "docs" / "pictures"
COLUMNS = 112
# The font that Rich would load from the network; a reader's own monospaced one does.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def draw(name: str, title: str, said: str) -> None:
    """Write docs/pictures/<name>.svg: the lines that a program printed, with its colours."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(said.replace("\r\n", "\n").strip("\n")))
    (OUT / f"{name}.svg").write_text(console.export_svg(title=title, code_format=FORMAT, unique_id=name))


def prompts(template: Path, folder: Path, answers: dict[str, str]) -> str:
    """What Cookiecutter shows: each prompt answered with its default, or with `answers` by a word of the prompt."""
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "HOME": str(folder), "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "cookiecutter", str(template), "--output-dir", str(folder)]
    child = pexpect.spawn(
        command[0], command[1:], env=environment, encoding="utf-8", dimensions=(50, COLUMNS), timeout=60
    )
    shown = ""
    while child.expect([r"\)(?:\x1b\[[\d;]*m)*: ", pexpect.EOF]) == 0:
        asked = str(child.before)
        shown += f"{asked}{child.after}"
        child.sendline(next((given for word, given in answers.items() if word in asked), ""))
    said = f"{shown}{child.before}".replace(sys.executable, "python").replace(str(folder), "~")
    return said.replace(str(template), "gh:<org>/cookiecutter-gitops-observability")


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pictures-") as scratch:
        folder = Path(scratch)
        template = snapshot(folder / ROOT.name)
        os.environ["TEMPLATE_SNAPSHOT"] = str(template)
        draw(
            "prompts",
            "cookiecutter gh:<org>/cookiecutter-gitops-observability",
            prompts(template, folder / "asked", {}),
        )
        wrong = {"metrics are kept": "30", "Domain for": "https://Grafana.Acme.io/"}
        said = prompts(template, folder / "refused", wrong)
        draw(
            "refusal", "two answers that need a change", said[said.index("2 answers need") : said.index("What follows")]
        )
        with Processes(folder / "logs") as processes:
            stack = Stack(Declared(bake(ANSWERS, folder / "bake")), folder / "stack", processes)
            stack.changes["collector"] = reports_every_second
            try:
                traffic.warm_up(stack.start())
                names(stack, "")
                os.environ |= {"FORCE_COLOR": "1", "COLUMNS": str(COLUMNS)}
                said = doctor(stack).stdout
                # Above the table it only says that it is looking.
                draw("doctor", "make doctor", said[said.rindex("\n", 0, said.index("Hop")) :])
            finally:
                stack.stop()


if __name__ == "__main__":
    main()
