//! `set_retain_bytes`: a budget that changes while the pool is used.

use crate::{assert_accounts_balance, class, options, rounds, total};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;
use tierpool::{ConfigError, Pool, PooledBuf};

const CAPACITY: usize = 1024;

fn burst(pool: &Pool, size: usize, count: usize) {
    let held: Vec<PooledBuf> = (0..count).map(|_| pool.get(size)).collect();
    drop(held);
}

#[test]
fn a_lower_budget_frees_idle_buffers_on_all_levels_at_once() {
    for cached in [usize::MAX, 0] {
        let builder = options(&[CAPACITY, 4096]).thread_cache_bytes(cached);
        let pool = builder.build().unwrap();
        burst(&pool, CAPACITY, 200);
        burst(&pool, 4096, 50);
        // In the caches of another thread, which sleeps.
        let (full, over) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let other = thread::spawn({
            let (pool, full, over) = (pool.clone(), full.clone(), over.clone());
            move || {
                burst(&pool, CAPACITY, 300);
                full.wait();
                over.wait();
            }
        });
        full.wait();
        let before = total(&pool);
        let freed = pool.set_retain_bytes(100_000).unwrap();
        let after = total(&pool);
        assert!(after.retained_bytes <= 100_000);
        assert!(after.retained_bytes > 100_000 - 4096, "no more than needed");
        assert_eq!(
            before.retained_bytes - after.retained_bytes,
            freed.bytes as u64
        );
        assert_eq!(after.trimmed, freed.buffers as u64);
        assert_eq!(pool.stats().budget_bytes, 100_000);
        over.wait();
        other.join().unwrap();
        assert_accounts_balance(&pool);
    }
}

#[test]
fn buffers_that_are_out_are_freed_when_they_come_back() {
    let pool = options(&[CAPACITY]).build().unwrap();
    let held: Vec<PooledBuf> = (0..100).map(|_| pool.get(CAPACITY)).collect();
    let freed = pool.set_retain_bytes(10 * CAPACITY).unwrap();
    assert_eq!(freed.buffers, 0);
    drop(held);
    let counts = total(&pool);
    assert_eq!((counts.retained_buffers, counts.discards.full), (10, 90));
    // And with a budget of nothing, all.
    let held: Vec<PooledBuf> = (0..10).map(|_| pool.get(CAPACITY)).collect();
    pool.set_retain_bytes(0).unwrap();
    drop(held);
    assert_eq!(total(&pool).retained_buffers, 0);
    burst(&pool, CAPACITY, 5);
    assert_eq!(total(&pool).retained_buffers, 0);
    // It keeps buffers again.
    pool.set_retain_bytes(usize::MAX).unwrap();
    burst(&pool, CAPACITY, 500);
    assert_eq!(total(&pool).retained_buffers, 500);
    assert_eq!(pool.set_retain_bytes(5 * CAPACITY).unwrap().buffers, 495);
    assert_accounts_balance(&pool);
}

#[test]
fn a_pool_without_a_budget_can_get_one() {
    let pool = options(&[CAPACITY])
        .retain_bytes(usize::MAX)
        .build()
        .unwrap();
    burst(&pool, CAPACITY, 500);
    let other = pool.clone();
    thread::spawn(move || burst(&other, CAPACITY, 600))
        .join()
        .unwrap();
    pool.set_retain_bytes(50 * CAPACITY).unwrap();
    assert_eq!(total(&pool).retained_buffers, 50);
    burst(&pool, CAPACITY, 100);
    assert_eq!(total(&pool).retained_buffers, 50);
    pool.clear();
    assert_accounts_balance(&pool);
}

#[test]
fn buffers_that_are_kept_idle_stay_and_errors_leave_the_budget() {
    let pool = options(&[CAPACITY, 4096])
        .keep_idle(4096, 10)
        .build()
        .unwrap();
    burst(&pool, CAPACITY, 100);
    let error = pool.set_retain_bytes(10 * 4096 - 1).unwrap_err();
    assert!(matches!(error, ConfigError::KeepIdleAboveRetain { .. }));
    assert_eq!(
        error.to_string(),
        "keep_idle (40 KiB in all) is above retain_bytes (40959 bytes): the budget holds no more; \
         raise retain_bytes to 40 KiB or more, or keep fewer buffers idle"
    );
    assert!(pool.set_retain_bytes(0).is_err());
    assert_eq!(pool.stats().budget_bytes, 64 << 20);
    assert_eq!(pool.set_retain_bytes(10 * 4096).unwrap().buffers, 100);
    assert_eq!(class(&pool, 4096).retained_buffers, 10);

    let pool = options(&[CAPACITY, 4096]).build().unwrap();
    let error = pool.set_retain_bytes(4095).unwrap_err();
    assert!(matches!(
        error,
        ConfigError::RetainBelowLargest { largest: 4096, .. }
    ));
    assert_eq!(pool.stats().budget_bytes, 64 << 20);
    assert!(pool.set_retain_bytes(4096).is_ok());
}

/// Calls its function when it is dropped.
struct AtEnd<F: FnMut()>(F);

impl<F: FnMut()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn a_budget_that_changes_under_busy_threads_holds_after_each_change() {
    const THREADS: usize = 4;
    let pool = options(&[CAPACITY, 4096]).build().unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|at| {
                let (pool, over) = (&pool, &over);
                scope.spawn(move || {
                    let mut count = at;
                    while !over.load(Ordering::Relaxed) {
                        count = (count * 7 + 3) % 90;
                        burst(pool, if count % 3 == 0 { 4096 } else { CAPACITY }, count);
                    }
                })
            })
            .collect();
        let end = AtEnd(|| over.store(true, Ordering::Relaxed)); // also after a failure
        for round in 0..rounds(300, 5) {
            let budget = [400_000, 50_000, 0, 8192, usize::MAX][round % 5];
            pool.set_retain_bytes(budget).unwrap();
            // A buffer that was being stored meanwhile is freed by the next get that misses.
            let is_above = || total(&pool).retained_bytes > budget as u64;
            let mut looks = 0;
            while is_above() {
                looks += 1;
                assert!(looks < 60_000, "above {budget} in round {round}");
                thread::sleep(Duration::from_millis(1));
            }
        }
        drop(end);
        // Joined, so that the destructors of their caches have run.
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
    pool.set_retain_bytes(0).unwrap();
    assert_eq!(total(&pool).retained_buffers, 0);
    assert_accounts_balance(&pool);
}
