{{- define "ls-yolo.validations" -}}
{{- end }}
