{{- define "krunpod.name" -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}-installer
{{- end }}

{{- define "krunpod.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "krunpod.labels" -}}
{{ include "krunpod.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "krunpod.selector" -}}
app.kubernetes.io/name: krunpod
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "krunpod.metrics" -}}
app.kubernetes.io/name: krunpod-metrics
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
