{{- define "ls-yolo.policyFor" -}}
podSelector:
  matchLabels:
    {{- include "ls-yolo.selectorLabels" . | nindent 4 }}
policyTypes: [Ingress, Egress]
{{- end }}

{{- define "ls-yolo.peer" -}}
- podSelector:
    matchLabels:
      {{- include "ls-yolo.selectorLabels" . | nindent 6 }}
{{- end }}

{{- define "ls-yolo.policyDns" -}}
- to:
    {{- toYaml .Values.networkPolicy.dns.to | nindent 4 }}
  ports:
    {{- range .Values.networkPolicy.dns.ports }}
    - {protocol: UDP, port: {{ . }}}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
{{- end }}

{{- define "ls-yolo.policyDatabase" -}}
{{- $database := include "ls-yolo.database" (dict "root" .) }}
{{- if eq $database "bundled" }}
- ports: [{port: 5432}]
  to:
    {{- include "ls-yolo.peer" (dict "root" . "component" "postgres") | nindent 4 }}
{{- else if eq $database "external" }}
# A policy knows no names: the database's port, wherever it is.
- ports: [{port: {{ .Values.postgres.external.port }}}]
{{- end }}
{{- end }}

{{/* Name service, and both services. */}}
{{- define "ls-yolo.policyServices" -}}
{{ include "ls-yolo.policyDns" . }}
- ports: [{port: 8080}]
  to:
    {{- include "ls-yolo.peer" (dict "root" . "component" "label-studio") | nindent 4 }}
- ports: [{port: 9090}]
  to:
    {{- include "ls-yolo.peer" (dict "root" . "component" "backend") | nindent 4 }}
{{- end }}

{{/* Where those who run a model get images and weights from, beside Label Studio. */}}
{{- define "ls-yolo.policyImages" -}}
{{- if or (ne (toString .Values.backend.env.ALLOW_HTTP_IMAGES) "false") (eq .Values.models.type "download") -}}
# The public web, for images and weights; no network that is private.
- ports: [{port: 80}, {port: 443}]
  to:
    - ipBlock:
        cidr: 0.0.0.0/0
        except: [10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16]
    - ipBlock: {cidr: 2000::/3}
{{- end }}
{{- with .Values.networkPolicy.backend.egress }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{- define "ls-yolo.urlPort" -}}
{{- $url := urlParse . }}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (eq $url.scheme "http" | ternary "80" "443") }}
{{- end }}
