//! The end of a thread, and the inheritance of its caches, against claims.

use super::{CLASS, Pool, check, limits, limits_of_whole_magazines, spawn};
use crate::engine::Freed;
use crate::sync::end_thread;
use std::sync::Arc;

const CLAIMS: [fn(&Pool) -> Freed; 2] = [|pool| pool.engine.clear(), |pool| pool.engine.trim()];

#[test]
fn thread_exit_races_trim() {
    for claim in CLAIMS {
        check(2, move || {
            let pool = Pool::stocked(&limits(), 2);
            let other = Arc::clone(&pool);
            let claimer = spawn(move || {
                claim(&other);
            });
            end_thread();
            claimer.join().unwrap();
            pool.assert_accounted(0);
        });
    }
}

#[test]
fn inheriting_a_cache_races_its_claim() {
    for claim in CLAIMS {
        check(2, move || {
            let pool = Pool::new(&limits());
            let other = Arc::clone(&pool);
            let first = spawn(move || {
                let held = other.get();
                other.put(held);
            });
            first.join().unwrap();
            // The cache is free now. One item is in the depot, so that the heir has two.
            let other = Arc::clone(&pool);
            let heir = spawn(move || {
                let held = other.get();
                other.put(held);
            });
            claim(&pool);
            heir.join().unwrap();
            pool.assert_accounted(0);
        });
    }
}

// If its cache is claimed, an ending thread cannot hand its items on. They are its heir's.
#[test]
fn inheritance_races_the_claim_that_thread_exit_met() {
    check(1, || {
        let pool = Pool::stocked(&limits(), 1);
        let other = Arc::clone(&pool);
        let claimer = spawn(move || {
            other.engine.trim();
        });
        end_thread(); // main's, which leaves its cache
        let other = Arc::clone(&pool);
        let heir = spawn(move || {
            let held = other.get();
            other.put(held);
        });
        claimer.join().unwrap();
        heir.join().unwrap();
        pool.assert_accounted(0);
    });
}

#[test]
fn thread_exit_races_join() {
    check(6, || {
        let pool = Pool::stocked(&limits(), 1);
        let other = Arc::clone(&pool);
        let heir = spawn(move || {
            let held = other.get();
            other.put(held);
        });
        end_thread();
        heir.join().unwrap();
        pool.assert_accounted(0);
    });
}

// If no thread claims the cache, the items of an ended thread serve another one at once.
#[test]
fn thread_exit_comes_before_a_get() {
    for limits in [limits, limits_of_whole_magazines] {
        check(2, move || {
            let pool = Pool::new(&limits());
            let mine = pool.get(); // so that this thread inherits nothing
            let other = Arc::clone(&pool);
            let first = spawn(move || {
                let held = other.get();
                other.put(held);
            });
            first.join().unwrap();
            let (item, _) = pool.take(CLASS);
            assert!(item.is_some(), "an ended thread keeps it");
            pool.assert_accounted(2);
            drop((mine, item));
        });
    }
}
