"""Where the images of a platform come from, by the names that its manifests ask for; each from the first source that has it.

1. An archive in the folder ``E2E_IMAGES`` (docker's format; its manifest names the image).
2. Built here: Thanos, Alertmanager, the collector, Argo CD with git, Helm and Redis, from what the toolchain builds; the app
   from its own Dockerfile; auto-instrumentation, at the versions of the operator's image, and Locust from
   PyPI; busybox and HAProxy from Debian.
3. The public registry that the name says, where this machine reaches it.
4. A stand-in, which the run names. The programs of cert-manager and of the operator have one only below the stand-in of
   their chart, whose image says so by its name (``standin/``).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Protocol

import httpx

from scripts import mirror
from tests.e2e import toolchain
from tests.e2e.cluster.images import Image, Layer, address, full_name, program, push_archive
from tests.e2e.cluster.node import run
from tests.e2e.datapath.declared import Declared
from tests.e2e.gitops.registry import Registry
from tests.e2e.toolchain import module_dir, tool
from tests.platforms import ROOT

SUITE = "trixie"  # Debian's release: Python is of the minor version that the app's Dockerfile names
_PACKAGES = "busybox-static,ca-certificates,git,gpg,gpg-agent,haproxy,python3-venv,redis-server,tini"
_PYTHON = "3.13"
_ARGOCD = (
    *("application-controller", "applicationset-controller", "cmp-server", "commit-server", "dex", "k8s-auth"),
    *("notifications", "repo-server", "server"),
)
# How this machine reaches PyPI, where its environment says so.
_PIP = ("PIP_CONFIG_FILE", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL", "PIP_PROXY", "PIP_TRUSTED_HOST")
STANDINS = ("grafana", "k8s-sidecar", "loki", "tempo")
OF_CHARTS = ("standin/cert-manager", "standin/opentelemetry-operator")


def system() -> Path:
    """Return a minimal Debian as an image layer (a tar archive) with what the images built here need."""

    def make(out: Path) -> None:
        if lacks := [program for program in ("buildah", "debootstrap") if not shutil.which(program)]:
            raise toolchain.ToolchainError(
                f"images are built with what is not on PATH: apt-get install {' '.join(lacks)}"
            )
        root = out / "root"
        run("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", SUITE, root)
        # As the official Python image has it, and as its users call it.
        (root / "usr/bin/python").symlink_to("python3")
        left_out = ("./dev/*", "./proc/*", "./sys/*", "./var/cache/*", "./var/lib/apt/lists/*", "./usr/share/doc/*")
        exclude = [f"--exclude={it}" for it in left_out]
        run("tar", "-C", root, "--sort=name", "-cf", out / "layer.tar", *exclude, ".")
        shutil.copy(root / "usr/bin/busybox", out)
        shutil.rmtree(root)

    name = f"debian-{SUITE}-{hashlib.sha256(_PACKAGES.encode()).hexdigest()[:12]}"
    return toolchain.made(name, f"a minimal Debian {SUITE} (2-4 min)", make)


def packages(name: str, *requirements: str) -> Path:
    """Return a folder with these Python packages (arguments of pip), for the Python of ``system``."""

    def make(out: Path) -> None:
        target = ["--target", str(out), "--python-version", _PYTHON, "--only-binary=:all:"]
        for platform in ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any"):
            target += ["--platform", platform]
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        run(*pip, *target, *requirements)

    text = "\n".join(Path(item).read_text() if Path(item).is_file() else item for item in requirements)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return toolchain.made(f"packages-{name}-{digest}", f"the Python packages of {name} (under 1 min)", make)


@cache
def reachable(host: str) -> bool:
    """Return whether this machine reaches a public registry."""
    try:
        return httpx.get(f"https://{host}/v2/", timeout=5).status_code in (200, 401)
    except httpx.HTTPError:
        return False


class Pushed(Protocol):
    """An image that is made while it is pushed."""

    def push(self, registry: Registry, name: str) -> None:
        """Make the image and push it under the name that a manifest asks for."""


@dataclass
class Sources:
    """The images of one bake; ``found`` says afterwards where each came from."""

    platform: Path
    registry: Registry
    found: dict[str, str] = field(default_factory=dict)

    def provide(self, names: Iterable[str]) -> None:
        """Push every one of these images to the registry, under the name that the manifests ask for."""
        archives, builders = self._archives(), self._builders()
        for name in sorted(set(names)):
            # Below a mirror, an image keeps the path that it has at its publisher.
            path = full_name(name).split("/", 1)[1].removeprefix("mirror/")
            short = path.rsplit(":", 1)[0].rsplit("/", 1)[-1]
            if archive := archives.get(path):
                push_archive(self.registry, archive, name)
                self.found[name] = "archive"
            elif short in builders:
                builders[short]().push(self.registry, name)
                self.found[name] = "built here"
            elif self._copied(path, name):
                self.found[name] = "public registry"
            elif short in STANDINS or path.rsplit(":", 1)[0] in OF_CHARTS:
                standin(short).push(self.registry, name)
                self.found[name] = "stand-in"
            else:
                self.found[name] = "nowhere"

    def of(self, source: str) -> list[str]:
        """Return the names of the images from one source: archive, built here, public registry, stand-in or nowhere."""
        return sorted(name for name, found in self.found.items() if found == source)

    def _archives(self) -> dict[str, Path]:
        """Return the archives of ``E2E_IMAGES`` by the image's path at its publisher, tag included."""
        folder = os.environ.get("E2E_IMAGES")
        found = {}
        for file in sorted(Path(folder).glob("*.tar")) if folder else []:
            with tarfile.open(file) as archive:
                manifest = archive.extractfile("manifest.json")
                assert manifest, file
                for tag in json.load(manifest)[0]["RepoTags"]:
                    found[full_name(tag).split("/", 1)[1]] = file
        return found

    def _copied(self, path: str, name: str) -> bool:
        """Copy an image from where it is published; return whether that could be reached and has it."""
        publishers = mirror.publishers(self.platform)["images"]
        host = publishers.get(path.split("/")[0])
        if not host or not reachable(host):
            return False
        copy = (tool("crane"), "copy", "--platform=linux/amd64")
        try:
            run(*copy, f"{host}/{path}", address(self.registry, name), env=self.registry.trust)
        except RuntimeError:
            return False
        return True

    def _builders(self) -> dict[str, Callable[[], Pushed]]:
        return {
            "alertmanager": lambda: program(tool("alertmanager"), user="65534"),
            "argocd": self._argocd,
            "autoinstrumentation-python": self._instrumentation,
            "busybox": busybox,
            "checkout-simulator": lambda: AppImage(self.platform / "app"),
            "haproxy": haproxy,
            "locust": self._locust,
            "opentelemetry-collector-k8s": self._collector,
            "redis": redis,
            "thanos": lambda: program(tool("thanos"), user="1001"),
        }

    def _argocd(self) -> Image:
        source = module_dir("argocd")

        def fill(layer: Layer) -> None:
            layer.folder("/app/config")
            for name in ("ssh", "tls", "gpg/source", "gpg/keys"):
                layer.folder(f"/app/config/{name}", 0o755, 999)
            layer.folder("/home/argocd", 0o775, 999)
            layer.add(tool("argocd"), "/usr/local/bin/argocd")
            layer.add(tool("helm"), "/usr/local/bin/helm")
            for name in _ARGOCD:
                layer.link(f"/usr/local/bin/argocd-{name}", "/usr/local/bin/argocd")
            for file in ("hack/gpg-wrapper.sh", "hack/git-verify-wrapper.sh", "entrypoint.sh"):
                layer.write(f"/usr/local/bin/{Path(file).name}", (source / file).read_bytes(), 0o755)
            layer.write("/app/config/ssh/ssh_known_hosts", "")
            layer.write("/etc/passwd", _USERS)
            # It trusts the registry on this machine beside the public ones: the one thing that the real image has not.
            layer.write("/etc/ssl/certs/ca-certificates.crt", self.registry.authority.read_bytes())

        base = system() / "layer.tar"
        env = {"USER": "argocd", "HOME": "/home/argocd"}
        entry = ["/usr/local/bin/entrypoint.sh"]
        return Image(fill, entry, user="999", env=env, folder="/home/argocd", base=base)

    def _collector(self) -> Image:
        declared = Declared(self.platform)
        return program(toolchain.collector(declared.collector(), declared.scraper()), user="10001")

    def _instrumentation(self) -> Image:
        pins = ROOT / "tests/e2e/datapath/requirements-operator.txt"
        folder = packages("instrumentation", "-r", str(pins))

        def fill(layer: Layer) -> None:
            _busybox(layer)
            layer.add(folder, "/autoinstrumentation")

        return Image(fill, user="65532")

    def _locust(self) -> Image:
        values = (self.platform / "platform-apps/load-generator/values.yaml").read_text()
        version = values.split("locust:", 1)[1].split()[0]
        folder = packages("locust", f"locust=={version}")
        env = {"PYTHONPATH": "/opt/locust"}
        entry = ["python3", "-m", "locust"]
        fill: Callable[[Layer], None] = lambda layer: layer.add(folder, "/opt/locust")  # noqa: E731
        return Image(fill, entry, user="1000", env=env, base=system() / "layer.tar")


@dataclass(frozen=True)
class AppImage:
    """The app's own image, from its own Dockerfile."""

    app: Path

    def push(self, registry: Registry, name: str) -> None:
        """Build it, unless the same sources were built before on this machine, and push it."""
        files = [path for path in sorted(self.app.rglob("*")) if path.is_file()]
        text = "".join(
            f"{path.relative_to(self.app)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files
        )
        digest = hashlib.sha256(f"{system()} {text}".encode()).hexdigest()[:12]
        push_archive(registry, toolchain.made(f"app-{digest}", "the app's image (under 1 min)", self._build), name)

    def _build(self, out: Path) -> None:
        """Build it with buildah, which needs no daemon, on the Debian of ``system``."""
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            base = folder / "base"

            def fill(layer: Layer) -> None:
                # The build reaches PyPI as this machine does.
                for file in ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt"):
                    if Path(file).is_file():
                        layer.add(Path(file), file)

            Image(fill, base=system() / "layer.tar").write(base)
            policy = folder / "policy.json"
            policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
            store = ("--root", folder / "store", "--runroot", folder / "run", "--storage-driver", "overlay")
            build = ("--isolation", "chroot", "--network", "host", "--pull-never", "--signature-policy", policy)
            settings = [f"--env={key}={value}" for key, value in os.environ.items() if key in _PIP]
            base_image = f"--build-arg=PYTHON_IMAGE=oci:{base}"
            run("buildah", *store, "bud", *build, base_image, *settings, "--tag", "app", self.app)
            run("buildah", *store, "push", "--signature-policy", policy, "app", f"oci:{out}")


_USERS = "root:x:0:0:root:/root:/bin/bash\nargocd:x:999:999::/home/argocd:/bin/sh\n"


def haproxy() -> Image:
    """Return an image of HAProxy, which finds its configuration where the official image has it."""
    entry = ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
    # Debian's programs for servers are not on the path of `Image`.
    fill: Callable[[Layer], None] = lambda layer: layer.link("/usr/local/bin/haproxy", "/usr/sbin/haproxy")  # noqa: E731
    return Image(fill, entry, user="99", base=system() / "layer.tar")


def redis() -> Image:
    """Return an image of Redis, which is a sentinel by that name."""
    fill: Callable[[Layer], None] = lambda layer: layer.link("/usr/bin/redis-sentinel", "redis-server")  # noqa: E731
    return Image(fill, ["redis-server"], user="999", base=system() / "layer.tar")


def busybox() -> Image:
    """Return an image of busybox."""
    return Image(_busybox, ["/bin/sh"])


def _busybox(layer: Layer) -> None:
    layer.folder("/tmp", 0o1777)
    layer.add(system() / "busybox", "/bin/busybox")
    for name in ("cat", "chmod", "chown", "cp", "ls", "mkdir", "rm", "sh", "sleep", "test", "wget", "nc", "true"):
        layer.link(f"/bin/{name}", "/bin/busybox")


def standin(name: str) -> Image:
    """Return an image whose program stands in for the real one."""
    if name == "cert-manager":  # nothing asks it for a certificate
        return program(tool("policy-agent", "pause"))
    pins = (ROOT / "requirements-e2e.txt").read_text().splitlines()
    wanted = ("googleapis-common-protos", "grpcio", "opentelemetry-proto", "protobuf", "typing-extensions")
    folder = packages("standin", "httpx", *(line.split(" ;")[0] for line in pins if line.startswith(wanted)))

    def fill(layer: Layer) -> None:
        layer.add(folder, "/opt/packages")
        for module in (
            "__init__.py",
            "e2e/__init__.py",
            "e2e/processes.py",
            "e2e/cluster/__init__.py",
            "e2e/cluster/operator.py",
            "e2e/cluster/standin.py",
            "e2e/datapath/__init__.py",
            "e2e/datapath/stores.py",
        ):
            layer.add(ROOT / "tests" / module, f"/opt/standin/tests/{module}")

    operator = name == "opentelemetry-operator"
    entry = ["python3", "-m", *(["tests.e2e.cluster.operator"] if operator else ["tests.e2e.cluster.standin", name])]
    env = {"PYTHONPATH": "/opt/standin:/opt/packages", "PYTHONDONTWRITEBYTECODE": "1"}
    return Image(fill, entry, user="65532", env=env, base=system() / "layer.tar")
