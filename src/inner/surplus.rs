//! Whether a discarded buffer is one of many that the program no longer needs.
//!
//! Owns the decision. Knows nothing of how pages are given back.

use crate::sync::Hint;

/// How many bytes of a size class are discarded in a row before the next discard is a surplus, in a
/// pool that the background thread trims.
///
/// 512 KiB: as much as a thread caches of one class. So a program that takes and drops buffers in
/// turn keeps its pages.
const IN_A_ROW_RELEASING: usize = 512 << 10;

/// The same for any other pool, where speed counts for more: a quarter of the budget, and at least
/// this many bytes.
///
/// 16 MiB: a quarter of the default budget. A program that takes and drops more than the budget
/// plus 16 MiB at once pays for its pages each time (`docs/memory.md`).
const IN_A_ROW_LEAST: usize = 16 << 20;
const IN_A_ROW_OF_BUDGET: usize = 4;

/// How many bytes of a class are discarded in a row before the next discard is a surplus.
pub(super) fn in_a_row(releasing: bool, retain_bytes: usize) -> usize {
    match releasing {
        true => IN_A_ROW_RELEASING,
        false => IN_A_ROW_LEAST.max(retain_bytes / IN_A_ROW_OF_BUDGET),
    }
}

/// The discards of one size class, or of no class, less the arrivals.
#[derive(Default)]
pub(super) struct Surplus {
    /// How many buffers had come at the last discard.
    arrivals: Hint,
    /// The length of the row: the bytes that were discarded, less as many buffers as arrived. At
    /// least 0, and at most as much as makes the next discard a surplus.
    bytes: Hint,
}

impl Surplus {
    /// Notes a discard of `capacity` bytes, after `arrivals` buffers in all. Returns whether
    /// `in_a_row` bytes were discarded in a row before it.
    ///
    /// A buffer that arrives takes one off the row, and does not end it: so a falling load gives
    /// its pages back even while the program takes some buffers. The row is never longer than
    /// `in_a_row`. So once the load is steady, each discard follows an arrival, and none is a
    /// surplus.
    pub(super) fn note(&self, capacity: usize, arrivals: u64, in_a_row: usize) -> bool {
        let arrivals = arrivals as usize; // on 32 bits, the low bits serve as well
        // Wraps to a large number if another thread has seen a later count. That ends the row.
        let came = arrivals.wrapping_sub(self.arrivals.get());
        if came > 0 {
            self.arrivals.set(arrivals);
        }
        let before = self
            .bytes
            .get()
            .saturating_sub(came.saturating_mul(capacity));
        self.bytes
            .set(before.saturating_add(capacity).min(in_a_row));
        before >= in_a_row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discards_in_a_row_become_a_surplus() {
        for in_a_row in [9500, 1, 100_000] {
            let surplus = Surplus::default();
            let kept = (0..1000).take_while(|_| !surplus.note(1000, 5, in_a_row));
            assert_eq!(kept.count(), in_a_row.div_ceil(1000));
            assert!(surplus.note(1, 5, in_a_row));
        }
        let surplus = Surplus::default();
        assert!((1..10).all(|arrivals| !surplus.note(usize::MAX, arrivals, 1)));
        assert!(surplus.note(1, 9, 1));
    }

    /// How many discards of 1000 bytes are a surplus, if `in_a_row` is 10,000.
    fn surpluses(surplus: &Surplus, arrivals: u64, discards: usize) -> usize {
        let discards = (0..discards).map(|_| surplus.note(1000, arrivals, 10_000));
        discards.filter(|&is_surplus| is_surplus).count()
    }

    #[test]
    fn a_buffer_that_arrives_takes_one_off_the_row() {
        let surplus = Surplus::default();
        assert_eq!(surpluses(&surplus, 100, 10), 0);
        // The load falls: two buffers go for each that arrives.
        let ebbing = (101..201).map(|arrivals| surpluses(&surplus, arrivals, 2));
        assert_eq!(ebbing.sum::<usize>(), 100);
        // The load is steady from now on, one by one or ten by ten.
        assert!((201..301).all(|arrivals| surpluses(&surplus, arrivals, 1) == 0));
        assert!((31..100).all(|tens| surpluses(&surplus, 10 * tens, 10) == 0));
        // More than a row at once is a surplus each time.
        assert!((100..200).all(|tens| surpluses(&surplus, 12 * tens, 12) == 2));
    }

    #[test]
    fn a_pool_that_a_thread_trims_gives_back_sooner() {
        assert_eq!(in_a_row(true, 1 << 40), 512 << 10);
        assert_eq!(in_a_row(false, 0), 16 << 20);
        assert_eq!(in_a_row(false, 64 << 20), 16 << 20);
        assert_eq!(in_a_row(false, 1 << 30), 256 << 20);
    }
}
