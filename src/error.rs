//! Errors of a configuration, of a fit and of a get. Describes them; checks nothing.

use crate::system::CAPACITY_MAX;
use std::error::Error;
use std::fmt;
use std::io;

/// An error in the options of a [`Builder`](crate::Builder).
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
    /// `retain_bytes` is not 0 and below the largest size class: the pool could never keep
    /// a buffer of that class.
    #[non_exhaustive]
    RetainBelowLargest {
        /// `retain_bytes`.
        retain_bytes: usize,
        /// The option that sets the largest class: `max_size`, `min_size` or `classes`.
        field: &'static str,
        /// The largest class's capacity in bytes.
        largest: usize,
        /// Whether that is the default of `field`.
        is_default: bool,
    },
    /// The size of a `keep_idle` is above the largest size class.
    #[non_exhaustive]
    KeepIdleAboveLargest {
        /// The size in bytes.
        size: usize,
        /// The option that sets the largest class: `max_size`, `min_size` or `classes`.
        field: &'static str,
        /// The largest class's capacity in bytes.
        largest: usize,
        /// Whether that is the default of `field`.
        is_default: bool,
    },
    /// `keep_idle` counts more buffers of a size class than `max_per_class` allows.
    #[non_exhaustive]
    KeepIdleAbovePerClass {
        /// The class's capacity in bytes.
        capacity: usize,
        /// The buffers of that class in all calls of `keep_idle` together.
        count: usize,
        /// `max_per_class` in buffers.
        max_per_class: usize,
    },
    /// The buffers of all calls of `keep_idle` together are above `retain_bytes`.
    #[non_exhaustive]
    KeepIdleAboveRetain {
        /// Their capacity in bytes; `usize::MAX` if it is more than that.
        bytes: usize,
        /// `retain_bytes`.
        retain_bytes: usize,
        /// Whether that is its default.
        is_default: bool,
    },
    /// The heap has no room for the buffers of `keep_idle`.
    #[non_exhaustive]
    KeepIdleOutOfMemory {
        /// The capacity of the size class that it has no room for, in bytes.
        capacity: usize,
        /// How many buffers of it are to be kept idle.
        count: usize,
    },
    /// An interval is 0.
    #[non_exhaustive]
    ZeroInterval {
        /// The option.
        field: &'static str,
    },
    /// `calibrate_percentile` is not a number from 0 to 1.
    #[non_exhaustive]
    Percentile {
        /// Its value, as it prints.
        value: String,
    },
    /// `compact_below` is above 100.
    #[non_exhaustive]
    CompactBelow {
        /// Its value in percent.
        percent: u8,
    },
    /// `background_trim` is set, and `trim_interval` is `None`.
    BackgroundWithoutInterval,
    /// The thread of `background_trim`, or of `release_when_idle`, cannot be started.
    #[non_exhaustive]
    Background {
        /// The system's error.
        kind: io::ErrorKind,
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
            Self::RetainBelowLargest {
                retain_bytes,
                field,
                largest,
                is_default,
            } => {
                let below = Largest(field, *largest, *is_default);
                write!(f, "retain_bytes: {retain_bytes} bytes is below {below}, ")?;
                write!(f, "so no buffer of the largest size class could be kept; ")?;
                write!(f, "set retain_bytes to {largest} or more, or ")?;
                match *field {
                    "classes" => write!(f, "leave out the classes above {retain_bytes}")?,
                    field => write!(f, "{field} to {retain_bytes} or less")?,
                }
                write!(f, "; 0 keeps nothing")
            }
            Self::KeepIdleAboveLargest {
                size,
                field,
                largest,
                is_default,
            } => {
                let above = Largest(field, *largest, *is_default);
                write!(f, "keep_idle: {size} bytes is above {above}; ")?;
                match *field {
                    "classes" => write!(f, "name a class of {size} or more")?,
                    field => write!(f, "set {field} to {size} or more")?,
                }
                write!(f, ", or keep smaller buffers idle")
            }
            Self::KeepIdleAbovePerClass {
                capacity,
                count,
                max_per_class,
            } => write!(
                f,
                "keep_idle: {count} buffers of {capacity} bytes is above max_per_class, \
                 {max_per_class}; set max_per_class to {count} or more, or keep fewer idle"
            ),
            Self::KeepIdleAboveRetain {
                bytes,
                retain_bytes,
                is_default,
            } => {
                let of = if *is_default { "the default of " } else { "" };
                write!(
                    f,
                    "keep_idle: {bytes} bytes in all is above {of}retain_bytes, {retain_bytes} \
                     bytes; set retain_bytes to {bytes} or more, or keep fewer buffers idle"
                )
            }
            Self::KeepIdleOutOfMemory { capacity, count } => write!(
                f,
                "keep_idle: the heap has no room for {count} buffers of {capacity} bytes; \
                 keep fewer idle"
            ),
            Self::ZeroInterval {
                field: field @ "release_when_idle",
            } => write!(
                f,
                "{field}: 0 is not an interval; use more, or leave it out"
            ),
            Self::ZeroInterval { field } => write!(
                f,
                "{field}: 0 is not an interval; use more, or None for none by time"
            ),
            Self::Percentile { value } => write!(
                f,
                "calibrate_percentile: {value} is not a number from 0 to 1; 0.95 is usual"
            ),
            Self::CompactBelow { percent } => write!(
                f,
                "compact_below: {percent} percent is above 100; use 0 to 100"
            ),
            Self::BackgroundWithoutInterval => write!(
                f,
                "background_trim: trim_interval is None; set one, or no background_trim"
            ),
            Self::Background { kind } => {
                write!(f, "background_trim: the thread cannot be started: {kind}")
            }
        }
    }
}

impl Error for ConfigError {}

/// The largest size class: the option that sets it, its capacity in bytes, and whether that
/// is the option's default.
struct Largest<'a>(&'a str, usize, bool);

impl fmt::Display for Largest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Largest(field, bytes, is_default) = *self;
        match (field, is_default) {
            (_, true) => write!(f, "the default of {field}, {bytes} bytes"),
            ("classes", _) => write!(f, "the largest of classes, {bytes} bytes"),
            _ => write!(f, "{field}, {bytes} bytes"),
        }
    }
}

/// Why no size classes can be [fitted](crate::SizeClasses::fit).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FitError {
    /// Nothing is recorded in the histogram.
    Empty,
    /// No class was asked for.
    NoClasses,
    /// Too many classes were asked for.
    #[non_exhaustive]
    TooManyClasses {
        /// How many there may be.
        max: usize,
    },
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the histogram is empty; record at least one size"),
            Self::NoClasses => write!(f, "0 classes hold nothing; ask for 1 or more"),
            Self::TooManyClasses { max } => {
                write!(f, "a pool has at most {max} classes; ask for no more")
            }
        }
    }
}

impl Error for FitError {}

/// Why [`Pool::try_get`](crate::Pool::try_get) gave no buffer, or
/// [`PooledBuf::try_reserve`](crate::PooledBuf::try_reserve) no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GetError {
    /// The size is above `isize::MAX` bytes, which no allocation can have.
    #[non_exhaustive]
    TooLarge {
        /// The size asked for, in bytes; for `try_reserve`, contents included.
        size: usize,
    },
    /// The heap has no room for the buffer, or for the few words that go with it, even after the
    /// pool's idle buffers were freed.
    #[non_exhaustive]
    OutOfMemory {
        /// The size asked for, in bytes; for `try_reserve`, contents included.
        size: usize,
    },
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { size } => write!(
                f,
                "{size} bytes is above {CAPACITY_MAX}, the most that can be allocated"
            ),
            Self::OutOfMemory { size } => {
                write!(f, "the heap has no room for a buffer of {size} bytes")
            }
        }
    }
}

impl Error for GetError {}
