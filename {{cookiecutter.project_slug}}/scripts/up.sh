#!/usr/bin/env bash
# The whole platform from the commits of this working copy, on a kind cluster that this makes. Run it again after a
# failure: it goes on from where it is. WAIT_SECONDS (1200) bounds the wait for all Applications. KUBE_CONTEXT names
# another cluster to use as it is: Argo CD then reads the repository's URL, or WORKING_COPY, the path of this one's .git
# on every node.
set -euo pipefail
# shellcheck source=/dev/null
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

tools=(git kubectl terraform)
[ -n "${KUBE_CONTEXT:-}" ] || tools+=(docker kind)
need "${tools[@]}"
use_environment local

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

variables=()
if [ -n "${KUBE_CONTEXT:-}" ]; then
  variables=(-var "working_copy=${WORKING_COPY:-}")
  require_cluster
else
  scripts/kind.sh "$git_dir"
fi
for file in k8s/helm-charts/*/application.yaml; do
  if grep -q '^ *chart:' "$file"; then
    say "Note: Argo CD takes the chart of $(basename "$(dirname "$file")") from its registry: it must be published there."
  fi
done

say "== Argo CD and its Applications"
# Indented lines are the plan's details: a screenful for each of a dozen releases.
scripts/terraform.sh local apply -auto-approve -input=false -no-color ${variables[@]+"${variables[@]}"} | grep --line-buffered -v '^ \|^$'

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
