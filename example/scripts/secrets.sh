#!/usr/bin/env bash
# Creates the Secrets that the platform reads and the cluster lacks: secrets.sh [ENVIRONMENT] [--rotate]. Safe to
# repeat: what is there stays as it is, and no value is ever printed. --rotate gives each a new value and tells it to
# whoever reads it. WAIT_SECONDS (1200) bounds the wait for a new value that is delivered by others.
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
case ${2:-} in
  "" | --rotate) rotate=${2:-} ;;
  *) die "usage: scripts/secrets.sh [ENVIRONMENT] [--rotate]" ;;
esac

random() { LC_ALL=C tr -dc 'A-Za-z0-9' </dev/urandom | head -c 32 || true; }

# make_secret NAMESPACE NAME KEY LITERAL... [-- KUBECTL ARGUMENTS]: the value comes by standard input; `ps` shows
# arguments.
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

# unreadable NAMESPACE NAME: the controller has it, and no key that opens it. A rebuilt cluster has a new key.
unreadable() {
  kube -n "$1" get sealedsecrets.bitnami.com "$2" -o jsonpath='{.status.conditions[*].message}' 2>/dev/null |
    grep -q 'no key could decrypt'
}

sealed() {
  local namespace=$1 name=$2 file=platform-apps/sealed-secrets/sealed/$ENVIRONMENT/$1-$2.yaml
  if [ -e "$file" ] && unreadable "$namespace" "$name"; then
    say "$namespace/$name: $file was sealed for a key that this cluster does not have; sealing a new value"
  elif [ -e "$file" ]; then
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

# state NAMESPACE NAME: changes with the Secret.
state() { kube -n "$1" get secret "$2" -o jsonpath='{.metadata.uid} {.metadata.resourceVersion}' 2>/dev/null || true; }

# new_value NAMESPACE NAME KEY LITERAL...: has the Secret made anew where it comes from, and waits until it is there.
new_value() {
  local namespace=$1 name=$2 before file deadline
  before=$(state "$namespace" "$name")
  if [ -d platform-apps/external-secrets ]; then
    if [ "$(kube -n "$namespace" get externalsecret "$name" -o jsonpath='{.spec.refreshPolicy}')" = CreatedOnce ]; then
      kube -n "$namespace" delete secret "$name" >/dev/null
    fi
    kube -n "$namespace" annotate externalsecret "$name" --overwrite "force-sync=$(date +%s)" >/dev/null
    say "$namespace/$name: waiting for External Secrets to bring a value that differs (change it in the secret store, if there is one)"
  elif [ -d platform-apps/sealed-secrets ] && [ "$ENVIRONMENT" != local ]; then
    file=platform-apps/sealed-secrets/sealed/$ENVIRONMENT/$namespace-$name.yaml
    # Not committed: an earlier run was stopped while it waited.
    if [ ! -e "$file" ] || [ -z "$(git status --porcelain -- "$file")" ]; then
      rm -f "$file"
      sealed "$@"
    fi
    say "$namespace/$name: waiting for Argo CD to deliver it: commit and push $file now"
  else
    make_secret "$@" -- --dry-run=client -o yaml | kube replace -f - >/dev/null
  fi
  deadline=$((SECONDS + ${WAIT_SECONDS:-1200}))
  while [ -z "$(state "$namespace" "$name")" ] || [ "$(state "$namespace" "$name")" = "$before" ]; do
    [ $SECONDS -lt $deadline ] || die "$namespace/$name: no new value has arrived. Nothing else was changed; run this again to go on."
    sleep 2
  done
  say "$namespace/$name: has a new value"
}

# Grafana reads its Secret when it makes its database, and never again: the password has to be set there too. The
# restart is for the sidecar, which logs in with what it was started with.
tell_readers() {
  [ "$1/$2" = observability/grafana-admin ] || return 0
  kube -n observability get secret grafana-admin -o go-template='{{index .data "admin-password" | base64decode}}' |
    kube -n observability exec -i deployment/grafana -c grafana -- grafana cli --homepath /usr/share/grafana \
      --config /etc/grafana/grafana.ini admin reset-admin-password --password-from-stdin >/dev/null
  kube -n observability rollout restart deployment/grafana >/dev/null
  kube -n observability rollout status deployment/grafana --timeout=300s >/dev/null
  say "observability/grafana-admin: Grafana's administrator logs in with it"
}

for line in "${secrets[@]}"; do
  read -r namespace name key literals <<<"$line"
  read -ra literals <<<"$literals"
  if [ -n "$rotate" ]; then
    kube -n "$namespace" get secret "$name" >/dev/null 2>&1 || die "$namespace/$name is not there yet: make secrets ENV=$ENVIRONMENT"
    new_value "$namespace" "$name" "$key" "${literals[@]}"
    tell_readers "$namespace" "$name"
  elif kube -n "$namespace" get secret "$name" >/dev/null 2>&1; then
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
