{{/* Share of requests that are bad, over a window. In: slo (availability|latency), matchers, threshold, window. */}}
{{- define "slo.badRatio" -}}
{{- $requests := printf "sum by (service_name) (rate(http_server_request_duration_seconds{%s}[%s]))" .matchers .window -}}
{{- if eq .slo "latency" -}}
1 - histogram_fraction(0, {{ .threshold }}, {{ $requests }})
{{- else -}}
{{- $errors := printf "sum by (service_name) (rate(http_server_request_duration_seconds{%s,http_response_status_code=~\"5..\"}[%s]))" .matchers .window -}}
(histogram_count({{ $errors }}) or histogram_count({{ $requests }}) * 0)
  / histogram_count({{ $requests }})
{{- end -}}
{{- end }}

{{/* Grafana's search for the traces behind an alert. In: grafana, service, route, slo, threshold. */}}
{{- define "slo.traces" -}}
{{- $bad := ternary (printf "duration > %vs" .threshold) "status = error" (eq .slo "latency") -}}
{{- $traceql := printf "{ resource.service.name = %q && span.http.route = %q && %s } with (most_recent=true)" .service .route $bad -}}
{{- $query := dict "refId" "A" "queryType" "traceql" "query" $traceql "datasource" (dict "type" "tempo" "uid" "tempo") -}}
{{- $pane := dict "datasource" "tempo" "queries" (list $query) "range" (dict "from" "now-1h" "to" "now") -}}
{{ .grafana }}/explore?schemaVersion=1&orgId=1&panes={{ dict "slo" $pane | toRawJson | urlquery }}
{{- end }}

{{/* The rule file of all objectives. */}}
{{- define "slo.rules" -}}
{{- $slo := .Values.global.slo -}}
{{- $windows := list -}}
{{- range $slo.burnRates }}{{ $windows = append (append $windows .long) .short }}{{ end -}}
groups:
{{- range $objective := (.Values.global.platform).objectives }}
{{- $matchers := printf "service_name=%q,http_route=%q" .service .route }}
{{- range $name := list "availability" "latency" }}
{{- with index $objective $name }}
{{- $budget := divf (subf 100 .objective) 100 }}
{{- $target := printf "%v %% of requests %s" .objective (ternary (printf "within %v s" .threshold) "without an error" (eq $name "latency")) }}
{{- $context := dict "slo" $name "matchers" $matchers "threshold" .threshold "grafana" $slo.links.grafana "service" $objective.service "route" $objective.route }}
  - name: {{ printf "slo-%s-%s%s" $name $objective.service $objective.route | quote }}
    rules:
      # What the dashboard measures burn rates and the error budget against.
      - record: slo:objective:ratio
        expr: vector({{ divf .objective 100 }})
        labels: {slo: {{ $name }}, service_name: {{ $objective.service | quote }}, http_route: {{ $objective.route | quote }}}
      {{- range $window := uniq $windows }}
      - record: slo:bad_requests:ratio_rate{{ $window }}
        expr: |-
          {{- include "slo.badRatio" (merge (dict "window" $window) $context) | nindent 10 }}
        labels: {slo: {{ $name }}, http_route: {{ $objective.route | quote }}}
      {{- end }}
      {{- range $slo.burnRates }}
      {{- $limit := mulf .factor $budget }}
      {{- if ge $limit 1.0 }}
      {{- fail (printf "slo.burnRates %s: %s of %s can burn at most %v times its budget, never more than %v" .name $name $objective.service (divf 1 $budget) .factor) }}
      {{- end }}
      {{- $alert := printf "%s%sBurn" (title $name) .name }}
      {{- $selector := printf "slo=%q,service_name=%q,http_route=%q" $name $objective.service $objective.route }}
      - alert: {{ $alert }}
        expr: |-
          slo:bad_requests:ratio_rate{{ .long }}{ {{- $selector -}} } > {{ $limit }}
          and
          slo:bad_requests:ratio_rate{{ .short }}{ {{- $selector -}} } > {{ $limit }}
          and on (service_name)
          histogram_count(sum by (service_name) (increase(http_server_request_duration_seconds{ {{- $matchers -}} }[{{ .long }}]))) >= {{ $slo.minRequests }}
          and on (service_name) # a window that began before the first request says nothing yet
          count by (service_name) (present_over_time(http_server_request_duration_seconds{ {{- $matchers -}} }[{{ .short }}] offset {{ .long }}))
        labels: {severity: {{ .severity }}}
        annotations:
          summary: {{ printf "%s%s burns its %s budget more than %v times as fast as it may" $objective.service $objective.route $name .factor | quote }}
          description: >-
            {{ "{{ $value | humanizePercentage }}" }} of the requests of the last {{ .long }} were bad, and over the last {{ .short }}
            too many still are. The objective is {{ $target }}.
          runbook_url: {{ printf "%s#%s" $slo.links.runbook (lower $alert) | quote }}
          dashboard_url: {{ printf "%s/d/checkout-red?from=now-1h&to=now" $slo.links.grafana | quote }}
          traces_url: {{ include "slo.traces" $context | quote }}
      {{- end }}
{{- end }}
{{- end }}
  - name: {{ printf "slo-silence-%s%s" $objective.service $objective.route | quote }}
    rules:
      - alert: ServiceSilent
        expr: absent_over_time(http_server_request_duration_seconds{ {{- $matchers -}} }[{{ $slo.silence }}])
        labels: {severity: page, slo: availability, signal: metrics, role: symptom}
        annotations:
          summary: {{ printf "%s%s has reported nothing for %s" $objective.service $objective.route $slo.silence | quote }}
          description: No request arrived, or its telemetry does not. Burn-rate alerts see nothing meanwhile.
          runbook_url: {{ printf "%s#servicesilent" $slo.links.runbook | quote }}
          dashboard_url: {{ printf "%s/d/telemetry-pipeline?from=now-1h&to=now" $slo.links.grafana | quote }}
          traces_url: {{ include "slo.traces" (dict "slo" "latency" "threshold" 0 "grafana" $slo.links.grafana "service" $objective.service "route" $objective.route) | quote }}
{{- end }}
{{- end }}
