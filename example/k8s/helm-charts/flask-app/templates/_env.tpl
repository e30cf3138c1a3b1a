{{/* The simulator's settings, as it reads them from its environment. */}}
{{- define "flask-app.env" -}}
{{- range $name, $value := .Values.settings }}
- {name: CHECKOUT_{{ $name | snakecase | upper }}, value: {{ $value | toJson | quote }}}
{{- end }}
{{- end }}
