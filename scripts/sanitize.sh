#!/usr/bin/env bash
# Runs the tests under tools that check memory accesses: scripts/sanitize.sh asan|valgrind|all
#
# The tools complement each other. AddressSanitizer detects accesses to stack frames that are gone.
# It only takes a few times as long, so no test is left out. But it does not check the standard
# library, which is compiled without it. valgrind checks every instruction, and also finds decisions
# that depend on memory that was never written. Both look for leaks at the end of each test program.
# tests/common/forget.rs keeps values reachable that tests forget on purpose.
#
# Neither runs benches, or tests/rss.rs, burst.rs and faults.rs, which measure memory that these
# tools change. Neither runs tests/uring.rs: the tools do not see what the kernel writes by io_uring,
# and monoio leaks 16 bytes with each ring. valgrind does not run tests/membarrier.rs, fork.rs,
# wiped.rs and malloc_trim.rs; the reasons are below.
#
# Needs a nightly toolchain for AddressSanitizer, and valgrind.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

# Prints the arguments for all test programs of the pool except the named ones.
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

# Some optimisation: otherwise proptest takes most of the time. Overflows and debug assertions are
# checked as in any test. Debug information is enough for a trace of calls.
export CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=line-tables-only

asan() {
    local host tests
    host=$(rustc -vV | sed -n 's/^host: //p')
    mapfile -t tests < <(tests_but rss burst faults uring)
    export RUSTFLAGS='-Zsanitizer=address --cfg no_benches' RUSTDOCFLAGS='-Zsanitizer=address'
    export ASAN_OPTIONS='detect_leaks=1:detect_stack_use_after_return=1:strict_init_order=1:check_initialization_order=1:allocator_may_return_null=1'
    local cargo=(cargo +nightly test --locked --all-features
        --target "$host" --target-dir target/asan)
    step "AddressSanitizer: building"
    "${cargo[@]}" -p tierpool --lib "${tests[@]}" --no-run
    step "AddressSanitizer: the pool"
    # `timeout`: a faulty pool may hang. Some tests need a heap that refuses.
    timeout 900 "${cargo[@]}" -p tierpool --lib "${tests[@]}"
    step "AddressSanitizer: tierpool-tune"
    # That test limits the address space, and AddressSanitizer takes 16 TiB of it.
    timeout 900 "${cargo[@]}" -p tierpool-tune -- --skip a_line_without_an_end_takes_no_memory
    step "AddressSanitizer: the examples in the documentation"
    timeout 900 "${cargo[@]}" -p tierpool --doc
    unset RUSTFLAGS RUSTDOCFLAGS ASAN_OPTIONS
}

valgrind_memcheck() {
    local tests binaries binary said
    # `membarrier` runs its scenarios in separate processes. valgrind would have to run these, too,
    # under the filters that they install. The children of `fork` have no threads that could free
    # the memory of the parent's threads. `wiped` reads all blocks to their ends, including bytes
    # that were never written. And valgrind replaces `malloc_trim` before the test can.
    mapfile -t tests < <(tests_but rss burst faults uring membarrier fork wiped malloc_trim)
    step "valgrind: building"
    # Long tests run fewer rounds: valgrind is some 30 times slower, and runs one thread at a time.
    said=$(RUSTFLAGS='--cfg slow --cfg no_benches' cargo test --locked --all-features --no-run \
        --target-dir target/valgrind -p tierpool --lib "${tests[@]}" 2>&1) ||
        { printf '%s\n' "$said"; return 1; }
    mapfile -t binaries < <(printf '%s\n' "$said" | sed -n 's/.*Executable .*(\(.*\))$/\1/p')
    [ "${#binaries[@]}" -gt 1 ]
    # In parallel, since each runs one thread at a time. The output of each is printed when it ends.
    step "valgrind: ${#binaries[@]} test binaries"
    printf '%s\n' "${binaries[@]}" | xargs -P "$(nproc)" -I {} scripts/sanitize.sh memcheck {}
}

memcheck() { # BINARY
    local said status=0 from=$SECONDS
    # `fair-sched`: otherwise a thread that waits in a loop starves the thread that it waits for.
    said=$(timeout 900 valgrind --quiet --error-exitcode=99 \
        --leak-check=full --show-leak-kinds=definite,indirect \
        --errors-for-leak-kinds=definite,indirect --num-callers=30 \
        --fair-sched=try "$1" --quiet 2>&1) || status=$?
    printf '\n== valgrind: %s, %d s\n%s\n' "$1" $((SECONDS - from)) "$said"
    if [ "$status" -ne 0 ]; then
        echo "valgrind: $1 FAILED (exit $status)"
        exit 1 # `xargs` goes on, and exits with 123 at its end
    fi
}

case "${1-}" in
asan) asan ;;
valgrind) valgrind_memcheck ;;
memcheck) # one test program, called by `valgrind_memcheck`
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
