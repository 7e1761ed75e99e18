//! The cost of a single get while more and more buffers are outstanding.
//!
//! Counted in pages that the call is the first to touch, since these take the time. The heap is the
//! system's. This is the only test here, since other tests would use the same heap.

#![cfg(all(target_os = "linux", not(miri)))]

use std::mem::MaybeUninit;
use tierpool::Pool;

/// How many pages the calling thread was the first to touch so far.
fn pages_touched() -> libc::c_long {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: writes one `rusage`, to the one that it is given, and returns 0 on success.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    usage.ru_minflt
}

// Failed once: a get that doubled the room in the depot wrote to all of that room, 69 pages at
// 4,096 buffers. At 917,504 buffers that took 7 ms.
#[test]
fn no_get_touches_more_than_a_few_pages_however_many_buffers_are_outstanding() {
    const CAPACITY: usize = 512;
    const BUFFERS: usize = 140_000;
    const PAGES_MOST: libc::c_long = 40;
    // SAFETY: takes numbers only. All pages have one size then.
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
    // The cost is not moved to one of the drops, either.
    for (at, buf) in held.drain(..).enumerate() {
        let before = pages_touched();
        drop(buf);
        let touched = pages_touched() - before;
        assert!(touched <= PAGES_MOST, "drop {at} touched {touched} pages");
    }
    assert_eq!(pool.stats().total.retained_buffers, BUFFERS as u64);
}
