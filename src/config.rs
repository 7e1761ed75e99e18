//! A checked configuration: the size classes, and how much of each the levels may hold.
//!
//! Owns the limits and their reasons. Knows nothing of `Builder`'s options.

use crate::engine::{CACHE_ROUNDS, ClassIndex, ClassLimits, Freed, Limits};
use crate::error::ConfigError;
use crate::sizing::profile::Profile;
use crate::sizing::size_class::SizeClasses;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::Duration;

/// 10 s: long for a program at work, short for one whose burst is over.
pub(crate) const TRIM_INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
/// 1 ms: the clock is not finer, and a thread that trims more often does little else.
pub(crate) const INTERVAL_LEAST: Duration = Duration::from_millis(1);

/// Checked options.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) classes: SizeClasses,
    pub(crate) limits: Limits,
    pub(crate) calibrating: Calibrating,
    /// How often the background thread trims the pool; `None` if it does not.
    pub(crate) background_trim: Option<Duration>,
    pub(crate) on_trim: Option<Hook>,
    pub(crate) malloc_trim: bool,
    pub(crate) zero_on_return: bool,
    pub(crate) reuse_initialised: bool,
    pub(crate) compact_below: u8,
    /// The most bytes that may be outstanding; `None` if there is no limit.
    pub(crate) outstanding: Option<usize>,
    pub(crate) least_budget: LeastBudget,
}

impl Config {
    /// Whether gets and drops may take the fast path, which neither wipes nor knows of a limit.
    pub(crate) fn is_quick(&self) -> bool {
        !self.zero_on_return && self.outstanding.is_none()
    }
}

/// The program's own code, which receives the freed buffers and bytes of a trim.
#[derive(Clone)]
pub(crate) struct Hook(Arc<dyn Fn(Freed) + Send + Sync>);

impl Hook {
    pub(crate) fn new(hook: impl Fn(Freed) + Send + Sync + 'static) -> Self {
        Hook(Arc::new(hook))
    }

    pub(crate) fn call(&self, freed: Freed) {
        (self.0)(freed);
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fn(Freed)")
    }
}

// The hook is called when the pool has done its own work. So its panic leaves nothing half-changed,
// except for state of the program's own code.
impl UnwindSafe for Hook {}
impl RefUnwindSafe for Hook {}

/// How the sizes are learned.
#[derive(Clone, Debug)]
pub(crate) struct Calibrating {
    /// A calibration is due when one step has more returns than this; `None` for explicit
    /// calibrations only.
    pub(crate) threshold: Option<u64>,
    /// The part of the returns that `max_size` must hold, from 0 to 1.
    pub(crate) percentile: f64,
    /// The interval of calibrations by time; `None` for none.
    pub(crate) interval: Option<Duration>,
    /// The profile to begin with.
    pub(crate) profile: Profile,
    /// Classes whose buffers are kept idle on purpose: they are never retired.
    pub(crate) kept_idle: Box<[ClassIndex]>,
}

/// The most bytes of one size class in one thread's cache, if that is at least two buffers.
///
/// 512 KiB: with the caches of a few threads, that much stays in a processor's second-level cache.
/// Larger buffers gain little from being local.
const CACHE_BYTES_MAX: usize = 512 * 1024;

/// The most bytes that a get or a drop frees for a trim, or one buffer if that is larger.
///
/// 512 KiB: giving that many pages back takes 0.05 to 0.2 ms, if they were written to.
pub(crate) const PIECE_BYTES: usize = 512 << 10;

/// What each budget of a pool must hold, if it is not 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeastBudget {
    /// The largest class's capacity.
    pub(crate) largest: usize,
    /// The option that sets the largest class.
    pub(crate) field: &'static str,
    /// Whether that is the default of `field`.
    pub(crate) is_default: bool,
    /// The capacity of all buffers that are kept idle.
    pub(crate) kept_idle: usize,
}

impl LeastBudget {
    /// # Errors
    ///
    /// - If the budget is not 0 and below the largest class, or below what is kept idle.
    pub(crate) fn check(&self, retain_bytes: usize) -> Result<(), ConfigError> {
        if 0 < retain_bytes && retain_bytes < self.largest {
            return Err(ConfigError::RetainBelowLargest {
                retain_bytes,
                field: self.field,
                largest: self.largest,
                is_default: self.is_default,
            });
        }
        if retain_bytes < self.kept_idle {
            return Err(ConfigError::KeepIdleAboveRetain {
                bytes: self.kept_idle,
                retain_bytes,
                is_default: false,
            });
        }
        Ok(())
    }
}

/// Checks a limit on outstanding bytes.
///
/// # Errors
///
/// - If it is below the smallest size class.
pub(crate) fn check_outstanding(bytes: usize, classes: &SizeClasses) -> Result<(), ConfigError> {
    let smallest = classes.capacities()[0];
    match bytes < smallest {
        true => Err(ConfigError::OutstandingBelowSmallest {
            max_outstanding_bytes: bytes,
            smallest,
        }),
        false => Ok(()),
    }
}

/// The limits for buffers without a size class: the levels hold none.
const NOTHING: ClassLimits = ClassLimits {
    items: 0,
    cache_rounds: 0,
    magazine_rounds: 0,
    weight: usize::MAX, // no buffer's weight: so none passes for one of these
    keep_idle: 0,
};

/// How much the levels may hold: one entry for each class, and one for buffers without a class.
///
/// `keep_idle` has one entry for each class.
pub(crate) fn class_limits(
    classes: &SizeClasses,
    max_per_class: usize,
    thread_cache_bytes: usize,
    keep_idle: &[usize],
) -> Box<[ClassLimits]> {
    let classes = classes.capacities().iter().zip(keep_idle);
    let limits = classes.map(|(&capacity, &keep_idle)| {
        // At least two, so that a thread that gets one while it holds another keeps both. One, if a
        // single buffer is above four times the bound.
        let fewest = if capacity > 4 * CACHE_BYTES_MAX { 1 } else { 2 };
        let cache_rounds = (CACHE_BYTES_MAX / capacity)
            .clamp(fewest, CACHE_ROUNDS)
            .min(thread_cache_bytes / capacity);
        ClassLimits {
            items: max_per_class,
            cache_rounds,
            magazine_rounds: cache_rounds.div_ceil(2),
            weight: capacity,
            keep_idle,
        }
    });
    limits.chain([NOTHING]).collect()
}
