//! The shared store of one size class, and the magazines that it holds.
//!
//! Owns the items that no thread caches. Knows nothing of bytes, threads or
//! closing: an item is opaque but for its weight.

use super::Item;
use crate::sync::{AtomicUsize, Counter, Ordering};
use crossbeam_queue::ArrayQueue;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

/// The most items that move between a thread cache and the depot at once.
///
/// 32: at 16 the exchanges of a producer and a consumer show in its cost, at 64
/// the working set outgrows the first-level cache (`docs/benchmarks.md`).
pub(crate) const MAGAZINE_ROUNDS: usize = 32;

/// A batch of items of one size class that moves whole between levels.
pub(super) struct Magazine<T> {
    len: usize,
    /// `rounds[..len]` are initialised, the rest is not.
    rounds: [MaybeUninit<T>; MAGAZINE_ROUNDS],
}

impl<T> Magazine<T> {
    pub(super) fn new() -> Self {
        Magazine {
            len: 0,
            rounds: [const { MaybeUninit::uninit() }; MAGAZINE_ROUNDS],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
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
        // SAFETY: this round was below the old `len`, hence initialised by
        // `push`; the new `len` excludes it, so nobody reads it again.
        Some(unsafe { self.rounds[self.len].assume_init_read() })
    }
}

impl<T: Item> Magazine<T> {
    pub(super) fn weight(&self) -> usize {
        self.rounds[..self.len]
            .iter()
            // SAFETY: rounds below `len` are initialised.
            .map(|round| unsafe { round.assume_init_ref() }.weight())
            .sum()
    }
}

impl<T> Drop for Magazine<T> {
    fn drop(&mut self) {
        while let Some(item) = self.pop() {
            drop(item);
        }
    }
}

/// One size class's shared store of magazines.
pub(super) struct Depot<T> {
    /// Made when the first magazine arrives, all at once: a store that grew
    /// during a burst would lie above the burst's buffers on the heap and pin
    /// them there after they are freed.
    magazines: OnceLock<ArrayQueue<Magazine<T>>>,
    magazines_max: usize,
    items: AtomicUsize,
    weight: AtomicUsize,
    /// Items handed to a caller straight from a magazine taken from here.
    pub(super) hits: Counter,
}

impl<T: Item> Depot<T> {
    /// A store for at most `magazines_max` magazines, at least one.
    pub(super) fn new(magazines_max: usize) -> Self {
        Depot {
            magazines: OnceLock::new(),
            magazines_max: magazines_max.max(1),
            items: AtomicUsize::new(0),
            weight: AtomicUsize::new(0),
            hits: Counter::default(),
        }
    }

    /// Whether a [`push`](Self::push) would fail now; by the time it comes, it may not.
    pub(super) fn is_full(&self) -> bool {
        self.magazines.get().is_some_and(ArrayQueue::is_full)
    }

    /// Stores a magazine, or hands it back if there is no room.
    pub(super) fn push(&self, magazine: Magazine<T>) -> Result<(), Magazine<T>> {
        let (items, weight) = (magazine.len(), magazine.weight());
        // Relaxed: counted for `Stats`. Before the push, so that whoever pops
        // the magazine subtracts after this addition and never below zero.
        self.items.fetch_add(items, Ordering::Relaxed);
        self.weight.fetch_add(weight, Ordering::Relaxed);
        let stored = self
            .magazines
            .get_or_init(|| ArrayQueue::new(self.magazines_max))
            .push(magazine);
        if stored.is_err() {
            self.uncount(items, weight);
        }
        stored
    }

    /// Takes the magazine that has been here longest.
    pub(super) fn pop(&self) -> Option<Magazine<T>> {
        let magazine = self.magazines.get()?.pop()?;
        self.uncount(magazine.len(), magazine.weight());
        Some(magazine)
    }

    fn uncount(&self, items: usize, weight: usize) {
        // Relaxed: counted for `Stats`.
        self.items.fetch_sub(items, Ordering::Relaxed);
        self.weight.fetch_sub(weight, Ordering::Relaxed);
    }

    /// Idle items here, and their weight.
    pub(super) fn idle(&self) -> (usize, usize) {
        // Relaxed: read for `Stats`.
        (
            self.items.load(Ordering::Relaxed),
            self.weight.load(Ordering::Relaxed),
        )
    }
}
