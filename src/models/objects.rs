//! Pools of objects: objects that the engine has freed are dropped later, by any thread, and by then
//! no thread holds a lock.

use super::{Number, alive, check, spawn};
use crate::ObjectPool;
use crate::sync::end_thread;

/// An object whose end uses its pool.
struct Member {
    _number: Number,
    pool: Option<ObjectPool<Member>>,
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.trim(); // waits for ever if a thread that drops an object holds the lock
        }
    }
}

fn member() -> Member {
    Member {
        _number: Number::new(),
        pool: None,
    }
}

fn pool() -> ObjectPool<Member> {
    let options = ObjectPool::builder(member).trim_interval(None);
    options.build().expect("the options are valid")
}

/// An idle object that uses its pool at its end.
fn stock(pool: &ObjectPool<Member>) {
    pool.get().pool = Some(pool.clone());
}

fn assert_balance(pool: &ObjectPool<Member>) {
    let stats = pool.stats();
    assert_eq!(stats.panics, 0, "{stats}");
    assert_eq!(stats.returns, stats.hits() + stats.trimmed + stats.idle);
}

#[test]
fn objects_ends_that_use_their_pool_race_a_clear() {
    check(2, || {
        let pool = pool();
        stock(&pool);
        let other = pool.clone();
        let clearer = spawn(move || _ = other.clear());
        pool.clear();
        clearer.join().unwrap();
        assert_balance(&pool);
        assert_eq!(alive(), 0, "one of the two has dropped it");
    });
}

#[test]
fn a_return_races_a_clear_that_drops() {
    check(2, || {
        let pool = pool();
        stock(&pool);
        let held = pool.get();
        let other = pool.clone();
        let clearer = spawn(move || _ = other.clear());
        drop(held);
        clearer.join().unwrap();
        assert_balance(&pool);
        pool.clear();
        assert_eq!(alive(), 0);
    });
}

// In the models below, `last` keeps the pool's memory alive until the threads are joined: the checker
// does not see the order that the counts of an `Arc` make.

#[test]
fn a_return_races_the_last_handle() {
    check(3, || {
        let pool = pool();
        let (held, last) = (pool.get(), pool.get());
        let closer = spawn(move || drop(pool));
        drop(held);
        closer.join().unwrap();
        assert_eq!(alive(), 1);
        drop(last);
        assert_eq!(alive(), 0);
    });
}

// By a thread that has let go of its caches, so that the object goes to the depot.
#[test]
fn a_loose_return_races_the_last_handle() {
    check(3, || {
        let pool = pool();
        let (held, last) = (pool.get(), pool.get());
        end_thread();
        let closer = spawn(move || drop(pool));
        drop(held);
        closer.join().unwrap();
        assert_eq!(alive(), 1);
        drop(last);
        assert_eq!(alive(), 0);
    });
}

#[test]
fn a_thread_that_ends_races_the_last_handle() {
    check(2, || {
        let pool = pool();
        let last = pool.get();
        let other = pool.clone();
        let user = spawn(move || {
            drop(other.get());
            drop(other);
        });
        drop(pool);
        user.join().unwrap();
        assert_eq!(alive(), 1);
        drop(last);
        assert_eq!(alive(), 0);
    });
}
