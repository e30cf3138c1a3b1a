#!/usr/bin/env bash
# Build the image that the chart asks for, and load it into a kind cluster: kind.sh CLUSTER
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

echo "== Image of the simulator"
chart=k8s/helm-charts/flask-app
image=$(awk '$1 == "image:" {inside = 1} inside && $1 == "repository:" {gsub(/"/, "", $2); print $2; exit}' $chart/values.yaml)
version=$(awk '$1 == "appVersion:" {gsub(/"/, "", $2); print $2}' $chart/Chart.yaml)
docker build --quiet --tag "$image:$version" app
kind load docker-image --name "$1" "$image:$version"
