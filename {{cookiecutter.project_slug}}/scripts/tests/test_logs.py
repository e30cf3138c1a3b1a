"""Whose logs a name stands for, and how kubectl is asked for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.charts import ROOT
from scripts.facts import facts
from scripts.logs import UnknownError, command, workloads


def test_a_name_is_a_workload_or_all_that_a_folder_describes() -> None:
    assert list(workloads(ROOT, "local", "thanos-query-frontend")) == ["thanos-query-frontend"]
    assert list(workloads(ROOT, "local", "thanos-receive")) == ["thanos-receive-ingestor", "thanos-receive-router"]


def test_without_a_name_it_is_every_app() -> None:
    apps = {app["workload"] for app in facts(ROOT, "local")["apps"].values()}
    assert set(workloads(ROOT, "local", "")) == apps


@pytest.mark.parametrize("name", ["nobody", "network-policies"])
def test_what_has_no_pods_is_refused_with_the_names_that_have(name: str) -> None:
    with pytest.raises(UnknownError, match=f"'{name}' has no pods; APP= one of: .*grafana"):
        workloads(ROOT, "local", name)


def test_a_repository_without_an_app_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnknownError, match="there is no app here"):
        workloads(tmp_path, "local", "")


def test_kubectl_is_asked_for_every_pod_of_the_workload() -> None:
    words = command({"namespace": "observability", "podLabels": {"a": "1", "b": "2"}}, "prod", 5)
    assert words[:4] == ["kubectl", "--context", "prod", "--namespace"]
    assert {"--selector=a=1,b=2", "--follow", "--tail=5"} <= set(words)
    # A workload without labels is its whole namespace.
    assert "--selector=!batch.kubernetes.io/job-name" in command({"namespace": "cert-manager"}, None, 5)
