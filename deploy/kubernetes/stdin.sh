#!/bin/sh
# Builds an archive that comes on standard input in a pod that may do nothing, and exits with the build's code:
#   tar -C DIRECTORY -cz . | stdin.sh NAMESPACE --destination=registry.example.com/team/app:1 [FLAG…]
# The namespace has the Secret regcred. The pod goes with the build. HAKO_IMAGE names another image.
set -eu
namespace=$1
shift
name=hako-build-$(date +%s)-$$
image=${HAKO_IMAGE:-registry.example.com/hako/executor:latest}

# What kubectl run has no flags for, as in base/job.yaml. The container has the pod's name, as kubectl run calls it.
overrides=$(cat <<EOF
{"spec": {
  "automountServiceAccountToken": false,
  "enableServiceLinks": false,
  "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
  "containers": [{
    "name": "$name",
    "env": [{"name": "HAKO_WORK_DIR_SIZE", "valueFrom": {"resourceFieldRef": {"containerName": "$name", "resource": "limits.ephemeral-storage"}}}],
    "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
    "resources": {"requests": {"cpu": "500m", "memory": "256Mi", "ephemeral-storage": "1Gi"}, "limits": {"memory": "2Gi", "ephemeral-storage": "10Gi"}},
    "volumeMounts": [{"name": "work", "mountPath": "/tmp"}, {"name": "credentials", "mountPath": "/kaniko/.docker", "readOnly": true}]
  }],
  "volumes": [
    {"name": "work", "emptyDir": {"sizeLimit": "10Gi"}},
    {"name": "credentials", "secret": {"secretName": "regcred", "optional": true, "items": [{"key": ".dockerconfigjson", "path": "config.json"}]}}
  ]
}}
EOF
)
exec kubectl run "$name" --namespace "$namespace" --image "$image" --restart=Never --rm -i --quiet \
  --override-type=strategic --overrides="$overrides" -- --context=tar://stdin "$@"
