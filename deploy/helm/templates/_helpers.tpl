{{/* Every helper takes a dict of `root` ($) and `service`: "primary" or "fallback". */}}

{{- define "stt.name" -}}
{{ .root.Release.Name }}-{{ .service }}
{{- end }}

{{/* What selects the pods. */}}
{{- define "stt.selector" -}}
app: {{ include "stt.name" . }}
{{- end }}

{{- define "stt.labels" -}}
{{ include "stt.selector" . }}
app.kubernetes.io/name: stt
app.kubernetes.io/component: {{ .service }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "stt.grpcPort" -}}
{{ eq .service "primary" | ternary 50051 50052 }}
{{- end }}

{{- define "stt.httpPort" -}}
{{ eq .service "primary" | ternary 8081 8082 }}
{{- end }}

{{/* A value of the .env file: numbers in full, quoted where needed. */}}
{{- define "stt.value" -}}
{{- $text := toString . -}}
{{- if and (kindIs "float64" .) (eq . (float64 (int64 .))) -}}
{{- $text = toString (int64 .) -}}
{{- end -}}
{{- if regexMatch "^[A-Za-z0-9_.,:/@%+-]*$" $text }}{{ $text }}{{ else }}{{ quote $text }}{{ end -}}
{{- end }}

{{/* The .env file. */}}
{{- define "stt.file" -}}
{{- $values := index .root.Values .service -}}
{{- $config := merge (dict) $values.secretConfig $values.config -}}
{{- if eq .service "primary" -}}
{{- $fallback := dict "root" .root "service" "fallback" -}}
{{- if not (hasKey $config "FALLBACK_URL") -}}
{{- $_ := set $config "FALLBACK_URL" (printf "dns:///%s:%s" (include "stt.name" $fallback) (include "stt.grpcPort" $fallback)) -}}
{{- end -}}
{{- if $values.tls.fallbackSecretName -}}
{{- $_ := set $config "FALLBACK_CA" "/fallback-tls/ca.crt" -}}
{{- if $values.tls.fallbackClientCertificate -}}
{{- $_ := set $config "FALLBACK_CERT" "/fallback-tls/tls.crt" -}}
{{- $_ := set $config "FALLBACK_KEY" "/fallback-tls/tls.key" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $values.tls.secretName -}}
{{- $_ := set $config "TLS_CERT" "/tls/tls.crt" -}}
{{- $_ := set $config "TLS_KEY" "/tls/tls.key" -}}
{{- if $values.tls.clientCertificates -}}
{{- $_ := set $config "TLS_CLIENT_CA" "/tls/ca.crt" -}}
{{- end -}}
{{- end -}}
{{- range $key, $value := $config }}
{{ $key }}={{ include "stt.value" $value }}
{{- end }}
{{- end }}

{{- define "stt.drainTimeout" -}}
{{- $values := index .root.Values .service -}}
{{- if $values.existingSecret }}{{ $values.existingDrainTimeout }}
{{- else }}{{ $values.config.DRAIN_TIMEOUT_S | default 30 }}{{ end -}}
{{- end }}

{{/* A check of the gRPC health service; `health` names the service, empty: the process. The kubelet knows no TLS. */}}
{{- define "stt.probe" -}}
{{- if (index .root.Values .service).tls.secretName -}}
exec:
  command: [/opt/stt/venv/bin/python, -m, stt_server.healthcheck, --service, {{ .service }}]
timeoutSeconds: 5
{{- else -}}
grpc:
  port: {{ include "stt.grpcPort" . }}
  {{- with .health }}
  service: {{ . }}
  {{- end }}
{{- with .timeout }}
timeoutSeconds: {{ . }}
{{- end }}
{{- end -}}
{{- end }}

{{- define "stt.claim" -}}
{{ .root.Values.models.existingClaim | default (printf "%s-models" .root.Release.Name) }}
{{- end }}

{{- define "stt.grpcProtocol" -}}
{{ if (index .root.Values .service).tls.secretName }}https{{ else }}kubernetes.io/h2c{{ end }}
{{- end }}

{{- define "stt.httpScheme" -}}
{{ if (index .root.Values .service).tls.secretName }}https{{ else }}http{{ end }}
{{- end }}

{{- define "stt.servicePorts" -}}
{{- $grpc := include "stt.grpcPort" . -}}
{{- $http := include "stt.httpPort" . -}}
- { name: grpc, port: {{ $grpc }}, targetPort: grpc, appProtocol: {{ include "stt.grpcProtocol" . }} }
- { name: http, port: {{ $http }}, targetPort: http, appProtocol: {{ include "stt.httpScheme" . }} }
{{- end }}

{{/* A rule of a NetworkPolicy; takes $. */}}
{{- define "stt.fromPrometheus" -}}
- from:
    - namespaceSelector:
        matchLabels: { kubernetes.io/metadata.name: {{ .Values.networkPolicy.monitoringNamespace }} }
  ports:
    - { protocol: TCP, port: http }
{{- end }}
