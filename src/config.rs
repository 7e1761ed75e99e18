//! A checked configuration: the size classes, and how much of each the levels may hold.
//!
//! Owns the limits and their reasons. Knows nothing of options.

use crate::engine::{ClassLimits, MAGAZINE_ROUNDS};
use crate::size_class::SizeClasses;

/// Checked options.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) classes: SizeClasses,
    /// One per size class, and one for what has none.
    pub(crate) limits: Box<[ClassLimits]>,
    pub(crate) zero_on_return: bool,
}

impl Config {
    pub(crate) fn new(classes: SizeClasses, zero_on_return: bool) -> Self {
        let limits = classes
            .capacities()
            .iter()
            .map(|&capacity| limits(capacity));
        Config {
            limits: limits.chain([NOTHING]).collect(),
            classes,
            zero_on_return,
        }
    }
}

/// What one thread's cache may hold of one size class, in bytes, as long as
/// that is at least two buffers.
const CACHE_BYTES_MAX: usize = 512 * 1024;
/// What the depot may hold of one size class, in bytes, as long as that is at
/// least one magazine.
const DEPOT_BYTES_MAX: usize = 16 << 20;
/// What the depot may hold loose of one size class, in bytes, as long as that
/// is at least two ordinary buffers.
const LOOSE_BYTES_MAX: usize = 512 * 1024;
/// What the depot may hold of one size class, in magazines: bounds what it preallocates.
const DEPOT_MAGAZINES_MAX: usize = 128;

/// How much the levels may hold of what has no size class.
const NOTHING: ClassLimits = ClassLimits {
    cache_rounds: 0,
    magazine_rounds: 0,
    depot_magazines: 0,
    depot_loose_weight: 0,
    weight: usize::MAX, // no buffer's: none passes for one that came from there
};

/// How much of a class with this capacity each level may hold.
fn limits(capacity: usize) -> ClassLimits {
    // Two at least, so that a thread which gets one while it holds another
    // keeps both; one, where a single buffer is more than the bound four times.
    let fewest = if capacity > 4 * CACHE_BYTES_MAX { 1 } else { 2 };
    let cache_rounds = (CACHE_BYTES_MAX / capacity).clamp(fewest, 2 * MAGAZINE_ROUNDS);
    let magazine_rounds = cache_rounds.div_ceil(2);
    ClassLimits {
        cache_rounds,
        magazine_rounds,
        depot_magazines: (DEPOT_BYTES_MAX / capacity / magazine_rounds)
            .clamp(1, DEPOT_MAGAZINES_MAX),
        depot_loose_weight: LOOSE_BYTES_MAX.max(capacity.saturating_mul(2)),
        weight: capacity,
    }
}
