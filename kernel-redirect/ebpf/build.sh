#!/usr/bin/env bash
# Builds redirect.bpf.o from redirect.bpf.c, the same bytes everywhere for one version of clang.
#   build.sh                writes the object beside the source
#   build.sh --out FILE     writes it there
#   build.sh --check        builds elsewhere and fails if the committed object differs
# BPF_CLANG (clang-19) and BPF_STRIP (llvm-strip-19) name the tools: Debian's clang-19 and llvm-19.
set -euo pipefail
cd "$(dirname "$0")"

clang="${BPF_CLANG:-clang-19}"
strip="${BPF_STRIP:-llvm-strip-19}"
for tool in "$clang" "$strip"; do
    if ! command -v "$tool" >/dev/null; then
        echo "build.sh: $tool not found; on Debian: apt-get install clang-19 llvm-19" >&2
        exit 2
    fi
done

out=redirect.bpf.o
case "${1:-}" in
    "") ;;
    --out) out="$2" ;;
    --check)
        out="$(mktemp)"
        trap 'rm -f "$out"' EXIT
        ;;
    *)
        echo "build.sh: unknown option $1" >&2
        exit 2
        ;;
esac

# No debug information, no paths, no host headers: the bytes depend on the source and the compiler.
"$clang" -target bpfel -mcpu=v3 -O2 -std=c17 -nostdinc -Wall -Wextra -Werror \
    -fno-ident -ffile-prefix-map="$PWD=." -fdebug-compilation-dir=. -c redirect.bpf.c -o "$out"
"$strip" -g "$out"

if [ "${1:-}" = --check ] && ! cmp "$out" redirect.bpf.o; then
    echo "build.sh: redirect.bpf.o is not what $clang makes of redirect.bpf.c; run kernel-redirect/ebpf/build.sh and commit it" >&2
    exit 1
fi
