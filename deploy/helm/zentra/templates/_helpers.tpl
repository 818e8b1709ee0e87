{{- define "zentra.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "zentra.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest }}{{ printf "%s@%s" $image.repository $image.digest }}{{ else }}{{ printf "%s:%s" $image.repository ($image.tag | default .Chart.AppVersion) }}{{ end }}
{{- end }}

{{/* What names a part's pods: (list $ "ingress"). */}}
{{- define "zentra.selector" -}}
app.kubernetes.io/name: {{ (index . 0).Chart.Name }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "zentra.labels" -}}
{{ include "zentra.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version }}
{{- end }}

{{/* What all pods have, but for their containers: (list $ "ingress" SECRET_KEYS). */}}
{{- define "zentra.pod" -}}
{{- $ := index . 0 -}}
{{- $part := index . 1 -}}
{{- $keys := index . 2 -}}
automountServiceAccountToken: false
serviceAccountName: {{ include "zentra.name" $ }}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: { type: RuntimeDefault }
{{- with $.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $.Values.topologySpread.enabled }}
topologySpreadConstraints:
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: {{ $.Values.topologySpread.whenUnsatisfiable }}
    # Nodes that take none of these pods, and pods of another revision, do not count.
    nodeTaintsPolicy: Honor
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels: {{- include "zentra.selector" (list $ $part) | nindent 8 }}
{{- end }}
{{- end }}
volumes:
  - name: config
    configMap: { name: {{ include "zentra.name" $ }} }
  - name: secrets
    secret:
      secretName: {{ $.Values.existingSecret }}
      defaultMode: 0440
      {{- with $keys }}
      items:
      {{- range . }}
        - { key: {{ . }}, path: {{ . }} }
      {{- end }}
      {{- end }}
{{- end }}

{{/* What all containers have. */}}
{{- define "zentra.container" -}}
image: {{ include "zentra.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
volumeMounts:
  - { name: config, mountPath: /etc/zentra, readOnly: true }
  - { name: secrets, mountPath: /run/secrets, readOnly: true }
{{- end }}

{{/* The probes at a program's admin port. Liveness does not depend on RabbitMQ or Redis: a restart would not help. */}}
{{- define "zentra.probes" -}}
startupProbe:
  httpGet: { path: /livez, port: admin }
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: { path: /livez, port: admin }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: { path: /readyz, port: admin }
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
{{- end }}

{{/* A pod's annotations: it is replaced when the configuration has changed. */}}
{{- define "zentra.annotations" -}}
checksum/config: {{ .Values.config | sha256sum }}
{{- with .Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Network policies. Names are resolved at any server. */}}
{{- define "zentra.dns" -}}
- ports: [{ protocol: UDP, port: 53 }, { protocol: TCP, port: 53 }]
{{- end }}

{{/* To a server: its peers (none: anywhere) and port. */}}
{{- define "zentra.to" -}}
- ports: [{ protocol: TCP, port: {{ .port }} }]
  {{- with .to }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* From peers to a port: (list PEERS PORT). Without peers, nobody. */}}
{{- define "zentra.from" -}}
{{- if index . 0 -}}
- from: {{- toYaml (index . 0) | nindent 4 }}
  ports: [{ protocol: TCP, port: {{ index . 1 }} }]
{{- end }}
{{- end }}
