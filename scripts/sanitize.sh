#!/usr/bin/env bash
# The test suite under tools that watch each access to memory: scripts/sanitize.sh asan|valgrind|all
#
# Each finds what the other does not: AddressSanitizer sees accesses to stack frames that are
# gone, and costs a few times the time, so that nothing need be left out; but it sees nothing
# that happens inside the standard library, which comes compiled without it. valgrind sees
# every instruction, and that a decision rests on memory that was never written. Both look
# for leaks at the end of each binary; what tests forget on purpose, tests/common/forget.rs
# keeps reachable.
#
# Not under either: tests/rss.rs, burst.rs and faults.rs, which measure what these tools change, and
# benches. Not under valgrind: tests/membarrier.rs, fork.rs, wiped.rs and malloc_trim.rs, see
# below.
#
# Needs a nightly toolchain for AddressSanitizer, and valgrind.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

# All test binaries of the pool, but those named.
tests_but() {
    local test
    for test in tests/*.rs tests/*/main.rs; do
        test=${test%/main.rs}
        test=$(basename "$test" .rs)
        case " $* " in
        *" $test "*) ;;
        *) printf -- '--test\n%s\n' "$test" ;;
        esac
    done
}

# Some optimisation: else most of the time goes to proptest. Overflows and debug assertions
# are checked as in any test. Of debugging, what a trace of calls needs.
export CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=line-tables-only

asan() {
    local host tests
    host=$(rustc -vV | sed -n 's/^host: //p')
    mapfile -t tests < <(tests_but rss burst faults)
    export RUSTFLAGS='-Zsanitizer=address --cfg no_benches' RUSTDOCFLAGS='-Zsanitizer=address'
    export ASAN_OPTIONS='detect_leaks=1:detect_stack_use_after_return=1:strict_init_order=1:check_initialization_order=1:allocator_may_return_null=1'
    local cargo=(cargo +nightly test --locked --all-features
        --target "$host" --target-dir target/asan)
    step "AddressSanitizer: building"
    "${cargo[@]}" -p tierpool --lib "${tests[@]}" --no-run
    step "AddressSanitizer: the pool"
    # `timeout`: a pool gone wrong may wait for ever. A heap that refuses is an answer here.
    timeout 900 "${cargo[@]}" -p tierpool --lib "${tests[@]}"
    step "AddressSanitizer: tierpool-tune"
    # That test limits the address space, of which AddressSanitizer takes 16 TiB.
    timeout 900 "${cargo[@]}" -p tierpool-tune -- --skip a_line_without_an_end_takes_no_memory
    step "AddressSanitizer: the examples in the documentation"
    timeout 900 "${cargo[@]}" -p tierpool --doc
    unset RUSTFLAGS RUSTDOCFLAGS ASAN_OPTIONS
}

valgrind_memcheck() {
    local tests binaries binary said
    # `membarrier` runs its scenarios in processes of their own, which would have to be
    # valgrind's, too, under the filters that they install. The children of `fork` have lost
    # the threads that would free what these had. `wiped` reads all blocks to their ends, and
    # so what was never written of them. And valgrind has a `malloc_trim` of its own, which
    # comes before the test's.
    mapfile -t tests < <(tests_but rss burst faults membarrier fork wiped malloc_trim)
    step "valgrind: building"
    # With fewer rounds where there are many: valgrind is some 30 times slower, and runs
    # one thread at a time.
    said=$(RUSTFLAGS='--cfg slow --cfg no_benches' cargo test --locked --all-features --no-run \
        --target-dir target/valgrind -p tierpool --lib "${tests[@]}" 2>&1) ||
        { printf '%s\n' "$said"; return 1; }
    mapfile -t binaries < <(printf '%s\n' "$said" | sed -n 's/.*Executable .*(\(.*\))$/\1/p')
    [ "${#binaries[@]}" -gt 1 ]
    # Side by side, since each runs one thread at a time; what each says is printed when it ends.
    step "valgrind: ${#binaries[@]} test binaries"
    printf '%s\n' "${binaries[@]}" | xargs -P "$(nproc)" -I {} scripts/sanitize.sh memcheck {}
}

memcheck() { # BINARY
    local said status=0 from=$SECONDS
    # `fair-sched`: else a thread that waits in a loop starves the one that it waits for.
    said=$(timeout 900 valgrind --quiet --error-exitcode=99 \
        --leak-check=full --show-leak-kinds=definite,indirect \
        --errors-for-leak-kinds=definite,indirect --num-callers=30 \
        --fair-sched=try "$1" --quiet 2>&1) || status=$?
    printf '\n== valgrind: %s, %d s\n%s\n' "$1" $((SECONDS - from)) "$said"
    if [ "$status" -ne 0 ]; then
        echo "valgrind: $1 FAILED (exit $status)"
        exit 1 # which `xargs` goes on from, and exits with 123 at its end
    fi
}

case "${1-}" in
asan) asan ;;
valgrind) valgrind_memcheck ;;
memcheck) # one binary, for the above
    memcheck "$2"
    exit
    ;;
all)
    asan
    valgrind_memcheck
    ;;
*)
    echo "usage: scripts/sanitize.sh asan|valgrind|all" >&2
    exit 2
    ;;
esac
step "sanitizers: nothing found"
