//! Atomics and the counters made of them: the only file that names `std::sync::atomic`.
//!
//! Every other file takes its atomics from here, so that a model checker's can
//! be put in their place in one line.

pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicUsize, Ordering, compiler_fence, fence as full_fence,
};

/// The widest atomic integer up to 64 bits.
///
/// Where it has 32, a count wraps after 2^32 events, and one that shares its
/// word (in `engine/cache.rs`) after 2^24.
#[cfg(target_has_atomic = "64")]
pub(crate) type AtomicCount = std::sync::atomic::AtomicU64;
#[cfg(not(target_has_atomic = "64"))]
pub(crate) type AtomicCount = AtomicUsize;

/// A number of events, read by [`Stats`](crate::Stats) and by nothing that decides.
///
/// Every access is `Relaxed`: a counter orders nothing.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicCount);

impl Counter {
    /// Counts events where the calling thread is the only writer.
    ///
    /// A plain load, add and store: no read-modify-write.
    pub(crate) fn add_by_owner(&self, events: usize) {
        let count = self.0.load(Ordering::Relaxed);
        self.0
            .store(count.wrapping_add(events as _), Ordering::Relaxed);
    }

    /// Counts one event where several threads write.
    pub(crate) fn bump(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    #[allow(clippy::unnecessary_cast)] // `AtomicCount` is `AtomicUsize` on some machines
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed) as u64
    }
}
