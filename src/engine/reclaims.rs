//! The record that a class keeps of refused returns and of its reclaims.
//!
//! Owns when a miss is worth a reclaim. Knows nothing of items or of caches.

use crate::backoff::Backoff;
use crate::sync::Hint;

/// The most times that a thread's share of a class is halved.
///
/// 7: from 64 items to none.
const HALVED_MOST: usize = 7;

/// A returned item of a class was refused, and no miss has come since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Refused {
    No,
    /// The class had reached its limit.
    ByClass,
    /// All classes together had reached the budget.
    ByBudget,
}

/// The record that a class keeps of returns that were refused, and of its reclaims.
pub(super) struct Reclaims {
    /// A [`Refused`], as a number.
    refused: Hint,
    /// The thread at which the next reclaim begins to look.
    next: Hint,
    /// Which misses pass without a reclaim.
    pub(super) backoff: Backoff,
    /// How often a thread's share of the class is halved.
    halved: Hint,
}

impl Reclaims {
    pub(super) fn new() -> Self {
        Reclaims {
            refused: Hint::new(Refused::No as usize),
            next: Hint::new(0),
            backoff: Backoff::new(),
            halved: Hint::new(0),
        }
    }

    pub(super) fn note_refused(&self, refused: Refused) {
        self.refused.set(refused as usize);
    }

    pub(super) fn is_refused(&self) -> bool {
        self.refused.get() != Refused::No as usize
    }

    /// Returns whether a larger budget would have avoided the present miss.
    pub(super) fn note_miss(&self) -> bool {
        let refused = self.refused.get();
        if refused == Refused::No as usize {
            return false;
        }
        self.refused.set(Refused::No as usize);
        // The refused item would have served this get: threads' caches hold too much of the class.
        self.tighten();
        refused == Refused::ByBudget as usize
    }

    /// Halves a thread's share of the class.
    pub(super) fn tighten(&self) {
        self.halved.set((self.halved.get() + 1).min(HALVED_MOST));
    }

    /// Doubles a thread's share of the class, up to its limits.
    pub(super) fn relax(&self) {
        self.halved.set(self.halved.get().saturating_sub(1));
    }

    /// How often a thread's share of the class is halved.
    pub(super) fn halvings(&self) -> usize {
        self.halved.get()
    }

    /// The thread at which the next reclaim begins to look.
    pub(super) fn next(&self) -> usize {
        self.next.get()
    }

    pub(super) fn set_next(&self, next: usize) {
        self.next.set(next);
    }
}
