#!/usr/bin/env bash
# Send a load to the simulator for RUN_TIME and print rate, errors and percentiles. Failed checkouts are part of the
# simulation, so they are counted but do not fail this command.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

exec locust --headless --only-summary --exit-code-on-error 0 \
  --locustfile ../platform-apps/load-generator/locustfile.py \
  --host "${HOST:-http://127.0.0.1:${PORT:-8000}}" \
  --users "${USERS:-10}" --spawn-rate "${SPAWN_RATE:-10}" --run-time "${RUN_TIME:-60s}"
