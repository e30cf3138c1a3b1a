#!/usr/bin/env bash
# Take over the template's changes and write what they do to the manifests into build/update.md (the pull request's text).
set -euo pipefail
cd "$(dirname "$0")/.."

[ -f .cruft.json ] || {
  echo "update: no .cruft.json: this repository was not made with cruft; docs/upgrading.md tells how to link it" >&2
  exit 2
}
environments=(local production)
for environment in "${environments[@]}"; do scripts/render.sh "$environment" "build/before/$environment"; done
.venv/bin/cruft update --skip-apply-ask
for environment in "${environments[@]}"; do scripts/render.sh "$environment" "build/after/$environment"; done

rejected=$(find . -name '*.rej' -not -path './.venv/*')
{
  echo "Changes of the template since the last update, applied by \`cruft update\`."
  if [ -n "$rejected" ]; then
    printf '\n**Conflicts**: these changes did not apply and wait in .rej files; resolve them on this branch.\n\n'
    while IFS= read -r file; do echo "- \`$file\`"; done <<<"$rejected"
  fi
  printf '\n## What changes in the cluster\n\n```diff\n'
  # GitHub refuses a text of more than 65,536 characters.
  git diff --no-index --stat build/before build/after || true
  git diff --no-index build/before build/after | head -c 50000 || true
  printf '\n```\n'
} >build/update.md
echo "update: see build/update.md"
