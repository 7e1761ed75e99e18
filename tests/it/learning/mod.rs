//! What a pool learns from returned buffers, and the effects of that.
//!
//! A pool records a sample of the returns. The tests are in these files:
//!
//! - `by_count` and `by_time`: when the pool chooses targets.
//! - `recorded`: which lengths it records.
//! - `threads`: how the threads' samples come together.
//! - `shares`: whether samples show the true shares of sizes.
//! - `follows`: the effects of the targets.

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

/// Powers of two, and sizes between powers of two, to see that steps are rounded up to classes.
const CLASSES: [usize; 6] = [64, 200, 1024, 5000, 65_536, 1 << 20];

/// How many first returns of each thread and size class are all samples.
const EACH_SAMPLED: u64 = 32;

/// The most returns of a thread and a size class between two samples.
///
/// The second sample counts for them. They are not counted before.
const BETWEEN_SAMPLES: u64 = 95;

/// The most returns that a thread has counted and not told, if all threads together have counted
/// `all` in this interval.
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
    // It does not calibrate after many discards, either.
    by_count(u64::MAX).learn_sizes(false).build().unwrap()
}

/// As [`by_hand`], and each return is a sample: none takes the fast path.
fn by_hand_of_all() -> Pool {
    let builder = by_count(u64::MAX).thread_cache_bytes(0);
    builder.build().unwrap()
}

/// Gives the thread its caches, in which it records returns, and records no return.
///
/// A thread has no caches before it has taken or kept a buffer of a size class.
fn attach(pool: &Pool) {
    drop(pool.get(1).detach());
}

/// Takes a buffer for `request` bytes, writes `len` bytes, and returns it.
fn use_one(pool: &Pool, request: usize, len: usize) {
    pool.get(request).put_bytes(7, len);
}

/// The targets that follow from these lengths only.
fn pure(lengths: impl IntoIterator<Item = usize>) -> Targets {
    let histogram: Histogram = lengths.into_iter().collect();
    histogram.targets(PERCENTILE).unwrap()
}

/// How often a pool has calibrated.
fn calibrations(pool: &Pool) -> u64 {
    pool.stats().calibrations
}

/// Waits for an event without a fixed time. Fails after a minute, which is no measure of the
/// expected time.
#[track_caller]
fn wait_until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "it has not come about");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Reports each calibration of a pool once.
struct Watch {
    seen: u64,
}

impl Watch {
    fn new() -> Self {
        Watch { seen: 0 }
    }

    /// From how many returns the pool has calibrated, if it has done so since the last call.
    fn next(&mut self, pool: &Pool) -> Option<u64> {
        let now = calibrations(pool);
        let new = now != self.seen;
        self.seen = now;
        new.then(|| pool.profile().calls())
    }
}
