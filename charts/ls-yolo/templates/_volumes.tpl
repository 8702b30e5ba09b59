{{/* Claims, and which pods they keep on one node. */}}

{{/* Name of a claim: (dict "root" $ "component" "label-studio" "claim" .Values...persistence). */}}
{{- define "ls-yolo.claimName" -}}
{{- .claim.existingClaim | default (include "ls-yolo.fullname" .) }}
{{- end }}

{{/* A claim that the chart makes; it outlives the release. "annotations" are the chart's own. */}}
{{- define "ls-yolo.claim" -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  {{- $annotations := merge (dict "helm.sh/resource-policy" "keep") (.annotations | default dict) .claim.annotations }}
  {{- include "ls-yolo.metadata" (dict "root" .root "component" .component "annotations" $annotations) | nindent 2 }}
spec:
  accessModes: {{ toJson .claim.accessModes }}
  {{- if eq .claim.storageClass "-" }}
  storageClassName: ""
  {{- else if .claim.storageClass }}
  storageClassName: {{ .claim.storageClass }}
  {{- end }}
  resources: {requests: {storage: {{ .claim.size }}}}
{{- end }}

{{/* Whether pods on several nodes can mount a claim; of one that is there already the cluster knows. */}}
{{- define "ls-yolo.manyNodes" -}}
{{- $modes := .claim.accessModes }}
{{- if .claim.existingClaim }}
{{- with lookup "v1" "PersistentVolumeClaim" .root.Release.Namespace .claim.existingClaim }}
{{- $modes = .spec.accessModes }}
{{- end }}
{{- end }}
{{- if or (has "ReadWriteMany" $modes) (has "ReadOnlyMany" $modes) }}true{{ end }}
{{- end }}

{{/* Whether all pods must be where the images are. */}}
{{- define "ls-yolo.datasetsPinned" -}}
{{- if eq .root.Values.datasets.type "claim" }}
{{- if not (include "ls-yolo.manyNodes" (dict "root" .root "claim" .root.Values.datasets.claim)) }}true{{ end }}
{{- end }}
{{- end }}

{{/* The group of pods that a component must share a node with; empty: none. */}}
{{- define "ls-yolo.group" -}}
{{- $v := .root.Values }}
{{- if and (include "ls-yolo.datasetsPinned" .) (has .component (list "label-studio" "backend" "setup" "doctor")) -}}
datasets
{{- else if eq .component "label-studio" }}
{{- if and (gt (int $v.labelStudio.replicas) 1) $v.labelStudio.persistence.enabled (not $v.labelStudio.s3.enabled) (not (include "ls-yolo.manyNodes" (dict "root" .root "claim" $v.labelStudio.persistence))) -}}
label-studio
{{- end }}
{{- else if eq .component "backend" }}
{{- $several := or (gt (int $v.backend.replicas) 1) $v.backend.autoscaling.hpa.enabled $v.backend.autoscaling.keda.enabled }}
{{- $models := and (eq $v.models.type "claim") (not (include "ls-yolo.manyNodes" (dict "root" .root "claim" (dict "existingClaim" $v.models.claim.existingClaim "accessModes" (list "ReadWriteMany"))))) }}
{{- $cache := and $v.backend.cache.enabled (not (include "ls-yolo.manyNodes" (dict "root" .root "claim" $v.backend.cache))) }}
{{- if or (and (or $several $v.prelabel.enabled) $models) (and $several $cache) -}}
backend
{{- end }}
{{- end }}
{{- end }}

{{/* Where the pods of a component may go: as "values" say, and those that share the images' volume also as the backend,
or the first of them would keep the backend away from its GPU. */}}
{{- define "ls-yolo.placement" -}}
{{- $group := include "ls-yolo.group" . }}
{{- $backend := .root.Values.backend }}
{{- $selector := .values.nodeSelector | default dict }}
{{- $tolerations := .values.tolerations | default list }}
{{- if or (eq .component "backend") (and (eq $group "datasets") (not .values.affinity)) }}
{{- $selector = merge (dict) $selector ($backend.nodeSelector | default dict) }}
{{- $tolerations = concat $tolerations ($backend.tolerations | default list) }}
{{- if $backend.gpu.enabled }}
{{- $tolerations = append $tolerations (dict "key" (printf "%sgpu" (regexFind "^[^/]+/" $backend.gpu.resourceName)) "operator" "Exists" "effect" "NoSchedule") }}
{{- end }}
{{- end }}
{{- with $selector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with uniq $tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- /* The first of a group may go anywhere. */}}
{{- if .values.affinity }}
affinity:
  {{- toYaml .values.affinity | nindent 2 }}
{{- else if $group }}
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "ls-yolo.selectorLabels" (dict "root" .root) | nindent 12 }}
            ls-yolo/volume-group: {{ $group }}
{{- end }}
{{- end }}

{{/* The images of a pod: volume and mount. Only Label Studio's pod may write, so that images can be copied in. */}}
{{- define "ls-yolo.datasetsVolume" -}}
- name: datasets
  {{- if .root.Values.datasets.type }}
  persistentVolumeClaim:
    claimName: {{ include "ls-yolo.datasetsClaim" . }}
  {{- else }}
  emptyDir: {sizeLimit: 64Mi}
  {{- end }}
{{- end }}

{{- define "ls-yolo.datasetsClaim" -}}
{{- $d := .root.Values.datasets }}
{{- if eq $d.type "claim" }}{{ include "ls-yolo.claimName" (dict "root" .root "component" "datasets" "claim" $d.claim) }}
{{- else }}{{ include "ls-yolo.fullname" (dict "root" .root "component" (include "ls-yolo.datasetsComponent" .)) }}
{{- end }}
{{- end }}

{{/* Neither the source of a volume nor the volume of a claim can be changed: another source, another name of both. */}}
{{- define "ls-yolo.datasetsComponent" -}}
{{- $d := .root.Values.datasets }}
{{- if eq $d.type "claim" }}datasets{{ else }}datasets-{{ list (index $d $d.type) $d.readOnly | toJson | sha256sum | trunc 8 }}{{ end }}
{{- end }}

{{- define "ls-yolo.datasetsMount" -}}
- name: datasets
  mountPath: /datasets
  {{- if or .root.Values.datasets.readOnly (ne .component "label-studio") (eq .root.Values.datasets.type "s3") }}
  readOnly: true
  {{- end }}
  {{- if eq .root.Values.datasets.type "claim" }}
  {{- with .root.Values.datasets.claim.subPath }}
  subPath: {{ . }}
  {{- end }}
  {{- end }}
{{- end }}

{{/* Puts the demo's images where a pod finds them: into its own empty folder, or, once for all, into a claim. */}}
{{- define "ls-yolo.demoImages" -}}
{{- if and .root.Values.setup.demo (or (not .root.Values.datasets.type) (eq .component "label-studio")) }}
- name: demo-images
  image: {{ include "ls-yolo.image" (dict "root" .root "component" "backend") }}
  imagePullPolicy: {{ .root.Values.backend.image.pullPolicy }}
  command: [python3, /scripts/demo_images.py, /datasets/demo]
  securityContext:
    {{- include "ls-yolo.containerSecurityContext" . | nindent 4 }}
  resources:
    {{- toYaml (index .root.Values (eq .component "label-studio" | ternary "labelStudio" .component)).resources | nindent 4 }}
  volumeMounts:
    - {name: scripts, mountPath: /scripts, readOnly: true}
    - name: datasets
      mountPath: /datasets
      {{- if eq .root.Values.datasets.type "claim" }}
      {{- with .root.Values.datasets.claim.subPath }}
      subPath: {{ . }}
      {{- end }}
      {{- end }}
{{- end }}
{{- end }}

{{- define "ls-yolo.scriptsVolume" -}}
- name: scripts
  configMap: {name: {{ include "ls-yolo.fullname" (dict "root" .root "component" "scripts") }}}
{{- end }}
