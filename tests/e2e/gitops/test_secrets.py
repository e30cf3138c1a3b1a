"""``make secrets`` on a real API server: it creates what is missing, changes nothing that is there, and prints no value."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
import yaml

from tests.e2e.gitops.kube import Kube
from tests.e2e.toolchain import tool
from tests.platforms import bake

NAMESPACE = "e2e-secrets"
NAME = "grafana-admin"
STRONG = re.compile(r"[A-Za-z0-9]{32}")


@dataclass(frozen=True)
class Bake:
    """A bake whose Secrets go to ``NAMESPACE``, which nothing else uses."""

    folder: Path
    kube: Kube

    def make_secrets(self, environment: str = "local", **env: str) -> subprocess.CompletedProcess[str]:
        """Run what ``make secrets`` runs."""
        programs = [tool("kubernetes", "kubectl").parent, tool("kubeseal").parent]
        given = {
            **os.environ,
            "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
            "KUBECONFIG": str(self.kube.kubeconfig),
            "KUBE_CONTEXT": self.kube.run("config", "current-context").strip(),
            **env,
        }
        command: list[str | Path] = ["bash", self.folder / "scripts" / "secrets.sh", environment]
        return subprocess.run(command, check=False, env=given, capture_output=True, text=True, timeout=120)

    def secret(self) -> dict[str, str] | None:
        """Return the Secret's content."""
        secret = self.kube.get("secret", NAME, NAMESPACE)
        return decoded(secret["data"]) if secret else None


def decoded(data: dict[str, str]) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


@pytest.fixture
def made(cluster: Kube, tmp_path: Path) -> Callable[[str], Bake]:
    """Return a function that bakes a platform with a secrets backend."""

    def make(backend: str) -> Bake:
        folder = bake({"secrets_backend": backend}, tmp_path / backend)
        script = folder / "scripts" / "secrets.sh"
        text = script.read_text()
        assert f'"observability {NAME} ' in text
        script.write_text(text.replace(f'"observability {NAME} ', f'"{NAMESPACE} {NAME} '))
        return Bake(folder, cluster)

    return make


@pytest.fixture
def namespace(cluster: Kube) -> Iterator[None]:
    cluster.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}])
    yield
    cluster.delete("namespace", NAMESPACE)


@pytest.mark.usefixtures("namespace")
def test_makes_a_strong_secret_once_and_prints_no_value(made: Callable[[str], Bake]) -> None:
    bake = made("kubernetes")
    first = bake.make_secrets()
    assert not first.returncode, first.stderr
    secret = bake.secret()
    assert secret
    assert secret.keys() == {"admin-user", "admin-password"}
    assert secret["admin-user"] == "admin"
    assert STRONG.fullmatch(secret["admin-password"])
    assert f"{NAMESPACE}/{NAME}: created" in first.stdout

    second = bake.make_secrets()
    assert not second.returncode, second.stderr
    assert f"{NAMESPACE}/{NAME}: there" in second.stdout
    assert bake.secret() == secret
    assert secret["admin-password"] not in first.stdout + first.stderr + second.stdout + second.stderr

    bake.kube.delete("secret", NAME, namespace=NAMESPACE)
    assert not bake.make_secrets().returncode
    again = bake.secret()
    assert again
    assert again["admin-password"] != secret["admin-password"]


@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize("backend", ["kubernetes", "external-secrets", "sealed-secrets"])
def test_leaves_a_secret_of_the_team_alone(made: Callable[[str], Bake], cluster: Kube, backend: str) -> None:
    about = {"name": NAME, "namespace": NAMESPACE}
    cluster.apply([{"apiVersion": "v1", "kind": "Secret", "metadata": about, "stringData": {"admin-password": "ours"}}])
    bake = made(backend)
    for environment in ("local", "production"):
        done = bake.make_secrets(environment)
        assert not done.returncode, done.stderr
    assert bake.secret() == {"admin-password": "ours"}
    assert not list(bake.folder.glob("platform-apps/sealed-secrets/sealed/*/*.yaml"))


def test_says_what_to_do_where_the_namespace_is_missing(made: Callable[[str], Bake]) -> None:
    done = made("kubernetes").make_secrets("production")
    assert done.returncode == 1
    assert f"no namespace '{NAMESPACE}' yet" in done.stderr
    assert "make apply ENV=production" in done.stderr


def test_says_what_to_do_where_no_cluster_answers(made: Callable[[str], Bake], tmp_path: Path) -> None:
    nowhere = tmp_path / "kubeconfig"
    cluster = {"name": "off", "cluster": {"server": "https://127.0.0.1:9"}}
    context = {"name": "off", "context": {"cluster": "off", "user": ""}}
    nowhere.write_text(yaml.safe_dump({"clusters": [cluster], "contexts": [context]}))
    done = made("kubernetes").make_secrets(KUBECONFIG=str(nowhere), KUBE_CONTEXT="off")
    assert done.returncode == 1
    assert "No answer from the cluster (context 'off')" in done.stderr


@pytest.mark.usefixtures("namespace")
def test_leaves_it_to_external_secrets(made: Callable[[str], Bake]) -> None:
    bake = made("external-secrets")
    done = bake.make_secrets()
    assert not done.returncode, done.stderr
    assert "waits for its ExternalSecret" in done.stdout
    assert bake.secret() is None


@pytest.mark.usefixtures("namespace")
def test_seals_a_secret_for_production(made: Callable[[str], Bake], tmp_path: Path) -> None:
    """With the real kubeseal; no controller runs here, so its certificate comes from a file, which kubeseal offers."""
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    certificate, key = tmp_path / "sealing.crt", tmp_path / "sealing.key"
    authority.cert_pem.write_to_path(certificate)
    authority.private_key_pem.write_to_path(key)
    bake = made("sealed-secrets")
    first = bake.make_secrets("production", SEALED_SECRETS_CERT=str(certificate))
    assert not first.returncode, first.stderr
    assert bake.secret() is None, "what is sealed is delivered by Argo CD"

    file = bake.folder / "platform-apps" / "sealed-secrets" / "sealed" / "production" / f"{NAMESPACE}-{NAME}.yaml"
    sealed = file.read_text()
    about = yaml.safe_load(sealed)
    assert about["kind"] == "SealedSecret"
    assert about["metadata"]["namespace"] == NAMESPACE
    unseal: list[str | Path] = [tool("kubeseal"), "--recovery-unseal", "--recovery-private-key", key]
    opened = subprocess.run(unseal, check=True, input=sealed, capture_output=True, text=True)
    secret = decoded(json.loads(opened.stdout)["data"])
    assert secret["admin-user"] == "admin"
    assert STRONG.fullmatch(secret["admin-password"])
    assert secret["admin-password"] not in sealed + first.stdout + first.stderr

    second = bake.make_secrets("production", SEALED_SECRETS_CERT=str(certificate))
    assert not second.returncode, second.stderr
    assert file.read_text() == sealed


@pytest.mark.usefixtures("namespace")
def test_a_failed_sealing_leaves_no_file(made: Callable[[str], Bake], tmp_path: Path) -> None:
    bake = made("sealed-secrets")
    done = bake.make_secrets("production", SEALED_SECRETS_CERT=str(tmp_path / "missing.crt"))
    assert done.returncode
    assert "missing.crt" in done.stderr
    assert not list(bake.folder.glob("platform-apps/sealed-secrets/sealed/*/*.yaml"))
    assert bake.make_secrets("local").returncode == 0
    assert bake.secret(), "a laptop's cluster gets the Secret itself"
