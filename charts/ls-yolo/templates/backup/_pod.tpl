{{/* The Job that makes a backup: (dict "root" $ "component" "backup" "image" <Label Studio's>). */}}
{{- define "ls-yolo.backupSpec" -}}
{{- $c := . }}
{{- $v := .root.Values }}
{{- $b := $v.backup }}
{{- $database := include "ls-yolo.database" . }}
{{- $s3 := $b.s3.bucket }}
{{- $cache := include "ls-yolo.backupCache" . }}
{{- $models := include "ls-yolo.backupModels" . -}}
backoffLimit: 2
template:
  metadata:
    labels:
      {{- include "ls-yolo.podLabels" $c | nindent 6 }}
    {{- with $b.podAnnotations }}
    annotations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    restartPolicy: Never
    {{- include "ls-yolo.imagePullSecrets" $c | nindent 4 }}
    serviceAccountName: {{ include "ls-yolo.serviceAccountName" (dict "root" .root "component" "label-studio") }}
    automountServiceAccountToken: false
    enableServiceLinks: false
    securityContext:
      {{- toYaml $v.labelStudio.podSecurityContext | nindent 6 }}
    {{- include "ls-yolo.backupPlacement" $c | nindent 4 }}
    {{- if ne $database "sqlite" }}
    initContainers:
      # Before the files: an upload that the database names was there before.
      - name: dump
        image: {{ include "ls-yolo.image" (dict "root" .root "component" "postgres") }}
        imagePullPolicy: {{ $v.postgres.image.pullPolicy }}
        command:
          - sh
          - -euc
          - |
            pg_dump --format custom --compress 0 --file /dump/label-studio.dump || {
              echo "The database could not be dumped. Of a newer server: set postgres.image.tag to its version" >&2
              exit 1
            }
        securityContext:
          {{- include "ls-yolo.containerSecurityContext" $c | nindent 10 }}
        terminationMessagePolicy: FallbackToLogsOnError
        env:
          {{- include "ls-yolo.libpqEnv" $c | nindent 10 }}
        resources:
          {{- toYaml $b.resources | nindent 10 }}
        volumeMounts:
          - {name: dump, mountPath: /dump}
    {{- end }}
    containers:
      - name: backup
        image: {{ .image }}
        imagePullPolicy: {{ $v.labelStudio.image.pullPolicy }}
        command:
          - python
          - -m
          - ls_kit.backup
          - --project={{ include "ls-yolo.fullname" (dict "root" .root) }}
          - --kit={{ .root.Chart.AppVersion }}
          {{- if $v.labelStudio.persistence.enabled }}
          - --volume=label-studio=/volumes/label-studio
          {{- end }}
          {{- if $cache }}
          - --volume=backend=/volumes/backend
          {{- end }}
          {{- if $models }}
          - --volume=models=/volumes/models
          {{- end }}
          - --folder=models=/config/models
          {{- if $v.setup.enabled }}
          - --folder=projects=/config/projects
          {{- end }}
          {{- if $b.datasets }}
          - --volume=datasets=/datasets
          {{- end }}
          {{- if ne $database "sqlite" }}
          - --dump=/dump/label-studio.dump
          {{- end }}
          {{- if $s3 }}
          - --bucket={{ $b.s3.bucket }}
          - --prefix={{ $b.s3.folder }}
          - --region={{ $b.s3.region }}
          - --endpoint={{ $b.s3.endpoint }}
          {{- else }}
          - --to=/backups
          {{- end }}
          - --keep={{ int $b.keep }}
          {{- if $b.passphraseSecret }}
          - --passphrase-file=/passphrase/passphrase
          {{- end }}
        securityContext:
          {{- include "ls-yolo.containerSecurityContext" $c | nindent 10 }}
        terminationMessagePolicy: FallbackToLogsOnError
        env:
          {{- include "ls-yolo.env" (dict "LABEL_STUDIO_USERNAME" $v.labelStudio.env.LABEL_STUDIO_USERNAME "BASIC_AUTH_USER" $v.backend.env.BASIC_AUTH_USER) | nindent 10 }}
          {{- include "ls-yolo.secretEnv" (dict "root" .root "keys" (list "LABEL_STUDIO_PASSWORD" "LABEL_STUDIO_API_KEY" "BASIC_AUTH_PASS" "SECRET_KEY")) | nindent 10 }}
          {{- if and $s3 $b.s3.existingSecret }}
          - name: AWS_ACCESS_KEY_ID
            valueFrom: {secretKeyRef: {name: {{ $b.s3.existingSecret }}, key: access-key-id}}
          - name: AWS_SECRET_ACCESS_KEY
            valueFrom: {secretKeyRef: {name: {{ $b.s3.existingSecret }}, key: secret-access-key}}
          {{- end }}
          {{- with $b.extraEnv }}
          {{- toYaml . | nindent 10 }}
          {{- end }}
        resources:
          {{- toYaml $b.resources | nindent 10 }}
        volumeMounts:
          - {name: tmp, mountPath: /tmp}
          {{- if $v.labelStudio.persistence.enabled }}
          - {name: label-studio, mountPath: /volumes/label-studio}
          {{- end }}
          {{- if $cache }}
          - {name: backend, mountPath: /volumes/backend}
          {{- end }}
          {{- if $models }}
          - name: models
            mountPath: /volumes/models
            readOnly: true
            {{- with $v.models.claim.subPath }}
            subPath: {{ . }}
            {{- end }}
          {{- end }}
          - {name: models-config, mountPath: /config/models, readOnly: true}
          {{- if $v.setup.enabled }}
          - {name: projects, mountPath: /config/projects, readOnly: true}
          {{- end }}
          {{- if $b.datasets }}
          {{- include "ls-yolo.datasetsMount" $c | nindent 10 }}
          {{- end }}
          {{- if ne $database "sqlite" }}
          - {name: dump, mountPath: /dump, readOnly: true}
          {{- end }}
          {{- if not $s3 }}
          - {name: backups, mountPath: /backups}
          {{- end }}
          {{- if $b.passphraseSecret }}
          - {name: passphrase, mountPath: /passphrase, readOnly: true}
          {{- end }}
    volumes:
      - name: tmp
        emptyDir: {sizeLimit: 64Mi}
      {{- if $v.labelStudio.persistence.enabled }}
      - name: label-studio
        persistentVolumeClaim: {claimName: {{ include "ls-yolo.claimName" (dict "root" .root "component" "label-studio" "claim" $v.labelStudio.persistence) }}}
      {{- end }}
      {{- if $cache }}
      - name: backend
        persistentVolumeClaim: {claimName: {{ include "ls-yolo.claimName" (dict "root" .root "component" "backend" "claim" $v.backend.cache) }}}
      {{- end }}
      {{- if $models }}
      - name: models
        persistentVolumeClaim: {claimName: {{ $v.models.claim.existingClaim }}}
      {{- end }}
      - name: models-config
        configMap: {name: {{ include "ls-yolo.fullname" (dict "root" .root "component" "models") }}}
      {{- if $v.setup.enabled }}
      - name: projects
        configMap: {name: {{ include "ls-yolo.fullname" (dict "root" .root "component" "projects") }}}
      {{- end }}
      {{- if $b.datasets }}
      {{- include "ls-yolo.datasetsVolume" $c | nindent 6 }}
      {{- end }}
      {{- if ne $database "sqlite" }}
      - name: dump
        emptyDir: {}
      {{- end }}
      {{- if not $s3 }}
      - name: backups
        persistentVolumeClaim: {claimName: {{ include "ls-yolo.claimName" (merge (dict "claim" $b.persistence) $c) }}}
      {{- end }}
      {{- with $b.passphraseSecret }}
      - name: passphrase
        secret: {secretName: {{ . }}, defaultMode: 0440}
      {{- end }}
{{- end }}

{{/* A Job that does nothing, with the claim of the backups, where their pods will be. */}}
{{- define "ls-yolo.backupFirstPod" -}}
{{- $v := .root.Values -}}
template:
  metadata:
    labels:
      {{- include "ls-yolo.podLabels" . | nindent 6 }}
  spec:
    restartPolicy: OnFailure
    {{- include "ls-yolo.imagePullSecrets" . | nindent 4 }}
    serviceAccountName: {{ include "ls-yolo.serviceAccountName" (dict "root" .root "component" "label-studio") }}
    automountServiceAccountToken: false
    enableServiceLinks: false
    securityContext:
      {{- toYaml $v.labelStudio.podSecurityContext | nindent 6 }}
    {{- include "ls-yolo.backupPlacement" . | nindent 4 }}
    containers:
      - name: nothing
        image: {{ include "ls-yolo.image" (dict "root" .root "component" "label-studio") }}
        imagePullPolicy: {{ $v.labelStudio.image.pullPolicy }}
        command: ["true"]
        securityContext:
          {{- include "ls-yolo.containerSecurityContext" . | nindent 10 }}
        resources:
          {{- toYaml $v.backup.resources | nindent 10 }}
        volumeMounts:
          - {name: backups, mountPath: /backups}
    volumes:
      - name: backups
        persistentVolumeClaim: {claimName: {{ .claim }}}
{{- end }}

{{/* Whether the backend's own claim is in a backup, and the weights. */}}
{{- define "ls-yolo.backupCache" -}}
{{- if and .root.Values.backup.cache .root.Values.backend.cache.enabled }}true{{ end }}
{{- end }}

{{- define "ls-yolo.backupModels" -}}
{{- if and .root.Values.backup.models (eq .root.Values.models.type "claim") }}true{{ end }}
{{- end }}

{{/* Whether one of those is on the backend's node alone. */}}
{{- define "ls-yolo.backupPinned" -}}
{{- $v := .root.Values }}
{{- $models := dict "existingClaim" $v.models.claim.existingClaim "accessModes" (list "ReadWriteMany") }}
{{- if or
    (and (include "ls-yolo.backupCache" .) (not (include "ls-yolo.manyNodes" (dict "root" .root "claim" $v.backend.cache))))
    (and (include "ls-yolo.backupModels" .) (not (include "ls-yolo.manyNodes" (dict "root" .root "claim" $models))))
-}}
true
{{- end }}
{{- end }}

{{/* Where the pods run whose claims can be mounted there alone. */}}
{{- define "ls-yolo.backupPlacement" -}}
{{- $v := .root.Values }}
{{- $b := $v.backup }}
{{- $backend := include "ls-yolo.backupPinned" . | empty | not }}
{{- /* One of them: the scheduler looks for a pod that all terms fit. Where both have such a claim, only their being on one
node helps. */}}
{{- $with := $backend | ternary "backend" "" }}
{{- if and $v.labelStudio.persistence.enabled (not (include "ls-yolo.manyNodes" (dict "root" .root "claim" $v.labelStudio.persistence))) }}
{{- $with = "label-studio" }}
{{- end }}
{{- with $b.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $tolerations := concat $b.tolerations $v.labelStudio.tolerations }}
{{- /* Label Studio itself may stand on the backend's node. */}}
{{- if or $backend (include "ls-yolo.datasetsPinned" .) }}
{{- $tolerations = concat $tolerations $v.backend.tolerations }}
{{- if $v.backend.gpu.enabled }}
{{- $tolerations = append $tolerations (dict "key" (printf "%sgpu" (regexFind "^[^/]+/" $v.backend.gpu.resourceName)) "operator" "Exists" "effect" "NoSchedule") }}
{{- end }}
{{- end }}
{{- with uniq $tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $b.affinity }}
affinity:
  {{- toYaml $b.affinity | nindent 2 }}
{{- else if $with }}
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "ls-yolo.selectorLabels" (dict "root" .root "component" $with) | nindent 12 }}
{{- end }}
{{- end }}

{{/* The database as PostgreSQL's own programs are told it. */}}
{{- define "ls-yolo.libpqEnv" -}}
{{- $names := dict "POSTGRE_HOST" "PGHOST" "POSTGRE_PORT" "PGPORT" "POSTGRE_NAME" "PGDATABASE" "POSTGRE_USER" "PGUSER" "POSTGRE_PASSWORD" "PGPASSWORD" "PGSSLMODE" "PGSSLMODE" }}
{{- $found := list }}
{{- range include "ls-yolo.databaseEnv" . | fromYamlArray }}
{{- if hasKey $names .name }}{{ $found = append $found (merge (dict "name" (get $names .name)) .) }}{{ end }}
{{- end }}
{{- toYaml $found }}
{{- end }}
