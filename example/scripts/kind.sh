#!/usr/bin/env bash
# The cluster of make up: kind, with the repository of GIT_DIR mounted and the image of app/ loaded: kind.sh GIT_DIR
set -euo pipefail
# shellcheck source=/dev/null
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

git_dir=$1
need docker kind kubectl
use_environment local
docker info >/dev/null 2>&1 || die "Docker is installed, but its daemon does not answer. Start it, or add yourself to the group 'docker'."
version=$(kind version | sed -n 's/^kind v\([0-9.]*\).*/\1/p')
at_least "$version" "$MINIMUM_KIND" || die "kind $version is too old, its network enforces no policies: $MINIMUM_KIND or newer is needed."
cd "$ROOT"

say "== Cluster"
if kind get clusters 2>/dev/null | grep -qx "$PLATFORM"; then
  mounted=$(docker inspect -f '{{range .Mounts}}{{if eq .Destination "/repository"}}{{.Source}}{{end}}{{end}}' "$PLATFORM-control-plane")
  [ "${mounted#/host_mnt}" = "$git_dir" ] || die "The kind cluster '$PLATFORM' reads another working copy ($mounted). Remove it first: make down"
  kind export kubeconfig --name "$PLATFORM"
else
  # Terraform's variable working_copy names /repository: environments/local.tfvars.
  kind create cluster --name "$PLATFORM" --wait 120s --config - <<CONFIG
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
  - role: control-plane
    extraMounts:
      - hostPath: "$git_dir"
        containerPath: /repository
        readOnly: true
CONFIG
fi
require_cluster

# An app whose source is in this repository; the images of others come from their registries.
if [ -x app/kind.sh ]; then
  app/kind.sh "$PLATFORM"
fi
