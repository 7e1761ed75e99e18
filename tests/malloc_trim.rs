//! Only `Builder::malloc_trim` asks the system's heap to give pages back, and only after enough
//! bytes were freed.
//!
//! The pool calls the `malloc_trim` of this file, which counts its calls. There is one test, since
//! the process has one count.

#![cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]

use bytes::BytesMut;
use std::ffi::c_int;
use std::sync::atomic::{AtomicUsize, Ordering};
use tierpool::{Builder, Freed, Pool};

static CALLS: AtomicUsize = AtomicUsize::new(0);

/// Replaces glibc's function: a symbol of the program itself comes first.
// SAFETY: no other function of this name is in the program itself. It has the signature of glibc's,
// which it replaces. A caller must not depend on whether pages are given back.
#[unsafe(no_mangle)]
extern "C" fn malloc_trim(_keep: usize) -> c_int {
    CALLS.fetch_add(1, Ordering::Relaxed);
    0
}

const BUFFER: usize = 128 * 1024;
/// This number of buffers is a megabyte, and worth a call.
const ENOUGH: usize = 8;

/// Calls `free` on a pool that holds `buffers`. Returns how many buffers were freed, and how often
/// the heap was asked.
fn freeing(pool: &Pool, buffers: usize, free: impl Fn(&Pool) -> Freed) -> (usize, usize) {
    drop((0..buffers).map(|_| pool.get(BUFFER)).collect::<Vec<_>>());
    let before = CALLS.load(Ordering::Relaxed);
    let freed = free(pool).buffers;
    (freed, CALLS.load(Ordering::Relaxed) - before)
}

fn builder(asks: bool) -> Builder {
    Pool::builder().trim_interval(None).malloc_trim(asks)
}

#[test]
fn pools_that_may_ask_the_heap_ask_it_after_a_megabyte_was_freed() {
    let twice = |pool: &Pool| {
        assert_eq!(pool.trim().buffers, 0, "it was needed since the last");
        pool.trim()
    };
    for (asks, calls) in [(true, 1), (false, 0)] {
        let pool = builder(asks).build().unwrap();
        assert_eq!(freeing(&pool, ENOUGH, Pool::clear), (ENOUGH, calls));
        assert_eq!(freeing(&pool, ENOUGH, twice), (ENOUGH, calls));
        // A falling load that frees less each time.
        for _ in 0..3 {
            assert_eq!(freeing(&pool, ENOUGH - 1, Pool::clear), (ENOUGH - 1, 0));
            assert_eq!(freeing(&pool, 1, Pool::clear), (1, calls));
            assert_eq!(freeing(&pool, ENOUGH / 2, twice), (ENOUGH / 2, 0));
            assert_eq!(freeing(&pool, ENOUGH / 2, twice), (ENOUGH / 2, calls));
        }
        // Discarded buffers lie in the heap as well.
        let pool = builder(asks).retain_bytes(0).build().unwrap();
        assert_eq!(freeing(&pool, ENOUGH, Pool::trim), (0, calls));
        assert_eq!(freeing(&pool, ENOUGH - 1, Pool::trim), (0, 0));
        assert_eq!(freeing(&pool, 1, Pool::trim), (0, calls));
        // So do buffers without a size class, and shared ones.
        let pool = builder(asks).max_size(BUFFER / 2).build().unwrap();
        assert_eq!(freeing(&pool, ENOUGH, Pool::trim), (0, calls));
        let pool = builder(asks).build().unwrap();
        for _ in 0..ENOUGH {
            let mut buf = pool.get(BUFFER);
            buf.resize(BUFFER, 1);
            let bytes: &mut BytesMut = &mut buf;
            let part = bytes.split_off(BUFFER / 2);
            drop(buf);
            drop(part);
        }
        assert_eq!(pool.stats().total.discards.shared, ENOUGH as u64);
        assert_eq!(freeing(&pool, 0, Pool::trim), (0, calls));
        // Many pools that free little each.
        let pools: Vec<_> = (0..10 * ENOUGH).map(|_| builder(asks).build()).collect();
        let asked = pools.iter().map(|pool| {
            let (freed, asked) = freeing(pool.as_ref().unwrap(), 1, Pool::clear);
            assert_eq!(freed, 1);
            asked
        });
        assert_eq!(asked.sum::<usize>(), 10 * calls);
        // The drop of the last handle asks.
        let pool = builder(asks).build().unwrap();
        let (clone, guard) = (pool.clone(), pool.get(1));
        let drop_last = |_: &Pool| {
            drop(clone.clone()); // not the last one
            Freed::default()
        };
        assert_eq!(freeing(&pool, ENOUGH, drop_last), (0, 0));
        drop(pool);
        let before = CALLS.load(Ordering::Relaxed);
        drop(clone);
        assert_eq!(CALLS.load(Ordering::Relaxed) - before, calls);
        drop(guard);
    }
}
