#!/usr/bin/env bash
# Fuzzes: scripts/fuzz.sh MINUTES [TARGET...]
#
# Runs each target of fuzz/ (or those that are named) so many minutes, on one core
# each; MINUTES may be a fraction, as 0.25. FUZZ_JOBS=2 runs two targets at a time;
# by default they run one after another. Begins with the committed inputs and
# changes nothing in the tree, except that an input that fails is left in
# fuzz/artifacts/TARGET. Exits with 1 if there is any.
#
#     scripts/fuzz.sh --minimise TARGET [DIRECTORY...]
#
# Replaces the committed inputs of a target by the few small ones that cover as
# much as they and those in the directories together. What a run has found it
# leaves in the directory that it names if FUZZ_KEEP=1 is set.
#
# Needs a nightly toolchain, for AddressSanitizer. Installs cargo-fuzz if there
# is none.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo_fuzz_version=0.13.2 # what is installed where there is none
input_bytes_max=4096      # of one input
input_seconds_max=30 # of the clock, and other work may be going on
memory_mb_max=2048
jobs=${FUZZ_JOBS:-1}
committed_bytes_max=2048   # of one committed input

usage() {
    sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}

ready() {
    if ! cargo fuzz --version >/dev/null 2>&1; then
        cargo install --locked "cargo-fuzz@$cargo_fuzz_version"
    fi
    # cargo-fuzz would bring a lock file up to date without a word.
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
    # What is too long to be committed covers little that a shorter one does not. And
    # only what reaches an edge that no other does is kept, however often it does.
    small=$(mktemp -d)
    scratch=$(mktemp -d)
    trap 'rm -rf "$small" "$scratch"' EXIT
    mkdir -p "fuzz/corpus/$target"
    for directory in "fuzz/corpus/$target" "$@"; do
        # A directory each: what they have in common has the same name.
        find "$directory" -type f -size -$((committed_bytes_max + 1))c \
            -exec cp -t "$(mktemp -d -p "$scratch")" {} +
    done
    before=$(find "fuzz/corpus/$target" -type f | wc -l)
    "$built/$target" -merge=1 -rss_limit_mb=$memory_mb_max \
        -timeout=$input_seconds_max -use_counters=0 \
        "$small" "$scratch" 2>&1 | tail -n 1
    rm -rf "fuzz/corpus/$target"
    mkdir -p "fuzz/corpus/$target"
    # Named by their contents, as libFuzzer names them.
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
    echo "MINUTES: $1 is less than a second" >&2 # 0 would be without end
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
    echo "the inputs are left in $scratch"
else
    trap 'rm -rf "$scratch"' EXIT
fi

# The number that follows a word in the last line of a log that has it and begins as given.
last() {
    { grep -a "^$1" "$3" | grep -a -o "$2 *[0-9]*" || true; } |
        tail -n 1 | grep -o '[0-9]*$' || echo '?'
}

# Fuzzes one target, into files of $scratch: its log, what there is to say, and its row of the table.
fuzz() {
    local target=$1 status=0 file found runs
    local corpus="$scratch/$target" log="$scratch/$target.log" artifacts="fuzz/artifacts/$target"
    mkdir -p "$corpus" "$artifacts"
    if [ -d "fuzz/corpus/$target" ]; then
        cp -r "fuzz/corpus/$target/." "$corpus"
    fi
    touch "$scratch/$target.before"
    # shellcheck disable=SC2046 # no dictionary is no argument
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
            # Without what the fuzzer says of its progress.
            grep -a -vE '^#[0-9]+|Uses: ' "$log" | tail -n 60 || true
            echo "$target FAILED (exit $status)"
            for file in "${found[@]}"; do
                echo "reproduce with: cargo +nightly fuzz run $target $file"
            done
        } >"$scratch/$target.failed"
        cat "$scratch/$target.failed" # at once, so that two do not mix
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

failed=0 # also by a target that has no row: it was not fuzzed
printf '\n%-10s %12s %9s %8s %10s %8s %9s\n' \
    target executions per_s edges features inputs findings
for target in "${targets[@]}"; do
    cat "$scratch/$target.row" || failed=1
    [ ! -e "$scratch/$target.failed" ] || failed=1
done
exit $failed
