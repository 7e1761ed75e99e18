//! The items that the engine moves, and how many of them each level may hold.
//!
//! Owns the terms that all files of the engine share. Knows nothing of how items are kept.

use std::ops::Range;
use std::time::Duration;

/// The most items in one thread's cache of one class: two magazines.
///
/// After an exchange in either direction one magazine remains, so a thread that alternates
/// at the boundary does not go to the depot each time.
pub(crate) const CACHE_ROUNDS: usize = 2 * MAGAZINE_ROUNDS;

/// The most items that move between a thread's cache and the depot at once.
///
/// 32: at 16, a get on one thread and a drop on another cost a third more together. At 64,
/// they cost a tenth less, for caches of twice the size (`docs/design.md`).
pub(crate) const MAGAZINE_ROUNDS: usize = 32;

/// The properties of an item that the engine must know.
pub(crate) trait Item: Send + 'static {
    /// The notes that the items' owner keeps for each thread that uses the engine.
    type Notes: Default + Send + Sync + 'static;

    /// One in this many returns to a thread's cache is a sample, which does not take the fast path. A power of
    /// two. `None` for an owner that learns from samples: then they come at random.
    const SAMPLE_EACH: Option<u64> = None;

    /// The cost of keeping the item, in the unit of the caller's limits.
    ///
    /// Does not change while the engine holds the item. Not 0.
    fn weight(&self) -> usize;

    /// Ends the item, in the order that is best for the heap.
    ///
    /// The caller may hold locks of the engine. So this waits for no other thread, runs no code of
    /// the program, and does not end the engine.
    fn free(self);

    /// Gives the memory of a part of an idle item back to the system, so that the system has it
    /// even if the heap keeps what [`free`](Self::free) frees. The part is a range of its weight.
    /// Returns how much of it has gone back, or `None` if this system cannot do it.
    fn give_back_pages(&mut self, _part: Range<usize>) -> Option<usize> {
        None
    }
}

/// Index of a size class in an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClassIndex(pub(crate) usize);

impl ClassIndex {
    #[inline(always)]
    pub(crate) fn get(self) -> usize {
        self.0
    }
}

/// How much the levels may hold.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) classes: Box<[ClassLimits]>,
    /// Weight of all that the levels hold together.
    pub(crate) weight: usize,
    /// Weight of all items in one thread's caches together.
    pub(crate) thread_weight: usize,
    /// The time after which the slow path of a get or a drop frees unneeded items; `None` if only
    /// explicit trims do that.
    pub(crate) trim_interval: Option<Duration>,
    /// The most weight that the slow path of a get or a drop frees for a trim, or one item if
    /// that is heavier.
    pub(crate) piece_weight: usize,
}

/// How much of one class the levels may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClassLimits {
    /// Items on all levels together.
    pub(crate) items: usize,
    /// Items in one thread's cache, at most [`CACHE_ROUNDS`].
    pub(crate) cache_rounds: usize,
    /// Items in one magazine, at most half of [`CACHE_ROUNDS`].
    pub(crate) magazine_rounds: usize,
    /// Weight of an ordinary item. The depot keeps an item of any other weight loose. So a thread's
    /// cache need not check the weight of an item that it hands out.
    pub(crate) weight: usize,
    /// Items that trims leave idle in the depot.
    pub(crate) keep_idle: usize,
}

/// Which idle items to free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    /// Those that no thread needed since the last trim.
    Unneeded,
    All,
    /// As many as are above a limit that has fallen, except those that trims keep.
    AboveLimit,
}

/// The items of one class that the levels hold, and the counts of those they have served.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Levels {
    pub(crate) local_hits: u64,
    pub(crate) depot_hits: u64,
    pub(crate) returns: u64,
    pub(crate) growths: u64,
    pub(crate) trimmed: u64,
    pub(crate) idle_items: usize,
    pub(crate) idle_weight: usize,
}
