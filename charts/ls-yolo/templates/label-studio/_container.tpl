{{/* What the container that prepares and the one that serves have in common. */}}
{{- define "ls-yolo.labelStudioContainer" -}}
{{- $v := .root.Values.labelStudio -}}
image: {{ include "ls-yolo.image" . }}
imagePullPolicy: {{ $v.image.pullPolicy }}
securityContext:
  {{- include "ls-yolo.containerSecurityContext" . | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
env:
  {{- include "ls-yolo.labelStudioEnv" . | nindent 2 }}
{{- with $v.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - {name: data, mountPath: /data}
  - {name: tmp, mountPath: /tmp}
  {{- include "ls-yolo.datasetsMount" . | nindent 2 }}
  {{- with $v.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "ls-yolo.labelStudioEnv" -}}
{{- $v := .root.Values.labelStudio }}
{{- $addresses := dict "LABEL_STUDIO_HOST" (include "ls-yolo.publicUrl" .) "CSRF_TRUSTED_ORIGINS" (include "ls-yolo.origins" .) }}
{{- include "ls-yolo.env" (merge $addresses $v.env) }}
- name: LOCAL_FILES_DOCUMENT_ROOT
  value: /datasets
# The backend's Service is the one private address that Label Studio may call; the name is looked up at each call.
- name: SSRF_ALLOWED_HOSTS
  value: {{ include "ls-yolo.fullname" (dict "root" .root "component" "backend") }}
{{- include "ls-yolo.secretEnv" (dict "root" .root "keys" (list "LABEL_STUDIO_PASSWORD" "LABEL_STUDIO_API_KEY" "SECRET_KEY")) }}
{{- include "ls-yolo.databaseEnv" . }}
{{- if $v.s3.enabled }}
- name: STORAGE_TYPE
  value: s3
{{- include "ls-yolo.env" (dict "STORAGE_AWS_BUCKET_NAME" $v.s3.bucket "STORAGE_AWS_FOLDER" $v.s3.folder "STORAGE_AWS_REGION_NAME" $v.s3.region "STORAGE_AWS_ENDPOINT_URL" $v.s3.endpoint) }}
- name: STORAGE_AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ $v.s3.existingSecret }}, key: access-key-id}}
- name: STORAGE_AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ $v.s3.existingSecret }}, key: secret-access-key}}
{{- end }}
{{- include "ls-yolo.extraEnv" . }}
{{- end }}

{{- define "ls-yolo.databaseEnv" -}}
{{- $p := .root.Values.postgres }}
{{- $database := include "ls-yolo.database" . }}
{{- if eq $database "sqlite" }}
- name: DJANGO_DB
  value: sqlite
{{- else }}
{{- $external := eq $database "external" }}
{{- $where := $external | ternary $p.external (dict "host" (include "ls-yolo.fullname" (dict "root" .root "component" "postgres")) "port" 5432 "database" $p.database "user" $p.user) }}
- name: DJANGO_DB
  value: postgresql
- name: POSTGRE_HOST
  value: {{ $where.host | quote }}
- name: POSTGRE_PORT
  value: {{ include "ls-yolo.text" $where.port | quote }}
- name: POSTGRE_NAME
  value: {{ $where.database | quote }}
- name: POSTGRE_USER
  value: {{ $where.user | quote }}
- name: POSTGRE_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ include "ls-yolo.postgresSecret" . }}, key: POSTGRES_PASSWORD}}
{{- if $external }}
- name: PGSSLMODE
  value: {{ $p.external.sslMode }}
{{- end }}
{{- end }}
{{- end }}

{{- define "ls-yolo.postgresSecret" -}}
{{- $p := .root.Values.postgres }}
{{- $p.enabled | ternary ($p.existingSecret | default (include "ls-yolo.fullname" (dict "root" .root "component" "postgres"))) $p.external.existingSecret }}
{{- end }}
