{{/* The simulator's settings, as it reads them from its environment. */}}
{{- define "flask-app.env" -}}
{{- range $name, $value := .Values.settings }}
- {name: CHECKOUT_{{ $name | snakecase | upper }}, value: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}}
{{- end }}
{{- end }}
