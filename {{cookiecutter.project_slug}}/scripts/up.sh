#!/usr/bin/env bash
# The whole platform on a kind cluster, from the commits of this working copy. Run it again after a failure: it goes on
# from where it is. WAIT_SECONDS (1200) bounds the wait for all Applications.
set -euo pipefail
# shellcheck source=/dev/null
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need docker git kind kubectl terraform
use_environment local
docker info >/dev/null 2>&1 || die "Docker is installed, but its daemon does not answer. Start it, or add yourself to the group 'docker'."

version=$(kind version | sed -n 's/^kind v\([0-9.]*\).*/\1/p')
at_least "$version" "$MINIMUM_KIND" || die "kind $version is too old, its network enforces no policies: $MINIMUM_KIND or newer is needed."

# Argo CD reads commits, not files.
cd "$ROOT"
git rev-parse --verify --quiet HEAD >/dev/null 2>&1 ||
  die "Argo CD deploys what is committed, and there is no commit here yet:" "  git init && git add . && git commit -m 'Scaffold the platform'"
git_dir=$(git rev-parse --absolute-git-dir)
[ "$(git rev-parse --show-toplevel)" = "$ROOT" ] || die "This folder is part of another Git repository. It must be one of its own: git init"
[ "$git_dir" = "$(cd "$(git rev-parse --git-common-dir)" && pwd)" ] || die "This is a linked worktree. Run make up in the main working copy."
if [ -n "$(git status --porcelain)" ]; then
  say "Not committed, and therefore not deployed:"
  git status --short | sed -n 1,20p
fi
# The repo-server runs as a user of its own.
if [ -n "$(find "$git_dir" ! -perm -o=r -print -quit)" ]; then
  die "Argo CD's user cannot read all of $git_dir. Allow it:" "  git config core.sharedRepository world && chmod -R o+rX '$git_dir'"
fi

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

say "== Image of the app"
chart=k8s/helm-charts/flask-app
image=$(awk '$1 == "image:" {inside = 1} inside && $1 == "repository:" {gsub(/"/, "", $2); print $2; exit}' $chart/values.yaml)
version=$(awk '$1 == "appVersion:" {gsub(/"/, "", $2); print $2}' $chart/Chart.yaml)
docker build --quiet --tag "$image:$version" app
kind load docker-image --name "$PLATFORM" "$image:$version"
if grep -q 'chart: flask-app' $chart/application.yaml; then
  say "Note: Argo CD takes the app's chart from its registry, so the release workflow must have published it."
fi

say "== Argo CD and its Applications"
# Indented lines are the plan's details: a screenful for each of a dozen releases.
scripts/terraform.sh local apply -auto-approve -input=false -no-color | grep --line-buffered -v '^ \|^$'

say "== Secrets"
scripts/secrets.sh local

say "== Applications"
applications() {
  kube -n argocd get applications.argoproj.io --no-headers \
    -o custom-columns='NAME:.metadata.name,SYNC:.status.sync.status,HEALTH:.status.health.status' | sed 's/<none>/-/g'
}
# shellcheck disable=SC2016 # a Go template's variables, not the shell's
messages='{{range .items}}{{$name := .metadata.name}}
{{- range .status.conditions}}  {{$name}}: {{.message}}{{"\n"}}{{end}}
{{- with .status.operationState}}{{if ne .phase "Succeeded"}}  {{$name}}: {{.message}}{{"\n"}}{{end}}{{end}}
{{- end}}'
unfinished() { applications | awk '$2 != "Synced" || $3 != "Healthy"'; }
deadline=$((SECONDS + ${WAIT_SECONDS:-1200}))
shown=
while :; do
  left=$(unfinished) || left="the API server"
  [ -n "$left" ] || break
  summary=$(awk '{printf "%s (%s, %s)  ", $1, $2, $3}' <<<"$left")
  [ "$summary" = "$shown" ] || say "$(date +%T)  waiting for $summary"
  shown=$summary
  if [ $SECONDS -ge $deadline ]; then
    warn "Not all Applications are Synced and Healthy. What Argo CD says of them:"
    kube -n argocd get applications.argoproj.io -o go-template="$messages" >&2
    die "Look closer with: make open, or kubectl -n argocd describe application NAME. Then run make up again: it goes on from here."
  fi
  sleep 5
done
applications

say ""
say "The platform is up. Its addresses:       make open"
say "Check the path from app to dashboard:    make doctor"
say "Deploy a change: commit it. Argo CD looks every 20 seconds."
