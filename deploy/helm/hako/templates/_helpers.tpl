{{/* The names of all objects begin with it: the release's name, with the chart's unless it is in there already. */}}
{{- define "hako.name" -}}
{{- $name := contains "hako" .Release.Name | ternary .Release.Name (printf "%s-hako" .Release.Name) -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "hako.labels" -}}
app.kubernetes.io/name: hako
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "hako.cacheClaim" -}}
{{ .Values.cache.existingClaim | default (printf "%s-cache" (include "hako.name" .)) }}
{{- end -}}

{{- define "hako.basesClaim" -}}
{{ .Values.bases.existingClaim | default (printf "%s-bases" (include "hako.name" .)) }}
{{- end -}}

{{- define "hako.claimSpec" -}}
accessModes: {{ toJson .accessModes }}
{{- with .storageClass }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests:
    storage: {{ .size }}
{{- end -}}

{{/*
The template of a pod. It takes a dict: root, name and image of the container, args, resources, and as lists of more of them
env, envFrom, mounts, volumes. The same as deploy/kubernetes/base/job.yaml, as a test sees to.
*/}}
{{- define "hako.pod" -}}
{{- $v := .root.Values -}}
metadata:
  labels:
    {{- include "hako.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
    {{- with $v.pod.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $v.pod.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with $v.pod.serviceAccountName }}
  serviceAccountName: {{ . }}
  {{- end }}
  {{- with $v.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- with $v.pod.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.pod.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    {{- if not $v.openshift }}
    runAsUser: 1000
    runAsGroup: 1000
    fsGroup: 1000
    {{- end }}
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: {{ .name }}
      image: {{ .image | quote }}
      args:
        {{- toYaml .args | nindent 8 }}
      {{- with .envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- if or .env $v.certificates $v.pod.env }}
      env:
        {{- with .env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- if $v.certificates }}
        - name: SSL_CERT_DIR
          value: /kaniko/ssl/certs:/hako/certificates
        {{- end }}
        {{- with $v.pod.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
      terminationMessagePolicy: FallbackToLogsOnError
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      resources:
        {{- toYaml .resources | nindent 8 }}
      volumeMounts:
        - name: work
          mountPath: /tmp
        {{- if $v.registrySecret }}
        - name: credentials
          mountPath: /kaniko/.docker
          readOnly: true
        {{- end }}
        {{- if $v.certificates }}
        - name: certificates
          mountPath: /hako/certificates
          readOnly: true
        {{- end }}
        {{- with concat .mounts $v.pod.volumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: work
      emptyDir:
        sizeLimit: {{ dig "limits" "ephemeral-storage" "10Gi" .resources }}
    {{- with $v.registrySecret }}
    - name: credentials
      secret:
        secretName: {{ . }}
        {{- if eq $.name "warmer" }}
        optional: true
        {{- end }}
        items:
          - key: .dockerconfigjson
            path: config.json
    {{- end }}
    {{- with $v.certificates }}
    - name: certificates
      configMap:
        name: {{ . }}
    {{- end }}
    {{- with concat .volumes $v.pod.volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
