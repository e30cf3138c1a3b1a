"""The versions that a platform runs, read from the files of the template that pin them: each is written down there alone."""

from __future__ import annotations

import re
from functools import cache

from tests.platforms import ROOT

SOURCES = ROOT / "{{cookiecutter.project_slug}}"
# What runs: the files that say its version, and what precedes it there.
_PINS = {
    "argocd": ("terraform/modules/argocd-server/values.yaml", r"quay\.io/argoproj/argocd, tag: v"),
    "alertmanager": ("platform-apps/alertmanager/values.yaml", r"/prometheus/alertmanager, tag: v"),
    "thanos": ("platform-apps/thanos-*/values.yaml", r"/thanos/thanos, tag: v"),
    "collector": ("platform-apps/otel-collector/values.yaml", r"/opentelemetry-collector-k8s:"),
    "instrumentation": ("platform-apps/otel-instrumentation/values.yaml", r"/autoinstrumentation-python:"),
    "sealed-secrets": ("platform-apps/sealed-secrets/values.yaml", r"sealed-secrets-controller\n\s*tag: "),
    "helm": (".github/workflows/*.yml", r"depName=helm/helm\n\s*version: v"),
    "kubernetes": ("scripts/**/*.py", r'(?m)^KUBERNETES = "'),
}


@cache
def pinned(name: str) -> str:
    """Return the version of a part of the platform, without a leading ``v``.

    Raises:
        LookupError: no file says it, or two files say different ones.
    """
    files, before = _PINS[name]
    texts = {path.relative_to(SOURCES): path.read_text() for path in sorted(SOURCES.glob(files))}
    versions: set[str] = {
        version for text in texts.values() for version in re.findall(rf"{before}(\d+\.\d+[\w.]*)", text)
    }
    if len(versions) != 1:
        raise LookupError(f"{files}: one version of {name} expected, found {sorted(versions) or 'none'}")
    return versions.pop()
