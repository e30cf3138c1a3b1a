#!/usr/bin/env bash
# Send a load to the simulator for RUN_TIME, with live figures, and print rate, errors and percentiles at the end.
# Failed checkouts are part of the simulation, so they are counted but do not fail this command.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

profile=${PROFILE:-platform-apps/load-generator/locustfile.py}
if [[ ! -f $profile ]]; then
  echo "there is no load profile $profile: bring it back from git, or name a Locust file: make traffic PROFILE=my.py" >&2
  exit 1
fi

host="${HOST:-http://127.0.0.1:${PORT:-8000}}"
if ! python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5)' "$host/readyz" 2>/dev/null; then
  echo "nothing answers at $host: start the simulator first (make run), or set HOST or PORT" >&2
  exit 1
fi

# Elsewhere a simulator may have a schedule of its own.
if [[ -z ${HOST:-} ]]; then (cd app && python3 -m checkout_simulator 1); fi

exec locust --headless --only-summary --exit-code-on-error 0 --host "$host" --locustfile "$profile,app/traffic.py" \
  --users "${USERS:-10}" --spawn-rate "${SPAWN_RATE:-10}" --run-time "${RUN_TIME:-60s}"
