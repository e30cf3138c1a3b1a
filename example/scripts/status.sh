#!/usr/bin/env bash
# What is not as it should be: status.sh [ENVIRONMENT]. Applications, pods and the warnings of the last hour.
set -euo pipefail
# shellcheck source=/dev/null
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need kubectl
use_environment "${1:-local}"
require_cluster

say "== Applications"
kube -n argocd get applications.argoproj.io \
  -o custom-columns='NAME:.metadata.name,SYNC:.status.sync.status,HEALTH:.status.health.status,REVISION:.status.sync.revisions[0]'

say "" "== Pods that are not ready"
namespaces=$(kube get namespaces -l "app.kubernetes.io/part-of=$PLATFORM" -o name | sed 's|^namespace/||')
# shellcheck disable=SC2016 # a Go template's variables, not the shell's
pods='{{range .items}}{{$pod := .}}{{range .status.containerStatuses}}{{if not .ready}}{{$pod.metadata.namespace}}/{{$pod.metadata.name}} {{.name}}: '
# shellcheck disable=SC2016
pods+='{{with .state.waiting}}{{.reason}}{{end}}{{with .state.terminated}}{{.reason}}{{end}} ({{.restartCount}} restarts){{"\n"}}{{end}}{{end}}{{end}}'
# A pod that ran to its end is not ready either, and not meant to be.
for namespace in $namespaces; do
  kube -n "$namespace" get pods --field-selector=status.phase!=Succeeded -o go-template="$pods"
done

say "" "== Warnings of the last hour"
for namespace in $namespaces; do
  kube -n "$namespace" get events --field-selector type=Warning --sort-by=.lastTimestamp --no-headers 2>/dev/null |
    tail -n 5 | sed "s|^|$namespace: |"
done
say "" "From the app to the dashboard, hop by hop: make doctor"
