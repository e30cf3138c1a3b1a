"""The names that every part of the platform agrees on."""

METRIC = "http_server_request_duration_seconds"
# What the SDK records without OTEL_SEMCONV_STABILITY_OPT_IN=http: milliseconds, under the old name.
OLD_METRIC = "http_server_duration_milliseconds"
# What the collectors report of themselves.
COLLECTOR = 'service_name="otel-collector"'
COLLECTOR_UPTIME = f'{{__name__=~"otelcol_process_uptime.*",{COLLECTOR}}}'
TRACE_LABEL = "trace_id"
SPAN_LABEL = "span_id"
DASHBOARD_UID = "checkout-red"
EXEMPLAR_FLAG = "--tsdb.max-exemplars"
PROMOTE_FLAG = "--receive.otlp-promote-resource-attributes"
