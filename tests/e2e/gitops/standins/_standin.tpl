{{/* The labels of one workload's pods. Takes its dict, as below. Returns YAML. */}}
{{- define "standin.labels" }}
app.kubernetes.io/name: {{ .app | default .top.Chart.Name }}
app.kubernetes.io/instance: {{ .top.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{/* The image that stands in for a chart's own. Takes the chart's scope. */}}
{{- define "standin.image" }}
{{- (.Values.global).standinRegistry | default "standin.invalid" }}/standin/{{ .Chart.Name }}:{{ .Chart.Version }}
{{- end }}

{{/* One workload, its Service where it has ports, and its disk where it has one, shaped as the upstream chart shapes them.
     Takes a dict: top (the chart's scope), name, kind, component, ports (name: number), values (of this workload), and, where
     it differs: app (the name that its pods have), container (its name), image, args, env, command, account (a token is
     mounted for it), user, disk (where its claim is mounted), ready (a probe), live, files (volume mounts, each with
     `source`), service (its name; one that ends with -headless is), servicePorts (name: number, of those that it has). */}}
{{- define "standin.workload" }}
{{- $labels := include "standin.labels" . }}
{{- $values := .values | default dict }}
{{- $user := .user | default 65532 }}
apiVersion: apps/v1
kind: {{ .kind }}
metadata:
  name: {{ .name }}
  namespace: {{ .top.Release.Namespace }}
  labels: {{- $labels | nindent 4 }}
spec:
  {{- if ne .kind "DaemonSet" }}
  replicas: {{ $values.replicas | default 1 }}
  {{- end }}
  selector:
    matchLabels: {{- $labels | nindent 6 }}
  {{- if eq .kind "StatefulSet" }}
  serviceName: {{ .service | default .name }}
  {{- end }}
  template:
    metadata:
      labels: {{- $labels | nindent 8 }}
    spec:
      {{- with .account }}
      serviceAccountName: {{ . }}
      {{- else }}
      automountServiceAccountToken: false
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: {{ $user }}
        fsGroup: {{ $user }}
        seccompProfile: {type: RuntimeDefault}
      {{- with $values.topologySpreadConstraints }}
      topologySpreadConstraints: {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ .container | default .component | default .top.Chart.Name }}
          image: {{ .image | default (include "standin.image" .top) }}
          {{- with .command }}
          command: {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with .args }}
          args: {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with .env }}
          env: {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with .ports }}
          ports:
            {{- range $name, $number := . }}
            - {name: {{ $name }}, containerPort: {{ $number }}}
            {{- end }}
          {{- end }}
          {{- with .ready }}
          readinessProbe: {{- toYaml (merge . (dict "periodSeconds" 2)) | nindent 12 }}
          {{- end }}
          {{- with .live }}
          livenessProbe: {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with $values.resources }}
          resources: {{- toYaml . | nindent 12 }}
          {{- end }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- with .disk }}
            - {name: data, mountPath: {{ . }}}
            {{- end }}
            {{- range .files }}
            - {{ omit . "source" | toJson }}
            {{- end }}
            {{- with $values.extraVolumeMounts }}{{- toYaml . | nindent 12 }}{{- end }}
      volumes:
        - {name: tmp, emptyDir: {}}
        {{- range .files }}
        - {{ merge (dict "name" .name) .source | toJson }}
        {{- end }}
        {{- with $values.extraVolumes }}{{- toYaml . | nindent 8 }}{{- end }}
  {{- if .disk }}
  volumeClaimTemplates:
    - apiVersion: v1
      kind: PersistentVolumeClaim
      metadata: {name: data}
      spec:
        accessModes: [ReadWriteOnce]
        resources: {requests: {storage: 1Gi}}
  {{- end }}
{{- if .ports }}
---
{{- include "standin.service" . }}
{{- end }}
{{- end }}

{{/* A Service of a workload. Takes the same dict. */}}
{{- define "standin.service" }}
apiVersion: v1
kind: Service
metadata:
  name: {{ .service | default .name }}
  namespace: {{ .top.Release.Namespace }}
  labels: {{- include "standin.labels" . | nindent 4 }}
spec:
  {{- if hasSuffix "-headless" (.service | default .name) }}
  clusterIP: None
  {{- end }}
  selector: {{- include "standin.labels" . | nindent 4 }}
  ports:
    {{- range $name, $number := .servicePorts | default .ports }}
    - {name: {{ $name }}, port: {{ $number }}, targetPort: {{ $name }}}
    {{- end }}
{{- end }}

{{/* What a workload's account may do in the whole cluster, or in its namespace alone. Takes a dict: top, name, rules,
     kind (ClusterRole or Role). */}}
{{- define "standin.account" }}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .name }}
  namespace: {{ .top.Release.Namespace }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}
metadata:
  name: {{ .name }}
  {{- if eq .kind "Role" }}
  namespace: {{ .top.Release.Namespace }}
  {{- end }}
rules: {{- toYaml .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}Binding
metadata:
  name: {{ .name }}
  {{- if eq .kind "Role" }}
  namespace: {{ .top.Release.Namespace }}
  {{- end }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: {{ .kind }}, name: {{ .name }}}
subjects:
  - {kind: ServiceAccount, name: {{ .name }}, namespace: {{ .top.Release.Namespace }}}
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
