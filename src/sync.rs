//! Atomics and locks: the only file that names `std::sync::atomic` or loom.
//!
//! Every other file takes these from here. Under `--cfg loom` they are loom's,
//! for the models in `src/models`.

#[cfg(not(loom))]
mod imp {
    pub(crate) use crossbeam_queue::ArrayQueue;
    #[allow(unused_imports)] // each system has its own barrier
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, compiler_fence, fence};
    pub(crate) use std::sync::{Mutex, MutexGuard};
    pub(crate) use std::thread::yield_now;

    /// Shows a model checker that the caller has something to itself.
    pub(crate) struct Exclusive;

    impl Exclusive {
        pub(crate) fn new() -> Self {
            Exclusive
        }

        #[inline(always)]
        pub(crate) fn touch(&self) {}
    }

    /// Loads where nobody else stores meanwhile: not atomic, so that the compiler
    /// can make it part of the instruction that uses it.
    ///
    /// # Safety
    ///
    /// - No other thread stores to it until the caller lets it.
    #[inline(always)]
    pub(crate) unsafe fn load_unshared(number: &AtomicUsize) -> usize {
        // SAFETY: valid, being a reference; the caller excludes stores.
        unsafe { number.as_ptr().read() }
    }

    #[cfg(target_has_atomic = "64")]
    pub(super) type Count = std::sync::atomic::AtomicU64;
    // A machine without 64-bit atomics loses count after 2^32 events.
    #[cfg(not(target_has_atomic = "64"))]
    pub(super) type Count = AtomicUsize;
}

pub(crate) use imp::*;

use std::sync::{PoisonError, TryLockError};

/// Locks a mutex. Nothing panics while one is held but for want of memory, and
/// then what it guards is whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As [`lock`], unless another thread has it locked.
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// A number of events, read by [`Stats`](crate::Stats) and by nothing that decides.
///
/// Every access is `Relaxed`, unless it says otherwise: a counter orders nothing.
#[derive(Debug, Default)]
pub(crate) struct Counter(imp::Count);

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
        self.add(1);
    }

    /// Counts events where several threads write.
    pub(crate) fn add(&self, events: usize) {
        self.0.fetch_add(events as _, Ordering::Relaxed);
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
