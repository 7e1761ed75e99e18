//! Errors of a configuration, of a fit and of a get. Describes them; checks nothing.
//!
//! A message names the option and its value, then the limit, then the reason, then the remedy:
//! `OPTION (VALUE) is above LIMIT (VALUE): REASON; REMEDY`.

use crate::system::CAPACITY_MAX;
use crate::units::{Exact, counted};
use std::error::Error;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

/// Tells which options of a [`Builder`](crate::Builder) or an
/// [`ObjectPoolBuilder`](crate::ObjectPoolBuilder) cannot be used, and why.
///
/// Each message names the option, its value, the limit and the remedy.
///
/// ```
/// use tierpool::Pool;
///
/// let error = Pool::builder().max_size(128 << 20).retain_bytes(64 << 20).build().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "max_size (128 MiB) is above retain_bytes (64 MiB): a buffer of that class could never be \
///      kept; raise retain_bytes to 128 MiB or more, or lower max_size to 64 MiB or less, or set \
///      retain_bytes to 0 to keep nothing"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A size is 0 bytes. No buffer is that small.
    #[non_exhaustive]
    Zero {
        /// The name of the option.
        field: &'static str,
    },
    /// A size is above `isize::MAX` bytes, which no allocation can have.
    #[non_exhaustive]
    TooLarge {
        /// The name of the option.
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
    /// The list of `classes` has too many sizes.
    #[non_exhaustive]
    TooManyClasses {
        /// The most that a pool can have.
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
    /// `retain_share` is not above 0 and at most 1.
    #[non_exhaustive]
    Share {
        /// Its value, as it prints.
        value: String,
    },
    /// `retain_share` is set beside `retain_bytes`.
    #[non_exhaustive]
    ShareBesideBytes {
        /// `retain_share`, as it prints.
        share: String,
        /// `retain_bytes`.
        retain_bytes: usize,
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
    /// The `keep_idle` of a pool of objects is above its `max_idle`.
    #[non_exhaustive]
    KeepIdleAboveMaxIdle {
        /// `keep_idle` in objects.
        keep_idle: usize,
        /// `max_idle` in objects.
        max_idle: usize,
    },
    /// The heap has no room for the list of the objects of `keep_idle`.
    #[non_exhaustive]
    KeepIdleObjectsOutOfMemory {
        /// How many objects are to be kept idle.
        count: usize,
    },
    /// `max_outstanding_bytes` is below the smallest size class: no buffer could ever be taken.
    #[non_exhaustive]
    OutstandingBelowSmallest {
        /// `max_outstanding_bytes`.
        max_outstanding_bytes: usize,
        /// The smallest class's capacity in bytes.
        smallest: usize,
    },
    /// The pool was built without `max_outstanding_bytes`, so there is no limit to change.
    NoLimit,
    /// An interval is 0.
    #[non_exhaustive]
    ZeroInterval {
        /// The name of the option.
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
    /// A thread is to trim the pool, and `trim_interval` is `None`.
    #[non_exhaustive]
    BackgroundWithoutInterval {
        /// The option that asks for the thread: `background_trim` or `release_when_idle`.
        field: &'static str,
    },
    /// The thread that trims the pool cannot be started.
    ///
    /// [`source`](Error::source) returns the system's error.
    #[non_exhaustive]
    Background {
        /// The option that asks for the thread: `background_trim` or `release_when_idle`.
        field: &'static str,
        /// The system's error.
        error: SpawnError,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero { field: "classes" } => write!(
                f,
                "classes has a size of 0 bytes: no buffer is that small; use sizes of 1 or more"
            ),
            Self::Zero { field } => write!(
                f,
                "{field} is 0 bytes: no buffer is that small; use 1 or more"
            ),
            Self::TooLarge { field, value } => write!(
                f,
                "{field} ({}) is above isize::MAX ({}): no allocation can be that large; \
                 lower {field}",
                Exact(*value),
                Exact(CAPACITY_MAX)
            ),
            Self::MaxBelowMin { min, max } => write!(
                f,
                "max_size ({}) is below min_size ({}): there would be no size class; \
                 raise max_size or lower min_size",
                Exact(*max),
                Exact(*min)
            ),
            Self::NoClasses => write!(
                f,
                "classes is empty: a pool has at least 1 size class; name one, or leave out classes"
            ),
            Self::TooManyClasses { max } => write!(
                f,
                "classes has more than {max} sizes: a pool has at most {max} size classes; \
                 leave out some, or let SizeClasses::fit choose {max} or fewer"
            ),
            Self::NotAscending {
                index,
                previous,
                value,
            } => write!(
                f,
                "classes ({} at index {index}) is not above the size before it ({}): sizes must \
                 ascend; sort the list, and leave out duplicates",
                Exact(*value),
                Exact(*previous)
            ),
            Self::Conflict { field, value } => write!(
                f,
                "{field} ({}) is set beside classes: the list sets all sizes; leave out one of the \
                 two",
                Exact(*value)
            ),
            Self::RetainBelowLargest {
                retain_bytes,
                field,
                largest,
                is_default,
            } => {
                let (budget, size) = (Exact(*retain_bytes), Exact(*largest));
                let above = Largest(field, *largest, *is_default);
                write!(f, "{above} is above retain_bytes ({budget}): ")?;
                write!(f, "a buffer of that class could never be kept; ")?;
                write!(f, "raise retain_bytes to {size} or more, or ")?;
                match *field {
                    "classes" => write!(f, "leave out the classes above {budget}")?,
                    field => write!(f, "lower {field} to {budget} or less")?,
                }
                write!(f, ", or set retain_bytes to 0 to keep nothing")
            }
            Self::Share { value } => write!(
                f,
                "retain_share ({value}) is not above 0 and at most 1: it is a share of the memory \
                 limit; use 0.05 for 5 of 100"
            ),
            Self::ShareBesideBytes {
                share,
                retain_bytes,
            } => write!(
                f,
                "retain_share ({share}) is set beside retain_bytes ({}): each sets the budget; leave \
                 out one of the two",
                Exact(*retain_bytes)
            ),
            Self::KeepIdleAboveLargest {
                size,
                field,
                largest,
                is_default,
            } => {
                let size = Exact(*size);
                let limit = Largest(field, *largest, *is_default);
                write!(f, "keep_idle ({size}) is above {limit}: ")?;
                write!(f, "buffers of that size are never kept; ")?;
                match *field {
                    "classes" => write!(f, "add a class of {size} or more")?,
                    field => write!(f, "raise {field} to {size} or more")?,
                }
                write!(f, ", or keep smaller buffers idle")
            }
            Self::KeepIdleAbovePerClass {
                capacity,
                count,
                max_per_class,
            } => write!(
                f,
                "keep_idle ({} of {}) is above max_per_class ({max_per_class}): no more \
                 of one class are kept; raise max_per_class to {count} or more, or keep fewer idle",
                counted(*count as u64, "buffer"),
                Exact(*capacity)
            ),
            Self::KeepIdleAboveRetain {
                bytes,
                retain_bytes,
                is_default,
            } => {
                let (bytes, budget) = (Exact(*bytes), Exact(*retain_bytes));
                let default = if *is_default { ", the default" } else { "" };
                write!(
                    f,
                    "keep_idle ({bytes} in all) is above retain_bytes ({budget}{default}): the \
                     budget holds no more; raise retain_bytes to {bytes} or more, or keep fewer \
                     buffers idle"
                )
            }
            Self::KeepIdleOutOfMemory { capacity, count } => write!(
                f,
                "keep_idle ({} of {}): the heap has no room for them; keep fewer idle",
                counted(*count as u64, "buffer"),
                Exact(*capacity)
            ),
            Self::KeepIdleAboveMaxIdle {
                keep_idle,
                max_idle,
            } => write!(
                f,
                "keep_idle ({keep_idle}) is above max_idle ({max_idle}): no more objects are kept; \
                 raise max_idle to {keep_idle} or more, or keep fewer idle"
            ),
            Self::KeepIdleObjectsOutOfMemory { count } => write!(
                f,
                "keep_idle ({}): the heap has no room for a list of them; keep fewer idle",
                counted(*count as u64, "object"),
            ),
            Self::OutstandingBelowSmallest {
                max_outstanding_bytes,
                smallest,
            } => write!(
                f,
                "max_outstanding_bytes ({}) is below the smallest size class ({}): no buffer could \
                 ever be taken; raise max_outstanding_bytes to {1} or more, or lower min_size",
                Exact(*max_outstanding_bytes),
                Exact(*smallest)
            ),
            Self::NoLimit => write!(
                f,
                "max_outstanding_bytes is not set: the pool counts nothing towards a limit; build \
                 it with max_outstanding_bytes"
            ),
            Self::ZeroInterval { field } => {
                let without = match *field {
                    "trim_interval" => "use None for no trims by time",
                    "calibrate_interval" => "use None for no calibrations by time",
                    _ => "leave it out",
                };
                write!(
                    f,
                    "{field} is 0: that is no interval; use more than 0, or {without}"
                )
            }
            Self::Percentile { value } => write!(
                f,
                "calibrate_percentile ({value}) is not from 0 to 1: it is a share of the returns; \
                 use 0.95 for 95 of 100"
            ),
            Self::CompactBelow { percent } => write!(
                f,
                "compact_below ({percent}) is above 100: it is a percentage of the capacity; \
                 use 0 to 100"
            ),
            Self::BackgroundWithoutInterval { field } => write!(
                f,
                "{field} is set, but trim_interval is None: the thread would never trim; \
                 set trim_interval, or leave out {field}"
            ),
            Self::Background { field, error } => write!(
                f,
                "{field} is set, but its thread cannot be started: {error}; \
                 leave out {field}, or let the process have another thread"
            ),
        }
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Background { error, .. } => Some(&*error.0),
            _ => None,
        }
    }
}

/// The largest size class: the option that sets it, its capacity in bytes, and whether that
/// is the option's default.
struct Largest<'a>(&'a str, usize, bool);

impl fmt::Display for Largest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Largest(field, bytes, is_default) = *self;
        let bytes = Exact(bytes);
        match (field, is_default) {
            (_, true) => write!(f, "{field} ({bytes}, the default)"),
            ("classes", _) => write!(f, "the largest of classes ({bytes})"),
            _ => write!(f, "{field} ({bytes})"),
        }
    }
}

/// The system's error when a thread cannot be started, in [`ConfigError::Background`].
///
/// Dereferences to the [`io::Error`]. Clones share it. Two are equal if they are of the same
/// [kind](io::Error::kind).
#[derive(Clone, Debug)]
pub struct SpawnError(Arc<io::Error>);

impl SpawnError {
    pub(crate) fn new(error: io::Error) -> Self {
        SpawnError(Arc::new(error))
    }
}

impl Deref for SpawnError {
    type Target = io::Error;

    fn deref(&self) -> &io::Error {
        &self.0
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for SpawnError {
    fn eq(&self, other: &Self) -> bool {
        self.kind() == other.kind()
    }
}

impl Eq for SpawnError {}

// The error in it is never changed.
impl UnwindSafe for SpawnError {}
impl RefUnwindSafe for SpawnError {}

/// Tells why no size classes can be [fitted](crate::SizeClasses::fit).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FitError {
    /// Nothing is recorded in the histogram.
    Empty,
    /// `k` is 0.
    NoClasses,
    /// `k` is above the most classes that a pool can have.
    #[non_exhaustive]
    TooManyClasses {
        /// The number of classes asked for.
        k: usize,
        /// The most that a pool can have.
        max: usize,
    },
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(
                f,
                "the histogram is empty: no classes fit it better than others; \
                 record at least one size"
            ),
            Self::NoClasses => write!(
                f,
                "k is 0: a pool has at least 1 size class; ask for 1 or more"
            ),
            Self::TooManyClasses { k, max } => write!(
                f,
                "k ({k}) is above {max}: a pool has at most {max} size classes; \
                 ask for {max} or fewer"
            ),
        }
    }
}

impl Error for FitError {}

/// Tells why [`Pool::try_get`](crate::Pool::try_get) returned no buffer, or
/// [`PooledBuf::try_reserve`](crate::PooledBuf::try_reserve) made no room.
///
/// Converts into an [`io::Error`], which keeps it as its inner error:
///
/// ```
/// use std::io;
/// use tierpool::{Pool, PooledBuf};
///
/// fn room_for(pool: &Pool, size: usize) -> io::Result<PooledBuf> {
///     Ok(pool.try_get(size)?)
/// }
///
/// let error = room_for(&Pool::default(), usize::MAX).unwrap_err();
/// assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GetError {
    /// The size is above `isize::MAX` bytes, which no allocation can have.
    #[non_exhaustive]
    TooLarge {
        /// The size asked for, in bytes. For `try_reserve`, it includes the contents.
        size: usize,
    },
    /// The heap has no room for the buffer, or for the few words that go with it.
    #[non_exhaustive]
    OutOfMemory {
        /// The size asked for, in bytes. For `try_reserve`, it includes the contents.
        size: usize,
    },
    /// Too many bytes are outstanding, or promised to those who wait.
    ///
    /// Only of a pool with a limit: `Builder::max_outstanding_bytes`, of the feature `limit`.
    #[non_exhaustive]
    Exhausted {
        /// The capacity asked for, in bytes: that of the size class.
        asked: usize,
        /// The bytes that were outstanding or promised.
        outstanding: usize,
        /// `max_outstanding_bytes`.
        limit: usize,
    },
    /// The buffer is larger than all that may be outstanding. It never helps to wait.
    ///
    /// Only of a pool with a limit.
    #[non_exhaustive]
    AboveLimit {
        /// The capacity asked for, in bytes: that of the size class.
        asked: usize,
        /// `max_outstanding_bytes`.
        limit: usize,
    },
    /// The queue of gets that wait was closed, by `Pool::close_queue`.
    ///
    /// Only of a pool with a limit.
    Closed,
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { size } => write!(
                f,
                "size ({}) is above isize::MAX ({}): no allocation can be that large; ask for less",
                Exact(*size),
                Exact(CAPACITY_MAX)
            ),
            Self::OutOfMemory { size } => write!(
                f,
                "the heap has no room for a buffer of {}; ask for less, or free memory first",
                Exact(*size)
            ),
            Self::Exhausted {
                asked,
                outstanding,
                limit,
            } => write!(
                f,
                "a buffer of {} does not fit beside the {} that are outstanding, below \
                 max_outstanding_bytes ({}); drop other buffers first, or wait with get_async or \
                 get_timeout",
                Exact(*asked),
                Exact(*outstanding),
                Exact(*limit)
            ),
            Self::AboveLimit { asked, limit } => write!(
                f,
                "a buffer of {} is above max_outstanding_bytes ({}): no wait makes room for it; \
                 ask for less, or raise max_outstanding_bytes",
                Exact(*asked),
                Exact(*limit)
            ),
            Self::Closed => write!(
                f,
                "the queue for buffers is closed: close_queue was called; end the work that needs \
                 the buffer"
            ),
        }
    }
}

impl Error for GetError {}

impl From<GetError> for io::Error {
    /// | error | kind |
    /// |---|---|
    /// | [`TooLarge`](GetError::TooLarge) | [`InvalidInput`](io::ErrorKind::InvalidInput) |
    /// | [`OutOfMemory`](GetError::OutOfMemory) | [`OutOfMemory`](io::ErrorKind::OutOfMemory) |
    /// | [`Exhausted`](GetError::Exhausted), [`AboveLimit`](GetError::AboveLimit) | [`QuotaExceeded`](io::ErrorKind::QuotaExceeded) |
    /// | [`Closed`](GetError::Closed) | [`BrokenPipe`](io::ErrorKind::BrokenPipe) |
    ///
    /// Allocates a few words, and ends the process if the heap has none.
    fn from(error: GetError) -> io::Error {
        let kind = match error {
            GetError::TooLarge { .. } => io::ErrorKind::InvalidInput,
            GetError::OutOfMemory { .. } => io::ErrorKind::OutOfMemory,
            GetError::Exhausted { .. } | GetError::AboveLimit { .. } => {
                io::ErrorKind::QuotaExceeded
            }
            GetError::Closed => io::ErrorKind::BrokenPipe,
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_cannot_be_started_names_the_option_and_keeps_the_systems_error() {
        let error = |field, kind| ConfigError::Background {
            field,
            error: SpawnError::new(io::Error::new(kind, "no more threads")),
        };
        let full = error("release_when_idle", io::ErrorKind::WouldBlock);
        assert_eq!(
            full.to_string(),
            "release_when_idle is set, but its thread cannot be started: no more threads; \
             leave out release_when_idle, or let the process have another thread"
        );
        let source = full.source().and_then(|source| source.downcast_ref());
        assert_eq!(source.map(io::Error::kind), Some(io::ErrorKind::WouldBlock));
        assert_eq!(full, full.clone());
        assert_eq!(full, error("release_when_idle", io::ErrorKind::WouldBlock));
        assert_ne!(full, error("release_when_idle", io::ErrorKind::Unsupported));
        assert_ne!(full, error("background_trim", io::ErrorKind::WouldBlock));
    }
}
