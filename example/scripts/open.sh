#!/usr/bin/env bash
# Forwards Grafana, Argo CD and every app to this machine until Ctrl-C: open.sh [ENVIRONMENT]
set -euo pipefail
# shellcheck source=/dev/null
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need kubectl
use_environment "${1:-local}"
cd "$ROOT"
require_cluster

trap 'trap - EXIT INT TERM; kill $(jobs -p) 2>/dev/null || true; wait' EXIT
trap 'exit 0' INT TERM

taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# forward NAME NAMESPACE SERVICE PORT: PORT, or the next free one, leads to port 80 of the Service.
forward() {
  local name=$1 namespace=$2 service=$3 port=$4
  if ! kube -n "$namespace" get service "$service" >/dev/null 2>&1; then
    say "$(printf '%-9s' "$name") not there (yet): no Service $namespace/$service"
    return
  fi
  while taken "$port"; do port=$((port + 1)); done
  # kubectl ends when the pod does; the next one takes over.
  (
    trap 'kill "${pid:-}" 2>/dev/null; exit' TERM
    while :; do
      kube -n "$namespace" port-forward --address 127.0.0.1 "service/$service" "$port:80" >/dev/null 2>&1 &
      pid=$!
      wait "$pid" || true
      sleep 1
    done
  ) &
  say "$(printf '%-9s' "$name") http://localhost:$port"
}

forward Grafana observability grafana 3000
forward "Argo CD" argocd argocd-server 8081
for folder in k8s/helm-charts/*/; do
  [ -f "$folder/application.yaml" ] || continue
  forward "$(basename "$folder")" "$(sed -n 's/^namespace: *"\{0,1\}\([-a-z0-9]*\).*/\1/p' "$folder/application.yaml")" "$(basename "$folder")" 8000
done

context=${CONTEXT:+ --context $CONTEXT}
say ""
say "Grafana's administrator and password:"
say "  kubectl$context -n observability get secret grafana-admin -o go-template='{{index .data \"admin-user\" | base64decode}} {{index .data \"admin-password\" | base64decode}}{{\"\n\"}}'"
say "Argo CD's password for admin:"
say "  kubectl$context -n argocd get secret argocd-initial-admin-secret -o go-template='{{.data.password | base64decode}}{{\"\\n\"}}'"
if [ -n "$DOMAIN" ]; then say "From anywhere: https://grafana.$DOMAIN and https://argocd.$DOMAIN"; fi
say ""
say "Ctrl-C stops."
wait
