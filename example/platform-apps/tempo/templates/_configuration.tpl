{{/*
Tempo's configuration, in the chart's own scope: the chart's, with `distributor.retry_after_on_resource_exhausted`, for which it
has no value. A refusal that does not say when to try again is final, and the collector would drop the batch.
*/}}
{{- define "tempo-configuration" -}}
stream_over_http_enabled: {{ .Values.tempo.streamOverHttpEnabled }}
memberlist:
  cluster_label: "{{ .Release.Name }}.{{ .Release.Namespace }}"
multitenancy_enabled: {{ .Values.tempo.multitenancyEnabled }}
usage_report:
  reporting_enabled: {{ .Values.tempo.reportingEnabled }}
compactor:
  compaction:
    block_retention: {{ .Values.tempo.retention }}
distributor:
  retry_after_on_resource_exhausted: 5s
  receivers:
    {{- toYaml .Values.tempo.receivers | nindent 4 }}
ingester:
  {{- toYaml .Values.tempo.ingester | nindent 2 }}
server:
  {{- toYaml .Values.tempo.server | nindent 2 }}
storage:
  {{- toYaml .Values.tempo.storage | nindent 2 }}
querier:
  {{- toYaml .Values.tempo.querier | nindent 2 }}
query_frontend:
  {{- toYaml .Values.tempo.queryFrontend | nindent 2 }}
overrides:
  {{- toYaml .Values.tempo.overrides | nindent 2 }}
metrics_generator:
  registry:
    {{- toYaml .Values.tempo.metricsGenerator.registry | nindent 4 }}
  storage:
    path: {{ .Values.tempo.metricsGenerator.storage.path | quote }}
    remote_write:
      {{- toYaml .Values.tempo.metricsGenerator.storage.remote_write | nindent 6 }}
  traces_storage:
    path: {{ .Values.tempo.metricsGenerator.traces_storage.path | quote }}
{{- end }}
