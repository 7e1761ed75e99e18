//! Leases of one budget on several threads.

use super::{
    CLASS, Held, Number, Pool, WEIGHT, allow, check, limits, limits_without_caches, spawn,
    spawn_endless, went_in,
};
use crate::engine::{Limits, Origin};
use std::sync::Arc;

#[test]
fn lease_races_lease_of_the_last_room() {
    check(6, || {
        allow(1);
        let mut limits = limits_without_caches();
        limits.weight = WEIGHT;
        let pool = Pool::new(&limits);
        let (one, two) = (pool.get(), pool.get());
        let other = Arc::clone(&pool);
        let second = spawn(move || other.put(two));
        pool.put(one);
        second.join().unwrap();
        assert_eq!(pool.idle(), 1, "there was room for one");
        pool.assert_accounted(0);
    });
}

#[test]
fn lease_races_lease_of_two_threads_caches() {
    check(6, || {
        allow(1);
        let mut limits = limits();
        limits.weight = WEIGHT;
        let pool = Pool::new(&limits);
        let held = pool.get();
        let other = Arc::clone(&pool);
        let second = spawn(move || {
            let held = other.get();
            other.put(held);
        });
        pool.put(held);
        second.join().unwrap();
        pool.assert_accounted(0);
    });
}

/// A trim frees the item that takes the last room. No item comes in before it is gone.
fn lease_against_trim(limits: &Limits) {
    let limits = limits.clone();
    check(6, move || {
        allow(1);
        let mut limits = limits.clone();
        limits.weight = WEIGHT;
        let pool = Pool::new(&limits);
        assert_eq!(pool.engine.stock(CLASS, 1, Number::new), 1);
        went_in(0);
        pool.engine.trim();
        put_against_trim(&pool);
    });
}

/// Puts an item on this thread while another one trims.
fn put_against_trim(pool: &Arc<Pool>) {
    let held = Held {
        item: Number::new(),
        origin: Origin::NONE,
    };
    let other = Arc::clone(pool);
    let trimmer = spawn(move || {
        other.engine.trim();
    });
    pool.put(held);
    trimmer.join().unwrap();
    pool.assert_accounted(0);
}

#[test]
fn lease_races_the_trim_of_a_loose_item() {
    lease_against_trim(&limits_without_caches());
}

#[test]
fn lease_races_the_trim_of_a_magazine() {
    lease_against_trim(&limits());
}

#[test]
fn lease_races_the_trim_of_a_cache() {
    check(3, || {
        allow(1);
        let mut limits = limits();
        limits.weight = WEIGHT;
        let pool = Pool::new(&limits);
        let other = Arc::clone(&pool);
        let first = spawn_endless(move || {
            let held = other.get();
            other.put(held);
        });
        first.join().unwrap();
        pool.engine.trim(); // the items that the other thread has cached rest from now on
        put_against_trim(&pool);
    });
}
