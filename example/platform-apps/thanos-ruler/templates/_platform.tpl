{{/* A rate for each signal, told apart by the label `signal`. In: metric (%s stands for what is counted), by, window. */}}
{{- define "platform.bySignal" -}}
{{- $in := . -}}
{{- $rates := list -}}
{{- range $signal, $counted := dict "metrics" "metric_points" "traces" "spans" "logs" "log_records" }}
{{- $rate := printf "sum by (%s) (rate(%s[%s]))" $in.by (printf $in.metric $counted) $in.window }}
{{- $rates = append $rates (printf "label_replace(%s, \"signal\", %q, \"\", \"\")" $rate $signal) }}
{{- end }}
({{ join "\nor\n" $rates }})
{{- end }}

{{/* What the platform watches in itself. <label> is the alert's own label. `role` and `signal` are what Alertmanager's
     inhibition reads: where a signal has a cause, its symptoms are muted. In: .Values.global */}}
{{- define "platform.alerts" -}}
{{- $watch := .watch -}}
{{- $rate := printf "rate(%%s[%s])" $watch.window -}}
Watchdog:
  component: alertmanager
  severity: none
  for: 0s
  expr: vector(1)
  summary: Alerts are evaluated and delivered
  description: Always fires. Where it stops arriving, no other alert arrives either.
MetricsMissing:
  component: metrics
  severity: page
  signal: metrics
  role: cause
  for: 0s
  expr: absent_over_time(up[{{ $watch.missing }}])
  summary: No metric of the platform has arrived for {{ $watch.missing }}
  description: The collectors, Receive or Query's way to the ingestors is broken. Nothing else can be told from metrics.
{{- range $job, $target := (.platform).scrape }}
{{- if $target }}
TargetMissing-{{ $job }}:
  component: {{ $job }}
  severity: ticket
  signal: metrics
  role: symptom
  for: 0s
  expr: absent_over_time(up{job={{ $job | quote }}}[{{ $watch.missing }}])
  summary: {{ $job }} has no pod that could be scraped for {{ $watch.missing }}
  description: Its Service has no address, or otel-scrape does not run.
{{- end }}
{{- end }}
TargetDown:
  component: <job>
  severity: ticket
  expr: max by (job, instance) (up) == 0
  summary: <job> at <instance> does not answer
  description: Its /metrics cannot be read, so the process is down, or a NetworkPolicy is in the way.
CollectorRefuses:
  component: otel-collector
  severity: page
  expr: |-
    {{- include "platform.bySignal" (dict "metric" "otelcol_receiver_refused_%s_total" "by" "instance" "window" $watch.window) | nindent 4 }}
    > 0
  summary: The collector refuses <signal>
  description: Its memory limiter or a full queue turns senders away. They retry for a while, then the data is lost.
CollectorQueueFills:
  component: otel-collector
  severity: page
  expr: max by (instance, exporter) (otelcol_exporter_queue_size / otelcol_exporter_queue_capacity) > {{ $watch.queueRatio }}
  summary: The queue of <exporter> fills
  description: Its backend takes less than arrives. A full queue turns senders away.
ExporterStalls:
  component: otel-collector
  severity: page
  expr: |-
    max by (instance, exporter) (min_over_time(otelcol_exporter_queue_size[{{ $watch.window }}])) > 0
    unless on (instance, exporter) (
      {{- range $i, $counted := list "metric_points" "spans" "log_records" }}
      {{- if $i }} or{{ end }}
      sum by (instance, exporter) ({{ printf $rate (printf "otelcol_exporter_sent_%s_total" $counted) }}) > 0
      {{- end }}
    )
  summary: <exporter> delivers nothing
  description: Its backend does not answer, or refuses. What arrives waits in the queue on disk.
ExporterDrops:
  component: otel-collector
  severity: page
  expr: |-
    {{- include "platform.bySignal" (dict "metric" "otelcol_exporter_send_failed_%s_total" "by" "instance, exporter" "window" $watch.window) | nindent 4 }}
    > 0
  summary: <exporter> drops <signal>
  description: Its backend refuses for good what it is sent, and the collector does not try again.
ReceiveFails:
  component: thanos-receive
  severity: page
  signal: metrics
  role: cause
  expr: |-
    sum({{ printf $rate "http_requests_total{job=\"thanos-receive-router\",handler=~\"otlp|receive\",code=~\"5..\"}" }})
    / sum({{ printf $rate "http_requests_total{job=\"thanos-receive-router\",handler=~\"otlp|receive\"}" }})
    > {{ $watch.errorRatio }}
  summary: Receive fails to write
  description: Too few ingestors take what the router forwards, so a write has no quorum. Senders keep it and try again.
ReceiveLosesReplica:
  component: thanos-receive
  severity: ticket
  expr: sum by (instance) ({{ printf $rate "thanos_receive_forward_requests_total{job=\"thanos-receive-router\",result=\"error\"}" }}) > 0
  summary: An ingestor does not take what the router forwards
  description: With replicas, writes go on; one more ingestor lost, and they have no quorum.
ExemplarsMissing:
  component: exemplars
  severity: ticket
  signal: metrics
  role: symptom
  expr: |-
    sum(histogram_count({{ printf $rate "http_server_request_duration_seconds" }})) > 0
    and
    sum({{ printf $rate "prometheus_tsdb_exemplar_exemplars_appended_total{job=\"thanos-receive-ingestor\"}" }}) == 0
  summary: Requests arrive, and no exemplar does
  description: No dot on a panel leads to a trace.
QueryMissesStore:
  component: thanos-query
  severity: page
  expr: |-
    {{- range $i, $type := list "receive" "store" "rule" }}
    {{- $job := get (dict "receive" "thanos-receive-ingestor" "store" "thanos-store-gateway" "rule" "thanos-rule") $type }}
    {{- if $i }}
    or{{ end }}
    label_replace(
      sum(up{job="thanos-query"}) * sum(up{job="{{ $job }}"})
      > (sum(thanos_store_nodes_grpc_connections{job="thanos-query",store_type="{{ $type }}"}) or vector(0)),
      "store", "{{ $job }}", "", ""
    )
    {{- end }}
  summary: Query is not connected to every <store>
  description: Panels and rules lack the data that only these hold.
RulesFail:
  component: thanos-rule
  severity: ticket
  expr: sum by (rule_group) ({{ printf $rate "prometheus_rule_evaluation_failures_total{job=\"thanos-rule\"}" }}) > 0
  summary: Rules of <rule_group> cannot be evaluated
  description: Query fails or refuses them. Their alerts do not fire meanwhile.
AlertsUndelivered:
  component: alertmanager
  severity: page
  expr: sum by (instance) ({{ printf $rate "thanos_alert_sender_alerts_dropped_total{job=\"thanos-rule\"}" }}) > 0
  summary: The Ruler reaches no Alertmanager
  description: Alerts are seen in Grafana only, and nobody is told.
NotificationsFail:
  component: alertmanager
  severity: page
  expr: sum by (integration) ({{ printf $rate "alertmanager_notifications_failed_total" }}) > 0
  summary: Alertmanager cannot notify by <integration>
  description: The receiver refuses or cannot be reached. Other receivers still are told.
CompactorHalted:
  component: thanos-compact
  severity: ticket
  expr: max by (instance) (thanos_compact_halted) == 1
  summary: The Compactor has stopped for good
  description: It found blocks that it cannot merge, and waits for a person. The bucket grows, and nothing is downsampled.
ObjectStoreFails:
  component: object-store
  severity: ticket
  expr: sum by (job, operation) ({{ printf $rate "thanos_objstore_bucket_operation_failures_total" }}) > 0
  summary: <job> fails to <operation> in the object store
  description: Blocks stay on their volumes and old data cannot be read until it answers again.
TempoDiscards:
  component: tempo
  severity: ticket
  expr: sum by (reason) ({{ printf $rate "tempo_discarded_spans_total" }}) > 0
  summary: "Tempo discards spans: <reason>"
  description: They are above a limit, or too old; the collector was told that they are written.
LokiDiscards:
  component: loki
  severity: ticket
  expr: sum by (reason) ({{ printf $rate "loki_discarded_samples_total" }}) > 0
  summary: "Loki discards log lines: <reason>"
  description: They are above a limit, or too old.
IngestorVolumeFills:
  component: thanos-receive
  severity: page
  expr: |-
    sum by (instance) (prometheus_tsdb_storage_blocks_bytes{job="thanos-receive-ingestor"})
    + sum by (instance) (prometheus_tsdb_wal_storage_size_bytes{job="thanos-receive-ingestor"})
    > {{ mulf $watch.volumeRatio (trimSuffix "Gi" $watch.ingestorVolume) 1073741824 | int64 }}
  summary: The volume of <instance> fills
  description: An ingestor whose volume is full takes no more samples.
CertificateExpires:
  component: cert-manager
  severity: ticket
  expr: min by (namespace, name) (certmanager_certificate_expiration_timestamp_seconds) - time() < {{ mul $watch.certificateDays 86400 }}
  summary: The certificate <namespace>/<name> expires in less than {{ $watch.certificateDays }} days
  description: It should have been renewed before.
ApplicationOutOfSync:
  component: argocd
  severity: ticket
  for: {{ $watch.outOfSync }}
  expr: max by (name) (argocd_app_info{sync_status!="Synced"} or argocd_app_info{health_status!="Healthy"}) == 1
  summary: The Application <name> is not what git says
  description: It has been out of sync or not healthy for {{ $watch.outOfSync }}.
{{- end }}

{{/* The rule file of these alerts. In: .Values.global */}}
{{- define "platform.rules" -}}
{{- $links := .slo.links -}}
{{- $for := .watch.for -}}
groups:
  - name: platform
    rules:
{{- range $name, $alert := include "platform.alerts" . | fromYaml }}
{{- $name := splitList "-" $name | first }}
      - alert: {{ $name }}
        expr: |-
          {{- $alert.expr | nindent 10 }}
        for: {{ $alert.for | default $for }}
        labels:
          {{- range $label := list "component" "severity" "signal" "role" }}
          {{- with get $alert $label }}
          {{ $label }}: {{ regexReplaceAll "<(\\w+)>" . "{{ $$labels.${1} }}" | quote }}
          {{- end }}
          {{- end }}
        annotations:
          {{- range $text := list "summary" "description" }}
          {{ $text }}: {{ regexReplaceAll "<(\\w+)>" (get $alert $text) "{{ $$labels.${1} }}" | quote }}
          {{- end }}
          runbook_url: {{ printf "%s#%s" $links.runbook (lower $name) | quote }}
          dashboard_url: {{ printf "%s/d/telemetry-pipeline?from=now-1h&to=now" $links.grafana | quote }}
{{- end }}
{{- end }}
