{{/*
Everything that is wrong, at once: what was set, why it is refused, what to do. What only the cluster knows is looked
up; without one (helm template) nothing is found and nothing of it is refused.
*/}}
{{- define "ls-yolo.validations" -}}
{{- $faults := concat
    (include "ls-yolo.faults.database" . | fromJsonArray)
    (include "ls-yolo.faults.labelStudio" . | fromJsonArray)
    (include "ls-yolo.faults.access" . | fromJsonArray)
    (include "ls-yolo.faults.backend" . | fromJsonArray)
    (include "ls-yolo.faults.extraEnv" . | fromJsonArray)
    (include "ls-yolo.faults.models" . | fromJsonArray)
    (include "ls-yolo.faults.datasets" . | fromJsonArray)
    (include "ls-yolo.faults.setup" . | fromJsonArray)
    (include "ls-yolo.faults.prelabel" . | fromJsonArray)
    (include "ls-yolo.faults.backup" . | fromJsonArray)
    (include "ls-yolo.faults.crds" . | fromJsonArray)
    (include "ls-yolo.faults.existing" . | fromJsonArray)
    (include "ls-yolo.faults.upgrade" . | fromJsonArray)
}}
{{- with $faults }}
{{- fail (printf "\n\nls-yolo: %d value(s) cannot be used; nothing was changed.\n  - %s\n" (len .) (join "\n  - " .)) }}
{{- end }}
{{- end }}

{{- define "ls-yolo.faults.database" -}}
{{- $f := list }}
{{- $p := .Values.postgres }}
{{- $v := .Values.labelStudio }}
{{- $sqlite := eq (include "ls-yolo.database" (dict "root" .)) "sqlite" }}
{{- if and $p.enabled $p.external.host }}
{{- $f = append $f (printf "postgres.enabled=true and postgres.external.host=%s: two databases, and Label Studio uses one. Unset one of them." $p.external.host) }}
{{- end }}
{{- if and $p.external.host (not $p.external.existingSecret) }}
{{- $f = append $f (printf "postgres.external.host=%s without postgres.external.existingSecret: no password. Make a Secret with the key POSTGRES_PASSWORD, and name it there." $p.external.host) }}
{{- end }}
{{- if and $sqlite (gt (int $v.replicas) 1) }}
{{- $f = append $f (printf "labelStudio.replicas=%d with SQLite: pods would write one file at a time and damage it. Set postgres.enabled=true or postgres.external.host, or labelStudio.replicas=1." (int $v.replicas)) }}
{{- end }}
{{- if and $sqlite (eq $v.strategy "RollingUpdate") }}
{{- $f = append $f "labelStudio.strategy=RollingUpdate with SQLite: the new pod would write the file that the old one has open. Leave it empty, or use Postgres." }}
{{- end }}
{{- toJson $f }}
{{- end }}

{{- define "ls-yolo.faults.labelStudio" -}}
{{- $f := list }}
{{- $v := .Values.labelStudio }}
{{- if and (gt (int $v.replicas) 1) (not $v.persistence.enabled) (not $v.s3.enabled) }}
{{- $f = append $f (printf "labelStudio.replicas=%d without labelStudio.persistence or labelStudio.s3: an upload would be in one pod only. Switch one of them on." (int $v.replicas)) }}
{{- end }}
{{- if and (or (gt (int $v.replicas) 1) (eq $v.strategy "RollingUpdate")) $v.persistence.enabled (has "ReadWriteOncePod" $v.persistence.accessModes) }}
{{- $f = append $f "labelStudio.persistence.accessModes=[ReadWriteOncePod] with more than one pod at a time: the second could not start. Use ReadWriteMany, or one replica and Recreate." }}
{{- end }}
{{- if $v.s3.enabled }}
{{- if not $v.s3.bucket }}
{{- $f = append $f "labelStudio.s3.enabled=true without labelStudio.s3.bucket: nowhere to put uploads. Name the bucket." }}
{{- end }}
{{- if not $v.s3.existingSecret }}
{{- $f = append $f "labelStudio.s3.enabled=true without labelStudio.s3.existingSecret: no access key. Make a Secret with the keys access-key-id and secret-access-key, and name it there." }}
{{- end }}
{{- end }}
{{- toJson $f }}
{{- end }}

{{- define "ls-yolo.faults.access" -}}
{{- $f := list }}
{{- $v := .Values }}
{{- if and $v.ingress.enabled (not $v.ingress.host) }}
{{- $f = append $f "ingress.enabled=true without ingress.host: Label Studio must know the address that people open, or logging in fails. Set ingress.host." }}
{{- end }}
{{- if and $v.gateway.enabled (not $v.gateway.host) }}
{{- $f = append $f "gateway.enabled=true without gateway.host: Label Studio must know the address that people open, or logging in fails. Set gateway.host." }}
{{- end }}
{{- if and $v.gateway.enabled (not $v.gateway.parentRefs) }}
{{- $f = append $f "gateway.enabled=true without gateway.parentRefs: the route would belong to no Gateway. Name one: [{name: my-gateway}]." }}
{{- end }}
{{- if and $v.ingress.enabled $v.gateway.enabled (ne $v.ingress.host $v.gateway.host) (not $v.labelStudio.env.LABEL_STUDIO_HOST) }}
{{- $f = append $f (printf "ingress.host=%s and gateway.host=%s: two addresses, and Label Studio builds links with one. Set labelStudio.env.LABEL_STUDIO_HOST to it." $v.ingress.host $v.gateway.host) }}
{{- end }}
{{- if $v.multus.enabled }}
{{- if not $v.multus.master }}
{{- $f = append $f "multus.enabled=true without multus.master: macvlan needs an interface of the nodes, such as eth1. Name it." }}
{{- end }}
{{- if not (or $v.multus.labelStudioAddress $v.multus.backendAddress) }}
{{- $f = append $f "multus.enabled=true without multus.labelStudioAddress or multus.backendAddress: nobody would get an address. Set one." }}
{{- end }}
{{- range $key := list "labelStudio" "backend" }}
{{- $address := index $v.multus (printf "%sAddress" $key) }}
{{- if and $address (eq (index $v $key).strategy "RollingUpdate") }}
{{- $f = append $f (printf "%s.strategy=RollingUpdate with multus.%sAddress=%s: during an update two pods would have that address. Leave it empty, or use no address." $key $key $address) }}
{{- end }}
{{- end }}
{{- if and $v.multus.labelStudioAddress (gt (int $v.labelStudio.replicas) 1) }}
{{- $f = append $f (printf "multus.labelStudioAddress=%s with labelStudio.replicas=%d: an address is one pod's. Set one replica, or no address." $v.multus.labelStudioAddress (int $v.labelStudio.replicas)) }}
{{- end }}
{{- $several := or (gt (int $v.backend.replicas) 1) $v.backend.autoscaling.hpa.enabled $v.backend.autoscaling.keda.enabled }}
{{- if and $v.multus.backendAddress $several }}
{{- $f = append $f (printf "multus.backendAddress=%s with several backend pods: an address is one pod's. Set backend.replicas=1 without autoscaling, or no address." $v.multus.backendAddress) }}
{{- end }}
{{- end }}
{{- toJson $f }}
{{- end }}

{{- define "ls-yolo.faults.backend" -}}
{{- $f := list }}
{{- $v := .Values.backend }}
{{- $hpa := $v.autoscaling.hpa }}
{{- $keda := $v.autoscaling.keda }}
{{- if and $hpa.enabled $keda.enabled }}
{{- $f = append $f "backend.autoscaling.hpa.enabled=true and backend.autoscaling.keda.enabled=true: both would set the number of pods. Switch one off." }}
{{- end }}
{{- range $name, $scaler := dict "hpa" $hpa "keda" $keda }}
{{- if and $scaler.enabled (gt (int $scaler.minReplicas) (int $scaler.maxReplicas)) }}
{{- $f = append $f (printf "backend.autoscaling.%s.minReplicas=%d is more than maxReplicas=%d. Exchange them." $name (int $scaler.minReplicas) (int $scaler.maxReplicas)) }}
{{- end }}
{{- end }}
{{- if and $hpa.enabled (not (($v.resources.requests).cpu)) }}
{{- $f = append $f "backend.autoscaling.hpa.enabled=true without backend.resources.requests.cpu: there is nothing to take a per cent of. Set it." }}
{{- end }}
{{- if and $keda.enabled (not .Values.metrics.serviceMonitor.enabled) }}
{{- $f = append $f "backend.autoscaling.keda.enabled=true without metrics.serviceMonitor.enabled: KEDA asks Prometheus by the labels that the ServiceMonitor gives, and would find nothing. Set it to true." }}
{{- end }}
{{- if and $keda.enabled (not $keda.prometheusAddress) }}
{{- $f = append $f "backend.autoscaling.keda.enabled=true without backend.autoscaling.keda.prometheusAddress: KEDA would have nobody to ask. Set it, such as http://prometheus.monitoring.svc:9090." }}
{{- end }}
{{- $name := $v.gpu.resourceName }}
{{- if $v.gpu.enabled }}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$" $name) }}
{{- $f = append $f (printf "backend.gpu.resourceName=%s is no name of a resource. Expected <domain>/<name>, such as nvidia.com/gpu." $name) }}
{{- else if and (hasPrefix "nvidia.com/" $name) (not (regexMatch "^nvidia\\.com/(gpu(\\.shared)?|mig-([1-7]c\\.)?[1-7]g\\.[0-9]+gb(\\.me(\\.all)?|\\.gfx|\\.shared)*)$" $name)) }}
{{- $f = append $f (printf "backend.gpu.resourceName=%s is no name that NVIDIA's device plugin gives, so pods would wait for ever. Expected nvidia.com/gpu, nvidia.com/gpu.shared, or a MIG profile such as nvidia.com/mig-1g.5gb; `kubectl describe node` lists what nodes have." $name) }}
{{- end }}
{{- if and (hasSuffix ".shared" $name) (gt (int $v.gpu.count) 1) }}
{{- $f = append $f (printf "backend.gpu.count=%d of %s: several shares of a GPU are not more of it, and the device plugin refuses them. Set 1." (int $v.gpu.count) $name) }}
{{- end }}
{{- end }}
{{- range $resource, $_ := merge (dict) ($v.resources.limits | default dict) ($v.resources.requests | default dict) }}
{{- if contains "/" $resource }}
{{- $f = append $f (printf "backend.resources names %s: without backend.gpu the pods would not bear the GPU nodes' taints nor be replaced one after the other. Use backend.gpu.enabled, .count and .resourceName." $resource) }}
{{- end }}
{{- end }}
{{- toJson $f }}
{{- end }}

{{/* A variable that is given twice is refused by the API server, or one of the two is lost without a word. */}}
{{- define "ls-yolo.faults.extraEnv" -}}
{{- $f := list }}
{{- $env := dict
    "labelStudio" (include "ls-yolo.labelStudioEnv" (dict "root" . "component" "label-studio") | fromYamlArray)
    "backend" (include "ls-yolo.backendEnv" (dict "root" . "component" "backend") | fromYamlArray)
}}
{{- range $part, $rows := $env }}
{{- $values := index $.Values $part }}
{{- $names := list }}
{{- range $rows }}{{ $names = append $names .name }}{{ end }}
{{- range $values.extraEnv }}
{{- $name := .name }}
{{- if eq (upper $name) "NO_PROXY" }}
{{- if .valueFrom }}
{{- $f = append $f (printf "%s.extraEnv has %s by valueFrom: the names of the services are put before it, so it must be known here. Give its value." $part $name) }}
{{- end }}
{{- else if hasKey $values.env $name }}
{{- $f = append $f (printf "%s.extraEnv names %s, which has a place of its own. Set %s.env.%s." $part $name $part $name) }}
{{- else if gt (len $names) (len (without $names $name) | add1) }}
{{- $f = append $f (printf "%s.extraEnv names %s a second time, or the chart sets it from other values. Take it out." $part $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- uniq $f | toJson }}
{{- end }}

{{- define "ls-yolo.faults.models" -}}
{{- $f := list }}
{{- $m := .Values.models }}
{{- $text := include "ls-yolo.modelsConfig" (dict "root" .) }}
{{- $config := $text | fromYaml }}
{{- range $m.download.files }}
{{- if regexMatch "^https?://[^/?#]*@" .url }}
{{- $f = append $f (printf "models.download.files: the url of %s has a user and a password, which whoever may read ConfigMaps would see. Take them out, and fetch from where none is asked, or use models.type=claim or image." .name) }}
{{- end }}
{{- end }}
{{- if and (eq $m.type "claim") (not $m.claim.existingClaim) }}
{{- $f = append $f "models.type=claim without models.claim.existingClaim: there are no weights. Make a claim, copy them in, and name it there." }}
{{- end }}
{{- if eq $m.type "image" }}
{{- if not $m.image.reference }}
{{- $f = append $f "models.type=image without models.image.reference: there are no weights. Name an image or OCI artefact, with tag or digest." }}
{{- end }}
{{- if semverCompare "<1.31.0-0" .Capabilities.KubeVersion.Version }}
{{- $f = append $f (printf "models.type=image on Kubernetes %s: image volumes came with 1.31, and are on by default from 1.35. Use models.type=claim or download." .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- end }}
{{- if not .Values.backend.env.MODEL_CLASS }}
{{- if hasKey $config "Error" }}
{{- $f = append $f (printf "models.config is not YAML: %s. Expected a mapping from model names to their entries, as docs/models.md shows." $config.Error) }}
{{- else if not $config }}
{{- $f = append $f "models.config is empty: expected at least one model, such as {coco: {weights: yolov8n.pt}}." }}
{{- else }}
{{- $files := list }}
{{- range $m.download.files }}{{ $files = append $files .name }}{{ end }}
{{- range $name, $entry := $config }}
{{- if not (and (kindIs "map" $entry) ($entry).weights) }}
{{- $f = append $f (printf "models.config names the model %s without weights. Expected %s: {weights: <file>.pt}." $name $name) }}
{{- else if and (eq $m.type "download") (not (has $entry.weights $files)) }}
{{- $f = append $f (printf "models.config names the weights %s, and models.download.files has no file of that name. Add it with url and sha256, or use models.type=claim or image." $entry.weights) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $f }}
{{- end }}

{{- define "ls-yolo.faults.datasets" -}}
{{- $f := list }}
{{- $d := .Values.datasets }}
{{- if and (eq $d.type "hostPath") (not $d.hostPath.path) }}
{{- $f = append $f "datasets.type=hostPath without datasets.hostPath.path: no folder. Name it." }}
{{- end }}
{{- if eq $d.type "nfs" }}
{{- if not (and $d.nfs.server $d.nfs.path) }}
{{- $f = append $f (printf "datasets.type=nfs with datasets.nfs.server=%q and datasets.nfs.path=%q: both are needed. Set them." $d.nfs.server $d.nfs.path) }}
{{- end }}
{{- end }}
{{- if eq $d.type "s3" }}
{{- if not $d.s3.bucket }}
{{- $f = append $f "datasets.type=s3 without datasets.s3.bucket: no images. Name the bucket." }}
{{- end }}
{{- end }}
{{- if and .Values.setup.demo $d.type (or $d.readOnly (eq $d.type "s3")) }}
{{- $f = append $f (printf "setup.demo=true with datasets.type=%s, which is read-only: the demo's images cannot be put there. Set setup.demo=false." $d.type) }}
{{- end }}
{{- toJson $f }}
{{- end }}

{{- define "ls-yolo.faults.setup" -}}
{{- $f := list }}
{{- $config := include "ls-yolo.modelsConfig" (dict "root" .) | fromYaml }}
{{- if and .Values.setup.demo .Values.setup.enabled }}
{{- if .Values.backend.env.MODEL_CLASS }}
{{- $f = append $f (printf "setup.demo=true with backend.env.MODEL_CLASS=%s: the demo needs its own model. Set setup.demo=false." .Values.backend.env.MODEL_CLASS) }}
{{- else if not (hasKey $config "coco") }}
{{- $f = append $f (printf "setup.demo=true without the model coco in models.config (which has: %s): the demo project needs it. Set setup.demo=false." (keys $config | sortAlpha | join ", ")) }}
{{- end }}
{{- end }}
{{- range $name, $_ := .Values.projects }}
{{- if not (regexMatch "^[A-Za-z0-9][A-Za-z0-9._-]*\\.ya?ml$" $name) }}
{{- $f = append $f (printf "projects names the file %q: only files that end in .yaml or .yml are read, and letters, digits, dot, dash and underscore are allowed. Rename it." $name) }}
{{- end }}
{{- end }}
{{- if and .Values.projects (not .Values.setup.enabled) .Values.labelStudio.replicas }}
{{- $f = append $f "projects with setup.enabled=false: nobody would make them. Set setup.enabled=true." }}
{{- end }}
{{- toJson $f }}
{{- end }}

{{- define "ls-yolo.faults.prelabel" -}}
{{- $f := list }}
{{- $p := .Values.prelabel }}
{{- if $p.enabled }}
{{- if not $p.projects }}
{{- $f = append $f "prelabel.enabled=true without prelabel.projects: nothing to predict. Name the titles of projects." }}
{{- end }}
{{- range $p.options }}
{{- if regexMatch "^--(here|shard|kubernetes|dry-run|replace)(=|$)" . }}
{{- $f = append $f (printf "prelabel.options names %s, which does not go with shards of a project. Take it out; prelabel.shards says how many there are, and --replace is for a run of its own afterwards." .) }}
{{- end }}
{{- end }}
{{- range $resource, $_ := merge (dict) ($p.resources.limits | default dict) ($p.resources.requests | default dict) }}
{{- if contains "/" $resource }}
{{- $f = append $f (printf "prelabel.resources names %s: the pods would not bear the GPU nodes' taints. Use prelabel.gpu.enabled, with backend.gpu.resourceName and .count." $resource) }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $f }}
{{- end }}

{{- define "ls-yolo.faults.backup" -}}
{{- $f := list }}
{{- $v := .Values }}
{{- $c := dict "root" . "component" "backup" }}
{{- if $v.backup.enabled }}
{{- if and (eq (include "ls-yolo.database" $c) "sqlite") (not $v.labelStudio.persistence.enabled) }}
{{- $f = append $f "backup.enabled=true with SQLite and labelStudio.persistence.enabled=false: the database is in Label Studio's pod, where no other can read it. Set labelStudio.persistence.enabled=true, or use Postgres." }}
{{- end }}
{{- $claims := list
    (list $v.labelStudio.persistence.enabled "labelStudio.persistence" $v.labelStudio.persistence "")
    (list (include "ls-yolo.backupCache" $c) "backend.cache" $v.backend.cache ", or backup.cache=false")
}}
{{- range $claims }}
{{- if and (index . 0) (has "ReadWriteOncePod" (index . 2).accessModes) }}
{{- $f = append $f (printf "backup.enabled=true with %s.accessModes=[ReadWriteOncePod]: the pod that makes the backup could not mount it beside the one that has it. Use ReadWriteOnce or ReadWriteMany%s." (index . 1) (index . 3)) }}
{{- end }}
{{- end }}
{{- if and $v.backup.datasets (not $v.datasets.type) }}
{{- $f = append $f "backup.datasets=true without datasets.type: there are no images to save. Set backup.datasets=false." }}
{{- end }}
{{- if and $v.backup.s3.bucket $v.backup.persistence.existingClaim }}
{{- $f = append $f (printf "backup.s3.bucket=%s and backup.persistence.existingClaim=%s: two places for one backup. Unset one of them." $v.backup.s3.bucket $v.backup.persistence.existingClaim) }}
{{- end }}
{{- end }}
{{- toJson $f }}
{{- end }}

{{/* Whether a cluster was asked for what it has: the API of the aggregator is in every cluster and in no built-in list. */}}
{{- define "ls-yolo.connected" -}}
{{- if .Capabilities.APIVersions.Has "apiregistration.k8s.io/v1" }}true{{ end }}
{{- end }}

{{- define "ls-yolo.faults.crds" -}}
{{- $f := list }}
{{- if include "ls-yolo.connected" . }}
{{- $wanted := list
    (list .Values.gateway.enabled "gateway.networking.k8s.io/v1" "HTTPRoute" "gateway.enabled" "the Gateway API")
    (list .Values.metrics.serviceMonitor.enabled "monitoring.coreos.com/v1" "ServiceMonitor" "metrics.serviceMonitor.enabled" "the Prometheus operator")
    (list (and .Values.backup.enabled .Values.metrics.prometheusRule.enabled) "monitoring.coreos.com/v1" "PrometheusRule" "metrics.prometheusRule.enabled" "the Prometheus operator")
    (list .Values.backend.autoscaling.keda.enabled "keda.sh/v1alpha1" "ScaledObject" "backend.autoscaling.keda.enabled" "KEDA")
    (list .Values.multus.enabled "k8s.cni.cncf.io/v1" "NetworkAttachmentDefinition" "multus.enabled" "Multus")
}}
{{- range $wanted }}
{{- if and (index . 0) (not ($.Capabilities.APIVersions.Has (index . 1))) }}
{{- $f = append $f (printf "%s=true, and the cluster does not know the kind %s (%s). Install %s first, or set it to false." (index . 3) (index . 2) (index . 1) (index . 4)) }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $f }}
{{- end }}

{{/* Secrets and claims that are named must be there with what is needed of them, or pods would wait in silence. */}}
{{- define "ls-yolo.faults.existing" -}}
{{- $f := list }}
{{- $v := .Values }}
{{- if include "ls-yolo.connected" . }}
{{- $secrets := list
    (list $v.secrets.existingSecret "secrets.existingSecret" (list "LABEL_STUDIO_PASSWORD" "LABEL_STUDIO_API_KEY" "BASIC_AUTH_PASS" "SECRET_KEY"))
    (list ($v.postgres.enabled | ternary $v.postgres.existingSecret "") "postgres.existingSecret" (list "POSTGRES_PASSWORD"))
    (list (not $v.postgres.external.host | not | ternary $v.postgres.external.existingSecret "") "postgres.external.existingSecret" (list "POSTGRES_PASSWORD"))
    (list ($v.labelStudio.s3.enabled | ternary $v.labelStudio.s3.existingSecret "") "labelStudio.s3.existingSecret" (list "access-key-id" "secret-access-key"))
    (list (and $v.backup.enabled (not (empty $v.backup.s3.bucket)) | ternary $v.backup.s3.existingSecret "") "backup.s3.existingSecret" (list "access-key-id" "secret-access-key"))
    (list ($v.backup.enabled | ternary $v.backup.passphraseSecret "") "backup.passphraseSecret" (list "passphrase"))
}}
{{- range $secrets }}
{{- $name := index . 0 }}
{{- $setting := index . 1 }}
{{- $keys := index . 2 }}
{{- if $name }}
{{- $found := lookup "v1" "Secret" $.Release.Namespace $name }}
{{- if not $found }}
{{- $f = append $f (printf "%s=%s: no Secret of that name in the namespace %s. Make it, with the keys %s." $setting $name $.Release.Namespace (join ", " $keys)) }}
{{- else }}
{{- $missing := list }}
{{- range $keys }}
{{- if not (hasKey ($found.data | default dict) .) }}{{ $missing = append $missing . }}{{ end }}
{{- end }}
{{- with $missing }}
{{- $f = append $f (printf "%s=%s: the Secret lacks %s. Expected the keys %s; add them." $setting $name (join ", " .) (join ", " $keys)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- $claims := list
    (list ($v.labelStudio.persistence.enabled | ternary $v.labelStudio.persistence.existingClaim "") "labelStudio.persistence.existingClaim")
    (list ($v.backend.cache.enabled | ternary $v.backend.cache.existingClaim "") "backend.cache.existingClaim")
    (list (and $v.postgres.enabled $v.postgres.persistence.enabled | ternary $v.postgres.persistence.existingClaim "") "postgres.persistence.existingClaim")
    (list (eq $v.models.type "claim" | ternary $v.models.claim.existingClaim "") "models.claim.existingClaim")
    (list (eq $v.datasets.type "claim" | ternary $v.datasets.claim.existingClaim "") "datasets.claim.existingClaim")
    (list ($v.backup.enabled | ternary $v.backup.persistence.existingClaim "") "backup.persistence.existingClaim")
}}
{{- range $claims }}
{{- if and (index . 0) (not (lookup "v1" "PersistentVolumeClaim" $.Release.Namespace (index . 0))) }}
{{- $f = append $f (printf "%s=%s: no claim of that name in the namespace %s. Make it, or leave it empty where the chart can make one." (index . 1) (index . 0) $.Release.Namespace) }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $f }}
{{- end }}

{{/* A quantity such as 10Gi in bytes; nothing where it is none. */}}
{{- define "ls-yolo.bytes" -}}
{{- $number := regexFind "^[0-9.]+" (toString .) }}
{{- $unit := trimPrefix $number (toString .) }}
{{- $factors := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- if and $number (hasKey $factors $unit) }}{{ mulf (float64 $number) (get $factors $unit | float64) | int64 }}{{ end }}
{{- end }}

{{/* What an upgrade can not change, or must not: fields that the API server holds fast, and where the data are. */}}
{{- define "ls-yolo.faults.upgrade" -}}
{{- $f := list }}
{{- $v := .Values }}
{{- $ns := .Release.Namespace }}
{{- $claims := list
    (list (and $v.labelStudio.persistence.enabled (not $v.labelStudio.persistence.existingClaim)) "labelStudio.persistence" $v.labelStudio.persistence "label-studio")
    (list (and $v.backend.cache.enabled (not $v.backend.cache.existingClaim)) "backend.cache" $v.backend.cache "backend")
    (list (and $v.postgres.enabled $v.postgres.persistence.enabled (not $v.postgres.persistence.existingClaim)) "postgres.persistence" $v.postgres.persistence "postgres")
    (list (and (eq $v.datasets.type "claim") (not $v.datasets.claim.existingClaim)) "datasets.claim" $v.datasets.claim "datasets")
    (list (and $v.backup.enabled (not $v.backup.s3.bucket) (not $v.backup.persistence.existingClaim)) "backup.persistence" $v.backup.persistence "backup")
}}
{{- range $claims }}
{{- if index . 0 }}
{{- $setting := index . 1 }}
{{- $claim := index . 2 }}
{{- $name := include "ls-yolo.fullname" (dict "root" $ "component" (index . 3)) }}
{{- with lookup "v1" "PersistentVolumeClaim" $ns $name }}
{{- $fix := printf "A claim's cannot be changed. Put it back, or copy the data to a claim of your own and name that in %s.existingClaim." $setting }}
{{- $class := eq $claim.storageClass "-" | ternary "" $claim.storageClass }}
{{- if and $claim.storageClass (ne $class (.spec.storageClassName | default "")) }}
{{- $f = append $f (printf "%s.storageClass=%s, and the claim %s has %q. %s" $setting $claim.storageClass $name (.spec.storageClassName | default "") $fix) }}
{{- end }}
{{- if ne (sortAlpha $claim.accessModes | join ",") (sortAlpha .spec.accessModes | join ",") }}
{{- $f = append $f (printf "%s.accessModes=[%s], and the claim %s has [%s]. %s" $setting (join "," $claim.accessModes) $name (join "," .spec.accessModes) $fix) }}
{{- end }}
{{- $wanted := include "ls-yolo.bytes" $claim.size }}
{{- $found := include "ls-yolo.bytes" .spec.resources.requests.storage }}
{{- if and $wanted $found (lt (int64 $wanted) (int64 $found)) }}
{{- $f = append $f (printf "%s.size=%s is less than the %s that the claim %s has. A claim cannot shrink. Set %s or more." $setting $claim.size .spec.resources.requests.storage $name .spec.resources.requests.storage) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- /* What an uninstall has not finished deleting would take this release's claim with it. */}}
{{- $mine := list "label-studio" "backend" "postgres" "datasets" (include "ls-yolo.datasetsComponent" (dict "root" .)) }}
{{- range $component := uniq $mine }}
{{- $claim := include "ls-yolo.fullname" (dict "root" $ "component" $component) }}
{{- with lookup "v1" "PersistentVolumeClaim" $ns $claim }}
{{- if .metadata.deletionTimestamp }}
{{- $f = append $f (printf "the claim %s is being deleted, and goes when no pod uses it any longer. Wait until it is gone: kubectl -n %s wait --for=delete pvc/%s --timeout=5m" $claim $ns $claim) }}
{{- end }}
{{- end }}
{{- end }}
{{- $c := dict "root" . "component" "label-studio" }}
{{- $name := include "ls-yolo.fullname" $c }}
{{- $deployment := lookup "apps/v1" "Deployment" $ns $name }}
{{- $allow := "Put it back, or, to go on with the other one, labelStudio.allowDataChange=true." }}
{{- if not $v.labelStudio.allowDataChange }}
{{- $where := include "ls-yolo.databaseWhere" $c }}
{{- $was := "" }}
{{- /* Of whatever name, and of what an uninstall has left. */}}
{{- range concat ((lookup "apps/v1" "Deployment" $ns "").items | default list) ((lookup "v1" "PersistentVolumeClaim" $ns "").items | default list) }}
{{- $labels := .metadata.labels | default dict }}
{{- if and (eq (index $labels "app.kubernetes.io/instance" | default "") $.Release.Name) (eq (index $labels "app.kubernetes.io/part-of" | default "") "ls-yolo") }}
{{- $was = $was | default (index (.metadata.annotations | default dict) "ls-yolo/database") }}
{{- end }}
{{- end }}
{{- if and $was (ne $was $where) }}
{{- $f = append $f (printf "the database would be %s, and so far it is %s: accounts, projects and annotations would not be there. %s" $where $was $allow) }}
{{- end }}
{{- if $deployment }}
{{- $used := "" }}
{{- range $deployment.spec.template.spec.volumes }}
{{- if eq .name "data" }}{{ $used = dig "persistentVolumeClaim" "claimName" "" . }}{{ end }}
{{- end }}
{{- $next := $v.labelStudio.persistence.enabled | ternary (include "ls-yolo.claimName" (merge (dict "claim" $v.labelStudio.persistence) $c)) "" }}
{{- if and $used (ne $used $next) }}
{{- $f = append $f (printf "/data of Label Studio would be %s, and so far it is the claim %s: what people uploaded, and with SQLite everything, would not be there. %s" ($next | empty | ternary "in the pod only" (printf "the claim %s" $next)) $used $allow) }}
{{- end }}
{{- end }}
{{- /* Another name of everything would begin with empty claims. */}}
{{- range (lookup "v1" "PersistentVolumeClaim" $ns "").items }}
{{- $labels := .metadata.labels | default dict }}
{{- if and (eq (index $labels "app.kubernetes.io/instance" | default "") $.Release.Name) (eq (index $labels "app.kubernetes.io/component" | default "") "label-studio") (eq (index $labels "app.kubernetes.io/part-of" | default "") "ls-yolo") (ne .metadata.name $name) $v.labelStudio.persistence.enabled (not $v.labelStudio.persistence.existingClaim) }}
{{- $f = append $f (printf "nameOverride or fullnameOverride makes the claim %s, and so far the data are in %s: Label Studio would begin empty. Put the names back, or name the old claim in labelStudio.persistence.existingClaim with labelStudio.allowDataChange=true." $name .metadata.name) }}
{{- end }}
{{- end }}
{{- end }}
{{- with $deployment }}
{{- $selector := include "ls-yolo.selectorLabels" $c | fromYaml }}
{{- if ne (toJson $selector) (toJson .spec.selector.matchLabels) }}
{{- $f = append $f (printf "nameOverride=%q changes the labels by which the Deployment %s finds its pods, which cannot be changed. Put it back, or delete the release's Deployments first (data stay): kubectl -n %s delete deployment,statefulset -l app.kubernetes.io/instance=%s." $v.nameOverride $name $ns $.Release.Name) }}
{{- end }}
{{- end }}
{{- if $v.postgres.enabled }}
{{- $database := include "ls-yolo.fullname" (dict "root" . "component" "postgres") }}
{{- with lookup "v1" "PersistentVolumeClaim" $ns $database }}
{{- $was := index (.metadata.annotations | default dict) "ls-yolo/postgres-major" }}
{{- $next := include "ls-yolo.postgresMajor" (dict "root" $) }}
{{- if and $was (ne $was $next) }}
{{- $f = append $f (printf "postgres.image.tag=%s is Postgres %s, and the data in the claim %s are of Postgres %s, which it cannot read. Put the tag back to %s, or move the data with a dump: docs/kubernetes.md, another Postgres." $v.postgres.image.tag $next $database $was $was) }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $f }}
{{- end }}
