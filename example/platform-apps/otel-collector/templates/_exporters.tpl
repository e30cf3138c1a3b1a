{{/* The exporter of an endpoint: OTLP over HTTP where it has URLs, over gRPC where it has host:port. In: name, urls. */}}
{{- define "collector.exporter" -}}
{{ ternary "otlp_http" "otlp_grpc" (contains "://" (values .urls | first)) }}/{{ .name }}
{{- end }}

{{/* The exporters that take a signal. In: signal, endpoints. */}}
{{- define "collector.exporters" -}}
{{- $exporters := list }}
{{- range $name, $urls := .endpoints }}
{{- if hasKey ($urls | default dict) $.signal }}
{{- $exporters = append $exporters (include "collector.exporter" (dict "name" $name "urls" $urls)) }}
{{- end }}
{{- end }}
{{- join ", " $exporters }}
{{- end }}

{{/* A gRPC connection whose other end lost its power is given up within 20 s; the kernel would keep it for 15 minutes. */}}
{{- define "collector.keepalive" -}}
keepalive: {time: 10s, timeout: 10s}
{{- end }}
