"""What production on other people's clusters stumbled over: each of these was seen, or found in an upstream issue."""

from __future__ import annotations

import base64
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.facts import facts
from tests import charts, finders, platforms
from tests.platforms import Baked

UPSTREAM = Path(os.environ["UPSTREAM_CHARTS"]) if "UPSTREAM_CHARTS" in os.environ else None
needs_charts = pytest.mark.skipif(not UPSTREAM, reason="UPSTREAM_CHARTS is not set: upstream charts are not rendered")
MIB = {"MiB": 1, "Mi": 1, "Gi": 1024}


def component(
    platform: Path, name: str, environment: str = "production", upstream: Path | None = None
) -> list[dict[str, Any]]:
    return charts.render(platform / "platform-apps" / name, environment, upstream)


def one(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (match,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    return match


def mebibytes(quantity: str) -> float:
    number = quantity.rstrip("MiGB")
    return float(number) * MIB[quantity.removeprefix(number)]


def leaves(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield path and value of everything in nested mappings that is no mapping."""
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from leaves(value, (*path, str(key)))
    else:
        yield path, values


def configurations(objects: list[dict[str, Any]]) -> str:
    """What ConfigMaps and Secrets hold, as text."""
    plain = [text for each in objects if each["kind"] == "ConfigMap" for text in each["data"].values()]
    coded = [text for each in objects if each["kind"] == "Secret" for text in each["data"].values()]
    return "\n".join([*plain, *(base64.b64decode(text).decode() for text in coded)])


@pytest.mark.parametrize("answers", ["default", "everything"])
def test_overlays_repeat_nothing(platform: Baked, answers: str) -> None:
    """A value in an overlay that the values below it have already would only seem to be a difference."""
    root = platform(answers)
    overlays = [path for path in platforms.files(root) if path.name == "values-production.yaml"]
    assert len(overlays) > 10
    repeated = []
    for overlay in overlays:
        below = overlay.with_name("values.yaml")
        base = dict(leaves(yaml.safe_load(below.read_text()) or {})) if below.is_file() else {}
        for key, value in leaves(yaml.safe_load(overlay.read_text()) or {}):
            if base.get(key, ...) == value:
                repeated.append(f"{overlay.relative_to(root)}: {'.'.join(key)}")
    assert not repeated, "\n".join(repeated)


def test_a_load_that_is_off_is_no_pod_and_not_no_object(platform: Baked) -> None:
    """Argo CD does not empty an Application by itself: after a game day the shoppers would stay."""
    on, off = (component(platform("default"), "load-generator", name) for name in charts.ENVIRONMENTS)
    assert {(each["kind"], each["metadata"]["name"]) for each in off} == {
        (each["kind"], each["metadata"]["name"]) for each in on
    }
    replicas = [one(each, "Deployment", "load-generator")["spec"]["replicas"] for each in (on, off)]
    assert replicas == [1, 0]


def test_the_load_waits_for_the_app(platform: Baked) -> None:
    pod = one(component(platform("default"), "load-generator", "local"), "Deployment", "load-generator")["spec"]
    (first,) = pod["template"]["spec"]["initContainers"]
    assert first["command"][-1] == "http://flask-app/readyz"


@needs_charts
def test_fluent_bit_s_priority_is_the_platform_s_own(platform: Baked) -> None:
    """GKE starts a pod of a system class outside kube-system only below a ResourceQuota, which no component may bring."""
    made = component(platform("everything"), "fluent-bit", upstream=UPSTREAM)
    (pods,) = [each for each in made if each["kind"] == "DaemonSet"]
    ours = one(made, "PriorityClass", pods["spec"]["template"]["spec"]["priorityClassName"])
    assert not ours["metadata"]["name"].startswith("system-")


@needs_charts
def test_webhooks_answer_on_the_port_that_private_clusters_leave_open(platform: Baked) -> None:
    for name, argument in (("otel-operator", "--webhook-port=10250"), ("cert-manager", "--secure-port=10250")):
        arguments = list(finders.deep(component(platform("default"), name, upstream=UPSTREAM), "args"))
        assert argument in arguments, name
    policy = one(component(platform("default"), "network-policies"), "NetworkPolicy", "otel-operator")
    assert 10250 in list(finders.deep(policy, "ingress", "ports", "port"))


@pytest.mark.parametrize("environment", charts.ENVIRONMENTS)
def test_a_pod_that_got_no_sdk_is_refused(platform: Baked, environment: str) -> None:
    """The operator's own webhook lets it through when it does not answer."""
    objects = component(platform("default"), "otel-operator", environment)
    policy = one(objects, "ValidatingAdmissionPolicy", "opentelemetry-injection")
    binding = one(objects, "ValidatingAdmissionPolicyBinding", "opentelemetry-injection")
    assert binding["spec"] == {"policyName": policy["metadata"]["name"], "validationActions": ["Deny"]}
    app = one(charts.render(platform("default") / "k8s/helm-charts/flask-app", environment), "Deployment", "flask-app")
    (asked,) = [key for key in app["spec"]["template"]["metadata"]["annotations"] if "/inject-" in key]
    prefix, language = asked.rsplit("-", 1)
    (condition,) = policy["spec"]["matchConditions"]
    assert f'"{prefix}-"' in condition["expression"]
    assert f'"{language}"' in condition["expression"]


def test_azure_key_vault_is_told_its_tenant(platform: Baked) -> None:
    store = one(component(platform("azure-azurerm-apache-2.0"), "external-secrets"), "ClusterSecretStore", "platform")
    assert store["spec"]["provider"]["azurekv"]["tenantId"]


def test_grafana_starts_without_the_internet(platform: Baked) -> None:
    values = yaml.safe_load((platform("default") / "platform-apps" / "grafana" / "values.yaml").read_text())["grafana"]
    assert values["grafana.ini"]["plugins"]["preinstall_auto_update"] is False


@pytest.mark.parametrize("environment", charts.ENVIRONMENTS)
def test_grafana_has_room_above_its_idle_330_mib(platform: Baked, environment: str) -> None:
    folder = platform("default") / "platform-apps" / "grafana"
    files = [folder / "values.yaml", folder / "values-production.yaml"][: 1 if environment == "local" else 2]
    resources = [yaml.safe_load(file.read_text())["grafana"]["resources"] for file in files][-1]
    assert mebibytes(resources["requests"]["memory"]) > 330
    assert mebibytes(resources["limits"]["memory"]) > 2 * 330


@needs_charts
@pytest.mark.parametrize("environment", charts.ENVIRONMENTS)
def test_tempo_s_heap_ends_below_its_limit(platform: Baked, environment: str) -> None:
    made = one(component(platform("default"), "tempo", environment, UPSTREAM), "StatefulSet", "tempo")
    (container,) = made["spec"]["template"]["spec"]["containers"]
    (limit,) = [each["value"] for each in container["env"] if each["name"] == "GOMEMLIMIT"]
    assert mebibytes(limit) <= 0.85 * mebibytes(container["resources"]["limits"]["memory"])
    assert "-mem-ballast-size-mbs=0" in container["args"]
    probe = container["livenessProbe"]
    assert probe["httpGet"]["path"] == "/ready"
    # Seconds from its start until the kubelet would kill it: a long log of the last run takes minutes to read.
    assert probe["initialDelaySeconds"] + probe["periodSeconds"] * probe["failureThreshold"] >= 300


@needs_charts
@pytest.mark.parametrize("environment", charts.ENVIRONMENTS)
def test_tempo_says_when_to_try_again_and_drops_no_trace(platform: Baked, environment: str) -> None:
    made = component(platform("default"), "tempo", environment, UPSTREAM)
    config = yaml.safe_load(one(made, "ConfigMap", "tempo")["data"]["tempo.yaml"])
    assert config["distributor"]["retry_after_on_resource_exhausted"] == "5s"
    limits = config["overrides"]["defaults"]["ingestion"]
    assert limits["max_traces_per_user"] == 0
    collector = one(component(platform("default"), "otel-collector", environment), "OpenTelemetryCollector", "otel")
    queue = collector["spec"]["config"]["exporters"]["otlp_grpc/tempo"]["sending_queue"]
    assert limits["burst_size_bytes"] >= 4 * queue["batch"]["max_size"], "a batch above the burst is refused for ever"


def test_a_grpc_connection_to_a_node_that_died_is_given_up(platform: Baked) -> None:
    """Left out, the collector's exporter has no keepalive, and the kernel tries for a quarter of an hour."""
    made = component(platform("default"), "otel-collector")
    exporters = {
        name: exporter
        for each in made
        if each["kind"] == "OpenTelemetryCollector"
        for name, exporter in each["spec"]["config"]["exporters"].items()
        if name.startswith("otlp_grpc")
    }
    assert exporters.keys() == {"otlp_grpc/tempo", "otlp_grpc/gateway"}
    assert [each["keepalive"] for each in exporters.values()] == [{"time": "10s", "timeout": "10s"}] * 2


def test_a_gateway_leaves_its_service_before_it_ends(platform: Baked) -> None:
    """An export that reached a collector as it ended got no answer, and the SDK does not try that again."""
    gateway = one(component(platform("default"), "otel-collector"), "OpenTelemetryCollector", "otel")
    assert gateway["spec"]["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}


OBJECT_STORE_USERS = {
    "thanos-receive": ["thanos-receive-ingestor"],
    "thanos-store": ["thanos-store-gateway", "thanos-compact"],
    "tempo": ["tempo"],
    "loki": ["loki"],
}


@needs_charts
@pytest.mark.parametrize(("component_name", "workloads"), OBJECT_STORE_USERS.items())
def test_an_s3_of_one_s_own_has_an_address_keys_and_an_open_port(
    platform: Baked, component_name: str, workloads: list[str]
) -> None:
    made = component(platform("s3-own-address"), component_name, upstream=UPSTREAM)
    for name in workloads:
        (pods,) = [
            each for each in made if each["kind"] in ("StatefulSet", "Deployment") and each["metadata"]["name"] == name
        ]
        container = next(
            each for each in pods["spec"]["template"]["spec"]["containers"] if "sidecar" not in each["name"]
        )
        keys = list(finders.deep(container.get("env", []), "secretKeyRef", "name"))
        keys += list(finders.deep(container.get("envFrom", []), "secretRef", "name"))
        assert set(keys) == {"object-store"}, name
    text = configurations(made)
    assert "minio.example.com:9000" in text
    assert "amazonaws" not in text
    policies = component(platform("s3-own-address"), "network-policies")
    for name in workloads:
        ports = list(finders.deep(one(policies, "NetworkPolicy", name), "egress", "ports", "port"))
        assert 9000 in ports, name


@needs_charts
@pytest.mark.parametrize("component_name", OBJECT_STORE_USERS)
def test_amazon_in_china_has_its_own_domain(platform: Baked, component_name: str) -> None:
    made = component(platform("s3-china"), component_name, upstream=UPSTREAM)
    text = configurations(made)
    assert "s3.cn-north-1.amazonaws.com.cn" in text


@needs_charts
@pytest.mark.parametrize(
    ("name", "ingress_class", "namespace"),
    [("production-s3", "traefik", "traefik"), ("everything", "nginx", "ingress-nginx")],
)
def test_one_answer_says_what_serves_the_domain(platform: Baked, name: str, ingress_class: str, namespace: str) -> None:
    folder = platform(name)
    issuer = one(component(folder, "cert-manager"), "ClusterIssuer", "letsencrypt")
    grafana = component(folder, "grafana", upstream=UPSTREAM)
    classes = set(finders.deep(issuer, "ingressClassName")) | set(
        finders.deep(one(grafana, "Ingress", "grafana"), "ingressClassName")
    )
    tfvars = (folder / "terraform" / "environments" / "production.tfvars").read_text()
    assert classes == set(re.findall(r'ingress_class = "([^"]+)"', tfvars)) == {ingress_class}
    policy = one(component(folder, "network-policies"), "NetworkPolicy", "grafana")
    names = list(finders.deep(policy, "ingress", "kubernetes.io/metadata.name"))
    assert namespace in names


def test_every_pod_that_needs_the_api_server_reaches_it_on_every_distribution(platform: Baked) -> None:
    """No policy can name the API server, and one sees the port of its pod or host: 8443 at minikube, 16443 at MicroK8s."""
    everywhere = {443, 6443, 8443, 16443}
    workloads = facts(platform("everything"), "production")["workloads"]
    reaching = {name for name, workload in workloads.items() if "api-server" in workload.get("reaches", ())}
    assert reaching >= {"otel-operator", "grafana", "fluent-bit"}
    policies = component(platform("everything"), "network-policies")
    for name in reaching:
        open_ports = set(finders.deep(one(policies, "NetworkPolicy", name), "egress", "ports", "port"))
        assert open_ports >= everywhere, name


def test_what_is_open_to_anywhere_is_so_in_both_address_families(platform: Baked) -> None:
    policies = component(platform("s3-own-address"), "network-policies")
    rules = [rule.get("to", []) for each in policies for rule in each["spec"].get("egress") or ()]
    blocks = [{peer["ipBlock"]["cidr"] for peer in peers if "ipBlock" in peer} for peers in rules]
    assert {"0.0.0.0/0", "::/0"} in blocks
    assert [each for each in blocks if ("0.0.0.0/0" in each) != ("::/0" in each)] == []


@needs_charts
def test_every_pod_of_a_service_is_watched(platform: Baked) -> None:
    """Behind a virtual address only one of several would be, another one each time."""
    folder = platform("production-s3")
    objects = [each for chart in charts.charts(folder) for each in charts.render(chart, "production", UPSTREAM)]
    several = {
        each["metadata"]["name"]
        for each in objects
        if each["kind"] in ("Deployment", "StatefulSet") and each["spec"].get("replicas", 1) > 1
    }
    watched = {job: target for job, target in facts(folder, "production")["scrape"].items() if target}
    found = {job for job, target in watched.items() if target["workload"] in several}
    assert found >= {"loki", "thanos-receive-ingestor", "alertmanager"}
    for job in found:
        assert one(objects, "Service", watched[job]["host"])["spec"].get("clusterIP") == "None", job


def test_a_terraform_that_cannot_lock_the_state_is_refused(platform: Baked) -> None:
    """`use_lockfile` is known since 1.10; an older one ends at init with a message that names no version."""
    folder = platform("everything")
    (minimum,) = re.findall(r'required_version = ">= (\S+)"', (folder / "terraform" / "versions.tf").read_text())
    assert [int(part) for part in minimum.split(".")] >= [1, 10]
    assert f"terraform/install ({minimum} or newer)" in (folder / "scripts" / "lib.sh").read_text()


def test_operations_names_every_file_that_a_retention_is_in(tmp_path: Path) -> None:
    told = {"metrics_retention": "1111d", "traces_retention": "222d", "logs_retention": "333d"}
    folder = platforms.bake({**told, "object_storage": "s3"}, tmp_path)
    numbers = {text for each in told.values() for text in (each, f"{int(each[:-1]) * 24}h")}
    files = {
        file.relative_to(folder).as_posix()
        for file in folder.glob("platform-apps/*/*.yaml")
        if any(number in re.sub("#.*", "", file.read_text()) for number in numbers)
    }
    (row,) = re.findall(r"(?m)^\| how long .* are kept .*$", (folder / "docs" / "operations.md").read_text())
    listed = {name for path in re.findall(r"`([^`]+)`", row) for name in braces(path)}
    assert listed == files


def braces(path: str) -> list[str]:
    """`a/{b,c}/d` is `a/b/d` and `a/c/d`."""
    before, brace, rest = path.partition("{")
    inside, _, after = rest.partition("}")
    return [f"{before}{each}{after}" for each in inside.split(",")] if brace else [path]


@needs_charts
def test_grafana_shows_its_metrics_to_nobody_outside(platform: Baked) -> None:
    """Where an Ingress leads to it they are off, and nothing tries to read them."""
    ini = one(component(platform("production-s3"), "grafana", upstream=UPSTREAM), "ConfigMap", "grafana")["data"]
    assert re.search(r"\[metrics\]\nenabled = false", ini["grafana.ini"])
    scraper = one(component(platform("production-s3"), "otel-collector"), "OpenTelemetryCollector", "otel-scrape")
    assert "grafana" not in list(finders.deep(scraper, "scrape_configs", "job_name"))
    default = one(component(platform("default"), "otel-collector"), "OpenTelemetryCollector", "otel-scrape")
    assert "grafana" in list(finders.deep(default, "scrape_configs", "job_name"))


def test_the_app_s_chart_refuses_a_cluster_that_is_too_old(platform: Baked) -> None:
    """Its pods sleep before they stop, which Kubernetes knows since 1.30; the scripts ask for the same."""
    chart = platform("default") / "k8s" / "helm-charts" / "flask-app"
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    minimum = re.search(r"MINIMUM_KUBERNETES=(\S+)", (platform("default") / "scripts" / "lib.sh").read_text())
    assert minimum
    assert about["kubeVersion"] == f">={minimum[1]}-0"
    pod = one(charts.render(chart, "local"), "Deployment", "flask-app")
    assert list(finders.deep(pod, "preStop", "sleep"))


@needs_charts
def test_the_example_of_a_login_by_oidc_is_off_and_works_when_it_is_on(platform: Baked, tmp_path: Path) -> None:
    chart = platform("production-s3") / "platform-apps" / "grafana"
    assert "[auth.generic_oauth]" in configurations(charts.render(chart, "production", UPSTREAM))
    copy = Path(shutil.copytree(chart, tmp_path / "grafana"))
    values = copy / "values-production.yaml"
    text = values.read_text()
    assert "      enabled: false\n      name: SSO" in text
    values.write_text(text.replace("      enabled: false\n      name: SSO", "      enabled: true\n      name: SSO"))
    made = charts.render(copy, "production", UPSTREAM)
    section = re.search(r"\[auth\.generic_oauth\]\n((?:\w.*\n)+)", configurations(made))
    assert section
    settings = dict(line.split(" = ", 1) for line in section[1].splitlines())
    assert settings["enabled"] == "true"
    assert "'checkout') && 'Admin' || 'Viewer'" in settings["role_attribute_path"]
    secrets = list(finders.deep(one(made, "Deployment", "grafana"), "secretKeyRef", "name"))
    assert "grafana-oidc" in secrets

    argocd = (platform("production-s3") / "terraform" / "modules" / "argocd-server" / "values.yaml").read_text()
    assert "oidc.config" not in yaml.safe_load(argocd)["configs"]["cm"]
    uncommented = re.sub(r"(?m)^    # (oidc\.config: \||  \w+: .*)$", r"    \1", argocd)
    oidc = yaml.safe_load(yaml.safe_load(uncommented)["configs"]["cm"]["oidc.config"])
    assert oidc["clientSecret"] == "$argocd-oidc:client-secret"
    assert "groups" in oidc["requestedScopes"]


LOGIN = "chart-registry"


def with_login(values: dict[str, Any], path: str) -> dict[str, Any]:
    """Return values with the login's Secret named at a dotted path."""
    head, _, rest = path.partition(".")
    login = LOGIN if head == "pullSecrets" else {"name": LOGIN}
    inner = with_login(values.get(head) or {}, rest) if rest else [login]
    return {**values, head: inner}


@needs_charts
@pytest.mark.parametrize("backend", platforms.CHOICES["secrets_backend"])
def test_a_mirror_s_login_reaches_every_pod_by_the_values_that_operations_names(backend: str, tmp_path: Path) -> None:
    answers = {"chart_registry": "registry.example.com/x", "secrets_backend": backend, "include_fluent_bit": True}
    folder = platforms.bake(answers, tmp_path)
    text = (folder / "docs" / "operations.md").read_text()
    named = dict(
        re.findall(
            r"(?m)^\| `(platform-apps/[\w-]+|k8s/[\w/-]+)`.*?\| `([\w.-]+)`(?: \(.*\))?(?: <!-- .* -->)? \|$", text
        )
    )
    for chart in charts.charts(folder):
        name = chart.relative_to(folder).as_posix()
        if name.startswith("terraform") or chart.name in ("otel-instrumentation", "network-policies"):  # no pods
            continue
        if chart.name.startswith("thanos-"):
            name = "platform-apps/thanos-receive"
        values = chart / "values.yaml"
        values.write_text(yaml.safe_dump(with_login(yaml.safe_load(values.read_text()), named[name])))
        made = charts.render(chart, "production", UPSTREAM)
        accounts = {
            each["metadata"]["name"]
            for each in made
            if each["kind"] == "ServiceAccount" and {"name": LOGIN} in (each.get("imagePullSecrets") or [])
        }
        for each in made:
            if each["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "OpenTelemetryCollector"):
                spec = each["spec"] if each["kind"] == "OpenTelemetryCollector" else each["spec"]["template"]["spec"]
                account = spec.get("serviceAccount") or spec.get("serviceAccountName")
                secrets = spec.get("imagePullSecrets") or []
                assert {"name": LOGIN} in secrets or account in accounts, f"{name}: {each['metadata']['name']}"


@needs_charts
@pytest.mark.parametrize("environment", charts.ENVIRONMENTS)
def test_grafana_s_interval_is_the_one_at_which_the_app_exports(platform: Baked, environment: str) -> None:
    made = component(platform("default"), "otel-instrumentation", environment)
    env = {each["name"]: each["value"] for each in finders.deep(made, "python", "env")}
    sources = configurations(component(platform("default"), "grafana", environment, UPSTREAM))
    assert f"timeInterval: {int(env['OTEL_METRIC_EXPORT_INTERVAL']) // 1000}s" in sources.replace('"', "")
