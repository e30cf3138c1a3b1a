{{/* What the restricted Pod Security Standard asks of the collector's pods. */}}
{{- define "collector.pod" -}}
image: {{ .Values.image }}
serviceAccount: otel-collectors
# This chart has its own NetworkPolicies.
networkPolicy: {enabled: false}
# Metrics of the collectors are pushed, there is nothing to scrape.
observability: {metrics: {disablePrometheusAnnotations: true}}
podSecurityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}
