{{/* Helpers take (dict "root" $ "component" "backend"). Components: label-studio, backend, setup, prelabel,
doctor, backup, postgres, test. */}}

{{- define "ls-yolo.name" -}}
{{- .root.Values.nameOverride | default .root.Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Name of what is made for a component; of the release's own things without one. */}}
{{- define "ls-yolo.fullname" -}}
{{- $name := include "ls-yolo.name" . }}
{{- $base := .root.Values.fullnameOverride | default (contains $name .root.Release.Name | ternary .root.Release.Name (printf "%s-%s" .root.Release.Name $name)) | trunc 40 | trimSuffix "-" }}
{{- if .component }}{{ printf "%s-%s" $base .component }}{{ else }}{{ $base }}{{ end }}
{{- end }}

{{- define "ls-yolo.selectorLabels" -}}
app.kubernetes.io/name: {{ include "ls-yolo.name" . }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "ls-yolo.labels" -}}
{{ include "ls-yolo.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: ls-yolo
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Of pods: nothing that changes with the chart's version, or each would start them anew. */}}
{{- define "ls-yolo.podLabels" -}}
{{ include "ls-yolo.selectorLabels" . }}
app.kubernetes.io/part-of: ls-yolo
{{- with include "ls-yolo.group" . }}
ls-yolo/volume-group: {{ . }}
{{- end }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- with .labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Metadata of an object; "name", "labels" and "annotations" are optional. */}}
{{- define "ls-yolo.metadata" -}}
name: {{ .name | default (include "ls-yolo.fullname" .) }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "ls-yolo.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The values of a component: labelStudio for label-studio. */}}
{{- define "ls-yolo.image" -}}
{{- $image := (index .root.Values (eq .component "label-studio" | ternary "labelStudio" (eq .component "postgres" | ternary "postgres" "backend"))).image }}
{{- $registry := .root.Values.global.imageRegistry | default $image.registry }}
{{- with $registry }}{{ . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ include "ls-yolo.text" ($image.tag | default .root.Chart.AppVersion) }}{{ end }}
{{- end }}

{{- define "ls-yolo.imagePullSecrets" -}}
{{- with .root.Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "ls-yolo.serviceAccountName" -}}
{{- $studio := eq .component "label-studio" }}
{{- $account := (index .root.Values ($studio | ternary "labelStudio" "backend")).serviceAccount }}
{{- $account.name | default ($account.create | ternary (include "ls-yolo.fullname" (dict "root" .root "component" ($studio | ternary "label-studio" "backend"))) "default") }}
{{- end }}

{{/* What restricted pod security asks of every container. */}}
{{- define "ls-yolo.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* A number of values.yaml as text: 1000000 and not 1e+06. */}}
{{- define "ls-yolo.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{/* Settings by name; those that are empty keep the image's default. BASIC_AUTH_USER may be meant to be empty. */}}
{{- define "ls-yolo.env" -}}
{{- range $name, $value := . }}
{{- $text := include "ls-yolo.text" $value }}
{{- if or $text (eq $name "BASIC_AUTH_USER") }}
- name: {{ $name }}
  value: {{ $text | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* The operator's variables. A proxy among them would stand between the services too, so their names are put before
what NO_PROXY says. */}}
{{- define "ls-yolo.extraEnv" -}}
{{- $hosts := list (include "ls-yolo.fullname" (dict "root" .root "component" "label-studio")) (include "ls-yolo.fullname" (dict "root" .root "component" "backend")) (include "ls-yolo.fullname" (dict "root" .root "component" "postgres")) "localhost" "127.0.0.1" "kubernetes.default.svc" }}
{{- $rest := list }}
{{- range (get (dict "label-studio" .root.Values.labelStudio "backend" .root.Values.backend) .component | default dict).extraEnv }}
{{- if eq (upper .name) "NO_PROXY" }}
{{- $hosts = .value | default "" | splitList "," | concat $hosts }}
{{- else }}
{{- $rest = append $rest . }}
{{- end }}
{{- end }}
{{- $hosts = without $hosts "" | uniq | join "," | quote }}
- name: NO_PROXY
  value: {{ $hosts }}
- name: no_proxy
  value: {{ $hosts }}
{{- with $rest }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "ls-yolo.secretName" -}}
{{- .root.Values.secrets.existingSecret | default (include "ls-yolo.fullname" (dict "root" .root)) }}
{{- end }}

{{/* Environment variables out of the release's Secret: (dict "root" $ "keys" (list ...)). */}}
{{- define "ls-yolo.secretEnv" -}}
{{- $secret := include "ls-yolo.secretName" . }}
{{- range .keys }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: {{ . }}}}
{{- end }}
{{- end }}

{{- define "ls-yolo.labelStudioUrl" -}}
http://{{ include "ls-yolo.fullname" (dict "root" .root "component" "label-studio") }}:{{ .root.Values.labelStudio.service.port }}
{{- end }}

{{- define "ls-yolo.backendUrl" -}}
http://{{ include "ls-yolo.fullname" (dict "root" .root "component" "backend") }}:{{ .root.Values.backend.service.port }}
{{- end }}

{{/* What the backend, setup and the test are told: where Label Studio is, the passwords, and the operator's own. */}}
{{- define "ls-yolo.clientEnv" -}}
- name: LABEL_STUDIO_URL
  value: {{ include "ls-yolo.labelStudioUrl" . }}
{{- if ne .component "backend" }}
- name: BACKEND_URL
  value: {{ include "ls-yolo.backendUrl" . }}
{{- end }}
- name: LOCAL_FILES_DOCUMENT_ROOT
  value: /datasets
{{- include "ls-yolo.env" (dict "BASIC_AUTH_USER" .root.Values.backend.env.BASIC_AUTH_USER) }}
{{- include "ls-yolo.secretEnv" (dict "root" .root "keys" (list "LABEL_STUDIO_API_KEY" "BASIC_AUTH_PASS")) }}
{{- include "ls-yolo.extraEnv" . }}
{{- end }}

{{/* The addresses of Ingress and HTTPRoute, as a JSON list. */}}
{{- define "ls-yolo.routes" -}}
{{- $found := list }}
{{- with .root.Values.ingress }}
{{- if .enabled }}{{ $found = append $found (printf "%s://%s" (.tls.enabled | ternary "https" "http") .host) }}{{ end }}
{{- end }}
{{- with .root.Values.gateway }}
{{- if .enabled }}{{ $found = append $found (printf "%s://%s" (.tls | ternary "https" "http") .host) }}{{ end }}
{{- end }}
{{- toJson $found }}
{{- end }}

{{/* The address that people open: what is set, else that of Ingress or HTTPRoute. */}}
{{- define "ls-yolo.publicUrl" -}}
{{- .root.Values.labelStudio.env.LABEL_STUDIO_HOST | default (include "ls-yolo.routes" . | fromJsonArray | first) | default "" }}
{{- end }}

{{/* Origins that may post forms: those that are set, and each route by which people come under another name than the
one that Label Studio is told, and trusts with its scheme alone. */}}
{{- define "ls-yolo.origins" -}}
{{- $found := splitList "," .root.Values.labelStudio.env.CSRF_TRUSTED_ORIGINS }}
{{- $told := (include "ls-yolo.publicUrl" . | urlParse).host }}
{{- range include "ls-yolo.routes" . | fromJsonArray }}
{{- if ne (urlParse .).host $told }}{{ $found = append $found . }}{{ end }}
{{- end }}
{{- without $found "" | uniq | join "," }}
{{- end }}

{{/* sqlite, bundled or external. */}}
{{- define "ls-yolo.database" -}}
{{- if .root.Values.postgres.enabled }}bundled{{ else if .root.Values.postgres.external.host }}external{{ else }}sqlite{{ end }}
{{- end }}

{{/* The models as the text of models.yaml. */}}
{{- define "ls-yolo.modelsConfig" -}}
{{- $config := .root.Values.models.config }}
{{- kindIs "string" $config | ternary $config (toYaml $config) }}
{{- end }}

{{/* Projects: those of values.yaml, and the demo's. A JSON object of file name to text. */}}
{{- define "ls-yolo.projects" -}}
{{- $found := dict }}
{{- if .root.Values.setup.demo }}
{{- $_ := set $found "demo.yaml" (.root.Files.Get "files/demo.yaml") }}
{{- end }}
{{- range $name, $content := .root.Values.projects }}
{{- $_ := set $found $name (kindIs "string" $content | ternary $content (toYaml $content)) }}
{{- end }}
{{- toJson $found }}
{{- end }}

{{/* The annotation that asks Multus for a component's own address. */}}
{{- define "ls-yolo.networks" -}}
{{- $m := .root.Values.multus }}
{{- $address := eq .component "label-studio" | ternary $m.labelStudioAddress $m.backendAddress }}
{{- if and $m.enabled $address -}}
k8s.v1.cni.cncf.io/networks: {{ list (dict "name" (include "ls-yolo.fullname" (dict "root" .root)) "ips" (list $address)) | toJson | quote }}
{{- end }}
{{- end }}

{{/* How pods are replaced: as "strategy" says; else one after the other where "single", or where they have an address. */}}
{{- define "ls-yolo.strategy" -}}
{{- $type := .strategy | default (or .single (include "ls-yolo.networks" .) | empty | ternary "RollingUpdate" "Recreate") -}}
type: {{ $type }}
{{- if eq $type "RollingUpdate" }}
# The API server's own defaults. Left to it they would be nobody's, stay, and forbid a later Recreate.
rollingUpdate: {maxSurge: 25%, maxUnavailable: 25%}
{{- end }}
{{- end }}

{{/* The database in words that another one does not have: what an upgrade is held against. */}}
{{- define "ls-yolo.databaseWhere" -}}
{{- $database := include "ls-yolo.database" . }}
{{- $p := .root.Values.postgres }}
{{- if eq $database "external" -}}
postgres at {{ $p.external.host }}:{{ int $p.external.port }}/{{ $p.external.database }}
{{- else if eq $database "bundled" -}}
postgres of this release (database {{ $p.database }}, user {{ $p.user }}, {{ $p.persistence.enabled | ternary (printf "claim %s" (include "ls-yolo.claimName" (dict "root" .root "component" "postgres" "claim" $p.persistence))) "no claim" }})
{{- else -}}
sqlite
{{- end }}
{{- end }}

{{- define "ls-yolo.postgresMajor" -}}
{{- .root.Values.postgres.image.tag | toString | regexFind "^[0-9]+" }}
{{- end }}

{{- define "ls-yolo.podDisruptionBudget" -}}
{{- if .budget.enabled }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "ls-yolo.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ .budget.maxUnavailable }}
  selector:
    matchLabels:
      {{- include "ls-yolo.selectorLabels" . | nindent 6 }}
{{- end }}
{{- end }}

{{/* A Job cannot be changed: another one for each revision, and, where nothing counts revisions, for each change of the
Job and of what it looks at. A hook is deleted before it is made anew. */}}
{{- define "ls-yolo.setupName" -}}
{{- $v := .root.Values }}
{{- include "ls-yolo.fullname" . }}
{{- if eq $v.setup.mode "job" }}-{{ .root.Release.Revision }}-{{ list (include "ls-yolo.setupSpec" .root) (include "ls-yolo.projects" .) $v.models $v.datasets $v.backend | toJson | sha256sum | trunc 8 }}{{ end }}
{{- end }}
