#!/usr/bin/env bash
# Compares the instruction counts of the pool's operations with the recorded ones:
#
#   scripts/instructions.sh            fails if a count is over 1 % above the record
#   scripts/instructions.sh --update   rewrites the record
#
# 1 %: the same sources give the same counts, wherever they are built, and one more store is 1.3 %
# of a local get and drop.
#
# If the compiler, glibc or valgrind differ from those of the record, the script counts the commit
# that made the record again, and compares with that.
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
    echo "the counts in $record are for Linux on x86-64; this is $(uname -sm)" >&2
    exit 1
fi

# Apart from the sources, these may change a count.
counted_by="# $(rustc --version | cut -d' ' -f1-2); $(valgrind --version); glibc $(getconf GNU_LIBC_VERSION | cut -d' ' -f2)"

rm -rf "$GUNGRAUN_HOME" # so that no old count is left
log=$(mktemp)
now=$(mktemp)
trap 'rm -f "$log" "$now"' EXIT
if ! cargo bench --locked --bench instructions >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi

# The folder of a case is OPERATION.xTIMES, with one file per thread. Callgrind writes the count of
# each thread as 'totals: COUNT'.
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
    echo "rewritten: $record"
    exit
fi
if [ "$(head -n 1 "$record")" != "$counted_by" ]; then
    # Counts of another compiler or another heap are no measure of the sources. So the commit of the
    # record is counted here as well, and serves as the record.
    echo "recorded with $(head -n 1 "$record"), counted with $counted_by"
    base=$(git log -1 --format=%H -- "$record")
    if [ -z "$base" ]; then
        echo "no commit has $record: its sources cannot be counted here" >&2
        exit 1
    fi
    echo "so commit $base, which made the record, is counted here as well"
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
            verdict = "  more than " limit " % below the record: record it with --update"
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
