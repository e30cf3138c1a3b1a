#!/usr/bin/env bash
# Creates the Secrets that the platform reads and the cluster lacks: secrets.sh [ENVIRONMENT]. Safe to repeat: what is
# there stays as it is, and no value is ever printed.
set -euo pipefail
# shellcheck source=/dev/null
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Namespace, name, the key that gets a random value, and the other keys.
secrets=(
  "observability grafana-admin admin-password admin-user=admin"
)

need kubectl
use_environment "${1:-local}"
require_cluster
cd "$ROOT"

random() { LC_ALL=C tr -dc 'A-Za-z0-9' </dev/urandom | head -c 32 || true; }

# make_secret NAMESPACE NAME KEY LITERAL... [-- KUBECTL ARGUMENTS]: the value comes by standard input; `ps` shows arguments.
make_secret() {
  local namespace=$1 name=$2 key=$3 literals=()
  shift 3
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    literals+=("--from-literal=$1")
    shift
  done
  [ $# -eq 0 ] || shift
  random | kube -n "$namespace" create secret generic "$name" --from-file="$key=/dev/stdin" "${literals[@]}" "$@"
}

sealed() {
  local namespace=$1 name=$2 file=platform-apps/sealed-secrets/sealed/$ENVIRONMENT/$1-$2.yaml
  if [ -e "$file" ]; then
    say "$namespace/$name: sealed in $file; commit it, and Argo CD delivers it"
    return
  fi
  need kubeseal
  mkdir -p "$(dirname "$file")"
  make_secret "$@" -- --dry-run=client -o yaml |
    kubeseal ${CONTEXT:+--context "$CONTEXT"} --format yaml --controller-name sealed-secrets --controller-namespace sealed-secrets >"$file.new"
  mv "$file.new" "$file"
  say "$namespace/$name: sealed into $file; commit it, and Argo CD delivers it"
}

external() {
  local namespace=$1 name=$2
  if ! kube -n "$namespace" get externalsecret "$name" >/dev/null 2>&1; then
    say "$namespace/$name: waits for its ExternalSecret, which Argo CD makes (platform-apps/external-secrets)"
    return
  fi
  say "$namespace/$name: External Secrets has not made it (yet). What it says:"
  kube -n "$namespace" get externalsecret "$name" \
    -o jsonpath='{range .status.conditions[*]}  {.reason}: {.message}{"\n"}{end}'
}

for line in "${secrets[@]}"; do
  read -r namespace name key literals <<<"$line"
  read -ra literals <<<"$literals"
  if kube -n "$namespace" get secret "$name" >/dev/null 2>&1; then
    say "$namespace/$name: there"
  elif [ -d platform-apps/external-secrets ]; then
    external "$namespace" "$name"
  elif [ -d platform-apps/sealed-secrets ] && [ "$ENVIRONMENT" != local ]; then
    # A laptop's cluster has a new sealing key each time, so a file sealed for it would be of no use to anybody.
    sealed "$namespace" "$name" "$key" "${literals[@]}"
  else
    kube get namespace "$namespace" >/dev/null 2>&1 ||
      die "There is no namespace '$namespace' yet; Terraform makes it: make apply ENV=$ENVIRONMENT"
    make_secret "$namespace" "$name" "$key" "${literals[@]}" >/dev/null
    say "$namespace/$name: created"
  fi
done
