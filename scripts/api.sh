#!/usr/bin/env bash
# The public API, beside the listing that is committed:
#
#   scripts/api.sh            prints the difference, and fails if there is one
#   scripts/api.sh --update   writes the listing anew
#
# Needs cargo-public-api (scripts/tools.sh) and a nightly, whose rustdoc writes JSON. What the
# compiler implements by itself and no stable program can name (`Freeze` and the like), blanket
# implementations, the methods of a trait, whose signatures are the trait's, and the order of private
# fields (`repr(C)`), which rustdoc does not show either, are left out.
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

export RUSTUP_AUTO_INSTALL=0 # what is not installed is an error here
if ! rustup toolchain list | grep -q '^nightly'; then
    echo "a nightly toolchain is missing: it writes the JSON that the listing is made of" >&2
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
    echo "that is no listing of this crate" >&2
    exit 1
fi

if [ "${1:-}" = --update ]; then
    cp "$now" "$listing"
    echo "written: $listing"
elif diff -u --label "$listing" --label "the API now" "$listing" "$now"; then
    echo "the public API is as $listing has it: $(wc -l <"$now") lines"
else
    echo "the public API has changed: scripts/api.sh --update, if it is meant" >&2
    exit 1
fi
