"""Build what the data-path suite runs, before pytest captures the output: the first time this takes minutes.

python -m tests.e2e.datapath.prepare
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.e2e import toolchain
from tests.e2e.clouds import azurite_is_missing
from tests.e2e.datapath.conftest import ANSWERS
from tests.e2e.datapath.declared import Declared
from tests.e2e.datapath.wiring import python_environment
from tests.platforms import bake


def main() -> int:
    """Build the tools, the collector that a bake's configuration needs, and the simulator's environment."""
    try:
        for name in ("thanos", "promtool", "alertmanager", "helm", "versitygw", "fake-gcs-server"):
            toolchain.tool(name)
        if not azurite_is_missing():
            toolchain.azurite()
        with tempfile.TemporaryDirectory() as folder:
            declared = Declared(bake(ANSWERS, Path(folder)))
            toolchain.collector(declared.collector(), declared.scraper())
            python_environment(declared)
    except toolchain.ToolchainError as error:
        print(f"toolchain: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
