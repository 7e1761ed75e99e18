//! The samples show the true share of each size, in whatever order the sizes come.

use super::{PERCENTILE, by_count, by_hand, pure, use_one};
use crate::{rounds, sizes};
use tierpool::Histogram;

const SMALL: usize = 1000;
const LARGE: usize = 60_000;
/// The class of all buffers here, so that one sampler handles them all.
const CLASS: usize = 65_536;

// Samples at a fixed distance would see only large sizes, or none.
#[test]
fn a_period_of_two_is_no_blind_spot() {
    let pool = by_hand();
    let mut lengths = Histogram::new();
    for at in 0..rounds(100_000, 5000) {
        // Every second size, in four fifths of the time: 40 of a hundred are large.
        let is_large = at % 2 == 0 && at / 500 % 5 > 0;
        let len = if is_large { LARGE } else { SMALL };
        use_one(&pool, CLASS, len);
        lengths.record(len);
    }
    assert_eq!(pool.recalibrate(), lengths.targets(PERCENTILE).unwrap());
}

// The percentile leaves out three times the share of the large sizes, or a third of it. A sample
// counts for 64 returns, so of 400,000 returns at least 60 samples are large, and chance changes
// that by 8. A factor of three is five times as much.
#[test]
#[cfg_attr(any(miri, slow), ignore = "too many returns")]
fn longer_periods_are_no_blind_spots() {
    for period in [16, 64, 100] {
        let share = 1.0 / f64::from(period);
        for (left_out, max_size) in [(share / 3.0, 65_536), (3.0 * share, 1024)] {
            let percentile = 1.0 - left_out;
            let builder = by_count(u64::MAX).calibrate_percentile(percentile);
            let pool = builder.build().unwrap();
            let mut lengths = Histogram::new();
            for at in 0..400_000 {
                let len = if at % period == 0 { LARGE } else { SMALL };
                use_one(&pool, CLASS, len);
                lengths.record(len);
            }
            let targets = pool.recalibrate();
            assert_eq!(sizes(targets), (1024, max_size), "{period}, {percentile}");
            assert_eq!(targets, lengths.targets(percentile).unwrap());
        }
    }
}

/// A small generator with a seed (SplitMix64): each run has the same sizes.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// How often the targets change in 50 calibrations, after the first.
fn changes(mut next_len: impl FnMut() -> usize) -> usize {
    let pool = by_hand();
    let mut all = Vec::new();
    for _ in 0..50 {
        (0..20_000).for_each(|_| use_one(&pool, CLASS, next_len()));
        all.push(pool.recalibrate());
    }
    all.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

// One change may be chance, in about one of a hundred runs. Flapping is repeated change.
#[test]
#[cfg_attr(any(miri, slow), ignore = "too many returns")]
fn the_targets_of_four_equally_frequent_sizes_do_not_flap() {
    let mut random = Random(1);
    let changes = changes(|| [1000, 4000, 16_000, 60_000][random.below(4) as usize]);
    assert!(changes <= 1, "{changes}");
}

// The maximum is raised when the samples of a calibration have 5 % of them, and then stays.
#[test]
#[cfg_attr(any(miri, slow), ignore = "too many returns")]
fn the_maximum_for_a_share_at_the_percentile_does_not_flap() {
    let mut random = Random(2);
    let changes = changes(|| if random.below(20) == 0 { LARGE } else { SMALL });
    assert!(changes <= 1, "{changes}");
}

#[test]
fn a_size_that_comes_in_runs_is_sampled_with_its_true_share() {
    let pool = by_hand();
    let returns = rounds(100_000, 5000);
    for at in 0..returns {
        // Three tenths are large, in runs of a tenth of all.
        let is_large = at * 10 / returns % 3 == 1;
        use_one(&pool, CLASS, if is_large { LARGE } else { SMALL });
    }
    assert_eq!(pool.recalibrate(), pure([SMALL, SMALL, LARGE]));
}
