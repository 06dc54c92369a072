#!/usr/bin/env bash
# Compiles Istio's control plane into target/istiod/pilot-discovery, for the tests by hand that need it (`make istiod`).
# It is Istio's own module, at the version in go.mod; nothing of it is kept in the repository. The first time that
# is seven minutes of a core. Without Go or its module proxy it says so, and the tests say that they are skipped.
set -euo pipefail
cd "$(dirname "$0")"
target="$PWD/../../target/istiod"
stamp="$target/.$(cat go.mod go.sum | cksum | tr ' ' -)"
[ -e "$stamp" ] && exit
# Of another version: not what the tests are about.
rm -rf "$target"
say() { echo "istiod: $*" >&2; }
without() {
    say "$1: nothing is tested against a real istiod"
    [ "${REQUIRE_ISTIOD:-}" != 1 ]
    exit
}
# The one that `make setup` gets where the machine has none.
PATH="$PATH:$(echo "$PWD"/../../target/go-*/bin)"
command -v go >/dev/null || without "no Go here"
GOFLAGS=-mod=readonly go mod download >/dev/null 2>&1 || without "the modules of conformance/istiod can not be downloaded"
say "compiling istiod (the first time that takes a while)"
mkdir -p "$target"
CGO_ENABLED=0 GOFLAGS="-mod=readonly -buildvcs=false" nice -n 10 \
    go build -trimpath -ldflags='-s -w' -o "$target/pilot-discovery" istio.io/istio/pilot/cmd/pilot-discovery
touch "$stamp"
