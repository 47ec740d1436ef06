# The same words for people and for CI. Everything builds with cargo; python3 drives the outside tests and benchmarks.

CARGO  ?= cargo
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
PYTHON := .venv/bin/python
SERVER := $(TARGET)/release/kv_server
CLIENT := $(TARGET)/release/kv_client

KV_PORT      ?= 6379
CRASH_ROUNDS ?= 100
CRASH_SEEDS  ?= 100
POWER_ROUNDS ?= 50
SOAK_SECONDS ?= 3600
FUZZ_SECONDS ?= 60
FUZZ_SEEDED  ?= no
ONLY         ?=

.PHONY: help build run serve test test-rust test-outside check advisories bench miri fuzz crash soak tools

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' Makefile

build: ## Release build of the server and the client
	$(CARGO) build --release --bin kv_server --bin kv_client

run: build ## Build, start a server on ./data, show a write, a read and a kill -9 between them, stop
	KV_SERVER=$(SERVER) KV_CLIENT=$(CLIENT) KV_PORT=$(KV_PORT) scripts/demo.sh

serve: build ## Start a server on ./data in the foreground (Ctrl-C ends it)
	$(SERVER) --port $(KV_PORT) --dir ./data

tools: ## Install what the outside tests need (Debian packages when root; Python packages into .venv)
	scripts/install_test_tools.sh

test: test-rust test-outside ## All tests: cargo's, then real processes with real clients

test-rust:
	$(CARGO) test --workspace

test-outside: build tools
	KV_SERVER=$(SERVER) KV_CLIENT=$(CLIENT) $(PYTHON) -m pytest tests

check: ## Formatting, lints, documentation, licences: everything that must be silent
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps
	@if command -v cargo-deny >/dev/null 2>&1; then $(CARGO) deny check licenses bans sources; \
	else echo "licences not checked: cargo install cargo-deny --locked"; fi

advisories: ## Known vulnerabilities in dependencies (fetches the RustSec database from GitHub)
	$(CARGO) deny check advisories

bench: build tools ## Measure against Debian's redis-server in the same run; ONLY=get_set,memory selects parts
	KV_SERVER=$(SERVER) KV_CLIENT=$(CLIENT) $(PYTHON) bench/run.py $(if $(ONLY),--only $(ONLY))

# Slots keep addresses as numbers, so provenance is exposed; proptest reads files. Some minutes.
miri: ## The unsafe parts of the keyspace under Miri (rustup component add --toolchain nightly miri rust-src)
	MIRIFLAGS="-Zmiri-permissive-provenance -Zmiri-disable-isolation" PROPTEST_CASES=3 $(CARGO) +nightly miri test \
	    -p bowline --lib -- keyspace::entry keyspace::slot keyspace::buckets keyspace::subtable keyspace::table keyspace::hold

fuzz: ## Fuzz every target for FUZZ_SECONDS each (cargo-fuzz), or the seeded form of each without it
	FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_SEEDED=$(FUZZ_SEEDED) scripts/fuzz.sh

# A hundred seeds are about 400,000 states of the disk after a power cut or a failure, 300,000 of them of stores and
# archives. Their disks are in memory and are copied all the time: it must not go back to the system each time.
crash: build tools ## The long crash tests: simulated power cuts over many seeds, rot, kill -9, real power cuts, full disks
	SEEDS=$(CRASH_SEEDS) ROTS=10000 MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=1073741824 \
	    $(CARGO) test --release -p bowline-sim -- --nocapture
	KV_SERVER=$(SERVER) KV_CLIENT=$(CLIENT) KV_CRASH_ROUNDS=$(CRASH_ROUNDS) KV_POWER_ROUNDS=$(POWER_ROUNDS) \
	    $(PYTHON) -m pytest tests/test_crash.py tests/test_power_cut.py tests/test_failing_disk.py tests/test_full_disk.py -s

soak: build tools ## SOAK_SECONDS of random commands, checkpoints and restarts, compared with a model
	KV_SERVER=$(SERVER) KV_CLIENT=$(CLIENT) SOAK_SECONDS=$(SOAK_SECONDS) $(PYTHON) -m pytest tests/test_soak.py -s
