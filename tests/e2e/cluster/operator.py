"""Stands in for the OpenTelemetry operator: it injects the Python SDK into pods, and makes collectors of its resources.

    python -m tests.e2e.cluster.operator WEBHOOKS PORT     WEBHOOKS: the name of its MutatingWebhookConfiguration

It runs in a pod of the chart's stand-in, signs the certificate of its webhooks itself, and asks the API server once a second.
What the real one does beyond this is not done: other languages, several containers, the annotation on the namespace, modes
other than statefulset and deployment, the target allocator, disruption budgets, autoscaling, ingresses; it checks no resource
and fills in no defaults, it does not repair what others change, and the ConfigMap of an older configuration stays until its
collector goes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

Manifest = dict[str, Any]

INIT = "opentelemetry-auto-instrumentation-python"
_ANNOTATION = "instrumentation.opentelemetry.io/inject-python"
_SDK = "/otel-auto-instrumentation-python"
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_COLLECTORS = "/apis/opentelemetry.io/v1beta1"
_INSTRUMENTATIONS = "/apis/opentelemetry.io/v1alpha1"
_WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
_PATHS = {
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Service": "/api/v1/namespaces/{}/services",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "StatefulSet": "/apis/apps/v1/namespaces/{}/statefulsets",
}
# Fields of a collector that are fields of its pod or of its one container, by their names in both.
_OF_POD = {
    "podSecurityContext": "securityContext",
    "serviceAccount": "serviceAccountName",
    **{
        name: name
        for name in (
            *("affinity", "initContainers", "nodeSelector", "priorityClassName", "terminationGracePeriodSeconds"),
            *("tolerations", "topologySpreadConstraints"),
        )
    },
}
_OF_CONTAINER = ("command", "envFrom", "image", "imagePullPolicy", "lifecycle", "resources", "securityContext")


def injected(pod: Manifest, namespace: str, instrumentation: Manifest) -> Manifest:
    """Return a pod with the SDK in its first container."""
    pod, spec = deepcopy(pod), instrumentation["spec"]
    container, about = pod["spec"]["containers"][0], pod["metadata"]
    env: list[Manifest] = container.setdefault("env", [])

    def add(name: str, value: object = None, of_field: str = "") -> None:
        if name not in [it["name"] for it in env]:
            source = {"valueFrom": {"fieldRef": {"fieldPath": of_field}}} if of_field else {"value": str(value)}
            env.append({"name": name, **source})

    add("OTEL_NODE_IP", of_field="status.hostIP")
    add("OTEL_POD_IP", of_field="status.podIP")
    for item in [*spec.get("env", []), *spec["python"].get("env", [])]:
        if item["name"] not in [it["name"] for it in env]:
            env.append(item)
    add("PYTHONPATH", f"{_SDK}/opentelemetry/instrumentation/auto_instrumentation:{_SDK}")
    add("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    for signal in ("TRACES", "METRICS", "LOGS"):
        add(f"OTEL_{signal}_EXPORTER", "otlp")
    attributes = {
        "k8s.container.name": container["name"],
        "k8s.namespace.name": namespace,
        "k8s.node.name": "$(OTEL_RESOURCE_ATTRIBUTES_NODE_NAME)",
        "k8s.pod.name": "$(OTEL_RESOURCE_ATTRIBUTES_POD_NAME)",
        "service.instance.id": f"{namespace}.$(OTEL_RESOURCE_ATTRIBUTES_POD_NAME).{container['name']}",
        "service.namespace": namespace,
    }
    for owner in about.get("ownerReferences", []):
        attributes[f"k8s.{owner['kind'].lower()}.name"] = owner["name"]
        # A Deployment is no owner of a pod, and the name of its ReplicaSet ends with what the label says.
        if tail := about.get("labels", {}).get("pod-template-hash"):
            attributes["k8s.deployment.name"] = owner["name"].removesuffix(f"-{tail}")
    _, colon, tag = container["image"].rpartition("/")[2].partition(":")
    if colon:
        attributes["service.version"] = tag
    add("OTEL_SERVICE_NAME", attributes.get("k8s.deployment.name", container["name"]))
    if endpoint := spec.get("exporter", {}).get("endpoint"):
        add("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    add("OTEL_RESOURCE_ATTRIBUTES_POD_NAME", of_field="metadata.name")
    add("OTEL_RESOURCE_ATTRIBUTES_NODE_NAME", of_field="spec.nodeName")
    if spec.get("propagators"):
        add("OTEL_PROPAGATORS", ",".join(spec["propagators"]))
    if sampler := spec.get("sampler"):
        add("OTEL_TRACES_SAMPLER", sampler["type"])
        add("OTEL_TRACES_SAMPLER_ARG", sampler.get("argument", ""))
    # The last, because it refers to others.
    add("OTEL_RESOURCE_ATTRIBUTES", ",".join(f"{key}={value}" for key, value in sorted(attributes.items())))

    mount = {"name": INIT, "mountPath": _SDK}
    container.setdefault("volumeMounts", []).append(mount)
    pod["spec"].setdefault("volumes", []).append({"name": INIT, "emptyDir": {"sizeLimit": "200Mi"}})
    pod["spec"].setdefault("initContainers", []).append(
        {
            "name": INIT,
            "image": spec["python"]["image"],
            "command": ["cp", "-r", "/autoinstrumentation/.", _SDK],
            "resources": spec["python"].get("resourceRequirements", {}),
            "securityContext": spec.get("initContainerSecurityContext", container.get("securityContext", {})),
            "volumeMounts": [mount],
        }
    )
    return pod


def objects(collector: Manifest) -> Iterator[Manifest]:
    """Yield what is made of an OpenTelemetryCollector; its workload comes first."""
    about, spec = collector["metadata"], collector["spec"]
    name, config = f"{about['name']}-collector", json.dumps(spec["config"], sort_keys=True)
    digest = hashlib.sha256(config.encode()).hexdigest()
    selector = {
        "app.kubernetes.io/component": "opentelemetry-collector",
        "app.kubernetes.io/instance": f"{about['namespace']}.{about['name']}",
        "app.kubernetes.io/managed-by": "opentelemetry-operator",
        "app.kubernetes.io/part-of": "opentelemetry",
    }
    owner = {key: collector[key] for key in ("apiVersion", "kind")} | {key: about[key] for key in ("name", "uid")}

    def made(kind: str, of_name: str, **rest: object) -> Manifest:
        labels = {**about.get("labels", {}), **selector, "app.kubernetes.io/name": of_name.removesuffix("-headless")}
        meta = {"name": of_name, "namespace": about["namespace"], "labels": labels}
        version = "v1" if kind in ("ConfigMap", "Service") else "apps/v1"
        meta["ownerReferences"] = [{**owner, "controller": True, "blockOwnerDeletion": True}]
        return {"apiVersion": version, "kind": kind, "metadata": meta, **rest}

    ports = _ports(spec["config"])
    args = {"config": "/conf/collector.yaml", **{k: v for k, v in spec.get("args", {}).items() if k != "config"}}
    container = {
        "name": "otc-container",
        "args": [f"--{flag}={value}" for flag, value in args.items()],
        "env": [*spec.get("env", []), {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "ports": [{"name": port, "containerPort": number} for port, number in ports.items()],
        "volumeMounts": [{"name": "otc-internal", "mountPath": "/conf"}, *spec.get("volumeMounts", [])],
        **{key: spec[key] for key in _OF_CONTAINER if key in spec},
    }
    if health := spec["config"].get("extensions", {}).get("health_check"):
        check = {"httpGet": {"path": health.get("path", "/"), "port": _port(health["endpoint"])}}
        container["livenessProbe"] = {**check, **spec.get("livenessProbe", {})}
        container["readinessProbe"] = {**check, **spec.get("readinessProbe", {})}
    file = f"{name}-{digest[:8]}"
    pod = {
        "containers": [container, *spec.get("additionalContainers", [])],
        "volumes": [{"name": "otc-internal", "configMap": {"name": file}}, *spec.get("volumes", [])],
        **{theirs: spec[ours] for ours, theirs in _OF_POD.items() if ours in spec},
    }
    labels = {**about.get("labels", {}), **selector, "app.kubernetes.io/name": name}
    notes = {**spec.get("podAnnotations", {}), "opentelemetry-operator-config/sha256": digest}
    workload: Manifest = {
        "replicas": spec.get("replicas", 1),
        "selector": {"matchLabels": selector},
        "template": {"metadata": {"labels": labels, "annotations": notes}, "spec": pod},
    }
    if spec["mode"] == "statefulset":
        workload |= {"serviceName": f"{name}-headless", "podManagementPolicy": "Parallel"}
        workload["volumeClaimTemplates"] = [
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **claim}
            for claim in spec.get("volumeClaimTemplates", [])
        ]
    yield made({"statefulset": "StatefulSet", "deployment": "Deployment"}[spec["mode"]], name, spec=workload)
    yield made("ConfigMap", file, data={"collector.yaml": config})
    services = {f"{name}-monitoring": {"monitoring": 8888}}
    if ports:
        services |= {name: ports, f"{name}-headless": ports}
    for service, of_service in services.items():
        entries = [{"name": port, "port": number} for port, number in of_service.items()]
        headless = {"clusterIP": "None"} if service.endswith("-headless") else {}
        yield made("Service", service, spec={"selector": selector, "ports": entries, **headless})


def _port(endpoint: str) -> int:
    return int(endpoint.rsplit(":", 1)[1])


def _ports(config: Manifest) -> dict[str, int]:
    """Return the ports on which the receivers of a configuration listen."""
    return {
        f"{receiver.replace('/', '-')}-{protocol}": _port(settings["endpoint"])
        for receiver, of_receiver in config["receivers"].items()
        for protocol, settings in ((of_receiver or {}).get("protocols") or {}).items()
    }


@dataclass
class Operator:
    """Answers the API server's calls, and follows the collectors."""

    webhooks: str
    folder: Path
    api: httpx.Client
    ready: bool = False
    _made: dict[str, int] = field(default_factory=dict)

    def ask(self, method: str, path: str, content: object = None, kind: str = "", **query: str) -> Manifest:
        """Call the API server.

        Raises:
            httpx.HTTPError: it does not answer, or refuses.
        """
        token = (_ACCOUNT / "token").read_text()  # the kubelet renews it
        headers = {"Authorization": f"Bearer {token}", **({"Content-Type": f"application/{kind}"} if kind else {})}
        answer = self.api.request(method, path, content=json.dumps(content), headers=headers, params=query)
        if answer.is_error:
            raise httpx.HTTPError(f"{method} {path}: {answer.status_code} {answer.text}")
        return dict(answer.json())

    def mutated(self, request: Manifest) -> Manifest:
        """Return the pod of an admission request as it shall be; as it is where no SDK is asked for or none is there."""
        pod, namespace = request["object"], request["namespace"]
        wanted = pod["metadata"].get("annotations", {}).get(_ANNOTATION, "false")
        inits = [it["name"] for it in pod["spec"].get("initContainers", [])]
        if wanted == "false" or INIT in inits:
            return dict(pod)
        where, _, name = wanted.rpartition("/")
        listed = self.ask("GET", f"{_INSTRUMENTATIONS}/namespaces/{where or namespace}/instrumentations")["items"]
        found = [it for it in listed if name in ("true", it["metadata"]["name"])]
        return injected(pod, namespace, found[0]) if len(found) == 1 else dict(pod)

    def review(self, path: str, review: Manifest) -> Manifest:
        """Answer an AdmissionReview."""
        request = review["request"]
        answer: Manifest = {"uid": request["uid"], "allowed": True}
        if path == "/pod":
            patch = [{"op": "replace", "path": "/spec", "value": self.mutated(request)["spec"]}]
            answer |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(patch).encode()).decode()}
        return {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": answer}

    def serve(self, port: int) -> None:
        """Answer webhooks and probes over TLS, in threads of their own."""
        pair = ("-keyout", self.folder / "key", "-out", self.folder / "crt")
        host = f"{self.webhooks.removesuffix('-mutation')}-webhook.{(_ACCOUNT / 'namespace').read_text()}.svc"
        about = ("-days", "30", "-subj", "/CN=operator", "-addext", f"subjectAltName=DNS:{host}")
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        subprocess.run(["openssl", "req", "-x509", *key, *pair, *about], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "crt", self.folder / "key")
        operator = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(200 if operator.ready or self.path == "/healthz" else 503, {})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                try:
                    self._answer(200, operator.review(self.path.partition("?")[0], body))
                except httpx.HTTPError as error:
                    print(error, flush=True)
                    self._answer(500, {})

            def _answer(self, status: int, content: Manifest) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("", port), Handler)
        # The handshake belongs to the connection's own thread: one that never comes must not stop the others.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def sign(self) -> None:
        """Tell the API server by which certificate it knows the webhooks, as cert-manager does."""
        authority = base64.b64encode((self.folder / "crt").read_bytes()).decode()
        path = f"{_WEBHOOKS}/{self.webhooks}"
        patch = [
            {"op": "add", "path": f"/webhooks/{number}/clientConfig/caBundle", "value": authority}
            for number, webhook in enumerate(self.ask("GET", path)["webhooks"])
            if webhook["clientConfig"].get("caBundle") != authority
        ]
        if patch:
            self.ask("PATCH", path, patch, "json-patch+json")
        self.ready = True

    def follow(self) -> None:
        """Make what each collector asks for, where that has changed, and say how many of its pods are ready."""
        for collector in self.ask("GET", f"{_COLLECTORS}/opentelemetrycollectors")["items"]:
            about, made = collector["metadata"], list(objects(collector))
            where = [f"{_PATHS[it['kind']].format(about['namespace'])}/{it['metadata']['name']}" for it in made]
            if self._made.get(about["uid"]) != about["generation"]:
                # The workload comes last: its pods want the rest.
                for item, path in reversed([*zip(made, where, strict=True)]):
                    self.ask("PATCH", path, item, "apply-patch+yaml", fieldManager="operator", force="true")
                self._made[about["uid"]] = about["generation"]
            ready = self.ask("GET", where[0])["status"].get("readyReplicas", 0)
            count = collector["spec"].get("replicas", 1)
            status = {"scale": {"replicas": count, "statusReplicas": f"{ready}/{count}"}}
            if collector.get("status") != status:
                own = f"{_COLLECTORS}/namespaces/{about['namespace']}/opentelemetrycollectors/{about['name']}/status"
                self.ask("PATCH", own, {"status": status}, "merge-patch+json")


def main(webhooks: str, port: str) -> int:
    trusted = ssl.create_default_context(cafile=_ACCOUNT / "ca.crt")
    api = httpx.Client(base_url=f"https://{os.environ['KUBERNETES_SERVICE_HOST']}", verify=trusted, trust_env=False)
    with tempfile.TemporaryDirectory() as folder, api:
        operator = Operator(webhooks, Path(folder), api)
        operator.serve(int(port))
        while True:
            for step in (operator.sign, operator.follow):
                try:
                    step()
                except httpx.HTTPError as error:
                    print(error, flush=True)
            time.sleep(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
