#!/usr/bin/env bash
# Measures the kernel redirect beside nftables and tc with sk_assign, and keeps the tables under
# benches/results. Needs root, nftables, iproute2, clang-19, a quiet machine and about seven minutes.
#   benches/redirect.sh            builds, measures, keeps
#   benches/redirect.sh build      builds only
#   benches/redirect.sh measure    measures with what was built
set -euo pipefail
cd "$(dirname "$0")/.."
cargo="${CARGO:-cargo}"
target="${CARGO_TARGET_DIR:-$PWD/target}"
what="${1:-all}"
# The test program itself may be a debug build: what is measured are processes that it starts.
tests="$PWD/target/redirect-cost"

if [ "$what" != measure ]; then
    clang-19 -target bpfel -mcpu=v3 -O2 -Wall -Wextra -Werror \
        -c benches/redirect/assign.bpf.c -o "$target/assign.bpf.o"
    "$cargo" build --release -p cairn-waypoint --bin cairn -p cairn-benches --bins
    (unset CARGO_TARGET_DIR; "$cargo" test -p cairn-conformance --test kernel --no-run 2>&1) |
        sed -n 's/.*(\(.*\/kernel-[0-9a-f]*\)).*/\1/p' >"$tests"
fi
if [ "$what" != build ]; then
    export CAIRN_BIN="$target/release/cairn" CAIRN_BENCH="$target/release/cairn-bench"
    export RIVAL_OBJECT="$target/assign.bpf.o" REQUIRE_BPF=1
    results="benches/results/redirect-$(date -u +%Y-%m-%dT%H%M%SZ).txt"
    {
        echo "$(date -u +%Y-%m-%dT%H:%M:%SZ)  commit $(git rev-parse --short=12 HEAD)"
        echo "$(nproc) x $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -1), Linux $(uname -r)"
        echo "benches/redirect.sh; $(nft --version), $(tc -V), one pod, veth, one machine; load average $(cut -d' ' -f1-3 /proc/loadavg)"
        (cd conformance && "$(cat "$tests")" --ignored --nocapture --test-threads 1 cost_of) |
            grep -vE '^(running|test |failures:|$)' | sed 's/ \.\.\. *$//'
    } | tee "$results.part"
    mv "$results.part" "$results"
fi
