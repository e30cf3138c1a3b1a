#!/usr/bin/env bash
# Start the simulator with OpenTelemetry on 127.0.0.1:${PORT:-8000}; needs requirements-dev.txt installed and on PATH.
# With OTEL_EXPORTER_OTLP_ENDPOINT set (an OTLP/HTTP receiver, such as http://127.0.0.1:4318) it exports, else it is
# quiet.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

if ! command -v opentelemetry-instrument >/dev/null; then
  echo "opentelemetry-instrument is not on PATH: install app/requirements-dev.txt (make setup)" >&2
  exit 1
fi

exporter=none
if [[ -n ${OTEL_EXPORTER_OTLP_ENDPOINT:-} ]]; then exporter=otlp; fi

export PORT="${PORT:-8000}"
if (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; then
  echo "port $PORT of this machine is taken: stop what uses it, or choose another: make run PORT=$((PORT + 1))" >&2
  exit 1
fi
export OTEL_SERVICE_NAME="${OTEL_SERVICE_NAME:-checkout}"
export OTEL_METRICS_EXPORTER="${OTEL_METRICS_EXPORTER:-$exporter}"
export OTEL_TRACES_EXPORTER="${OTEL_TRACES_EXPORTER:-$exporter}"
export OTEL_LOGS_EXPORTER="${OTEL_LOGS_EXPORTER:-$exporter}"
# Without an exporter the SDK's log handler has no use, and on Python 3.12 it complains at exit.
if [[ $OTEL_LOGS_EXPORTER == none ]]; then export OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION=false; fi

# As the cluster's Instrumentation resource sets them.
export OTEL_EXPORTER_OTLP_PROTOCOL="${OTEL_EXPORTER_OTLP_PROTOCOL:-http/protobuf}"
export OTEL_SEMCONV_STABILITY_OPT_IN="${OTEL_SEMCONV_STABILITY_OPT_IN:-http}"
export OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION="${OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION:-base2_exponential_bucket_histogram}"
export OTEL_METRIC_EXPORT_INTERVAL="${OTEL_METRIC_EXPORT_INTERVAL:-5000}"
export OTEL_PYTHON_EXCLUDED_URLS="${OTEL_PYTHON_EXCLUDED_URLS:-healthz,readyz}"

echo "checkout simulator: http://127.0.0.1:$PORT/checkout  (export: ${OTEL_EXPORTER_OTLP_ENDPOINT:-none}; stop with Ctrl-C)"
exec opentelemetry-instrument gunicorn
