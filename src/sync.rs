//! Atomics and the counters made of them: the only file that names `std::sync::atomic`.
//!
//! Every other file takes its atomics from here, so that a model checker's can
//! be put in their place.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, compiler_fence, fence};

#[cfg(target_has_atomic = "64")]
type Count = std::sync::atomic::AtomicU64;
// A machine without 64-bit atomics loses count after 2^32 events.
#[cfg(not(target_has_atomic = "64"))]
type Count = AtomicUsize;

/// A number of events, read by [`Stats`](crate::Stats) and by nothing that decides.
///
/// Every access is `Relaxed`, unless it says otherwise: a counter orders nothing.
#[derive(Debug, Default)]
pub(crate) struct Counter(Count);

impl Counter {
    /// Counts events where the calling thread is the only writer.
    ///
    /// A plain load, add and store: no read-modify-write. `Release`, so that
    /// whoever has read the count and then passed an `Acquire` fence sees what
    /// was written before it.
    #[inline(always)]
    pub(crate) fn add_by_owner(&self, events: usize) {
        let count = self.0.load(Ordering::Relaxed);
        self.0
            .store(count.wrapping_add(events as _), Ordering::Release);
    }

    /// Counts one event where several threads write.
    pub(crate) fn bump(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Raises the count to `least` if it is below, and returns what it is then.
    #[allow(clippy::unnecessary_cast)] // `Count` is `AtomicUsize` on some machines
    pub(crate) fn raise_to(&self, least: u64) -> u64 {
        let before = self.0.fetch_max(least as _, Ordering::Relaxed) as u64;
        before.max(least)
    }

    #[allow(clippy::unnecessary_cast)] // `Count` is `AtomicUsize` on some machines
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed) as u64
    }
}
