"""A second app, and a platform without the simulator: what docs/your-own-service.md of a bake says, done as it says it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

from scripts.facts import facts
from tests import charts, contract, finders, platforms
from tests.checks import CHECKS

# Answers whose own words are none of those that must be gone.
ANSWERS = {"team": "store", "project_slug": "platform", "object_storage": "s3", "flask_app_source": "git"}
WORDS = r"checkout|simulator|flask-app|load-generator|locust|\bpayment\b"


def run(folder: Path, *command: str, **more: str) -> str:
    who = {f"GIT_{role}_{key}": "test@example.com" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    env = platforms.environment(**who, **more)
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    return done.stdout


def blocks(page: Path) -> list[str]:
    """The commands of a page, a text for each fenced block."""
    return re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def bake(folder: Path, **answers: object) -> Path:
    made = platforms.bake({**ANSWERS, **answers}, folder)
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "Scaffold the platform"]):
        run(made, "git", *command)
    return made


def holds(folder: Path, answers: dict[str, Any]) -> None:
    """What holds of a bake still does; in particular every chart renders what Kubernetes takes."""
    problems = [f"{label}: {line}" for label, check in CHECKS.items() for line in check(folder, answers)]
    assert problems + contract.violations(folder, answers) == []


def rendered(folder: Path, chart: str, kind: str) -> dict[str, dict[str, Any]]:
    objects = charts.render(folder / chart, "production")
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def followed(folder: Path) -> None:
    """What the rest of a platform has made of the folder of an app called shop."""
    chart = "k8s/helm-charts/shop"
    (deployment,) = rendered(folder, chart, "Deployment").values()
    (container,) = finders.deep(deployment, "containers")
    env = {each["name"]: each["value"] for each in container["env"]}
    assert env["OTEL_SERVICE_NAME"] == "shop"
    assert container["image"] == "registry.example.com/shop:1.0"
    # The whole URL of a probe, and no other: Flask's instrumentation looks for these in it.
    excluded = [re.compile(each) for each in env["OTEL_PYTHON_EXCLUDED_URLS"].split(",")]
    for url, probe in {"/readyz": True, "/healthz": True, "/": False, "/readyz/x": False, "/x/readyz": False}.items():
        assert any(each.search(f"http://10.0.0.1:8000{url}") for each in excluded) is probe, url
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations["instrumentation.opentelemetry.io/inject-python"] == "python"

    policies = rendered(folder, "platform-apps/network-policies", "NetworkPolicy")
    callers = finders.deep(policies["otel-collector"]["spec"]["ingress"], "matchLabels", "app.kubernetes.io/name")
    assert "shop" in callers
    rules = "".join(str(each) for each in rendered(folder, "platform-apps/thanos-ruler", "ConfigMap").values())
    assert 'service_name="shop",http_route="/"' in rules
    assert "shop" in facts(folder, "local")["apps"]
    # The dashboards ask which services there are, and prefer none.
    for _, dashboard in finders.data("platform-apps/*/dashboards/*.json", "templating", "list")(
        finders.Bake(folder, {})
    ):
        if dashboard["name"] == "service":
            assert dashboard["query"]["query"] == "label_values(http_server_request_duration_seconds, service_name)"
            assert not dashboard["current"]


def test_a_service_joins_and_the_simulator_goes(tmp_path: Path) -> None:
    folder = bake(tmp_path)
    answers = platforms.complete(ANSWERS)
    make, commit, remove = blocks(folder / "docs" / "your-own-service.md")
    for block in (make, commit):
        run(folder, "bash", "-euo", "pipefail", "-c", block, MAKEFLAGS=" ".join(platforms.OWN_TOOLS))
    holds(folder, answers)
    followed(folder)

    run(folder, "bash", "-euo", "pipefail", "-c", remove)
    assert run(folder, "git", "status", "--porcelain") == ""
    left = [
        line for line in run(folder, "git", "grep", "-niE", WORDS).splitlines() if "uses: actions/checkout@" not in line
    ]
    assert left == []
    missing = [link for link in links(folder) if not link.exists()]
    assert missing == []
    holds(folder, answers)
    followed(folder)
    # All that it installs is asked for by what is left.
    assert not (folder / ".venv").exists()
    assert " passed" in run(folder, "make", "test", "lint")
    assert "make run" not in run(folder, "make")


def links(folder: Path) -> list[Path]:
    """Every file that a page of a platform links to."""
    return [
        (page.parent / target).resolve()
        for page in (folder / "README.md", *folder.glob("docs/*.md"))
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text())
    ]
