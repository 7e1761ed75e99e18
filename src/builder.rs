//! Options, and what is wrong with them: checked once, by [`Builder::build`].
//!
//! Owns the defaults and the limits of each size class. Holds no running state.

use crate::engine::{ClassLimits, MAGAZINE_ROUNDS};
use crate::pool::Pool;
use crate::size_class::{CAPACITY_MAX, CLASSES_MAX, SizeClasses};
use std::error::Error;
use std::fmt;

/// 512: below this the heap is as fast as a pool (`docs/benchmarks.md`).
const MIN_SIZE_DEFAULT: usize = 512;
/// 1 MiB: above this the work on the bytes outweighs getting the buffer.
const MAX_SIZE_DEFAULT: usize = 1 << 20;

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

/// Options for a [`Pool`], from [`Pool::builder`].
///
/// ```
/// use tierpool::Pool;
///
/// let pool = Pool::builder().min_size(1024).max_size(15_000).build()?;
/// assert_eq!(pool.classes(), [1024, 2048, 4096, 8192, 15_000]);
/// # Ok::<(), tierpool::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    min_size: Option<usize>,
    max_size: Option<usize>,
    classes: Option<Vec<usize>>,
    zero_on_return: bool,
}

impl Builder {
    /// Sets the capacity of the smallest size class, in bytes.
    ///
    /// Default: 512, or `max_size` if that is set and smaller.
    ///
    /// The classes are this, twice this, four times this and so on while below
    /// [`max_size`](Self::max_size), and then `max_size` itself.
    pub fn min_size(mut self, bytes: usize) -> Self {
        self.min_size = Some(bytes);
        self
    }

    /// Sets the capacity of the largest size class, in bytes.
    ///
    /// Default: 1 MiB, or `min_size` if that is set and larger.
    ///
    /// A request above it gets a plain allocation that is freed on drop, and a
    /// buffer that grew above it is freed on drop too.
    pub fn max_size(mut self, bytes: usize) -> Self {
        self.max_size = Some(bytes);
        self
    }

    /// Sets all size classes, by their capacities in bytes, ascending; at most 128.
    ///
    /// Instead of [`min_size`](Self::min_size) and
    /// [`max_size`](Self::max_size): setting both is an error.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::builder().classes([512, 2048, 65_536]).build()?;
    /// assert!(pool.get(600).capacity() >= 2048);
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn classes(mut self, capacities: impl IntoIterator<Item = usize>) -> Self {
        // One more than may be: enough to see that there are too many, even if
        // they never end.
        self.classes = Some(capacities.into_iter().take(CLASSES_MAX + 1).collect());
        self
    }

    /// Sets whether a buffer is wiped before it can be handed to anyone else. Default: `false`.
    ///
    /// The pool never shows what a buffer held before, wiped or not. This is
    /// for those who do not want a secret to stay in memory.
    ///
    /// Of a buffer that comes home whole, what was written through the guard's
    /// own methods and traits is wiped, and no more. Through [`DerefMut`](std::ops::DerefMut) and
    /// [`chunk_mut`](bytes::BufMut::chunk_mut) (which `read_buf` of an
    /// asynchronous reader uses) the pool cannot see what is written, so a
    /// buffer that was borrowed that way is wiped over its whole capacity, as
    /// is one that was adopted, has grown or is in part still in use.
    ///
    /// A buffer that the pool frees is wiped too. Not wiped: what is
    /// [detached](crate::PooledBuf::detach), what lies in a part that was
    /// split off and is still in use, and what `BytesMut` itself frees when it
    /// grows behind `DerefMut`.
    pub fn zero_on_return(mut self, zero: bool) -> Self {
        self.zero_on_return = zero;
        self
    }

    /// Checks the options and makes the pool.
    ///
    /// Allocates no buffer.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names the option and its values.
    pub fn build(self) -> Result<Pool, ConfigError> {
        Ok(Pool::from_config(self.check()?))
    }

    fn check(&self) -> Result<Config, ConfigError> {
        let classes = match &self.classes {
            Some(capacities) => {
                for (field, value) in [("min_size", self.min_size), ("max_size", self.max_size)] {
                    if let Some(value) = value {
                        return Err(ConfigError::Conflict { field, value });
                    }
                }
                SizeClasses::listed(capacities)?
            }
            // A limit that was not set gives way to one that was.
            None => {
                let min = self.min_size.unwrap_or_else(|| {
                    MIN_SIZE_DEFAULT.min(self.max_size.unwrap_or(MIN_SIZE_DEFAULT).max(1))
                });
                let max = self.max_size.unwrap_or(MAX_SIZE_DEFAULT.max(min));
                SizeClasses::doubling(min, max)?
            }
        };
        Ok(Config {
            limits: classes
                .capacities()
                .iter()
                .map(|&capacity| limits(capacity))
                .chain([NOTHING])
                .collect(),
            classes,
            zero_on_return: self.zero_on_return,
        })
    }
}

/// How much the levels may hold of what has no size class.
const NOTHING: ClassLimits = ClassLimits {
    cache_rounds: 0,
    magazine_rounds: 0,
    depot_magazines: 0,
    depot_loose_weight: 0,
    weight: 0,
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

/// Checked options.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) classes: SizeClasses,
    /// One per size class, and one for what has none.
    pub(crate) limits: Box<[ClassLimits]>,
    pub(crate) zero_on_return: bool,
}

impl Default for Config {
    fn default() -> Self {
        Builder::default()
            .check()
            .expect("the defaults are a valid configuration")
    }
}

/// What is wrong with a [`Builder`]'s options.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A size is 0 bytes.
    #[non_exhaustive]
    Zero {
        /// The option.
        field: &'static str,
    },
    /// A size is above `isize::MAX` bytes, which no allocation can have.
    #[non_exhaustive]
    TooLarge {
        /// The option.
        field: &'static str,
        /// Its value in bytes.
        value: usize,
    },
    /// `max_size` is below `min_size`.
    #[non_exhaustive]
    MaxBelowMin {
        /// `min_size` in bytes.
        min: usize,
        /// `max_size` in bytes.
        max: usize,
    },
    /// The list of `classes` is empty.
    NoClasses,
    /// The list of `classes` has too many.
    #[non_exhaustive]
    TooManyClasses {
        /// How many there may be.
        max: usize,
    },
    /// A capacity in `classes` is not above the one before it.
    #[non_exhaustive]
    NotAscending {
        /// Its place in the list, from 0.
        index: usize,
        /// The capacity before it, in bytes.
        previous: usize,
        /// The capacity, in bytes.
        value: usize,
    },
    /// `min_size` or `max_size` is set beside `classes`.
    #[non_exhaustive]
    Conflict {
        /// The option beside `classes`.
        field: &'static str,
        /// Its value in bytes.
        value: usize,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero { field } => write!(f, "{field}: 0 bytes is not a size; use 1 or more"),
            Self::TooLarge { field, value } => write!(
                f,
                "{field}: {value} bytes is above {CAPACITY_MAX}, the most that can be allocated"
            ),
            Self::MaxBelowMin { min, max } => {
                write!(f, "max_size: {max} bytes is below min_size, {min} bytes")
            }
            Self::NoClasses => write!(f, "classes: the list is empty; name at least one size"),
            Self::TooManyClasses { max } => {
                write!(f, "classes: the list has more than {max} sizes")
            }
            Self::NotAscending {
                index,
                previous,
                value,
            } => write!(
                f,
                "classes: {value} bytes at index {index} is not above {previous} bytes before it"
            ),
            Self::Conflict { field, value } => write!(
                f,
                "{field}: {value} bytes is set beside classes; set one or the other"
            ),
        }
    }
}

impl Error for ConfigError {}
