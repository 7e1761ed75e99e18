//! The shared store of one size class.
//!
//! Owns the items that no thread caches: whole magazines, and loose items that
//! fit no thread cache or came from a thread without one. Knows nothing of
//! bytes, threads or closing: an item is opaque except for its weight.

use super::account::Account;
use super::item::{ClassLimits, Item};
use super::magazine::Magazine;
use super::reclaims::Reclaims;
use super::store::Store;
use crate::sync::{AtomicUsize, Counter, Ordering};

/// The magazines that a depot has room for at first: at most 512 buffers, in less than 5 KiB.
const MAGAZINES_FIRST: usize = 16;
/// The loose items that a depot has room for at first.
const LOOSE_FIRST: usize = 64;

/// One size class's shared items.
pub(super) struct Depot<T> {
    magazines: Store<Magazine<T>>,
    loose: Store<T>,
    loose_weight: AtomicUsize,
    /// Weight of the item that a trim is freeing in pieces; 0 if there is none.
    pub(super) freeing: AtomicUsize,
    limits: ClassLimits,
    /// The account from which all levels lease for this class, in items.
    pub(super) account: Account,
    pub(super) reclaims: Reclaims,
    /// Loose items handed to a caller.
    pub(super) hits: Counter,
    /// The most local hits of all caches together that a snapshot has shown.
    pub(super) local_hits_shown: Counter,
    /// Loose items that a caller gave back.
    pub(super) returns: Counter,
    /// The most returns that a snapshot has shown.
    pub(super) returns_shown: Counter,
    /// Idle items freed, on whichever level they were.
    pub(super) trimmed: Counter,
}

impl<T: Item> Depot<T> {
    pub(super) fn new(limits: ClassLimits) -> Self {
        Depot {
            magazines: Store::new(MAGAZINES_FIRST),
            loose: Store::new(LOOSE_FIRST),
            loose_weight: AtomicUsize::new(0),
            freeing: AtomicUsize::new(0),
            limits,
            account: Account::new(limits.items),
            reclaims: Reclaims::new(),
            hits: Counter::default(),
            local_hits_shown: Counter::default(),
            returns: Counter::default(),
            returns_shown: Counter::default(),
            trimmed: Counter::default(),
        }
    }

    pub(super) fn limits(&self) -> ClassLimits {
        self.limits
    }

    /// Whether it holds nothing, as far as can be seen.
    pub(super) fn is_empty(&self) -> bool {
        self.magazines.is_empty() && self.loose.is_empty()
    }

    /// Makes room for `items` in all. Returns `false` if the heap refuses a part of that.
    pub(super) fn reserve(&self, items: usize) -> bool {
        if items == 0 {
            return true;
        }
        match self.limits.magazine_rounds {
            0 => self.loose.reserve(items),
            rounds => {
                // The items that trims keep idle may arrive one by one, from as many threads'
                // caches.
                let loose = self.limits.keep_idle.max(1);
                let reserved = self.loose.reserve(loose);
                self.magazines.reserve(items.div_ceil(rounds)) && reserved
            }
        }
    }

    /// Stores a full magazine, or hands it back if there is no room.
    #[inline]
    pub(super) fn push(&self, magazine: Magazine<T>) -> Result<(), Magazine<T>> {
        let full = self.limits.magazine_rounds;
        debug_assert_eq!(magazine.len(), full, "otherwise `idle` is wrong");
        self.magazines.push(magazine)
    }

    /// Takes a full magazine.
    #[inline]
    pub(super) fn pop(&self) -> Option<Magazine<T>> {
        self.magazines.pop()
    }

    /// Stores one item of any weight, or hands it back if there is no room.
    pub(super) fn push_loose(&self, item: T) -> Result<(), T> {
        self.add_loose(item, Store::push)
    }

    fn add_loose(&self, item: T, push: fn(&Store<T>, T) -> Result<(), T>) -> Result<(), T> {
        let weight = item.weight();
        // Relaxed: for `Stats`. Counted before the push, so that the sum never falls below zero.
        self.loose_weight.fetch_add(weight, Ordering::Relaxed);
        let stored = push(&self.loose, item);
        if stored.is_err() {
            self.loose_weight.fetch_sub(weight, Ordering::Relaxed);
        }
        stored
    }

    /// As [`push`](Self::push), but does not grow.
    pub(super) fn push_in_place(&self, magazine: Magazine<T>) -> Result<(), Magazine<T>> {
        self.magazines.push_in_place(magazine)
    }

    /// As [`push_loose`](Self::push_loose), but does not grow.
    pub(super) fn push_loose_in_place(&self, item: T) -> Result<(), T> {
        self.add_loose(item, Store::push_in_place)
    }

    /// Takes one loose item.
    pub(super) fn pop_loose(&self) -> Option<T> {
        self.loose.pop().map(|item| self.left(item))
    }

    /// Takes a full magazine that was not needed since the last `reset_low`.
    pub(super) fn pop_idle(&self) -> Option<Magazine<T>> {
        self.magazines.pop_idle()
    }

    /// Takes a loose item that was not needed since the last `reset_low`.
    pub(super) fn pop_idle_loose(&self) -> Option<T> {
        self.loose.pop_idle().map(|item| self.left(item))
    }

    /// Marks `magazines` more magazines and `loose` more loose items as not needed.
    pub(super) fn raise_low(&self, magazines: usize, loose: usize) {
        self.magazines.raise_low(magazines);
        self.loose.raise_low(loose);
    }

    /// Restarts the marks of unneeded items.
    pub(super) fn reset_low(&self) {
        self.magazines.reset_low();
        self.loose.reset_low();
    }

    fn left(&self, item: T) -> T {
        // Relaxed: for `Stats`.
        self.loose_weight
            .fetch_sub(item.weight(), Ordering::Relaxed);
        item
    }

    /// Idle items here, and their weight.
    pub(super) fn idle(&self) -> (usize, usize) {
        let in_magazines = self.magazines.len() * self.limits.magazine_rounds;
        // Relaxed: read for `Stats`.
        let freeing = self.freeing.load(Ordering::Relaxed);
        let loose_weight = self.loose_weight.load(Ordering::Relaxed);
        (
            in_magazines + self.loose.len() + usize::from(freeing > 0),
            in_magazines * self.limits.weight + loose_weight + freeing,
        )
    }
}
