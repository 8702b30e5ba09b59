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

{{- define "ls-yolo.urlPort" -}}
{{- $url := urlParse . }}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (eq $url.scheme "http" | ternary "80" "443") }}
{{- end }}
