{{/* One workload, its Service where it has ports, and its disk where it has one, shaped as the upstream chart shapes them.
     Takes a dict: top (the chart's scope), name, kind, component, ports (name: number), values (of this workload), disk. */}}
{{- define "standin.workload" }}
{{- $labels := dict "app.kubernetes.io/name" .top.Chart.Name "app.kubernetes.io/instance" .top.Release.Name }}
{{- with .component }}{{ $_ := set $labels "app.kubernetes.io/component" . }}{{ end }}
{{- $values := .values | default dict }}
apiVersion: apps/v1
kind: {{ .kind }}
metadata:
  name: {{ .name }}
  namespace: {{ .top.Release.Namespace }}
  labels: {{- toYaml $labels | nindent 4 }}
spec:
  {{- if ne .kind "DaemonSet" }}
  replicas: {{ $values.replicas | default 1 }}
  {{- end }}
  selector:
    matchLabels: {{- toYaml $labels | nindent 6 }}
  {{- if eq .kind "StatefulSet" }}
  serviceName: {{ .service | default .name }}
  {{- end }}
  template:
    metadata:
      labels: {{- toYaml $labels | nindent 8 }}
    spec:
      securityContext:
        runAsNonRoot: true
        seccompProfile: {type: RuntimeDefault}
      {{- with $values.topologySpreadConstraints }}
      topologySpreadConstraints: {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ .component | default .top.Chart.Name }}
          image: {{ (.top.Values.global).standinRegistry | default "standin.invalid" }}/standin/{{ .top.Chart.Name }}:{{ .top.Chart.Version }}
          {{- with .ports }}
          ports:
            {{- range $name, $number := . }}
            - {name: {{ $name }}, containerPort: {{ $number }}}
            {{- end }}
          {{- end }}
          {{- with $values.resources }}
          resources: {{- toYaml . | nindent 12 }}
          {{- end }}
          securityContext:
            allowPrivilegeEscalation: false
            capabilities: {drop: [ALL]}
          {{- if .disk }}
          volumeMounts: [{name: data, mountPath: /data}]
          {{- end }}
  {{- if .disk }}
  volumeClaimTemplates:
    - apiVersion: v1
      kind: PersistentVolumeClaim
      metadata: {name: data}
      spec:
        accessModes: [ReadWriteOnce]
        resources: {requests: {storage: 1Gi}}
  {{- end }}
{{- with .ports }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $.service | default $.name }}
  namespace: {{ $.top.Release.Namespace }}
  labels: {{- toYaml $labels | nindent 4 }}
spec:
  selector: {{- toYaml $labels | nindent 4 }}
  ports:
    {{- range $name, $number := . }}
    - {name: {{ $name }}, port: {{ get ($.servicePorts | default dict) $name | default $number }}, targetPort: {{ $name }}}
    {{- end }}
{{- end }}
{{- end }}

{{/* A CRD that takes any content: dict of group, kind, plural, versions (served; the first one is stored), scope. */}}
{{- define "standin.crd" }}
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: {{ .plural }}.{{ .group }}
spec:
  group: {{ .group }}
  scope: {{ .scope | default "Namespaced" }}
  names: {kind: {{ .kind }}, listKind: {{ .kind }}List, plural: {{ .plural }}, singular: {{ lower .kind }}}
  versions:
    - name: {{ .version }}
      served: true
      storage: true
      subresources: {status: {}}
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
{{- end }}
