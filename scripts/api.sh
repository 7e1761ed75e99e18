#!/usr/bin/env bash
# Compares the public API with the committed listing:
#
#   scripts/api.sh            prints the difference, and fails if there is one
#   scripts/api.sh --update   rewrites the listing
#
# Needs cargo-public-api (scripts/tools.sh) and a nightly, whose rustdoc writes JSON. The listing
# leaves out the traits that the compiler implements by itself and no stable program can name
# (`Freeze` and the like), blanket implementations, methods of a trait, whose signatures are the
# trait's, and the order of private fields (`repr(C)`), which rustdoc does not show either.
set -euo pipefail
cd "$(dirname "$0")/.."

listing=docs/public-api.txt
case "${1:-}" in
'' | --update) ;;
*)
    echo "usage: scripts/api.sh [--update]" >&2
    exit 2
    ;;
esac

export RUSTUP_AUTO_INSTALL=0 # a missing toolchain is an error here
if ! rustup toolchain list | grep -q '^nightly'; then
    echo "a nightly toolchain is missing: the listing needs its JSON" >&2
    exit 1
fi
if ! cargo public-api --version >/dev/null 2>&1; then
    echo "cargo-public-api is missing: scripts/tools.sh" >&2
    exit 1
fi

now=$(mktemp)
trap 'rm -f "$now" "$now.all" "$now.log"' EXIT
if ! cargo +nightly public-api --all-features --omit blanket-impls --color=never \
    >"$now.all" 2>"$now.log"; then
    cat "$now.log" >&2
    exit 1
fi
awk '
    { sub(/^#\[repr\(C\)\] /, "") }
    / core::marker::(Freeze|UnsafeUnpin|StructuralPartialEq) for / { next }
    /^(unsafe )?impl/ { of_a_trait = / for /; print; next }
    /^(#\[[^ ]*\] )*pub (const )?(unsafe )?fn / { if (!of_a_trait) print; next }
    { print }' "$now.all" >"$now"
if ! grep -q '^pub fn tierpool::Pool::get(' "$now"; then
    cat "$now.log" >&2
    echo "cargo-public-api gave no listing of this crate" >&2
    exit 1
fi

if [ "${1:-}" = --update ]; then
    cp "$now" "$listing"
    echo "rewritten: $listing"
elif diff -u --label "$listing" --label "the API now" "$listing" "$now"; then
    echo "the public API equals $listing: $(wc -l <"$now") lines"
else
    echo "the public API has changed. If it should: scripts/api.sh --update" >&2
    exit 1
fi
