//! Leases of one budget on several threads.

use super::{CLASS, Number, Pool, WEIGHT, check, ledger, limits, limits_without_caches, spawn};
use std::sync::Arc;

fn allow(items: usize) {
    ledger(|ledger| ledger.kept_max = items);
}

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

#[test]
fn lease_races_what_a_trim_gives_back() {
    check(6, || {
        allow(1);
        let mut limits = limits_without_caches();
        limits.classes[0].items = 1;
        let pool = Pool::new(&limits);
        assert_eq!(pool.engine.stock(CLASS, 1, Number::new), 1);
        super::went_in(0);
        pool.engine.trim();
        let held = super::Held {
            item: Number::new(),
            origin: crate::engine::Origin::NONE,
        };
        let other = Arc::clone(&pool);
        let trimmer = spawn(move || {
            other.engine.trim();
        });
        pool.put(held);
        trimmer.join().unwrap();
        pool.assert_accounted(0);
    });
}
