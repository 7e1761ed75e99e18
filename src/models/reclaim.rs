//! A get that takes items that rest in another thread's cache, against that thread and others.

use super::{CLASS, Pool, check, limits, spawn, spawn_endless};
use crate::engine::{Item, Limits};
use std::sync::Arc;

/// As many items of the class as one thread caches: so all of them can be in its cache.
fn short_limits() -> Limits {
    let mut limits = limits();
    limits.classes[0].items = 2;
    limits
}

/// A pool whose items all rest in this thread's cache.
fn resting() -> Arc<Pool> {
    let pool = Pool::stocked(&short_limits(), 2);
    pool.engine.trim();
    pool
}

/// A get on another thread. All items rest in this thread's cache.
fn get_elsewhere(pool: &Arc<Pool>) -> crate::sync::model::JoinHandle<()> {
    let other = Arc::clone(pool);
    spawn(move || {
        let held = other.get();
        other.put(held);
    })
}

// 2, here and below: enough for the reclaim to begin and to end in the middle of the other.
#[test]
fn reclaim_races_the_owners_get() {
    check(2, || {
        let pool = resting();
        let elsewhere = get_elsewhere(&pool);
        let held = pool.get();
        elsewhere.join().unwrap();
        pool.assert_accounted(1);
        drop(held);
    });
}

#[test]
fn reclaim_races_the_owners_drop() {
    check(2, || {
        let pool = resting();
        let held = pool.get();
        let elsewhere = get_elsewhere(&pool);
        pool.put(held);
        elsewhere.join().unwrap();
        pool.assert_accounted(0);
    });
}

#[test]
fn reclaim_races_trim() {
    check(2, || {
        let pool = resting();
        let elsewhere = get_elsewhere(&pool);
        pool.engine.trim();
        elsewhere.join().unwrap();
        pool.assert_accounted(0);
    });
}

// 1: with 2, three threads have more orders than can be tried in minutes.
#[test]
fn reclaim_races_reclaim() {
    check(1, || {
        let pool = resting();
        let one = get_elsewhere(&pool);
        let two = get_elsewhere(&pool);
        one.join().unwrap();
        two.join().unwrap();
        pool.assert_accounted(0);
    });
}

// This thread has its caches before: `close_races_join` is about a new thread.
#[test]
fn reclaim_races_close() {
    check(2, || {
        let pool = Pool::new(&short_limits());
        drop(pool.get().item);
        let other = Arc::clone(&pool);
        let rests = spawn_endless(move || {
            let held = [other.get(), other.get()];
            held.into_iter().for_each(|held| other.put(held));
            other.engine.trim();
        });
        rests.join().unwrap();
        let other = Arc::clone(&pool);
        let closer = spawn(move || other.engine.close(Item::free));
        let held = pool.get();
        pool.put(held);
        closer.join().unwrap();
        assert_eq!(super::alive(), 0);
        assert_eq!(pool.engine.levels(CLASS).idle_items, 0);
    });
}

// The items that a thread at its end leaves behind while its cache is claimed must be found again.
#[test]
fn reclaim_races_the_owners_end() {
    check(2, || {
        let pool = Pool::new(&short_limits());
        let other = Arc::clone(&pool);
        let owner = spawn(move || {
            let held = [other.get(), other.get()];
            held.into_iter().for_each(|held| other.put(held));
            other.engine.trim();
        });
        let held = pool.get();
        owner.join().unwrap();
        pool.put(held);
        pool.assert_accounted(0);
    });
}
