{{/* The pods of the backend, and of whatever runs a model as they do: metadata and spec. */}}
{{- define "ls-yolo.backendPod" -}}
{{- $c := . }}
{{- $v := .root.Values.backend }}
{{- $models := .root.Values.models -}}
metadata:
  labels:
    {{- include "ls-yolo.podLabels" (merge (dict "labels" $v.podLabels) $c) | nindent 4 }}
  {{- /* Weights are fetched when a pod starts: others need other pods. */}}
  {{- $fetched := eq $models.type "download" | ternary (dict "ls-yolo/downloads" ($models.download.files | toJson | sha256sum)) dict }}
  {{- with merge (dict) $v.podAnnotations (include "ls-yolo.networks" $c | fromYaml) $fetched }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- include "ls-yolo.imagePullSecrets" $c | nindent 2 }}
  serviceAccountName: {{ include "ls-yolo.serviceAccountName" $c }}
  automountServiceAccountToken: false
  # Variables for each Service of the namespace would pass for settings, such as BACKEND_PORT.
  enableServiceLinks: false
  securityContext:
    {{- toYaml $v.podSecurityContext | nindent 4 }}
  terminationGracePeriodSeconds: {{ $v.terminationGracePeriodSeconds }}
  {{- with $v.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with $v.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- include "ls-yolo.placement" (merge (dict "values" $v) $c) | nindent 2 }}
  {{- with $v.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- $images := include "ls-yolo.demoImages" $c }}
  {{- if or $images (eq $models.type "download") }}
  initContainers:
    {{- $images | nindent 4 }}
    {{- if eq $models.type "download" }}
    - name: fetch-models
      image: {{ include "ls-yolo.image" $c }}
      imagePullPolicy: {{ $v.image.pullPolicy }}
      command: [python3, /scripts/fetch_models.py, /scripts/downloads.json, /models]
      securityContext:
        {{- include "ls-yolo.containerSecurityContext" $c | nindent 8 }}
      terminationMessagePolicy: FallbackToLogsOnError
      env:
        {{- include "ls-yolo.extraEnv" $c | nindent 8 }}
      {{- with $v.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      resources:
        {{- toYaml $v.resources | nindent 8 }}
      volumeMounts:
        - {name: scripts, mountPath: /scripts, readOnly: true}
        - {name: models, mountPath: /models}
        - {name: tmp, mountPath: /tmp}
        {{- with $v.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- end }}
  {{- end }}
  containers:
    - name: backend
      image: {{ include "ls-yolo.image" $c }}
      imagePullPolicy: {{ $v.image.pullPolicy }}
      securityContext:
        {{- include "ls-yolo.containerSecurityContext" $c | nindent 8 }}
      terminationMessagePolicy: FallbackToLogsOnError
      env:
        {{- include "ls-yolo.backendEnv" $c | nindent 8 }}
      {{- with $v.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - {name: http, containerPort: 9090}
      {{- range $probe, $path := dict "startupProbe" "/readyz" "readinessProbe" "/readyz" "livenessProbe" "/livez" }}
      {{ $probe }}:
        httpGet: {path: {{ $path }}, port: http}
        {{- toYaml (index $v $probe) | nindent 8 }}
      {{- end }}
      lifecycle:
        # Until every node knows that the pod ends, requests still come.
        preStop: {sleep: {seconds: 5}}
      resources:
        {{- $resources := deepCopy $v.resources }}
        {{- if $v.gpu.enabled }}
        {{- $_ := set $resources "limits" (merge (dict $v.gpu.resourceName ($v.gpu.count | int)) ($resources.limits | default dict)) }}
        {{- end }}
        {{- toYaml $resources | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /config, readOnly: true}
        - name: models
          mountPath: /models
          readOnly: true
          {{- if and (eq $models.type "claim") $models.claim.subPath }}
          subPath: {{ $models.claim.subPath }}
          {{- end }}
        - {name: data, mountPath: /data}
        - {name: tmp, mountPath: /tmp}
        - {name: shm, mountPath: /dev/shm}
        {{- include "ls-yolo.datasetsMount" $c | nindent 8 }}
        {{- with $v.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      configMap: {name: {{ include "ls-yolo.fullname" (dict "root" .root "component" "models") }}}
    - name: models
      {{- if eq $models.type "claim" }}
      persistentVolumeClaim: {claimName: {{ $models.claim.existingClaim }}}
      {{- else if eq $models.type "image" }}
      image: {reference: {{ $models.image.reference | quote }}, pullPolicy: {{ $models.image.pullPolicy }}}
      {{- else }}
      emptyDir: {sizeLimit: 10Gi}
      {{- end }}
    - name: data
      {{- if $v.cache.enabled }}
      persistentVolumeClaim: {claimName: {{ include "ls-yolo.claimName" (merge (dict "claim" $v.cache) $c) }}}
      {{- else }}
      emptyDir: {}
      {{- end }}
    - name: tmp
      emptyDir: {sizeLimit: 1Gi}
    - name: shm
      emptyDir: {medium: Memory, sizeLimit: {{ $v.shmSize }}}
    {{- include "ls-yolo.datasetsVolume" $c | nindent 4 }}
    {{- if or $images (eq $models.type "download") }}
    {{- include "ls-yolo.scriptsVolume" $c | nindent 4 }}
    {{- end }}
    {{- with $v.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
