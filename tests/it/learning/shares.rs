//! The samples show how frequent each size is, whatever the order in which sizes come.

use super::{PERCENTILE, by_count, by_hand, pure, use_one};
use crate::{rounds, sizes};
use tierpool::Histogram;

const SMALL: usize = 1000;
const LARGE: usize = 60_000;
/// The class of all buffers here, so that one sampler sees them all.
const CLASS: usize = 65_536;

// A sample at a fixed distance would see large ones only, or none.
#[test]
fn a_period_of_two_is_no_blind_spot() {
    let pool = by_hand();
    let mut lengths = Histogram::new();
    for at in 0..rounds(100_000, 5000) {
        // Every second one for four fifths of the time: 40 in a hundred are large.
        let is_large = at % 2 == 0 && at / 500 % 5 > 0;
        let len = if is_large { LARGE } else { SMALL };
        use_one(&pool, CLASS, len);
        lengths.record(len);
    }
    assert_eq!(pool.recalibrate(), lengths.targets(PERCENTILE).unwrap());
}

// The percentile leaves out three times as much as the large ones have, and a third of that. A
// sample is of 64 returns, so of 400,000 returns 60 samples or more are of large ones, and chance
// moves these by 8: a factor of three is five times that.
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

/// A small generator with a seed (SplitMix64), so that each run has the same sizes.
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

// Once may be chance, about one time in a hundred. To flap is to change again and again.
#[test]
#[cfg_attr(any(miri, slow), ignore = "too many returns")]
fn four_sizes_as_frequent_as_each_other_do_not_flap() {
    let mut random = Random(1);
    let changes = changes(|| [1000, 4000, 16_000, 60_000][random.below(4) as usize]);
    assert!(changes <= 1, "{changes}");
}

// The maximum is raised when a sample of a calibration has 5 % of them, and then stays.
#[test]
#[cfg_attr(any(miri, slow), ignore = "too many returns")]
fn a_share_at_the_percentile_does_not_flap() {
    let mut random = Random(2);
    let changes = changes(|| if random.below(20) == 0 { LARGE } else { SMALL });
    assert!(changes <= 1, "{changes}");
}

#[test]
fn a_size_that_comes_in_runs_is_seen_as_often_as_it_comes() {
    let pool = by_hand();
    let returns = rounds(100_000, 5000);
    for at in 0..returns {
        // Three tenths, a tenth of all at a time.
        let is_large = at * 10 / returns % 3 == 1;
        use_one(&pool, CLASS, if is_large { LARGE } else { SMALL });
    }
    assert_eq!(pool.recalibrate(), pure([SMALL, SMALL, LARGE]));
}
