//! Claims against the cache's owner, against readers of its counts, and against claims.

use super::{
    Begun, CLASS, Held, Number, Pool, check, limits, limits_of_whole_magazines, put_local, spawn,
    went_in,
};
use crate::engine::Freed;
use crate::sync::set_light_is_a_fence;
use std::sync::Arc;

type Claim = fn(&Pool) -> Freed;

/// The calls that claim a cache, and whether a trim comes before, so that its items rest.
const CLAIMS: [(Claim, bool); 3] = [(clear, false), (trim, false), (trim, true)];

fn trim(pool: &Pool) -> Freed {
    pool.engine.trim()
}

fn clear(pool: &Pool) -> Freed {
    pool.engine.clear()
}

fn get_against_claims(preemptions: usize, get: fn(&Pool) -> Option<Held>) {
    for (claim, resting) in CLAIMS {
        check(preemptions, move || {
            let pool = Pool::stocked(&limits(), 2);
            if resting {
                trim(&pool);
            }
            let other = Arc::clone(&pool);
            let claimer = spawn(move || {
                claim(&other);
            });
            let held = get(&pool);
            claimer.join().unwrap();
            pool.assert_accounted(usize::from(held.is_some()));
            drop(held);
        });
    }
}

/// The fast path of a get.
fn pop(pool: &Pool) -> Option<Held> {
    let (item, origin) = pool.engine.get_local(CLASS)?;
    item.came_out();
    Some(Held { item, origin })
}

#[test]
pub(super) fn claim_races_get() {
    get_against_claims(5, pop);
}

#[test]
fn claim_races_get_without_a_light_barrier() {
    set_light_is_a_fence(false);
    get_against_claims(4, pop);
}

// 2: a load there may return one of many old values, and loom tries each of them.
#[test]
fn claim_races_the_slow_path_of_a_get() {
    get_against_claims(2, |pool| Some(pool.get()));
}

/// The fast path of a drop. An item that finds no room is freed.
fn push(held: Held) {
    let number = held.item.0.number;
    if put_local(held.item, held.origin).is_ok() {
        went_in(number);
    }
}

fn drop_against_claims(preemptions: usize, drop: fn(&Pool, Held)) {
    for (claim, resting) in CLAIMS {
        check(preemptions, move || {
            let pool = Pool::stocked(&limits(), 2);
            if resting {
                trim(&pool);
            }
            let held = pool.get();
            let other = Arc::clone(&pool);
            let claimer = spawn(move || {
                claim(&other);
            });
            drop(&pool, held);
            claimer.join().unwrap();
            pool.assert_accounted(0);
            pool.assert_room_for_two();
        });
    }
}

#[test]
pub(super) fn claim_races_drop() {
    drop_against_claims(6, |_, held| push(held));
}

#[test]
fn claim_races_drop_without_a_light_barrier() {
    set_light_is_a_fence(false);
    drop_against_claims(6, |_, held| push(held));
}

// 2: as above.
#[test]
fn claim_races_the_slow_path_of_a_drop() {
    drop_against_claims(2, Pool::put);
}

// The owner comes in again after a claim: it must see the claimer's writes.
fn end_of_claims_against_get_and_drop(preemptions: usize) {
    for (claim, _) in CLAIMS {
        check(preemptions, move || {
            let pool = Pool::stocked(&limits(), 2);
            let other = Arc::clone(&pool);
            let claimer = spawn(move || {
                claim(&other);
            });
            for _ in 0..2 {
                if let Some(held) = pop(&pool) {
                    push(held);
                }
            }
            claimer.join().unwrap();
            pool.assert_accounted(0);
        });
    }
}

#[test]
pub(super) fn end_of_a_claim_races_get_and_drop() {
    end_of_claims_against_get_and_drop(4);
}

#[test]
pub(super) fn end_of_a_claim_races_get_and_drop_without_a_light_barrier() {
    set_light_is_a_fence(false);
    end_of_claims_against_get_and_drop(3);
}

// 1: as above.
#[test]
fn claim_races_refill() {
    for claim in [clear, trim] {
        check(1, move || {
            let pool = Pool::stocked(&limits_of_whole_magazines(), 1);
            let one = pool.get();
            // The cache has room for one item; a magazine brings two.
            assert_eq!(pool.engine.stock(CLASS, 2, Number::new), 2);
            let other = Arc::clone(&pool);
            let claimer = spawn(move || {
                claim(&other);
            });
            let two = pool.get();
            claimer.join().unwrap();
            pool.assert_accounted(2);
            pool.assert_room_for_two();
            drop((one, two));
        });
    }
}

// An unneeded item is freed once, whichever thread finds it.
#[test]
fn trim_races_trim() {
    check(6, || {
        let pool = Pool::stocked(&limits(), 2);
        assert_eq!(trim(&pool).items, 0);
        let other = Arc::clone(&pool);
        let trimmer = spawn(move || {
            trim(&other);
        });
        trim(&pool);
        trimmer.join().unwrap();
        assert_eq!(pool.engine.trimmed(CLASS), 2);
        pool.assert_accounted(0);
    });
}

#[test]
fn trim_races_clear() {
    check(6, || {
        let pool = Pool::stocked(&limits(), 2);
        trim(&pool);
        let other = Arc::clone(&pool);
        let trimmer = spawn(move || {
            trim(&other);
        });
        clear(&pool);
        trimmer.join().unwrap();
        pool.assert_accounted(0);
    });
}

// 2: enough to see two claims at once, and soon.
#[test]
fn trim_on_the_slow_path_races_clear() {
    check(2, || {
        let mut limits = limits();
        limits.weight = super::WEIGHT; // one item's
        let pool = Pool::new(&limits);
        let (one, refused) = (pool.get(), pool.get());
        pool.put(one);
        pool.put(refused);
        // The second miss is one that a larger budget would have avoided: a trim is due.
        let (one, missed) = (pool.get(), pool.get());
        pool.put(one);
        let other = Arc::clone(&pool);
        let clearer = spawn(move || {
            clear(&other);
        });
        let again = pool.get();
        let trims = pool.get();
        clearer.join().unwrap();
        pool.put(again);
        pool.assert_accounted(2);
        drop((missed, trims));
    });
}

// An item that another thread frees or puts to rest is no hit.
#[test]
pub(super) fn stats_race_claim() {
    for (claim, resting) in CLAIMS {
        check(4, move || {
            let pool = Pool::stocked(&limits(), 2);
            if resting {
                trim(&pool);
            }
            let other = Arc::clone(&pool);
            let claimer = spawn(move || {
                claim(&other);
            });
            let levels = pool.engine.levels(CLASS);
            assert_eq!(levels.local_hits, 0, "more hits than there were");
            // An item that is put to rest meanwhile may be counted in both places.
            assert!(levels.idle_items <= 4, "more idle items than can be");
            claimer.join().unwrap();
            assert_eq!(pool.engine.levels(CLASS).local_hits, 0);
            pool.assert_accounted(0);
        });
    }
}

#[test]
fn stats_race_refill_and_flush() {
    check(3, || {
        let pool = Pool::new(&limits_of_whole_magazines());
        assert_eq!(pool.engine.stock(CLASS, 2, Number::new), 2);
        let (hits, other) = (Begun::new(), Arc::clone(&pool));
        let begun = hits.clone();
        let user = spawn(move || {
            let one = other.get();
            begun.one_more(); // the item that came along
            let held = [one, other.get(), other.get()];
            held.into_iter().for_each(|held| other.put(held)); // the third flushes two
        });
        let levels = pool.engine.levels(CLASS);
        assert!(
            levels.local_hits <= hits.now() as u64,
            "more hits than there were"
        );
        assert!(levels.depot_hits <= 1, "more hits than there were");
        user.join().unwrap();
        let levels = pool.engine.levels(CLASS);
        assert_eq!((levels.local_hits, levels.depot_hits), (1, 1));
        pool.assert_accounted(0);
    });
}

#[test]
pub(super) fn stats_race_get_and_drop() {
    check(4, || {
        let pool = Pool::stocked(&limits(), 1);
        let other = Arc::clone(&pool);
        let user = spawn(move || {
            let held = other.get(); // this thread's first: no local hit
            other.put(held);
            let held = other.get(); // one local hit
            other.put(held);
        });
        let mut shown = 0;
        for _ in 0..2 {
            let levels = pool.engine.levels(CLASS);
            assert!(levels.local_hits >= shown, "a count fell");
            assert!(levels.local_hits <= 1, "more hits than there were");
            assert!(levels.idle_items <= 2, "more idle items than there are");
            shown = levels.local_hits;
        }
        user.join().unwrap();
        assert_eq!(pool.engine.levels(CLASS).local_hits, 1);
        pool.assert_accounted(0);
    });
}
