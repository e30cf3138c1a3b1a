#!/usr/bin/env bash
# Render every chart as Argo CD would for an environment: scripts/render.sh [local|production] [output folder]
set -euo pipefail
cd "$(dirname "$0")/.."

environment=${1:-local}
out=${2:-build/rendered/$environment}
[ -f "terraform/environments/$environment.tfvars" ] || {
  echo "render: no environment '$environment': there is no terraform/environments/$environment.tfvars" >&2
  exit 2
}
command -v helm >/dev/null || {
  echo "render: helm is not installed: https://helm.sh/docs/intro/install/" >&2
  exit 2
}

# What the folders say of themselves: every chart in platform-apps gets all of it, as from Argo CD (terraform/modules/argocd-app).
shopt -s nullglob
facts=()
for file in {platform-apps,k8s/helm-charts}/*/platform.yaml {platform-apps,k8s/helm-charts}/*/"platform-$environment.yaml"; do
  facts+=(--values "$file")
done

rm -rf "$out"
mkdir -p "$out"
for chart in platform-apps/*/Chart.yaml k8s/helm-charts/*/Chart.yaml; do
  folder=${chart%/Chart.yaml}
  name=${folder##*/}
  # Only the second source of other Applications has no application.yaml; it goes to the first one's namespace.
  application=$folder/application.yaml
  [ -f "$application" ] || application=$(grep -l "path: $folder\$" {platform-apps,k8s/helm-charts}/*/application.yaml | head -n 1)
  [ -n "$application" ] || continue # no Application deploys it
  namespace=$(sed -n 's/^namespace: *"\{0,1\}\([-a-z0-9]*\).*/\1/p' "$application")
  values=()
  [[ $folder != platform-apps/* ]] || values+=("${facts[@]}")
  [ ! -f "$folder/values.yaml" ] || values+=(--values "$folder/values.yaml")
  [ ! -f "$folder/values-$environment.yaml" ] || values+=(--values "$folder/values-$environment.yaml")
  # The status of a dependency is its last column: ok, missing, wrong version.
  if grep -q '^dependencies:' "$chart" && helm dependency list "$folder" | awk 'NR > 1 && NF && $NF != "ok" {old = 1} END {exit !old}'; then
    helm dependency update "$folder" >/dev/null
  fi
  helm template "$name" "$folder" --namespace "$namespace" --include-crds "${values[@]}" >"$out/$name.yaml"
  printf '%-20s %s\n' "$name" "$out/$name.yaml"
done
