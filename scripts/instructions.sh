#!/usr/bin/env bash
# How many instructions the pool's operations take, beside what is recorded:
#
#   scripts/instructions.sh            fails if one takes over 1 % more than recorded
#   scripts/instructions.sh --update   writes the record anew
#
# 1 %: the same sources give the same counts, wherever they are built, and one store more is
# 1.3 % of a local get and drop.
#
# With another compiler, glibc or valgrind than those of the record, what is compared with is
# counted anew, of the commit that made the record.
#
# Needs valgrind and gungraun-runner: scripts/tools.sh
set -euo pipefail
cd "$(dirname "$0")/.."

record=benches/record/instructions.csv
export GUNGRAUN_HOME=$PWD/target/instructions

case "${1:-}" in
'' | --update) ;;
*)
    echo "usage: scripts/instructions.sh [--update]" >&2
    exit 2
    ;;
esac
if ! command -v valgrind >/dev/null; then
    echo "valgrind is missing: scripts/tools.sh" >&2
    exit 1
fi
if [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo "the counts in $record are of Linux on x86-64; here is $(uname -sm)" >&2
    exit 1
fi

# What else may change a count than the sources.
counted_by="# $(rustc --version | cut -d' ' -f1-2); $(valgrind --version); glibc $(getconf GNU_LIBC_VERSION | cut -d' ' -f2)"

rm -rf "$GUNGRAUN_HOME" # so that no old count is taken for a new one
log=$(mktemp)
now=$(mktemp)
trap 'rm -f "$log" "$now"' EXIT
if ! cargo bench --locked --bench instructions >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi

# A case's folder is OPERATION.xTIMES, and holds one file for each thread; callgrind gives
# the count of each as 'totals: COUNT'.
{
    echo "$counted_by"
    echo operation,times,instructions,instructions_each
    find "$GUNGRAUN_HOME" -name 'callgrind.*.out' -exec awk '
        FNR == 1 { n = split(FILENAME, path, "/"); name = path[n - 1] }
        $1 == "totals:" { total[name] += $2 }
        END {
            for (name in total) {
                split(name, part, "[.]x")
                printf "%s,%d,%d,%.1f\n", part[1], part[2], total[name], total[name] / part[2]
            }
        }' {} + | sort
} >"$now"
if [ "$(wc -l <"$now")" -lt 3 ]; then
    cat "$log" >&2
    echo "no counts found in $GUNGRAUN_HOME" >&2
    exit 1
fi

if [ "${1:-}" = --update ]; then
    cp "$now" "$record"
    echo "written: $record"
    exit
fi
if [ "$(head -n 1 "$record")" != "$counted_by" ]; then
    # Counts of another compiler or another heap say nothing of the sources. What the
    # record was made of is counted here as well, then, and is the record.
    echo "recorded with $(head -n 1 "$record"), counted with $counted_by"
    base=$(git log -1 --format=%H -- "$record")
    if [ -z "$base" ]; then
        echo "no commit has $record: what it was made of cannot be counted here" >&2
        exit 1
    fi
    echo "so commit $base, which made the record, is counted here, too"
    tree=$PWD/target/instructions-base
    git worktree prune
    rm -rf "$tree"
    git worktree add --quiet --detach "$tree" "$base"
    (cd "$tree" && CARGO_TARGET_DIR=$PWD/target scripts/instructions.sh --update)
    record=$tree/$record
fi
awk -F, -v limit=1 '
    /^#/ || $1 == "operation" { next }
    FILENAME == ARGV[1] { recorded[$1, $2] = $3; name[$1, $2] = $1 " x" $2; next }
    {
        seen[$1, $2] = 1
        if (!(($1, $2) in recorded)) {
            printf "%-26s %9.1f  not recorded: --update\n", $1, $4
            failed = 1
            next
        }
        was = recorded[$1, $2]
        change = 100 * ($3 - was) / was
        verdict = ""
        if (change > limit) {
            verdict = "  FAILED: more than " limit " % above the record"
            failed = 1
        } else if (change < -limit) {
            verdict = "  more than " limit " % below the record: take it over with --update"
        }
        printf "%-26s %9.1f instructions each  %+6.2f %%%s\n", $1, $4, change, verdict
    }
    END {
        for (key in recorded)
            if (!(key in seen)) {
                printf "%s is recorded, but was not counted: --update\n", name[key]
                failed = 1
            }
        exit failed
    }' "$record" "$now"
