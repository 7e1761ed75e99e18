//! Options of a pool of objects, checked once, by [`ObjectPoolBuilder::build`].
//!
//! Owns the defaults. Holds no running state.

use super::pool::ObjectPool;
use super::shared::{Config, Functions};
use crate::config::{INTERVAL_LEAST, TRIM_INTERVAL_DEFAULT};
use crate::engine::{CACHE_ROUNDS, ClassLimits, Limits, UNLIMITED};
use crate::error::ConfigError;
use std::fmt;
use std::time::Duration;

/// 1024: more than most programs have in use at once, and a bound where one does not.
const MAX_IDLE_DEFAULT: usize = 1024;

const BACKGROUND_TRIM: &str = "background_trim";

/// Sets the options of an [`ObjectPool`], and makes it. From [`ObjectPool::builder`].
///
/// Each method sets one option, and the last call counts. [`build`](Self::build) checks all of them.
///
/// ```
/// use tierpool::ObjectPool;
///
/// let pool = ObjectPool::builder(String::new).reset(String::clear).max_idle(100).build()?;
/// pool.get().push_str("secret");
/// assert_eq!(*pool.get(), "");
/// # Ok::<(), tierpool::ConfigError>(())
/// ```
#[must_use = "a builder does nothing until `build`"]
pub struct ObjectPoolBuilder<T: Send + 'static> {
    functions: Functions<T>,
    max_idle: Option<usize>,
    keep_idle: usize,
    trim_interval: Option<Duration>,
    background_trim: bool,
}

impl<T: Send + 'static> ObjectPoolBuilder<T> {
    fn new(init: impl Fn() -> T + Send + Sync + 'static) -> Self {
        ObjectPoolBuilder {
            functions: Functions {
                init: Box::new(init),
                keep: None,
                reset: None,
            },
            max_idle: None,
            keep_idle: 0,
            trim_interval: Some(TRIM_INTERVAL_DEFAULT),
            background_trim: false,
        }
    }

    /// Sets a function that prepares an object for its next user.
    ///
    /// Default: none, and the next user finds the object as the last one left it.
    ///
    /// The drop of the guard calls it, on the dropping thread, after [`keep`](Self::keep) has agreed. It is
    /// also called for an object that then finds no room. If it panics, the object is dropped: see
    /// [`ObjectPool`](ObjectPool#the-programs-functions).
    ///
    /// ```
    /// use tierpool::ObjectPool;
    ///
    /// let pool = ObjectPool::builder(String::new).reset(String::clear).build()?;
    /// pool.get().push_str("of the first user");
    /// assert_eq!(*pool.get(), "");
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn reset(mut self, reset: impl Fn(&mut T) + Send + Sync + 'static) -> Self {
        self.functions.reset = Some(Box::new(reset));
        self
    }

    /// Sets the drop rule: an object for which it returns `false` is dropped when it comes back.
    ///
    /// Default: none, and each object is kept while there is room.
    ///
    /// It keeps an object that has grown for one user from staying large for all. The drop of the guard
    /// calls it, on the dropping thread, before [`reset`](Self::reset). If it panics, the object is dropped:
    /// see [`ObjectPool`](ObjectPool#the-programs-functions).
    ///
    /// ```
    /// use tierpool::ObjectPool;
    ///
    /// let small = |text: &String| text.capacity() <= 64 << 10;
    /// let pool = ObjectPool::builder(String::new).keep(small).build()?;
    /// pool.get().reserve(65 << 10);
    /// assert_eq!((pool.stats().discarded_by_keep, pool.stats().idle), (1, 0));
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn keep(mut self, keep: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        self.functions.keep = Some(Box::new(keep));
        self
    }

    /// Sets the most idle objects that the pool keeps, on all levels together.
    ///
    /// Default: 1024, or [`keep_idle`](Self::keep_idle) if that is more. With 0 the pool keeps nothing, and
    /// with `usize::MAX` there is no bound.
    ///
    /// It is never exceeded. An object that comes back when it is reached is dropped, and counted as
    /// [`discarded_full`](crate::ObjectStats::discarded_full). A get that would miss takes an idle object
    /// from the cache of another thread.
    ///
    /// ```
    /// use tierpool::ObjectPool;
    ///
    /// let pool = ObjectPool::builder(String::new).max_idle(2).build()?;
    /// drop([pool.get(), pool.get(), pool.get()]);
    /// assert_eq!((pool.stats().idle, pool.stats().discarded_full), (2, 1));
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn max_idle(mut self, objects: usize) -> Self {
        self.max_idle = Some(objects);
        self
    }

    /// Keeps this many idle objects, however long no get takes them.
    ///
    /// Default: 0.
    ///
    /// [`build`](Self::build) makes them, on its thread. They are in the depot, where any thread gets them.
    /// No trim drops them: it leaves that many idle objects. [`ObjectPool::clear`] and the drop of the last
    /// handle do.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) returns an error if it is above [`max_idle`](Self::max_idle), or if the heap has no
    /// room for a list of them.
    ///
    /// ```
    /// use tierpool::ObjectPool;
    ///
    /// let pool = ObjectPool::builder(String::new).keep_idle(4).build()?;
    /// pool.trim();
    /// pool.trim();
    /// assert_eq!((pool.stats().prefilled, pool.stats().idle), (4, 4));
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn keep_idle(mut self, objects: usize) -> Self {
        self.keep_idle = objects;
        self
    }

    /// Sets the interval of [trims](ObjectPool::trim) by time, or `None` for none.
    ///
    /// Default: 10 seconds. A shorter interval than a millisecond counts as a millisecond.
    ///
    /// An idle object that no get takes is dropped after one to two intervals, or later if there are many.
    /// Gets that leave the fast path do the work, and one in 1024 drops of each thread, in pieces of at most 64
    /// objects. So a program that rests drops nothing, unless [`background_trim`](Self::background_trim) is on.
    ///
    /// ```
    /// use tierpool::ObjectPool;
    ///
    /// let pool = ObjectPool::builder(String::new).trim_interval(None).build()?;
    /// drop(pool.get());
    /// assert_eq!(pool.stats().idle, 1); // until `trim`, `clear`, or the last handle's drop
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn trim_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.trim_interval = interval.into();
        self
    }

    /// Sets whether a thread of the crate trims the pool, at the [interval](Self::trim_interval).
    ///
    /// Default: `false`.
    ///
    /// With `true`, objects are dropped also while the program rests, and gets and drops do no part of a
    /// trim by time. The thread runs the `Drop` of these objects. One thread serves all pools of the process,
    /// of objects and of bytes: see [`Builder::background_trim`](crate::Builder::background_trim).
    ///
    /// ```
    /// use std::time::Duration;
    /// use tierpool::ObjectPool;
    ///
    /// let options = ObjectPool::builder(String::new).trim_interval(Duration::from_millis(20));
    /// let pool = options.background_trim(true).build()?;
    /// drop(pool.get());
    /// while pool.stats().trimmed == 0 {
    ///     std::thread::sleep(Duration::from_millis(5));
    /// }
    /// assert_eq!(pool.stats().idle, 0);
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn background_trim(mut self, on: bool) -> Self {
        self.background_trim = on;
        self
    }

    /// Checks the options and makes the pool.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the option, its value, the limit and the remedy:
    ///
    /// - [`keep_idle`](Self::keep_idle) is above [`max_idle`](Self::max_idle), or the heap has no room for a list
    ///   of its objects.
    /// - [`trim_interval`](Self::trim_interval) is 0.
    /// - [`background_trim`](Self::background_trim) is on without an interval, or its thread cannot be started.
    ///
    /// # Panics
    ///
    /// - If `init` panics while it makes an object of [`keep_idle`](Self::keep_idle).
    ///
    /// ```
    /// use tierpool::ObjectPool;
    ///
    /// let error = ObjectPool::builder(String::new).max_idle(2).keep_idle(4).build().unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "keep_idle (4) is above max_idle (2): no more objects are kept; raise max_idle to 4 or more, \
    ///      or keep fewer idle"
    /// );
    /// ```
    pub fn build(self) -> Result<ObjectPool<T>, ConfigError> {
        ObjectPool::from_config(self.check()?, BACKGROUND_TRIM)
    }

    fn check(self) -> Result<Config<T>, ConfigError> {
        let max_idle = self
            .max_idle
            .unwrap_or(MAX_IDLE_DEFAULT.max(self.keep_idle));
        if self.keep_idle > max_idle {
            return Err(ConfigError::KeepIdleAboveMaxIdle {
                keep_idle: self.keep_idle,
                max_idle,
            });
        }
        if self.trim_interval.is_some_and(|set| set.is_zero()) {
            let field = "trim_interval";
            return Err(ConfigError::ZeroInterval { field });
        }
        if self.background_trim && self.trim_interval.is_none() {
            let field = BACKGROUND_TRIM;
            return Err(ConfigError::BackgroundWithoutInterval { field });
        }
        let interval = self.trim_interval.map(|set| set.max(INTERVAL_LEAST));
        let (in_background, by_calls) = match self.background_trim {
            true => (interval, None),
            false => (None, interval),
        };
        // An object weighs 1. So the limit on the weight of all is the bound, and neither the class
        // nor a thread needs one.
        let class = ClassLimits {
            items: UNLIMITED,
            cache_rounds: CACHE_ROUNDS,
            magazine_rounds: CACHE_ROUNDS / 2,
            weight: 1,
            keep_idle: self.keep_idle,
        };
        Ok(Config {
            functions: self.functions,
            limits: Limits {
                classes: [class].into(),
                weight: max_idle,
                thread_weight: UNLIMITED,
                trim_interval: by_calls,
                piece_weight: UNLIMITED,
            },
            background: in_background,
        })
    }
}

impl<T: Send + 'static> ObjectPool<T> {
    /// Makes a pool with the default options, whose objects `init` makes.
    ///
    /// It keeps at most 1024 idle objects, and trims itself every 10 seconds, in gets and drops.
    /// [`builder`](Self::builder) changes these.
    ///
    /// ```
    /// use tierpool::ObjectPool;
    ///
    /// let pool = ObjectPool::new(|| vec![0_u8; 100]);
    /// assert_eq!(pool.get().len(), 100);
    /// ```
    #[must_use]
    pub fn new(init: impl Fn() -> T + Send + Sync + 'static) -> Self {
        let pool = Self::builder(init).build();
        pool.expect("the defaults are valid, and start no thread")
    }

    /// Returns the default options, to change some of them before the pool is made. `init` makes an
    /// object for a get that misses.
    ///
    /// ```
    /// use tierpool::ObjectPool;
    ///
    /// let pool = ObjectPool::builder(|| String::with_capacity(100)).max_idle(10).build()?;
    /// assert!(pool.get().capacity() >= 100);
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn builder(init: impl Fn() -> T + Send + Sync + 'static) -> ObjectPoolBuilder<T> {
        ObjectPoolBuilder::new(init)
    }
}

impl<T: Default + Send + 'static> Default for ObjectPool<T> {
    /// The same as [`ObjectPool::new`] with `T::default`.
    fn default() -> Self {
        ObjectPool::new(T::default)
    }
}

impl<T: Send + 'static> fmt::Debug for ObjectPoolBuilder<T> {
    /// Prints the options, except the functions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectPoolBuilder")
            .field("max_idle", &self.max_idle)
            .field("keep_idle", &self.keep_idle)
            .field("trim_interval", &self.trim_interval)
            .field("background_trim", &self.background_trim)
            .finish_non_exhaustive()
    }
}
