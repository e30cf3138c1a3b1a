"""Removes what was not chosen, by one table, and prints the next steps. Standard library only."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

Answers = Mapping[str, object]

# path -> whether these answers keep it
KEPT_IF: dict[str, Callable[[Answers], bool]] = {
    "platform-apps/external-secrets": lambda a: a["secrets_backend"] == "external-secrets",
    "platform-apps/fluent-bit": lambda a: a["include_fluent_bit"] is True,
    "platform-apps/loki": lambda a: a["log_backend"] == "loki",
    "platform-apps/sealed-secrets": lambda a: a["secrets_backend"] == "sealed-secrets",
    "platform-apps/thanos-store": lambda a: a["object_storage"] != "none",
}


def prune(root: Path, answers: Answers) -> None:
    for name, kept in KEPT_IF.items():
        path = root / name
        if kept(answers):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def summary(root: Path, answers: Answers) -> str:
    components = sorted(path.parent.name for path in root.glob("platform-apps/*/Chart.yaml"))
    return "\n".join(
        [
            f"{answers['platform_name']}: {answers['project_slug']}/ is ready.",
            f"  components: {', '.join(components)}",
            "Next:",
            f"  cd {answers['project_slug']} && git init -b {answers['__branch']} && git add . && git commit -m 'Scaffold the platform'",
            "  make run    # the checkout simulator on this machine, instrumented; needs no cluster",
            "  make up     # the whole platform on kind; says which tools are missing",
        ]
    )


def main(answers: Answers, root: Path) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    prune(root, answers)
    print(summary(root, answers))


if __name__ == "__main__":
    # See pre_gen_project.py for why any answer survives this.
    main(json.loads(r"""{{ cookiecutter | jsonify }}"""), Path.cwd())
