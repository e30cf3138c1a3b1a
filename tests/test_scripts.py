"""The cluster scripts with programs in their place that write down how they were called and answer as the real ones do."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import platforms
from tests.platforms import Baked

KIND = """case "$1 $2" in
  "version ") echo "kind v0.30.0 go1.25.1 linux/amd64" ;;
  "create cluster") cat >"$STATE/cluster.yaml" ;;
esac"""
KUBECTL = 'case "$*" in *version*) echo "Server Version: v1.34.4" ;; esac'


@dataclass(frozen=True)
class Machine:
    """A machine whose programs are scripts of ours; ``state`` is what they write to."""

    folder: Path
    state: Path

    def program(self, name: str, script: str) -> None:
        path = self.folder / name
        path.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >>"$STATE/calls"\n{script}\n')
        path.chmod(0o755)

    def run(self, script: Path, *arguments: str, wait: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}", "STATE": str(self.state)}
        env |= {"WAIT_SECONDS": str(wait), **more}
        return subprocess.run(
            ["bash", script, *arguments], env=env, capture_output=True, text=True, timeout=60, check=False
        )

    def calls(self, program: str) -> list[str]:
        written = self.state / "calls"
        lines = written.read_text().splitlines() if written.exists() else []
        return [line for line in lines if line.startswith(f"{program} ")]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path / "bin", tmp_path / "state")
    made.folder.mkdir()
    made.state.mkdir()
    made.program("docker", "")
    made.program("terraform", "echo Done.")
    made.program("kind", KIND)
    made.program("kubectl", KUBECTL)
    return made


@pytest.fixture
def committed(tmp_path: Path) -> Path:
    """A bake that is a Git repository with one commit."""
    folder = platforms.bake({}, tmp_path / "real")
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "Scaffold the platform"]):
        who = ["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", folder, *who, *command], check=True)
    return folder


def test_up_works_below_a_link(machine: Machine, committed: Path, tmp_path: Path) -> None:
    """Git speaks of the real path, the shell of the one that led here."""
    (tmp_path / "link").symlink_to(committed.parent)
    done = machine.run(tmp_path / "link" / committed.name / "scripts" / "up.sh")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f'hostPath: "{committed / ".git"}"' in (machine.state / "cluster.yaml").read_text()


def test_up_takes_a_cluster_that_is_there(machine: Machine, committed: Path) -> None:
    """With KUBE_CONTEXT, nothing is made beside the platform itself."""
    done = machine.run(committed / "scripts" / "up.sh", KUBE_CONTEXT="there", WORKING_COPY="/srv/it/.git")
    assert done.returncode == 0, done.stdout + done.stderr
    assert machine.calls("docker") == machine.calls("kind") == []
    (apply,) = (line for line in machine.calls("terraform") if " apply " in line)
    assert "kube_context=there" in apply
    assert "working_copy=/srv/it/.git" in apply


@pytest.mark.parametrize(
    ("program", "answer", "said"),
    [
        ("kind", KIND.replace("0.30.0", "0.23.0"), "kind 0.23.0 is too old"),
        (
            "kubectl",
            KUBECTL.replace("1.34.4", "1.29.14"),
            "The cluster runs Kubernetes 1.29.14; the platform needs 1.30",
        ),
    ],
)
def test_up_says_what_is_too_old(machine: Machine, committed: Path, program: str, answer: str, said: str) -> None:
    machine.program(program, answer)
    done = machine.run(committed / "scripts" / "up.sh")
    assert done.returncode == 1
    assert said in done.stderr
    assert machine.calls("terraform") == []


def test_logs_of_an_app_or_a_component_are_followed(machine: Machine, platform: Baked) -> None:
    def logs(*settings: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PATH": f"{machine.folder}{os.pathsep}{os.environ['PATH']}", "STATE": str(machine.state)}
        command = ["make", "logs", *platforms.OWN_TOOLS, *settings]
        return subprocess.run(command, cwd=platform("default"), env=env, capture_output=True, text=True, check=False)

    of_app = "app.kubernetes.io/name=flask-app,app.kubernetes.io/instance={}"
    for settings, where, selectors in (
        ((), "checkout logs", [of_app.format("flask-app"), of_app.format("payment")]),
        (("APP=tempo", "ENV=production"), "observability logs", ["app.kubernetes.io/name=tempo"]),
        (("APP=cert-manager",), "cert-manager logs", ["!batch.kubernetes.io/job-name"]),
    ):
        done = logs(*settings)
        assert done.returncode == 0, done.stderr
        calls = machine.calls("kubectl")
        assert all(where in call for call in calls)
        assert sorted(call.rpartition("--selector=")[2] for call in calls) == selectors
        assert {"--context" in call for call in calls} == {"ENV=production" not in settings}
        (machine.state / "calls").unlink()
    done = logs("APP=nobody")
    assert done.returncode != 0
    assert "'nobody' has no pods; APP= one of: alertmanager, argocd," in done.stderr
    assert machine.calls("kubectl") == []


# A cluster with one Secret: `secret` is its password, `version` what changes with it; `told` is what Grafana was told.
CLUSTER = r"""
deliver() { cat >"$STATE/secret"; date +%N >"$STATE/version"; }
case "$*" in
  *version*) echo "Server Version: v1.34.4" ;;
  *"create secret generic"*) tee "$STATE/made" ;;
  *"replace -f -"*) deliver ;;
  *"get externalsecret"*) cat "$STATE/policy" ;;
  *"annotate externalsecret"*) echo "from the store" | deliver ;;
  *"delete secret"*) rm "$STATE/secret" "$STATE/version" ;;
  *"get secret"*resourceVersion*) cat "$STATE/version" ;;
  *"get secret"*go-template*) cat "$STATE/secret" ;;
  *"get secret"*) [ -e "$STATE/secret" ] ;;
  *"get sealedsecrets"*) cat "$STATE/condition" ;;
  *"exec -i deployment/grafana -c grafana -- grafana cli "*"reset-admin-password --password-from-stdin") cat >"$STATE/told" ;;
esac
"""
# Sealing takes a moment; Argo CD then delivers what was committed.
KUBESEAL = 'cat >/dev/null; echo "kind: SealedSecret"; (sleep 1; echo delivered >"$STATE/secret"; date +%N >"$STATE/version") >/dev/null 2>&1 &'


@pytest.mark.parametrize(
    ("backend", "policy"),
    [("kubernetes", ""), ("sealed-secrets", ""), ("external-secrets", ""), ("external-secrets", "CreatedOnce")],
)
def test_a_rotation_ends_with_a_grafana_that_takes_the_new_password(
    machine: Machine, tmp_path: Path, backend: str, policy: str
) -> None:
    folder = platforms.bake({"secrets_backend": backend}, tmp_path / "real")
    subprocess.run(["git", "init", "-q", folder], check=True)
    machine.program("kubectl", CLUSTER)
    machine.program("kubeseal", KUBESEAL)
    (machine.state / "policy").write_text(policy)
    (machine.state / "secret").write_text("the old one")
    (machine.state / "version").write_text("0")
    done = machine.run(folder / "scripts" / "secrets.sh", "production", "--rotate", wait=20)
    assert done.returncode == 0, done.stdout + done.stderr
    secret = (machine.state / "secret").read_text()
    assert secret != "the old one"
    assert (machine.state / "told").read_text() == secret
    calls = machine.calls("kubectl")
    told, restarted = (
        [number for number, call in enumerate(calls) if what in call]
        for what in ("reset-admin-password", "rollout restart deployment/grafana")
    )
    assert len(told) == len(restarted) == 1
    assert told < restarted
    assert secret.strip() not in done.stdout + done.stderr + "\n".join(calls)


def test_a_rotation_whose_value_never_comes_leaves_grafana_alone(machine: Machine, tmp_path: Path) -> None:
    folder = platforms.bake({"secrets_backend": "sealed-secrets"}, tmp_path / "real")
    subprocess.run(["git", "init", "-q", folder], check=True)
    machine.program("kubectl", CLUSTER)
    machine.program("kubeseal", "cat >/dev/null; echo sealed")
    (machine.state / "secret").write_text("the old one")
    (machine.state / "version").write_text("0")
    done = machine.run(folder / "scripts" / "secrets.sh", "production", "--rotate")
    assert done.returncode == 1
    assert "no new value has arrived" in done.stderr
    assert not (machine.state / "told").exists()
    # Stopped and run again, it goes on with what is sealed and waits for its delivery.
    machine.run(folder / "scripts" / "secrets.sh", "production", "--rotate")
    assert len(machine.calls("kubeseal")) == 1


@pytest.mark.parametrize(("condition", "sealed"), [("no key could decrypt secret (admin-password)", 1), ("", 0)])
def test_a_file_that_a_rebuilt_cluster_cannot_open_is_sealed_again(
    machine: Machine, tmp_path: Path, condition: str, sealed: int
) -> None:
    folder = platforms.bake({"secrets_backend": "sealed-secrets"}, tmp_path / "real")
    file = folder / "platform-apps" / "sealed-secrets" / "sealed" / "production" / "observability-grafana-admin.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("of the old cluster\n")
    machine.program("kubectl", CLUSTER)
    machine.program("kubeseal", "cat >/dev/null; echo sealed")
    (machine.state / "condition").write_text(condition)
    done = machine.run(folder / "scripts" / "secrets.sh", "production")
    assert done.returncode == 0, done.stderr
    assert file.read_text() == ("sealed\n" if sealed else "of the old cluster\n")
    assert "commit it" in done.stdout


def test_traffic_without_a_load_profile_says_what_to_do(platform: Baked, tmp_path: Path) -> None:
    shutil.copytree(platform("default") / "app", tmp_path / "app")
    script = ["bash", str(tmp_path / "app" / "traffic.sh")]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "there is no load profile platform-apps/load-generator/locustfile.py: bring it back" in done.stderr
    assert "make traffic PROFILE=my.py" in done.stderr
    # With a profile of one's own the next thing that is missing is named.
    (tmp_path / "my.py").touch()
    env = {**os.environ, "PROFILE": "my.py", "PORT": "9"}
    done = subprocess.run(script, env=env, capture_output=True, text=True, check=False)
    assert "nothing answers at http://127.0.0.1:9: start the simulator first (make run)" in done.stderr
