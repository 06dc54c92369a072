//go:build tools

// Package tools names what build.sh compiles, so that go.mod keeps it.
package tools

import _ "k8s.io/kubernetes/cmd/kubelet/app"
