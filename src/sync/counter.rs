//! Numbers that order nothing: hints, and counts of events.
//!
//! Owns their orderings. Knows nothing of the events.

use super::{Count, Ordering, StaticUsize};

/// A number that only decides when, or how far, to do work that is correct at any time.
///
/// Every access is `Relaxed`: a hint orders nothing, and another thread may overwrite it. So a
/// model checker need not try which of its values each thread sees.
#[derive(Debug, Default)]
pub(crate) struct Hint(StaticUsize);

impl Hint {
    pub(crate) const fn new(value: usize) -> Self {
        Hint(StaticUsize::new(value))
    }

    #[inline(always)]
    pub(crate) fn get(&self) -> usize {
        // Relaxed, here and below: see `Hint`.
        self.0.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn set(&self, value: usize) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds, and loses no other thread's change. Returns the sum.
    pub(crate) fn add(&self, more: usize) -> usize {
        self.0.fetch_add(more, Ordering::Relaxed).wrapping_add(more)
    }

    /// As [`add`](Self::add), but subtracts.
    pub(crate) fn subtract(&self, less: usize) {
        // Relaxed: see `Hint`.
        self.0.fetch_sub(less, Ordering::Relaxed);
    }
}

/// A number of events, for [`Stats`](crate::Stats) and the calibrator.
///
/// Every access is `Relaxed`, unless its comment names another ordering: a counter orders nothing.
#[derive(Debug, Default)]
pub(crate) struct Counter(Count);

impl Counter {
    /// Counts events where the calling thread is the only writer.
    ///
    /// A plain load, add and store: no read-modify-write. `Release`: a thread that has read the
    /// count and then passed an `Acquire` fence sees everything that was written before the count.
    #[inline(always)]
    pub(crate) fn add_by_owner(&self, events: usize) {
        let count = self.0.load(Ordering::Relaxed);
        self.0
            .store(count.wrapping_add(events as _), Ordering::Release);
    }

    /// Counts one event where several threads write.
    pub(crate) fn bump(&self) {
        self.add(1);
    }

    /// Counts events where several threads write.
    pub(crate) fn add(&self, events: usize) {
        // Relaxed: see `Counter`.
        self.0.fetch_add(events as _, Ordering::Relaxed);
    }

    /// Raises the count to `least` if it is below. Returns the result.
    #[allow(clippy::unnecessary_cast)] // `Count` is `AtomicUsize` on some machines
    pub(crate) fn raise_to(&self, least: u64) -> u64 {
        // Relaxed: see `Counter`.
        let before = self.0.fetch_max(least as _, Ordering::Relaxed) as u64;
        before.max(least)
    }

    #[allow(clippy::unnecessary_cast)] // `Count` is `AtomicUsize` on some machines
    #[inline(always)]
    pub(crate) fn get(&self) -> u64 {
        // Relaxed: see `Counter`.
        self.0.load(Ordering::Relaxed) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_has_atomic = "64")]
    #[test]
    fn a_counter_goes_on_beyond_32_bits() {
        let counter = Counter::default();
        let mut expected = u64::from(u32::MAX) - 2;
        assert_eq!(counter.raise_to(expected), expected);
        for _ in 0..5 {
            counter.bump();
            counter.add_by_owner(1);
            counter.add(1000);
            expected += 1002;
            assert_eq!(counter.get(), expected);
        }
        assert_eq!(counter.raise_to(7), expected, "it does not fall");
    }
}
