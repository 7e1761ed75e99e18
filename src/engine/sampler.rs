//! Which returns are samples: one in a few, at random.
//!
//! Owns the distance from one sample to the next, for one thread's cache. Knows nothing of items,
//! or of the use of a sample.
//!
//! The cache counts the returns on the fast path. The next sample is due when that count reaches
//! the number drawn for it. A sample stands for itself and for the returns before it. The next
//! distance is drawn when a sample is taken, before the returns that it spans have come. So no
//! period of the program can hide from the samples, and they are right on average.

use crate::sync::{Hint, MODELLED, Ordering, StaticUsize};

/// The mean distance of a cache that is used much.
///
/// 64: samples cost some 6 % of a local get and drop then (13.0 ns and not 12.2, AMD EPYC, shared),
/// and 42,000 returns give some 800 samples.
const APART_MOST: usize = 64;

/// A cache that had `n` returns in the present interval has its next sample after `n` divided by
/// this, on average.
///
/// 32: each of the first 64 returns is a sample, and 1000 returns give 150 samples. So a size that
/// has 5 % of a quiet program's returns is missed by all samples once in some 2000 calibrations.
const PART: usize = 32;

/// The numbers drawn for a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Drawn {
    /// How many returns the sample stands for.
    pub(super) stands_for: usize,
    /// How many returns pass before the next sample.
    pub(super) pass: usize,
}

/// Draws the distances for one cache. Used by its owner alone.
pub(super) struct Sampler {
    /// How many returns the next sample stands for.
    stands_for: Hint,
    /// Returns in the present interval, as far as samples have counted them.
    lately: Hint,
    /// The interval that `lately` counts in.
    interval: Hint,
    /// The state of the generator; not 0.
    random: Hint,
}

impl Sampler {
    pub(super) fn new() -> Self {
        // A different state for each cache, and the same states in each run of a model.
        static NEXT: StaticUsize = StaticUsize::new(1);
        let seed = match MODELLED {
            true => 1,
            // Relaxed: two caches with the same state would do no harm.
            false => NEXT.fetch_add(1, Ordering::Relaxed),
        };
        Self::seeded(seed)
    }

    fn seeded(seed: usize) -> Self {
        // Knuth's multiplicative hash: consecutive seeds give states that are far apart.
        let state = (seed as u32).wrapping_mul(0x9e37_79b1) | 1;
        Sampler {
            stands_for: Hint::new(1),
            lately: Hint::new(0),
            interval: Hint::new(0),
            random: Hint::new(state as usize),
        }
    }

    /// Takes the sample that is due, and draws when the next one is.
    ///
    /// `interval` names the present interval. In a new interval, each return is a sample again at
    /// first.
    pub(super) fn take(&self, interval: usize) -> Drawn {
        let stands_for = self.stands_for.get();
        let before = match self.interval.get() == interval {
            true => self.lately.get(),
            false => 0,
        };
        self.interval.set(interval);
        let lately = before.saturating_add(stands_for);
        self.lately.set(lately);
        let apart = (lately / PART).clamp(1, APART_MOST);
        // Half of the distance is fixed. Samples that stand for very few or very many returns would
        // be less exact together.
        let pass = match MODELLED {
            true => 2, // so that a model takes both paths of a return
            false => (apart - 1) / 2 + self.below(apart),
        };
        self.stands_for.set(pass + 1);
        Drawn { stands_for, pass }
    }

    /// Makes the next sample stand for `returns` fewer returns.
    pub(super) fn shorten(&self, returns: usize) {
        self.stands_for
            .set(self.stands_for.get().saturating_sub(returns));
    }

    /// A random number below `limit`, by Marsaglia's xorshift ("Xorshift RNGs", 2003).
    fn below(&self, limit: usize) -> usize {
        let mut state = self.random.get() as u32;
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        self.random.set(state as usize);
        ((u64::from(state) * limit as u64) >> 32) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEDS: usize = if crate::SLOW { 3 } else { 20 };
    const RETURNS: usize = 100_000;

    /// Each value's share of the returns in thousandths: by the samples, and the true one.
    fn shares(seed: usize, value: impl Fn(usize) -> usize) -> ([f64; 4], [f64; 4]) {
        let sampler = Sampler::seeded(seed);
        let (mut said, mut is) = ([0_usize; 4], [0_usize; 4]);
        let mut left = 0;
        for at in 0..RETURNS {
            let value = value(at);
            is[value] += 1;
            match left {
                0 => {
                    let drawn = sampler.take(0);
                    said[value] += drawn.stands_for;
                    left = drawn.pass;
                }
                _ => left -= 1,
            }
        }
        let share = |counts: [usize; 4]| {
            let total = counts.iter().sum::<usize>() as f64;
            counts.map(|count| count as f64 / total)
        };
        (share(said), share(is))
    }

    #[test]
    fn each_return_is_sampled_until_there_are_many() {
        let sampler = Sampler::seeded(7);
        for _ in 0..2 * PART - 1 {
            let drawn = sampler.take(3);
            assert_eq!((drawn.stands_for, drawn.pass), (1, 0));
        }
        // A new interval begins anew.
        for _ in 0..100 {
            sampler.take(3);
        }
        let first = sampler.take(4);
        assert!(first.pass < 2 * first.stands_for, "{first:?}");
    }

    #[test]
    fn samples_stand_for_all_returns_before_them() {
        let sampler = Sampler::seeded(1);
        let (mut counted, mut passed) = (0, 0);
        for _ in 0..10_000 {
            let drawn = sampler.take(0);
            counted += drawn.stands_for;
            passed += 1;
            assert_eq!(counted, passed);
            passed += drawn.pass;
            assert!(drawn.pass < APART_MOST / 2 + APART_MOST);
        }
        let mean = passed / 10_000;
        assert!((APART_MOST - 8..APART_MOST + 8).contains(&mean), "{mean}");
    }

    // Chance moves the shares in one run, but not on average.
    #[test]
    fn the_shares_of_four_sizes_are_right_on_average() {
        let mut off = [0.0; 4];
        for seed in 1..=SEEDS {
            // Shares of 40, 30, 20 and 10 %, in an order drawn apart from the samples.
            let order = Sampler::seeded(1000 + seed);
            let value = |_| match order.below(10) {
                0..4 => 0,
                4..7 => 1,
                7..9 => 2,
                _ => 3,
            };
            let (said, is) = shares(seed, value);
            for (off, (said, is)) in off.iter_mut().zip(said.into_iter().zip(is)) {
                let here = said - is;
                assert!(here.abs() < 0.05, "{said}, {is}: {seed}");
                *off += here / SEEDS as f64;
            }
        }
        let most = if crate::SLOW { 0.02 } else { 0.005 };
        assert!(off.iter().all(|off| off.abs() < most), "{off:?}");
    }

    // Samples at a fixed distance would see only one of the values.
    #[test]
    fn no_period_of_the_program_hides_from_the_samples() {
        for period in [2, 16, 64, 100] {
            for seed in 0..SEEDS {
                // Every `period`-th one is of another value.
                let (said, is) = shares(seed, |at| usize::from(at % period == 0));
                let off = (said[1] - is[1]).abs();
                assert!(off < 0.04, "{said:?}, {is:?}: {period}, {seed}");
            }
        }
    }
}
