//! Which programs pay page faults for buffers that find no room in the pool.
//!
//! One test, since it sets the heap's options so that the heap itself gives no pages back.

#![cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]

use bytes::BytesMut;
use std::mem::MaybeUninit;
use std::time::Duration;
use tierpool::{Builder, Pool, PooledBuf};

const SMALL: usize = 32 << 10;
const LARGE: usize = 64 << 10;
const PAGE: usize = 4096;
const HOUR: Duration = Duration::from_secs(3600);

/// How many page faults each round of `work` takes, after a warm-up.
fn faults(rounds: u32, mut work: impl FnMut()) -> f64 {
    let faults_so_far = || {
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: writes one `rusage`, which may be all zeros as well.
        let usage = unsafe {
            libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
            usage.assume_init()
        };
        usage.ru_minflt as f64
    };
    (0..rounds).for_each(|_| work());
    let before = faults_so_far();
    (0..rounds).for_each(|_| work());
    (faults_so_far() - before) / f64::from(rounds)
}

/// A pool that keeps nothing, so that each buffer is made and discarded.
fn keeps_nothing() -> Builder {
    Pool::builder().release_when_idle(HOUR).retain_bytes(0)
}

/// A buffer, each page of it written to.
fn filled(pool: &Pool, len: usize) -> PooledBuf {
    let mut buf = pool.get(len);
    buf.resize(len, 1);
    buf
}

/// The pages that the process has in memory.
fn resident_pages() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_program_that_takes_and_drops_in_turn_keeps_its_pages() {
    // SAFETY: set two numbers of the heap, before other threads use it.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30);
    }
    let pool = keeps_nothing().build().unwrap();
    let one_by_one = || drop(filled(&pool, LARGE));
    assert!(faults(100, one_by_one) < 1.0);
    // Failed once: a buffer that moved to a larger class there did not count as an arrival.
    let grown_behind_deref_mut = || {
        let mut buf = pool.get(SMALL);
        let bytes: &mut BytesMut = &mut buf;
        bytes.resize(LARGE, 1);
    };
    assert!(faults(100, grown_behind_deref_mut) < 1.0);
    let grown = || {
        let mut buf = filled(&pool, SMALL);
        buf.resize(LARGE, 1);
    };
    assert!(faults(100, grown) < 1.0);
    // Eight at a time are no more than 512 KiB.
    let by_eight = || drop([(); 8].map(|()| filled(&pool, LARGE)));
    assert!(faults(20, by_eight) < 1.0);
    // A falling load gives its pages back, although the program goes on taking buffers.
    let mut held: Vec<_> = (0..500).map(|_| filled(&pool, LARGE)).collect();
    let before = resident_pages();
    for _ in 0..400 {
        held.truncate(held.len() - 2);
        held.insert(0, filled(&pool, LARGE));
    }
    let given_back = before.saturating_sub(resident_pages());
    assert!(given_back >= 200 * LARGE / PAGE, "{given_back} pages");
    // After that it pays for no pages.
    assert!(faults(100, one_by_one) < 1.0);
    // The last handle's drop gives all pages back, too.
    let pool = Pool::builder().background_trim(true).build().unwrap();
    drop([(); 200].map(|()| filled(&pool, LARGE)));
    let before = resident_pages();
    drop(pool);
    let given_back = before.saturating_sub(resident_pages());
    assert!(given_back >= 180 * LARGE / PAGE, "{given_back} pages");
}
