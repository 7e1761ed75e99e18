//! Many threads at once, and many operations on one counter.
//!
//! The test of 2^32 operations takes half a minute with optimisation. Run it with `cargo test
//! --release --test scale -- --ignored`.

mod common {
    pub mod accounts;
    pub mod booking;
    pub mod live;
}

use bytes::BufMut;
use common::accounts::assert_accounts_balance;
use common::live::{self, live_bytes};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use tierpool::{Counts, Pool};

/// Whether each step costs microseconds. It does under Miri, and under valgrind, where
/// `scripts/sanitize.sh` sets `--cfg slow`.
const SLOW: bool = cfg!(any(miri, slow));

/// A thread whose allocations are counted, whichever thread frees them.
fn counted<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    // A small stack: there are many threads.
    live::counted(thread::Builder::new().stack_size(256 << 10), work)
}

fn total(pool: &Pool) -> Counts {
    pool.stats().total
}

// ---- threads ----

const THREADS: usize = if SLOW {
    48
} else if cfg!(target_pointer_width = "32") {
    1024 // their stacks need addresses
} else {
    4096
};
const CAPACITY: usize = 4096;

/// Where the threads and the test wait for each other.
struct Steps {
    pool: Pool,
    barrier: Barrier,
    /// How many threads have finished their work while the test checks.
    done: AtomicUsize,
}

fn one_of_many(steps: &Steps, number: usize) {
    let pool = &steps.pool;
    let stamp = number as u8;
    steps.barrier.wait(); // 0
    steps.barrier.wait(); // 1
    let mut held = pool.get(CAPACITY);
    held.put_bytes(stamp, CAPACITY);
    steps.barrier.wait(); // 2: each holds one
    steps.barrier.wait(); // 3
    assert!(held.iter().all(|&byte| byte == stamp), "two owners");
    drop(held);
    drop(pool.get(CAPACITY));
    steps.barrier.wait(); // 4: each caches one
    steps.barrier.wait(); // 5: trimmed
    for round in 0..if SLOW { 3 } else { 20 } {
        let len = [100, 4000, 10_000][(number + round) % 3];
        let mut buf = pool.get(1 + len / 2);
        buf.put_bytes(stamp, len);
        assert!(buf.iter().all(|&byte| byte == stamp), "two owners");
    }
    steps.done.fetch_add(1, Ordering::Relaxed);
    steps.barrier.wait(); // 6
}

#[test]
fn four_thousand_threads_use_one_pool_within_its_bounds_and_leave_nothing() {
    let work = || {
        let pool = Pool::builder().trim_interval(None).build().unwrap();
        let many = THREADS as u64;
        let steps = Arc::new(Steps {
            pool: pool.clone(),
            barrier: Barrier::new(THREADS + 1),
            done: AtomicUsize::new(0),
        });
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let steps = Arc::clone(&steps);
                counted(move || one_of_many(&steps, number))
            })
            .collect();
        steps.barrier.wait(); // 0: all have started, and not used the pool
        let before = live_bytes();
        steps.barrier.wait(); // 1
        steps.barrier.wait(); // 2
        let now = total(&pool);
        assert_eq!((now.outstanding, now.misses, now.gets), (many, many, many));
        // The bound of docs/memory.md: the bytes of each thread, a cell for each buffer, the queues
        // of one class, and up to 140 bytes in them for each buffer. (`before` includes the pool.)
        let beside = live_bytes() - before - (THREADS * CAPACITY) as i64;
        let bound = (THREADS * (10_700 + 64 + 140) + 6_100) as i64;
        assert!(beside <= bound, "{beside} bytes above {bound}");
        steps.barrier.wait(); // 3
        steps.barrier.wait(); // 4
        let now = total(&pool);
        assert_eq!((now.outstanding, now.retained_buffers), (0, many));
        assert_eq!((now.local_hits, now.misses), (many, many));
        assert_accounts_balance(&pool);
        // Each buffer was needed before this trim, and none after it.
        assert_eq!(pool.trim().buffers, 0);
        pool.recalibrate();
        // Two returns of each thread, so few that each is a sample.
        assert_eq!(pool.profile().calls(), 2 * many);
        assert_eq!(pool.trim().buffers, THREADS);
        assert_eq!(total(&pool).retained_bytes, 0);
        assert_accounts_balance(&pool);
        steps.barrier.wait(); // 5
        while steps.done.load(Ordering::Relaxed) < THREADS {
            pool.trim();
            let now = total(&pool);
            assert!(now.retained_bytes <= 64 << 20, "{now:?}");
            pool.recalibrate();
            pool.clear();
            thread::yield_now();
        }
        steps.barrier.wait(); // 6
        for thread in threads {
            thread.join().unwrap();
        }
        drop(steps);
        assert_eq!(total(&pool).outstanding, 0);
        assert_accounts_balance(&pool);
        // The caches of ended threads serve new ones. A new thread takes some more memory for
        // itself.
        let before = live_bytes();
        for _ in 0..10 {
            let pool = pool.clone();
            let thread = counted(move || drop(pool.get(CAPACITY)));
            thread.join().unwrap();
        }
        let grown = live_bytes() - before;
        assert!(grown < 2 * CAPACITY as i64, "{grown} bytes");
        pool.clear();
        assert_eq!(total(&pool).retained_buffers, 0);
        assert_accounts_balance(&pool);
    };
    counted(|| drop(Pool::default().get(1))).join().unwrap(); // allocates the process-wide data
    let before = live_bytes();
    counted(work).join().unwrap();
    assert_eq!(live_bytes(), before);
}

// ---- operations ----

/// A little more than 32 bits can count, and not a round number.
const OPERATIONS: u64 = if SLOW { 100_003 } else { (1 << 32) + 12_347 };

/// The most returns between two samples. Returns since the last sample are not counted yet.
const BETWEEN_SAMPLES: u64 = 95;

/// Gets and drops one buffer `OPERATIONS` times on this thread.
fn operate(pool: &Pool) {
    for _ in 0..OPERATIONS {
        pool.get(CAPACITY).put_u8(1);
    }
    let total = total(pool);
    let expected = (OPERATIONS, OPERATIONS, OPERATIONS - 1, 1);
    assert_eq!(
        (total.gets, total.returns, total.local_hits, total.misses),
        expected
    );
    assert_eq!((total.outstanding, total.retained_buffers), (0, 1));
    assert_accounts_balance(pool);
    let class = pool.stats().classes;
    let class = class.iter().find(|class| class.capacity == CAPACITY);
    assert_eq!(class.unwrap().counts, total, "all of it is of one class");
}

fn options() -> tierpool::Builder {
    Pool::builder().trim_interval(None).calibrate_interval(None)
}

#[test]
#[ignore = "half a minute with optimisation, an hour without"]
fn two_to_the_32_operations_are_counted_and_calibrated_throughout() {
    const AFTER: u64 = 42_000;
    let pool = options().calibrate_after(AFTER).build().unwrap();
    operate(&pool);
    // A calibration comes at the first sample after the 42,000th return since the last one.
    let at_each = AFTER + 1..=AFTER + 1 + BETWEEN_SAMPLES;
    let last = pool.profile().calls();
    assert!(at_each.contains(&last), "{last}");
    let made = pool.stats().calibrations;
    let possible = OPERATIONS / at_each.end()..=OPERATIONS / at_each.start();
    assert!(possible.contains(&made), "{made}");
    pool.recalibrate();
    assert_eq!(pool.targets().default_size, 64);
    // Calibrations go on.
    for _ in 0..=*at_each.end() {
        pool.get(CAPACITY).put_bytes(1, 1000);
    }
    let last = pool.profile().calls();
    assert!(at_each.contains(&last), "{last}");
    assert_eq!(pool.targets().default_size, 1024);
}

#[test]
#[ignore = "half a minute with optimisation, an hour without"]
fn one_calibration_counts_two_to_the_32_returns() {
    let pool = options().learn_sizes(false).build().unwrap();
    operate(&pool);
    assert_eq!(pool.profile().calls(), 0);
    pool.recalibrate();
    let calls = pool.profile().calls();
    assert!(
        (OPERATIONS - BETWEEN_SAMPLES..=OPERATIONS).contains(&calls),
        "{calls}"
    );
    assert_eq!(pool.targets().default_size, 64);
    // The next sample counts for the returns since the last one.
    (0..=BETWEEN_SAMPLES).for_each(|_| drop(pool.get(1)));
    pool.recalibrate();
    let all = calls + pool.profile().calls();
    let came = OPERATIONS + BETWEEN_SAMPLES + 1;
    assert!((came - BETWEEN_SAMPLES..=came).contains(&all), "{all}");
}
