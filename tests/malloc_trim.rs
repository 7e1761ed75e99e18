//! When the system's heap is asked to give pages back: by `Builder::malloc_trim` alone, and
//! for as much as is worth it.
//!
//! The `malloc_trim` that the pool calls is the one here, which counts its calls. One test,
//! since the count is one for the process.

#![cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]

use std::ffi::c_int;
use std::sync::atomic::{AtomicUsize, Ordering};
use tierpool::{Freed, Pool};

static CALLS: AtomicUsize = AtomicUsize::new(0);

/// In the place of glibc's, since what is linked into the program itself comes first.
// SAFETY: no other function of this name is in the program itself; glibc's, which this one
// stands in for, has the same signature; and whoever calls it must not care whether pages
// are given back.
#[unsafe(no_mangle)]
extern "C" fn malloc_trim(_keep: usize) -> c_int {
    CALLS.fetch_add(1, Ordering::Relaxed);
    0
}

const BUFFER: usize = 128 * 1024;
/// So many buffers are a megabyte, and worth a call.
const ENOUGH: usize = 8;

/// How many buffers were freed, and how often the heap was asked, when `free` was called on a
/// pool that holds so many.
fn freeing(pool: &Pool, buffers: usize, free: impl Fn(&Pool) -> Freed) -> (usize, usize) {
    drop((0..buffers).map(|_| pool.get(BUFFER)).collect::<Vec<_>>());
    let before = CALLS.load(Ordering::Relaxed);
    let freed = free(pool).buffers;
    (freed, CALLS.load(Ordering::Relaxed) - before)
}

#[test]
fn the_heap_is_asked_after_a_megabyte_was_freed_if_the_pool_is_to_ask() {
    let twice = |pool: &Pool| {
        assert_eq!(pool.trim().buffers, 0, "it was needed since the last");
        pool.trim()
    };
    for (asks, calls) in [(true, 1), (false, 0)] {
        let options = Pool::builder().trim_interval(None).malloc_trim(asks);
        let pool = options.build().unwrap();
        assert_eq!(freeing(&pool, ENOUGH, Pool::clear), (ENOUGH, calls));
        assert_eq!(freeing(&pool, ENOUGH - 1, Pool::clear), (ENOUGH - 1, 0));
        assert_eq!(freeing(&pool, ENOUGH, twice), (ENOUGH, calls));
        assert_eq!(freeing(&pool, ENOUGH - 1, twice), (ENOUGH - 1, 0));
        // What found no room in the pool lies in the heap as well.
        let options = Pool::builder().trim_interval(None).malloc_trim(asks);
        let pool = options.retain_bytes(0).build().unwrap();
        assert_eq!(freeing(&pool, ENOUGH, Pool::trim), (0, calls));
        assert_eq!(freeing(&pool, ENOUGH - 1, Pool::trim), (0, 0));
        assert_eq!(
            freeing(&pool, 1, Pool::trim),
            (0, calls),
            "with those before"
        );
    }
}
