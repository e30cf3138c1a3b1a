"""Container images written from scratch, without a daemon, and pushed to the registry on this machine."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import ssl
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.cluster.node import run
from tests.e2e.gitops.registry import Registry
from tests.e2e.toolchain import tool

_OCI = "application/vnd.oci.image"


def push_archive(registry: Registry, archive: Path, name: str) -> None:
    """Push an archive (docker's format) or a folder (OCI layout) under the name that a manifest asks for."""
    run(tool("crane"), "push", archive, address(registry, name), env=registry.trust)


def share(registry: Registry, name: str, base: Path) -> None:
    """Let an image that is about to be pushed have a layer of an earlier one, which need not be sent again then."""
    repository = address(registry, name).removeprefix(f"{registry.host}/").rpartition(":")[0]
    source = _shared.setdefault((registry.host, base), repository)
    if source != repository:
        trust = ssl.create_default_context(cafile=registry.authority)
        query = {"mount": f"sha256:{_digest(base)}", "from": source}
        url = f"https://{registry.host}/v2/{repository}/blobs/uploads/"
        answer = httpx.post(url, params=query, verify=trust, trust_env=False)
        assert answer.status_code == 201, f"{source} has no {base}: {answer.status_code} {answer.text}"


_shared: dict[tuple[str, Path], str] = {}  # the first repository of a registry that a layer was pushed to


def address(registry: Registry, name: str) -> str:
    """Return where in the registry a node looks for an image."""
    full = full_name(name)
    return full if full.startswith(f"{registry.host}/") else f"{registry.host}/{full}"


def full_name(name: str) -> str:
    """Return an image's name with its registry, as a container runtime completes it."""
    first, _, rest = name.partition("/")
    if not rest:
        return f"docker.io/library/{name}"
    return name if "." in first or ":" in first or first == "localhost" else f"docker.io/{name}"


@dataclass
class Layer:
    """The files of an image's one layer, collected into a tar archive; everything belongs to root unless said otherwise."""

    archive: tarfile.TarFile
    made: set[str] = field(default_factory=set)

    def folder(self, path: str, mode: int = 0o755, owner: int = 0) -> None:
        """Add a folder, and those above it."""
        path = path.strip("/")
        if not path or path in self.made:
            return
        self.folder(path.rpartition("/")[0])
        self.made.add(path)
        entry = tarfile.TarInfo(path)
        entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, owner, owner
        self.archive.addfile(entry)

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Add a file of this content."""
        data = content.encode() if isinstance(content, str) else content
        self.folder(path.rpartition("/")[0])
        entry = tarfile.TarInfo(path.lstrip("/"))
        entry.size, entry.mode = len(data), mode
        self.archive.addfile(entry, io.BytesIO(data))

    def link(self, path: str, to: str) -> None:
        """Add a symbolic link."""
        self.folder(path.rpartition("/")[0])
        entry = tarfile.TarInfo(path.lstrip("/"))
        entry.type, entry.linkname = tarfile.SYMTYPE, to
        self.archive.addfile(entry)

    def add(self, source: Path, path: str) -> None:
        """Add a file (what a link points at), or a folder with all below it."""
        if not source.is_dir():
            self.write(path, source.read_bytes(), source.stat().st_mode & 0o777)
            return
        self.folder(path)
        for child in sorted(source.iterdir()):
            if child.is_symlink() and not child.readlink().is_absolute():
                self.link(f"{path}/{child.name}", str(child.readlink()))
            else:
                self.add(child, f"{path}/{child.name}")


@dataclass(frozen=True)
class Image:
    """An image to write: ``fill`` adds its files on top of ``base`` (a layer), the rest is its configuration."""

    fill: Callable[[Layer], None]
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    user: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    folder: str = "/"
    base: Path | None = None

    def push(self, registry: Registry, name: str) -> None:
        """Write the image and push it under the name that a manifest asks for."""
        with tempfile.TemporaryDirectory() as scratch:
            self.write(Path(scratch))
            if self.base:
                share(registry, name, self.base)
            push_archive(registry, Path(scratch), name)

    def write(self, out: Path) -> None:
        """Write the image into ``out`` as an OCI layout."""
        blobs = out / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        with tarfile.open(blobs / "layer", "w", format=tarfile.GNU_FORMAT) as archive:
            self.fill(Layer(archive))
        layers = [_named(blobs / "layer")]
        if self.base:
            try:
                os.link(self.base, blobs / _digest(self.base))
            except OSError:  # another file system
                shutil.copyfile(self.base, blobs / _digest(self.base))
            layers.insert(0, {"digest": f"sha256:{_digest(self.base)}", "size": self.base.stat().st_size})
        config = {
            "User": self.user,
            "Env": [f"{key}={value}" for key, value in {"PATH": "/usr/local/bin:/usr/bin:/bin", **self.env}.items()],
            "Entrypoint": list(self.entrypoint) or None,
            "Cmd": list(self.command) or None,
            "WorkingDir": self.folder,
        }
        root = {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}
        about = {"architecture": "amd64", "os": "linux", "config": config, "rootfs": root}
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": {"mediaType": f"{_OCI}.config.v1+json", **_blob(blobs, about)},
            "layers": [{"mediaType": f"{_OCI}.layer.v1.tar", **layer} for layer in layers],
        }
        entry = {"mediaType": f"{_OCI}.manifest.v1+json", **_blob(blobs, manifest)}
        (out / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        (out / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def program(path: Path, *, user: str = "65532:65532", more: Callable[[Layer], None] = lambda layer: None) -> Image:
    """Return an image of one static program."""

    def fill(layer: Layer) -> None:
        layer.folder("/tmp", 0o1777)
        layer.add(path, f"/bin/{path.name}")
        more(layer)

    return Image(fill, [f"/bin/{path.name}"], user=user)


def _blob(blobs: Path, content: object) -> dict[str, Any]:
    (blobs / "new").write_text(json.dumps(content))
    return _named(blobs / "new")


def _named(file: Path) -> dict[str, Any]:
    digest, size = _sha256(file), file.stat().st_size
    file.rename(file.with_name(digest))
    return {"digest": f"sha256:{digest}", "size": size}


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


_digest = cache(_sha256)  # of files that stay as they are
