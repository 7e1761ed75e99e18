//! `keep_idle`: buffers that are made at the start, and that every trim leaves idle.

use crate::{assert_accounts_balance, class, options, rounds, total};
use bytes::BufMut;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tierpool::{Builder, ConfigError, Pool, PooledBuf};

const CAPACITY: usize = 16_384;

/// Asserts which error `build` returns, and its message.
#[track_caller]
fn assert_refused(builder: Builder, is: impl FnOnce(&ConfigError) -> bool, text: &str) {
    let error = builder.build().expect_err("the configuration is invalid");
    assert!(is(&error), "{error:?}");
    assert_eq!(error.to_string(), text);
}

fn take(pool: &Pool, size: usize, count: usize) -> Vec<PooledBuf> {
    (0..count).map(|_| pool.get(size)).collect()
}

// ---- at the start ----

#[test]
fn the_buffers_are_idle_when_the_pool_is_built() {
    for builder in [
        options(&[512, CAPACITY]),
        options(&[512, CAPACITY]).thread_cache_bytes(0),
        options(&[512, CAPACITY]).zero_on_return(true),
    ] {
        let pool = builder.keep_idle(CAPACITY, 100).build().unwrap();
        let counts = class(&pool, CAPACITY);
        assert_eq!((counts.retained_buffers, counts.prefilled), (100, 100));
        assert_eq!(counts.retained_bytes, 100 * CAPACITY as u64);
        assert_eq!(total(&pool).retained_buffers, 100, "and no others");
        let held = take(&pool, CAPACITY, 100);
        assert!(held.iter().all(|buf| buf.is_empty()));
        assert!(held.iter().all(|buf| buf.capacity() == CAPACITY));
        let counts = total(&pool);
        assert_eq!((counts.hits(), counts.misses), (100, 0));
        drop(pool.get(CAPACITY));
        assert_eq!(total(&pool).misses, 1);
        drop(held);
        assert_accounts_balance(&pool);
    }
}

// Failed once: a trim freed the buffers for which the depot's queue had no place.
#[test]
fn trims_keep_the_buffers_in_the_caches_of_many_threads() {
    const COUNT: usize = rounds(200, 20);
    let pool = options(&[CAPACITY]).keep_idle(1, COUNT).build().unwrap();
    thread::scope(|scope| {
        let mut asleep = Vec::new();
        for buf in take(&pool, 1, COUNT) {
            let (wake, sleep) = mpsc::channel::<()>();
            let (did, is_done) = mpsc::channel();
            let thread = scope.spawn(move || {
                drop(buf);
                did.send(()).unwrap();
                let _end = sleep.recv();
            });
            is_done.recv().unwrap();
            asleep.push((wake, thread));
        }
        for _ in 0..4 {
            assert_eq!(pool.trim().buffers, 0);
        }
        for (wake, thread) in asleep {
            drop(wake);
            thread.join().unwrap(); // so that the destructor of its cache has run
        }
    });
    assert_eq!(total(&pool).retained_buffers, COUNT as u64);
    drop(take(&pool, 1, COUNT));
    assert_eq!(total(&pool).misses, 0);
}

#[test]
fn any_thread_gets_the_buffers() {
    let pool = options(&[CAPACITY]).keep_idle(1, 10).build().unwrap();
    let other = pool.clone();
    thread::spawn(move || drop(take(&other, 1, 10)))
        .join()
        .unwrap();
    drop(take(&pool, 1, 10));
    assert_eq!((total(&pool).misses, total(&pool).hits()), (0, 20));
}

#[test]
fn the_buffers_are_of_the_smallest_class_for_the_size_and_calls_add_up() {
    let pool = options(&[64, 512, 4096])
        .keep_idle(0, 1)
        .keep_idle(65, 2)
        .keep_idle(512, 3)
        .keep_idle(4096, 0)
        .keep_idle(100, 4)
        .build()
        .unwrap();
    let stats = pool.stats();
    let kept: Vec<_> = stats.classes.iter().map(|class| class.keep_idle).collect();
    assert_eq!(kept, [1, 9, 0]);
    for class in &stats.classes {
        assert_eq!(class.counts.retained_buffers, class.keep_idle as u64);
    }
    let none = Pool::builder().build().unwrap().stats();
    assert!(none.classes.iter().all(|class| class.keep_idle == 0));
}

#[test]
fn the_buffers_count_in_the_budget() {
    let pool = options(&[512, CAPACITY])
        .retain_bytes(3 * CAPACITY + 512)
        .keep_idle(CAPACITY, 3)
        .build()
        .unwrap();
    drop(take(&pool, 512, 4));
    let small = class(&pool, 512);
    assert_eq!((small.retained_buffers, small.discards.full), (1, 3));
    assert_eq!(pool.prefill(CAPACITY, 1), 0);
    assert_eq!(class(&pool, CAPACITY).retained_buffers, 3);
}

#[test]
fn clear_frees_the_buffers_and_later_returns_are_kept_again() {
    let pool = options(&[CAPACITY]).keep_idle(1, 5).build().unwrap();
    let held = take(&pool, 1, 2);
    let freed = pool.clear();
    assert_eq!((freed.buffers, freed.bytes), (3, 3 * CAPACITY));
    assert_eq!(total(&pool).retained_buffers, 0, "no new one is made");
    drop(held);
    assert_eq!(total(&pool).retained_buffers, 2);
    assert_accounts_balance(&pool);
}

// Failed once: the calibration retired the class, and the first two returns were freed.
#[test]
fn a_calibration_never_retires_their_class() {
    let pool = options(&[512, 4096, CAPACITY])
        .calibrate_after(u64::MAX)
        .calibrate_interval(None)
        .keep_idle(CAPACITY, 3)
        .build()
        .unwrap();
    for round in 1..=3 {
        for _ in 0..50 {
            pool.get(100).put_bytes(7, 100);
        }
        assert_eq!(pool.recalibrate().max_size, 128);
        drop(pool.get(CAPACITY)); // one request between two calibrations
        drop(pool.get(4096));
        let kept = class(&pool, CAPACITY);
        assert_eq!((kept.retained_buffers, kept.misses), (3, 0));
        assert_eq!(kept.discards.above_max, 0);
        // A calibration retires other classes.
        assert_eq!(class(&pool, 4096).discards.above_max, round);
    }
    // A profile that retires the class does not do it, either.
    let pool = options(&[512, 4096, CAPACITY])
        .profile(pool.profile())
        .keep_idle(CAPACITY, 3)
        .keep_idle(4096, 1)
        .build()
        .unwrap();
    drop((pool.get(CAPACITY), pool.get(4096)));
    assert_eq!(total(&pool).retained_buffers, 4);
    assert_eq!(total(&pool).discards.total(), 0);
}

// ---- invalid options ----

#[test]
fn a_size_above_the_largest_class_is_refused_with_both_and_advice() {
    for (builder, option, text) in [
        (
            Pool::builder(),
            ("max_size", 1 << 20, true),
            "keep_idle (2000000 bytes) is above max_size (1 MiB, the default): buffers of that size are \
             never kept; raise max_size to 2000000 bytes or more, or keep smaller buffers idle",
        ),
        (
            Pool::builder().max_size(4096),
            ("max_size", 4096, false),
            "keep_idle (2000000 bytes) is above max_size (4 KiB): buffers of that size are never kept; \
             raise max_size to 2000000 bytes or more, or keep smaller buffers idle",
        ),
        (
            Pool::builder().min_size(1_500_000),
            ("min_size", 1_500_000, false),
            "keep_idle (2000000 bytes) is above min_size (1500000 bytes): buffers of that size are \
             never kept; raise min_size to 2000000 bytes or more, or keep smaller buffers idle",
        ),
        (
            Pool::builder().classes([512, 4096]),
            ("classes", 4096, false),
            "keep_idle (2000000 bytes) is above the largest of classes (4 KiB): buffers of that size \
             are never kept; add a class of 2000000 bytes or more, or keep smaller buffers idle",
        ),
    ] {
        // Whatever the count, and also beside valid calls.
        for count in [0, 1, usize::MAX] {
            assert_refused(
                builder.clone().keep_idle(1, 1).keep_idle(2_000_000, count),
                |error| match *error {
                    ConfigError::KeepIdleAboveLargest {
                        size: 2_000_000,
                        field,
                        largest,
                        is_default,
                        ..
                    } => (field, largest, is_default) == option,
                    _ => false,
                },
                text,
            );
        }
    }
}

#[test]
fn more_than_max_per_class_are_refused_with_both_and_advice() {
    let builder = || Pool::builder().max_per_class(10).keep_idle(CAPACITY, 7);
    assert_refused(
        builder().keep_idle(CAPACITY - 1, 4),
        |error| {
            matches!(
                error,
                ConfigError::KeepIdleAbovePerClass {
                    capacity: CAPACITY,
                    count: 11,
                    max_per_class: 10,
                    ..
                }
            )
        },
        "keep_idle (11 buffers of 16 KiB) is above max_per_class (10): no more of one class are kept; \
         raise max_per_class to 11 or more, or keep fewer idle",
    );
    let pool = builder().keep_idle(CAPACITY, 3).keep_idle(512, 10);
    let pool = pool.build().unwrap();
    assert_eq!(total(&pool).retained_buffers, 20);
    assert_refused(
        Pool::builder().max_per_class(0).keep_idle(512, 1),
        |error| matches!(error, ConfigError::KeepIdleAbovePerClass { count: 1, .. }),
        "keep_idle (1 buffer of 512 bytes) is above max_per_class (0): no more of one class are kept; \
         raise max_per_class to 1 or more, or keep fewer idle",
    );
    // A sum of counts never wraps to a small number.
    assert_refused(
        builder().keep_idle(CAPACITY, usize::MAX),
        |error| {
            matches!(
                error,
                ConfigError::KeepIdleAbovePerClass {
                    count: usize::MAX,
                    ..
                }
            )
        },
        &format!(
            "keep_idle ({0} buffers of 16 KiB) is above max_per_class (10): no more of one class are \
             kept; raise max_per_class to {0} or more, or keep fewer idle",
            usize::MAX
        ),
    );
}

#[test]
fn more_than_the_budget_in_all_calls_are_refused_with_both_and_advice() {
    const BUDGET: usize = 10 * CAPACITY;
    let builder = || {
        options(&[512, CAPACITY])
            .retain_bytes(BUDGET)
            .keep_idle(CAPACITY, 9)
    };
    let pool = builder().keep_idle(512, 32).build().unwrap();
    assert_eq!(total(&pool).retained_bytes, BUDGET as u64);
    // A request of one byte takes a buffer of 512.
    assert_refused(
        builder().keep_idle(1, 33),
        |error| {
            matches!(
                error,
                ConfigError::KeepIdleAboveRetain {
                    bytes: 164_352,
                    retain_bytes: BUDGET,
                    is_default: false,
                    ..
                }
            )
        },
        "keep_idle (164352 bytes in all) is above retain_bytes (160 KiB): the budget holds no more; \
         raise retain_bytes to 164352 bytes or more, or keep fewer buffers idle",
    );
    assert_refused(
        Pool::builder().keep_idle(1 << 20, 65),
        |error| {
            matches!(
                error,
                ConfigError::KeepIdleAboveRetain {
                    is_default: true,
                    ..
                }
            )
        },
        "keep_idle (65 MiB in all) is above retain_bytes (64 MiB, the default): the budget holds no \
         more; raise retain_bytes to 65 MiB or more, or keep fewer buffers idle",
    );
    assert_refused(
        Pool::builder().retain_bytes(0).keep_idle(512, 1),
        |error| matches!(error, ConfigError::KeepIdleAboveRetain { bytes: 512, .. }),
        "keep_idle (512 bytes in all) is above retain_bytes (0 bytes): the budget holds no more; \
         raise retain_bytes to 512 bytes or more, or keep fewer buffers idle",
    );
    // No budget holds that, so none is named.
    assert_refused(
        Pool::builder().keep_idle(512, usize::MAX),
        |error| {
            matches!(
                error,
                ConfigError::TooLarge {
                    field: "keep_idle",
                    ..
                }
            )
        },
        &format!(
            "keep_idle ({} bytes) is above isize::MAX ({} bytes): no allocation can be that large; lower \
             keep_idle",
            usize::MAX,
            isize::MAX
        ),
    );
    let keeps_nothing = Pool::builder().retain_bytes(0).keep_idle(512, 0);
    assert_eq!(total(&keeps_nothing.build().unwrap()).retained_buffers, 0);
}

#[test]
fn more_bytes_than_any_memory_are_refused_without_a_budget() {
    let text = format!(
        "keep_idle ({} bytes) is above isize::MAX ({} bytes): no allocation can be that large; \
         lower keep_idle",
        usize::MAX,
        isize::MAX
    );
    for builder in [
        Pool::builder().keep_idle(1 << 20, usize::MAX),
        Pool::builder()
            .keep_idle(1 << 20, usize::MAX >> 20)
            .keep_idle(512, usize::MAX >> 9),
    ] {
        assert_refused(
            builder.retain_bytes(usize::MAX),
            |error| {
                matches!(
                    error,
                    ConfigError::TooLarge {
                        field: "keep_idle",
                        value: usize::MAX,
                        ..
                    }
                )
            },
            &text,
        );
    }
}

// ---- trims ----

/// A class that only shows that trims have passed.
const OTHER: usize = 64;
/// The most buffers of [`CAPACITY`] that move between the levels at once.
const MAGAZINE: u64 = 16;

/// Options with a class of kept-idle buffers, and other classes.
fn with_idle(count: usize) -> Builder {
    options(&[OTHER, 1024, CAPACITY]).keep_idle(CAPACITY, count)
}

fn retained(pool: &Pool) -> u64 {
    class(pool, CAPACITY).retained_buffers
}

/// Waits for six trims by time: the second one frees a buffer that no one needs.
///
/// Gives up after 60,000 looks, at least 1 ms apart: only a pool that never trims can fail. Calls
/// `between` between two looks.
#[track_caller]
fn wait_for_six_trims(pool: &Pool, between: impl Fn()) {
    let trimmed = || class(pool, OTHER).trimmed;
    for _ in 0..3 {
        let before = trimmed();
        assert_eq!(pool.prefill(OTHER, 1), 1);
        let gone = (0..60_000).any(|_| {
            thread::sleep(Duration::from_millis(1));
            between();
            trimmed() > before
        });
        assert!(gone, "no trim by time");
    }
}

/// Takes as many buffers as are kept idle, and drops them. Returns how many gets missed.
fn misses_of(pool: &Pool, count: usize) -> u64 {
    let misses = class(pool, CAPACITY).misses;
    let held = take(pool, CAPACITY, count);
    let missed = class(pool, CAPACITY).misses - misses;
    drop(held);
    missed
}

/// Takes as many buffers as are kept idle. None of the gets misses.
#[track_caller]
fn assert_warm(pool: &Pool, count: usize) {
    assert_eq!(misses_of(pool, count), 0);
    assert_accounts_balance(pool);
}

// Failed once: 100 misses.
#[test]
fn all_buffers_stay_through_six_quiet_intervals() {
    for builder in [
        with_idle(100),
        with_idle(100).thread_cache_bytes(0),
        with_idle(100).zero_on_return(true),
        with_idle(100).retain_bytes(100 * CAPACITY),
    ] {
        let pool = builder.build().unwrap();
        for _ in 0..3 {
            for _ in 0..6 {
                assert_eq!(pool.trim().buffers, 0);
                assert_eq!(retained(&pool), 100);
            }
            assert_warm(&pool, 100);
            pool.trim(); // finds the buffers in this thread's cache, and needed
        }
    }
}

// A get misses if the thread is just moving buffers from this thread's cache to the depot. That
// may happen to one of a few attempts. A pool that frees the buffers misses at each attempt, since
// six trims come before it.
#[test]
fn the_background_thread_keeps_all_of_the_buffers() {
    let pool = with_idle(100)
        .trim_interval(Duration::from_millis(1))
        .background_trim(true)
        .build()
        .unwrap();
    let warm = (0..100).any(|_| {
        wait_for_six_trims(&pool, || ());
        misses_of(&pool, 100) == 0
    });
    assert!(warm, "the buffers were freed");
    assert_accounts_balance(&pool);
}

#[test]
fn trims_by_gets_and_drops_keep_all_of_the_buffers() {
    let pool = with_idle(100)
        .trim_interval(Duration::from_millis(1))
        .build()
        .unwrap();
    for _ in 0..2 {
        // Each miss does a part of a due trim.
        wait_for_six_trims(&pool, || drop(pool.get(1024).detach()));
        assert_warm(&pool, 100);
    }
}

#[test]
fn buffers_in_caches_of_waiting_or_ended_threads_serve_others() {
    for ends in [false, true] {
        let pool = with_idle(100).build().unwrap();
        let other = pool.clone();
        let (full, is_full) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            drop(take(&other, CAPACITY, 100));
            full.send(()).unwrap();
            if !ends {
                wait.recv().unwrap();
            }
        });
        is_full.recv().unwrap();
        let thread = match ends {
            true => {
                thread.join().unwrap();
                None
            }
            false => Some(thread),
        };
        for _ in 0..6 {
            pool.trim();
            assert!(retained(&pool) >= 100, "{}", pool.stats());
        }
        assert_warm(&pool, 100);
        if let Some(thread) = thread {
            go.send(()).unwrap();
            thread.join().unwrap();
        }
    }
}

#[test]
fn used_and_unused_buffers_count_together() {
    let pool = with_idle(50).build().unwrap();
    for used in [1, 20, 49, 50] {
        let held = take(&pool, CAPACITY, used);
        for _ in 0..6 {
            pool.trim();
        }
        // The outstanding buffers do not change the others.
        assert_eq!(retained(&pool), 50 - used as u64);
        drop(held);
        for _ in 0..6 {
            pool.trim();
        }
        assert_eq!(retained(&pool), 50);
    }
    assert_eq!(class(&pool, CAPACITY).misses, 0);
    assert_accounts_balance(&pool);
}

#[test]
fn idle_buffers_above_the_count_are_freed() {
    let pool = with_idle(50).build().unwrap();
    drop(take(&pool, CAPACITY, 500));
    pool.prefill(CAPACITY, 100);
    pool.prefill(1024, 100);
    for _ in 0..6 {
        pool.trim();
    }
    let left = retained(&pool);
    assert!((50..50 + MAGAZINE).contains(&left), "{left} are left");
    assert_eq!(total(&pool).retained_buffers, left, "and no others");
    assert_warm(&pool, 50);
}

#[test]
fn trims_for_a_shortage_keep_all_of_the_buffers() {
    const SMALL: usize = 100;
    let pool = with_idle(4)
        .retain_bytes(4 * CAPACITY + SMALL * OTHER)
        .build()
        .unwrap();
    // Unneeded buffers fill the budget. Then it is too small for the requests.
    assert_eq!(pool.prefill(OTHER, SMALL), SMALL);
    for _ in 0..100 {
        drop(take(&pool, 1024, 20));
        assert_eq!(retained(&pool), 4, "{}", pool.stats());
    }
    assert_eq!(
        class(&pool, OTHER).trimmed,
        SMALL as u64,
        "the other class was trimmed"
    );
    let used = class(&pool, 1024);
    assert!(used.discards.full > 0 && used.hits() > 0, "{used:?}");
    assert_warm(&pool, 4);
}

#[test]
fn after_a_clear_trims_keep_as_many_of_the_returned_buffers() {
    let pool = with_idle(20).build().unwrap();
    assert_eq!(pool.clear().buffers, 20);
    pool.trim();
    assert_eq!(retained(&pool), 0);
    drop(take(&pool, CAPACITY, 7));
    for _ in 0..6 {
        pool.trim();
    }
    assert_eq!(retained(&pool), 7);
    drop(take(&pool, CAPACITY, 100));
    for _ in 0..6 {
        pool.trim();
    }
    let left = retained(&pool);
    assert!((20..20 + MAGAZINE).contains(&left), "{left} are left");
    assert_warm(&pool, 20);
}
