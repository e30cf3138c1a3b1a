#!/usr/bin/env bash
# Removes the kind cluster of kind.sh with everything in it, and the Terraform state that described it.
set -euo pipefail
# shellcheck source=/dev/null
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need docker kind
use_environment local
kind delete cluster --name "$PLATFORM"
rm -rf "$ROOT/terraform/environments/local.tfstate" "$ROOT/terraform/environments/local.tfstate.backup" "$ROOT/terraform/.terraform/local"
say "Removed: the kind cluster '$PLATFORM' and its Terraform state. The image of the app stays in Docker."
