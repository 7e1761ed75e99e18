//! The one thread that trims all pools of the process.
//!
//! A separate program, since the pools of other tests would share the thread. One test runs at a
//! time.

#![cfg(not(miri))]

mod common {
    pub mod wait;
}

use common::wait::wait_until;
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tierpool::{Builder, Pool};

const CAPACITY: usize = 4096;
const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(1);

fn alone(test: impl FnOnce()) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    wait_until("none is left of another test", || {
        threads().unwrap_or(0) == 0
    });
    test();
    wait_until("it ends with the last pool", || threads().unwrap_or(0) == 0);
}

/// How many such threads there are, where that can be seen.
fn threads() -> Option<usize> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let names = tasks.filter_map(|task| {
        // A thread that has ended since has no readable name.
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    });
    Some(
        names
            .filter(|name| name.trim_end() == "tierpool-trim")
            .count(),
    )
}

/// Waits until the thread has a name, which it sets itself.
#[track_caller]
fn wait_for_one() {
    wait_until("there is one", || threads().is_none_or(|count| count == 1));
}

fn builder(interval: Duration) -> Builder {
    Pool::builder()
        .classes([CAPACITY])
        .release_when_idle(interval)
}

fn burst(pool: &Pool, buffers: usize) {
    drop((0..buffers).map(|_| pool.get(1)).collect::<Vec<_>>());
}

fn retained(pool: &Pool) -> u64 {
    pool.stats().total.retained_buffers
}

#[test]
fn many_pools_have_one_thread_that_ends_with_their_last_handle() {
    alone(|| {
        for interval in [HOUR, SHORT, Duration::MAX] {
            let pools: Vec<_> = (0..20)
                .map(|_| builder(interval).build().unwrap())
                .collect();
            let clone = pools[0].clone();
            let guard = clone.get(1);
            wait_for_one();
            drop(pools);
            drop(clone.get(1));
            wait_for_one();
            drop(clone);
            wait_until("it ends", || threads().unwrap_or(0) == 0);
            drop(guard); // a guard does not keep the thread
        }
        drop((Pool::default(), Pool::builder().build()));
        assert_eq!(threads().unwrap_or(0), 0, "these pools have no thread");
    });
}

#[test]
fn each_pool_is_trimmed_after_its_own_interval() {
    alone(|| {
        let never = builder(HOUR).build().unwrap();
        burst(&never, 5);
        // Later pools with shorter intervals do not wait for the earlier ones.
        for millis in [300, 30, 3, 1] {
            let interval = Duration::from_millis(millis);
            let begin = Instant::now();
            let pool = builder(interval).build().unwrap();
            burst(&pool, 5);
            wait_until("all is freed", || retained(&pool) == 0);
            // The second trim from the start frees them.
            assert!(begin.elapsed() >= 2 * interval, "{interval:?}");
        }
        let many = [1, 2, 5, 7, 20, 50].map(Duration::from_millis);
        let many = many.map(|interval| builder(interval).build().unwrap());
        for _ in 0..3 {
            many.iter().for_each(|pool| burst(pool, 5));
            for pool in &many {
                wait_until("all is freed", || retained(pool) == 0);
            }
        }
        assert_eq!(retained(&never), 5);
    });
}

// A thread that has found no pool, and is ending, does not trim this one. Another must start.
#[test]
fn a_pool_that_is_built_while_the_thread_ends_is_trimmed() {
    alone(|| {
        for round in 0..300 {
            let first = builder(SHORT).build().unwrap();
            if round % 3 == 0 {
                thread::sleep(SHORT * 2);
            }
            drop(first);
            if round % 2 == 0 {
                thread::yield_now();
            }
            let pool = builder(SHORT).build().unwrap();
            burst(&pool, 5);
            wait_until("all is freed", || retained(&pool) == 0);
        }
    });
}

#[test]
fn a_pool_may_be_dropped_while_the_thread_trims_it_and_another_built() {
    alone(|| {
        let (entered, is_inside) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel::<()>();
        let goes_on = Mutex::new(goes_on);
        let hook = move |_| {
            entered.send(()).unwrap();
            let _ended = goes_on.lock().unwrap().recv();
        };
        let pool = builder(SHORT).on_trim(hook).build().unwrap();
        burst(&pool, 5);
        is_inside.recv().unwrap();
        // The drop waits for the end of a trim, and not for the hook.
        drop(pool);
        let later = builder(SHORT).build().unwrap();
        burst(&later, 5);
        wait_for_one();
        assert_eq!(
            retained(&later),
            5,
            "the only thread is in the other pool's hook"
        );
        drop(go_on);
        wait_until("all is freed", || retained(&later) == 0);
    });
}

#[test]
fn pools_come_and_go_on_many_threads() {
    alone(|| {
        thread::scope(|scope| {
            for seed in 0..4_u32 {
                scope.spawn(move || {
                    for round in 0..100 {
                        let interval = Duration::from_micros(500 * u64::from(1 + seed));
                        let pool = builder(interval).build().unwrap();
                        burst(&pool, 5);
                        if round % 10 == 0 {
                            wait_until("all is freed", || retained(&pool) == 0);
                        }
                    }
                });
            }
        });
    });
}
