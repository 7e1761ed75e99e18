//! The thread cache that an item came from, as the holder of the item remembers it.
//!
//! Owns the fast path of a return, and the marks by which a holder rules it out. Knows nothing of
//! the engine behind the cache.

use super::cache::Cache;
use super::item::{ClassIndex, Item};
use super::local::{self, Token};
use std::marker::PhantomData;
use std::ptr::NonNull;

/// The thread cache that an item may come back to, and whose it was.
// The order of the fields, here and in the guard, keeps the two addresses of a guard apart. Next to
// each other, the compiler would write them through a vector register, which costs more than it
// saves (`docs/design.md`).
#[repr(C)]
pub(crate) struct Origin<T> {
    owner: Token,
    /// A `Cache<T>`. Dangling in [`Origin::NONE`] only. Untyped, so that an origin of any type is `Send`:
    /// otherwise an object could hold no guard of its type.
    cache: NonNull<()>,
    _items: PhantomData<*const T>,
}

// SAFETY: every method that follows the address demands that the calling thread is the one that
// `owner` names, on whichever thread the origin is.
unsafe impl<T> Send for Origin<T> {}
// SAFETY: as above; no field changes behind a shared reference.
unsafe impl<T> Sync for Origin<T> {}

/// The marks that the holder of an item may note in the item's origin.
///
/// A marked origin is no thread's: [`Origin::here`] is `None`. So the item does not take the fast
/// path back, and its return examines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The item was lent out as a whole. A different one may be in its place now.
    Lent = 1,
    /// The item was lent out to be written to.
    Unseen = 2,
    /// The item's own notes were lent out to be written to.
    Probed = 4,
    /// With [`Probed`](Self::Probed): no one named the item's size.
    Unasked = 8,
    /// Others may hold the item, too.
    Shared = 16,
    /// Something is known of the item's contents, and the item's return must keep that knowledge.
    Known = 32,
}

const _: () = assert!((Mark::Known as usize) < Token::STEP);

impl<T> Clone for Origin<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Origin<T> {}

impl<T: Item> Origin<T> {
    /// The origin of an item from no thread's cache.
    pub(crate) const NONE: Self = Origin {
        owner: Token::NOBODY,
        cache: NonNull::dangling(),
        _items: PhantomData,
    };

    #[inline(always)]
    pub(super) fn new(cache: &Cache<T>, owner: Token) -> Self {
        Origin {
            owner,
            cache: NonNull::from(cache).cast(),
            _items: PhantomData,
        }
    }

    /// Whether this is [`Origin::NONE`], marked or not.
    #[inline(always)]
    pub(crate) fn is_none(&self) -> bool {
        self.owner.get() < Token::LEAST
    }

    #[inline(always)]
    pub(crate) fn mark(&mut self, mark: Mark) {
        self.owner = self.owner.with(mark as usize);
    }

    #[inline(always)]
    pub(crate) fn unmark(&mut self, mark: Mark) {
        self.owner = self.owner.without(mark as usize);
    }

    /// Whether the item or its notes were lent out to be changed.
    #[inline(always)]
    pub(crate) fn was_lent(&self) -> bool {
        const LENT: usize = Mark::Lent as usize | Mark::Unseen as usize | Mark::Probed as usize;
        self.owner.bits() & LENT != 0
    }

    #[inline(always)]
    pub(crate) fn has(&self, mark: Mark) -> bool {
        self.owner.bits() & mark as usize != 0
    }

    /// The cache, if it is the calling thread's and the origin is unmarked.
    ///
    /// # Safety
    ///
    /// - The engine is alive as long as the result is used. An item that is pushed to the result
    ///   may be the last thing that keeps the engine alive.
    #[inline(always)]
    pub(crate) unsafe fn here(&self) -> Option<Here<T>> {
        local::is_this_thread(self.owner).then_some(Here {
            me: self.owner,
            cache: self.cache.cast(),
        })
    }
}

/// A cache of the calling thread in an engine that is alive.
pub(crate) struct Here<T: Item> {
    me: Token,
    cache: NonNull<Cache<T>>,
}

impl<T: Item> Here<T> {
    #[inline(always)]
    fn cache(&self) -> &Cache<T> {
        // SAFETY: the caches live as long as the engine. The engine is alive: whoever called
        // `Origin::here` has promised it. The address does not dangle: only `Origin::NONE` has a
        // dangling one, and its token is no thread's.
        unsafe { self.cache.as_ref() }
    }

    /// Weight of the items that it keeps.
    #[inline(always)]
    pub(crate) fn unit(&self) -> usize {
        self.cache().unit()
    }

    /// Whether it has room for another item.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.cache().rounds().has_room()
    }

    /// Takes the sample that is due, if one is. Returns how many returns it stands for, itself
    /// included.
    pub(crate) fn sample(&self, interval: usize) -> Option<usize> {
        self.cache().rounds().sample(interval)
    }

    /// Whether the next return is a sample.
    pub(crate) fn sample_is_due(&self) -> bool {
        self.cache().sample_is_due()
    }

    /// The class of the items that it keeps.
    #[inline]
    pub(crate) fn class(&self) -> ClassIndex {
        self.cache().class()
    }

    /// The notes that the items' owner keeps for the thread.
    #[inline]
    pub(crate) fn notes(&self) -> &T::Notes {
        &self.cache().thread().notes
    }

    /// Counts returned items that were asked for by size.
    #[inline]
    pub(crate) fn count_requests(&self, requests: usize) {
        self.cache().requests.add_by_owner(requests);
    }

    /// Counts that its holder has outgrown an item.
    #[inline]
    pub(crate) fn count_growth(&self) {
        self.cache().growths.add_by_owner(1);
    }

    /// Keeps an item, or hands it back if there is no room for it here. Unless the item was
    /// `LOOKED_AT`, hands it back also if a sample is due.
    ///
    /// The item's weight must be [`unit`](Self::unit). Once this has kept the item, another thread
    /// may close the engine and free the cache.
    #[inline(always)]
    pub(crate) fn push<const LOOKED_AT: bool>(self, item: T) -> Result<(), T> {
        // SAFETY: as in `cache`, at the call; the token is this thread's.
        unsafe { Cache::push::<LOOKED_AT>(self.cache, self.me, item) }
    }
}
