//! A batch of items of one size class that moves whole between levels.
//!
//! Owns the items in it. Knows nothing of the levels that it moves between.

use super::item::MAGAZINE_ROUNDS;
use std::mem::{self, MaybeUninit};

/// Moves rounds, initialised or not, to the same number of other places.
#[inline]
fn move_rounds<T>(from: &mut [MaybeUninit<T>], to: &mut [MaybeUninit<T>]) {
    for (from, to) in from.iter_mut().zip(to) {
        *to = mem::replace(from, MaybeUninit::uninit());
    }
}

/// Moves all but the first `out` rounds down to the beginning. The first ones were taken before.
#[inline]
pub(super) fn close_gap<T>(rounds: &mut [MaybeUninit<T>], out: usize) {
    let (taken, rest) = rounds.split_at_mut(out);
    match rest.len() <= taken.len() {
        true => move_rounds(rest, taken), // cheaper, and the usual case
        false => rounds.rotate_left(out),
    }
}

/// A batch of items of one size class that moves whole between levels.
pub(super) struct Magazine<T> {
    len: usize,
    /// `rounds[..len]` are initialised, the rest is not.
    rounds: [MaybeUninit<T>; MAGAZINE_ROUNDS],
}

impl<T> Magazine<T> {
    /// An empty magazine.
    pub(super) fn new() -> Self {
        Magazine {
            len: 0,
            rounds: [const { MaybeUninit::uninit() }; MAGAZINE_ROUNDS],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Ends all items with `free`.
    pub(super) fn free(mut self, free: impl Fn(T)) {
        while let Some(item) = self.pop() {
            free(item);
        }
    }

    /// Adds items on top.
    ///
    /// # Panics
    ///
    /// - If the magazine would hold more than [`MAGAZINE_ROUNDS`].
    #[inline]
    pub(super) fn add(&mut self, items: impl ExactSizeIterator<Item = T>) {
        let mut added = 0; // not `self.len`: so the compiler copies memory at once where it can
        let rounds = &mut self.rounds[self.len..][..items.len()];
        for (round, item) in rounds.iter_mut().zip(items) {
            round.write(item);
            added += 1;
        }
        self.len += added;
    }

    /// Moves the first items here to `rounds`, as many as there are places. Returns how many.
    ///
    /// The moved items are initialised there from now on. Earlier contents of `rounds` are not
    /// dropped.
    #[inline]
    pub(super) fn move_to(&mut self, rounds: &mut [MaybeUninit<T>]) -> usize {
        let moved = self.len.min(rounds.len());
        move_rounds(&mut self.rounds[..moved], &mut rounds[..moved]);
        close_gap(&mut self.rounds[..self.len], moved);
        self.len -= moved;
        moved
    }

    /// Moves the first items here, at most `max`, to a new magazine.
    pub(super) fn split_first(&mut self, max: usize) -> Self {
        let mut first = Magazine::new();
        first.len = self.move_to(&mut first.rounds[..max.min(MAGAZINE_ROUNDS)]);
        first
    }

    /// Adds an item on top.
    ///
    /// # Panics
    ///
    /// - If the magazine holds [`MAGAZINE_ROUNDS`] already.
    pub(super) fn push(&mut self, item: T) {
        self.rounds[self.len].write(item);
        self.len += 1;
    }

    /// Takes the item that was added last.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.len = self.len.checked_sub(1)?;
        // SAFETY: this round was below the old `len`, so it is initialised; the new `len` excludes
        // it, so no code reads it again.
        Some(unsafe { self.rounds[self.len].assume_init_read() })
    }
}

impl<T> Drop for Magazine<T> {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}
