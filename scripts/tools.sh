#!/usr/bin/env bash
# Installs the tools of CI beside a Rust toolchain, in these versions, unless they are installed:
#
#   scripts/tools.sh           the tools that CI runs
#   scripts/tools.sh mutants   also cargo-mutants, which CI does not run
#
# Installs no toolchain: `stable`, with rustfmt and clippy, and `nightly` must be installed.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo_deny=0.20.2
cargo_fuzz=0.13.2
cargo_hack=0.6.46
cargo_mutants=27.1.0
cargo_public_api=0.52.0 # reads the JSON of nightlies from 2025-08 on
# The library's version: the two must be the same.
gungraun_runner=$(sed -n 's/^gungraun = "=\([0-9.]*\)".*/\1/p' Cargo.toml)

case "${1:-}" in
'' | mutants) ;;
*)
    echo "usage: scripts/tools.sh [mutants]" >&2
    exit 2
    ;;
esac

# One folder for all, so that common dependencies are built once.
export CARGO_TARGET_DIR=$PWD/target/tools
# Not optimised: the tools run for seconds, and building them takes minutes.
export CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off
export CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=0
export RUSTUP_AUTO_INSTALL=0 # a missing toolchain is an error here

installed=$(cargo install --list)

tool() { # NAME VERSION [OPTION...]
    if [ -z "$2" ]; then
        echo "no version of $1" >&2
        exit 1
    fi
    if ! grep -q "^$1 v$2:" <<<"$installed"; then
        local from=$SECONDS
        cargo install --locked --quiet "$1@$2" "${@:3}"
        echo "$1 $2, installed in $((SECONDS - from)) s"
    else
        echo "$1 $2"
    fi
}

tool cargo-deny "$cargo_deny" --no-default-features # certificates, for fetching advisories
tool cargo-hack "$cargo_hack"
tool cargo-fuzz "$cargo_fuzz"
tool cargo-public-api "$cargo_public_api"
tool gungraun-runner "$gungraun_runner"
if [ "${1:-}" = mutants ]; then
    tool cargo-mutants "$cargo_mutants"
fi

if ! command -v valgrind >/dev/null ||
    { command -v dpkg >/dev/null && ! dpkg -s libc6-dbg >/dev/null 2>&1; }; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq
        # libc6-dbg: valgrind needs the symbols of the dynamic linker.
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            valgrind libc6-dbg >/dev/null
    else
        echo "valgrind or libc6-dbg is missing, and only root can install it: apt-get install valgrind libc6-dbg" >&2
        exit 1
    fi
fi
# Peers of the lab's http_files and memcached, which have their own in their place.
for peer in curl wrk memcached; do
    if ! command -v "$peer" >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$peer" >/dev/null || true
    fi
    command -v "$peer" || echo "$peer is MISSING: the lab uses its own in its place"
done
valgrind --version
rustc --version
if ! rustup toolchain list | grep -q '^nightly'; then
    echo "a nightly toolchain is missing: cargo-fuzz and cargo-public-api need one" >&2
    exit 1
fi
rustc +nightly --version
