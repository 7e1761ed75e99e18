//! Closing an engine against guards that are dropped, and against claims.

use super::{
    CLASS, Handle, Number, Pool, check, limits, limits_of_whole_magazines, limits_without_caches,
    put_local, spawn, spawn_endless,
};
use crate::engine::{Item, Limits};
use std::sync::Arc;

fn close(pool: &Pool) {
    pool.engine.close(Item::free);
}

fn assert_empty(pool: &Pool) {
    assert_eq!(pool.idle(), 0, "a closed engine holds items");
    assert_eq!(super::alive(), 0);
}

// The thread has its caches before: `close_races_join` is about a new thread.
fn close_against_drop(limits: fn() -> Limits, puts: usize) {
    check(3, move || {
        let pool = Pool::new(&limits());
        let held: Vec<_> = (0..puts).map(|_| pool.get()).collect();
        let other = Arc::clone(&pool);
        let closer = spawn(move || close(&other));
        held.into_iter().for_each(|held| pool.put(held));
        closer.join().unwrap();
        assert_empty(&pool);
    });
}

// A thread that joins either has caches that `close` claims, or none.
#[test]
pub(super) fn close_races_join() {
    check(3, || {
        let pool = Pool::new(&limits());
        let other = Arc::clone(&pool);
        let closer = spawn(move || close(&other));
        let held = pool.get();
        pool.put(held);
        closer.join().unwrap();
        assert_empty(&pool);
    });
}

#[test]
fn close_races_drop_into_a_cache() {
    close_against_drop(limits, 1);
}

#[test]
pub(super) fn close_races_flush() {
    // A cache of one, so that the second goes to the depot as a magazine.
    let limits = || {
        let mut limits = limits();
        limits.classes[0].cache_rounds = 1;
        limits
    };
    close_against_drop(limits, 2);
}

#[test]
pub(super) fn close_races_drop_of_a_loose_item() {
    close_against_drop(limits_without_caches, 1);
}

#[test]
fn close_races_get() {
    check(6, || {
        let pool = Pool::stocked(&limits(), 2);
        let other = Arc::clone(&pool);
        let closer = spawn(move || close(&other));
        let held = pool.get();
        drop(held.item);
        closer.join().unwrap();
        assert_empty(&pool);
    });
}

// The item is the last thing that keeps the pool alive. Once it is in the cache, `close` may free
// it, and with it the cache that it was pushed to.
#[test]
fn end_of_the_pool_races_drop() {
    check(3, || {
        let pool = Handle(Pool::new(&limits()));
        let handle = pool.clone();
        // The cache has room, and one outstanding item keeps the pool alive.
        let held = handle.get();
        handle.put(held);
        let held = handle.get();
        held.item.keep_alive(handle);
        let closer = spawn_endless(move || {
            close(&pool);
            drop(pool);
        });
        if let Err(item) = put_local(held.item, held.origin) {
            let pool = item.take_pool().expect("given above");
            drop(pool.engine.put(CLASS, item));
        }
        closer.join().unwrap();
        assert_eq!(super::alive(), 0);
    });
}

#[test]
fn close_races_trim() {
    check(6, || {
        let pool = Pool::stocked(&limits(), 2);
        pool.engine.trim();
        let other = Arc::clone(&pool);
        let trimmer = spawn(move || {
            other.engine.trim();
        });
        close(&pool);
        trimmer.join().unwrap();
        assert_empty(&pool);
    });
}

fn close_against_thread_exit(limits: fn() -> Limits) {
    check(3, move || {
        let pool = Pool::new(&limits());
        let other = Arc::clone(&pool);
        let user = spawn(move || {
            let held = other.get();
            other.put(held);
        });
        close(&pool);
        user.join().unwrap();
        assert_empty(&pool);
    });
}

#[test]
fn close_races_thread_exit() {
    close_against_thread_exit(limits); // hands on a magazine
    close_against_thread_exit(limits_of_whole_magazines); // a loose item
}

// The rest of a magazine goes to a cache, which may be younger than the closing.
#[test]
fn close_races_refill() {
    check(3, || {
        let pool = Pool::new(&limits_of_whole_magazines());
        assert_eq!(pool.engine.stock(CLASS, 2, Number::new), 2);
        let other = Arc::clone(&pool);
        // A thread that does not end, as its end would empty that cache.
        let user = spawn_endless(move || drop(other.get().item));
        close(&pool);
        user.join().unwrap();
        assert_empty(&pool);
    });
}
