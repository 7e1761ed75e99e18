//! The promises of the public interface, one module per promise.

#[path = "../common"]
mod common {
    pub mod accounts;
    pub mod model;
    pub mod secret;
    pub mod wait;
}

mod bounds;
mod bytes_suite;
mod classes;
mod coming_home;
mod config;
mod drop_rule;
mod fill;
mod fit;
mod footprint;
mod growth;
mod idle_memory;
mod io;
mod keep_idle;
mod learning;
mod on_trim;
#[cfg(feature = "serde")]
mod outside;
mod oversize;
mod panics;
mod parts;
mod profile;
mod proptests;
mod set_budget;
mod stats;
mod targets;
mod threads;
mod traits;
mod trees;
mod trim;
mod try_get;
mod zero_on_return;

use common::accounts::assert_accounts_balance;
use tierpool::{Builder, Counts, Pool, PooledBuf, Targets};

/// Options for a pool that frees nothing by time, so that counts are exact on any machine.
fn options(classes: &[usize]) -> Builder {
    Pool::builder()
        .classes(classes.iter().copied())
        .trim_interval(None)
}

/// A pool whose classes leave gaps, so that rounding up and down shows.
fn pool_of(classes: &[usize]) -> Pool {
    options(classes).build().unwrap()
}

fn total(pool: &Pool) -> Counts {
    pool.stats().total
}

/// The counts of the class with this capacity.
fn class(pool: &Pool, capacity: usize) -> Counts {
    let stats = pool.stats();
    let found = stats
        .classes
        .iter()
        .find(|class| class.capacity == capacity);
    found.expect("one of the pool's classes").counts
}

/// The targets as a pair: `default_size` and `max_size`.
fn sizes(targets: Targets) -> (usize, usize) {
    (targets.default_size, targets.max_size)
}

/// The addresses of the bytes that a guard may write, as a range.
fn memory(buf: &PooledBuf) -> std::ops::Range<usize> {
    let start = buf.as_ptr().addr();
    start..start + buf.capacity()
}

/// Asserts that no byte is in two of these ranges.
fn assert_disjoint(ranges: impl IntoIterator<Item = std::ops::Range<usize>>) {
    let mut ranges: Vec<_> = ranges
        .into_iter()
        .filter(|range| !range.is_empty())
        .collect();
    ranges.sort_by_key(|range| range.start);
    for pair in ranges.windows(2) {
        assert!(pair[0].end <= pair[1].start, "two owners: {pair:x?}");
    }
}

/// Takes buffers until the pool makes one, and asserts that no two share memory.
///
/// Then returns all of them.
fn assert_idle_buffers_are_disjoint_and_whole(pool: &Pool) {
    let mut held = Vec::new();
    for &capacity in pool.classes() {
        let before = class(pool, capacity).misses;
        while class(pool, capacity).misses == before {
            let buf = pool.get(capacity);
            assert!(buf.is_empty());
            assert!(buf.capacity() >= capacity);
            held.push(buf);
        }
    }
    assert_disjoint(held.iter().map(memory));
}

/// Whether each step costs microseconds. It does under Miri, and under valgrind, where
/// `scripts/sanitize.sh` sets `--cfg slow`.
const SLOW: bool = cfg!(any(miri, slow));

/// Fewer if [`SLOW`].
const fn rounds(native: usize, slow: usize) -> usize {
    if SLOW { slow } else { native }
}
