//! How many items of each kind came back to one thread's cache.
//!
//! Owns the counts of one cache. Knows nothing of what a kind is: the caller
//! gives each item's as a small number.
//!
//! A count runs down, from what it was granted to 0, so that the quick way of a
//! drop finds in the number that it stores anyway whether somebody must look. Who
//! looks, takes what was counted, and grants the next batch.

use crate::sync::{AtomicBool, AtomicU8, MODELLED, Ordering};
use std::array;

/// How many kinds of items there are: as many as a `usize` has bit lengths.
///
/// In a model two, each of which it must look at.
pub(crate) const KINDS: usize = if MODELLED { 2 } else { usize::BITS as usize };

/// The most items of one kind that a cache takes back until somebody looks.
///
/// 255: then what a look costs, about 10 ns, is of no account, and the counts of a
/// cache fit one cache line.
pub(crate) const BATCH_MAX: u8 = u8::MAX;

/// How an item that comes back is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Return {
    /// By its kind. It is handed back if the batch of these is at its end.
    OfKind(usize),
    /// As exchanged for another.
    Exchanged,
    /// As one more; whatever else there is to count, the caller has counted.
    Plain,
}

/// What came back to one cache the quick way, by kind. Written by the cache's owner
/// alone, who need not be inside: no claimer looks at it.
pub(super) struct Tally {
    /// How many items of each kind may yet come.
    left: [AtomicU8; KINDS],
    /// How many of each were granted last.
    batch: [AtomicU8; KINDS],
    /// Whether any were: most threads use few size classes.
    used: AtomicBool,
}

impl Tally {
    pub(super) fn new() -> Self {
        Tally {
            left: array::from_fn(|_| AtomicU8::new(0)),
            batch: array::from_fn(|_| AtomicU8::new(0)),
            used: AtomicBool::new(false),
        }
    }

    /// How many items of this kind may yet come.
    #[inline(always)]
    pub(super) fn left(&self, kind: usize) -> u8 {
        // Relaxed: the owner's own.
        self.left[kind].load(Ordering::Relaxed)
    }

    /// Counts one item, of which `left` may come after it.
    #[inline(always)]
    pub(super) fn count_down(&self, kind: usize, left: u8) {
        // Release: pairs with the Acquire fence in `Cache::levels`.
        self.left[kind].store(left, Ordering::Release);
    }

    /// Takes what has come of the last batch.
    ///
    /// For the owner, which then adds it to a count of its own, and must [grant](Self::grant)
    /// the next batch before it takes again.
    pub(super) fn take(&self, kind: usize) -> u8 {
        // Relaxed: the owner's own.
        let came = self.batch[kind].load(Ordering::Relaxed) - self.left(kind);
        // Before what it is added to is written: see `counts`. Relaxed: what that is added
        // to is written with Release.
        self.batch[kind].store(0, Ordering::Relaxed);
        came
    }

    /// Has the next look come after `batch` items more.
    pub(super) fn grant(&self, kind: usize, batch: u8) {
        // Relaxed: seen too late, it hides a batch; `counts` may be too low.
        self.used.store(true, Ordering::Relaxed);
        // In this order, and each Release: pair with the Acquire loads in `counts`.
        self.left[kind].store(batch, Ordering::Release);
        self.batch[kind].store(batch, Ordering::Release);
    }

    /// How many items of each kind have come and were not [taken](Self::take), where
    /// that is any.
    ///
    /// Exact while the owner is not at work. Never too many, if what the owner
    /// adds them to, with `Release`, was read before, with `Acquire`: whoever finds
    /// a batch there finds it gone from here.
    pub(super) fn counts(&self) -> impl Iterator<Item = (usize, usize)> {
        // Relaxed: see `grant`.
        let kinds = match self.used.load(Ordering::Relaxed) {
            true => KINDS,
            false => 0,
        };
        (0..kinds).map(|kind| {
            // Acquire: pairs with the Release in `grant` and `count_down`. A batch is seen
            // with the `left` that it begins with, or a later one; and if that is of
            // another batch, the second load sees it, or one of the same size, of
            // which no more have come than it says. Relaxed: that second load comes after
            // the Acquire one of `left`, which brings what was stored before that.
            let batch = self.batch[kind].load(Ordering::Acquire);
            let left = self.left[kind].load(Ordering::Acquire);
            let same = batch == self.batch[kind].load(Ordering::Relaxed);
            let came = if same { batch.saturating_sub(left) } else { 0 };
            (kind, usize::from(came))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{AtomicBool, AtomicUsize};
    use std::thread;

    const KIND: usize = 7;

    fn count(tally: &Tally, kind: usize) -> usize {
        let of_kind = tally.counts().filter(|&(other, _)| other == kind);
        of_kind.map(|(_, count)| count).sum()
    }

    /// Counts `items` as the quick way does. Says how many of them it could.
    fn come(tally: &Tally, items: u8) -> u8 {
        for counted in 0..items {
            let Some(left) = tally.left(KIND).checked_sub(1) else {
                return counted;
            };
            tally.count_down(KIND, left);
        }
        items
    }

    #[test]
    fn nothing_can_come_before_it_is_granted() {
        let tally = Tally::new();
        for kind in 0..KINDS {
            assert_eq!((tally.left(kind), count(&tally, kind)), (0, 0));
        }
        assert_eq!(come(&tally, 1), 0);
        assert_eq!(tally.take(KIND), 0);
        tally.grant(KIND, 1);
        assert_eq!(come(&tally, 2), 1);
        assert_eq!(
            (count(&tally, KIND), tally.take(KIND), count(&tally, KIND)),
            (1, 1, 0)
        );
    }

    #[test]
    fn so_many_come_as_are_granted_and_each_is_taken_once() {
        let tally = Tally::new();
        for batch in [1, 2, 100, BATCH_MAX, 0, 3] {
            tally.grant(KIND, batch);
            assert_eq!((tally.left(KIND), count(&tally, KIND)), (batch, 0));
            for counted in 1..=batch {
                assert_eq!(come(&tally, 1), 1);
                assert_eq!(count(&tally, KIND), usize::from(counted));
            }
            assert_eq!(come(&tally, 1), 0);
            assert_eq!(tally.take(KIND), batch);
            assert_eq!((count(&tally, KIND), tally.take(KIND)), (0, 0));
        }
    }

    // What comes another way looks before the batch is at its end.
    #[test]
    fn a_batch_is_taken_as_far_as_it_has_come() {
        let tally = Tally::new();
        for (granted, came) in [(10, 0), (10, 1), (BATCH_MAX, BATCH_MAX - 1), (5, 5)] {
            tally.grant(KIND, granted);
            assert_eq!(come(&tally, came), came);
            assert_eq!(tally.take(KIND), came);
            assert_eq!(count(&tally, KIND), 0, "it is taken");
        }
    }

    #[test]
    fn kinds_are_counted_apart() {
        let tally = Tally::new();
        (0..KINDS).for_each(|kind| tally.grant(kind, kind as u8));
        for kind in (0..KINDS).step_by(2) {
            tally.count_down(kind, 0);
        }
        for kind in 0..KINDS {
            let expected = if kind % 2 == 0 { kind } else { 0 };
            assert_eq!(count(&tally, kind), expected);
        }
    }

    // Each of these numbers may be too low, but none may be above what has come.
    #[test]
    fn a_reader_beside_the_owner_never_counts_too_many() {
        const BATCHES: usize = if crate::SLOW { 30 } else { 20_000 };
        let (tally, taken) = (Tally::new(), AtomicUsize::new(0));
        let (begun, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    // Acquire: pairs with the Release below.
                    let before = taken.load(Ordering::Acquire);
                    let all = before + count(&tally, KIND);
                    let most = begun.load(Ordering::SeqCst);
                    assert!(all <= most, "{all} of {most}");
                }
            });
            for at in 0..BATCHES {
                let batch = [1, BATCH_MAX, 3, 40][at % 4];
                // Not always to the end of the batch.
                let come_now = if at % 3 == 0 { batch / 2 } else { batch };
                tally.grant(KIND, batch);
                for _ in 0..come_now {
                    begun.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(come(&tally, 1), 1);
                }
                let batch = usize::from(tally.take(KIND));
                // Release: whoever sees it in the sum finds it gone from the tally.
                taken.fetch_add(batch, Ordering::Release);
            }
            over.store(true, Ordering::SeqCst);
        });
        assert_eq!(taken.load(Ordering::Relaxed), begun.load(Ordering::Relaxed));
    }
}
