{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{- define "c8s.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "c8s.labels" -}}
app.kubernetes.io/name: c8s
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* Arguments that say where evidence comes from. */}}
{{- define "c8s.tee" -}}
- --tee={{ .Values.tee.kind }}
{{- if eq .Values.tee.kind "sim" }}
{{- if not .Values.tee.simulated }}
{{- fail "tee.kind is sim, whose evidence proves nothing: set tee.simulated=true as well if this is a development cluster" }}
{{- end }}
- --sim-dir={{ .Values.tee.simDir }}
{{- end }}
{{- end }}

{{/* What one replica of the CDS is reached at. */}}
{{- define "c8s.cds" -}}
{{- if .Values.node.cds -}}
{{ join "," .Values.node.cds }}
{{- else if .Values.cds.enabled -}}
c8s-cds.{{ .Release.Namespace }}.svc:{{ .Values.cds.port }}
{{- else -}}
{{ fail "node.cds is empty and cds.enabled is false: nodes need a CDS" }}
{{- end -}}
{{- end }}

{{/* A duration of one unit in whole seconds. */}}
{{- define "c8s.seconds" -}}
{{- if hasSuffix "ms" . -}}
{{ div (int (trimSuffix "ms" .)) 1000 }}
{{- else if hasSuffix "m" . -}}
{{ mul (int (trimSuffix "m" .)) 60 }}
{{- else -}}
{{ int (trimSuffix "s" .) }}
{{- end -}}
{{- end }}
