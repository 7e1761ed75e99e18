#!/usr/bin/env bash
# Fuzzes: scripts/fuzz.sh MINUTES [TARGET...]
#
# Runs each target of fuzz/, or only the named ones, for MINUTES on one core each. MINUTES may be a
# fraction, as 0.25. FUZZ_JOBS=2 runs two targets at a time; by default they run one after another.
# Starts with the committed inputs, and changes nothing in the tree, with one exception: it leaves
# an input that fails in fuzz/artifacts/TARGET. Exits with 1 if there is one.
#
#     scripts/fuzz.sh --minimise TARGET [DIRECTORY...]
#
# Replaces the committed inputs of a target by a few small ones with the same coverage as they and
# the inputs of the directories together. With FUZZ_KEEP=1, a run leaves the inputs that it has
# found in a directory, and prints its name.
#
# Needs a nightly toolchain, for AddressSanitizer. Installs cargo-fuzz if it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo_fuzz_version=0.13.2 # installed if it is missing
input_bytes_max=4096      # per input
input_seconds_max=30 # wall-clock time, on a machine that may be busy
memory_mb_max=2048
jobs=${FUZZ_JOBS:-1}
committed_bytes_max=2048   # per committed input

usage() {
    sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}

ready() {
    if ! cargo fuzz --version >/dev/null 2>&1; then
        cargo install --locked "cargo-fuzz@$cargo_fuzz_version"
    fi
    # cargo-fuzz would update a stale lock file silently.
    cargo metadata --locked --manifest-path fuzz/Cargo.toml --format-version 1 >/dev/null
    host=$(rustc +nightly -vV | sed -n 's/^host: //p')
    [ -n "$host" ] || exit 1
    built="fuzz/target/$host/release"
}

# Builds one target. Overflow checks, debug assertions and AddressSanitizer are on.
build() {
    cargo +nightly fuzz build "$1"
}

dictionary() {
    if [ -f "fuzz/dictionaries/$1.dict" ]; then
        echo "-dict=fuzz/dictionaries/$1.dict"
    fi
}

minimise() {
    local target=$1 before
    shift
    ready
    build "$target"
    # Inputs that are too long to commit cover little more than shorter ones. An input is kept only
    # if it reaches an edge that no other one does, however often it does so.
    small=$(mktemp -d)
    scratch=$(mktemp -d)
    trap 'rm -rf "$small" "$scratch"' EXIT
    mkdir -p "fuzz/corpus/$target"
    for directory in "fuzz/corpus/$target" "$@"; do
        # One directory each: equal inputs have the same name.
        find "$directory" -type f -size -$((committed_bytes_max + 1))c \
            -exec cp -t "$(mktemp -d -p "$scratch")" {} +
    done
    before=$(find "fuzz/corpus/$target" -type f | wc -l)
    "$built/$target" -merge=1 -rss_limit_mb=$memory_mb_max \
        -timeout=$input_seconds_max -use_counters=0 \
        "$small" "$scratch" 2>&1 | tail -n 1
    rm -rf "fuzz/corpus/$target"
    mkdir -p "fuzz/corpus/$target"
    # libFuzzer names inputs by their contents.
    find "$small" -type f -exec cp -t "fuzz/corpus/$target" {} +
    echo "fuzz/corpus/$target: $before inputs before," \
        "$(find "fuzz/corpus/$target" -type f | wc -l) now," \
        "$(du -cb "fuzz/corpus/$target"/* | tail -n 1 | cut -f1) bytes"
}

[ $# -ge 1 ] || usage
case $1 in
--minimise)
    [ $# -ge 2 ] || usage
    shift
    minimise "$@"
    exit
    ;;
*[!0-9.]* | *.*.* | . | '')
    usage
    ;;
esac

seconds=$(awk -v minutes="$1" 'BEGIN { printf "%.0f", minutes * 60 }')
if [ "$seconds" -lt 1 ]; then
    echo "MINUTES: $1 is less than a second" >&2 # 0 would mean no limit
    exit 2
fi
shift
ready
all=$(cargo fuzz list)
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    mapfile -t targets <<<"$all"
fi
for target in "${targets[@]}"; do
    if ! grep -qxF -e "$target" <<<"$all"; then
        echo "no target $target; there are:" $all >&2
        exit 2
    fi
    build "$target"
done

scratch=$(mktemp -d)
if [ -n "${FUZZ_KEEP:-}" ]; then
    echo "the inputs that were found are in $scratch"
else
    trap 'rm -rf "$scratch"' EXIT
fi

# Prints the number after a word, from the last matching line of a log that begins as given.
last() {
    { grep -a "^$1" "$3" | grep -a -o "$2 *[0-9]*" || true; } |
        tail -n 1 | grep -o '[0-9]*$' || echo '?'
}

# Fuzzes one target. Writes to files of $scratch: its log, its messages, and its row of the table.
fuzz() {
    local target=$1 status=0 file found runs
    local corpus="$scratch/$target" log="$scratch/$target.log" artifacts="fuzz/artifacts/$target"
    mkdir -p "$corpus" "$artifacts"
    if [ -d "fuzz/corpus/$target" ]; then
        cp -r "fuzz/corpus/$target/." "$corpus"
    fi
    touch "$scratch/$target.before"
    # shellcheck disable=SC2046 # without a dictionary there is no argument
    ASAN_OPTIONS="detect_leaks=1:${ASAN_OPTIONS:-}" "$built/$target" "$corpus" \
        -max_total_time="$seconds" -max_len=$input_bytes_max -timeout=$input_seconds_max \
        -rss_limit_mb=$memory_mb_max -print_final_stats=1 \
        -artifact_prefix="$artifacts/" $(dictionary "$target") >"$log" 2>&1 || status=$?
    mapfile -t found < <(find "$artifacts" -type f -newer "$scratch/$target.before" | sort)
    runs=$(last stat:: number_of_executed_units: "$log")
    printf '%-10s %12s %9s %8s %10s %8s %9s\n' "$target" "$runs" \
        "$(last stat:: average_exec_per_sec: "$log")" "$(last '#' ' cov:' "$log")" \
        "$(last '#' ' ft:' "$log")" "$(find "$corpus" -type f | wc -l)" "${#found[@]}" >"$scratch/$target.row"
    if [ "$status" -ne 0 ] || [ ${#found[@]} -gt 0 ]; then
        {
            grep -a -A 8 -E 'panicked at|ERROR: |SUMMARY: ' "$log" | cut -c 1-1000 || true
            # Without the fuzzer's progress lines.
            grep -a -vE '^#[0-9]+|Uses: ' "$log" | tail -n 60 || true
            echo "$target FAILED (exit $status)"
            for file in "${found[@]}"; do
                echo "reproduce with: cargo +nightly fuzz run $target $file"
            done
        } >"$scratch/$target.failed"
        cat "$scratch/$target.failed" # in one piece, so that two targets do not mix
    fi
}

for target in "${targets[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do
        wait -n || true
    done
    printf '== %s, %s s\n' "$target" "$seconds"
    fuzz "$target" &
done
wait

failed=0 # a target without a row was not fuzzed
printf '\n%-10s %12s %9s %8s %10s %8s %9s\n' \
    target executions per_s edges features inputs findings
for target in "${targets[@]}"; do
    cat "$scratch/$target.row" || failed=1
    [ ! -e "$scratch/$target.failed" ] || failed=1
done
exit $failed
