{{/* Every edge by name: those that folders state, and those that follow from scrape jobs and from apps. Out: JSON. */}}
{{- define "edges" -}}
{{- $edges := deepCopy (.edges | default dict) -}}
{{- range $job, $target := .scrape }}
{{- with $target }}
{{- $_ := set $edges (printf "scrape-%s" $job) (dict "from" "otel-scrape" "to" .workload "ports" (list (.podPort | default .port))) }}
{{- end }}
{{- end }}
{{- range $app, $fact := .apps }}
{{- with $fact }}
{{- $_ := set $edges (printf "otlp-%s" $app) (dict "from" .workload "to" "otel-collector" "ports" (list 4317 4318)) }}
{{- end }}
{{- end }}
{{- toJson $edges -}}
{{- end }}

{{/* A workload as the peer of a rule; without podLabels every pod of its namespace. */}}
{{- define "peer" -}}
namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .namespace }}}}
{{- with .podLabels }}
podSelector: {matchLabels: {{ toJson . }}}
{{- end }}
{{- end }}

{{/* Ports of an edge: a number, or number/protocol. */}}
{{- define "ports" -}}
{{- range . }}
{{- $port := splitList "/" (toString .) }}
- {port: {{ first $port }}{{ if gt (len $port) 1 }}, protocol: {{ last $port }}{{ end }}}
{{- end }}
{{- end }}

{{/* The rules of a workload, of the edges whose other end is there. In: name, edges, workloads, reaches. */}}
{{- define "ingress" -}}
{{- range $edge := .edges }}
{{- if and $edge (eq $edge.to $.name) (or (eq $edge.from "anywhere") (index $.workloads $edge.from)) }}
- ports: {{- include "ports" $edge.ports | nindent 4 }}
  {{- with index $.workloads $edge.from }}
  from:
    - {{ include "peer" . | indent 6 | trim }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "egress" -}}
{{- range $edge := .edges }}
{{- if and $edge (eq $edge.from $.name) (index $.workloads $edge.to) }}
- ports: {{- include "ports" $edge.ports | nindent 4 }}
  to:
    - {{ include "peer" (index $.workloads $edge.to) | indent 6 | trim }}
{{- end }}
{{- end }}
{{- range (index .workloads .name).reaches }}
{{- if not (hasKey $.reaches .) }}
{{- fail (printf "workload %s reaches %q: values.yaml of network-policies has no such rules" $.name .) }}
{{- end }}
{{ index $.reaches . | toYaml }}
{{- end }}
{{- end }}
