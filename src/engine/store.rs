//! A queue that many threads share, and that grows by whole segments.
//!
//! Owns its low-water mark. Knows nothing of its items. No push and no pop waits for another
//! thread. If another thread is in the middle of a pop at the next place of a segment, a push
//! counts that segment as full. A pop counts it as empty in the same way (`ring.rs`). Only two
//! threads that make the same segment wait for each other.

use super::ring::Ring;
use crate::sync::{AtomicUsize, Ordering};
use crate::system;
use std::sync::OnceLock;

/// 24: doubling from 16, room for more than 100 million.
const SEGMENTS: usize = 24;

/// First in, first out within each segment.
///
/// It never shrinks: its segments are freed with it.
pub(super) struct Store<T> {
    /// Each is made once. The first two have `first` places; each one after these has twice as many
    /// as the one before.
    segments: [OnceLock<Box<Ring<T>>>; SEGMENTS],
    first: usize,
    /// Fewest items held since the last [`reset_low`](Self::reset_low).
    low: AtomicUsize,
}

impl<T> Store<T> {
    /// An empty store, which allocates nothing yet. `first` is a power of two, and not 1.
    pub(super) fn new(first: usize) -> Self {
        Store {
            segments: [const { OnceLock::new() }; SEGMENTS],
            first,
            low: AtomicUsize::new(0),
        }
    }

    /// Makes room for `len` items in all, as far as the heap has it.
    ///
    /// A store that grows while a burst comes home lies above the burst's buffers on the heap, and
    /// pins their memory after they are freed. So call this before an item is made.
    ///
    /// Returns `false` if the heap refuses a part of that.
    pub(super) fn reserve(&self, len: usize) -> bool {
        let Some(last) = self.last_of(len) else {
            return true;
        };
        self.segments[last].get().is_some() || (0..=last).all(|at| self.segment(at).is_some())
    }

    /// The last of the segments that together have room for `len` items, or the last possible
    /// segment.
    fn last_of(&self, len: usize) -> Option<usize> {
        let last = match len.checked_sub(1)? / self.first {
            0 => 0,
            times => 1 + times.ilog2() as usize,
        };
        Some(last.min(SEGMENTS - 1))
    }

    /// One of the segments, made if needed; `None` if the heap has no room for it.
    #[inline]
    fn segment(&self, at: usize) -> Option<&Ring<T>> {
        match self.segments[at].get() {
            Some(made) => Some(made),
            None => self.grow(at),
        }
    }

    #[cold]
    fn grow(&self, at: usize) -> Option<&Ring<T>> {
        let len = self.first << at.saturating_sub(1);
        let made = system::boxed(Ring::new(len)?).ok()?;
        // Or the segment that another thread has made first.
        Some(self.segments[at].get_or_init(|| made))
    }

    /// Stores an item, growing if no segment takes it; hands it back if it cannot grow.
    #[inline]
    pub(super) fn push(&self, mut item: T) -> Result<(), T> {
        for at in 0..SEGMENTS {
            let Some(segment) = self.segment(at) else {
                break;
            };
            match segment.push(item) {
                Ok(()) => return Ok(()),
                Err(back) => item = back,
            }
        }
        Err(item)
    }

    /// As [`push`](Self::push), but does not grow.
    pub(super) fn push_in_place(&self, mut item: T) -> Result<(), T> {
        for segment in self.made() {
            match segment.push(item) {
                Ok(()) => return Ok(()),
                Err(back) => item = back,
            }
        }
        Err(item)
    }

    /// Takes the oldest item of the first segment that has one; `None` if no segment gives one.
    #[inline]
    pub(super) fn pop(&self) -> Option<T> {
        let item = self.pop_unmarked();
        if item.is_some() {
            self.lower();
        }
        item // returned without a move: copying a magazine is slow
    }

    fn lower(&self) {
        // Relaxed, here and below: the mark orders nothing. Loaded before it is changed: it falls
        // seldom, and then stays down.
        let low = self.low.load(Ordering::Relaxed);
        if low > 0 {
            let len = self.len();
            if len < low {
                self.low.fetch_min(len, Ordering::Relaxed);
            }
        }
    }

    /// Takes an item that has not been needed since the last
    /// [`reset_low`](Self::reset_low), if there is one.
    pub(super) fn pop_idle(&self) -> Option<T> {
        // Relaxed: one exchange promises one item to one caller. The segment that the item is
        // popped from orders it.
        let lower = |low: usize| low.checked_sub(1);
        self.low
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, lower)
            .ok()?;
        self.pop_unmarked()
    }

    #[inline]
    fn pop_unmarked(&self) -> Option<T> {
        for segment in self.made() {
            let item = segment.pop();
            if item.is_some() {
                return item;
            }
        }
        None
    }

    /// Lets [`pop_idle`](Self::pop_idle) take `more` more items.
    pub(super) fn raise_low(&self, more: usize) {
        if more > 0 {
            // Relaxed: see `reset_low`.
            self.low.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// Lets [`pop_idle`](Self::pop_idle) take the items that are not needed from now on.
    pub(super) fn reset_low(&self) {
        // Relaxed: the mark orders nothing. An item that is popped meanwhile may be promised once
        // more. Then `pop_idle` finds no item, or a later one.
        self.low.store(self.len(), Ordering::Relaxed);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.made().all(|segment| segment.len() == 0)
    }

    pub(super) fn len(&self) -> usize {
        self.made().map(Ring::len).sum()
    }

    fn made(&self) -> impl Iterator<Item = &Ring<T>> {
        self.segments.iter().map_while(|made| Some(&**made.get()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first two segments are of one size, and each other is as large as all before it.
    fn room(store: &Store<u8>) -> usize {
        match store.made().count() {
            0 => 0,
            made => store.first << (made - 1),
        }
    }

    #[test]
    fn reserve_makes_as_few_segments_as_possible() {
        for first in [2, 4, 16] {
            for len in 0..=10 * first {
                let store = Store::new(first);
                store.reserve(len);
                let made = room(&store);
                let mut least = first;
                while least < len {
                    least *= 2;
                }
                assert_eq!(made, if len == 0 { 0 } else { least }, "{len} by {first}");
                for item in 0..len {
                    assert_eq!(store.push(item as u8), Ok(()));
                }
                assert_eq!(room(&store), made, "there was room");
            }
        }
    }

    #[test]
    fn a_store_never_has_more_than_its_segments() {
        let store = Store::<u8>::new(16);
        let most = 16 << (SEGMENTS - 1);
        for (len, last) in [
            (most / 2, SEGMENTS - 2),
            (most / 2 + 1, SEGMENTS - 1),
            (most, SEGMENTS - 1),
            (most + 1, SEGMENTS - 1),
            (usize::MAX, SEGMENTS - 1),
        ] {
            assert_eq!(store.last_of(len), Some(last), "{len}");
        }
    }

    #[test]
    fn reserving_less_than_the_present_room_changes_nothing() {
        let store = Store::new(4);
        store.reserve(9);
        assert_eq!(room(&store), 16);
        store.reserve(3);
        store.reserve(0);
        assert_eq!(room(&store), 16);
    }
}
