"""Refuses answers that would not make a working platform: every problem at once, each with what to type instead, and
one command that goes on from what was typed.

Standard library and Cookiecutter only: it runs this with whatever Python it runs on itself (3.10 or later). Each rule
looks at one answer and returns None, or the problem: why the value is refused and what to type instead. The answers
are corrected in the order of the prompts, so a rule sees good answers to the prompts before its own.
"""

from __future__ import annotations

import difflib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlsplit

Answers = Mapping[str, object]

CHOICES = {
    "flask_app_source": ("git", "oci"),
    "log_backend": ("loki", "none"),
    "object_storage": ("none", "s3", "gcs", "azure"),
    "secrets_backend": ("kubernetes", "external-secrets", "sealed-secrets"),
    "terraform_backend": ("local", "s3", "gcs", "azurerm", "kubernetes"),
    "license": ("Apache-2.0", "MIT", "BSD-3-Clause", "Proprietary"),
}
YES, NO = ("1", "true", "t", "yes", "y", "on"), ("0", "false", "f", "no", "n", "off")  # as Cookiecutter reads them
# Defaults that follow from another answer, as cookiecutter.json makes them.
FOLLOWS: dict[str, Callable[[Answers], str]] = {
    "project_slug": lambda a: label(text(a, "platform_name"), 40, "acme-platform"),
    "repo_url": lambda a: f"https://github.com/{text(a, 'git_owner')}/{text(a, 'project_slug')}.git",
    "oci_registry": lambda a: f"ghcr.io/{text(a, 'git_owner').lower()}",
    "object_storage_bucket": lambda a: f"{text(a, 'project_slug')}-telemetry",
}
# Namespaces of the platform or of Kubernetes, and the project that Argo CD makes itself.
RESERVED_TEAMS = {
    "argocd", "cert-manager", "default", "external-secrets", "fluent-bit", "observability",
    "opentelemetry-operator-system", "sealed-secrets",
}  # fmt: skip
# Unquoted, YAML reads these as something other than text.
YAML_WORDS = {"true", "false", "yes", "no", "on", "off", "y", "n", "null"}
DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
DNS_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+")
IPV4 = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}")
HOST = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
PORT = r"(:(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3}))?"
OCI_PATH = r"[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*"
REGISTRY = re.compile(rf"{HOST}{PORT}(/{OCI_PATH})*")
# Percent-encoded control characters are in nobody's URL.
URL_PATH = r"([A-Za-z0-9_.~/+-]|%[2-7][0-9A-Ea-e]|%[2-6][Ff]|%[89A-Fa-f][0-9A-Fa-f])+"
GIT_URL = re.compile(
    rf"(https|ssh)://([^\s/@]+@)?(?i:{HOST}){PORT}/{URL_PATH}|[A-Za-z0-9_.-]+@(?i:{HOST}):{URL_PATH}|file:///{URL_PATH}"
)
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ?(h|d|w|m|mo|y)?(?:ours?|ays?|eeks?|onths?|nths?|ears?)?", re.I)
DAYS = {"h": 1 / 24, "d": 1, "w": 7, "m": 30, "mo": 30, "y": 365}


class Problem(NamedTuple):
    """Why a value is refused, and the answer to give instead."""

    why: str
    instead: str | bool


class Rule(NamedTuple):
    """One rule. `check` is asked only where `when` holds; `prompt` is the one to answer again."""

    name: str
    prompt: str
    check: Callable[[Answers], Problem | None]
    when: Callable[[Answers], bool] = lambda answers: True


def text(answers: Answers, prompt: str) -> str:
    return str(answers.get(prompt, ""))


def label(value: str, length: int, fallback: str) -> str:
    """The nearest DNS label to `value`, to propose."""
    ascii_value = unicodedata.normalize("NFKD", value).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_value).lstrip("-0123456789")[:length].strip("-") or fallback


def first(valid: Callable[[str], object], *candidates: str) -> str:
    """The first candidate that is accepted; the last one always is."""
    return next((candidate for candidate in candidates if valid(candidate)), candidates[-1])


# --- Names ---


def name_is_there(answers: Answers) -> Problem | None:
    if text(answers, "platform_name").strip():
        return None
    return Problem("it is the title of the README and of the dashboards", "Acme Platform")


def name_is_one_line(answers: Answers) -> Problem | None:
    value = text(answers, "platform_name")
    printable = all(unicodedata.category(c) not in {"Cc", "Cs", "Zl", "Zp"} for c in value)
    if printable and len(value) <= 80:
        return None
    cleaned = " ".join("".join(c if unicodedata.category(c)[0] not in "CZ" else " " for c in value).split())
    return Problem(
        "a name is one line of at most 80 characters, none of them a control character",
        cleaned[:80].strip() or "Acme Platform",
    )


def is_label(prompt: str, length: int, fallback: str) -> Callable[[Answers], Problem | None]:
    def check(answers: Answers) -> Problem | None:
        value = text(answers, prompt)
        if DNS_LABEL.fullmatch(value) and len(value) <= length:
            return None
        return Problem(
            f"Kubernetes takes only a DNS label here: lower-case letters, digits and -, "
            f"a letter first, no - last, at most {length} characters",
            label(value, length, fallback),
        )

    return check


def slug_is_not_a_yaml_word(answers: Answers) -> Problem | None:
    value = text(answers, "project_slug")
    return Problem("YAML reads this word as a value, not as text", f"{value}-platform") if value in YAML_WORDS else None


def team_is_free(answers: Answers) -> Problem | None:
    value = text(answers, "team")
    if value in RESERVED_TEAMS or value in YAML_WORDS or value.startswith("kube-"):
        return Problem(
            "the name is taken: by Kubernetes, by YAML or by the platform itself", label(f"team-{value}", TEAM, "")
        )
    return None


# --- The repository ---


def owner_is_a_path(answers: Answers) -> Problem | None:
    value = text(answers, "git_owner")
    part = r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9_-])?"
    if re.fullmatch(rf"{part}(/{part})*", value) and len(value) <= 255:
        return None
    path = SCHEME.sub("", value).partition("/")[2] if SCHEME.match(value) else value  # a pasted page of the owner
    parts = [label(part, 39, "") for part in path.split("/")[:4]]
    return Problem(
        "an owner is a user, an organisation or a group path: letters, digits and - _ . /",
        "/".join(filter(None, parts)) or "acme",
    )


def nearest_git_url(value: str) -> str:
    """`value` as Argo CD would read it: a scheme it knows, nothing secret, blanks encoded."""
    url = (value.strip().splitlines() or [""])[0]
    scheme, separator, rest = url.partition("://")
    if not separator:
        known = re.match(rf"{HOST}/|[A-Za-z0-9_.-]+@", url, re.I)
        scheme, rest = ("https", url) if known and ":" not in url else ("", url)
    scheme = {"http": "https", "git": "https"}.get(scheme.lower(), scheme.lower())
    host, slash, path = re.split(r"[?#]", rest)[0].partition("/")
    user, at, host = host.rpartition("@")
    if at and scheme != "https":  # ssh needs its user, and nothing else before the host
        host = f"{user.partition(':')[0]}@{host}"
    path = quote(path, safe="/~+%")
    return f"{scheme}://{host}{slash}{path}" if scheme else f"{host}{slash}{path}"


def repo_url_is_a_git_url(answers: Answers) -> Problem | None:
    value = text(answers, "repo_url")
    if GIT_URL.fullmatch(value):
        return None
    return Problem(
        "Argo CD reads https://, ssh://, git@host:path or file:/// and nothing else",
        first(GIT_URL.fullmatch, nearest_git_url(value), FOLLOWS["repo_url"](answers), "https://github.com/acme/acme"),
    )


def repo_url_has_no_credentials(answers: Answers) -> Problem | None:
    value = text(answers, "repo_url")
    found = re.match(r"([a-z]+)://([^/]*)@", value)
    if not found or (found[1] == "ssh" and ":" not in found[2]):
        return None
    return Problem(
        "the URL is kept in git, where a password or token must not be: give Argo CD the credentials in the cluster",
        nearest_git_url(value),
    )


def is_ref(value: str) -> bool:
    """`git check-ref-format`, and of its characters only those that need no quoting in a shell."""
    return (
        re.fullmatch(r"[A-Za-z0-9_./+-]{1,200}", value) is not None
        and not value.startswith("-")
        and ".." not in value
        and not value.endswith(".")
        and all(part and part[0] != "." and not part.endswith(".lock") for part in value.split("/"))
    )


def revision_is_a_ref(answers: Answers) -> Problem | None:
    value = text(answers, "repo_revision")
    if is_ref(value):
        return None
    return Problem(
        "git does not take this as the name of a branch, a tag or a commit", first(is_ref, value.strip(), "main")
    )


# --- Registries ---


def is_registry(value: str) -> bool:
    host = value.partition("/")[0]
    # Docker takes any other first part for a path of its hub.
    return (
        REGISTRY.fullmatch(value) is not None
        and (host == "localhost" or "." in host or ":" in host)
        and len(value) <= 128
    )


def registry_is_host_and_path(prompt: str) -> Callable[[Answers], Problem | None]:
    def check(answers: Answers) -> Problem | None:
        value = text(answers, prompt)
        if is_registry(value):
            return None
        host, _, path = SCHEME.sub("", value.strip()).lower().partition("/")
        host = host.rpartition("@")[2].replace("[::1]", "localhost")
        host = re.sub(r"\.+", ".", host).strip(".")
        path = re.split(r"[:@?#]", path)[0].strip("/")
        near = f"{host}/{path}".rstrip("/")
        without_port = re.sub(r"^([^/:]*):[^/]*", r"\1", near)
        owner = f"ghcr.io/{label(text(answers, 'git_owner'), 39, 'acme')}"
        return Problem(
            "a registry is host[:port]/path in lower case, without scheme, password, tag, digest or / at the end",
            first(is_registry, near, without_port, f"ghcr.io/{near}", owner),
        )

    return check


# --- Storage and retention ---


def stored(*providers: str) -> Callable[[Answers], bool]:
    return lambda answers: text(answers, "object_storage") in providers


def is_s3_bucket(value: str) -> bool:
    return (
        re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", value) is not None
        and ".." not in value
        and not IPV4.fullmatch(value)
        and not value.startswith(("xn--", "sthree-", "amzn-s3-demo-"))
        and not value.endswith(("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"))
    )


def is_gcs_bucket(value: str) -> bool:
    return (
        re.fullmatch(r"[a-z0-9][a-z0-9_.-]{1,61}[a-z0-9]", value) is not None
        and ".." not in value
        and not IPV4.fullmatch(value)
        and not value.startswith("goog")
        and "google" not in value
    )


def is_azure_container(value: str) -> bool:
    return re.fullmatch(r"[a-z0-9](-?[a-z0-9])*", value) is not None and 3 <= len(value) <= 63


def bucket(valid: Callable[[str], bool], why: str) -> Callable[[Answers], Problem | None]:
    def check(answers: Answers) -> Problem | None:
        value = text(answers, "object_storage_bucket")
        if valid(value):
            return None
        near = label(value, 45, "acme-platform")
        candidates = near, f"{near}-telemetry", f"telemetry-{near}", f"telemetry-{near.replace('google', 'g')}"
        return Problem(why, first(valid, *candidates, "acme-platform-telemetry"))

    return check


def is_s3_location(value: str) -> bool:
    own = re.fullmatch(rf"{HOST}{PORT}", value) and ("." in value or ":" in value)
    return bool((own and len(value) <= 253) or re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", value))


def s3_location(answers: Answers) -> Problem | None:
    value = text(answers, "object_storage_location")
    if is_s3_location(value):
        return None
    host = SCHEME.sub("", value.strip().lower()).partition("/")[0].rpartition("@")[2]
    return Problem(
        "S3 needs the bucket's region, such as eu-central-1, or the address of another S3 without a scheme, such as "
        "minio.example.com:9000 (it must speak TLS)",
        first(is_s3_location, host, re.sub(r"[\s_]+", "-", host), "us-east-1"),
    )


def azure_account(answers: Answers) -> Problem | None:
    value = text(answers, "object_storage_location")
    pattern = re.compile(r"[a-z0-9]{3,24}")
    if pattern.fullmatch(value):
        return None
    region = re.fullmatch(r"[a-z]+(-[a-z]+)+-[0-9]", value)  # what S3 is asked for at this prompt
    near, other = (
        re.sub(r"[^a-z0-9]", "", name.lower()) for name in (value, f"{text(answers, 'project_slug')}telemetry")
    )
    return Problem(
        "an Azure storage account has 3 to 24 lower-case letters and digits, nothing else",
        first(pattern.fullmatch, "" if region else near, other[:24]),
    )


def retention(prompt: str, usual: int, low: int, high: int, reason: str) -> Callable[[Answers], Problem | None]:
    """`usual`, `low` and `high` are days."""

    def check(answers: Answers) -> Problem | None:
        value = text(answers, prompt)
        whole = re.fullmatch(r"[1-9][0-9]{0,4}d", value)
        if whole and low <= int(value[:-1]) <= high:
            return None
        meant = DURATION.fullmatch(value.strip())
        days = -int(-float(meant[1]) * DAYS[(meant[2] or "d").lower()] // 1) if meant else usual  # rounded up
        return Problem(
            f"it must be from {low}d to {high}d: {reason}"
            if whole
            else "a retention is a whole number of days followed by d",
            f"{min(max(days, low), high)}d",
        )

    return check


# --- What depends on more than one answer, and the rest ---


def fluent_bit_is_yes_or_no(answers: Answers) -> Problem | None:
    value = answers.get("include_fluent_bit", False)
    return None if isinstance(value, bool) else Problem("it is yes or no", str(value).strip().lower() in YES)


def fluent_bit_has_somewhere_to_write(answers: Answers) -> Problem | None:
    if answers.get("include_fluent_bit") is True and text(answers, "log_backend") == "none":
        return Problem("Fluent Bit has nowhere to write while log_backend is none (or answer loki there)", False)
    return None


def is_class_name(value: str) -> bool:
    return bool(re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", value))


def ingress_class_is_a_name(answers: Answers) -> Problem | None:
    value = text(answers, "ingress_class")
    if is_class_name(value):
        return None
    lowered = re.sub(r"[^a-z0-9.-]+", "-", value.strip().lower()).strip("-.")[:63]
    return Problem(
        "an ingress class is named as `kubectl get ingressclass` shows it, in lower case",
        lowered if is_class_name(lowered) else "traefik",
    )


def is_domain(value: str) -> bool:
    return value == "" or (DNS_NAME.fullmatch(value) is not None and not IPV4.fullmatch(value) and len(value) <= 240)


def domain_is_a_dns_name(answers: Answers) -> Problem | None:
    value = text(answers, "domain")
    if is_domain(value):
        return None
    address = value.strip()
    try:
        host = urlsplit(address if SCHEME.match(address) else f"//{address}").hostname or ""
    except ValueError:
        host = ""
    host = re.sub(r"^(\*|grafana|argocd)\.|\.$", "", host)
    if IPV4.fullmatch(host):
        host += ".nip.io"
    return Problem(
        "Grafana and Argo CD become hosts below a DNS name, such as example.com: lower case, with a dot, no scheme, "
        "port, path or *",
        first(is_domain, host, ""),
    )


def is_choice(prompt: str) -> Callable[[Answers], Problem | None]:
    def check(answers: Answers) -> Problem | None:
        value, choices = text(answers, prompt), CHOICES[prompt]
        if value in choices:
            return None
        spelled, meant = {choice.lower(): choice for choice in choices}, value.strip().lower()
        near = [word for word in spelled if word in meant] or difflib.get_close_matches(meant, spelled, 1, 0.5)
        return Problem(f"it is one of {', '.join(choices)}", spelled[near[0]] if near else choices[0])

    return check


# Helm's release names end at 53 characters, and the team's project is the release argocd-project-<team>.
TEAM = 53 - len("argocd-project-")
COMPACTION = "Thanos compacts blocks of two days"
DOWNSAMPLING = "Thanos makes its 1h resolution from blocks ten days old, and raw samples must live until then"
S3_BUCKET = "S3 takes 3 to 63 lower-case letters, digits, - and . (no address, no reserved prefix or suffix)"
GCS_BUCKET = "Cloud Storage takes 3 to 63 lower-case letters, digits, - _ and . (no address, not goog…, no google)"
AZURE_CONTAINER = "an Azure container has 3 to 63 lower-case letters, digits and single hyphens"

# In the order of the prompts.
RULES = (
    Rule("platform-name-empty", "platform_name", name_is_there),
    Rule("platform-name-line", "platform_name", name_is_one_line),
    # kind adds -control-plane to the name, and a host name has 63 characters.
    Rule("project-slug-label", "project_slug", is_label("project_slug", 40, "acme-platform")),
    Rule("project-slug-word", "project_slug", slug_is_not_a_yaml_word),
    Rule("team-label", "team", is_label("team", TEAM, "checkout")),
    Rule("team-reserved", "team", team_is_free),
    Rule("git-owner", "git_owner", owner_is_a_path),
    Rule("repo-url-form", "repo_url", repo_url_is_a_git_url),
    Rule("repo-url-credentials", "repo_url", repo_url_has_no_credentials),
    Rule("repo-revision", "repo_revision", revision_is_a_ref),
    Rule("flask-app-source-choice", "flask_app_source", is_choice("flask_app_source")),
    Rule("oci-registry-form", "oci_registry", registry_is_host_and_path("oci_registry")),
    Rule("log-backend-choice", "log_backend", is_choice("log_backend")),
    Rule("fluent-bit-choice", "include_fluent_bit", fluent_bit_is_yes_or_no),
    Rule("fluent-bit-log-backend", "include_fluent_bit", fluent_bit_has_somewhere_to_write),
    Rule("object-storage-choice", "object_storage", is_choice("object_storage")),
    Rule("bucket-s3", "object_storage_bucket", bucket(is_s3_bucket, S3_BUCKET), stored("s3")),
    Rule("bucket-gcs", "object_storage_bucket", bucket(is_gcs_bucket, GCS_BUCKET), stored("gcs")),
    Rule("bucket-azure", "object_storage_bucket", bucket(is_azure_container, AZURE_CONTAINER), stored("azure")),
    Rule("location-s3", "object_storage_location", s3_location, stored("s3")),
    Rule("location-azure", "object_storage_location", azure_account, stored("azure")),
    Rule(
        "metrics-retention",
        "metrics_retention",
        retention("metrics_retention", 15, 2, 3650, COMPACTION),
        stored("none"),
    ),
    Rule(
        "metrics-retention-downsampling",
        "metrics_retention",
        retention("metrics_retention", 15, 10, 3650, DOWNSAMPLING),
        stored("s3", "gcs", "azure"),
    ),
    Rule("traces-retention", "traces_retention", retention("traces_retention", 7, 1, 365, "Tempo keeps whole days")),
    Rule(
        "logs-retention", "logs_retention", retention("logs_retention", 7, 1, 3650, "Loki's indexes cover whole days")
    ),
    Rule("domain", "domain", domain_is_a_dns_name),
    Rule("ingress-class", "ingress_class", ingress_class_is_a_name),
    Rule("secrets-backend-choice", "secrets_backend", is_choice("secrets_backend")),
    Rule("terraform-backend-choice", "terraform_backend", is_choice("terraform_backend")),
    Rule(
        "chart-registry-form",
        "chart_registry",
        registry_is_host_and_path("chart_registry"),
        lambda answers: text(answers, "chart_registry") != "",
    ),
    Rule("license-choice", "license", is_choice("license")),
)


def changed(answers: Answers, changes: Answers) -> dict[str, object]:
    """The answers with these changes; defaults that follow from a changed answer change with it."""
    result = dict(answers)
    for prompt in (*answers, *(set(changes) - set(answers))):
        if prompt in changes:
            result[prompt] = changes[prompt]
        elif prompt in FOLLOWS and answers[prompt] == FOLLOWS[prompt](answers):
            result[prompt] = FOLLOWS[prompt](result)
    return result


def judge(answers: Answers) -> tuple[list[tuple[Rule, Problem]], dict[str, object]]:
    """The problems, at most one a prompt and in the order of the prompts, and the answers without them."""
    found: dict[str, tuple[Rule, Problem]] = {}
    corrected = dict(answers)
    for rule in RULES:
        problem = rule.check(corrected) if rule.when(corrected) else None
        if problem:
            # What is proposed has to pass the prompt's other rules too.
            cause, why = (
                (found[rule.prompt][0], found[rule.prompt][1].why) if rule.prompt in found else (rule, problem.why)
            )
            found[rule.prompt] = cause, Problem(why, problem.instead)
            corrected = changed(corrected, {rule.prompt: problem.instead})
    return list(found.values()), corrected


# --- The person's command and configuration file ---


def command_line() -> list[str]:
    """The words of the command that runs this hook: Cookiecutter's or cruft's."""
    parent = os.getppid()
    try:
        return Path(f"/proc/{parent}/cmdline").read_text(errors="replace").rstrip("\0").split("\0")
    except OSError:  # no /proc on macOS
        ps = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(parent)], capture_output=True, text=True)
        return ps.stdout.split()


def option(words: list[str], *names: str) -> str | None:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in names:
            return following
        if word.startswith("--") and word.partition("=")[0] in names:
            return word.partition("=")[2]
    return None


def unheard(words: list[str]) -> dict[str, object]:
    """What the person's configuration file says and Cookiecutter did not hear.

    It drops an answer that is none of the choices, and every answer after it, with a mere warning. At the prompts the
    person sees what became of them; without input, nobody does.
    """
    if not {"--no-input", "-y"} & set(words) or "update" in words:  # cruft update takes every answer from .cruft.json
        return {}
    from cookiecutter.config import get_user_config
    from cookiecutter.exceptions import CookiecutterException

    named = option(words, "--config-file")
    path = named and str(Path(os.environ.get("PWD", ""), Path(named).expanduser()))
    try:
        said = get_user_config(path, bool({"--default-config", "-d"} & set(words)))["default_context"]
    except CookiecutterException as error:
        print(f"The choices in {named} could not be checked: {error}", file=sys.stderr)
        return {}
    for position, (prompt, value) in enumerate(said.items()):
        bad_choice = prompt in CHOICES and not isinstance(value, list) and value not in CHOICES[prompt]
        not_a_bool = prompt == "include_fluent_bit" and isinstance(value, str) and value.strip().lower() not in YES + NO
        if bad_choice or not_a_bool:
            given = {word.partition("=")[0] for word in words if "=" in word}
            prompts = {rule.prompt for rule in RULES}
            return {
                name: said[name]
                for name in list(said)[position:]
                if name in prompts and (name == prompt or name not in given)
            }
    return {}


def kept(corrected: Answers) -> str:
    """The answers as a configuration file of Cookiecutter, which reads them as Jinja. Returns its path."""
    answers = {}
    for prompt in {rule.prompt: None for rule in RULES}:
        value = corrected.get(prompt, "")
        if isinstance(value, str) and re.search(r"{[%#{]", value):  # this file is rendered as well: no two braces here
            value = "{" + "{ " + json.dumps(value, ensure_ascii=False) + " }" + "}"
        answers[prompt] = value
    content = json.dumps({"default_context": answers}, ensure_ascii=False, indent=2)
    # YAML takes every character but these.
    content = re.sub("[\x7f-\x9f\ufffe\uffff]", lambda found: f"\\u{ord(found[0]):04x}", content)
    with tempfile.NamedTemporaryFile(
        "w", prefix=f"{corrected.get('project_slug')}-answers-", suffix=".yaml", delete=False, encoding="utf-8"
    ) as file:
        file.write(content + "\n")
    return file.name


def go_on(words: list[str], answers: Answers, found: list[tuple[Rule, Problem]], corrected: Answers) -> list[str]:
    """The lines that tell how to go on without typing everything again."""
    tool = "cruft" if "_commit" in answers else "cookiecutter"
    program = [tool] if shutil.which(tool) else [sys.executable, "-m", tool]  # pipx run leaves nothing on PATH
    if tool == "cruft" and "update" in words:
        changes = {rule.prompt: problem.instead for rule, problem in found}
        return [
            "Go on with what is proposed:",
            f"  {shlex.join([*program, 'update', '--variables-to-update', json.dumps(changes)])}",
        ]
    path = kept(corrected)
    if tool == "cruft":
        program.append("create")
    command = [*program, "--no-input", "--config-file", path]
    # Cookiecutter has made the folder of this name, and runs the hook in it.
    depth = len(Path(text(answers, "project_slug")).parts)
    folder = answers.get("_output_dir") or str(Path.cwd().parents[max(depth, 1) - 1])
    if folder != os.environ.get("PWD"):
        command += ["--output-dir", str(folder)]
    if checkout := answers.get("_checkout") or option(words, "--checkout", "-c"):
        command += ["--checkout", str(checkout)]
    return [
        "Go on from your other answers and what is proposed (for something else, edit the file first):",
        f"  {shlex.join([*command, text(answers, '_template')])}",
    ]


def left_behind(words: list[str], slug: str) -> list[str]:
    """The line that removes the empty folders above `slug`: Cookiecutter made them before this hook, and keeps them."""
    above = len([part for part in Path(slug).parts if part not in ("/", "..")]) - 1
    if above < 1 or "update" in words:
        return []
    folders = [str(folder) for folder in Path.cwd().parents[:above]]
    return ["Cookiecutter leaves a folder behind:", f"  {shlex.join(['rmdir', *folders])}"]


def shown(value: object) -> str:
    """An answer as it is typed at its prompt."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) or "nothing (leave it empty)"


def report(answers: Answers, found: list[tuple[Rule, Problem]]) -> str:
    """The text for the person who answered, without passwords."""
    lines = [f"{len(found)} answer{'s need' if len(found) > 1 else ' needs'} a change. Nothing was baked."]
    for rule, problem in found:
        value = json.dumps(answers.get(rule.prompt), ensure_ascii=False)
        value = re.sub(r"://.*@", "://***@", value)
        value = re.sub(r'^"(?!\w+://)[^\s/]*:\S*@', '"***@', value)
        lines += [
            "",
            f"{rule.prompt}: {value} [{rule.name}]",
            f"  why:  {problem.why}",
            f"  type: {shown(problem.instead)}",
        ]
    return "\n".join(lines)


def main(answers: Answers) -> int:
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    words = command_line()
    answers = changed(answers, unheard(words))
    found, corrected = judge(answers)
    if found:
        lines = [report(answers, found), "", *go_on(words, answers, found, corrected)]
        lines += [*left_behind(words, text(answers, "project_slug")), ""]
        lines += ["What follows is how Cookiecutter ends after a refusal."]
        print("", *lines, sep="\n", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    # Any answer survives this: JSON escapes every double quote of a text, so three in a row only end the literal.
    sys.exit(main(json.loads(r"""{{ cookiecutter | jsonify }}""")))
