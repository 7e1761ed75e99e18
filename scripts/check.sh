#!/usr/bin/env bash
# All checks of CI, for a developer to run as well: scripts/check.sh
#
# Needs a Rust toolchain with rustfmt and clippy, a nightly toolchain, and the tools that
# scripts/tools.sh installs. `docs/assurance.md` explains the purpose of each part.
set -euo pipefail
cd "$(dirname "$0")/.."

# CI builds once: it needs no incremental files and no debug information.
if [ -n "${CI:-}" ]; then
    export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0
fi

# Begins a step, and prints how long the step before took.
table=()
step() {
    if [ -n "${current:-}" ]; then
        table+=("$(printf '%5d s  %s' $((SECONDS - begun)) "$current")")
        printf -- '-- %d s\n' $((SECONDS - begun))
    fi
    current=$* begun=$SECONDS
    printf '\n== %s\n' "$*"
}
run() {
    step "$@"
    "$@"
}

# The commands that the README gives, so that they stay correct.
main_job='cargo run --release -p tierpool-lab'
if ! grep -qx "$main_job" README.md; then
    echo "README.md: one line must be the main job, '$main_job'" >&2
    exit 1
fi
test_command=$(sed -n 's/^\(cargo test\( .*\)\{0,1\}\)$/\1/p' README.md)
if [ "$(printf '%s\n' "$test_command" | wc -l)" -ne 1 ] || [ -z "$test_command" ]; then
    echo "README.md: one line must be the test command, 'cargo test ...'" >&2
    exit 1
fi

run cargo fmt --all --check
run cargo fmt --manifest-path fuzz/Cargo.toml --check
run scripts/structure.sh
# So that cargo-deny needs no network.
step "cargo fetch"
cargo fetch --locked
cargo fetch --locked --manifest-path fuzz/Cargo.toml
run cargo deny --locked --offline --workspace check --hide-inclusion-graph bans licenses sources
run cargo deny --locked --offline --manifest-path fuzz/Cargo.toml check --hide-inclusion-graph bans licenses sources
# Each feature, none, and all; and those together that use one another.
run cargo hack clippy --locked --workspace --each-feature --all-targets -- -D warnings
run cargo hack clippy --locked --package tierpool --feature-powerset --depth 2 --include-features http-body,limit,serde,tokio --all-targets -- -D warnings
# As in a release, without debug assertions. The dependencies are those built above.
run cargo clippy --locked --all-features --config profile.dev.package.tierpool.debug-assertions=false -- -D warnings
run scripts/api.sh
RUSTDOCFLAGS='-D warnings' run cargo doc --locked --all-features --no-deps --document-private-items
step "the README's test command: $test_command"
# `timeout`, here and below: a faulty engine may hang.
timeout 1800 $test_command

# Each example asserts its claims.
for example in examples/*.rs; do
    run cargo run --locked --release --all-features --example "$(basename "$example" .rs)"
done

# The lab. A program fails if an answer is wrong or missing, or if a buffer is not dropped.
run cargo test --locked --release -p tierpool-lab --lib --bin requests
step "the main job, for a moment: $main_job"
$main_job -- --quick
for program in http_files library limits log_pipeline memcached proxy requests udp_fanout workers; do
    run timeout 120 cargo run --locked --release -p tierpool-lab --features peers --bin "$program" -- --quick
done

# Fails if the pool breaks one of the bounds that it prints.
run cargo run --locked --release -p tierpool-lab --bin oversize_leak

# Fails if the drop rule or the hysteresis breaks a bound that it prints.
run cargo run --locked --release -p tierpool-lab --bin calibration

step "tierpool-tune on the sizes of its own sources"
find . -name '*.rs' -not -path './target/*' -printf '%s\n' |
    cargo run --locked --release -p tierpool-tune | grep -e '<- best'

step "the lab's pressure, where memory is short"
cgroup=$(mktemp -d)
trap 'rm -r "$cgroup"' EXIT
echo 'some avg10=50.00 avg60=0.00 avg300=0.00 total=1' >"$cgroup/memory.pressure"
cargo run --locked --release -p tierpool-lab --bin pressure -- "$cgroup" 2 | tee "$cgroup/said"
grep -q 'short of memory.* freed [1-9]' "$cgroup/said"

# Benches compile, and each workload runs once.
run cargo test --locked --release --bench hot_path --bench trim --bench parts

run scripts/instructions.sh

# 2^32 gets and drops, so that a 32-bit counter would have wrapped.
run cargo test --locked --release --test scale -- --ignored

# Every order of the engine's races, within the bounds that the models name. Then long orders drawn
# at random.
step "models, every order"
RUSTFLAGS='--cfg loom -C debug-assertions' timeout 900 \
    cargo test --locked --release -p tierpool --lib --features limit --target-dir target/loom models
step "models, random orders"
RUSTFLAGS='--cfg shuttle -C debug-assertions' timeout 900 \
    cargo test --locked --release -p tierpool --lib --features limit --target-dir target/shuttle schedules

run scripts/sanitize.sh all

# A quarter of a minute for each of the five targets. Each target uses one core.
FUZZ_JOBS=$(nproc) run scripts/fuzz.sh 0.25

run scripts/minimal.sh

step "minimum supported Rust version"
msrv=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
# Clippy has refused newer functions of the standard library, above, and scripts/structure.sh newer
# syntax. This checks that no package in the lock file needs a newer Rust.
needed=$(cargo metadata --locked --format-version 1 |
    grep -o '"rust_version":"[0-9.]*"' | cut -d'"' -f4 |
    sed 's/^\([0-9]*\.[0-9]*\)\.0$/\1/' | sort -uV | tail -n 1)
echo "rust-version: $msrv; the newest that a locked package needs: $needed"
if [ "$(printf '%s\n%s\n' "$needed" "$msrv" | sort -V | tail -n 1)" != "$msrv" ]; then
    echo "Cargo.lock: a package needs Rust $needed, above rust-version $msrv" >&2
    exit 1
fi
if command -v rustup >/dev/null && rustup toolchain list | grep -q "^$msrv"; then
    run cargo "+$msrv" check --locked --all-targets --all-features --target-dir target/msrv
else
    echo "Rust $msrv is not installed here: skipped"
fi

step "all checks passed in $SECONDS s:"
printf '%s\n' "${table[@]}"
