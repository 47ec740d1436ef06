#!/usr/bin/env bash
# Fuzzes every target of fuzz/ for FUZZ_SECONDS each. Without cargo-fuzz the same bodies run over seeded random and
# mutated inputs (tests that the crates with targets have).
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${FUZZ_SECONDS:-60}
if [ "${FUZZ_SEEDED:-no}" = no ] && cargo fuzz --version >/dev/null 2>&1; then
    # The sanitizers are unstable flags of a stable compiler.
    export RUSTC_BOOTSTRAP=1
    cd fuzz
    for target in fuzz_targets/*.rs; do
        name=$(basename "$target" .rs)
        echo "== $name, $seconds s"
        dictionary=()
        [ -f "${name%%_*}.dict" ] && dictionary=("-dict=${name%%_*}.dict")
        cargo fuzz run "$name" -- -max_total_time="$seconds" -rss_limit_mb=2048 "${dictionary[@]}"
    done
else
    rounds=${ROUNDS:-$((seconds * 2000))}
    echo "seeded inputs, $rounds rounds for each of RESP (for a fuzzer: cargo install cargo-fuzz --locked)"
    ROUNDS=$rounds cargo test -p bowline-resp --test fuzz_bodies
    cargo test -p bowline --lib fuzz
    cargo test -p bowline-rdb --test properties
    cargo test -p bowline-snapshot --test snapshots
    cargo test -p bowline-server --lib -- syntax codec
fi
