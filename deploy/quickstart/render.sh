#!/bin/sh
# Prints the Helm chart with its defaults as plain manifests: what deploy/quickstart/cairn.yaml holds (`make manifests`).
set -eu
cd "$(dirname "$0")/../.."
cat <<'HEAD'
# Cairn's controller and the rights of everybody, without Helm: kubectl apply --server-side -f cairn.yaml
# Made by `make manifests` from deploy/helm/cairn with its defaults; a test compares.
apiVersion: v1
kind: Namespace
metadata:
  name: cairn-system
  labels:
    pod-security.kubernetes.io/enforce: restricted
HEAD
target/helm deploy/helm/cairn cairn cairn-system 2>/dev/null
