#!/usr/bin/env bash
# The oldest dependencies that Cargo.toml allows: scripts/minimal.sh
#
# Builds everything, and runs the tests of the library, with the version of each direct
# dependency that its Cargo.toml names, and the newest of all others. A version is stated too
# low where this fails.
#
# Works on a copy of the tree in target/minimal, so Cargo.lock stays as it is. Needs a nightly
# for the choice of versions, the registry's index, and cargo-deny; the build is the stable toolchain's.
set -euo pipefail
cd "$(dirname "$0")/.."

tree=$PWD/target/minimal/tree
rm -rf "$tree"
mkdir -p "$tree"
# With their times, so that what did not change is not built again.
git ls-files -z --cached --others --exclude-standard -- . ':!fuzz' |
    while IFS= read -r -d '' file; do
        if [ -f "$file" ]; then printf '%s\0' "$file"; fi
    done | xargs -0 cp --parents --preserve=timestamps,mode -t "$tree"
cd "$tree"
export CARGO_TARGET_DIR=$tree/../build

if ! cargo +nightly update --quiet -Z direct-minimal-versions; then
    echo "no versions fit: a direct dependency must be of a later version than stated" >&2
    exit 1
fi
# None of them may have a known fault.
cargo deny --locked --workspace check --hide-inclusion-graph \
    --allow duplicate --allow build-script-not-allowed bans
cargo check --locked --workspace --all-targets --all-features
timeout 1800 cargo test --quiet --locked --package tierpool --all-features --lib --test it
echo "built and tested with:"
cargo tree --locked --workspace --all-features --depth 1 --prefix none --format '{p}' \
    --edges normal,dev,build | grep -v -e ' (' -e '^$' | sort -u
