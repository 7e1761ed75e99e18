#!/usr/bin/env bash
# Rules of the sources that no compiler checks: scripts/structure.sh [DIRECTORY]
#
# DIRECTORY holds the sources; src unless it is given.
set -euo pipefail
cd "$(dirname "$0")/.."
src=${1:-src}
failed=0

fail() {
    echo "$*" >&2
    failed=1
}

# Comments may name them, and so may the `cfg` of a whole item. Other code may not, except in
# one folder. (A checker, its crate, and every path to the standard library's or the core's
# atomics.)
names='(^|[^a-z_])(loom|shuttle)([^a-z_]|$)|(^|[^a-z_])atomic(::|;|,|}| as )|(std|core)::sync::\*'
found=$(find "$src" -name '*.rs' ! -path "$src/sync/*" -print0 | sort -z |
    xargs -0 awk -v names="$names" '
        { code = $0; sub(/\/\/.*/, "", code) }
        code !~ /^#\[cfg\(.*\)\]$/ && code ~ names { print FILENAME ":" FNR ": " $0 }')
if [ -n "$found" ]; then
    fail "Only $src/sync/* may name loom, shuttle or the standard library's atomics:
$found"
fi

# A look at a clock panics on a system that has none. That file asks first.
found=$(find "$src" -name '*.rs' ! -path "$src/clock.rs" -print0 | sort -z |
    xargs -0 awk '
        { code = $0; sub(/\/\/.*/, "", code) }
        code ~ /(Instant|SystemTime)::now|\.elapsed\(/ { print FILENAME ":" FNR ": " $0 }')
if [ -n "$found" ]; then
    fail "Only $src/clock.rs may look at a clock:
$found"
fi

# An ordering is named, with its partner or why it has none, in a comment on its line or on
# one of the twelve above. Tests and models are exempt: what follows `#[cfg(test)]`.
found=$(find "$src" -name '*.rs' ! -path "$src/models/*" -print0 | sort -z |
    xargs -0 awk '
        FNR == 1 { tests = 0; split("", named) }
        /^ *#\[cfg\(test\)\]/ { tests = 1; end = $0; sub(/#.*/, "", end); end = end "}" }
        tests { if ($0 == end) tests = 0; next }
        { comment = code = $0; sub(/\/\/.*/, "", code) }
        comment ~ /\/\// {
            sub(/^[^\/]*(\/[^\/][^\/]*)*\/\//, "", comment)
            for (at in words) if (comment ~ "(^|[^A-Za-z])" words[at] "([^A-Za-z]|$)") named[words[at]] = FNR
        }
        {
            for (at in words)
                if (code ~ "Ordering::" words[at] && !(words[at] in named && FNR - named[words[at]] <= 12))
                    print FILENAME ":" FNR ": " $0
        }
        BEGIN { split("Relaxed Acquire Release AcqRel SeqCst", words, " ") }')
if [ -n "$found" ]; then
    fail "No comment near these names the ordering, and its partner or why it has none:
$found"
fi

# So that the above sees each.
found=$(grep -rnE 'Ordering::(\{|\*)' --include='*.rs' "$src" || true)
if [ -n "$found" ]; then
    fail "Name each ordering as Ordering::NAME where it is used:
$found"
fi

exit "$failed"
