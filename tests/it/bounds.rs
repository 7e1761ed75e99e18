//! How much a pool retains, whatever buffers come back to it.

use crate::{assert_accounts_balance, class, options, rounds, total};
use bytes::BytesMut;
use std::sync::{Arc, Barrier};
use std::thread;
use tierpool::PooledBuf;

// Failed once: 32 adopted buffers of almost 1 GiB stayed in the 512-byte class.
#[test]
fn buffers_far_above_their_class_count_by_their_bytes_and_not_by_their_class() {
    const LARGE: usize = 1 << 20;
    const BUDGET: usize = 8 * LARGE;
    let pool = options(&[512, LARGE]).retain_bytes(BUDGET).build().unwrap();
    let adopted: Vec<PooledBuf> = (0..40)
        .map(|_| pool.adopt(BytesMut::with_capacity(LARGE - 1)))
        .collect();
    drop(adopted);
    let after = class(&pool, 512);
    assert_eq!((after.retained_buffers, after.discards.full), (8, 32));
    assert_eq!(after.retained_bytes, 8 * (LARGE as u64 - 1));
    // The rest of the budget is smaller than a buffer of the smallest class.
    drop(pool.adopt(BytesMut::with_capacity(512)));
    assert_eq!(class(&pool, 512).discards.full, 33);
    assert_eq!(pool.clear().buffers, 8);

    let grown: Vec<PooledBuf> = (0..90)
        .map(|_| {
            let mut buf = pool.get(1);
            (*buf).reserve(100_000); // on the heap
            buf
        })
        .collect();
    let most = BUDGET / grown[0].capacity();
    drop(grown);
    let after = class(&pool, 512);
    assert_eq!(after.retained_buffers as usize, most.min(90));
    assert!(after.retained_bytes <= BUDGET as u64, "{after:?}");
    assert_accounts_balance(&pool);
}

// Failed once: each ending thread left a magazine with a single buffer in the depot, and 128 of
// them filled it.
#[test]
fn short_threads_that_each_cache_a_buffer_do_not_fill_the_depot() {
    const THREADS: usize = if crate::SLOW { 4 } else { 128 };
    const HELD: usize = if crate::SLOW { 200 } else { 2000 };
    // The budget has room for these buffers and no more.
    let pool = options(&[512])
        .retain_bytes(512 * (HELD + THREADS))
        .build()
        .unwrap();
    let held: Vec<PooledBuf> = (0..HELD).map(|_| pool.get(1)).collect();
    let all_have_one = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (pool, all_have_one) = (pool.clone(), Arc::clone(&all_have_one));
            thread::spawn(move || {
                let buf = pool.get(1);
                all_have_one.wait();
                drop(buf);
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap(); // a scope would not wait for the destructors
    }
    drop(held);
    let after = total(&pool);
    assert_eq!(after.discards.total(), 0, "{after:?}");
    assert_eq!(after.retained_buffers as usize, HELD + THREADS);
}

#[test]
fn all_threads_and_classes_share_one_budget() {
    const THREADS: usize = 3;
    const CLASSES: [usize; 3] = [512, 4096, 65_536];
    const BUDGET: usize = 200_000;
    let pool = options(&CLASSES).retain_bytes(BUDGET).build().unwrap();
    let step = Arc::new(Barrier::new(THREADS + 1));
    let threads: Vec<_> = (0..THREADS)
        .map(|at| {
            let (pool, step) = (pool.clone(), Arc::clone(&step));
            thread::spawn(move || {
                for round in 0..rounds(50, 12) {
                    let capacity = CLASSES[(at + round) % CLASSES.len()];
                    let held: Vec<PooledBuf> = (0..70).map(|_| pool.get(capacity)).collect();
                    step.wait();
                    drop(held); // all threads at once
                    step.wait();
                    step.wait(); // the test has checked
                }
            })
        })
        .collect();
    for _ in 0..rounds(50, 12) {
        step.wait();
        step.wait();
        let stats = pool.stats();
        // Not the total, which never shows more than the leased bytes.
        let retained = stats
            .classes
            .iter()
            .map(|class| class.counts.retained_bytes);
        assert!(retained.sum::<u64>() <= BUDGET as u64, "{stats}");
        assert_accounts_balance(&pool);
        step.wait();
    }
    for thread in threads {
        thread.join().unwrap();
    }
    let after = total(&pool);
    assert!(after.discards.full > 0 && after.hits() > 0, "{after:?}");
}

#[test]
fn no_class_keeps_more_buffers_than_its_limit_on_all_levels_together() {
    let pool = options(&[512, 2048]).max_per_class(10).build().unwrap();
    // Of these buffers, 5 are loose and 5 are cached here. There is no room for others.
    let longer: Vec<PooledBuf> = (0..5)
        .map(|_| pool.adopt(BytesMut::with_capacity(700)))
        .collect();
    drop(longer);
    let held: Vec<PooledBuf> = (0..30).map(|_| pool.get(512)).collect();
    drop(held);
    let elsewhere = pool.clone();
    thread::spawn(move || {
        let held: Vec<PooledBuf> = (0..30).map(|_| elsewhere.get(2048)).collect();
        drop(held);
        drop(elsewhere.adopt(BytesMut::with_capacity(512)));
    })
    .join()
    .unwrap();
    for (capacity, bytes, full) in [(512, 5 * 700 + 5 * 512, 21), (2048, 10 * 2048, 20)] {
        let counts = class(&pool, capacity);
        assert_eq!(
            (counts.retained_buffers, counts.retained_bytes),
            (10, bytes)
        );
        assert_eq!(counts.discards.full, full);
    }
    assert_accounts_balance(&pool);
}

#[test]
fn a_threads_caches_keep_thread_cache_bytes_together_and_flush_the_rest() {
    const CACHED: usize = 8 * 512;
    for (first, second) in [(512, 1024), (1024, 512)] {
        let pool = options(&[512, 1024])
            .thread_cache_bytes(CACHED)
            .build()
            .unwrap();
        for capacity in [first, second] {
            let held: Vec<PooledBuf> = (0..40).map(|_| pool.get(capacity)).collect();
            drop(held);
        }
        assert_eq!(total(&pool).retained_buffers, 80);
        // Another thread gets all buffers of the depot, and none of this thread's.
        let other = pool.clone();
        thread::spawn(move || {
            for capacity in [first, second] {
                while class(&other, capacity).misses == 40 {
                    drop(other.get(capacity).detach());
                }
            }
        })
        .join()
        .unwrap();
        let after = total(&pool);
        assert_eq!(after.retained_bytes, CACHED as u64);
        assert_eq!(
            class(&pool, second).retained_buffers,
            0,
            "the first class has all of it"
        );
        assert_eq!((after.discards.total(), after.trimmed), (0, 0));
        assert_accounts_balance(&pool);
    }
}
