//! The counts of a histogram, and the targets that the calibrator chooses from them.

use proptest::prelude::*;
use std::cmp::Reverse;
use tierpool::{Histogram, HistogramCell};

const PERCENTILE: f64 = 0.95;

/// A histogram of `(size, calls)`.
fn histogram(of: &[(usize, u64)]) -> Histogram {
    let mut histogram = Histogram::new();
    for &(size, calls) in of {
        histogram.record_many(size, calls);
    }
    histogram
}

/// The targets of `(size, calls)`, as `(default_size, max_size)`.
fn targets(of: &[(usize, u64)], percentile: f64) -> Option<(usize, usize)> {
    let targets = histogram(of).targets(percentile);
    targets.map(|targets| (targets.default_size, targets.max_size))
}

#[test]
fn without_a_call_there_are_no_targets() {
    for percentile in [f64::NAN, 0.0, PERCENTILE, 1.0] {
        assert_eq!(targets(&[], percentile), None);
        assert_eq!(targets(&[(1000, 0)], percentile), None);
    }
}

#[test]
fn a_single_size_is_both_targets_rounded_up_to_its_step() {
    for (size, step) in [
        (0, 64),
        (1, 64),
        (64, 64),
        (65, 128),
        (128, 128),
        (129, 256),
        (1000, 1024),
        (1 << 20, 1 << 20),
        ((1 << 20) + 1, 2 << 20),
        ((16 << 20) + 1, 32 << 20),
        (32 << 20, 32 << 20),
        ((32 << 20) + 1, 32 << 20), // the last step has all larger sizes
        (usize::MAX, 32 << 20),
    ] {
        for percentile in [0.0, PERCENTILE, 1.0] {
            assert_eq!(
                targets(&[(size, 1)], percentile),
                Some((step, step)),
                "{size}"
            );
            assert_eq!(targets(&[(size, 42_001)], percentile), Some((step, step)));
        }
    }
}

// floor(0.95 * 1000) = 950. The first step is walked with a sum of 0. The second step is walked if
// the sum of the first, 951 or 940, is not more than 950.
#[test]
fn large_sizes_count_with_6_percent_of_the_calls_and_not_with_4_9() {
    let small_and_big = |small, big| targets(&[(1024, small), (65_536, big)], PERCENTILE);
    assert_eq!(small_and_big(951, 49), Some((1024, 1024)));
    assert_eq!(small_and_big(940, 60), Some((1024, 65_536)));
}

// floor(0.95 * 1000) = 950, and the sum 950 is not more. With one large call less, floor(0.95 *
// 999) = floor(949.05) = 949, and 950 is more. With one small call more, floor(0.95 * 1001) =
// floor(950.95) = 950, and 951 is more.
#[test]
fn a_sum_at_the_percentile_walks_on_and_one_large_call_less_does_not() {
    let small_and_big = |small, big| targets(&[(1024, small), (65_536, big)], PERCENTILE);
    assert_eq!(small_and_big(950, 50), Some((1024, 65_536)));
    assert_eq!(small_and_big(950, 49), Some((1024, 1024)));
    assert_eq!(small_and_big(951, 50), Some((1024, 1024)));
}

// From the most calls to the fewest: 256 (60), 4096 (30), 64 (6), 1 MiB (4). With 0.95 of 100, the
// sums 0, 60 and 90 are not more than 95, but 96 is. So three steps are walked. The largest of them
// is 4096, which comes before the last one.
#[test]
fn the_maximum_is_the_largest_step_walked_and_not_the_last() {
    let calls = [(64, 6), (256, 60), (4096, 30), (1 << 20, 4)];
    assert_eq!(targets(&calls, PERCENTILE), Some((256, 4096)));
    assert_eq!(targets(&calls, 0.96), Some((256, 1 << 20))); // 96 is not more than 96
    assert_eq!(targets(&calls, 0.59), Some((256, 256))); // 60 is more than 59
    assert_eq!(targets(&calls, 0.60), Some((256, 4096)));
}

#[test]
fn among_two_steps_with_equal_calls_the_smaller_is_the_default() {
    // The sum 10 is not more than floor(0.95 * 20) = 19, so both are walked.
    assert_eq!(
        targets(&[(64, 10), (4096, 10)], PERCENTILE),
        Some((64, 4096))
    );
    assert_eq!(
        targets(&[(4096, 10), (64, 10)], PERCENTILE),
        Some((64, 4096))
    );
    // 10 is more than floor(0.45 * 20) = 9, so only the smaller one is walked.
    assert_eq!(targets(&[(4096, 10), (64, 10)], 0.45), Some((64, 64)));
}

// The calls are 80, 10, 5 and 5. With 0.94, the sum 90 is not more than 94, but 95 is. So one of
// the two steps with 5 is walked: the smaller one.
#[test]
fn among_two_steps_with_equal_calls_at_the_percentile_the_smaller_is_walked() {
    let calls = [(1024, 80), (2048, 10), (65_536, 5), (16_384, 5)];
    assert_eq!(targets(&calls, 0.94), Some((1024, 16_384)));
    assert_eq!(targets(&calls, 0.95), Some((1024, 65_536)));
}

#[test]
fn the_percentile_is_limited_to_the_range_from_0_to_1() {
    // Here, 1 of 1,000,001 calls is less than any percentile below 1 can leave out.
    let calls = [(1024, 600_000), (4096, 400_000), (1 << 20, 1)];
    for none in [0.0, -0.0, -1.0, f64::NEG_INFINITY, f64::NAN] {
        assert_eq!(targets(&calls, none), Some((1024, 1024)), "{none}");
    }
    assert_eq!(targets(&calls, PERCENTILE), Some((1024, 4096)));
    // Not 32 MiB: steps without a call are not walked.
    for all in [1.0, 1.5, 1e300, f64::INFINITY] {
        assert_eq!(targets(&calls, all), Some((1024, 1 << 20)), "{all}");
    }
}

// u64::MAX / 20 = 922337203685477580 in each of 20 steps: in all 2^64 - 16, which floating point
// rounds to 2^64. The floating-point 0.95 is a little below 0.95, so the limit is
// 17524406870024073216. 19 steps have 17524406870024074020 calls, which is more, so the last step
// is not walked. (Whole numbers would give exactly 95 %.)
#[test]
fn counts_that_fill_64_bits_overflow_nothing() {
    let calls: Vec<_> = (0..20).map(|step| (64 << step, u64::MAX / 20)).collect();
    let full = histogram(&calls);
    assert_eq!(full.calls(), u64::MAX - 15);
    assert_eq!(full.steps(), [u64::MAX / 20; 20]);
    assert_eq!(targets(&calls, PERCENTILE), Some((64, 16 << 20)));
    assert_eq!(targets(&calls, 1.0), Some((64, 32 << 20)));
    // 10 of 20 steps are not more than half of the calls, so the eleventh is walked: 64 << 10. The
    // half is 2^63, and ten steps have 8 calls less.
    assert_eq!(targets(&calls, 0.5), Some((64, 64 << 10)));
    assert_eq!(targets(&calls, 0.0), Some((64, 64)));
}

#[test]
fn a_full_histogram_stops_counting() {
    let mut full = Histogram::new();
    full.record_many(100, u64::MAX - 1);
    full.record_many(5000, 3); // one of these
    assert_eq!(full.calls(), u64::MAX);
    assert_eq!((full.steps()[1], full.steps()[7]), (u64::MAX - 1, 1));

    let before = full.clone();
    full.record(9000);
    full.record_many(usize::MAX, u64::MAX);
    full.merge(&before);
    full.extend([0, 100]);
    assert_eq!(full, before);
}

#[test]
fn the_largest_sizes_and_counts_are_summed_exactly() {
    let mut most = Histogram::new();
    most.record_many(usize::MAX, u64::MAX);
    let cell = most.cells().next().unwrap();
    assert_eq!(
        (cell.to, cell.largest),
        (isize::MAX as usize, isize::MAX as usize)
    );
    assert_eq!(cell.bytes, isize::MAX as u128 * u128::from(u64::MAX));

    // Half of each.
    let half = u64::MAX / 2;
    let mut halves = histogram(&[(0, half)]);
    halves.merge(&histogram(&[(usize::MAX, half)]));
    halves.merge(&most); // counts only one more
    let cells: Vec<HistogramCell> = halves.cells().collect();
    assert_eq!((cells[0].calls, cells[0].bytes), (half, 0));
    assert_eq!(cells[1].calls, half + 1);
    assert_eq!(cells[1].bytes, isize::MAX as u128 * u128::from(half + 1));
}

#[test]
fn a_cell_knows_its_bounds_its_sum_and_its_largest_size() {
    // From 4096 to 8192 each cell has 256 sizes: 4097..=4352, 4353..=4608, ...
    let histogram = histogram(&[(4097, 2), (4300, 1), (4352, 0), (4353, 5), (0, 3), (20, 1)]);
    let cells: Vec<_> = histogram
        .cells()
        .map(|cell| (cell.from, cell.to, cell.largest, cell.calls, cell.bytes))
        .collect();
    assert_eq!(
        cells,
        [
            (0, 1, 1, 3, 0),
            (20, 20, 20, 1, 20),
            (4097, 4352, 4300, 3, 2 * 4097 + 4300),
            (4353, 4608, 4353, 5, 5 * 4353),
        ]
    );
    assert_eq!(histogram.calls(), 12);
}

#[test]
fn an_empty_histogram_is_the_default_and_has_no_cells() {
    let empty = Histogram::default();
    assert!(empty.is_empty());
    assert_eq!((empty.calls(), empty.cells().count()), (0, 0));
    assert_eq!(empty, Histogram::new());
    assert_eq!(empty, histogram(&[(5, 0)]));
    assert_ne!(empty, histogram(&[(0, 1)]));
    assert!(!histogram(&[(0, 1)]).is_empty());
}

#[test]
fn debug_is_one_short_line() {
    let text = format!("{:?}", histogram(&[(100, 7), (5000, 2)]));
    assert_eq!(
        text,
        "Histogram { calls: 9, cells: 2, largest: Some(5000) }"
    );
}

/// Sizes of every magnitude, equally often.
fn any_size() -> impl Strategy<Value = usize> {
    (0..usize::BITS, any::<usize>()).prop_map(|(shift, bits)| bits >> shift)
}

/// Sizes that mostly share a step with others, for ties and for shares near any percentile.
fn any_sizes() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![
        1 => any_size(),
        6 => prop::sample::select(vec![0, 64, 65, 1000, 1024, 5000, 100_000, 40 << 20]),
    ];
    prop::collection::vec(size, 0..120)
}

/// The calibrator, written plainly.
fn naive(sizes: &[usize], percentile: f64) -> Option<(usize, usize)> {
    let step = |size: usize| {
        let step = std::iter::successors(Some(64), |step| Some(2 * step));
        step.take_while(|&step| step < 64 << 20)
            .find(|&step| size <= step)
            .unwrap_or(32 << 20)
    };
    let mut steps: Vec<usize> = sizes.iter().map(|&size| step(size)).collect();
    steps.sort();
    let mut runs: Vec<Vec<usize>> = steps
        .chunk_by(|a, b| a == b)
        .map(|run| run.to_vec())
        .collect();
    runs.sort_by_key(|run| Reverse(run.len())); // stable: ties stay ascending
    let default_size = runs.first()?[0];
    let limit = (percentile * sizes.len() as f64) as usize;
    let mut walked = 0;
    let mut max_size = default_size;
    for run in &runs {
        if walked > limit {
            break;
        }
        walked += run.len();
        max_size = max_size.max(run[0]);
    }
    Some((default_size, max_size))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if crate::SLOW { 8 } else { 512 }))]

    #[test]
    fn targets_agree_with_the_naive_model(
        sizes in any_sizes(),
        percentile in 0.0..=1.0_f64,
    ) {
        let targets = Histogram::from_iter(sizes.iter().copied()).targets(percentile);
        prop_assert_eq!(targets.map(crate::sizes), naive(&sizes, percentile));
    }

    #[test]
    fn the_default_is_not_above_the_maximum_and_both_are_steps_that_occurred(
        sizes in any_sizes(),
        percentile in -0.5..1.5_f64,
    ) {
        let histogram = Histogram::from_iter(sizes.iter().copied());
        match histogram.targets(percentile) {
            None => prop_assert!(sizes.is_empty()),
            Some(targets) => {
                prop_assert!(targets.default_size <= targets.max_size);
                let occurred: Vec<usize> = (0..20)
                    .filter(|&step| histogram.steps()[step] > 0)
                    .map(|step| 64 << step)
                    .collect();
                prop_assert!(occurred.contains(&targets.default_size));
                prop_assert!(occurred.contains(&targets.max_size));
            }
        }
    }

    #[test]
    fn a_higher_percentile_never_lowers_the_maximum_nor_moves_the_default(
        sizes in any_sizes(),
        a in 0.0..=1.0_f64,
        b in 0.0..=1.0_f64,
    ) {
        let histogram = Histogram::from_iter(sizes);
        let low = histogram.targets(a.min(b));
        let high = histogram.targets(a.max(b));
        prop_assert_eq!(low.map(|low| low.default_size), high.map(|high| high.default_size));
        prop_assert!(low.map(|low| low.max_size) <= high.map(|high| high.max_size));
    }

    #[test]
    fn the_order_of_recording_changes_nothing(
        (sizes, shuffled) in any_sizes()
            .prop_flat_map(|sizes| (Just(sizes.clone()), Just(sizes).prop_shuffle())),
    ) {
        prop_assert_eq!(Histogram::from_iter(sizes), Histogram::from_iter(shuffled));
    }

    #[test]
    fn merging_is_recording_both(
        a in any_sizes(),
        b in any_sizes(),
        often in 0_u64..1000,
    ) {
        let mut merged = Histogram::from_iter(a.iter().copied());
        let mut other = Histogram::from_iter(b.iter().copied());
        other.record_many(300, often);
        merged.merge(&other);

        let mut both = Histogram::from_iter(a.into_iter().chain(b));
        both.extend((0..often).map(|_| 300));
        prop_assert_eq!(merged, both);
    }

    #[test]
    fn cells_hold_exactly_the_recorded_sizes(sizes in any_sizes()) {
        let histogram = Histogram::from_iter(sizes.iter().copied());
        prop_assert_eq!(histogram.calls(), sizes.len() as u64);
        let mut calls = 0;
        let mut above = None;
        for cell in histogram.cells() {
            prop_assert!(above < Some(cell.from), "ascending without repeats");
            above = Some(cell.to);
            let here: Vec<usize> = sizes
                .iter()
                .map(|&size| size.min(isize::MAX as usize))
                .filter(|size| (cell.from..=cell.to).contains(size))
                .collect();
            prop_assert_eq!(cell.calls, here.len() as u64);
            prop_assert_eq!(cell.bytes, here.iter().map(|&size| size as u128).sum::<u128>());
            prop_assert_eq!(cell.largest, here.iter().copied().max().unwrap().max(1));
            calls += cell.calls;
        }
        prop_assert_eq!(calls, histogram.calls());
    }
}
