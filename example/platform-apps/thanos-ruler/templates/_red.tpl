{{/* Rate, errors and duration of every service and route, from the SDK's native histogram. Ratios are 0 to 1, durations seconds. */}}
{{- define "red.rules" -}}
groups:
  - name: red
    rules:
      - record: service_name_http_route:http_server_requests:rate1m
        expr: histogram_count(sum by (service_name, http_route) (rate(http_server_request_duration_seconds[1m])))

      # `or … * 0`: a service without a single error has no error series, and its ratio is 0, not unknown.
      - record: service_name_http_route:http_server_errors:ratio_rate1m
        expr: |-
          (
            histogram_count(sum by (service_name, http_route) (
              rate(http_server_request_duration_seconds{http_response_status_code=~"5.."}[1m])
            ))
            or service_name_http_route:http_server_requests:rate1m * 0
          )
          / service_name_http_route:http_server_requests:rate1m

      - record: service_name_http_route:http_server_request_duration_seconds:p50_rate1m
        expr: histogram_quantile(0.5, sum by (service_name, http_route) (rate(http_server_request_duration_seconds[1m])))

      - record: service_name_http_route:http_server_request_duration_seconds:p95_rate1m
        expr: histogram_quantile(0.95, sum by (service_name, http_route) (rate(http_server_request_duration_seconds[1m])))

      - record: service_name_http_route:http_server_request_duration_seconds:p99_rate1m
        expr: histogram_quantile(0.99, sum by (service_name, http_route) (rate(http_server_request_duration_seconds[1m])))
{{- end }}
