#!/usr/bin/env bash
# Terraform for one environment: terraform.sh ENVIRONMENT COMMAND [ARGUMENTS...], such as: terraform.sh production plan
# Adds the environment's variables and state, follows KUBECONFIG and KUBE_CONTEXT, and repairs what a killed apply left.
set -euo pipefail
# shellcheck source=/dev/null
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ $# -ge 2 ] || die "usage: scripts/terraform.sh ENVIRONMENT COMMAND [ARGUMENTS...]"
need terraform kubectl
use_environment "$1"
command=$2
shift 2

cd "$ROOT/terraform"
export TF_DATA_DIR=$PWD/.terraform/$ENVIRONMENT # one for each environment: their backends differ
[ -z "${KUBECONFIG:-}" ] || export TF_VAR_kube_config_path=$KUBECONFIG

# A laptop's cluster comes and goes: its state stays a file, whatever backend.tf says for the others.
log=$(mktemp)
trap 'rm -f backend_override.tf "$log"' EXIT
rm -f backend_override.tf
if [ "$ENVIRONMENT" = local ] && ! grep -q 'backend "local"' backend.tf; then
  printf 'terraform {\n  backend "local" {}\n}\n' >backend_override.tf
fi

backend=(-backend-config="environments/$ENVIRONMENT.backend.hcl")
if [ "$ENVIRONMENT" != local ] && grep -q 'backend "kubernetes"' backend.tf; then # state in the cluster that it describes
  [ -z "${KUBECONFIG:-}" ] || backend+=(-backend-config="config_path=$KUBECONFIG")
  [ -z "$CONTEXT" ] || backend+=(-backend-config="config_context=$CONTEXT")
fi
terraform init -input=false -reconfigure "${backend[@]}" >"$log" 2>&1 ||
  die "terraform init failed:" "$(cat "$log")"

variables=()
case $command in
  plan | apply | destroy | refresh | import | console)
    variables=(-var-file="environments/$ENVIRONMENT.tfvars")
    [ -z "${KUBE_CONTEXT:-}" ] || variables+=(-var "kube_context=$KUBE_CONTEXT")
    ;;
esac

run() {
  terraform "$command" ${variables[@]+"${variables[@]}"} "$@" 2>&1 | tee "$log"
}

# Helm marks a release as pending while it works on it, and refuses to touch it ever after if it is killed meanwhile. We
# hold Terraform's lock, so nobody is at work: drop the record of the attempt; what it created is taken over by the next
# one.
drop_pending() {
  local namespace=$1 names=$2 record
  for record in $(kube -n "$namespace" get secrets -o name \
    -l 'owner=helm,status in (pending-install,pending-upgrade,pending-rollback)' | grep -E "sh\.helm\.release\.v1\.$names\.v[0-9]+$"); do
    kube -n "$namespace" delete "$record"
  done
}

run "$@" && exit
if grep -q 'another operation (install/upgrade/rollback) is in progress' "$log"; then
  say "An earlier run was killed while Helm was at work. Dropping its records and trying again."
  drop_pending argocd "(argocd|argocd-project-$TEAM|argocd-app-[-a-z0-9]+)"
  drop_pending default "$PLATFORM-namespaces"
  run "$@" && exit
fi
exit 1
