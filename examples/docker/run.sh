#!/bin/sh
# Builds the directory CONTEXT and pushes it to DESTINATION, with the credentials that docker login stored: run.sh CONTEXT DESTINATION
# The flags before the image take all privileges away; none is needed.
set -eu
context=$(cd "$1" && pwd)
destination=$2

docker run --rm \
  --user "$(id -u):$(id -g)" --cap-drop ALL --security-opt no-new-privileges --read-only --tmpfs /tmp \
  -v "$context":/workspace:ro \
  -v "${DOCKER_CONFIG:-$HOME/.docker}"/config.json:/kaniko/.docker/config.json:ro \
  "${HAKO_IMAGE:-registry.example.com/hako/executor:latest}" \
  --dockerfile=Dockerfile \
  --context=dir:///workspace \
  --destination="$destination"
