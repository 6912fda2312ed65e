#!/bin/sh
# Builds a Dockerfile without any context from standard input: stdin.sh DESTINATION
set -eu
destination=$1

printf 'FROM %s\nRUN echo "created from standard input" > /created\n' "${BASE:-alpine}" > Dockerfile
tar -cf - Dockerfile | gzip -9 | docker run --rm --interactive \
  -v "${DOCKER_CONFIG:-$HOME/.docker}"/config.json:/kaniko/.docker/config.json:ro \
  "${HAKO_IMAGE:-registry.example.com/hako/executor:latest}" \
  --context=tar://stdin \
  --destination="$destination"
