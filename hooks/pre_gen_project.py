"""Refuses answers that would not make a working platform: every problem at once, each with what to type instead.

Standard library only: Cookiecutter runs this with whatever Python it runs on itself (3.10 or later).
Each rule looks at the answers and returns None, or the problem: why the value is refused and what to type instead.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

Answers = Mapping[str, object]

CHOICES = {
    "flask_app_source": ("git", "oci"),
    "log_backend": ("loki", "none"),
    "object_storage": ("none", "s3", "gcs", "azure"),
    "secrets_backend": ("kubernetes", "external-secrets", "sealed-secrets"),
    "terraform_backend": ("local", "s3", "gcs", "azurerm", "kubernetes"),
    "license": ("Apache-2.0", "MIT", "BSD-3-Clause", "Proprietary"),
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
IPV4 = re.compile(r"\d{1,3}(\.\d{1,3}){3}")
OCI_PATH = re.compile(r"[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*")
OCI_HOST = re.compile(r"(localhost|[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*)(:\d{1,5})?")
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class Problem(NamedTuple):
    """Why a value is refused, and what to type instead."""

    why: str
    instead: str


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


# --- Names ---


def name_is_there(answers: Answers) -> Problem | None:
    if text(answers, "platform_name").strip():
        return None
    return Problem("it is the title of the README and of the dashboards", "a name such as Acme Platform")


def name_is_one_line(answers: Answers) -> Problem | None:
    value = text(answers, "platform_name")
    printable = all(unicodedata.category(c) not in {"Cc", "Cs", "Zl", "Zp"} for c in value)
    if printable and len(value) <= 80:
        return None
    cleaned = " ".join("".join(c if unicodedata.category(c)[0] not in "CZ" else " " for c in value).split())
    return Problem(
        "a name is one line of at most 80 characters, none of them a control character", cleaned[:80] or "Acme Platform"
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
        return Problem("the name is taken: by Kubernetes, by YAML or by the platform itself", f"team-{value}")
    return None


# --- The repository ---


def owner_is_a_path(answers: Answers) -> Problem | None:
    value = text(answers, "git_owner")
    part = r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9_-])?"
    if re.fullmatch(rf"{part}(/{part})*", value, re.ASCII) and len(value) <= 255:
        return None
    return Problem(
        "an owner is a user, an organisation or a group path: letters, digits and - _ . /", label(value, 39, "acme")
    )


def url_of(answers: Answers) -> str:
    return f"https://github.com/{label(text(answers, 'git_owner'), 39, 'acme')}/{text(answers, 'project_slug')}.git"


def repo_url_is_a_git_url(answers: Answers) -> Problem | None:
    value = text(answers, "repo_url")
    forms = (
        r"https://([^\s/@]+@)?[A-Za-z0-9.-]+(:\d{1,5})?/[A-Za-z0-9_.~/+-]+",
        r"ssh://([^\s/@]+@)?[A-Za-z0-9.-]+(:\d{1,5})?/[A-Za-z0-9_.~/+-]+",
        r"[A-Za-z0-9_.-]+@[A-Za-z0-9.-]+:[A-Za-z0-9_.~/+-]+",
        r"file:///[A-Za-z0-9_.~/+-]+",
    )
    if any(re.fullmatch(form, value, re.ASCII) for form in forms):
        return None
    return Problem("Argo CD reads https://, ssh://, git@host:path or file:/// and nothing else", url_of(answers))


def repo_url_has_no_credentials(answers: Answers) -> Problem | None:
    value = text(answers, "repo_url")
    found = re.match(r"([a-z]+)://([^/]*)@", value)
    if not found or (found[1] == "ssh" and ":" not in found[2]):
        return None
    return Problem(
        "the URL is kept in git, where a password or token must not be: give Argo CD the credentials in the cluster",
        value.replace(f"{found[2]}@", "", 1),
    )


def revision_is_a_ref(answers: Answers) -> Problem | None:
    """`git check-ref-format`, and of its characters only those that need no quoting in a shell."""
    value = text(answers, "repo_revision")
    parts = value.split("/")
    if (
        re.fullmatch(r"[A-Za-z0-9_./+-]{1,200}", value, re.ASCII)
        and not value.startswith("-")
        and ".." not in value
        and not value.endswith(".")
        and all(part and part[0] != "." and not part.endswith(".lock") for part in parts)
    ):
        return None
    return Problem("git does not take this as the name of a branch, a tag or a commit", "main")


# --- Registries ---


def registry_has_no_scheme(prompt: str) -> Callable[[Answers], Problem | None]:
    def check(answers: Answers) -> Problem | None:
        value = text(answers, prompt)
        if not SCHEME.match(value):
            return None
        return Problem("an OCI registry is named without a scheme", SCHEME.sub("", value).rstrip("/").lower())

    return check


def registry_is_host_and_path(prompt: str) -> Callable[[Answers], Problem | None]:
    def check(answers: Answers) -> Problem | None:
        value = SCHEME.sub("", text(answers, prompt))  # the scheme has a rule of its own
        host, slash, path = value.partition("/")
        if (
            OCI_HOST.fullmatch(host)
            and (host == "localhost" or "." in host or ":" in host)  # otherwise Docker takes it for a path of its hub
            and (OCI_PATH.fullmatch(path) if slash else True)
            and len(value) <= 128
        ):
            return None
        lowered = re.sub(r"(?<=/)([^:@]*)[:@].*", r"\1", value.lower()).rstrip("/")
        host = lowered.partition("/")[0]
        known = host == "localhost" or "." in host or ":" in host
        proposal = lowered if known else f"ghcr.io/{lowered or 'acme'}"
        path = proposal.partition("/")[2]
        return Problem(
            "a registry is host[:port]/path in lower case, without tag, digest or / at the end",
            proposal if OCI_PATH.fullmatch(path) else "ghcr.io/acme",
        )

    return check


# --- Storage and retention ---


def stored(*providers: str) -> Callable[[Answers], bool]:
    return lambda answers: text(answers, "object_storage") in providers


def bucket_fallback(answers: Answers) -> str:
    return label(text(answers, "object_storage_bucket"), 50, "acme-platform") + "-telemetry"


def s3_bucket(answers: Answers) -> Problem | None:
    value = text(answers, "object_storage_bucket")
    if (
        re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", value)
        and ".." not in value
        and not IPV4.fullmatch(value)
        and not value.startswith(("xn--", "sthree-", "amzn-s3-demo-"))
        and not value.endswith(("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"))
    ):
        return None
    return Problem(
        "S3 takes 3 to 63 lower-case letters, digits, - and . (no address, no reserved prefix or suffix)",
        bucket_fallback(answers),
    )


def gcs_bucket(answers: Answers) -> Problem | None:
    value = text(answers, "object_storage_bucket")
    if (
        re.fullmatch(r"[a-z0-9][a-z0-9_.-]{1,61}[a-z0-9]", value)
        and ".." not in value
        and not IPV4.fullmatch(value)
        and not value.startswith("goog")
        and "google" not in value
    ):
        return None
    return Problem(
        "Cloud Storage takes 3 to 63 lower-case letters, digits, - _ and . (no address, not goog…, no google)",
        bucket_fallback(answers).replace("goog", "g"),
    )


def azure_container(answers: Answers) -> Problem | None:
    value = text(answers, "object_storage_bucket")
    if re.fullmatch(r"[a-z0-9](-?[a-z0-9]){2,62}", value):
        return None
    return Problem(
        "an Azure container has 3 to 63 lower-case letters, digits and single hyphens", bucket_fallback(answers)
    )


def s3_location(answers: Answers) -> Problem | None:
    value = text(answers, "object_storage_location")
    label = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
    own = re.fullmatch(rf"{label}(\.{label})*(:(?P<port>[1-9][0-9]?[0-9]?[0-9]?[0-9]?))?", value, re.ASCII)
    if re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", value) or (
        own and ("." in value or own["port"]) and int(own["port"] or 443) < 65536
    ):
        return None
    return Problem(
        "S3 needs the bucket's region, such as eu-central-1, or the address of another S3 without a scheme, such as "
        "minio.example.com:9000 (it must speak TLS)",
        "us-east-1",
    )


def azure_account(answers: Answers) -> Problem | None:
    value = text(answers, "object_storage_location")
    if re.fullmatch(r"[a-z0-9]{3,24}", value):
        return None
    proposal = re.sub(r"[^a-z0-9]", "", f"{text(answers, 'project_slug')}telemetry".lower())[:24]
    return Problem("an Azure storage account has 3 to 24 lower-case letters and digits, nothing else", proposal)


def retention(prompt: str, low: int, high: int, reason: str) -> Callable[[Answers], Problem | None]:
    def check(answers: Answers) -> Problem | None:
        value = text(answers, prompt)
        if not re.fullmatch(r"[1-9][0-9]{0,4}d", value, re.ASCII):
            return Problem("a retention is a whole number of days followed by d", f"{max(low, 15)}d")
        if low <= int(value[:-1]) <= high:
            return None
        return Problem(f"it must be from {low}d to {high}d: {reason}", f"{low if int(value[:-1]) < low else high}d")

    return check


# --- What depends on more than one answer, and the rest ---


def fluent_bit_has_somewhere_to_write(answers: Answers) -> Problem | None:
    if str(answers.get("include_fluent_bit")).lower() == "true" and text(answers, "log_backend") == "none":
        return Problem("Fluent Bit has nowhere to write while log_backend is none", "no, or log_backend loki")
    return None


def ingress_class_is_a_name(answers: Answers) -> Problem | None:
    if re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", text(answers, "ingress_class")):
        return None
    return Problem("an ingress class is named as `kubectl get ingressclass` shows it, in lower case", "traefik")


def domain_is_a_dns_name(answers: Answers) -> Problem | None:
    value = text(answers, "domain")
    if not value or (DNS_NAME.fullmatch(value) and not IPV4.fullmatch(value) and len(value) <= 240):
        return None
    host = value.strip()
    if SCHEME.match(host):
        try:
            host = urlsplit(host).hostname or ""
        except ValueError:
            host = ""
    host = re.sub(r"^\*\.|[:/].*$|\.$", "", host.lower())
    if IPV4.fullmatch(host):
        host += ".nip.io"
    return Problem(
        "Grafana and Argo CD become hosts below a DNS name: lower case, with a dot, no scheme, port, path or *",
        host if DNS_NAME.fullmatch(host) else "example.com, or nothing",
    )


def is_choice(prompt: str) -> Callable[[Answers], Problem | None]:
    def check(answers: Answers) -> Problem | None:
        if text(answers, prompt) in CHOICES[prompt]:
            return None
        return Problem(f"it is one of {', '.join(CHOICES[prompt])}", CHOICES[prompt][0])

    return check


def fluent_bit_is_yes_or_no(answers: Answers) -> Problem | None:
    if str(answers.get("include_fluent_bit")).lower() in {"true", "false"}:
        return None
    return Problem("it is true or false", "false")


COMPACTION = "Thanos compacts blocks of two days"
DOWNSAMPLING = "Thanos makes its 1h resolution from blocks ten days old, and raw samples must live until then"

RULES = (
    Rule("platform-name-empty", "platform_name", name_is_there),
    Rule("platform-name-line", "platform_name", name_is_one_line),
    # kind adds -control-plane to the name, and a host name has 63 characters.
    Rule("project-slug-label", "project_slug", is_label("project_slug", 40, "acme-platform")),
    Rule("project-slug-word", "project_slug", slug_is_not_a_yaml_word),
    Rule("team-label", "team", is_label("team", 63, "checkout")),
    Rule("team-reserved", "team", team_is_free),
    Rule("git-owner", "git_owner", owner_is_a_path),
    Rule("repo-url-form", "repo_url", repo_url_is_a_git_url),
    Rule("repo-url-credentials", "repo_url", repo_url_has_no_credentials),
    Rule("repo-revision", "repo_revision", revision_is_a_ref),
    Rule("oci-registry-scheme", "oci_registry", registry_has_no_scheme("oci_registry")),
    Rule("oci-registry-form", "oci_registry", registry_is_host_and_path("oci_registry")),
    Rule("chart-registry-scheme", "chart_registry", registry_has_no_scheme("chart_registry")),
    Rule(
        "chart-registry-form",
        "chart_registry",
        registry_is_host_and_path("chart_registry"),
        lambda answers: text(answers, "chart_registry") != "",
    ),
    Rule("fluent-bit-log-backend", "include_fluent_bit", fluent_bit_has_somewhere_to_write),
    Rule("fluent-bit-choice", "include_fluent_bit", fluent_bit_is_yes_or_no),
    Rule("bucket-s3", "object_storage_bucket", s3_bucket, stored("s3")),
    Rule("bucket-gcs", "object_storage_bucket", gcs_bucket, stored("gcs")),
    Rule("bucket-azure", "object_storage_bucket", azure_container, stored("azure")),
    Rule("location-s3", "object_storage_location", s3_location, stored("s3")),
    Rule("location-azure", "object_storage_location", azure_account, stored("azure")),
    Rule("metrics-retention", "metrics_retention", retention("metrics_retention", 2, 3650, COMPACTION), stored("none")),
    Rule(
        "metrics-retention-downsampling",
        "metrics_retention",
        retention("metrics_retention", 10, 3650, DOWNSAMPLING),
        stored("s3", "gcs", "azure"),
    ),
    Rule("traces-retention", "traces_retention", retention("traces_retention", 1, 365, "Tempo keeps whole days")),
    Rule("logs-retention", "logs_retention", retention("logs_retention", 1, 3650, "Loki's indexes cover whole days")),
    Rule("domain", "domain", domain_is_a_dns_name),
    Rule("ingress-class", "ingress_class", ingress_class_is_a_name),
    *(Rule(f"{prompt.replace('_', '-')}-choice", prompt, is_choice(prompt)) for prompt in CHOICES),
)


def problems(answers: Answers) -> list[tuple[Rule, Problem]]:
    """Every rule that refuses these answers, in the order of the prompts."""
    found = ((rule, rule.check(answers)) for rule in RULES if rule.when(answers))
    return [(rule, problem) for rule, problem in found if problem]


def report(answers: Answers, found: list[tuple[Rule, Problem]]) -> str:
    """The text for the person who answered. A refused URL with credentials is not printed."""
    lines = [f"{len(found)} answer{'s need' if len(found) > 1 else ' needs'} a change. Nothing was written."]
    for rule, problem in found:
        value = json.dumps(answers.get(rule.prompt), ensure_ascii=False)
        if rule.prompt == "repo_url":
            value = re.sub(r"://[^/]*@", "://***@", value)
        lines += ["", f"{rule.prompt}: {value} [{rule.name}]", f"  why:  {problem.why}", f"  type: {problem.instead}"]
    return "\n".join(lines)


def main(answers: Answers) -> int:
    sys.stderr.reconfigure(errors="backslashreplace")
    found = problems(answers)
    if found:
        print(f"\n{report(answers, found)}\n", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    # Any answer survives this: JSON escapes every double quote of a text, so three in a row only end the literal.
    sys.exit(main(json.loads(r"""{{ cookiecutter | jsonify }}""")))
