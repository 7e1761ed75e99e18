//! From how often each size occurred to the sizes to aim at.
//!
//! Pure arithmetic. Knows nothing of buffers, pools or time; decides, moves nothing.
//!
//! The algorithm is that of <https://github.com/valyala/bytebufferpool>, with 20 steps from 64
//! bytes to 32 MiB. The most frequent step gives the default size. The most frequent steps, up to a
//! percentile of all calls, give the maximum. Three things differ:
//!
//! - Of two steps with as many calls, the smaller comes first. There, it is up to
//!   a sort that keeps no order.
//! - A step without a call is never walked. There, a percentile of 1 walks all
//!   steps, and the maximum is 32 MiB whatever occurred.
//! - Once calibrated, a target gives way to a clear change alone, see
//!   [`Targets::after`]. There, each calibration forgets the one before.

use crate::sync::MODELLED;
use std::cmp::Reverse;

/// How many steps there are: 64 bytes doubled 19 times is 32 MiB.
///
/// In a model there are two, since it must look at each.
pub(crate) const STEPS: usize = if MODELLED { 2 } else { 20 };

/// 64: a cache line, below which no buffer is worth a separate step.
const STEP_MIN: usize = 64;

const _: () = assert!(step_size(STEPS - 1) == 32 << 20 || MODELLED);

/// The ratio of calls, as a pair, at which the most frequent step takes the place of the current
/// default size.
///
/// 5 for 4: of 42,000 calls shared by two sizes that are equally frequent, chance
/// moves one in a hundred from one to the other. A quarter is far from that, and a
/// program that has changed passes it within one calibration.
const LEAD: (u64, u64) = (5, 4);

/// Before `max_size` is lowered, the part that the percentile leaves out is divided by this.
///
/// 2: with a percentile of 0.95, a size comes in with 5 % of the calls and goes with
/// less than 2.5 %. Between these lies far more than chance moves: of 42,000 calls,
/// about one in a thousand.
const KEEP: f64 = 2.0;

/// How many standard deviations count as chance: of the difference of two steps, before the
/// default moves, and of a step's share, before the maximum falls.
///
/// 4: chance makes more of it in one of 30,000 calibrations. 2: with half of what the percentile
/// leaves out, that is as rare for a size that came in with all of it.
const DEVIATIONS_LEAD: f64 = 4.0;
const DEVIATIONS_KEEP: f64 = 2.0;

/// Holds the sizes that a pool aims at, in bytes.
///
/// From [`Pool::targets`](crate::Pool::targets), or for recorded sizes from
/// [`Histogram::targets`](crate::Histogram::targets).
///
/// ```
/// use tierpool::Histogram;
///
/// let mut sizes = Histogram::new();
/// sizes.record_many(1000, 99);
/// sizes.record_many(60_000, 1);
/// let targets = sizes.targets(0.95).unwrap();
/// assert_eq!((targets.default_size, targets.max_size), (1024, 1024));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Targets {
    /// The most frequent size: a good capacity where the size is not known.
    pub default_size: usize,
    /// The size that holds all contents except the rarest. Never below `default_size`.
    pub max_size: usize,
}

impl Targets {
    /// The targets after these calls, where those before were `current`. They rest on samples, and
    /// chance moves them as it would if each stood for `per_sample` calls.
    ///
    /// Without targets before, those of [`from_steps`]. Later, a target changes only on clear
    /// evidence, so that a workload between two answers stays with one:
    ///
    /// - `max_size` is raised at once, since a maximum that is too small discards
    ///   buffers. It is lowered as far as a stricter percentile agrees, which leaves
    ///   out half ([`KEEP`]) of what `percentile` does, and less where there are few samples.
    /// - `default_size` moves to the most frequent step if that has more than 5/4 ([`LEAD`]) of the
    ///   calls of the present step, and more than chance makes of as many. It also moves if the
    ///   present step had no call.
    ///
    /// `current`, if there was no call. Allocates nothing.
    pub(crate) fn after(
        current: Option<Self>,
        calls: &[u64; STEPS],
        percentile: f64,
        per_sample: f64,
    ) -> Option<Self> {
        let Some(new) = from_steps(calls, percentile) else {
            return current;
        };
        let Some(current) = current else {
            return Some(new);
        };
        let default_size = if has_lead(calls, new.default_size, current.default_size, per_sample) {
            new.default_size
        } else {
            current.default_size
        };
        let max_size = if new.max_size >= current.max_size {
            new.max_size
        } else {
            let out = (1.0 - share(percentile)) / KEEP;
            let calls_in_all: f64 = calls.iter().map(|&calls| calls as f64).sum();
            let by_chance = DEVIATIONS_KEEP * (out * per_sample / calls_in_all).sqrt();
            let strict = 1.0 - (out - by_chance).max(0.0);
            let strict = from_steps(calls, strict).map_or(0, |strict| strict.max_size);
            // Not below `new`: the stricter percentile walks at least as far.
            current.max_size.min(strict)
        };
        Some(Targets {
            default_size,
            max_size: max_size.max(default_size),
        })
    }
}

/// The step that counts a buffer with `len` bytes: the smallest that holds it, or the last.
#[inline]
pub(crate) const fn step_of(len: usize) -> usize {
    let blocks = len.saturating_sub(1) / STEP_MIN;
    let step = (usize::BITS - blocks.leading_zeros()) as usize;
    if step < STEPS { step } else { STEPS - 1 }
}

/// A step's size in bytes: the largest length that it counts, except in the last step.
pub(crate) const fn step_size(step: usize) -> usize {
    STEP_MIN << step
}

/// The targets from the calls of each step, and nothing else; `None` if there were none.
///
/// A `percentile` of 0 or below, or NaN, takes the most frequent step alone; 1 or
/// above takes all that occurred. Allocates nothing.
pub(crate) fn from_steps(calls: &[u64; STEPS], percentile: f64) -> Option<Targets> {
    let mut order: [usize; STEPS] = std::array::from_fn(|step| step);
    order.sort_unstable_by_key(|&step| (Reverse(calls[step]), step));
    let [most_frequent, ..] = order;
    if calls[most_frequent] == 0 {
        return None;
    }
    // In 128 bits, where 20 numbers of 64 cannot overflow.
    let total: u128 = calls.iter().copied().map(u128::from).sum();
    let share = share(percentile);
    let limit = if share < 1.0 {
        (share * total as f64) as u128
    } else {
        total // not by way of floating point, which can round it down
    };
    let mut max_size = 0;
    let mut walked = 0;
    for step in order {
        if walked > limit || calls[step] == 0 {
            break;
        }
        walked += u128::from(calls[step]);
        max_size = max_size.max(step_size(step));
    }
    Some(Targets {
        default_size: step_size(most_frequent),
        max_size,
    })
}

/// A percentile as a number from 0 to 1.
fn share(percentile: f64) -> f64 {
    if percentile > 0.0 {
        percentile.min(1.0)
    } else {
        0.0 // NaN, too
    }
}

/// Whether `size` has occurred clearly more often than `current`, or that has not, or is
/// no step.
fn has_lead(calls: &[u64; STEPS], size: usize, current: usize, per_sample: f64) -> bool {
    let of = |size| calls[step_of(size)];
    let (now, before) = (of(size), of(current));
    let (lead, behind) = LEAD;
    let clear = u128::from(now) * u128::from(behind) > u128::from(before) * u128::from(lead);
    let more = now as f64 - before as f64;
    let by_chance = DEVIATIONS_LEAD * ((now as f64 + before as f64) * per_sample).sqrt();
    clear && more > by_chance || before == 0 || step_size(step_of(current)) != current
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PERCENTILE: f64 = 0.95;
    /// Fewer under Miri, where each costs milliseconds.
    const CALIBRATIONS: usize = if crate::SLOW { 50 } else { 1000 };
    /// How many calls a calibration is from: the first number above 42,000.
    const CALLS: u64 = 42_001;

    /// The calls of each step, from `(size, calls)`.
    fn counts(of: &[(usize, u64)]) -> [u64; STEPS] {
        let mut calls = [0; STEPS];
        for &(size, count) in of {
            calls[step_of(size)] += count;
        }
        calls
    }

    fn targets(default_size: usize, max_size: usize) -> Option<Targets> {
        Some(Targets {
            default_size,
            max_size,
        })
    }

    #[test]
    fn a_step_counts_what_is_above_the_one_before_and_not_above_itself() {
        for step in 0..STEPS {
            let size = step_size(step);
            assert_eq!(size, 64 << step);
            assert_eq!(step_of(size), step);
            assert_eq!(step_of(size / 2 + 1), step);
            assert_eq!(step_of(size + 1), (step + 1).min(STEPS - 1));
        }
        assert_eq!((step_of(0), step_of(1)), (0, 0));
        assert_eq!((step_of(64), step_of(65)), (0, 1));
        assert_eq!(step_of(usize::MAX), 19);
    }

    /// A small generator with a seed (SplitMix64), so that each run is the same.
    struct Noise(u64);

    impl Noise {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        /// About a normal distribution: the sum of 12 numbers around 0.
        fn around(&mut self, mean: u64, deviation: f64) -> u64 {
            let uniform = |bits: u64| (bits >> 11) as f64 / (1_u64 << 53) as f64;
            let normal = (0..12).map(|_| uniform(self.next())).sum::<f64>() - 6.0;
            (mean as f64 + deviation * normal).round() as u64
        }
    }

    /// Where each call is a sample.
    fn after(current: Option<Targets>, calls: &[u64; STEPS], percentile: f64) -> Option<Targets> {
        Targets::after(current, calls, percentile, 1.0)
    }

    /// How often the targets differ from those before.
    fn changes(all: &[Option<Targets>]) -> usize {
        all.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }

    /// Many calibrations: what `after` gives from the first on, and the pure function.
    fn run(
        first: Option<Targets>,
        mut workload: impl FnMut() -> [u64; STEPS],
    ) -> (Vec<Option<Targets>>, Vec<Option<Targets>>) {
        let mut held = Vec::new();
        let mut pure = Vec::new();
        let mut current = first;
        for _ in 0..CALIBRATIONS {
            let calls = workload();
            assert_eq!(calls.iter().sum::<u64>(), CALLS);
            current = after(current, &calls, PERCENTILE);
            held.push(current);
            pure.push(from_steps(&calls, PERCENTILE));
        }
        (held, pure)
    }

    // Of n calls with a share p, chance moves the root of n * p * (1 - p): 45 calls
    // where p is 5 %, and 102 where it is a half. Twice that here.
    #[test]
    fn a_share_of_big_ones_at_the_percentile_never_flaps() {
        let mut noise = Noise(1);
        let mut workload = || {
            let big = noise.around(CALLS / 20, 90.0);
            counts(&[(1000, CALLS - big), (100_000, big)])
        };
        let (held, pure) = run(targets(1024, 131_072), &mut workload);
        assert!(held.iter().all(|&held| held == targets(1024, 131_072)));
        assert!(changes(&pure) > CALIBRATIONS / 10, "{}", changes(&pure));

        // From below it is raised once, at the first that asks for it.
        let (held, pure) = run(targets(1024, 1024), &mut workload);
        let raised = pure.iter().position(|&pure| pure == targets(1024, 131_072));
        let raised = raised.expect("half of them ask for it");
        assert!(
            held[..raised]
                .iter()
                .all(|&held| held == targets(1024, 1024))
        );
        assert!(
            held[raised..]
                .iter()
                .all(|&held| held == targets(1024, 131_072))
        );
    }

    #[test]
    fn two_sizes_as_frequent_as_each_other_never_flap() {
        let mut noise = Noise(2);
        let mut workload = || {
            let small = noise.around(CALLS / 2, 204.0);
            counts(&[(1000, small), (4000, CALLS - small)])
        };
        for first in [None, targets(1024, 4096), targets(4096, 4096)] {
            let (held, pure) = run(first, &mut workload);
            assert_eq!(changes(&held), 0);
            assert!(first.is_none() || held[0] == first);
            assert!(changes(&pure) > CALIBRATIONS / 10, "{}", changes(&pure));
        }
    }

    // A quiet program calibrates from a thousand calls. Once raised, the maximum stays.
    #[test]
    fn few_calls_of_an_unchanging_workload_do_not_flap() {
        for big_percent in [1, 2, 3, 4, 5, 6] {
            let mut noise = Noise(4);
            let (mut current, mut all) = (None, Vec::new());
            for _ in 0..CALIBRATIONS {
                let calls = 1000;
                let mean = calls * big_percent / 100;
                let big = noise.around(mean, (mean as f64).sqrt()).min(calls);
                let small = noise.around((calls - big) / 2, 16.0);
                let calls = counts(&[(1000, small), (2000, calls - big - small), (100_000, big)]);
                current = after(current, &calls, PERCENTILE);
                all.push(current);
            }
            assert!(changes(&all) <= 2, "{big_percent} %: {}", changes(&all));
        }
    }

    #[test]
    fn both_edges_at_once_never_flap() {
        let mut noise = Noise(3);
        let (held, pure) = run(targets(65_536, 1 << 20), || {
            let big = noise.around(CALLS / 20, 90.0);
            let small = noise.around((CALLS - big) / 2, 204.0);
            counts(&[
                (1000, small),
                (60_000, CALLS - big - small),
                (1_000_000, big),
            ])
        });
        assert_eq!(changes(&held), 0);
        assert_eq!(held[0], targets(65_536, 1 << 20));
        assert!(changes(&pure) > CALIBRATIONS / 10, "{}", changes(&pure));
    }

    #[test]
    fn a_clear_change_is_followed_at_once() {
        let small = counts(&[(500, 41_501), (2000, 500)]);
        let big = counts(&[(60_000, 41_501), (1 << 20, 500)]);
        for percentile in [0.5, PERCENTILE, 1.0] {
            let mut current = None;
            for calls in [&small, &big, &small, &big] {
                current = after(current, calls, percentile);
                assert_eq!(current, from_steps(calls, percentile));
            }
        }
    }

    #[test]
    fn the_default_moves_above_five_quarters_and_no_earlier() {
        let current = targets(1024, 4096);
        let after = |old, new| {
            let calls = counts(&[(1024, old), (4096, new)]);
            after(current, &calls, 1.0).unwrap().default_size
        };
        assert_eq!(after(4000, 4001), 1024);
        assert_eq!(after(4000, 5000), 1024);
        assert_eq!(after(4000, 5001), 4096);
        assert_eq!(after(0, 1), 4096);
        // Five times this is more than 64 bits hold.
        let much = u64::MAX / 20;
        assert_eq!(after(much * 4, much * 5), 1024);
        assert_eq!(after(much * 4, much * 5 + 1), 4096);
    }

    #[test]
    fn a_default_that_is_no_step_gives_way_to_any() {
        let calls = counts(&[(4000, 10), (3000, 1)]);
        for not_a_step in [0, 63, 4095, 4097, 64 << 20] {
            let after = after(targets(not_a_step, 4096), &calls, PERCENTILE);
            assert_eq!(after, targets(4096, 4096), "{not_a_step}");
        }
    }

    #[test]
    fn of_few_calls_the_default_moves_when_it_is_no_chance() {
        let after = |old, new| {
            let calls = counts(&[(1024, old), (4096, new)]);
            after(targets(1024, 4096), &calls, 1.0)
                .unwrap()
                .default_size
        };
        // Of 100 calls the root is 10, and four of these are 40.
        assert_eq!(after(30, 70), 1024);
        assert_eq!(after(29, 71), 4096);
    }

    // With 0.95, the stricter percentile leaves out 2.5 %, less twice the root of
    // 0.025 / 10^8, which is 0.0032 %: of 10^8 calls, what has 2,496,838 or more is walked.
    #[test]
    fn the_maximum_is_lowered_only_below_half_the_share_that_raises_it() {
        let current = targets(1024, 131_072);
        let after = |big| {
            let calls = counts(&[(1024, 100_000_000 - big), (131_072, big)]);
            let raised = after(targets(1024, 1024), &calls, PERCENTILE);
            let held = after(current, &calls, PERCENTILE);
            (raised.unwrap().max_size, held.unwrap().max_size)
        };
        assert_eq!(after(5_000_000), (131_072, 131_072));
        assert_eq!(after(4_999_999), (1024, 131_072));
        assert_eq!(after(2_496_838), (1024, 131_072));
        assert_eq!(after(2_496_837), (1024, 1024));
    }

    #[test]
    fn of_few_calls_the_maximum_is_lowered_when_it_is_no_chance() {
        let held = |calls, big| {
            let calls = counts(&[(1024, calls - big), (131_072, big)]);
            let after = after(targets(1024, 131_072), &calls, PERCENTILE);
            after.unwrap().max_size == 131_072
        };
        // 2 * sqrt(0.025 / 1000) is 0.01: 0.015 of 1000 are left out.
        assert!(held(1000, 15));
        assert!(!held(1000, 14));
        // Of 100 calls, chance could make none of them what is more often a fortieth.
        assert!(held(100, 1));
        assert!(!held(100, 0));
    }

    // As few samples as a busy pool takes of 42,000 returns.
    #[test]
    fn samples_that_stand_for_many_calls_move_less() {
        let lowered_at = |per_sample| {
            let current = targets(1024, 131_072);
            let lowered = |&big: &u64| {
                let calls = counts(&[(1024, CALLS - big), (131_072, big)]);
                let after = Targets::after(current, &calls, PERCENTILE, per_sample);
                after.unwrap().max_size < 131_072
            };
            let most = (0..2100).rev().find(lowered);
            most.map(|big| (1000 * big / CALLS) as usize) // in thousandths
        };
        assert_eq!(lowered_at(1.0), Some(23));
        assert_eq!(lowered_at(64.0), Some(12));
        let moves_at = |per_sample| {
            let moves = |&new: &u64| {
                let calls = counts(&[(1024, CALLS - new), (4096, new)]);
                let after = Targets::after(targets(1024, 4096), &calls, 1.0, per_sample);
                after.unwrap().default_size == 4096
            };
            let first = (CALLS / 2..CALLS).find(moves);
            first.map(|new| (1000 * new / CALLS) as usize)
        };
        assert_eq!(moves_at(1.0), Some(555));
        assert_eq!(moves_at(64.0), Some(578));
    }

    #[test]
    fn the_maximum_is_lowered_as_far_as_the_stricter_percentile_agrees() {
        // 94 % walk on to the 3 %, and 97 % are more than 95. The stricter one walks
        // on at 97, but not at 99.
        let calls = [(1024, 94), (4096, 3), (16_384, 2), (1 << 20, 1)];
        let calls = counts(&calls.map(|(size, percent)| (size, percent * 1000)));
        assert_eq!(from_steps(&calls, PERCENTILE), targets(1024, 4096));
        for (before, expected) in [
            (1024, 4096),
            (4096, 4096),
            (8192, 8192),
            (16_384, 16_384),
            (32_768, 16_384),
            (1 << 20, 16_384),
        ] {
            assert_eq!(
                after(targets(1024, before), &calls, PERCENTILE),
                targets(1024, expected),
                "{before}"
            );
        }
    }

    #[test]
    fn the_maximum_is_no_smaller_than_a_default_that_is_held() {
        // The first alone is walked at 0, and at 0.5: 110 of 210 are more than 105.
        let calls = counts(&[(1024, 110), (65_536, 100)]);
        assert_eq!(
            after(targets(65_536, 65_536), &calls, 0.0),
            targets(65_536, 65_536)
        );
    }

    #[test]
    fn without_calls_nothing_changes() {
        let none = [0; STEPS];
        assert_eq!(after(None, &none, PERCENTILE), None);
        let current = targets(1000, 3); // even what no calibration gives
        assert_eq!(after(current, &none, PERCENTILE), current);
    }

    #[test]
    fn no_counts_overflow() {
        let most = [u64::MAX; STEPS];
        assert_eq!(from_steps(&most, 1.0), targets(64, 32 << 20));
        // Ten of twenty, and the one that passes the half.
        assert_eq!(from_steps(&most, 0.5), targets(64, 64 << 10));
        assert_eq!(after(targets(128, 256), &most, 0.5), targets(128, 64 << 10));
    }

    // 2^53 + 1 is the first number that floating point rounds down.
    #[test]
    fn all_that_occurred_is_met_at_1_where_floating_point_loses_calls() {
        let calls = counts(&[(64, 1 << 60), (128, 100), (256, 1)]);
        assert_eq!(from_steps(&calls, 1.0), targets(64, 256));
        assert_eq!(from_steps(&calls, 1e300), targets(64, 256));
    }

    /// Few different numbers, so that ties are frequent.
    fn any_calls() -> impl Strategy<Value = [u64; STEPS]> {
        let calls = prop_oneof![
            4 => Just(0_u64),
            4 => 1_u64..6,
            2 => 1_u64..1000,
            1 => Just(u64::MAX / 20),
        ];
        prop::collection::vec(calls, STEPS).prop_map(|calls| calls.try_into().unwrap())
    }

    fn any_percentile() -> impl Strategy<Value = f64> {
        prop_oneof![
            6 => 0.0..1.0_f64,
            1 => prop::sample::select(vec![
                f64::NAN, f64::NEG_INFINITY, -1.0, 0.0, 1.0, 7.0, f64::INFINITY
            ]),
        ]
    }

    fn any_current() -> impl Strategy<Value = Targets> {
        let size = || {
            prop_oneof![
                4 => (0..STEPS).prop_map(step_size),
                1 => any::<usize>(),
            ]
        };
        (size(), size()).prop_map(|(default_size, max_size)| Targets {
            default_size,
            max_size,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if crate::SLOW { 8 } else { 512 }))]

        #[test]
        fn the_first_calibration_is_the_pure_one(
            calls in any_calls(),
            percentile in any_percentile(),
        ) {
            prop_assert_eq!(
                after(None, &calls, percentile),
                from_steps(&calls, percentile)
            );
        }

        #[test]
        fn later_ones_are_never_below_the_pure_maximum_nor_below_the_default(
            current in any_current(),
            calls in any_calls(),
            percentile in any_percentile(),
        ) {
            let Some(pure) = from_steps(&calls, percentile) else {
                return Ok(());
            };
            let after = after(Some(current), &calls, percentile).unwrap();
            prop_assert!(after.max_size >= pure.max_size);
            prop_assert!(after.max_size >= after.default_size);
            prop_assert!(calls[step_of(after.default_size)] > 0);
            prop_assert_eq!(step_size(step_of(after.default_size)), after.default_size);
            // Nor above what was, what is, and the default.
            let above = [current.max_size, pure.max_size, after.default_size];
            prop_assert!(above.into_iter().any(|size| after.max_size <= size));
        }

        #[test]
        fn the_same_calls_again_change_nothing(
            current in any_current(),
            calls in any_calls(),
            percentile in any_percentile(),
        ) {
            let once = after(Some(current), &calls, percentile);
            prop_assert_eq!(after(once, &calls, percentile), once);
        }
    }
}
