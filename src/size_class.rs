//! The ladder of size classes: a request is rounded up to one, a capacity down.
//!
//! Pure arithmetic. Knows nothing of buffers.

use crate::engine::ClassIndex;
use crate::error::ConfigError;

/// The most size classes that a pool can have.
///
/// 128: twice what doubling from 1 byte to `isize::MAX` needs, and an index
/// fits a byte.
pub(crate) const CLASSES_MAX: usize = 128;

/// No buffer can be larger: Rust's allocations end at `isize::MAX` bytes.
pub(crate) const CAPACITY_MAX: usize = isize::MAX as usize;

const _: () = assert!(CLASSES_MAX < u8::MAX as usize, "with one index to spare");

/// The capacities of the size classes, ascending, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SizeClasses {
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
    /// `min, 2 * min, 4 * min, ...` while below `max`, then `max` itself, as
    /// vitess' `bucketpool` has them.
    pub(crate) fn doubling(min: usize, max: usize) -> Result<Self, ConfigError> {
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

    /// A list of one's own: not empty, ascending, without 0.
    pub(crate) fn listed(capacities: &[usize]) -> Result<Self, ConfigError> {
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
            return ClassIndex(class);
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
        ClassIndex(class)
    }

    /// What stands in for a size class where there is none: the index after the last.
    pub(crate) fn unclassed(&self) -> ClassIndex {
        ClassIndex(self.count)
    }

    /// The largest class that `capacity` bytes fill; `None` below the smallest.
    ///
    /// The largest class, whatever `capacity` is, if it is above that.
    pub(crate) fn for_capacity(&self, capacity: usize) -> Option<ClassIndex> {
        let ClassIndex(above) = self.for_request(capacity);
        if above < self.count && self.capacities[usize::from(above)] == capacity {
            return Some(ClassIndex(above)); // neither above nor below
        }
        above.checked_sub(1).map(ClassIndex)
    }

    /// A class's capacity in bytes.
    pub(crate) fn capacity(&self, class: ClassIndex) -> usize {
        self.capacities()[class.get()]
    }

    /// The largest class's capacity in bytes.
    pub(crate) fn max(&self) -> usize {
        self.capacities[usize::from(self.count) - 1]
    }

    /// All capacities, ascending.
    pub(crate) fn capacities(&self) -> &[usize] {
        &self.capacities[..usize::from(self.count)]
    }

    /// All classes, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = ClassIndex> + use<> {
        (0..self.count).map(ClassIndex)
    }
}

fn index(class: usize) -> u8 {
    u8::try_from(class).expect("there are at most CLASSES_MAX classes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the module says, in the plainest words.
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 512 }))]

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
