//! A batch of items of one size class that moves whole between levels.
//!
//! Owns the items in it. Knows nothing of where it comes from or goes.

use super::item::{Item, MAGAZINE_ROUNDS};
use std::mem::MaybeUninit;
use std::ptr;

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

    /// Moves `more` items from `rounds` on to the end of this magazine.
    ///
    /// # Safety
    ///
    /// - `rounds` points to `more` initialised items, which no code uses there any more.
    /// - With these the magazine holds at most [`MAGAZINE_ROUNDS`].
    pub(super) unsafe fn add_from(&mut self, rounds: *const MaybeUninit<T>, more: usize) {
        // SAFETY: `more` rounds are readable there, and there is room for them
        // here, as the caller promises. The items are used here only from now on.
        unsafe {
            let end = self.rounds.as_mut_ptr().add(self.len);
            ptr::copy_nonoverlapping(rounds, end, more);
        }
        self.len += more;
    }

    /// Moves the first items here, at most `max`, to `rounds`. Returns how many.
    ///
    /// # Safety
    ///
    /// - `rounds` points to room for `max` items that no code uses.
    pub(super) unsafe fn move_to(&mut self, rounds: *mut MaybeUninit<T>, max: usize) -> usize {
        let moved = self.len.min(max);
        let here = self.rounds.as_mut_ptr();
        // SAFETY: `moved` rounds are initialised here, and writable there, as
        // the caller promises. The rest moves down over them, so that `..len`
        // is initialised again, and what was moved is used there only.
        unsafe {
            ptr::copy_nonoverlapping(here, rounds, moved);
            ptr::copy(here.add(moved), here, self.len - moved);
        }
        self.len -= moved;
        moved
    }

    /// Moves the first items here, at most `max`, to a new magazine.
    pub(super) fn split_first(&mut self, max: usize) -> Self {
        let mut first = Magazine::new();
        // SAFETY: no magazine holds more than another has room for, and the rounds of the new
        // one are used by no other code. They are initialised by as many as the number says.
        first.len = unsafe { self.move_to(first.rounds.as_mut_ptr(), max) };
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

impl<T: Item> Magazine<T> {
    /// Frees all items.
    pub(super) fn free(mut self) {
        while let Some(item) = self.pop() {
            item.free();
        }
    }
}

impl<T> Drop for Magazine<T> {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}
