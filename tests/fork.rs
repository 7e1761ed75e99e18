//! The pool in a child process that goes on after `fork` without `exec`
//! (`docs/memory.md`, "After fork").
//!
//! No test harness: its threads would be in the parent, too. An alarm after a minute ends a child
//! that hangs, and the test fails. No child needs a minute.

#[cfg(all(target_os = "linux", not(miri)))]
fn main() {
    linux::main();
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn main() {
    println!("forks on Linux only: nothing to check");
}

#[cfg(all(target_os = "linux", not(miri)))]
mod common {
    pub mod accounts;
}

#[cfg(all(target_os = "linux", not(miri)))]
mod linux {
    use crate::common::accounts::assert_accounts_balance;
    use bytes::BytesMut;
    use std::process;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Barrier};
    use std::thread;
    use std::time::Duration;
    use tierpool::{Counts, Pool, PooledBuf, PooledBytes};

    const ALARM_SECONDS: u32 = 60;

    pub(super) fn main() {
        // Facts with threads come last: the others must have one thread only.
        a_child_of_one_thread_uses_the_pool_as_its_parent_does();
        a_child_of_one_thread_may_leave_by_the_end_of_its_thread();
        a_child_of_threads_that_are_in_no_call_uses_the_pool();
        a_child_of_threads_in_calls_reads_its_guards();
        a_child_that_builds_a_pool_with_a_thread_has_that_thread();
        println!("5 facts about fork hold");
    }

    /// A process that this one has forked.
    struct Child(libc::pid_t);

    /// Forks. `None` in the child, which must [`leave`].
    fn fork() -> Option<Child> {
        // SAFETY: other threads of this process may hold locks at the fork. The child uses only
        // glibc's heap, which `fork` leaves whole, and the pool that this test is about.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
        if child > 0 {
            return Some(Child(child));
        }
        // SAFETY: takes a number, and ends the process after that time.
        unsafe { libc::alarm(ALARM_SECONDS) };
        None
    }

    /// Ends a child that has succeeded, without running destructors.
    fn leave() -> ! {
        // SAFETY: ends the process, and runs no code of it.
        unsafe { libc::_exit(0) }
    }

    impl Child {
        /// Waits for the child, which must succeed.
        fn has_done_well(self) {
            let mut status = 0;
            // SAFETY: writes one number, to the address that it is given.
            let waited = unsafe { libc::waitpid(self.0, &mut status, 0) };
            assert_eq!(waited, self.0);
            assert_eq!(status, 0, "the child failed, or hung and was ended");
        }
    }

    fn pool() -> Pool {
        let options = Pool::builder().classes([64, 1000]).trim_interval(None);
        options.build().unwrap()
    }

    fn total(pool: &Pool) -> Counts {
        pool.stats().total
    }

    fn filled(pool: &Pool, value: u8) -> PooledBuf {
        let mut buf = pool.get(900);
        buf.extend_from_slice(&[value; 900]);
        buf
    }

    /// Uses a pool in all ways, to its end.
    fn use_up(pool: Pool, mut guard: PooledBuf, frozen: PooledBytes) {
        assert_eq!((&guard[..], &frozen[..]), (&[1; 900][..], &[2; 900][..]));
        guard.extend_from_slice(&[3; 500]); // grows, through the pool and above it
        drop((guard, frozen));
        let held: Vec<PooledBuf> = (0..100).map(|at| pool.get(at * 11)).collect();
        drop(held);
        drop(pool.adopt(BytesMut::with_capacity(70)));
        pool.trim();
        pool.recalibrate();
        let before = total(&pool);
        assert_eq!(before.outstanding, 0);
        assert!(before.retained_buffers > 0);
        assert_eq!(pool.clear().buffers as u64, before.retained_buffers);
        drop(filled(&pool, 4));
        assert_accounts_balance(&pool);
        // A new thread of the child, and a new pool.
        thread::scope(|scope| {
            scope.spawn(|| drop(pool.get(64))).join().unwrap();
        });
        drop(self::pool().get(64));
        assert_accounts_balance(&pool);
        drop(pool);
    }

    fn a_child_of_one_thread_uses_the_pool_as_its_parent_does() {
        let pool = pool();
        drop([1, 900].map(|size| pool.get(size)));
        let (guard, frozen) = (filled(&pool, 1), filled(&pool, 2).freeze());
        let before = pool.stats();
        // Two children, to see that the first one has changed nothing for the second.
        for _ in 0..2 {
            let Some(child) = fork() else {
                use_up(pool, guard, frozen);
                leave();
            };
            child.has_done_well();
            assert_eq!(pool.stats(), before, "the child has a copy of the pool");
        }
        use_up(pool, guard, frozen);
    }

    fn a_child_that_builds_a_pool_with_a_thread_has_that_thread() {
        // A long interval, so that the parent's thread is in no call at the fork.
        let hour = Duration::from_secs(3600);
        let builder = Pool::builder().classes([64]);
        let of_parent = builder.clone().release_when_idle(hour).build().unwrap();
        thread::sleep(Duration::from_millis(50)); // the background thread waits by now
        let Some(child) = fork() else {
            let idle = Duration::from_millis(1);
            let pool = builder.release_when_idle(idle).build().unwrap();
            drop(pool.get(1));
            while total(&pool).trimmed == 0 {
                thread::sleep(idle); // until the alarm ends the process
            }
            drop((of_parent, pool));
            leave();
        };
        child.has_done_well();
    }

    fn a_child_of_one_thread_may_leave_by_the_end_of_its_thread() {
        let pool = pool();
        drop([1, 900].map(|size| pool.get(size)));
        let Some(child) = fork() else {
            drop(pool.get(64));
            process::exit(0); // runs the destructors of thread-locals
        };
        child.has_done_well();
        assert_eq!(total(&pool).retained_buffers, 2);
        drop((pool.get(64), pool.get(900)));
        assert_accounts_balance(&pool);
    }

    // A trim, and the end of the pool, reach the caches of threads that do not exist in the child.
    fn a_child_of_threads_that_are_in_no_call_uses_the_pool() {
        const THREADS: usize = 3;
        let pool = pool();
        let (guard, frozen) = (filled(&pool, 1), filled(&pool, 2).freeze());
        let cached = Arc::new(Barrier::new(THREADS + 1));
        let over = Arc::new(Barrier::new(THREADS + 1));
        let threads = [(); THREADS].map(|()| {
            let (pool, cached, over) = (pool.clone(), Arc::clone(&cached), Arc::clone(&over));
            thread::spawn(move || {
                drop((pool.get(64), filled(&pool, 9)));
                drop(pool); // so that the child has the last handle
                cached.wait();
                over.wait();
            })
        });
        cached.wait();
        let before = pool.stats();
        assert_eq!(before.total.retained_buffers, 2 * THREADS as u64);
        for clear in [false, true] {
            let Some(child) = fork() else {
                if clear {
                    assert_eq!(pool.clear().buffers, 2 * THREADS);
                }
                use_up(pool, guard, frozen);
                leave();
            };
            child.has_done_well();
            assert_eq!(pool.stats(), before);
        }
        over.wait();
        for thread in threads {
            thread.join().unwrap();
        }
        use_up(pool, guard, frozen);
    }

    fn a_child_of_threads_in_calls_reads_its_guards() {
        const FORKS: usize = 50;
        let pool = pool();
        let mut guard = filled(&pool, 1);
        let frozen = filled(&pool, 2).freeze();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let threads = [0, 1].map(|at| {
                let (pool, over) = (&pool, &over);
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        let held: Vec<PooledBuf> = (0..70).map(|_| pool.get(60)).collect();
                        drop(held);
                        match at {
                            0 => _ = pool.trim(),
                            _ => _ = pool.stats(),
                        }
                    }
                })
            });
            for _ in 0..FORKS {
                let Some(child) = fork() else {
                    // Only allowed actions: reads, writes within the capacity, and no calls of the
                    // pool.
                    assert_eq!((&guard[..], &frozen[..]), (&[1; 900][..], &[2; 900][..]));
                    guard.as_mut()[0] = 7;
                    assert_eq!(guard[..2], [7, 1]);
                    leave();
                };
                child.has_done_well();
                assert_eq!(guard[..], [1; 900], "the child has a copy of the guard");
            }
            over.store(true, Ordering::Relaxed);
            // The end of a scope does not wait for its threads' destructors, which move buffers to
            // the depot.
            for thread in threads {
                thread.join().unwrap();
            }
        });
        use_up(pool, guard, frozen);
    }
}
