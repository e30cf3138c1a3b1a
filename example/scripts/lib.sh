# shellcheck shell=bash
# What the cluster scripts share. Source it.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P) # as git and the container runtime see it, whatever links lead here
MINIMUM_KUBERNETES=1.30 # pods that sleep before they stop; the charts' kubeVersion says so too
MINIMUM_KIND=0.24       # enforces NetworkPolicies

say() { printf '%s\n' "$@"; }
warn() { printf '%s\n' "$@" >&2; }
die() {
  warn "$@"
  exit 1
}

# need TOOL...: names every missing tool and where to get it, then stops.
need() {
  local tool missing=()
  for tool in "$@"; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  [ ${#missing[@]} -eq 0 ] && return
  warn "Missing on this machine:"
  for tool in "${missing[@]}"; do
    case $tool in
      docker) warn "  docker     https://docs.docker.com/engine/install/" ;;
      kind) warn "  kind       https://kind.sigs.k8s.io/docs/user/quick-start/#installation ($MINIMUM_KIND or newer)" ;;
      kubeseal) warn "  kubeseal   https://github.com/bitnami-labs/sealed-secrets#kubeseal" ;;
      kubectl) warn "  kubectl    https://kubernetes.io/docs/tasks/tools/#kubectl" ;;
      terraform) warn "  terraform  https://developer.hashicorp.com/terraform/install (1.10 or newer)" ;;
      *) warn "  $tool" ;;
    esac
  done
  exit 1
}

# at_least VERSION MINIMUM: numbers alone, as in 1.34.4.
at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -t . -k 1,1n -k 2,2n -k 3,3n | head -n 1)" = "$2" ]; }

# setting NAME FILE...: the value of `NAME = "..."` in the last of the tfvars files that has one.
setting() {
  local name=$1
  shift
  sed -n "s/^${name}[[:space:]]*=[[:space:]]*\"\(.*\)\".*/\1/p" "$@" | tail -n 1
}

# use_environment NAME: sets ENVIRONMENT, PLATFORM, TEAM, DOMAIN and CONTEXT (empty: kubectl's current one).
# KUBE_CONTEXT in the caller's environment wins over the context in the tfvars file.
use_environment() {
  local folder=$ROOT/terraform known
  ENVIRONMENT=$1
  if [ ! -f "$folder/environments/$ENVIRONMENT.tfvars" ]; then
    known=$(cd "$folder/environments" && printf '%s ' *.tfvars | sed 's/\.tfvars//g')
    die "There is no environment '$ENVIRONMENT'. There are: $known"
  fi
  local files=("$folder/terraform.tfvars" "$folder/environments/$ENVIRONMENT.tfvars")
  PLATFORM=$(setting platform "${files[@]}")
  TEAM=$(setting team "${files[@]}")
  DOMAIN=$(setting domain "${files[@]}")
  CONTEXT=${KUBE_CONTEXT:-$(setting kube_context "${files[@]}")}
  export ENVIRONMENT PLATFORM TEAM DOMAIN CONTEXT
}

# kube ARGS...: kubectl in the environment's cluster.
kube() {
  if [ -n "$CONTEXT" ]; then
    kubectl --context "$CONTEXT" "$@"
  else
    kubectl "$@"
  fi
}

require_cluster() {
  local said version
  said=$(kube version --request-timeout=10s 2>/dev/null) ||
    die "No answer from the cluster (context '${CONTEXT:-$(kubectl config current-context 2>/dev/null || echo none)}')." \
      "Is it running, and does KUBECONFIG name it? For a cluster on this machine: make up"
  version=$(sed -n 's/^Server Version: v\([0-9.]*\).*/\1/p' <<<"$said")
  at_least "$version" "$MINIMUM_KUBERNETES" || die "The cluster runs Kubernetes $version; the platform needs $MINIMUM_KUBERNETES or newer."
}
