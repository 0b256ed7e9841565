{{- define "heika.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "heika.labels" -}}
app.kubernetes.io/name: heika
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- /* What pods and jobs share: no root, no writing but to the temporary folder, no token of the cluster's. */ -}}
{{- define "heika.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
volumes:
  - name: temporary
    emptyDir: {}
{{- end }}

{{- define "heika.container" -}}
image: {{ include "heika.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: temporary, mountPath: /tmp}
  - {name: temporary, mountPath: /data, subPath: data}
{{- end }}

{{- define "heika.settings" -}}
- {name: HEIKA_ENV, value: production}
- {name: HEIKA_DATA, value: /data}
- {name: HEIKA_PUBLIC_URL, value: {{ .root.Values.publicUrl | quote }}}
- {name: HEIKA_ALLOWED_ORIGINS, value: {{ join "," .root.Values.allowedOrigins | quote }}}
- {name: HEIKA_JWKS_URL, value: "http://{{ .root.Release.Name }}-members:8000/.well-known/jwks.json"}
- {name: HEIKA_METRICS_PORT, value: "9100"}
- {name: HEIKA_METRICS_HOST, value: "0.0.0.0"}
- name: HEIKA_INSTANCE
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- range $name, $value := merge (dict) (.process.settings | default dict) .root.Values.settings }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end }}

{{- define "heika.secrets" -}}
{{- range .process.secrets }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ $.root.Values.secret }}, key: {{ . }}}}
{{- end }}
{{- range .process.optionalSecrets }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ $.root.Values.secret }}, key: {{ . }}, optional: true}}
{{- end }}
{{- end }}

{{- /* One kind of process: its Deployment, its Service, and how many of its pods a drained node may take. */ -}}
{{- define "heika.process" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .root.Release.Name }}-{{ .name }}
  labels: {{- include "heika.labels" . | nindent 4 }}
spec:
  replicas: {{ .process.replicas }}
  selector:
    matchLabels: {{- include "heika.labels" . | nindent 6 }}
  strategy:
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  template:
    metadata:
      labels: {{- include "heika.labels" . | nindent 8 }}
      annotations: {prometheus.io/scrape: "true", prometheus.io/port: "9100"}
    spec:
      {{- include "heika.pod" .root | nindent 6 }}
      # Longer than the pause in which balancers hear of the end, and the 20 s that requests under way are given.
      terminationGracePeriodSeconds: 40
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{- include "heika.labels" . | nindent 14 }}
      containers:
        - name: {{ .name }}
          {{- include "heika.container" .root | nindent 10 }}
          args:
            - uvicorn
            - --factory
            - {{ .app }}
            - --host=0.0.0.0
            - --port=8000
            - --no-proxy-headers
            - --no-server-header
            - --no-access-log
            - --timeout-keep-alive=75
            - --timeout-graceful-shutdown=20
          ports:
            - {name: http, containerPort: 8000}
            - {name: metrics, containerPort: 9100}
          env:
            {{- include "heika.settings" . | nindent 12 }}
            {{- include "heika.secrets" . | nindent 12 }}
            {{- .own | nindent 12 }}
          startupProbe:
            httpGet: {path: /healthz, port: http}
            periodSeconds: 1
            failureThreshold: 60
          livenessProbe:
            httpGet: {path: /healthz, port: http}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 3
          readinessProbe:
            httpGet: {path: {{ .ready }}, port: http}
            periodSeconds: 5
            timeoutSeconds: 4
          lifecycle:
            preStop:
              exec: {command: [sleep, "5"]}
          resources: {{- toYaml .process.resources | nindent 12 }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ .root.Release.Name }}-{{ .name }}
  labels: {{- include "heika.labels" . | nindent 4 }}
spec:
  selector: {{- include "heika.labels" . | nindent 4 }}
  ports:
    - {name: http, port: 8000, targetPort: http}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .root.Release.Name }}-{{ .name }}
  labels: {{- include "heika.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{- include "heika.labels" . | nindent 6 }}
{{- end }}
