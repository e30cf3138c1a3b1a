#!/usr/bin/env bash
# Removes Argo CD, its Applications and all they made: destroy.sh ENVIRONMENT [--force] [TERRAFORM ARGUMENTS...]
# Works as well when Argo CD is already gone: then nobody answers the Applications' finalizers, and this script does.
# --force does so although Argo CD seems to be running, for when its controller is there and gets nowhere.
set -euo pipefail
# shellcheck source=/dev/null
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ $# -ge 1 ] || die "usage: scripts/destroy.sh ENVIRONMENT [--force] [TERRAFORM ARGUMENTS...]"
need terraform kubectl
use_environment "$1"
shift
force=
if [ "${1:-}" = --force ]; then
  force=yes
  shift
fi
require_cluster

# has_kind CRD: it is there, and there to stay.
has_kind() {
  local going
  going=$(kube get crd "$1" -o jsonpath='{.metadata.deletionTimestamp}' 2>/dev/null) && [ -z "$going" ]
}

controller_ready() {
  local ready
  ready=$(kube -n argocd get statefulset argocd-application-controller -o jsonpath='{.status.readyReplicas}' 2>/dev/null) || return 1
  [ "${ready:-0}" -gt 0 ]
}

# The team's Applications, one a line.
our_applications() {
  kube get crd applications.argoproj.io >/dev/null 2>&1 || return 0
  kube -n argocd get applications.argoproj.io -o go-template='{{range .items}}{{.metadata.name}} {{.spec.project}}{{"\n"}}{{end}}' |
    awk -v team="$TEAM" '$2 == team {print $1}'
}

release_applications() {
  local name
  for name in $(our_applications); do
    kube -n argocd patch applications.argoproj.io "$name" --type=merge -p '{"metadata":{"finalizers":null}}'
  done
}

# Cluster-scoped objects that our Argo CD tracks, or that belong to its own release, as KIND NAME. Webhooks come first:
# they refuse changes once their server is gone.
ours() {
  local kind
  local mark='argocd.argoproj.io/installation-id' release='meta.helm.sh/release-name' where='meta.helm.sh/release-namespace'
  local template="{{range .items}}{{\$name := .metadata.name}}{{with .metadata.annotations}}{{if or (eq (printf \"%v\" (index . \"$mark\")) \"$PLATFORM\")"
  template+=" (and (eq (printf \"%v\" (index . \"$release\")) \"argocd\") (eq (printf \"%v\" (index . \"$where\")) \"argocd\"))}}{{\$name}}{{\"\\n\"}}{{end}}{{end}}{{end}}"
  # An aggregated API that is down makes kubectl fail after it has listed the others.
  { kube api-resources --namespaced=false --verbs=list,delete -o name || true; } |
    awk '{print !/webhookconfigurations/, $1}' | sort | cut -d' ' -f2 |
    while read -r kind; do
      kube get "$kind" -o go-template="$template" </dev/null 2>/dev/null | sed "s|^|$kind |" || true
    done
}

# CRDs that the Applications brought, one a line. Argo CD puts no mark on a CRD: the Applications say which are theirs,
# and once these are gone, the name of the controller that applied them.
# shellcheck disable=SC2016 # Go templates' variables, not the shell's
our_crds() {
  if kube get crd applications.argoproj.io >/dev/null 2>&1; then
    kube -n argocd get applications.argoproj.io -o go-template='{{range .items}}{{$project := .spec.project}}{{range .status.resources}}
{{- if eq .kind "CustomResourceDefinition"}}{{.name}} {{$project}}{{"\n"}}{{end}}{{end}}{{end}}' |
      awk -v team="$TEAM" '$2 == team {print $1}'
  else
    kube get crd -o go-template='{{range .items}}{{$name := .metadata.name}}{{range .metadata.managedFields}}
{{- if eq .manager "argocd-controller"}}{{$name}}{{"\n"}}{{end}}{{end}}{{end}}'
  fi | sort -u
}

# remove_crds NAME...: upstream charts keep their CRDs when they go, because deleting one deletes every object of that
# kind, anyone's. So do we, unless there is none left.
remove_crds() {
  local name
  for name in "$@"; do
    if [ -n "$(kube get "$name" --all-namespaces -o name 2>/dev/null | head -n 1)" ]; then
      say "Kept: there are objects of kind $name that this platform did not make."
    else
      kube delete crd "$name" --ignore-not-found --timeout=60s
    fi
  done
}

remove_leftovers() {
  local kind name
  ours | while read -r kind name; do
    kube delete "$kind" "$name" --ignore-not-found --timeout=60s </dev/null
  done
}

crds=$(our_crds)
if [ -n "$force" ] || ! controller_ready; then
  say "Argo CD's controller is not at work, or --force was given: its Applications go without it."
  case " $* " in
    *" -auto-approve "*) ;;
    *)
      read -r -p "To remove '$PLATFORM' from context '${CONTEXT:-$(kubectl config current-context)}', type its name: " answer
      [ "$answer" = "$PLATFORM" ] || die "Nothing was changed."
      ;;
  esac
  release_applications
  ours | while read -r kind name; do
    case $kind in *webhookconfigurations*) kube delete "$kind" "$name" --ignore-not-found </dev/null ;; esac
  done
  # Helm cannot uninstall objects of a kind that no longer exists: forget those releases.
  if ! has_kind applications.argoproj.io || ! has_kind appprojects.argoproj.io; then
    for record in $(kube -n argocd get secrets -l owner=helm -o name 2>/dev/null | grep -E "\.v1\.argocd-(app|project)-" || true); do
      kube -n argocd delete "$record"
    done
  fi
fi

if ! "$ROOT/scripts/terraform.sh" "$ENVIRONMENT" destroy "$@"; then
  left=$(our_applications | xargs)
  [ -z "$left" ] || warn "Still there: $left. If Argo CD cannot finish them: scripts/destroy.sh $ENVIRONMENT --force"
  exit 1
fi

remove_leftovers
# shellcheck disable=SC2086 # one word each
remove_crds $crds
say "Nothing of '$PLATFORM' is left in the cluster, except what is named above."
