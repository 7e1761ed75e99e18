//! How often each size occurred, in bounded memory.
//!
//! Counts. Knows nothing of size classes; what follows from the counts is decided
//! elsewhere.

use crate::sizing::targets::{self, STEPS, Targets};
use std::fmt;

/// The binary logarithm of the number of cells in each power of two.
///
/// 4, so 16 cells: a size is known to one sixteenth, and classes fitted to the
/// cells waste little more than classes fitted to each size would. The whole
/// histogram is 30 KiB, which a core's nearest cache holds.
const DIVIDE_BITS: u32 = 4;
const DIVIDE: usize = 1 << DIVIDE_BITS;

/// No buffer can be larger: Rust's allocations end at `isize::MAX` bytes.
const SIZE_MAX: usize = isize::MAX as usize;

const CELLS: usize = cell_of(SIZE_MAX) + 1;

/// Counts how often each size occurred, in bounded memory.
///
/// The program decides which sizes it records: requests, or the lengths of its writes. Sizes up to 32
/// bytes are counted exactly, and larger ones to one sixteenth of a power of two. Such a range is a
/// [cell](HistogramCell). Each cell knows the sum of its sizes and the largest, so results are exact to
/// the byte where the text says so.
///
/// It takes about 30 KiB, allocated once, and recording allocates nothing. It counts up to `u64::MAX`
/// calls, and none after that.
///
/// ```
/// use tierpool::{Histogram, SizeClasses};
///
/// let mut histogram = Histogram::new();
/// histogram.record_many(300, 60); // a size, and how often
/// histogram.record_many(5000, 39);
/// histogram.record(1 << 20);
///
/// // 99 of 100 calls are more than 95 %: the one large size is left out.
/// let targets = histogram.targets(0.95).unwrap();
/// assert_eq!((targets.default_size, targets.max_size), (512, 8192));
///
/// // The best two classes for these sizes, and the bytes they still waste.
/// let classes = SizeClasses::fit(&histogram, 2)?;
/// assert_eq!(classes.capacities(), [5000, 1 << 20]);
/// assert_eq!(histogram.wasted_bytes(&classes), 60 * (5000 - 300));
/// # Ok::<(), tierpool::FitError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    /// The sum of the cells' calls. So no sum of calls can overflow, nor one of
    /// bytes: 64 bits times 63.
    calls: u64,
    cells: Box<[Counts; CELLS]>,
}

/// The counts of one cell.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Counts {
    calls: u64,
    /// At most `calls * largest`.
    bytes: u128,
    largest: usize,
}

/// Holds the counts of some neighbouring sizes: one part of a [`Histogram`], from [`Histogram::cells`].
///
/// A power of two is always the last size of its cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistogramCell {
    /// The smallest size that belongs here, in bytes.
    pub from: usize,
    /// The largest size that belongs here, in bytes.
    pub to: usize,
    /// The largest size recorded, in bytes; at least 1.
    pub largest: usize,
    /// The number of calls with a size from `from` to `to`.
    pub calls: u64,
    /// Their sum in bytes.
    pub bytes: u128,
}

impl Histogram {
    /// Makes a histogram in which nothing is recorded.
    ///
    /// ```
    /// use tierpool::Histogram;
    ///
    /// assert!(Histogram::new().is_empty());
    /// ```
    #[must_use]
    pub fn new() -> Self {
        const NONE: Counts = Counts {
            calls: 0,
            bytes: 0,
            largest: 0,
        };
        // By way of a vector, so that the array never lies on the stack.
        let cells = vec![NONE; CELLS].into_boxed_slice();
        let Ok(cells) = cells.try_into() else {
            unreachable!("it has CELLS cells")
        };
        Histogram { calls: 0, cells }
    }

    /// Counts one call with this size.
    ///
    /// A size above `isize::MAX`, which no buffer can have, counts as `isize::MAX`. Takes a few nanoseconds.
    ///
    /// ```
    /// use tierpool::Histogram;
    ///
    /// let mut histogram = Histogram::new();
    /// histogram.record(1500);
    /// assert_eq!(histogram.calls(), 1);
    /// ```
    #[inline]
    pub fn record(&mut self, size: usize) {
        if self.calls == u64::MAX {
            return;
        }
        let size = size.min(SIZE_MAX);
        self.calls += 1;
        let cell = &mut self.cells[cell_of(size)];
        cell.calls += 1;
        cell.bytes += size as u128;
        cell.largest = cell.largest.max(size);
    }

    /// Counts `count` calls with this size.
    ///
    /// The same as `count` calls of [`record`](Self::record).
    ///
    /// ```
    /// use tierpool::Histogram;
    ///
    /// let mut histogram = Histogram::new();
    /// histogram.record_many(1500, 3);
    /// assert_eq!(histogram, Histogram::from_iter([1500, 1500, 1500]));
    /// ```
    pub fn record_many(&mut self, size: usize, count: u64) {
        let size = size.min(SIZE_MAX);
        let counts = Counts {
            calls: count,
            bytes: size as u128 * u128::from(count),
            largest: size,
        };
        self.add(cell_of(size), counts);
    }

    /// Adds the counts of another histogram.
    ///
    /// ```
    /// use tierpool::Histogram;
    ///
    /// let mut sum: Histogram = [100, 2000].into_iter().collect();
    /// sum.merge(&[300].into_iter().collect());
    /// assert_eq!(sum, Histogram::from_iter([100, 300, 2000]));
    /// ```
    pub fn merge(&mut self, other: &Histogram) {
        for (index, &counts) in other.cells.iter().enumerate() {
            self.add(index, counts);
        }
    }

    fn add(&mut self, index: usize, counts: Counts) {
        let counts = counts.first(u64::MAX - self.calls);
        if counts.calls == 0 {
            return;
        }
        self.calls += counts.calls;
        let cell = &mut self.cells[index];
        cell.calls += counts.calls;
        cell.bytes += counts.bytes;
        cell.largest = cell.largest.max(counts.largest);
    }

    /// Returns the number of calls that were counted.
    ///
    /// ```
    /// use tierpool::Histogram;
    ///
    /// assert_eq!(Histogram::from_iter([10, 20]).calls(), 2);
    /// ```
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Returns `true` if nothing is recorded.
    ///
    /// ```
    /// use tierpool::Histogram;
    ///
    /// assert!(!Histogram::from_iter([10]).is_empty());
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls == 0
    }

    /// Returns the number of calls in each of the calibrator's 20 steps.
    ///
    /// The steps are 64 bytes, 128, 256 and so on to 32 MiB. A call counts in the smallest step that holds
    /// its size, and above 32 MiB in the last.
    ///
    /// ```
    /// use tierpool::Histogram;
    ///
    /// let histogram = Histogram::from_iter([0, 64, 65, usize::MAX]);
    /// let steps = histogram.steps();
    /// assert_eq!((steps[0], steps[1], steps[19]), (2, 1, 1));
    /// ```
    #[must_use]
    pub fn steps(&self) -> [u64; STEPS] {
        let mut steps = [0; STEPS];
        for cell in self.cells() {
            // A step is a union of cells: each ends with a power of two.
            steps[targets::step_of(cell.largest)] += cell.calls;
        }
        steps
    }

    /// Returns the targets that the calibrator chooses from these calls alone, or `None` if nothing is
    /// recorded.
    ///
    /// [`default_size`](Targets::default_size) is the [step](Self::steps) with the most calls; of several,
    /// the smallest. For [`max_size`](Targets::max_size), the steps are walked from the most calls to the
    /// fewest, until the walked steps have more than `percentile` of all calls. The largest walked step is
    /// the maximum.
    ///
    /// A `percentile` of 0 or below, or NaN, walks one step. One of 1 or above walks all that have a call.
    ///
    /// ```
    /// use tierpool::Histogram;
    ///
    /// let mut histogram = Histogram::new();
    /// histogram.record_many(3000, 94);
    /// histogram.record_many(100_000, 6);
    /// // 94 calls are not more than 95 % of 100, so the next step is walked as well.
    /// let targets = histogram.targets(0.95).expect("something is recorded");
    /// assert_eq!((targets.default_size, targets.max_size), (4096, 131_072));
    /// ```
    #[must_use]
    pub fn targets(&self, percentile: f64) -> Option<Targets> {
        targets::from_steps(&self.steps(), percentile)
    }

    /// Returns the cells in which something is recorded, ascending; at most 960.
    ///
    /// ```
    /// use tierpool::Histogram;
    ///
    /// let histogram = Histogram::from_iter([1000, 1010, 7]);
    /// let cells: Vec<_> = histogram.cells().collect();
    /// assert_eq!((cells[0].from, cells[0].to), (7, 7)); // exact up to 32 bytes
    /// assert_eq!((cells[1].from, cells[1].to), (993, 1024));
    /// assert_eq!((cells[1].calls, cells[1].bytes, cells[1].largest), (2, 2010, 1010));
    /// ```
    pub fn cells(&self) -> impl Iterator<Item = HistogramCell> {
        let cells = self.cells.iter().enumerate();
        let occurred = cells.filter(|(_, counts)| counts.calls > 0);
        occurred.map(|(index, counts)| {
            let (from, to) = sizes_of(index);
            HistogramCell {
                from,
                to,
                largest: counts.largest.max(1),
                calls: counts.calls,
                bytes: counts.bytes,
            }
        })
    }
}

impl Counts {
    /// The counts if no more than `calls` are counted. Their mean stays the same.
    fn first(self, calls: u64) -> Self {
        if self.calls <= calls {
            return self;
        }
        let (calls, all) = (u128::from(calls), u128::from(self.calls));
        Counts {
            calls: calls as u64,
            // `bytes * calls / all`, in two parts that cannot overflow.
            bytes: self.bytes / all * calls + self.bytes % all * calls / all,
            largest: self.largest,
        }
    }
}

/// The cell of a size up to `SIZE_MAX`.
#[inline]
const fn cell_of(size: usize) -> usize {
    // Of `size - 1`, so that a power of two ends a cell. A size of 0 is beside 1.
    let rank = size.saturating_sub(1);
    // All but the leading bit and the `DIVIDE_BITS` below it are dropped.
    let dropped = (rank | DIVIDE).ilog2() - DIVIDE_BITS;
    dropped as usize * DIVIDE + (rank >> dropped)
}

/// The smallest and the largest size of a cell.
fn sizes_of(cell: usize) -> (usize, usize) {
    let dropped = (cell / DIVIDE).saturating_sub(1);
    let rank = (cell - dropped * DIVIDE) << dropped;
    let from = if rank == 0 { 0 } else { rank + 1 };
    (from, (rank + (1 << dropped)).min(SIZE_MAX))
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram::new()
    }
}

impl fmt::Debug for Histogram {
    /// Prints the number of calls, the number of cells, and the largest size.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("calls", &self.calls)
            .field("cells", &self.cells().count())
            .field("largest", &self.cells().last().map(|cell| cell.largest))
            .finish()
    }
}

impl Extend<usize> for Histogram {
    fn extend<I: IntoIterator<Item = usize>>(&mut self, sizes: I) {
        for size in sizes {
            self.record(size);
        }
    }
}

impl FromIterator<usize> for Histogram {
    fn from_iter<I: IntoIterator<Item = usize>>(sizes: I) -> Self {
        let mut histogram = Histogram::new();
        histogram.extend(sizes);
        histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cells_are_all_sizes_in_order_and_none_twice() {
        let mut next = 0;
        for cell in 0..CELLS {
            let (from, to) = sizes_of(cell);
            assert_eq!(from, next, "cell {cell}");
            assert!(from <= to);
            assert_eq!((cell_of(from), cell_of(to)), (cell, cell));
            next = to + 1;
        }
        assert_eq!(next, SIZE_MAX + 1);
        assert_eq!(CELLS, (usize::BITS as usize - 4) * 16);
    }

    #[test]
    fn a_cell_ends_with_each_power_of_two() {
        for bit in 0..usize::BITS - 1 {
            let power = 1_usize << bit;
            assert_eq!(sizes_of(cell_of(power)).1, power);
        }
    }

    #[test]
    fn sizes_are_exact_up_to_32_and_then_to_a_sixteenth_of_a_power_of_two() {
        for size in 2..=32 {
            assert_eq!(sizes_of(cell_of(size)), (size, size));
        }
        assert_eq!(sizes_of(cell_of(0)), (0, 1));
        for bit in 5..usize::BITS - 1 {
            let power = 1_usize << bit;
            assert_eq!(
                sizes_of(cell_of(power + 1)),
                (power + 1, power + power / 16)
            );
        }
    }

    #[test]
    fn what_is_counted_of_too_many_calls_keeps_their_mean() {
        let counts = |calls, bytes| Counts {
            calls,
            bytes,
            largest: SIZE_MAX,
        };
        let first = |all: Counts, calls| {
            let first = all.first(calls);
            (first.calls, first.bytes)
        };
        assert_eq!(first(counts(10, 1000), 10), (10, 1000));
        assert_eq!(first(counts(10, 1000), 3), (3, 300));
        assert_eq!(first(counts(10, 1007), 3), (3, 302)); // of 302.1
        assert_eq!(first(counts(10, 1000), 0), (0, 0));
        let most = counts(u64::MAX, SIZE_MAX as u128 * u128::from(u64::MAX));
        let less = u64::MAX - 1;
        assert_eq!(
            first(most, less),
            (less, SIZE_MAX as u128 * u128::from(less))
        );
    }
}
