{{/* Grafana's provisioning file: every data source that a folder describes; one without a type only has links, its folder is gone. */}}
{{- define "platform.dataSources" -}}
{{- $sources := list }}
{{- range $uid, $source := ((.Values.global).platform).dataSources }}
{{- if ($source).type }}
{{- $sources = append $sources (merge (dict "uid" $uid) $source (dict "access" "proxy" "editable" false)) }}
{{- end }}
{{- end }}
{{- toYaml (dict "apiVersion" 1 "prune" true "datasources" $sources) }}
{{- end }}

{{- define "platform.dataSourcesName" -}}
grafana-data-sources-{{ include "platform.dataSources" . | sha256sum | trunc 8 }}
{{- end }}
