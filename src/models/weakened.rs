//! Models that must fail: each runs the engine with one kind of ordering weakened in one file.
//!
//! Owns the choice of a model for each kind and file. Knows nothing of where in the file the
//! orderings are.
//!
//! A test here passes if its model fails, with the message that tells why. So the file needs such
//! orderings, and the model detects a mistake in them. All orderings of that kind in the file are
//! weakened at once: no test shows that each of them is needed. Two preemptions are enough for
//! each; with `LOOM_MAX_PREEMPTIONS=1` some of the models pass.

use super::{claim, close, parts, ring};
use crate::sync::{Ordering, fail_without};

const BARRIER: &str = "engine/barrier.rs";
const CACHE: &str = "engine/cache.rs";
const COUNTER: &str = "sync/counter.rs";
const HOLDERS: &str = "inner/holders.rs";
const RING: &str = "engine/ring.rs";
const ROUNDS: &str = "engine/rounds.rs";
/// The file of `Engine::join`.
const JOIN: &str = "engine/mod.rs";
/// The file of `Engine::settle`.
const SETTLE: &str = "engine/put.rs";

// ---- parts ----

#[test]
#[should_panic(expected = "Causality violation: Concurrent write accesses")]
fn guard_drop_races_last_drop_without_release() {
    fail_without(
        Ordering::Release,
        HOLDERS,
        parts::guard_drop_races_last_drop,
    );
}

#[test]
#[should_panic(expected = "Causality violation: Concurrent write accesses")]
fn growth_races_last_drop_without_acquire() {
    fail_without(Ordering::Acquire, HOLDERS, parts::growth_races_last_drop);
}

// ---- caches ----

#[test]
#[should_panic(expected = "Causality violation: Concurrent write accesses")]
fn claim_races_get_without_release() {
    fail_without(Ordering::Release, CACHE, claim::claim_races_get);
}

#[test]
#[should_panic(expected = "Causality violation: Concurrent write accesses")]
fn claim_races_get_without_acquire() {
    fail_without(Ordering::Acquire, CACHE, claim::claim_races_get);
}

#[test]
#[should_panic(expected = "Causality violation: Concurrent write accesses")]
fn claim_races_drop_without_release() {
    fail_without(Ordering::Release, CACHE, claim::claim_races_drop);
}

#[test]
#[should_panic(expected = "Causality violation: Concurrent write accesses")]
fn claim_races_drop_without_acquire() {
    fail_without(Ordering::Acquire, CACHE, claim::claim_races_drop);
}

#[test]
#[should_panic(expected = "Causality violation: Concurrent write accesses")]
fn end_of_a_claim_races_get_and_drop_without_release() {
    fail_without(
        Ordering::Release,
        CACHE,
        claim::end_of_a_claim_races_get_and_drop,
    );
}

#[test]
#[should_panic(expected = "Causality violation: Concurrent write accesses")]
fn end_of_a_claim_races_get_and_drop_without_acquire() {
    fail_without(
        Ordering::Acquire,
        CACHE,
        claim::end_of_a_claim_races_get_and_drop,
    );
}

#[test]
#[should_panic(expected = "more hits than there were")]
fn stats_race_claim_without_release() {
    fail_without(Ordering::Release, ROUNDS, claim::stats_race_claim);
}

#[test]
#[should_panic(expected = "more hits than there were")]
fn stats_race_claim_without_acquire() {
    fail_without(Ordering::Acquire, ROUNDS, claim::stats_race_claim);
}

#[test]
#[should_panic(expected = "more hits than there were")]
fn stats_race_get_and_drop_without_release_of_counters() {
    fail_without(Ordering::Release, COUNTER, claim::stats_race_get_and_drop);
}

// ---- barriers ----

#[test]
#[should_panic(expected = "Causality violation: Concurrent write accesses")]
fn claim_races_get_without_barriers() {
    fail_without(Ordering::SeqCst, BARRIER, claim::claim_races_get);
}

#[test]
#[should_panic(expected = "Causality violation: Concurrent write accesses")]
fn claim_races_drop_without_barriers() {
    fail_without(Ordering::SeqCst, BARRIER, claim::claim_races_drop);
}

#[test]
#[should_panic(expected = "a closed engine holds items")]
fn close_races_join_without_the_fence_of_join() {
    fail_without(Ordering::SeqCst, JOIN, close::close_races_join);
}

#[test]
#[should_panic(expected = "a closed engine holds items")]
fn close_races_flush_without_the_fence_of_settle() {
    fail_without(Ordering::SeqCst, SETTLE, close::close_races_flush);
}

#[test]
#[should_panic(expected = "a closed engine holds items")]
fn close_races_drop_of_a_loose_item_without_the_fence_of_settle() {
    fail_without(
        Ordering::SeqCst,
        SETTLE,
        close::close_races_drop_of_a_loose_item,
    );
}

// ---- rings ----

#[test]
#[should_panic(expected = "Causality violation: Concurrent write accesses")]
fn push_races_pop_without_release() {
    fail_without(Ordering::Release, RING, ring::push_races_pop);
}

#[test]
#[should_panic(expected = "Causality violation: Concurrent write accesses")]
fn push_races_pop_without_acquire() {
    fail_without(Ordering::Acquire, RING, ring::push_races_pop);
}

#[test]
#[should_panic(expected = "ring.len() <= LEN")]
fn len_races_push_and_pop_without_release() {
    fail_without(Ordering::Release, RING, ring::len_races_push_and_pop);
}

#[test]
#[should_panic(expected = "ring.len() <= LEN")]
fn len_races_push_and_pop_without_acquire() {
    fail_without(Ordering::Acquire, RING, ring::len_races_push_and_pop);
}

// ---- the weakened file ----

// Otherwise the tests above would show nothing about the file that they name.
#[test]
#[should_panic(expected = "the models meet no Release in engine/cache.rs")]
fn nothing_is_weakened_in_other_files() {
    fail_without(Ordering::Release, CACHE, ring::push_races_push);
}
