//! The names that the crate uses where no model checker runs it: the standard library's.
//!
//! Owns the choice among the standard library's atomics. Knows nothing of their use. `checked.rs`
//! has the same names.

pub(crate) use std::sync::atomic::AtomicPtr;
#[allow(unused_imports)] // each system has its own barrier
pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, compiler_fence, fence};
// For statics: a checker's atomics are made and forgotten with each run.
pub(crate) use std::sync::atomic::{
    AtomicBool as StaticBool, AtomicPtr as StaticPtr, AtomicUsize as StaticUsize,
};
pub(crate) use std::sync::{Mutex, MutexGuard};
pub(crate) use std::thread::yield_now;
pub(crate) use std::thread_local;

/// Shows a model checker that the caller has exclusive access to something.
pub(crate) struct Exclusive;

impl Exclusive {
    pub(crate) fn new() -> Self {
        Exclusive
    }

    #[inline(always)]
    pub(crate) fn touch(&self) {}
}

/// Shows a model checker the operations of a library's object.
#[cfg(feature = "limit")]
pub(crate) struct Unseen;

#[cfg(feature = "limit")]
impl Unseen {
    pub(crate) fn new() -> Self {
        Unseen
    }

    #[inline(always)]
    pub(crate) fn step(&self) {}

    #[inline(always)]
    pub(crate) fn step_at_end(&self) {}
}

/// Loads a number that no other thread stores to meanwhile. Not atomic, so that the compiler can
/// make it part of the instruction that uses it.
///
/// # Safety
///
/// - No other thread stores to it until the caller lets it.
#[inline(always)]
pub(crate) unsafe fn load_unshared(number: &AtomicUsize) -> usize {
    // SAFETY: the pointer comes from a reference, so it is valid. The caller excludes stores.
    unsafe { number.as_ptr().read() }
}

/// Whether a model checker runs this code.
pub(crate) const MODELLED: bool = false;

/// Whether the light barrier is a fence where the system runs no barrier for other threads: always,
/// except in a model.
#[inline(always)]
pub(crate) const fn light_is_a_fence() -> bool {
    true
}

#[cfg(target_has_atomic = "64")]
pub(super) type Count = std::sync::atomic::AtomicU64;
// A machine without 64-bit atomics loses count after 2^32 events.
#[cfg(not(target_has_atomic = "64"))]
pub(super) type Count = AtomicUsize;

/// The counter of a ring's pushes or pops: of 64 bits where the machine has such atomics
/// (`engine/ring.rs`, "When a position wraps").
pub(crate) type AtomicPosition = Count;
#[cfg(target_has_atomic = "64")]
pub(crate) type Position = u64;
#[cfg(not(target_has_atomic = "64"))]
pub(crate) type Position = usize;
