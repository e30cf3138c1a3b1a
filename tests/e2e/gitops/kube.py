"""What the tests ask of a cluster, through kubectl, so that any kubeconfig will do."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.toolchain import tool

Manifest = dict[str, Any]


class Refused(AssertionError):
    """The API server (or kubectl) said no; the message is what it said."""


@dataclass(frozen=True)
class Kube:
    """A cluster, by its kubeconfig."""

    kubeconfig: Path

    def run(self, *args: str | Path, stdin: str | None = None) -> str:
        """Run kubectl and return what it printed.

        Raises:
            Refused: kubectl failed.
        """
        command = [
            str(tool("kubernetes", "kubectl")),
            "--kubeconfig",
            str(self.kubeconfig),
            *map(str, args),
        ]
        done = subprocess.run(command, check=False, input=stdin, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise Refused(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def get(self, kind: str, name: str, namespace: str | None = None) -> Manifest | None:
        """Return one object, or None where it (or its kind) does not exist."""
        try:
            text = self.run("get", kind, name, *_in(namespace), "-o", "json", "--ignore-not-found")
        except Refused as refused:
            if "the server doesn't have a resource type" in str(refused):
                return None
            raise
        return json.loads(text) if text.strip() else None

    def known(self, *kinds: str) -> list[str]:
        """Return those of ``kinds`` (plural.group) that the cluster serves."""
        served = set(self.run("api-resources", "--no-headers", "-o", "name", "--cached=false").split())
        return [kind for kind in kinds if kind in served]

    def list(self, kind: str, namespace: str | None = None, selector: str = "") -> list[Manifest]:
        """Return the objects of a kind, in one namespace or in all; none where the kind does not exist."""
        where = _in(namespace) or ["--all-namespaces"]
        try:
            text = self.run(
                "get",
                kind,
                *where,
                "-o",
                "json",
                *(["-l", selector] if selector else []),
            )
        except Refused as refused:
            if "the server doesn't have a resource type" in str(refused):
                return []
            raise
        return list(json.loads(text)["items"])

    def apply(self, manifests: Iterable[Manifest], *flags: str) -> str:
        """Apply manifests on the server's side, taking over fields that others own."""
        text = yaml.safe_dump_all(manifests)
        return self.run("apply", "--server-side", "--force-conflicts", *flags, "-f", "-", stdin=text)

    def patch(
        self,
        kind: str,
        name: str,
        namespace: str | None,
        change: object,
        how: str = "merge",
        subresource: str = "",
    ) -> None:
        """Patch one object by a JSON-able change (``how``: merge, strategic or json)."""
        more = [f"--subresource={subresource}"] if subresource else []
        self.run(
            "patch",
            kind,
            name,
            *_in(namespace),
            "--type",
            how,
            "-p",
            json.dumps(change),
            *more,
        )

    def delete(self, kind: str, *names: str, namespace: str | None = None, wait: bool = True) -> None:
        """Delete objects; those that are gone already do not matter."""
        self.run(
            "delete",
            kind,
            *names,
            *_in(namespace),
            "--ignore-not-found",
            f"--wait={str(wait).lower()}",
            "--timeout=90s",
        )


def _in(namespace: str | None) -> list[str]:
    return ["-n", namespace] if namespace else []
