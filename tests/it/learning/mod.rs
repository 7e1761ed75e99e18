//! What a pool learns from the buffers that come back, and what follows.
//!
//! A pool looks at a sample of the returns:
//!
//! - `by_count` and `by_time`: when the pool chooses targets.
//! - `recorded`: what it looks at.
//! - `threads`: how the threads' samples come together.
//! - `shares`: the samples show the program as it is.
//! - `follows`: what the targets change.

mod by_count;
mod by_time;
mod follows;
mod recorded;
mod shares;
mod threads;

use crate::options;
use bytes::BufMut;
use std::thread;
use std::time::{Duration, Instant};
use tierpool::{Builder, Histogram, Pool, Targets};

const PERCENTILE: f64 = 0.95;

/// A power of two, and between two of them, so that the steps are seen to be
/// rounded up to classes.
const CLASSES: [usize; 6] = [64, 200, 1024, 5000, 65_536, 1 << 20];

/// How many returns of each thread and size class the pool looks at one by one.
const EACH_SAMPLED: u64 = 32;

/// The most returns of a thread and a size class that come between two samples.
///
/// The second sample counts for them. Until then, they are not counted.
const BETWEEN_SAMPLES: u64 = 95;

/// The most returns that a thread has counted and not told, where all threads together have
/// counted `all` in this interval.
fn untold(all: u64) -> u64 {
    (all / 16).clamp(1, 2048)
}

/// Options for a pool that calibrates by count and not by time.
fn by_count(threshold: u64) -> Builder {
    options(&CLASSES)
        .calibrate_after(threshold)
        .calibrate_interval(None)
}

/// A pool that calibrates only when the test calls `recalibrate`.
fn by_hand() -> Pool {
    // Not even if the drop rule discards many.
    by_count(u64::MAX).learn_sizes(false).build().unwrap()
}

/// As [`by_hand`], and looks at each return: none takes the fast path.
fn by_hand_of_all() -> Pool {
    let builder = by_count(u64::MAX).thread_cache_bytes(0);
    builder.build().unwrap()
}

/// Gives the thread its caches, in which it records returns, and records none.
///
/// A thread has none before it has taken a buffer of a size class, or has kept one.
fn attach(pool: &Pool) {
    drop(pool.get(1).detach());
}

/// Takes a buffer for `request` bytes, writes `len`, and gives it back.
fn use_one(pool: &Pool, request: usize, len: usize) {
    pool.get(request).put_bytes(7, len);
}

/// The targets of these lengths alone.
fn pure(lengths: impl IntoIterator<Item = usize>) -> Targets {
    let histogram: Histogram = lengths.into_iter().collect();
    histogram.targets(PERCENTILE).unwrap()
}

/// How often a pool has calibrated.
fn calibrations(pool: &Pool) -> u64 {
    pool.stats().calibrations
}

/// Waits for what must come about at some time. Fails if it does not in a minute,
/// which says nothing about how fast it should be.
#[track_caller]
fn wait_until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "it has not come about");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Sees each calibration of a pool once.
struct Watch {
    seen: u64,
}

impl Watch {
    fn new() -> Self {
        Watch { seen: 0 }
    }

    /// From how many returns the pool calibrated, if it did since this was asked.
    fn next(&mut self, pool: &Pool) -> Option<u64> {
        let now = calibrations(pool);
        let new = now != self.seen;
        self.seen = now;
        new.then(|| pool.profile().calls())
    }
}
