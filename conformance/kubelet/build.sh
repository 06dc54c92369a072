#!/usr/bin/env bash
# Gets what a node is made of into target/kubelet, for the lane by hand that needs it (`make kubelet`): the kubelet is
# compiled from its own module at the version in go.mod; containerd, runc and the plugins of CNI are unpacked from
# Debian's packages, and not installed. Without the module proxy or Debian's packages it says that
# nothing is tested; with REQUIRE_KUBELET=1 it fails then.
set -euo pipefail
cd "$(dirname "$0")"
target="$PWD/../../target/kubelet"
stamp="$target/.$(cat go.mod go.sum | cksum | tr ' ' -)"
[ -e "$stamp" ] && exit
say() { echo "kubelet: $*" >&2; }
without() {
    say "$1: nothing is tested under a kubelet"
    [ "${REQUIRE_KUBELET:-}" != 1 ]
    exit
}
rm -rf "$target"
mkdir -p "$target/debian" "$target/root"
# The one that `make setup` gets where the machine has none.
PATH="$PATH:$(echo "$PWD"/../../target/go-*/bin)"
for tool in go apt-get dpkg cc; do command -v "$tool" >/dev/null || without "no $tool here"; done
GOFLAGS=-mod=readonly go mod download >/dev/null 2>&1 || without "the modules of conformance/kubelet can not be downloaded"
(cd "$target/debian" && apt-get download runc containerd containernetworking-plugins libseccomp2 >/dev/null 2>&1) ||
    without "Debian's packages can not be downloaded (apt-get update may help)"
say "compiling it (the first time that takes a while)"
CGO_ENABLED=0 GOFLAGS="-mod=readonly -buildvcs=false" nice -n 10 \
    go build -trimpath -ldflags='-s -w' -o "$target/bin/kubelet" k8s.io/kubernetes/cmd/kubelet
for package in "$target"/debian/*.deb; do dpkg -x "$package" "$target/root"; done
rm -rf "$target/debian"
cc -static -O1 -o "$target/pause" pause.c
touch "$stamp"
