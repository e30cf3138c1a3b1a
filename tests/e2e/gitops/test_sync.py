"""Every Application that Terraform makes of a bake reaches Synced and Healthy, and the team's project lets nothing else in."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from tests.e2e.gitops.argocd import NAMESPACE, ArgoCD, story
from tests.e2e.gitops.conftest import ANSWERS, bake_for
from tests.e2e.gitops.kube import Manifest
from tests.e2e.gitops.platform import Platform, git
from tests.e2e.gitops.registry import Registry
from tests.e2e.gitops.releases import releases
from tests.e2e.processes import wait_until
from tests.e2e.toolchain import tool

APPLICATIONS = "applications.argoproj.io"


def components(platform: Platform) -> dict[str, Manifest]:
    """Return the content of each application.yaml, by its folder's name."""
    return {
        path.parent.name: yaml.safe_load(path.read_text())
        for parent in ("platform-apps", "k8s/helm-charts")
        for path in (platform.folder / parent).glob("*/application.yaml")
    }


def test_each_component_folder_is_a_healthy_application(platform: Platform, synced: ArgoCD) -> None:
    assert synced.applications().keys() == components(platform).keys()


def test_applications_deploy_into_the_namespace_that_their_folder_names(platform: Platform, synced: ArgoCD) -> None:
    for name, component in components(platform).items():
        app = synced.applications()[name]
        assert app["spec"]["project"] != "default"
        assert app["spec"]["destination"]["namespace"] == component["namespace"]
        deployed = [r for r in app["status"]["resources"] if r.get("namespace")]
        assert deployed, f"{name} deploys nothing into a namespace"


POD_SECURITY = {
    **dict.fromkeys(("argocd", "cert-manager", "checkout", "observability"), "restricted"),
    "opentelemetry-operator-system": "restricted",
    "fluent-bit": "privileged",  # reads the nodes' log folder
}


def test_every_namespace_has_exactly_its_pod_security_level(platform: Platform, synced: ArgoCD) -> None:
    labels = {
        namespace["metadata"]["name"]: namespace["metadata"]["labels"]
        for namespace in platform.kube.list("namespaces", selector=f"app.kubernetes.io/part-of={platform.folder.name}")
    }
    for mode in ("enforce", "audit", "warn"):
        assert {name: its[f"pod-security.kubernetes.io/{mode}"] for name, its in labels.items()} == POD_SECURITY


def test_resources_are_applied_on_the_servers_side(platform: Platform, synced: ArgoCD) -> None:
    query = platform.kube.run(
        "get", "deployment", "thanos-query", "-n", "observability", "-o", "yaml", "--show-managed-fields"
    )
    owners = {(f["manager"], f["operation"]) for f in yaml.safe_load(query)["metadata"]["managedFields"]}
    assert ("argocd-controller", "Apply") in owners


def test_annotations_and_options_of_a_folder_reach_its_application(platform: Platform, synced: ArgoCD) -> None:
    for name, component in components(platform).items():
        app = synced.applications()[name]
        assert component.get("annotations", {}).items() <= app["metadata"]["annotations"].items()
        assert {*component.get("syncOptions", []), "ServerSideApply=true"} <= {
            *app["spec"]["syncPolicy"]["syncOptions"]
        }
        assert component.get("ignoreDifferences", []) == app["spec"].get("ignoreDifferences", [])


def test_every_source_is_on_this_machine(platform: Platform, synced: ArgoCD) -> None:
    """With the answer ``chart_registry`` nothing comes from anywhere else."""
    if not yaml.safe_load((platform.folder / "mirror.yaml").read_text())["registry"]:
        pytest.skip("a given cluster takes its charts from the public registries")
    for name, app in synced.applications().items():
        for source in app["spec"]["sources"]:
            assert source["repoURL"].startswith(("file://", platform.registry.host)), f"{name}: {source}"
    for path in platform.folder.glob("platform-apps/*/Chart.yaml"):
        for dependency in yaml.safe_load(path.read_text()).get("dependencies") or []:
            assert dependency["repository"].startswith(f"oci://{platform.registry.host}/"), path


Foreign = Callable[[str, Callable[[Manifest], object]], str]


@pytest.fixture
def foreign(platform: Platform, synced: ArgoCD) -> Iterator[Foreign]:
    """Return a function that makes an Application like the given one but for a change, and returns its name."""
    made: list[str] = []

    def make(like: str, change: Callable[[Manifest], object]) -> str:
        app = deepcopy(platform.application(like))
        app["metadata"] = {"name": f"foreign-{len(made)}", "namespace": NAMESPACE}
        change(app["spec"])
        platform.kube.apply([app])
        made.append(app["metadata"]["name"])
        return made[-1]

    yield make
    platform.kube.delete(APPLICATIONS, *made, namespace=NAMESPACE)


def test_project_refuses_a_foreign_repository(foreign: Foreign, synced: ArgoCD, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    name = foreign("tempo", lambda spec: spec["sources"][0].update(repoURL=f"file://{tmp_path}"))
    synced.wait_message(name, f"application repo file://{tmp_path} is not permitted in project")


@pytest.mark.parametrize("namespace", ["kube-system", "default", NAMESPACE])
def test_project_refuses_a_foreign_namespace(foreign: Foreign, synced: ArgoCD, namespace: str) -> None:
    name = foreign("tempo", lambda spec: spec["destination"].update(namespace=namespace))
    said = synced.wait_message(name, "do not match any of the allowed destinations in project")
    assert f"'{namespace}'" in said


@pytest.fixture
def committed_chart(platform: Platform) -> Iterator[Callable[[Manifest], str]]:
    """Return a function that commits a chart which renders one manifest, and returns the chart's folder."""
    folder = platform.folder / "platform-apps" / "e2e-foreign"

    def make(manifest: Manifest) -> str:
        (folder / "templates").mkdir(parents=True)
        (folder / "Chart.yaml").write_text("apiVersion: v2\nname: e2e-foreign\nversion: 0.1.0\n")
        (folder / "values.yaml").write_text("{}\n")
        (folder / "templates" / "it.yaml").write_text(yaml.safe_dump(manifest))
        platform.commit("A component that asks for too much")
        return folder.relative_to(platform.folder).as_posix()

    yield make
    git(platform.folder, "revert", "--no-edit", "HEAD")


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        pytest.param(
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {"name": "e2e-foreign"},
                "provisioner": "example.com/none",
            },
            "resource storage.k8s.io:StorageClass is not permitted in project",
            id="cluster-scoped kind",
        ),
        pytest.param(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": "e2e-foreign"},
            },
            "resource :Namespace is not permitted in project",
            id="namespace",
        ),
        pytest.param(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "e2e-foreign", "namespace": "kube-system"},
            },
            "namespace kube-system is not permitted in project",
            id="object in a foreign namespace",
        ),
    ],
)
def test_project_refuses_what_a_chart_must_not_render(
    foreign: Foreign,
    synced: ArgoCD,
    committed_chart: Callable[[Manifest], str],
    platform: Platform,
    manifest: Manifest,
    message: str,
) -> None:
    path = committed_chart(manifest)
    name = foreign("tempo", lambda spec: spec.update(sources=[{**spec["sources"][0], "path": path}]))
    synced.wait_message(name, message)
    about = manifest["metadata"]
    assert platform.kube.get(manifest["kind"], about["name"], about.get("namespace")) is None


def test_flask_app_comes_from_an_oci_registry_too(
    platform: Platform, synced: ArgoCD, mirror: Registry, tmp_path: Path
) -> None:
    """The bake with ``flask_app_source: oci`` differs in that Application and in the project; both go on top, then back."""
    in_git = [r for r in platform.releases() if r.name in ("argocd-project-checkout", "argocd-app-flask-app")]
    assert len(in_git) == 2
    other = bake_for(tmp_path, mirror, **ANSWERS, flask_app_source="oci")
    package: list[str | Path] = [
        tool("helm"),
        "package",
        other / "k8s/helm-charts/flask-app",
        "--destination",
        tmp_path,
    ]
    subprocess.run(package, check=True, capture_output=True)
    mirror.push_chart(tmp_path / "flask-app-0.1.0.tgz", "acme")
    in_oci = [
        release
        for release in releases(other, "local", working_copy="", repo_url=f"file://{platform.folder}", kube_context="")
        if release.name in {r.name for r in in_git}
    ]
    try:
        platform.install(in_oci)
        synced.refresh("flask-app")  # the Application may have been looked at before its project
        app = wait_until(lambda: _synced_from(synced, f"{mirror.host}/acme"), "synced from OCI", 90, interval=0.5)
        assert app["status"]["sync"]["revisions"][0] == "0.1.0"
    finally:
        platform.install(in_git)
        synced.refresh("flask-app")
        wait_until(lambda: _synced_from(synced, f"file://{platform.folder}"), "synced from git again", 90, interval=0.5)


def _synced_from(argocd: ArgoCD, repository: str) -> Manifest | None:
    app = argocd.application("flask-app")
    assert app
    compared = app["status"]["sync"]["comparedTo"]["sources"][0]["repoURL"]
    assert compared == repository, story(app)
    assert (app["status"]["sync"]["status"], app["status"]["health"]["status"]) == ("Synced", "Healthy"), story(app)
    return app
