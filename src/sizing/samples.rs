//! One thread's counts of the returns that it looked at.
//!
//! Owns the counts that the thread has not reported to the calibrator yet. So the thread writes
//! shared memory only now and then. Knows nothing of what follows from the counts.

use super::targets::STEPS;
use crate::sync::{AtomicUsize, Counter, Hint, Ordering};
use std::array;

/// How often buffers came back with contents of each step, as samples say. Wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Returns {
    pub(crate) steps: [usize; STEPS],
    /// The sum of the squares of how many returns each sample stands for: how far chance moves
    /// the others.
    pub(crate) squares: usize,
}

impl Returns {
    pub(crate) const NONE: Self = Returns {
        steps: [0; STEPS],
        squares: 0,
    };

    pub(crate) fn add(&mut self, more: &Returns) {
        for (sum, more) in self.steps.iter_mut().zip(more.steps) {
            *sum = sum.wrapping_add(more);
        }
        self.squares = self.squares.wrapping_add(more.squares);
    }

    /// Those that came after `before`.
    pub(crate) fn since(&self, before: &Returns) -> Returns {
        // Not below 0: counts that are read while threads are busy may be lower than they were.
        let more = |now: usize, before: usize| match now.wrapping_sub(before) {
            less if less as isize <= 0 => 0,
            more => more,
        };
        Returns {
            steps: array::from_fn(|step| more(self.steps[step], before.steps[step])),
            squares: more(self.squares, before.squares),
        }
    }

    /// One return, which stands for itself.
    pub(crate) fn one(step: usize) -> Self {
        let mut one = Self::NONE;
        (one.steps[step], one.squares) = (1, 1);
        one
    }

    pub(crate) fn total(&self) -> u64 {
        self.steps.iter().map(|&returns| returns as u64).sum()
    }
}

/// Returns that threads write, or one of them, and any may read.
pub(crate) struct Counts {
    steps: [AtomicUsize; STEPS],
    squares: AtomicUsize,
}

impl Default for Counts {
    fn default() -> Self {
        Counts {
            steps: array::from_fn(|_| AtomicUsize::new(0)),
            squares: AtomicUsize::new(0),
        }
    }
}

impl Counts {
    /// Adds, where several threads may.
    pub(crate) fn add(&self, more: &Returns) {
        for (count, &more) in self.steps.iter().zip(&more.steps) {
            if more > 0 {
                // Release: pairs with the Acquire in `get`.
                count.fetch_add(more, Ordering::Release);
            }
        }
        // Relaxed: it goes with the others, more or less.
        self.squares.fetch_add(more.squares, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Returns {
        Returns {
            // Acquire: pairs with the Release in `add`. Returns added here are gone from where they
            // were taken.
            steps: array::from_fn(|step| self.steps[step].load(Ordering::Acquire)),
            // Relaxed: see `add`.
            squares: self.squares.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn set(&self, returns: &Returns) {
        for (count, &returns) in self.steps.iter().zip(&returns.steps) {
            // Relaxed: a reader takes each as it is.
            count.store(returns, Ordering::Relaxed);
        }
        // Relaxed: as above.
        self.squares.store(returns.squares, Ordering::Relaxed);
    }
}

/// How many records pass between two looks at the clock.
///
/// 4: a look takes a third of the time of a record.
const LOOK_EACH: usize = 4;

/// The next step of a thread that has recorded something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Nothing,
    /// Look at the clock.
    Look,
    /// Report, and look at the clock.
    Tell,
}

/// One thread's samples. Written by that thread alone.
#[derive(Default)]
pub(crate) struct Samples {
    /// Not yet reported.
    counts: Counts,
    /// How many returns come before the next report.
    until_told: Hint,
    /// How many records come before the thread looks at the clock.
    until_look: Hint,
    /// From the beginning: the capacity of the buffers that came back, and how many of these bytes
    /// were used.
    capacity_bytes: Counter,
    used_bytes: Counter,
}

impl Samples {
    /// Records a return with contents of `step`, which stands for `returns` of them.
    pub(crate) fn record(&self, step: usize, returns: usize) -> Next {
        let add = |count: &AtomicUsize, more: usize| {
            // Relaxed, both: this thread alone writes it.
            let sum = count.load(Ordering::Relaxed).wrapping_add(more);
            count.store(sum, Ordering::Relaxed);
        };
        add(&self.counts.steps[step], returns);
        add(&self.counts.squares, returns * returns);
        let (told, look) = (self.until_told.get(), self.until_look.get());
        self.until_look
            .set(look.checked_sub(1).unwrap_or(LOOK_EACH - 1));
        if told <= returns {
            self.until_told.set(0);
            return Next::Tell;
        }
        self.until_told.set(told - returns);
        match look {
            0 => Next::Look,
            _ => Next::Nothing,
        }
    }

    /// Records how much of a buffer's capacity was used, for the `returns` that it stands for.
    #[inline]
    pub(crate) fn record_use(&self, capacity: usize, used: usize, returns: usize) {
        // Wrapping, as that is free: a sample stands for some 100 returns, of buffers that a thread
        // caches.
        let times = |bytes: usize| bytes.wrapping_mul(returns);
        self.capacity_bytes.add_by_owner(times(capacity));
        self.used_bytes.add_by_owner(times(used));
    }

    /// What [`record_use`](Self::record_use) has recorded: the capacity, and the bytes used.
    pub(crate) fn use_of_capacity(&self) -> (u64, u64) {
        let (capacity, used) = (self.capacity_bytes.get(), self.used_bytes.get());
        // The capacity is the one that was last seen: a buffer that was lent may have grown since.
        (capacity.max(used), used)
    }

    /// Takes all that is not reported yet, to be reported now.
    pub(crate) fn take(&self) -> Returns {
        let taken = self.counts.get();
        self.counts.set(&Returns::NONE);
        taken
    }

    /// Schedules the next report after `returns` more returns.
    pub(crate) fn tell_after(&self, returns: usize) {
        self.until_told.set(returns);
    }

    /// The returns that are not reported yet.
    pub(crate) fn untold(&self) -> Returns {
        self.counts.get()
    }
}
