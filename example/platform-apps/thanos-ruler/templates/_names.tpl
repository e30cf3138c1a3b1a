{{/*
Replaces the helper of this name in the subchart (Helm parses a parent's templates last). A ConfigMap that is named after
its content makes the Ruler restart when the rules change.
*/}}
{{- define "thanos.rule.rulesConfigmapName" -}}
slo-rules-{{ list (include "red.rules" .) (include "slo.rules" .) (include "platform.rules" .Values.global) | join "\n" | sha256sum | trunc 8 }}
{{- end }}
