#!/usr/bin/env bash
# Gets what a node is made of into target/kubelet, for the lane by hand that needs it (`make kubelet`): the kubelet is
# compiled from its own module at the version in go.mod; containerd, runc and the plugins of CNI are unpacked from
# Debian's packages, and not installed. Without one of them it says so, and fails.
set -euo pipefail
cd "$(dirname "$0")"
target="$PWD/../../target/kubelet"
stamp="$target/.$(cat go.mod go.sum | cksum | tr ' ' -)"
[ -e "$stamp" ] && exit
rm -rf "$target"
mkdir -p "$target/debian" "$target/root"
# The one that `make setup` gets where the machine has none.
PATH="$PATH:$(echo "$PWD"/../../target/go-*/bin)"
echo "kubelet: compiling it (the first time that takes a while)" >&2
CGO_ENABLED=0 GOFLAGS="-mod=readonly -buildvcs=false" nice -n 10 \
    go build -trimpath -ldflags='-s -w' -o "$target/bin/kubelet" k8s.io/kubernetes/cmd/kubelet
(cd "$target/debian" && apt-get download runc containerd containernetworking-plugins libseccomp2)
for package in "$target"/debian/*.deb; do dpkg -x "$package" "$target/root"; done
rm -rf "$target/debian"
cc -static -O1 -o "$target/pause" pause.c
touch "$stamp"
