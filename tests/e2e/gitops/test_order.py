"""No pod of the app exists before the Instrumentation resource, also when the operator comes long after the app."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.gitops.argocd import ArgoCD, argocd
from tests.e2e.gitops.conftest import bake_for
from tests.e2e.gitops.control_plane import control_plane
from tests.e2e.gitops.controllers import controllers
from tests.e2e.gitops.kube import Kube, Manifest
from tests.e2e.gitops.platform import Platform
from tests.e2e.gitops.registry import Registry
from tests.e2e.processes import wait_until
from tests.e2e.toolchain import tool

INSTRUMENTATION = "instrumentations.opentelemetry.io"
TEAM = "checkout"


@pytest.fixture
def empty(tmp_path: Path, mirror: Registry) -> Iterator[Platform]:
    """A platform with its project and Argo CD, and no Application yet, on a control plane of its own."""
    (tmp_path / "control-plane").mkdir()
    with control_plane(tmp_path / "control-plane") as kube:
        folder = bake_for(tmp_path / "platform", mirror)
        platform = Platform(folder, "local", kube, mirror)
        platform.install([r for r in platform.releases() if not r.name.startswith("argocd-app-")])
        with argocd(tmp_path / "argocd", kube, mirror.trust) as running, controllers(kube):
            platform.argocd = running
            yield platform


@contextmanager
def created_pods(kube: Kube, namespace: str, log: Path) -> Iterator[Callable[[], list[int]]]:
    """Watch a namespace's pods; yields a function that returns the revision at which each was created, in order."""
    command: list[str | Path] = [
        tool("kubernetes", "kubectl"),
        "--kubeconfig",
        kube.kubeconfig,
        "get",
        "pods",
        "-n",
        namespace,
    ]
    command += ["--watch", "--output-watch-events", "-o", "json"]
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as watch:

        def revisions() -> list[int]:
            decoder, text, created = json.JSONDecoder(), log.read_text().lstrip(), []
            while text.startswith("{"):
                try:
                    event, end = decoder.raw_decode(text)
                except json.JSONDecodeError:  # the last event is still being written
                    break
                if event["type"] == "ADDED":
                    created.append(int(event["object"]["metadata"]["resourceVersion"]))
                text = text[end:].lstrip()
            return created

        try:
            yield revisions
        finally:
            watch.terminate()


def compressed(app: Manifest) -> Manifest:
    """Return an Application that retries every two seconds, so that the test takes no minutes; nothing else changes."""
    app["spec"]["syncPolicy"]["retry"] |= {
        "limit": 100,
        "backoff": {"duration": "2s", "factor": 1, "maxDuration": "2s"},
    }
    return app


def retries(argo: ArgoCD, name: str) -> int:
    """Return how often Argo CD has tried an Application again."""
    return int((argo.application(name) or {}).get("status", {}).get("operationState", {}).get("retryCount", 0))


def test_pods_wait_for_the_instrumentation(empty: Platform, tmp_path: Path) -> None:
    argo = empty.argocd
    assert argo
    applications = {
        name: compressed(empty.application(name)) for name in ("flask-app", "otel-operator", "cert-manager")
    }
    with created_pods(empty.kube, TEAM, tmp_path / "pods.json") as created:
        empty.kube.apply([applications["flask-app"]])
        # The operator, and with it the kind Instrumentation, is not there yet: a few attempts fail.
        wait_until(lambda: retries(argo, "flask-app") >= 3, "Argo CD tries again", 90, interval=0.5)
        argo.wait_message("flask-app", "Instrumentation")  # while it tries again it has nothing to say for a moment
        assert empty.kube.get("deployment", "flask-app", TEAM) is None
        assert created() == []

        empty.kube.apply([applications["otel-operator"], applications["cert-manager"]])
        argo.wait_synced(*applications, timeout=180)
        instrumentation = empty.kube.get(INSTRUMENTATION, "python", TEAM)
        assert instrumentation
        assert instrumentation["metadata"]["generation"] == 1
        first = wait_until(created, "the app has pods")[0]
        # Revisions count every write to the API server: the smaller one came first.
        assert int(instrumentation["metadata"]["resourceVersion"]) < first


def test_pods_wait_for_the_operators_webhook(empty: Platform, tmp_path: Path) -> None:
    """The kind is there, but the operator's webhook does not answer yet: then a pod would not be instrumented either."""
    argo = empty.argocd
    assert argo
    operator, app = (compressed(empty.application(name)) for name in ("otel-operator", "flask-app"))
    silent = _silent_webhook()
    with created_pods(empty.kube, TEAM, tmp_path / "pods.json") as created:
        empty.kube.apply([operator])
        wait_until(lambda: empty.kube.known(INSTRUMENTATION), "the operator's CRD", 120, interval=0.5)
        empty.kube.apply([silent, app])
        argo.wait_message("flask-app", "failed calling webhook")
        wait_until(lambda: retries(argo, "flask-app") >= 2, "Argo CD tries again", 90, interval=0.5)
        assert created() == []

        empty.kube.delete(silent["kind"], silent["metadata"]["name"])
        argo.wait_synced("flask-app", timeout=90)
        assert wait_until(created, "the app has pods")


def _silent_webhook() -> Manifest:
    """Return the operator's webhook for Instrumentation as its chart registers it, at a Service that nobody is behind."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "opentelemetry-operator-mutation"},
        "webhooks": [
            {
                "name": "minstrumentation.kb.io",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "timeoutSeconds": 1,
                "clientConfig": {
                    "service": {
                        "name": "opentelemetry-operator-webhook",
                        "namespace": "opentelemetry-operator-system",
                        "path": "/mutate-opentelemetry-io-v1alpha1-instrumentation",
                    }
                },
                "rules": [
                    {
                        "apiGroups": ["opentelemetry.io"],
                        "apiVersions": ["v1alpha1"],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": ["instrumentations"],
                    }
                ],
            }
        ],
    }
