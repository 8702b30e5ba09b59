{{- define "ls-yolo.backendEnv" -}}
{{- $models := .root.Values.models }}
{{- include "ls-yolo.env" (omit .root.Values.backend.env "BASIC_AUTH_USER") }}
- name: MODELS_CONFIG
  value: /config/models.yaml
- name: MODEL_ROOT
  # Not by a subPath of the mount: some runtimes take no notice of it for images.
  value: /models{{ if and (eq $models.type "image") $models.image.subPath }}/{{ trimAll "/" $models.image.subPath }}{{ end }}
- name: MODEL_DIR
  value: /data/models
- name: PORT
  value: "9090"
- name: WORKERS
  value: "1"
- name: LABEL_STUDIO_PUBLIC_URLS
  value: {{ prepend (include "ls-yolo.routes" . | fromJsonArray) (include "ls-yolo.publicUrl" .) | uniq | join "," | quote }}
{{ include "ls-yolo.clientEnv" . }}
{{- end }}
