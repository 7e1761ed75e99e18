#!/usr/bin/env bash
# Builds and tests with the oldest dependencies that Cargo.toml allows: scripts/minimal.sh
#
# Uses the version of each direct dependency that Cargo.toml names, and the newest versions of all
# others. Builds everything, and runs the tests of the library. If this fails, a version in
# Cargo.toml is too low.
#
# Works on a copy of the tree in target/minimal, so Cargo.lock does not change. Needs a nightly to
# choose the versions, the registry's index, and cargo-deny. The stable toolchain builds.
set -euo pipefail
cd "$(dirname "$0")/.."

tree=$PWD/target/minimal/tree
rm -rf "$tree"
mkdir -p "$tree"
# With their times, so that unchanged files are not built again.
git ls-files -z --cached --others --exclude-standard -- . ':!fuzz' |
    while IFS= read -r -d '' file; do
        if [ -f "$file" ]; then printf '%s\0' "$file"; fi
    done | xargs -0 cp --parents --preserve=timestamps,mode -t "$tree"
cd "$tree"
export CARGO_TARGET_DIR=$tree/../build

if ! cargo +nightly update --quiet -Z direct-minimal-versions; then
    echo "no versions fit: a direct dependency needs a later version than Cargo.toml names" >&2
    exit 1
fi
# None of them may have a known vulnerability.
cargo deny --locked --workspace check --hide-inclusion-graph \
    --allow duplicate --allow build-script-not-allowed bans
cargo check --locked --workspace --all-targets --all-features
timeout 1800 cargo test --quiet --locked --package tierpool --all-features --lib --test it --test limit --test tokio
echo "built and tested with:"
cargo tree --locked --workspace --all-features --depth 1 --prefix none --format '{p}' \
    --edges normal,dev,build | grep -v -e ' (' -e '^$' | sort -u
