//! The size classes fitted to recorded requests, and the bytes that classes waste.

use crate::rounds;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::error::Error;
use tierpool::{FitError, Histogram, Pool, SizeClasses};

fn fit(histogram: &Histogram, k: usize) -> Vec<usize> {
    SizeClasses::fit(histogram, k)
        .unwrap()
        .capacities()
        .to_vec()
}

/// The bytes that classes waste, computed plainly: each size by itself.
fn naive_wasted(sizes: &[usize], capacities: &[usize]) -> u128 {
    let wasted = sizes.iter().map(|&size| {
        let class = capacities.iter().find(|&&capacity| capacity >= size);
        class.map_or(0, |&capacity| (capacity - size) as u128)
    });
    wasted.sum()
}

#[test]
fn one_class_is_the_largest_size() {
    assert_eq!(fit(&Histogram::from_iter([7, 30_000, 12]), 1), [30_000]);
    assert_eq!(fit(&Histogram::from_iter([5]), 1), [5]);
    assert_eq!(
        fit(&Histogram::from_iter([usize::MAX]), 1),
        [isize::MAX as usize]
    );
}

// The sizes are 10 (100 times), 20 (once) and 30 (10 times). The two classes {10, 30} waste 30 - 20
// = 10 bytes. The classes {20, 30} waste 100 * 10 = 1000.
#[test]
fn classes_follow_the_frequent_sizes() {
    let mut histogram = Histogram::new();
    histogram.record_many(10, 100);
    histogram.record_many(20, 1);
    histogram.record_many(30, 10);
    let fitted = SizeClasses::fit(&histogram, 2).unwrap();
    assert_eq!(fitted.capacities(), [10, 30]);
    assert_eq!(histogram.wasted_bytes(&fitted), 10);

    // With the size 20 a thousand times, {20, 30} wastes 1000 and {10, 30} wastes 10,000.
    histogram.record_many(20, 999);
    let fitted = SizeClasses::fit(&histogram, 2).unwrap();
    assert_eq!(fitted.capacities(), [20, 30]);
    assert_eq!(histogram.wasted_bytes(&fitted), 1000);
}

// Two classes for 10, 20 and 30: {10, 30} wastes 10 bytes for the request of 20, and {20, 30}
// wastes 10 for the request of 10.
#[test]
fn among_equally_good_classes_the_smaller_are_chosen() {
    assert_eq!(fit(&Histogram::from_iter([10, 20, 30]), 2), [10, 30]);
    // Three classes for 10, 20, 30 and 40 always waste 10. The second largest class decides first:
    // 20, not 30.
    assert_eq!(
        fit(&Histogram::from_iter([10, 20, 30, 40]), 3),
        [10, 20, 40]
    );
}

#[test]
fn with_as_many_classes_as_cells_each_cell_has_a_class() {
    let histogram = Histogram::from_iter([3, 9, 1000, 1001, 1_000_000]);
    // 1000 and 1001 are in one cell.
    for k in [4, 5, 128] {
        assert_eq!(fit(&histogram, k), [3, 9, 1001, 1_000_000]);
    }
    assert_eq!(fit(&histogram, 3).len(), 3);
}

#[test]
fn a_class_is_a_size_that_was_recorded_to_the_byte() {
    let histogram = Histogram::from_iter([1441, 1460, 1500, 9001]);
    // The cell 1441..=1472 has two sizes, and 1500 is in the next cell.
    assert_eq!(fit(&histogram, 3), [1460, 1500, 9001]);
}

#[test]
fn the_smallest_class_serves_requests_of_0_bytes() {
    let histogram = Histogram::from_iter([0, 0]);
    let fitted = SizeClasses::fit(&histogram, 3).unwrap();
    assert_eq!(fitted.capacities(), [1]);
    assert_eq!(histogram.wasted_bytes(&fitted), 2);
}

#[test]
fn a_fit_that_is_impossible_returns_an_error() {
    let one = Histogram::from_iter([1]);
    let empty = Histogram::new();
    assert_eq!(SizeClasses::fit(&empty, 1), Err(FitError::Empty));
    assert_eq!(SizeClasses::fit(&one, 0), Err(FitError::NoClasses));
    assert_eq!(SizeClasses::fit(&empty, 0), Err(FitError::NoClasses));
    assert!(SizeClasses::fit(&one, 128).is_ok());
    for k in [129, usize::MAX] {
        let error = SizeClasses::fit(&one, k).unwrap_err();
        assert!(matches!(error, FitError::TooManyClasses { max: 128, .. }));
    }
}

#[test]
fn errors_give_advice() {
    let says = |histogram, k| {
        let error: Box<dyn Error> = SizeClasses::fit(histogram, k).unwrap_err().into();
        error.to_string()
    };
    let empty = Histogram::new();
    assert_eq!(
        says(&empty, 1),
        "the histogram is empty: no classes fit it better than others; record at least one size"
    );
    assert_eq!(
        says(&empty, 0),
        "k is 0: a pool has at least 1 size class; ask for 1 or more"
    );
    assert_eq!(
        says(&empty, 500),
        "k (500) is above 128: a pool has at most 128 size classes; ask for 128 or fewer"
    );
}

#[test]
fn a_pool_with_fitted_classes_wastes_the_predicted_bytes() {
    let requests = [100, 100, 120, 3000, 70_000];
    let histogram = Histogram::from_iter(requests);
    let fitted = SizeClasses::fit(&histogram, 3).unwrap();
    for pool in [
        Pool::builder().classes(&fitted).build().unwrap(),
        Pool::builder().classes(fitted.clone()).build().unwrap(),
    ] {
        assert_eq!(pool.classes(), fitted.capacities());
        let wasted = requests.map(|request| (pool.get(request).capacity() - request) as u128);
        assert_eq!(wasted.iter().sum::<u128>(), histogram.wasted_bytes(&fitted));
    }
}

#[test]
fn classes_print_only_their_capacities() {
    let classes = SizeClasses::listed(&[512, 2048]).unwrap();
    assert_eq!(format!("{classes:?}"), "SizeClasses([512, 2048])");
}

#[test]
fn classes_are_iterated_ascending() {
    let classes = SizeClasses::listed(&[5, 700, 9000]).unwrap();
    assert_eq!((&classes).into_iter().collect::<Vec<_>>(), [5, 700, 9000]);
    assert_eq!(classes.into_iter().collect::<Vec<_>>(), [5, 700, 9000]);
}

// 1000 and 1010 are in one cell (993..=1024). The class 1005 lies within that cell.
#[test]
fn a_cell_with_a_class_inside_counts_as_its_largest_size() {
    let histogram = Histogram::from_iter([1000, 1010]);
    let wasted = |capacities: &[usize]| {
        let classes = SizeClasses::listed(capacities).unwrap();
        histogram.wasted_bytes(&classes)
    };
    assert_eq!(wasted(&[1005, 2000]), 1000 + 990); // exact: 5 + 990
    assert_eq!(wasted(&[1005]), 0); // both count as oversize; exact: 5 + 0
    assert_eq!(wasted(&[1010, 2000]), 10);
}

/// The best `k` of these capacities, including the largest, by trying all.
fn brute_force(sizes: &[usize], k: usize) -> Vec<usize> {
    let mut distinct: Vec<usize> = sizes.iter().map(|&size| size.max(1)).collect();
    distinct.sort();
    distinct.dedup();
    let (&largest, below) = distinct.split_last().unwrap();
    let ladders = (0..1_usize << below.len()).map(|chosen| {
        let chosen = (0..below.len()).filter(|bit| chosen >> bit & 1 == 1);
        let mut ladder: Vec<usize> = chosen.map(|bit| below[bit]).collect();
        ladder.push(largest);
        ladder
    });
    let best = ladders
        .filter(|ladder| ladder.len() <= k)
        .min_by_key(|ladder| {
            let from_the_top: Vec<usize> = ladder.iter().rev().copied().collect();
            // As many classes as allowed; among ties, the smaller classes.
            (
                naive_wasted(sizes, ladder),
                Reverse(ladder.len()),
                from_the_top,
            )
        });
    best.unwrap()
}

/// The best `k` classes for the cells, by trying each start of each run of cells.
fn plain_dynamic_programming(histogram: &Histogram, k: usize) -> Vec<usize> {
    let cells: Vec<_> = histogram.cells().collect();
    // The bytes handed out for the first cells, and the classes from the top down.
    type Best = Option<(u128, Vec<usize>)>;
    let mut best: Vec<Best> = vec![None; cells.len() + 1];
    best[0] = Some((0, Vec::new()));
    for _ in 0..k.min(cells.len()) {
        let mut next: Vec<Best> = vec![None; cells.len() + 1];
        for end in 1..=cells.len() {
            for start in 0..end {
                let Some((cost, classes)) = &best[start] else {
                    continue;
                };
                let capacity = cells[end - 1].largest;
                let calls: u128 = cells[start..end].iter().map(|c| u128::from(c.calls)).sum();
                let mut with = vec![capacity];
                with.extend(classes);
                let candidate = Some((cost + capacity as u128 * calls, with));
                if next[end].is_none() || candidate < next[end] {
                    next[end] = candidate;
                }
            }
        }
        best = next;
    }
    let (_, mut classes) = best.pop().flatten().unwrap();
    classes.reverse();
    classes
}

/// Sizes of every magnitude, equally often.
fn any_size() -> impl Strategy<Value = usize> {
    (1..usize::BITS, any::<usize>()).prop_map(|(shift, bits)| bits >> shift)
}

fn any_calls() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 1_u64..4, 2 => 1_u64..100_000, 1 => Just(u64::MAX / 200)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if crate::SLOW { 4 } else { 256 }))]

    #[test]
    fn fitted_classes_are_the_best_of_all_subsets(
        sizes in prop::collection::vec(prop::sample::select(vec![
            0_usize, 1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32
        ]), 1..40),
    ) {
        let histogram = Histogram::from_iter(sizes.iter().copied());
        for k in 1..=8 {
            let fitted = SizeClasses::fit(&histogram, k).unwrap();
            let best = brute_force(&sizes, k);
            prop_assert_eq!(fitted.capacities(), &best[..], "k = {}", k);
            prop_assert_eq!(histogram.wasted_bytes(&fitted), naive_wasted(&sizes, &best));
        }
    }

    #[test]
    fn fitted_classes_are_the_best_of_all_runs_of_cells(
        calls in prop::collection::vec((any_size(), any_calls()), 1..rounds(40, 12)),
        k in 1_usize..12,
    ) {
        let mut histogram = Histogram::new();
        for (size, calls) in calls {
            histogram.record_many(size, calls);
        }
        prop_assert_eq!(fit(&histogram, k), plain_dynamic_programming(&histogram, k));
    }

    #[test]
    fn fitted_classes_are_never_worse_than_powers_of_two(
        sizes in prop::collection::vec(any_size(), 1..200),
        smallest in 0_u32..usize::BITS - 2,
    ) {
        let histogram = Histogram::from_iter(sizes.iter().copied());
        let largest = *sizes.iter().max().unwrap();
        let min = 1_usize << smallest;
        let max = largest.checked_next_power_of_two();
        let max = max.unwrap_or(usize::MAX).min(isize::MAX as usize).max(min);
        let powers = SizeClasses::doubling(min, max).unwrap();
        let fitted = SizeClasses::fit(&histogram, powers.capacities().len()).unwrap();
        prop_assert!(histogram.wasted_bytes(&fitted) <= histogram.wasted_bytes(&powers));
        prop_assert_eq!(fitted.capacities().last().copied(), Some(largest.max(1)));
    }

    #[test]
    fn more_classes_never_waste_more(
        sizes in prop::collection::vec(any_size(), 1..60),
    ) {
        let histogram = Histogram::from_iter(sizes);
        let mut before = u128::MAX;
        for k in 1..=20 {
            let fitted = SizeClasses::fit(&histogram, k).unwrap();
            prop_assert_eq!(fitted.capacities().len(), k.min(histogram.cells().count()));
            let wasted = histogram.wasted_bytes(&fitted);
            prop_assert!(wasted <= before, "{} with k = {}", wasted, k);
            before = wasted;
        }
    }

    #[test]
    fn the_wasted_bytes_are_the_sum_over_the_sizes(
        exact in prop::collection::vec(0_usize..=32, 1..100),
        list in prop::collection::btree_set(1_usize..=40, 1..10),
        sizes in prop::collection::vec(any_size(), 1..100),
        k in 1_usize..10,
    ) {
        // Any classes, where each cell is one size.
        let histogram = Histogram::from_iter(exact.iter().copied());
        let list: Vec<usize> = list.into_iter().collect();
        let listed = SizeClasses::listed(&list).unwrap();
        prop_assert_eq!(histogram.wasted_bytes(&listed), naive_wasted(&exact, &list));

        // Powers of two and fitted classes, where a cell has many sizes.
        let histogram = Histogram::from_iter(sizes.iter().copied());
        for classes in [
            SizeClasses::doubling(32, 1 << 20).unwrap(),
            SizeClasses::fit(&histogram, k).unwrap(),
        ] {
            prop_assert_eq!(
                histogram.wasted_bytes(&classes),
                naive_wasted(&sizes, classes.capacities())
            );
        }
    }
}

// Every cell has the highest count. No number overflows, and the largest possible problem is
// solved.
#[test]
fn the_fullest_histogram_is_fitted() {
    let above_32 = (5..usize::BITS - 1).flat_map(|bit| {
        let sixteenth = (1_usize << bit) / 16;
        (16..32).map(move |part| part * sixteenth + 1)
    });
    let mut histogram = Histogram::new();
    for size in (1..=32).chain(above_32) {
        histogram.record_many(size, u64::MAX / 1000);
    }
    histogram.record_many(usize::MAX, u64::MAX);
    assert_eq!(histogram.calls(), u64::MAX);
    assert_eq!(histogram.cells().count(), (usize::BITS as usize - 4) * 16);
    let most = SizeClasses::fit(&histogram, rounds(128, 3)).unwrap();
    assert_eq!(most.capacities().len(), rounds(128, 3));
    assert_eq!(most.capacities().last(), Some(&(isize::MAX as usize)));
    let least = SizeClasses::fit(&histogram, 1).unwrap();
    assert!(histogram.wasted_bytes(&most) < histogram.wasted_bytes(&least));
}
