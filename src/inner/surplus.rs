//! Whether a discarded buffer is one of many that the program no longer needs.
//!
//! Owns the decision. Knows nothing of how pages are given back.

use crate::sync::Hint;

/// How many bytes of a size class are discarded in a row before the next discard is a surplus, in
/// a pool that a thread trims.
///
/// 512 KiB: as much as a thread caches of one class. So a program that takes and drops by turns
/// keeps its pages.
const IN_A_ROW_RELEASING: usize = 512 << 10;

/// The same for any other pool, where speed counts for more: a quarter of the budget, and at least
/// this.
///
/// 16 MiB: a quarter of the default budget. A program that takes and drops more than the budget and
/// this in one go pays for its pages each time (`docs/memory.md`).
const IN_A_ROW_LEAST: usize = 16 << 20;
const IN_A_ROW_OF_BUDGET: usize = 4;

/// How many bytes of a class are discarded in a row before the next discard is a surplus.
pub(super) fn in_a_row(releasing: bool, retain_bytes: usize) -> usize {
    match releasing {
        true => IN_A_ROW_RELEASING,
        false => IN_A_ROW_LEAST.max(retain_bytes / IN_A_ROW_OF_BUDGET),
    }
}

/// The discards of one size class, or of no class, since the last buffer came.
#[derive(Default)]
pub(super) struct Surplus {
    /// How many buffers had come at the last discard.
    arrivals: Hint,
    /// The capacity of all that were discarded since.
    bytes: Hint,
}

impl Surplus {
    /// Notes a discard of `capacity` bytes, after `arrivals` buffers in all. Returns whether
    /// `in_a_row` bytes were discarded in a row before it.
    pub(super) fn note(&self, capacity: usize, arrivals: u64, in_a_row: usize) -> bool {
        let arrivals = arrivals as usize; // on 32 bits, it is as good a mark
        if self.arrivals.get() != arrivals {
            self.arrivals.set(arrivals);
            self.bytes.set(0);
        }
        let before = self.bytes.get();
        self.bytes.set(before.saturating_add(capacity));
        before >= in_a_row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discards_in_a_row_become_a_surplus_until_a_buffer_comes() {
        let surplus = Surplus::default();
        for (arrivals, in_a_row) in [(0, 9500), (1, 9500), (7, 1), (0, 100_000)] {
            let kept = (0..1000).take_while(|_| !surplus.note(1000, arrivals, in_a_row));
            assert_eq!(kept.count(), in_a_row.div_ceil(1000));
            assert!(surplus.note(1, arrivals, in_a_row));
        }
        for arrivals in 1..10 {
            // One by one, however large.
            assert!(!surplus.note(usize::MAX, arrivals, 1));
        }
        assert!(surplus.note(1, 9, usize::MAX));
    }

    #[test]
    fn a_pool_that_a_thread_trims_gives_back_sooner() {
        assert_eq!(in_a_row(true, 1 << 40), 512 << 10);
        assert_eq!(in_a_row(false, 0), 16 << 20);
        assert_eq!(in_a_row(false, 64 << 20), 16 << 20);
        assert_eq!(in_a_row(false, 1 << 30), 256 << 20);
    }
}
