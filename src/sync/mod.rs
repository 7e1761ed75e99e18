//! Atomics, locks and threads for the rest of the crate.
//!
//! Owns the choice of their source: the standard library or, under `--cfg loom` or `--cfg shuttle`,
//! that model checker. Knows nothing of their use. Only the files in this folder name
//! `std::sync::atomic`, loom or shuttle.

mod counter;
pub(crate) use counter::{Counter, Hint};

#[cfg(not(any(loom, shuttle)))]
mod native;
#[cfg(not(any(loom, shuttle)))]
pub(crate) use native::*;

#[cfg(any(loom, shuttle))]
mod checked;
#[cfg(any(loom, shuttle))]
pub(crate) use checked::*;
#[cfg(any(loom, shuttle))]
mod weaken;
#[cfg(all(loom, test))]
pub(crate) use weaken::fail_without;

#[cfg(loom)]
#[path = "loom.rs"]
pub(crate) mod checker;
#[cfg(all(shuttle, not(loom)))]
#[path = "shuttle.rs"]
pub(crate) mod checker;

use std::sync::{PoisonError, TryLockError};

/// Locks a mutex. No code panics while it holds one, except where the heap has no memory. The
/// guarded data is whole then, too.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As [`lock`]; `None` if another thread has it locked.
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
