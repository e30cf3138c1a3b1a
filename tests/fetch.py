"""What the strict tests need from the network: `make charts` and `make providers`.

    python -m tests.fetch charts FOLDER       the upstream charts of every platform, packaged; what is there stays
    python -m tests.fetch providers FOLDER    a Terraform filesystem mirror with the Helm provider

The last line printed is the environment variable that points the tests to it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scripts.mirror import charts as charts_of
from scripts.mirror import publishers
from tests import platforms


def bakes(scratch: Path) -> Iterator[Path]:
    """Platforms that have every component between them: the largest, once for each place where Secrets come from."""
    if "TEMPLATE_SNAPSHOT" not in os.environ:  # tests have one
        os.environ["TEMPLATE_SNAPSHOT"] = str(platforms.snapshot(scratch / platforms.ROOT.name))
    largest = {"include_fluent_bit": True, "object_storage": "s3", "domain": "example.com"}
    for backend in platforms.CHOICES["secrets_backend"]:
        yield platforms.bake({**largest, "secrets_backend": backend}, scratch / backend)


def run(*command: str, cwd: Path | None = None) -> None:
    if not shutil.which(command[0]):
        sys.exit(f"fetch: {command[0]} is not installed")
    if subprocess.run(command, cwd=cwd, check=False).returncode:
        sys.exit(f"fetch: `{' '.join(command)}` failed")


def charts(scratch: Path, folder: Path) -> None:
    """Pull every chart that a platform pins into `folder`, as <name>-<version>.tgz."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {chart for platform in bakes(scratch) for chart in charts_of(platform, publishers(platform)["charts"])}
    for chart in sorted(wanted):
        if not (folder / chart.package).exists():
            run("helm", "pull", *chart.location, "--version", chart.version, "--destination", str(folder))
    print(f"UPSTREAM_CHARTS={folder}")


def providers(scratch: Path, folder: Path) -> None:
    """Mirror the providers that a platform's Terraform asks for into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    run("terraform", "providers", "mirror", str(folder.resolve()), cwd=next(bakes(scratch)) / "terraform")
    print(f"TF_PLUGIN_MIRROR={folder}")


def main(arguments: list[str]) -> None:
    jobs = {"charts": charts, "providers": providers}
    if len(arguments) != 2 or arguments[0] not in jobs:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(prefix="fetch-") as scratch:
        jobs[arguments[0]](Path(scratch), Path(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
