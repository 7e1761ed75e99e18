//! The ladder of size classes: a request is rounded up to one, a capacity down.
//! Which ladder fits recorded requests best.
//!
//! Pure arithmetic. Knows nothing of buffers.

use crate::engine::ClassIndex;
use crate::error::{ConfigError, FitError};
use crate::sizing::histogram::{Histogram, HistogramCell};
use crate::system::CAPACITY_MAX;
use std::fmt;
use std::ops::{Range, RangeInclusive};

/// The most size classes that a pool can have.
///
/// 128: twice what doubling from 1 byte to `isize::MAX` needs, and an index
/// fits a byte.
pub(crate) const CLASSES_MAX: usize = 128;

const _: () = assert!(CLASSES_MAX < u8::MAX as usize, "with one index to spare");

/// Holds the capacities of a pool's size classes in bytes, ascending; at least 1, at most 128.
///
/// [`fit`](Self::fit) chooses the best for recorded requests. To use them, pass them to
/// [`Builder::classes`](crate::Builder::classes).
///
/// ```
/// use tierpool::{Histogram, Pool, SizeClasses};
///
/// let mut requests = Histogram::new();
/// requests.record_many(200, 500);
/// requests.record_many(1500, 9000);
/// requests.record_many(70_000, 10);
///
/// let fitted = SizeClasses::fit(&requests, 3)?;
/// assert_eq!(fitted.capacities(), [200, 1500, 70_000]);
/// assert_eq!(requests.wasted_bytes(&fitted), 0);
///
/// let pool = Pool::builder().classes(fitted).build()?;
/// assert_eq!(pool.get(1500).capacity(), 1500);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct SizeClasses {
    /// How many classes there are.
    count: u8,
    /// For each bit length of `request - 1`, the class of the smallest request
    /// of that length: where [`for_request`](Self::for_request) starts to look.
    start: [u8; usize::BITS as usize],
    /// `capacities[..count]` are the classes', the rest is `usize::MAX`. As
    /// long as an index can be, so that none is out of bounds.
    capacities: [usize; 256],
}

impl SizeClasses {
    /// Chooses the best `k` classes for recorded requests: no other `k` classes waste fewer bytes.
    ///
    /// The largest class is the largest request recorded, so the classes hold all requests. There are fewer
    /// than `k` classes if fewer [cells](Histogram::cells) have a call. Then each cell has its own class. Of
    /// several ladders that waste as little, it is the one with the smaller second largest class, then with
    /// the smaller third largest, and so on.
    ///
    /// The requests of one cell share a class, and each class is a size that was recorded (1, if that is 0).
    /// Of all ladders like that, it is the best: the search is exact. [`Histogram::wasted_bytes`] returns
    /// the bytes that are still wasted.
    ///
    /// # Cost
    ///
    /// Takes time in proportion to `k`: a few milliseconds for 128 classes of 960 cells.
    ///
    /// # Errors
    ///
    /// - [`FitError::NoClasses`] if `k` is 0.
    /// - [`FitError::TooManyClasses`] if `k` is above 128.
    /// - [`FitError::Empty`] if nothing is recorded.
    ///
    /// ```
    /// use tierpool::{Histogram, SizeClasses};
    ///
    /// let requests = Histogram::from_iter([10, 11, 12, 20, 30]);
    /// let fitted = SizeClasses::fit(&requests, 2)?;
    /// // (12 - 10) + (12 - 11) + (30 - 20) bytes are wasted. With 20 instead of
    /// // 12 it would be 10 + 9 + 8.
    /// assert_eq!(fitted.capacities(), [12, 30]);
    /// assert_eq!(requests.wasted_bytes(&fitted), 2 + 1 + 10);
    /// # Ok::<(), tierpool::FitError>(())
    /// ```
    pub fn fit(histogram: &Histogram, k: usize) -> Result<Self, FitError> {
        if k == 0 {
            return Err(FitError::NoClasses);
        }
        if k > CLASSES_MAX {
            return Err(FitError::TooManyClasses {
                k,
                max: CLASSES_MAX,
            });
        }
        if histogram.is_empty() {
            return Err(FitError::Empty);
        }
        Ok(Self::ladder(&Runs::of(histogram.cells()).best(k)))
    }

    /// Makes the classes `min, 2 * min, 4 * min, ...` while below `max`, and then `max` itself.
    ///
    /// [`Builder::min_size`](crate::Builder::min_size) and
    /// [`Builder::max_size`](crate::Builder::max_size) make these.
    ///
    /// # Errors
    ///
    /// - [`ConfigError::Zero`] or [`ConfigError::TooLarge`] if `min` or `max` is 0 or above `isize::MAX`.
    /// - [`ConfigError::MaxBelowMin`] if `max` is below `min`.
    ///
    /// ```
    /// use tierpool::SizeClasses;
    ///
    /// let classes = SizeClasses::doubling(1024, 15_000)?;
    /// assert_eq!(classes.capacities(), [1024, 2048, 4096, 8192, 15_000]);
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    // As vitess' `bucketpool` has them.
    pub fn doubling(min: usize, max: usize) -> Result<Self, ConfigError> {
        for (field, value) in [("min_size", min), ("max_size", max)] {
            if value == 0 {
                return Err(ConfigError::Zero { field });
            }
            if value > CAPACITY_MAX {
                return Err(ConfigError::TooLarge { field, value });
            }
        }
        if max < min {
            return Err(ConfigError::MaxBelowMin { min, max });
        }
        let below = std::iter::successors(Some(min), |size| size.checked_mul(2));
        let capacities: Vec<usize> = below.take_while(|&size| size < max).chain([max]).collect();
        Ok(Self::ladder(&capacities))
    }

    /// Makes the classes of a given list.
    ///
    /// # Errors
    ///
    /// - [`ConfigError::NoClasses`] or [`ConfigError::TooManyClasses`] if the list is empty or has more than
    ///   128 capacities.
    /// - [`ConfigError::Zero`], [`ConfigError::TooLarge`] or [`ConfigError::NotAscending`] if a capacity is 0,
    ///   is above `isize::MAX`, or is not above the one before it.
    ///
    /// ```
    /// use tierpool::{ConfigError, SizeClasses};
    ///
    /// assert_eq!(SizeClasses::listed(&[512, 2000])?.capacities(), [512, 2000]);
    /// let error = SizeClasses::listed(&[2000, 512]).unwrap_err();
    /// assert!(matches!(error, ConfigError::NotAscending { index: 1, .. }));
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn listed(capacities: &[usize]) -> Result<Self, ConfigError> {
        const FIELD: &str = "classes";
        if capacities.is_empty() {
            return Err(ConfigError::NoClasses);
        }
        if capacities.len() > CLASSES_MAX {
            return Err(ConfigError::TooManyClasses { max: CLASSES_MAX });
        }
        let mut previous = None;
        for (index, &value) in capacities.iter().enumerate() {
            if value == 0 {
                return Err(ConfigError::Zero { field: FIELD });
            }
            if value > CAPACITY_MAX {
                return Err(ConfigError::TooLarge {
                    field: FIELD,
                    value,
                });
            }
            if let Some(previous) = previous.filter(|&previous| value <= previous) {
                return Err(ConfigError::NotAscending {
                    index,
                    previous,
                    value,
                });
            }
            previous = Some(value);
        }
        Ok(Self::ladder(capacities))
    }

    fn ladder(classes: &[usize]) -> Self {
        const LAST_BIT: usize = usize::BITS as usize - 1;
        let mut capacities = [usize::MAX; 256];
        capacities[..classes.len()].copy_from_slice(classes);
        let start = std::array::from_fn(|bit| {
            // The last bit length stands for a request of 0, too, and above it
            // are none but requests that no class holds.
            let smallest_request = match bit {
                0 | LAST_BIT => 0,
                bit => (1 << bit) + 1,
            };
            index(classes.partition_point(|&capacity| capacity < smallest_request))
        });
        SizeClasses {
            count: index(classes.len()),
            start,
            capacities,
        }
    }

    /// The smallest class that holds `request` bytes; [`unclassed`](Self::unclassed) above the largest.
    #[inline(always)]
    pub(crate) fn for_request(&self, request: usize) -> ClassIndex {
        // Of 0, the last bit: `ladder` has seen to that.
        let bit = (request.wrapping_sub(1) | 1).ilog2();
        let class = self.start[bit as usize];
        if self.capacities[usize::from(class)] >= request {
            return ClassIndex(usize::from(class));
        }
        self.for_request_above(class, request)
    }

    /// Never, where classes double from a power of two: there, this request and
    /// the smallest of its bit length have the same class.
    #[cold]
    fn for_request_above(&self, mut class: u8, request: usize) -> ClassIndex {
        while self.capacities[usize::from(class)] < request {
            class += 1;
        }
        ClassIndex(usize::from(class))
    }

    /// The index that stands for no size class: the one after the last.
    pub(crate) fn unclassed(&self) -> ClassIndex {
        ClassIndex(usize::from(self.count))
    }

    /// The class that has just this capacity, if one does.
    #[inline]
    pub(crate) fn of_capacity(&self, capacity: usize) -> Option<ClassIndex> {
        let class = self.for_request(capacity);
        // `usize::MAX` for no class, which is no buffer's capacity. As a `u8`, the index needs no
        // check.
        (self.capacities[usize::from(class.get() as u8)] == capacity).then_some(class)
    }

    /// The largest class that `capacity` bytes fill; `None` below the smallest.
    ///
    /// The largest class, whatever `capacity` is, if it is above that.
    pub(crate) fn for_capacity(&self, capacity: usize) -> Option<ClassIndex> {
        let exact = self.of_capacity(capacity);
        exact
            .filter(|&class| class != self.unclassed())
            .or_else(|| {
                let ClassIndex(above) = self.for_request(capacity);
                above.checked_sub(1).map(ClassIndex)
            })
    }

    /// A class's capacity in bytes.
    pub(crate) fn capacity(&self, class: ClassIndex) -> usize {
        self.capacities()[class.get()]
    }

    /// The largest class's capacity in bytes.
    pub(crate) fn max(&self) -> usize {
        self.capacities[usize::from(self.count) - 1]
    }

    /// Returns all capacities in bytes, ascending.
    ///
    /// ```
    /// use tierpool::SizeClasses;
    ///
    /// assert_eq!(SizeClasses::doubling(512, 1024)?.capacities(), [512, 1024]);
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    #[must_use]
    pub fn capacities(&self) -> &[usize] {
        &self.capacities[..usize::from(self.count)]
    }

    /// All classes, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = ClassIndex> + use<> {
        (0..usize::from(self.count)).map(ClassIndex)
    }
}

fn index(class: usize) -> u8 {
    u8::try_from(class).expect("there are at most CLASSES_MAX classes")
}

impl fmt::Debug for SizeClasses {
    /// Prints the capacities.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SizeClasses")
            .field(&self.capacities())
            .finish()
    }
}

/// Returns the capacities, ascending.
impl IntoIterator for SizeClasses {
    type Item = usize;
    type IntoIter = std::vec::IntoIter<usize>;

    fn into_iter(self) -> Self::IntoIter {
        self.capacities().to_vec().into_iter()
    }
}

/// Returns the capacities, ascending.
impl<'a> IntoIterator for &'a SizeClasses {
    type Item = usize;
    type IntoIter = std::iter::Copied<std::slice::Iter<'a, usize>>;

    fn into_iter(self) -> Self::IntoIter {
        self.capacities().iter().copied()
    }
}

impl Histogram {
    /// Returns the bytes by which the capacities of these classes exceed the recorded sizes, summed over all
    /// calls.
    ///
    /// A size above the largest class wastes nothing: such a request gets exactly its size.
    ///
    /// The result is exact if each [cell](Histogram::cells) is within one class: if the classes are powers of
    /// two, are [fitted](SizeClasses::fit) to this histogram, or are sizes up to 32 bytes. All of a cell that
    /// a class divides counts as its largest size.
    ///
    /// ```
    /// use tierpool::{Histogram, SizeClasses};
    ///
    /// let requests = Histogram::from_iter([1000, 1500, 9000]);
    /// let classes = SizeClasses::listed(&[1024, 2048])?;
    /// assert_eq!(requests.wasted_bytes(&classes), 24 + 548); // 9000 is above both
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    #[must_use]
    pub fn wasted_bytes(&self, classes: &SizeClasses) -> u128 {
        let wasted = self.cells().map(|cell| {
            let class = classes.for_request(cell.largest);
            match classes.capacities().get(class.get()) {
                Some(&capacity) => bytes(capacity, cell.calls) - cell.bytes,
                None => 0, // oversize
            }
        });
        wasted.sum()
    }
}

/// Never overflows: a capacity has 63 bits, and calls have 64.
fn bytes(capacity: usize, calls: u64) -> u128 {
    capacity as u128 * u128::from(calls)
}

/// Runs of neighbouring cells, each to be held by one class, and their costs.
///
/// The cost of a run is the bytes that its calls are handed out. The waste is the cost less the
/// bytes recorded. Their sum is the same for every choice of classes, so it need not be known here.
struct Runs {
    /// The largest size recorded in each cell, after a 0 at the start. Ascending.
    capacities: Vec<usize>,
    /// The calls of all cells before this one, and at the end those of all. Ascending.
    calls_before: Vec<u64>,
}

impl Runs {
    fn of(cells: impl Iterator<Item = HistogramCell>) -> Self {
        let mut runs = Runs {
            capacities: vec![0],
            calls_before: vec![0],
        };
        let mut calls = 0;
        for cell in cells {
            calls += cell.calls; // a histogram counts no more than `u64::MAX`
            runs.capacities.push(cell.largest);
            runs.calls_before.push(calls);
        }
        runs
    }

    /// The cost of the cells `start..end` in one class.
    fn cost(&self, start: usize, end: usize) -> u128 {
        let calls = self.calls_before[end] - self.calls_before[start];
        bytes(self.capacities[end], calls)
    }

    /// The capacities of the `k` classes that cost least, or of as many as there are cells.
    fn best(&self, k: usize) -> Vec<usize> {
        let cells = self.capacities.len() - 1;
        let mut least: Vec<u128> = (0..=cells).map(|end| self.cost(0, end)).collect();
        let mut layers = Vec::new();
        for classes in 2..=k.min(cells) {
            let mut layer = Layer {
                runs: self,
                one_class_less: &least,
                least: vec![0; cells + 1],
                last_start: vec![0; cells + 1],
            };
            layer.fill(classes..cells + 1, classes - 1..=cells);
            let last_start = layer.last_start;
            least = layer.least;
            layers.push(last_start);
        }
        let mut end = cells;
        let mut best = vec![self.capacities[end]];
        for last_start in layers.iter().rev() {
            end = last_start[end];
            best.push(self.capacities[end]);
        }
        best.reverse();
        best
    }
}

/// For some number of classes: how best to give them to the first cells.
struct Layer<'a> {
    runs: &'a Runs,
    /// The least cost of the first cells, by how many they are, with a class less.
    one_class_less: &'a [u128],
    /// The least cost of the first cells.
    least: Vec<u128>,
    /// Where the last class's run starts then: the first such place, of several.
    last_start: Vec<usize>,
}

impl Layer<'_> {
    /// For each of `ends`, finds the best of `starts`.
    ///
    /// By halves: the best start for the end in the middle is no earlier than that for any
    /// end before it, and no later than that for any after it. That follows from the
    /// quadrangle inequality (Knuth, "Optimum binary search trees", 1971; F. Yao,
    /// "Efficient dynamic programming using quadrangle inequalities", 1980), and this
    /// cost satisfies it: for starts `a < b` and ends `c < d`,
    ///
    /// ```text
    /// cost(a, c) + cost(b, d) - cost(a, d) - cost(b, c)
    ///     = (capacity of c - capacity of d) * (calls before b - calls before a) < 0
    /// ```
    ///
    /// So extending a run from `c` to `d` costs more the earlier it starts. It holds
    /// for the first of several best starts, too, since there the earlier ones are worse.
    fn fill(&mut self, ends: Range<usize>, starts: RangeInclusive<usize>) {
        if ends.is_empty() {
            return;
        }
        let end = ends.start + ends.len() / 2;
        let (&first, &last) = (starts.start(), starts.end());
        let candidates = (first..=last.min(end - 1)).map(|start| {
            let cost = self.one_class_less[start] + self.runs.cost(start, end);
            (cost, start)
        });
        let (least, start) = candidates
            .min()
            .expect("no start is after an end before this");
        self.least[end] = least;
        self.last_start[end] = start;
        self.fill(ends.start..end, first..=start);
        self.fill(end + 1..ends.end, start..=last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The module's definition, computed directly.
    fn naive_for_request(capacities: &[usize], request: usize) -> usize {
        let fit = capacities.iter().position(|&capacity| capacity >= request);
        fit.unwrap_or(capacities.len())
    }

    fn naive_for_capacity(capacities: &[usize], capacity: usize) -> Option<usize> {
        capacities.iter().rposition(|&class| class <= capacity)
    }

    fn naive_doubling(min: usize, max: usize) -> Vec<usize> {
        let mut capacities = Vec::new();
        let mut size = min as u128;
        while size < max as u128 {
            capacities.push(size as usize);
            size *= 2;
        }
        capacities.push(max);
        capacities
    }

    fn check(classes: &SizeClasses, size: usize) {
        assert_eq!(
            classes.for_request(size).get(),
            naive_for_request(classes.capacities(), size),
            "request {size} in {:?}",
            classes.capacities()
        );
        assert_eq!(
            classes.for_capacity(size).map(ClassIndex::get),
            naive_for_capacity(classes.capacities(), size),
            "capacity {size} in {:?}",
            classes.capacities()
        );
    }

    fn check_around_every_class(classes: &SizeClasses) {
        for &capacity in classes.capacities() {
            check(classes, capacity - 1);
            check(classes, capacity);
            check(classes, capacity.saturating_add(1));
        }
        for edge in [0, 1, 2, CAPACITY_MAX, CAPACITY_MAX + 1, usize::MAX] {
            check(classes, edge);
        }
    }

    /// Sizes of every magnitude, equally often.
    fn any_size() -> impl Strategy<Value = usize> {
        (0..usize::BITS, any::<usize>()).prop_map(|(shift, bits)| bits >> shift)
    }

    fn any_capacity() -> impl Strategy<Value = usize> {
        any_size().prop_map(|size| size.clamp(1, CAPACITY_MAX))
    }

    // What the fast path of a get has instead of a search.
    #[test]
    fn where_classes_double_from_a_power_of_two_the_first_that_is_looked_at_serves() {
        for (min, max) in [(1, 1 << 20), (512, 1 << 20), (4096, 4096)] {
            let classes = SizeClasses::doubling(min, max).expect("powers of two");
            for bit in 1..20 {
                let first = usize::from(classes.start[bit]);
                for request in [(1 << bit) + 1, 2 << bit] {
                    assert_eq!(classes.for_request(request), ClassIndex(first), "{request}");
                    assert!(classes.capacities[first] >= request, "{request}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if crate::SLOW { 8 } else { 512 }))]

        #[test]
        fn doubling_classes_agree_with_the_naive_model(
            a in any_capacity(),
            b in any_capacity(),
            sizes in prop::collection::vec(any_size(), 0..64),
        ) {
            let (min, max) = (a.min(b), a.max(b));
            let classes = SizeClasses::doubling(min, max).unwrap();
            prop_assert_eq!(classes.capacities(), naive_doubling(min, max));
            prop_assert_eq!(classes.max(), max);
            check_around_every_class(&classes);
            for size in sizes {
                check(&classes, size);
            }
        }

        #[test]
        fn listed_classes_agree_with_the_naive_model(
            list in prop::collection::btree_set(any_capacity(), 1..=CLASSES_MAX),
            sizes in prop::collection::vec(any_size(), 0..64),
        ) {
            let list: Vec<usize> = list.into_iter().collect();
            let classes = SizeClasses::listed(&list).unwrap();
            prop_assert_eq!(classes.capacities(), &list[..]);
            check_around_every_class(&classes);
            for size in sizes {
                check(&classes, size);
            }
        }

        #[test]
        fn a_list_is_taken_if_and_only_if_it_ascends_from_above_zero(
            list in prop::collection::vec(0_usize..6, 0..5),
        ) {
            let good = !list.is_empty() && list[0] > 0 && list.windows(2).all(|w| w[0] < w[1]);
            prop_assert_eq!(SizeClasses::listed(&list).is_ok(), good);
        }
    }

    #[test]
    fn the_last_step_is_the_maximum_itself() {
        let classes = SizeClasses::doubling(1024, 15_000).unwrap();
        assert_eq!(classes.capacities(), [1024, 2048, 4096, 8192, 15_000]);
        let classes = SizeClasses::doubling(512, 512).unwrap();
        assert_eq!(classes.capacities(), [512]);
    }

    #[test]
    fn doubling_over_the_whole_range_ends() {
        let classes = SizeClasses::doubling(1, CAPACITY_MAX).unwrap();
        assert_eq!(classes.capacities().len(), usize::BITS as usize);
        assert_eq!(classes.iter().count(), usize::BITS as usize);
    }
}
