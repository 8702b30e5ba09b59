{{/* The values that the pods of prelabel are made by: those of the backend, and what is said of them. */}}
{{- define "ls-yolo.prelabelValues" -}}
{{- $v := deepCopy .Values }}
{{- $p := $v.prelabel }}
{{- $b := $v.backend }}
{{- if not (kindIs "invalid" $p.gpu.enabled) }}{{ $_ := set $b.gpu "enabled" $p.gpu.enabled }}{{ end }}
{{- range $key := list "resources" "nodeSelector" "tolerations" "priorityClassName" }}
{{- with index $p $key }}{{ $_ := set $b $key . }}{{ end }}
{{- end }}
{{- $_ := set $b "podAnnotations" (merge (dict) $p.podAnnotations $b.podAnnotations) }}
{{- /* These are about the pods of a Deployment, and an address is one pod's. */}}
{{- $_ := set $b "topologySpreadConstraints" list }}
{{- $_ := set $v.multus "enabled" false }}
{{- toJson $v }}
{{- end }}

{{/* A pod of prelabel: the backend's, with another command, that ends. (dict "root" $ "project" "Wheelhouse") */}}
{{- define "ls-yolo.prelabelPod" -}}
{{- $p := .root.Values.prelabel }}
{{- $root := set (omit .root "Values") "Values" (include "ls-yolo.prelabelValues" .root | fromJson) }}
{{- $pod := include "ls-yolo.backendPod" (dict "root" $root "component" "backend") | fromYaml }}
{{- $_ := set $pod.metadata.labels "app.kubernetes.io/component" "prelabel" }}
{{- /* Others are another Job anyway. */}}
{{- with $pod.metadata.annotations }}{{ $_ := unset . "ls-yolo/downloads" }}{{ end }}
{{- if not $pod.metadata.annotations }}{{ $_ := unset $pod.metadata "annotations" }}{{ end }}
{{- $_ := set $pod.spec "restartPolicy" "Never" }}
{{- $container := omit (first $pod.spec.containers) "ports" "startupProbe" "readinessProbe" "livenessProbe" "lifecycle" }}
{{- $url := dict "name" "BACKEND_URL" "value" (include "ls-yolo.backendUrl" .) }}
{{- $_ := set $container "env" (append $container.env $url) }}
{{- $_ := set $container "name" "prelabel" }}
{{- $_ := set $container "command" (list "ls-yolo") }}
{{- $shard := printf "$(JOB_COMPLETION_INDEX)/%d" (int $p.shards) }}
{{- /* Kubernetes would take $(NAME) for a variable. */}}
{{- $words := list }}
{{- range concat $p.options (list "--" (include "ls-yolo.text" .project)) }}{{ $words = append $words (replace "$(" "$$(" .) }}{{ end }}
{{- $_ := set $container "args" (concat (list "prelabel" "--here" "--shard" $shard) $words) }}
{{- $_ := set $pod.spec "containers" (list $container) }}
{{- /* A folder of their own: what several pods write must not be one file. */}}
{{- $volumes := list }}
{{- range $pod.spec.volumes }}{{ $volumes = append $volumes (eq .name "data" | ternary (dict "name" "data" "emptyDir" (dict)) .) }}{{ end }}
{{- $_ := set $pod.spec "volumes" $volumes }}
{{- toYaml $pod }}
{{- end }}

{{- define "ls-yolo.prelabelSpec" -}}
{{- $p := .root.Values.prelabel -}}
completionMode: Indexed
completions: {{ $p.shards }}
parallelism: {{ $p.parallelism | default $p.shards }}
# A shard that fails for good ends alone; the others go on.
backoffLimitPerIndex: {{ $p.backoffLimitPerIndex }}
{{- with $p.activeDeadlineSeconds }}
activeDeadlineSeconds: {{ int64 . }}
{{- end }}
podFailurePolicy:
  rules:
    # A node that is drained, or needed for something else: nobody's fault.
    - action: Ignore
      onPodConditions: [{type: DisruptionTarget, status: "True"}]
    # Tasks that failed (1), called wrongly (2), a refused token (77), a faulty file or setting (78): not mended by
    # another try.
    - action: FailIndex
      onExitCodes: {containerName: prelabel, operator: In, values: [1, 2, 77, 78]}
template:
  {{- include "ls-yolo.prelabelPod" . | nindent 2 }}
{{- end }}
