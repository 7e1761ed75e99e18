//! Exchanges of threads through a depot, against each other and against trims.

use super::{CLASS, Number, Pool, WEIGHT, check, limits, spawn};
use std::sync::Arc;

#[test]
fn flush_races_refill() {
    check(5, || {
        let pool = Pool::new(&limits());
        let held: Vec<_> = (0..3).map(|_| pool.get()).collect();
        let other = Arc::clone(&pool);
        let refiller = spawn(move || {
            let held = other.get();
            other.put(held);
        });
        held.into_iter().for_each(|held| pool.put(held)); // the third flushes the first
        refiller.join().unwrap();
        pool.assert_accounted(0);
    });
}

#[test]
fn trim_of_the_depot_races_refill() {
    check(6, || {
        let pool = Pool::new(&limits());
        assert_eq!(pool.engine.stock(CLASS, 2, Number::new), 2);
        pool.engine.trim(); // from now on both are not needed
        let other = Arc::clone(&pool);
        let trimmer = spawn(move || {
            other.engine.trim();
        });
        let held = pool.get();
        trimmer.join().unwrap();
        pool.assert_accounted(1);
        drop(held);
    });
}

#[test]
fn loose_items_race_trim() {
    check(3, || {
        let pool = Pool::new(&limits());
        let keep = |pool: &Pool| drop(pool.engine.put(CLASS, Number::of_weight(WEIGHT + 1)));
        keep(&pool);
        // It was needed: the depot was empty for a moment.
        assert_eq!(pool.engine.trim().items, 0);
        let other = Arc::clone(&pool);
        let trimmer = spawn(move || {
            let freed = other.engine.trim().items;
            assert!(freed <= 1, "freed an item that came after the last trim");
        });
        keep(&pool);
        let held = pool.get();
        trimmer.join().unwrap();
        pool.assert_accounted(1);
        drop(held);
    });
}
