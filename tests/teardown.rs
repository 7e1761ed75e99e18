//! Guards and handles at the ends of threads, of pools, and of panics.
//!
//! A panic in a destructor of a thread-local aborts the process. So a test here may fail by ending
//! the whole test program.

mod common {
    pub mod accounts;
    pub mod forget;
}

use bytes::BytesMut;
use common::accounts::assert_accounts_balance;
use common::forget;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use tierpool::{Counts, Pool, PooledBuf, PooledBytes};

/// Runs a function when its thread-local is destroyed.
struct AtExit(RefCell<Option<Box<dyn FnOnce()>>>);

impl AtExit {
    const fn new() -> Self {
        AtExit(RefCell::new(None))
    }

    fn set(&self, work: impl FnOnce() + 'static) {
        *self.0.borrow_mut() = Some(Box::new(work));
    }
}

impl Drop for AtExit {
    fn drop(&mut self) {
        if let Some(work) = self.0.take() {
            work();
        }
    }
}

// On Linux the destructors of thread-locals run in the reverse order of their first use. A function
// in `EARLY` is registered before the thread's first use of any pool, so it runs after the thread's
// caches are gone. `LATE` is for the opposite.
thread_local! {
    static EARLY: AtExit = const { AtExit::new() };
    static LATE: AtExit = const { AtExit::new() };
}

/// Runs `work` on a new thread, up to the destructors of its thread-locals.
fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    thread::spawn(work).join().unwrap()
}

/// Frees nothing by time, so that counts are exact on any machine.
fn one_class(capacity: usize) -> Pool {
    Pool::builder()
        .classes([capacity])
        .trim_interval(None)
        .build()
        .unwrap()
}

fn total(pool: &Pool) -> Counts {
    pool.stats().total
}

/// Whether each step costs microseconds. It does under Miri, and under valgrind, where
/// `scripts/sanitize.sh` sets `--cfg slow`.
const SLOW: bool = cfg!(any(miri, slow));

/// Fewer if [`SLOW`].
const fn rounds(native: usize, slow: usize) -> usize {
    if SLOW { slow } else { native }
}

// ---- destructors of thread-locals ----

#[test]
fn a_guard_dropped_by_a_destructor_before_the_threads_caches_end_is_kept() {
    let pool = one_class(4096);
    on_a_thread({
        let pool = pool.clone();
        move || {
            let guard = pool.get(1);
            drop(pool.get(1)); // the thread has a cache from here on
            LATE.with(|late| late.set(move || drop(guard)));
        }
    });
    let after = total(&pool);
    assert_eq!((after.returns, after.outstanding), (2, 0));
    // Moved to the depot, not lost: two gets at once are two hits.
    drop((pool.get(1), pool.get(1)));
    assert_eq!(total(&pool).misses, 2);
    assert_accounts_balance(&pool);
}

#[test]
fn a_guard_dropped_by_a_destructor_after_the_threads_caches_ended_is_kept() {
    let pool = one_class(4096);
    on_a_thread({
        let pool = pool.clone();
        move || {
            EARLY.with(|_| ());
            let guard = pool.get(1);
            drop(pool.get(1));
            EARLY.with(|early| early.set(move || drop(guard)));
        }
    });
    let after = total(&pool);
    assert_eq!((after.returns, after.outstanding), (2, 0));
    assert_eq!(after.retained_buffers, 2);
    drop((pool.get(1), pool.get(1)));
    assert_eq!(total(&pool).misses, 2);
    assert_accounts_balance(&pool);
}

#[test]
fn a_guard_of_a_thread_without_a_cache_may_be_dropped_by_a_destructor() {
    let pool = one_class(4096);
    let guard = pool.get(1);
    on_a_thread(move || LATE.with(|late| late.set(move || drop(guard))));
    let after = total(&pool);
    assert_eq!((after.returns, after.outstanding), (1, 0));
    drop(pool.get(1));
    assert_eq!(total(&pool).misses, 1);
}

#[test]
fn a_get_inside_a_destructor_gives_a_working_buffer() {
    for early in [false, true] {
        let pool = one_class(4096);
        let (seen, contents) = mpsc::channel();
        on_a_thread({
            let pool = pool.clone();
            move || {
                if early {
                    EARLY.with(|_| ());
                }
                drop(pool.get(1));
                let work = move || {
                    for size in [1, 4096, 5000] {
                        let mut buf = pool.get(size);
                        buf.extend_from_slice(&[7; 6000]);
                        seen.send(buf.to_vec()).unwrap();
                    }
                    assert_eq!(pool.stats().total.outstanding, 0);
                };
                match early {
                    true => EARLY.with(|at_exit| at_exit.set(work)),
                    false => LATE.with(|at_exit| at_exit.set(work)),
                }
            }
        });
        let contents: Vec<Vec<u8>> = contents.iter().collect();
        assert_eq!(contents, [[7; 6000], [7; 6000], [7; 6000]]);
        assert_eq!(total(&pool).outstanding, 0);
        assert_accounts_balance(&pool);
    }
}

#[test]
fn a_thread_may_use_a_pool_for_the_first_time_inside_a_destructor() {
    let pool = one_class(4096);
    on_a_thread({
        let pool = pool.clone();
        move || {
            EARLY.with(|early| {
                early.set(move || {
                    let pair = (pool.get(1), pool.get(1));
                    drop(pair);
                    drop(pool.get(1));
                });
            });
        }
    });
    let after = total(&pool);
    assert_eq!((after.gets, after.misses, after.outstanding), (3, 2, 0));
    // The buffers that it left serve other threads.
    drop((pool.get(1), pool.get(1)));
    assert_eq!(total(&pool).misses, 2);
    assert_accounts_balance(&pool);
}

// Failed once: the pool found a thread's caches by the `thread_local` crate, which panics if it
// needs a thread's number after its own destructor has run.
#[test]
fn a_thread_that_uses_the_thread_local_crate_itself_may_get_and_drop_inside_a_destructor() {
    let pool = one_class(4096);
    let guard = pool.get(1);
    let elsewhere = Arc::new(thread_local::ThreadLocal::new());
    let (seen, outcome) = mpsc::channel();
    on_a_thread({
        let (pool, elsewhere) = (pool.clone(), Arc::clone(&elsewhere));
        move || {
            EARLY.with(|early| {
                early.set(move || {
                    // Caught here: a panic that leaves the destructor aborts.
                    let got = catch_unwind(|| drop(pool.get(1))).is_ok();
                    let dropped = catch_unwind(|| drop(guard)).is_ok();
                    seen.send((got, dropped)).unwrap();
                });
            });
            // Destroyed before `EARLY` is, and not by the pool.
            elsewhere.get_or(|| 1);
        }
    });
    assert_eq!(
        outcome.recv(),
        Ok((true, true)),
        "(get, drop) did not panic"
    );
    assert_eq!(total(&pool).outstanding, 0);
}

#[test]
fn a_handle_and_guards_dropped_by_the_last_destructor_of_a_thread_end_the_pool() {
    for keep_one_elsewhere in [false, true] {
        let elsewhere = on_a_thread(move || {
            EARLY.with(|_| ());
            let pool = Pool::default();
            let mut guard = pool.get(1);
            guard.extend_from_slice(b"held");
            let elsewhere = keep_one_elsewhere.then(|| pool.get(100));
            drop((pool.get(1), pool.get(100_000)));
            EARLY.with(|early| {
                early.set(move || {
                    drop(pool);
                    assert_eq!(&guard[..], b"held");
                    guard.extend_from_slice(&[1; 5000]); // grows after the end
                    assert_eq!(guard.len(), 5004);
                });
            });
            elsewhere
        });
        if let Some(mut buf) = elsewhere {
            buf.extend_from_slice(b"fine");
            assert_eq!(&buf[..], b"fine");
        }
    }
}

#[test]
fn a_pool_made_used_and_dropped_inside_a_destructor_works() {
    let (seen, contents) = mpsc::channel();
    on_a_thread(move || {
        EARLY.with(|_| ());
        drop(Pool::default().get(1));
        EARLY.with(|early| {
            early.set(move || {
                let pool = one_class(512);
                let mut buf = pool.get(1);
                buf.extend_from_slice(b"late");
                let frozen = buf.freeze();
                drop(pool);
                seen.send(frozen).unwrap();
            });
        });
    });
    assert_eq!(&contents.recv().unwrap()[..], b"late");
}

#[test]
fn a_handle_in_a_thread_local_may_be_the_last_one() {
    thread_local! {
        static POOL: RefCell<Option<(PooledBuf, Pool)>> = const { RefCell::new(None) };
    }
    let frozen = on_a_thread(|| {
        let pool = Pool::default();
        let mut buf = pool.get(10);
        buf.extend_from_slice(b"out");
        POOL.with(|cell| *cell.borrow_mut() = Some((pool.get(10), pool)));
        buf.freeze()
    });
    assert_eq!(&frozen[..], b"out");
}

// ---- unwinding ----

#[test]
fn a_guard_dropped_while_a_panic_is_caught_comes_home() {
    let pool = one_class(4096);
    let caught = catch_unwind(|| {
        let mut guard = pool.get(1);
        guard.extend_from_slice(b"half a message");
        std::panic::resume_unwind(Box::new("the user's panic"));
    });
    assert!(caught.is_err());
    let after = total(&pool);
    assert_eq!((after.returns, after.outstanding), (1, 0));
    assert!(pool.get(1).is_empty());
    assert_eq!(total(&pool).local_hits, 1);
}

#[test]
fn a_guard_dropped_by_a_panicking_thread_comes_home() {
    let pool = one_class(4096);
    let ended = thread::spawn({
        let pool = pool.clone();
        move || {
            let _guards = (pool.get(1), pool.get(1));
            std::panic::resume_unwind(Box::new("the user's panic"));
        }
    })
    .join();
    assert!(ended.is_err());
    let after = total(&pool);
    assert_eq!((after.returns, after.outstanding), (2, 0));
    drop((pool.get(1), pool.get(1)));
    assert_eq!(total(&pool).misses, 2);
}

#[test]
fn the_last_handle_may_be_dropped_while_unwinding() {
    let mut kept = None;
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let pool = Pool::default();
        drop(pool.get(1));
        kept.insert(pool.get(1)).extend_from_slice(b"kept");
        let _guard = pool.get(1);
        std::panic::resume_unwind(Box::new("the user's panic"));
    }));
    assert!(caught.is_err());
    assert_eq!(&kept.unwrap()[..], b"kept");
}

// ---- the pool first ----

#[test]
fn a_guard_outlives_its_pool_on_the_same_thread() {
    let pool = Pool::default();
    let mut guard = pool.get(100);
    guard.extend_from_slice(b"before");
    drop(pool.get(100));
    drop(pool);
    guard.extend_from_slice(b" and after");
    assert_eq!(&guard[..], b"before and after");
    guard.extend_from_slice(&[b'!'; 10_000]);
    assert_eq!(guard.len(), 10_016);
    assert_eq!(&guard[..16], b"before and after");
    drop(guard);
    // The thread goes on to use other pools.
    let other = one_class(512);
    drop(other.get(1));
    drop(other.get(1));
    assert_eq!(total(&other).local_hits, 1);
}

#[test]
fn a_guard_outlives_its_pool_on_another_thread() {
    let pool = Pool::default();
    let mut guard = pool.get(100);
    let (send, receive) = mpsc::channel::<()>();
    let other = thread::spawn(move || {
        receive.recv().unwrap(); // the pool is gone
        guard.extend_from_slice(&[3; 4000]);
        assert_eq!(&guard[..], [3; 4000]);
        drop(guard);
    });
    drop(pool.get(100));
    drop(pool);
    send.send(()).unwrap();
    other.join().unwrap();
}

#[test]
fn frozen_bytes_outlive_their_pool_and_their_thread() {
    let parts: Vec<PooledBytes> = on_a_thread(|| {
        let pool = Pool::default();
        let mut buf = pool.get(100);
        buf.extend_from_slice(b"one two");
        let frozen = buf.freeze();
        vec![frozen.slice(..3), frozen.slice(4..), frozen]
    });
    assert_eq!(parts, [&b"one"[..], b"two", b"one two"]);
    on_a_thread(move || drop(parts));
}

#[test]
fn a_guard_that_was_forgotten_stays_outstanding_and_the_pool_ends_without_it() {
    struct Parent {
        _name: String,
        _guard: PooledBuf,
    }
    let pool = one_class(4096);
    drop((pool.get(1), pool.get(1)));
    forget::forget(Parent {
        _name: String::from("forgotten"),
        _guard: pool.get(1),
    });
    let after = total(&pool);
    assert_eq!((after.outstanding, after.retained_buffers), (1, 1));
    assert_accounts_balance(&pool);
    drop(pool);
}

// ---- the thread first ----

#[test]
fn buffers_cached_by_an_ended_thread_serve_others() {
    const BUFFERS: usize = 64;
    let pool = one_class(4096);
    on_a_thread({
        let pool = pool.clone();
        move || {
            let held: Vec<PooledBuf> = (0..BUFFERS).map(|_| pool.get(1)).collect();
            drop(held);
        }
    });
    assert_eq!(total(&pool).retained_buffers, BUFFERS as u64);
    let held: Vec<PooledBuf> = (0..BUFFERS).map(|_| pool.get(1)).collect();
    assert_eq!(
        total(&pool).misses,
        BUFFERS as u64,
        "only the first thread missed"
    );
    drop(held);
    assert_accounts_balance(&pool);
}

#[test]
fn an_ended_thread_leaves_all_its_cached_buffers_though_the_budget_is_full() {
    const CAPACITY: usize = 4096;
    const BUFFERS: usize = 53; // a magazine, and some that do not fill one
    // After a trim, these buffers rest in the cache.
    for trim in [false, true] {
        let pool = Pool::builder()
            .classes([CAPACITY, 2 * CAPACITY])
            .retain_bytes(BUFFERS * CAPACITY + CAPACITY + 1)
            .trim_interval(None)
            .build()
            .unwrap();
        // This thread has caches, so it does not inherit the other's.
        drop(pool.get(2 * CAPACITY).detach());
        on_a_thread({
            let pool = pool.clone();
            move || {
                let held: Vec<PooledBuf> = (0..BUFFERS + 10).map(|_| pool.get(1)).collect();
                // Of unusual capacity, so kept loose.
                drop(pool.adopt(BytesMut::with_capacity(CAPACITY + 1)));
                drop(held);
                if trim {
                    assert_eq!(
                        pool.trim().buffers,
                        0,
                        "all were in use since the last trim"
                    );
                }
            }
        });
        let before = total(&pool);
        assert_eq!(before.discards.full, 10, "the budget is full");
        assert_eq!(before.retained_buffers as usize, BUFFERS + 1);
        let held: Vec<PooledBuf> = (0..BUFFERS + 1).map(|_| pool.get(1)).collect();
        let after = total(&pool);
        assert_eq!(after.hits() as usize, BUFFERS + 1);
        assert_eq!((after.misses, after.retained_buffers), (before.misses, 0));
        drop(held);
        assert_accounts_balance(&pool);
    }
}

#[test]
fn the_empty_room_of_an_ended_thread_goes_to_others() {
    const BUFFERS: usize = 40;
    for left in [0, 1, 25] {
        let pool = Pool::builder()
            .classes([4096])
            .retain_bytes(BUFFERS * 4096)
            .trim_interval(None)
            .build()
            .unwrap();
        // This thread has caches, as above.
        drop(pool.get(1).detach());
        on_a_thread({
            let pool = pool.clone();
            move || {
                let held: Vec<PooledBuf> = (0..BUFFERS).map(|_| pool.get(1)).collect();
                drop(held); // this thread's cache leases the whole budget as room
                for _ in left..BUFFERS {
                    drop(pool.get(1).detach());
                }
            }
        });
        assert_eq!(total(&pool).retained_buffers as usize, left);
        let held: Vec<PooledBuf> = (0..BUFFERS).map(|_| pool.get(1)).collect();
        drop(held);
        let after = total(&pool);
        assert_eq!(after.retained_buffers as usize, BUFFERS);
        assert_eq!(after.discards.full, 0);
        assert_accounts_balance(&pool);
    }
}

#[test]
fn a_guard_dropped_after_its_thread_ended_joins_the_dropping_threads_cache() {
    let pool = one_class(4096);
    let mut guard = on_a_thread({
        let pool = pool.clone();
        move || pool.get(1)
    });
    let address = guard.as_ptr();
    guard.extend_from_slice(b"from the dead");
    drop(guard);
    let again = pool.get(1);
    let after = total(&pool);
    assert_eq!((after.local_hits, after.misses), (1, 1));
    assert_eq!(again.as_ptr(), address);
    assert!(again.is_empty());
}

#[test]
fn threads_that_end_while_others_start_lose_nothing() {
    let pool = one_class(4096);
    let free = Arc::new(Mutex::new(Vec::<PooledBuf>::new()));
    for _ in 0..rounds(100, 3) {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (pool, free) = (pool.clone(), Arc::clone(&free));
                thread::spawn(move || {
                    let mine: Vec<PooledBuf> = (0..5).map(|_| pool.get(1)).collect();
                    // Taken here, and dropped by the next thread.
                    let others = std::mem::replace(&mut *free.lock().unwrap(), mine);
                    drop(others);
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }
    free.lock().unwrap().clear();
    let after = total(&pool);
    assert_eq!(after.outstanding, 0);
    assert_eq!(
        after.retained_buffers + after.discards.total(),
        after.misses,
        "each buffer is idle or was counted when it was freed"
    );
    assert_accounts_balance(&pool);
}

// ---- races with the end of the pool ----

/// Fills a buffer with one byte value, and asserts that the contents stay.
fn stamp(buf: &mut PooledBuf, value: u8) {
    buf.clear();
    buf.extend_from_slice(&[value; 200]);
}

fn assert_stamped(buf: &PooledBuf, value: u8) {
    assert_eq!(buf[..], [value; 200], "two owners of one buffer");
}

#[test]
fn the_last_handle_may_race_with_gets_and_drops() {
    const THREADS: usize = 4;
    for round in 0..rounds(300, 5) {
        let pool = Pool::builder()
            .classes([256, 1024])
            .zero_on_return(round % 3 == 0)
            .build()
            .unwrap();
        let start = Arc::new(Barrier::new(THREADS));
        let threads: Vec<_> = (0..THREADS)
            .map(|at| {
                let (pool, start) = (pool.clone(), Arc::clone(&start));
                thread::spawn(move || {
                    let value = at as u8 + 1;
                    let mut held = Vec::new();
                    start.wait();
                    for step in 0..(round * 7 + at * 13) % 100 {
                        let mut buf = pool.get(if step % 2 == 0 { 200 } else { 300 });
                        assert!(buf.is_empty());
                        stamp(&mut buf, value);
                        held.push(buf);
                        if step % 3 == 0 {
                            assert_stamped(&held.swap_remove(step % held.len()), value);
                        }
                    }
                    drop(pool);
                    // No buffer was taken away or given to another thread.
                    for buf in held {
                        assert_stamped(&buf, value);
                    }
                })
            })
            .collect();
        drop(pool);
        for thread in threads {
            thread.join().unwrap();
        }
    }
}

#[test]
fn the_last_handle_may_race_with_drops_that_overfill_the_caches() {
    for round in 0..rounds(100, 2) {
        let pool = one_class(256);
        let held: Vec<PooledBuf> = (0..200).map(|_| pool.get(1)).collect();
        let start = Arc::new(Barrier::new(2));
        let dropper = thread::spawn({
            let start = Arc::clone(&start);
            move || {
                start.wait();
                // Magazines go to the depot while the pool ends.
                drop(held);
            }
        });
        start.wait();
        for _ in 0..round % 50 {
            drop(pool.get(1));
        }
        drop(pool);
        dropper.join().unwrap();
    }
}

#[test]
fn the_last_handle_may_race_with_the_exit_of_threads() {
    for _ in 0..rounds(200, 3) {
        let pool = one_class(256);
        let start = Arc::new(Barrier::new(3));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (pool, start) = (pool.clone(), Arc::clone(&start));
                thread::spawn(move || {
                    let held: Vec<PooledBuf> = (0..70).map(|_| pool.get(1)).collect();
                    drop(held);
                    drop(pool);
                    start.wait();
                })
            })
            .collect();
        start.wait();
        drop(pool);
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
