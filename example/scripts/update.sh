#!/usr/bin/env bash
# Take over the template's changes and write what they do to the manifests into build/update.md (the pull request's
# text).
set -euo pipefail
cd "$(dirname "$0")/.."

make --silent .cruft.json # says what to do where it is missing

render() {
  local environment
  for environment in local production; do
    .venv/bin/python -m scripts.render "$environment" "build/$1/$environment" || return
  done
}

render before
.venv/bin/cruft update --skip-apply-ask
# Edits of the same lines: git leaves both sides in the file where it knows the common ancestor, else a .rej beside it.
conflicts=$(git diff --name-only --diff-filter=U && git ls-files --others -- '*.rej')
# A conflict may well not render, and the pull request has to say so, not to fail.
if render after 2>build/render.log; then renders=yes; else renders=no; fi

{
  echo "Changes of the template since the last update, applied by \`cruft update\`."
  if [ -n "$conflicts" ]; then
    printf '\n**Conflicts** with edits of yours on the same lines, to be resolved on this branch:\n\n'
    while IFS= read -r file; do echo "- \`$file\`"; done <<<"$conflicts"
  fi
  printf '\n## What changes in the cluster\n\n'
  if [ $renders = no ]; then
    printf 'It does not render:\n\n'
    tail -n 5 build/render.log | sed 's/^/    /'
  elif diff -r build/before build/after >/dev/null; then
    echo "Nothing."
  else
    printf '```diff\n'
    git --no-pager diff --no-index --stat build/before build/after || true
    # GitHub refuses a text of more than 65,536 characters.
    git --no-pager diff --no-index build/before build/after | head -c 50000 || true
    printf '\n```\n'
  fi
} >build/update.md
echo "update: see build/update.md"
