#!/usr/bin/env bash
# Checks rules that rustc and clippy (clippy.toml) do not: scripts/structure.sh [DIRECTORY]
#
# DIRECTORY holds the library's sources; src by default.
set -euo pipefail
cd "$(dirname "$0")/.."
src=${1:-src}
failed=0

# Fails with MESSAGE if code, not comments, matches PATTERN in a file whose path does not match EXCEPT.
never() { # MESSAGE PATTERN EXCEPT FOLDER...
    local message=$1 pattern=$2 except=$3 found
    shift 3
    found=$(grep -rnE --include='*.rs' "^([^/]|/[^/])*($pattern)" "$@" | grep -vE "^($except):" || true)
    if [ -n "$found" ]; then
        printf '%s:\n%s\n' "$message" "$found" >&2
        failed=1
    fi
}

# Clippy cannot check this: for its lints, an atomic that src/sync exports is the standard
# library's.
never "Only $src/sync may name loom, shuttle or the standard library's atomics" \
    '\<(loom|shuttle)::|\<use (loom|shuttle)\>|\<atomic(::|[;,}]| as )|(std|core)::sync::\*' "$src/sync/.*" "$src"

never "Name each ordering as Ordering::NAME where it is used" \
    'Ordering::[{*]|use .*Ordering::' '' "$src"

# Clippy knows the release of a function, but not that of a piece of syntax.
never "Let chains came with Rust 1.88, after the rust-version of Cargo.toml" \
    '&& let ' '' "$src" tests examples benches tune

# A comment names each ordering, with its partner or why it has none. It is on the same line or on
# one of the twelve lines above. Tests and models are exempt.
found=$(find "$src" -name '*.rs' ! -path "$src/models/*" -print0 | sort -z |
    xargs -0 awk '
        BEGIN { split("Relaxed Acquire Release AcqRel SeqCst", words, " ") }
        FNR == 1 { end = ""; split("", named) }
        # Skips from `#[cfg(test)]` to the line that closes the item below it.
        /^ *#\[cfg\(test\)\]/ { end = $0; sub(/#.*/, "}", end) }
        end != "" { if ($0 == end) end = ""; next }
        {
            at = index($0 "//", "//")
            code = substr($0, 1, at - 1)
            comment = substr($0, at)
            for (i in words) {
                if (comment ~ "[^A-Za-z]" words[i] "([^A-Za-z]|$)") named[words[i]] = FNR
                if (code ~ "Ordering::" words[i] && !(words[i] in named && FNR - named[words[i]] <= 12))
                    print FILENAME ":" FNR ": " $0
            }
        }')
if [ -n "$found" ]; then
    printf 'No comment near these names the ordering, and its partner or why it has none:\n%s\n' "$found" >&2
    failed=1
fi

# One word for one thing: the terms of docs/guide/terms.md, and no other name for them.
found=$(git ls-files '*.md' '*.rs' '*.sh' ':!scripts/structure.sh' |
    xargs grep -nwiE 'TLS|quick way|slow way|global pool|evict(s|ed|ing|ion)?|steals?|stolen|gc' || true)
if [ -n "$found" ]; then
    printf 'These words have another name in this project (docs/guide/terms.md):\n%s\n' "$found" >&2
    failed=1
fi

exit "$failed"
