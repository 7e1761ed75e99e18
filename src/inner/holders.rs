//! How many holders one slot has: its guard, and the parts that were cut from its contents.
//!
//! Owns the count, and makes the last holder see the work of the others. Knows nothing of slots.
//!
//! It works as the count of `std::sync::Arc`, except that it never ends: the last holder finds it
//! at 1, the value that an idle slot has.

use crate::sync::{AtomicUsize, Ordering};
use std::process;

pub(crate) struct Holders(AtomicUsize);

impl Holders {
    /// One holder.
    pub(crate) fn one() -> Self {
        Holders(AtomicUsize::new(1))
    }

    /// Counts one holder more. The caller is one of them.
    #[inline]
    pub(crate) fn join(&self) {
        // Relaxed: the caller holds the slot, so it is not the last one. If the new hold moves to
        // another thread, that move orders it.
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        if before > isize::MAX as usize {
            // Only a program that forgets holds gets here. If the count wrapped, a slot that is
            // outstanding would go home.
            process::abort();
        }
    }

    /// Whether the caller is the only holder. Stays true until the caller itself changes that.
    #[inline]
    pub(crate) fn is_alone(&self) -> bool {
        // Acquire: pairs with the Release in `leave`. The other holders' work on the slot comes
        // before this.
        self.0.load(Ordering::Acquire) == 1
    }

    /// Gives the caller's hold up. Returns `true` if it was the last one: then the caller has the
    /// slot to itself, and still holds it.
    #[inline]
    pub(crate) fn leave(&self) -> bool {
        if self.is_alone() {
            return true;
        }
        // AcqRel: Release pairs with the Acquire in `is_alone`, and with that of the last holder
        // here. Acquire makes the last holder see the others' work.
        if self.0.fetch_sub(1, Ordering::AcqRel) > 1 {
            return false;
        }
        // Relaxed: no one else holds the slot.
        self.0.store(1, Ordering::Relaxed);
        true
    }
}
