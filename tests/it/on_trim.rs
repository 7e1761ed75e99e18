//! The program's hook after a trim: when it is called, its argument, and the calls that it may
//! make.

use crate::common::wait::wait_until;
use crate::{assert_accounts_balance, total};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;
use tierpool::{Builder, Freed, Pool};

const CAPACITY: usize = 4096;

fn builder() -> Builder {
    Pool::builder().classes([CAPACITY]).trim_interval(None)
}

fn burst(pool: &Pool, buffers: usize) {
    drop((0..buffers).map(|_| pool.get(1)).collect::<Vec<_>>());
}

/// A pool that records the arguments of its hook.
fn noting(builder: Builder) -> (Pool, Arc<Mutex<Vec<Freed>>>) {
    let noted = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&noted);
    let pool = builder.on_trim(move |freed| to.lock().unwrap().push(freed));
    (pool.build().unwrap(), noted)
}

#[test]
fn the_hook_receives_the_buffers_and_bytes_that_a_trim_or_a_clear_freed() {
    let (pool, noted) = noting(builder());
    let take = || std::mem::take(&mut *noted.lock().unwrap());
    pool.trim();
    pool.clear();
    assert_eq!(take(), [], "there was nothing to free");
    burst(&pool, 10);
    pool.trim();
    assert_eq!(take(), [], "all were needed");
    let freed = pool.trim();
    assert_eq!((freed.buffers, freed.bytes), (10, 10 * CAPACITY));
    assert_eq!(take(), [freed]);
    burst(&pool, 3);
    let freed = pool.clear();
    assert_eq!(freed.buffers, 3);
    assert_eq!(take(), [freed]);
}

#[test]
fn the_hook_is_not_called_by_gets_and_drops_nor_by_the_last_handle() {
    let (pool, noted) = noting(builder().trim_interval(Duration::from_millis(1)));
    burst(&pool, 10);
    wait_until("a trim by gets and drops", || {
        burst(&pool, 1);
        // Adopted buffers always leave the fast path.
        drop(pool.adopt(bytes::BytesMut::with_capacity(2 * CAPACITY)));
        total(&pool).trimmed > 0
    });
    drop(pool);
    assert_eq!(*noted.lock().unwrap(), []);
}

#[test]
fn the_hook_is_called_by_the_thread_that_trims() {
    let interval = Duration::from_millis(1);
    let (pool, noted) = noting(builder().release_when_idle(interval));
    burst(&pool, 10);
    let freed = || -> usize { noted.lock().unwrap().iter().map(|f| f.buffers).sum() };
    wait_until("all are freed", || freed() == 10);
    assert_eq!(total(&pool).trimmed, 10);
}

// If a lock were held or a cache claimed, this test would hang.
#[test]
fn the_hook_may_use_the_pool() {
    let own = Arc::new(OnceLock::<Pool>::new());
    let calls = Arc::new(AtomicUsize::new(0));
    // Weak: a hook that owns its own pool keeps that pool alive.
    let (of_hook, counted) = (Arc::downgrade(&own), Arc::clone(&calls));
    let hook = move |freed: Freed| {
        let own = of_hook.upgrade().unwrap();
        let pool = own.get().unwrap();
        let misses = total(pool).misses;
        burst(pool, 3);
        assert_eq!(total(pool).misses, misses + 3, "all were freed");
        // The same on another thread.
        thread::scope(|scope| {
            scope.spawn(|| burst(pool, 2)).join().unwrap();
        });
        if counted.fetch_add(1, Ordering::Relaxed) < 5 {
            assert!(freed.buffers > 0);
            assert!(pool.clear().buffers >= 3); // which calls this hook again
        }
        drop((pool.trim(), pool.clone(), pool.stats()));
        drop(builder().background_trim(false).build().unwrap());
    };
    own.set(builder().on_trim(hook).build().unwrap()).unwrap();
    burst(own.get().unwrap(), 10);
    assert_eq!(own.get().unwrap().clear().buffers, 10);
    assert!(calls.load(Ordering::Relaxed) >= 6);
    assert_accounts_balance(own.get().unwrap());
}

#[test]
fn a_panic_of_the_hook_reaches_the_caller_of_trim_or_clear_and_the_pool_goes_on() {
    let pool = builder().on_trim(|_| panic!("the hook's")).build().unwrap();
    for free in [Pool::clear, |pool: &Pool| {
        pool.trim();
        pool.trim()
    }] {
        burst(&pool, 10);
        let thrown = panic::catch_unwind(|| free(&pool)).unwrap_err();
        assert_eq!(thrown.downcast_ref(), Some(&"the hook's"));
        assert_eq!(total(&pool).retained_buffers, 0, "all was freed before");
        assert_accounts_balance(&pool);
    }
}

/// Panics again when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic::resume_unwind(Box::new(())); // without a size, since no code can drop it
    }
}

#[test]
fn a_panic_of_the_hook_ends_no_pools_trims() {
    let interval = Duration::from_millis(1);
    let builder = || builder().release_when_idle(interval);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let panics = builder().on_trim(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        panic::panic_any(Bomb);
    });
    let pools = [builder(), panics, builder()].map(|builder| builder.build().unwrap());
    for round in 1..=3 {
        for pool in &pools {
            burst(pool, 10);
        }
        for pool in &pools {
            wait_until("all is freed", || total(pool).retained_buffers == 0);
        }
        wait_until("the hook", || calls.load(Ordering::Relaxed) >= round);
    }
}

#[test]
fn the_hook_is_dropped_with_its_pool_and_its_builder_is_debug_and_clone() {
    let owned = Arc::new(());
    let held = Arc::clone(&owned);
    let builder = builder().on_trim(move |_| drop(Arc::clone(&held)));
    let text = format!("{builder:?}");
    assert!(text.contains("on_trim: Some(Fn(Freed))"), "{text}");
    let pools = [builder.clone(), builder].map(|builder| builder.build().unwrap());
    assert_eq!(Arc::strong_count(&owned), 2);
    drop(panic::catch_unwind(AssertUnwindSafe(|| drop(pools))));
    assert_eq!(Arc::strong_count(&owned), 1);
}
