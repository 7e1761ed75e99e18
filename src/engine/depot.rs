//! The shared store of one size class, and the magazines that it holds.
//!
//! Owns the items that no thread caches: whole magazines, and loose items that
//! fit no thread cache or came from a thread without one. Knows nothing of
//! bytes, threads or closing: an item is opaque but for its weight.

use super::{ClassLimits, Item};
use crate::sync::{AtomicUsize, Counter, Ordering};
use crossbeam_queue::ArrayQueue;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;

/// The most items that move between a thread cache and the depot at once.
///
/// 32: at 16 a get on one thread and a drop on another cost a third more
/// together; at 64 a tenth less, for caches of twice the size
/// (`docs/benchmarks.md`).
pub(crate) const MAGAZINE_ROUNDS: usize = 32;

/// The most loose items in a depot: bounds what it preallocates.
const LOOSE_MAX: usize = 1024;

/// A batch of items of one size class that moves whole between levels.
pub(super) struct Magazine<T> {
    len: usize,
    /// `rounds[..len]` are initialised, the rest is not.
    rounds: [MaybeUninit<T>; MAGAZINE_ROUNDS],
}

impl<T> Magazine<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Moves `len` items from `rounds` on into a new magazine.
    ///
    /// # Safety
    ///
    /// - `rounds` points to `len` initialised items, at most
    ///   [`MAGAZINE_ROUNDS`], which nobody uses there any more.
    pub(super) unsafe fn filled_from(rounds: *const MaybeUninit<T>, len: usize) -> Self {
        let mut magazine = Magazine {
            len,
            rounds: [const { MaybeUninit::uninit() }; MAGAZINE_ROUNDS],
        };
        // SAFETY: `len` rounds are readable there, as the caller promises, and
        // writable here. The items are used here only from now on.
        unsafe { ptr::copy_nonoverlapping(rounds, magazine.rounds.as_mut_ptr(), len) };
        magazine
    }

    /// Moves the items that were first here, at most `max`, to `rounds`, and
    /// says how many these were.
    ///
    /// # Safety
    ///
    /// - `rounds` points to room for `max` items that nobody uses.
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
        // SAFETY: this round was below the old `len`, hence initialised;
        // the new `len` excludes it, so nobody reads it again.
        Some(unsafe { self.rounds[self.len].assume_init_read() })
    }
}

impl<T> Drop for Magazine<T> {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

/// One size class's shared store.
pub(super) struct Depot<T> {
    // Each queue is made when the first item arrives, and then at its full
    // length: a store that grew during a burst would lie above the burst's
    // buffers on the heap and pin them there after they are freed.
    magazines: OnceLock<ArrayQueue<Magazine<T>>>,
    loose: OnceLock<ArrayQueue<T>>,
    limits: ClassLimits,
    loose_weight: AtomicUsize,
    /// Loose items handed to a caller.
    pub(super) hits: Counter,
    /// The most local hits of all caches that a snapshot has shown.
    pub(super) local_hits_shown: Counter,
    /// Loose items that a caller gave back.
    pub(super) returns: Counter,
}

impl<T: Item> Depot<T> {
    pub(super) fn new(limits: ClassLimits) -> Self {
        Depot {
            magazines: OnceLock::new(),
            loose: OnceLock::new(),
            limits,
            loose_weight: AtomicUsize::new(0),
            local_hits_shown: Counter::default(),
            hits: Counter::default(),
            returns: Counter::default(),
        }
    }

    pub(super) fn limits(&self) -> ClassLimits {
        self.limits
    }

    /// Whether a [`push`](Self::push) would fail now; by the time it comes, it may not.
    pub(super) fn is_full(&self) -> bool {
        self.magazines.get().is_some_and(ArrayQueue::is_full)
    }

    /// Stores a magazine of the class's length, or hands it back if there is no room.
    pub(super) fn push(&self, magazine: Magazine<T>) -> Result<(), Magazine<T>> {
        let full = self.limits.magazine_rounds;
        debug_assert_eq!(magazine.len(), full, "else `idle` would lie");
        self.magazines
            .get_or_init(|| ArrayQueue::new(self.limits.depot_magazines.max(1)))
            .push(magazine)
    }

    /// Takes the magazine that has been here longest.
    pub(super) fn pop(&self) -> Option<Magazine<T>> {
        self.magazines.get()?.pop()
    }

    /// Stores one item of any weight, or hands it back if there is no room.
    pub(super) fn push_loose(&self, item: T) -> Result<(), T> {
        let weight = item.weight();
        let max = self.limits.depot_loose_weight;
        // Relaxed: a limit that only this number is held to. Before the push,
        // so that it is never passed, and never falls below zero.
        let added = |held: usize| held.checked_add(weight).filter(|&held| held <= max);
        let fits = self
            .loose_weight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, added);
        if fits.is_err() {
            return Err(item);
        }
        let queue = self.loose.get_or_init(|| {
            // No loose item weighs less than an ordinary one.
            let most = max / self.limits.weight.max(1);
            ArrayQueue::new(most.clamp(1, LOOSE_MAX))
        });
        let stored = queue.push(item);
        if stored.is_err() {
            self.loose_weight.fetch_sub(weight, Ordering::Relaxed);
        }
        stored
    }

    /// Takes the loose item that has been here longest.
    pub(super) fn pop_loose(&self) -> Option<T> {
        let item = self.loose.get()?.pop()?;
        self.loose_weight
            .fetch_sub(item.weight(), Ordering::Relaxed);
        Some(item)
    }

    /// Idle items here, and their weight.
    pub(super) fn idle(&self) -> (usize, usize) {
        let magazines = self.magazines.get().map_or(0, ArrayQueue::len);
        let in_magazines = magazines * self.limits.magazine_rounds;
        let loose = self.loose.get().map_or(0, ArrayQueue::len);
        // Relaxed: read for `Stats`.
        let loose_weight = self.loose_weight.load(Ordering::Relaxed);
        (
            in_magazines + loose,
            in_magazines * self.limits.weight + loose_weight,
        )
    }
}
