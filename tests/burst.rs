//! What a single get costs while more and more buffers are out.
//!
//! Counted in the pages that the call is the first to touch, since those cost the time. The
//! allocator is the system's, and this is the only test, since it is about that heap.

#![cfg(all(target_os = "linux", not(miri)))]

use std::mem::MaybeUninit;
use tierpool::Pool;

/// Pages that the calling thread touched first, up to now.
fn pages_touched() -> libc::c_long {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: writes one `rusage`, to the one that it is given, and returns 0 if it did.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    usage.ru_minflt
}

// Failed once: each get that made room for twice as many in the depot wrote to all of that
// room, 69 pages at 4,096 buffers. At 917,504 that took 7 ms.
#[test]
fn no_get_touches_more_than_a_few_pages_however_many_buffers_are_out() {
    const CAPACITY: usize = 512;
    const BUFFERS: usize = 140_000;
    const PAGES_MOST: libc::c_long = 40;
    // SAFETY: takes numbers. Pages are of one size then.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    let pool = Pool::builder().retain_bytes(1 << 30).build().unwrap();
    let mut held = Vec::with_capacity(BUFFERS);
    for at in 0..BUFFERS {
        let before = pages_touched();
        let buf = pool.get(CAPACITY);
        let touched = pages_touched() - before;
        assert!(touched <= PAGES_MOST, "get {at} touched {touched} pages");
        held.push(buf);
    }
    // Nor is the cost put off to one of the drops.
    for (at, buf) in held.drain(..).enumerate() {
        let before = pages_touched();
        drop(buf);
        let touched = pages_touched() - before;
        assert!(touched <= PAGES_MOST, "drop {at} touched {touched} pages");
    }
    assert_eq!(pool.stats().total.retained_buffers, BUFFERS as u64);
}
