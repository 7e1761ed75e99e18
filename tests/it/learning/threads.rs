//! The records of several threads come together: none is lost, and none counts twice.

use super::{
    BETWEEN_SAMPLES, Watch, attach, by_count, by_hand, calibrations, pure, untold, use_one,
};
use crate::rounds;
use bytes::{Buf, BufMut};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread::{self, ScopedJoinHandle};
use tierpool::{Pool, PooledBuf};

/// Waits for threads and their destructors, which move buffers. The end of a scope does not wait for
/// destructors.
fn join_all(threads: Vec<ScopedJoinHandle<'_, ()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Lets another thread calibrate during `work`. Returns how many returns all calibrations had
/// together.
fn while_calibrating(pool: &Pool, work: impl FnOnce()) -> u64 {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let calibrating = scope.spawn(|| {
            let (mut calls, mut watch) = (0, Watch::new());
            let mut calibrate = || {
                pool.recalibrate();
                calls += watch.next(pool).unwrap_or(0);
            };
            while !over.load(Ordering::Acquire) {
                calibrate();
            }
            calibrate(); // counts the last returns
            calls
        });
        work();
        over.store(true, Ordering::Release);
        calibrating.join().unwrap()
    })
}

// Failed once: a count that was read while it moved from one place to another became the new
// baseline, and the returns above it counted twice.
#[test]
fn calibrations_count_each_return_of_busy_threads_exactly_once() {
    const THREADS: usize = 4;
    const RETURNS: usize = rounds(60_000, 400);
    for threads in 1..=THREADS {
        let pool = by_hand();
        let sum = while_calibrating(&pool, || {
            thread::scope(|scope| {
                let threads = (0..threads).map(|thread| {
                    let pool = &pool;
                    scope.spawn(move || {
                        for at in 0..RETURNS {
                            // Mostly one size, and some others, so that few calibrations have no
                            // returns.
                            let len = if at % 7 == 0 {
                                100 << (thread % 3)
                            } else {
                                1000
                            };
                            use_one(pool, 1024, len);
                        }
                    })
                });
                join_all(threads.collect());
            });
        });
        // Except for the returns since each thread's last sample.
        let all = (threads * RETURNS) as u64;
        let least = all - threads as u64 * BETWEEN_SAMPLES;
        assert!(
            (least..=all).contains(&sum),
            "{sum} of {all}, {threads} threads"
        );
    }
}

#[test]
fn guards_that_end_on_another_thread_are_counted_once() {
    const THREADS: usize = 3;
    const RETURNS: usize = rounds(8000, 150);
    let pool = by_hand();
    let sum = while_calibrating(&pool, || {
        thread::scope(|scope| {
            let (sender, receiver) = mpsc::sync_channel::<PooledBuf>(16);
            let receiver = Arc::new(std::sync::Mutex::new(receiver));
            let mut threads = Vec::new();
            for _ in 0..THREADS {
                let (pool, sender) = (&pool, sender.clone());
                threads.push(scope.spawn(move || {
                    for at in 0..RETURNS {
                        let mut buf = pool.get(64 << (at % 5));
                        buf.put_bytes(7, at % 900);
                        sender.send(buf).unwrap();
                    }
                }));
                let receiver = Arc::clone(&receiver);
                threads.push(scope.spawn(move || {
                    attach(pool);
                    loop {
                        let received = receiver.lock().unwrap().recv();
                        let Ok(mut buf) = received else {
                            return;
                        };
                        let half = buf.len() / 2;
                        buf.advance(half);
                    }
                }));
            }
            drop(sender);
            join_all(threads);
        });
    });
    // All of them, since none takes the fast path.
    assert_eq!(sum, (THREADS * RETURNS) as u64);
}

#[test]
fn heirs_of_ended_threads_continue_their_counts() {
    const THRESHOLD: u64 = 1000;
    // If an heir does not find the earlier thread's caches, there are two cache sets.
    let late = 2 * BETWEEN_SAMPLES + untold(THRESHOLD);
    let pool = by_count(THRESHOLD).build().unwrap();
    let mut watch = Watch::new();
    let mut returns = 0_u64;
    // One after another: each inherits the caches of the thread before.
    for thread in 0..rounds(200, 20) {
        let uses = [1, 99, 255, 256, 257, 600][thread % 6];
        let run = || {
            for _ in 0..uses {
                use_one(&pool, 1000, 1000);
                returns += 1;
                if let Some(made) = watch.next(&pool) {
                    assert!(made > THRESHOLD, "{thread}: early, {made}");
                    // The other returns wait for the next sample. None is lost, and none counts
                    // twice.
                    assert!(made <= returns, "{thread}: {made} of {returns}");
                    returns -= made;
                }
                assert!(returns <= THRESHOLD + late, "{thread}: late, {returns}");
            }
        };
        thread::scope(|scope| scope.spawn(run).join().unwrap());
    }
    assert!(calibrations(&pool) > 0);
}

#[test]
fn a_calibration_by_count_has_the_returns_of_all_threads() {
    const THREADS: u64 = 5;
    const EACH: u64 = 150;
    const THRESHOLD: u64 = 2000;
    let pool = by_count(THRESHOLD).build().unwrap();
    let start = Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        let threads = (0..THREADS).map(|_| {
            scope.spawn(|| {
                start.wait();
                (0..EACH).for_each(|_| use_one(&pool, 1000, 1000));
                start.wait(); // no thread inherits a cache
            })
        });
        join_all(threads.collect());
    });
    assert_eq!(calibrations(&pool), 0);
    // This thread alone reaches the threshold, with the returns that the others have told.
    let late = (1 + THREADS) * BETWEEN_SAMPLES + THREADS * untold(THRESHOLD);
    let mut returns = THREADS * EACH;
    while calibrations(&pool) == 0 {
        use_one(&pool, 1000, 1000);
        returns += 1;
        assert!(returns <= THRESHOLD + late, "late");
    }
    assert!(returns > THRESHOLD, "early: {returns}");
    // Told or not, except for the returns since each thread's last sample.
    let calls = pool.profile().calls();
    let least = returns - THREADS * BETWEEN_SAMPLES;
    assert!((least..=returns).contains(&calls), "{calls} of {returns}");
}

#[test]
fn returns_in_thread_local_destructors_are_counted() {
    struct AtExit {
        pool: Pool,
        guards: Vec<PooledBuf>,
    }
    impl Drop for AtExit {
        fn drop(&mut self) {
            self.guards.pop();
            use_one(&self.pool, 1000, 5000);
        }
    }
    thread_local! {
        static BEFORE: RefCell<Option<AtExit>> = const { RefCell::new(None) };
        static AFTER: RefCell<Option<AtExit>> = const { RefCell::new(None) };
    }
    let pool = by_hand();
    let held = |pool: &Pool| AtExit {
        pool: pool.clone(),
        guards: (0..3).map(|_| pool.get(100)).collect(),
    };
    for threads in 1..=3 {
        thread::scope(|scope| {
            let run = scope.spawn(|| {
                BEFORE.with(|_| ()); // registered before the thread has a cache
                use_one(&pool, 1000, 5000);
                BEFORE.with(|at_exit| *at_exit.borrow_mut() = Some(held(&pool)));
                AFTER.with(|at_exit| *at_exit.borrow_mut() = Some(held(&pool)));
            });
            run.join().unwrap();
        });
        // One here, and in each destructor one more and three empty ones. In one of the
        // destructors, the thread no longer has caches.
        let made = pool.recalibrate();
        assert_eq!(pool.profile().calls(), 1 + 2 * (1 + 3), "{threads}");
        assert_eq!(made, pure([0, 0, 0, 0, 0, 0, 5000, 5000, 5000]));
    }
}

#[test]
fn calibrations_from_many_threads_at_once_leave_consistent_targets() {
    const THREADS: usize = 4;
    let pool = by_count(20).build().unwrap();
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (pool, start) = (&pool, &start);
            scope.spawn(move || {
                start.wait();
                for at in 0..rounds(3000, 60) {
                    let len = 100 << ((at + thread) % 8);
                    use_one(pool, len, len);
                    let now = match at % 5 {
                        0 => pool.recalibrate(),
                        _ => pool.targets(),
                    };
                    assert!(now.default_size <= now.max_size);
                    let default = pool.get_default();
                    assert!(default.capacity() >= 64);
                }
            });
        }
    });
    // Counts the remaining returns. None counts twice.
    pool.recalibrate();
    let (made, targets) = (calibrations(&pool), pool.targets());
    assert_eq!(pool.recalibrate(), targets);
    assert_eq!(calibrations(&pool), made);
}

#[test]
fn guards_that_outlive_their_pool_do_not_calibrate_it() {
    let pool = by_count(0).build().unwrap();
    let mut held: Vec<PooledBuf> = (0..20).map(|_| pool.get(100)).collect();
    use_one(&pool, 100, 100);
    drop(pool);
    let elsewhere = held.split_off(10);
    for mut buf in held {
        buf.put_bytes(7, 100_000); // grows, by the targets that the pool had
        buf.advance(10);
    }
    thread::spawn(move || drop(elsewhere)).join().unwrap();
}
