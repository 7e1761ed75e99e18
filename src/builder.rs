//! Options, checked once, by [`Builder::build`].
//!
//! Owns the defaults. Holds no running state.

use crate::cgroup;
use crate::config::{
    self, Calibrating, Config, Hook, INTERVAL_LEAST, LeastBudget, TRIM_INTERVAL_DEFAULT,
};
use crate::engine::{Limits, UNLIMITED};
use crate::error::ConfigError;
use crate::pool::{Freed, Pool};
use crate::sizing::profile::Profile;
use crate::sizing::size_class::{CLASSES_MAX, SizeClasses};
use crate::system::CAPACITY_MAX;
use std::time::Duration;

/// 512: below this, the 104 bytes that each buffer costs beside its capacity
/// outweigh what finer classes would save.
const MIN_SIZE_DEFAULT: usize = 512;
/// 1 MiB: above this the work on the bytes outweighs getting the buffer.
const MAX_SIZE_DEFAULT: usize = 1 << 20;
/// 64 MiB: a program may leave that much idle unasked, where a container has a few hundred. Enough
/// for 64 buffers of 1 MiB, or 16,384 of 4 KiB.
const RETAIN_BYTES_DEFAULT: usize = 64 << 20;
/// 2: where one buffer of the largest class is in use, another one can be idle, or many
/// smaller ones.
const RETAIN_LARGEST_DEFAULT: usize = 2;
/// 8 MiB: a thread that uses all classes from 512 bytes to 1 MiB never reaches it.
const THREAD_CACHE_BYTES_DEFAULT: usize = 8 << 20;
/// Half: the size classes double, so a smaller one holds all contents below that.
const COMPACT_BELOW_DEFAULT: u8 = 50;
/// 42,000 returns, as in `valyala/bytebufferpool`.
const CALIBRATE_AFTER_DEFAULT: u64 = 42_000;
/// 95 of 100 returns, as in `valyala/bytebufferpool`.
const CALIBRATE_PERCENTILE_DEFAULT: f64 = 0.95;
/// 60 s: 700 returns a second of one step reach the threshold in that time. A quieter program
/// adapts after a minute with at least 1000 returns.
const CALIBRATE_INTERVAL_DEFAULT: Duration = Duration::from_secs(60);

/// The options that set the interval of trims.
const TRIM_INTERVAL: &str = "trim_interval";
pub(crate) const RELEASE_WHEN_IDLE: &str = "release_when_idle";
/// The option that asks for a thread, beside the one before.
const BACKGROUND_TRIM: &str = "background_trim";

/// Sets the options of a [`Pool`], and makes it. From [`Pool::builder`].
///
/// Each method sets one option, and the last call counts. [`build`](Self::build) checks all of them.
///
/// ```
/// use tierpool::Pool;
///
/// let pool = Pool::builder().min_size(1024).max_size(15_000).build()?;
/// assert_eq!(pool.classes(), [1024, 2048, 4096, 8192, 15_000]);
/// # Ok::<(), tierpool::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    pub(crate) min_size: Option<usize>,
    pub(crate) max_size: Option<usize>,
    pub(crate) classes: Option<Vec<usize>>,
    pub(crate) retain_bytes: Option<usize>,
    pub(crate) retain_share: Option<f64>,
    /// Sizes and counts, one pair for each call.
    pub(crate) keep_idle: Vec<(usize, usize)>,
    pub(crate) max_outstanding_bytes: Option<usize>,
    pub(crate) max_per_class: usize,
    pub(crate) thread_cache_bytes: usize,
    pub(crate) trim_interval: Option<Duration>,
    /// The option that has set it last.
    pub(crate) interval_set_by: &'static str,
    pub(crate) background_trim: bool,
    /// The option that has set it last.
    pub(crate) background_set_by: &'static str,
    pub(crate) on_trim: Option<Hook>,
    pub(crate) malloc_trim: bool,
    pub(crate) zero_on_return: bool,
    pub(crate) reuse_initialised: bool,
    pub(crate) compact_below: u8,
    pub(crate) learn_sizes: bool,
    pub(crate) calibrate_after: u64,
    pub(crate) calibrate_percentile: f64,
    pub(crate) calibrate_interval: Option<Duration>,
    pub(crate) profile: Profile,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            min_size: None,
            max_size: None,
            classes: None,
            retain_bytes: None,
            retain_share: None,
            keep_idle: Vec::new(),
            max_outstanding_bytes: None,
            max_per_class: UNLIMITED,
            thread_cache_bytes: THREAD_CACHE_BYTES_DEFAULT,
            trim_interval: Some(TRIM_INTERVAL_DEFAULT),
            interval_set_by: TRIM_INTERVAL,
            background_trim: false,
            background_set_by: BACKGROUND_TRIM,
            on_trim: None,
            malloc_trim: false,
            zero_on_return: false,
            reuse_initialised: false,
            compact_below: COMPACT_BELOW_DEFAULT,
            learn_sizes: true,
            calibrate_after: CALIBRATE_AFTER_DEFAULT,
            calibrate_percentile: CALIBRATE_PERCENTILE_DEFAULT,
            calibrate_interval: Some(CALIBRATE_INTERVAL_DEFAULT),
            profile: Profile::default(),
        }
    }
}

impl Builder {
    /// Sets the capacity of the smallest size class, in bytes.
    ///
    /// Default: 512, or `max_size` if that is set and smaller.
    ///
    /// The classes are this, twice this, four times this and so on while below
    /// [`max_size`](Self::max_size), and then `max_size` itself.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::builder().min_size(1000).max_size(4096).build()?;
    /// assert_eq!(pool.classes(), [1000, 2000, 4000, 4096]);
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn min_size(mut self, bytes: usize) -> Self {
        self.min_size = Some(bytes);
        self
    }

    /// Sets the capacity of the largest size class, in bytes.
    ///
    /// Default: 1 MiB, or `min_size` if that is set and larger.
    ///
    /// A request above it gets a plain allocation that is freed on drop. A buffer that grew above it is
    /// freed on drop, too. Below it, the pool learns which buffers to keep: see [`Pool::targets`].
    ///
    /// The default of [`retain_bytes`](Self::retain_bytes) grows with it, so that the budget always holds
    /// a buffer of the largest class.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::builder().max_size(4096).build()?;
    /// drop(pool.get(5000));
    /// assert_eq!(pool.stats().total.oversize, 1);
    /// assert_eq!(pool.stats().total.retained_buffers, 0);
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn max_size(mut self, bytes: usize) -> Self {
        self.max_size = Some(bytes);
        self
    }

    /// Sets all size classes by a list of their capacities in bytes, ascending, at most 128.
    ///
    /// It replaces [`min_size`](Self::min_size) and [`max_size`](Self::max_size): setting one of them
    /// beside the list is an error. [`SizeClasses::fit`] chooses a list for recorded requests.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::builder().classes([512, 2048, 65_536]).build()?;
    /// assert_eq!(pool.get(600).capacity(), 2048);
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn classes(mut self, capacities: impl IntoIterator<Item = usize>) -> Self {
        // One more than allowed: enough to see that there are too many, even if they never end.
        self.classes = Some(capacities.into_iter().take(CLASSES_MAX + 1).collect());
        self
    }

    /// Sets the budget: the most bytes of capacity that the pool keeps idle, in all thread caches and the
    /// depot together.
    ///
    /// Default: 64 MiB, or twice the largest size class if that is more.
    /// [`retain_share`](Self::retain_share) sets it by the memory limit of a container.
    ///
    /// The budget is never exceeded. [`Pool::set_retain_bytes`] changes it later. Buffers that are out do not count, and neither does the pool's own
    /// memory. With 0 the pool keeps nothing, and with `usize::MAX` there is no budget. Any other budget must
    /// hold one buffer of the largest size class: [`build`](Self::build) refuses a smaller one. So a small
    /// budget needs a small [`max_size`](Self::max_size), too.
    ///
    /// When the budget is full, a returned buffer is freed and counted as
    /// [`discards.full`](crate::Discards::full). A get that would miss takes an idle buffer from the cache
    /// of another thread. If the pool misses buffers that it has discarded, it trims itself. So buffers in
    /// use replace idle ones of other sizes.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::builder().max_size(4096).retain_bytes(8192).build()?;
    /// drop([pool.get(4096), pool.get(4096), pool.get(4096)]);
    /// assert_eq!(pool.stats().total.retained_bytes, 8192);
    /// assert_eq!(pool.stats().total.discards.full, 1);
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn retain_bytes(mut self, bytes: usize) -> Self {
        self.retain_bytes = Some(bytes);
        self
    }

    /// Sets the budget to a share of the memory that the process may use.
    ///
    /// Default: none. It replaces [`retain_bytes`](Self::retain_bytes): setting both is an error.
    ///
    /// The memory is the limit of the process's control group, or the least of the groups that contain it:
    /// `memory.max`, or `memory.limit_in_bytes` of version 1. That is how Linux limits a container.
    /// [`build`](Self::build) reads it, once, from `/proc/self/cgroup` and `/sys/fs/cgroup`. The library
    /// opens no other file. [`Pool::set_retain_bytes`] follows a limit that changes later.
    ///
    /// - If there is no limit, the budget is the default of `retain_bytes`. The same holds on other systems,
    ///   and if these files cannot be read or are mounted elsewhere.
    /// - The budget is never below the largest size class, nor below what is
    ///   [kept idle](Self::keep_idle). So a program starts in a small container, too.
    ///
    /// [`Stats::budget_bytes`](crate::Stats::budget_bytes) shows the result.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) returns an error if `share` is not above 0 and at most 1.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::builder().retain_share(0.05).build()?;
    /// assert!(pool.stats().budget_bytes >= 1 << 20); // holds the largest class
    /// assert!(Pool::builder().retain_share(0.0).build().is_err());
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn retain_share(mut self, share: f64) -> Self {
        self.retain_share = Some(share);
        self
    }

    /// Keeps `count` idle buffers for requests of `size` bytes, however long no get takes them.
    ///
    /// Default: none.
    ///
    /// [`build`](Self::build) makes them. They are in the depot, where any thread gets them. They are of
    /// the smallest size class that holds `size`. Each call adds to those before it, and calls for the same
    /// class add up.
    ///
    /// No [trim](Pool::trim) frees them: it leaves that many idle buffers of the class. [`Pool::clear`] and
    /// the drop of the last handle free them. After a `clear`, the first buffers that come back take their
    /// place.
    ///
    /// Their capacity is a part of the [budget](Self::retain_bytes), so set a budget that leaves room for
    /// other classes. No room is reserved for one that is out: it is freed if the budget is full when it
    /// comes back. A [calibration](Pool::targets) never finds their class too large to keep.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) returns an error that names the remedy. The conditions are:
    ///
    /// - `size` is above the largest size class.
    /// - The counts of a class are above [`max_per_class`](Self::max_per_class).
    /// - The capacity of all of them is above [`retain_bytes`](Self::retain_bytes).
    /// - The heap has no room for them.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::builder().keep_idle(16_384, 100).keep_idle(4096, 10).build()?;
    /// assert_eq!(pool.stats().total.retained_buffers, 110);
    /// let held: Vec<_> = (0..100).map(|_| pool.get(16_384)).collect();
    /// assert_eq!((held.len(), pool.stats().total.misses), (100, 0));
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn keep_idle(mut self, size: usize, count: usize) -> Self {
        self.keep_idle.push((size, count));
        self
    }

    /// Limits the bytes of capacity that are outstanding: in guards, frozen bytes and parts.
    ///
    /// Default: no limit. Needs the feature `limit`.
    ///
    /// | call | where the limit is reached |
    /// |---|---|
    /// | [`try_get`](Pool::try_get), [`try_reserve`](crate::PooledBuf::try_reserve) | returns [`GetError::Exhausted`](crate::GetError::Exhausted) |
    /// | [`get_timeout`](Pool::get_timeout) | blocks the thread until there is room |
    /// | [`get_async`](Pool::get_async) | waits until there is room, under any runtime |
    /// | [`get`](Pool::get) and the like, `adopt`, growth | **exceeds the limit** |
    ///
    /// `get` never blocks, so no thread can wait for a buffer that it holds itself. What it exceeds the
    /// limit by is a debt: no one who waits gets a buffer before it is paid by buffers that come home. (What
    /// a cancelled wait had collected goes to the next one first, though.)
    ///
    /// Those who wait are served in the order in which they came. A small request does not overtake a
    /// large one. A buffer counts by its capacity, so a request counts as its size class. It counts until
    /// its memory is idle, freed or [detached](crate::PooledBuf::detach).
    ///
    /// A task that waits for a second buffer while it holds one may wait for ever, if all others do the
    /// same. Take the second one with `get`, or take one that is large enough. See
    /// [`guide::limits`](crate::guide::limits).
    ///
    /// # Cost
    ///
    /// A get and its drop take 55 ns instead of 3, and 120 with `get_async`. They do not take the fast path, and
    /// they write counts that all threads share: two threads that do nothing else take 700 ns. Above 4 GiB,
    /// the limit counts in steps of 64 bytes.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) refuses a limit below the smallest size class.
    ///
    /// ```
    /// use tierpool::{GetError, Pool};
    ///
    /// let pool = Pool::builder().max_outstanding_bytes(8192).build()?;
    /// let _one = pool.try_get(4096)?;
    /// let mut two = pool.try_get(4096)?;
    /// two.extend_from_slice(b"message");
    /// let part = two.split_to(1);
    /// drop(two); // but its memory is not home
    /// let refused = pool.try_get(1).unwrap_err();
    /// assert!(matches!(refused, GetError::Exhausted { outstanding: 8192, .. }));
    /// drop(part);
    /// assert!(pool.try_get(1).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "limit")]
    #[cfg_attr(docsrs, doc(cfg(feature = "limit")))]
    pub fn max_outstanding_bytes(mut self, bytes: usize) -> Self {
        self.max_outstanding_bytes = Some(bytes);
        self
    }

    /// Sets the most idle buffers of one size class that the pool keeps, on all levels together.
    ///
    /// Default: as many as the budget holds. With 0 the pool keeps nothing.
    ///
    /// It is never exceeded. When it is reached, a get takes idle buffers from the caches of other threads,
    /// as with [`retain_bytes`](Self::retain_bytes).
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::builder().max_per_class(2).build()?;
    /// drop([pool.get(512), pool.get(512), pool.get(512)]);
    /// assert_eq!(pool.stats().total.retained_buffers, 2);
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn max_per_class(mut self, buffers: usize) -> Self {
        self.max_per_class = buffers;
        self
    }

    /// Sets the most bytes of capacity that one thread's cache keeps, all size classes together.
    ///
    /// Default: 8 MiB.
    ///
    /// Buffers beyond it go to the depot. A class whose capacity is above it is kept in the depot only,
    /// where each get and drop costs an exchange.
    ///
    /// In any case, a thread's cache holds at most 64 buffers or 512 KiB of one size class. Of larger
    /// buffers it holds two of up to 2 MiB each, or one above that.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::builder().thread_cache_bytes(0).build()?;
    /// drop(pool.get(512));
    /// drop(pool.get(512));
    /// assert_eq!((pool.stats().total.local_hits, pool.stats().total.depot_hits), (0, 1));
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn thread_cache_bytes(mut self, bytes: usize) -> Self {
        self.thread_cache_bytes = bytes;
        self
    }

    /// Sets the interval of [trims](Pool::trim) by time, or `None` for none.
    ///
    /// Default: 10 seconds. A shorter interval than a millisecond counts as a millisecond.
    ///
    /// An idle buffer that no one needs is freed after one to two intervals, or later if there are many.
    ///
    /// Gets and drops that leave the fast path do the work, in small pieces that wait for no other thread.
    /// Each piece frees at most 512 KiB and at most 64 buffers, or 16 of 8 KiB or more. A thread that finds
    /// all buffers in its cache leaves the fast path about once in 64 returns, and looks at the clock at
    /// each fourth of these. So a program that makes no calls keeps its idle buffers. To free them then, set
    /// [`release_when_idle`](Self::release_when_idle) or [`background_trim`](Self::background_trim).
    ///
    /// On a system without a clock, no interval ever passes.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tierpool::{ConfigError, Pool};
    ///
    /// let pool = Pool::builder().trim_interval(Duration::from_secs(1)).build()?;
    /// let never = Pool::builder().trim_interval(None).build()?;
    /// let zero = Pool::builder().trim_interval(Duration::ZERO).build();
    /// assert!(matches!(zero, Err(ConfigError::ZeroInterval { .. })));
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn trim_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.trim_interval = interval.into();
        self.interval_set_by = TRIM_INTERVAL;
        self
    }

    /// Gives memory that was not needed for the time `idle` back to the system, whatever the program does.
    ///
    /// Default: off.
    ///
    /// The program may be busy, quiet or blocked. Memory goes back between `idle` and twice `idle` after its
    /// last use, or earlier if the [budget](Self::retain_bytes) is short.
    ///
    /// This is shorthand for [`trim_interval(idle)`](Self::trim_interval),
    /// [`background_trim(true)`](Self::background_trim) and [`malloc_trim(true)`](Self::malloc_trim). The
    /// last call of each option counts.
    ///
    /// On Linux and Windows it works with any heap for buffers of 8 KiB or more: their whole pages go back
    /// to the system before the heap gets the buffer. With glibc's heap, the rest goes back, too. With another
    /// heap, smaller buffers and partial pages stay with the heap, and [`on_trim`](Self::on_trim) lets you
    /// ask that heap for them. On other systems, the heap decides.
    ///
    /// # Cost
    ///
    /// It takes one thread for all such pools of the process. A freed buffer of 8 to 64 KiB costs 2 to 8 us,
    /// a larger one more, and page faults follow when the heap hands its memory out again. A program that
    /// takes more than the budget, drops all of it and does so again pays that each time: ten times as long
    /// for a buffer of 64 KiB. Set a larger budget for such a program.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) returns an error
    ///
    /// - if `idle` is 0;
    /// - if the system cannot start a thread;
    /// - if [`trim_interval(None)`](Self::trim_interval) was called afterwards.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::builder().release_when_idle(Duration::from_millis(20)).build()?;
    /// drop(pool.get(4096));
    /// while pool.stats().total.trimmed == 0 {
    ///     std::thread::sleep(Duration::from_millis(5)); // 20 to 40 ms in all
    /// }
    /// assert_eq!(pool.stats().total.retained_bytes, 0);
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn release_when_idle(mut self, idle: Duration) -> Self {
        self.trim_interval = Some(idle);
        self.interval_set_by = RELEASE_WHEN_IDLE;
        self.background_trim = true;
        self.background_set_by = RELEASE_WHEN_IDLE;
        self.malloc_trim = true;
        self
    }

    /// Sets whether a thread trims the pool at each [interval](Self::trim_interval).
    ///
    /// Default: `false`.
    ///
    /// With `true`, a quiet program gives its memory back, too, and gets and drops do no part of a trim by
    /// time. If more than 512 KiB of one size class find no room in the pool in a row, the pages of the
    /// next go back to the system. (Without the thread that takes 16 MiB or more.) The drop of the last
    /// handle gives the pages of all idle buffers back.
    ///
    /// # The thread
    ///
    /// One thread serves all pools of the process. It is named `tierpool-trim`, starts with the first such
    /// pool, and ends when the last one has lost its last handle. It keeps no pool alive. It trims the pools
    /// that are due one after the other, so a pool waits while the thread trims another one or runs an
    /// [`on_trim`](Self::on_trim) hook.
    ///
    /// The thread has the priority and the processors (affinity) of the thread that builds the first such
    /// pool. If these are special, build a pool on another thread first. On Unix it blocks all signals
    /// from its first instruction on, so the program's own threads receive them. The thread that calls
    /// `build` has the same signal mask before and after.
    ///
    /// A child process that was forked and goes on without `exec` has no such thread until it builds
    /// another such pool. See [`Pool`](Pool#after-fork) for what it may use.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) returns
    ///
    /// - [`ConfigError::Background`] if the system cannot start the thread;
    /// - [`ConfigError::BackgroundWithoutInterval`] if `trim_interval` is `None`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tierpool::Pool;
    ///
    /// let options = Pool::builder().trim_interval(Duration::from_millis(20));
    /// let pool = options.background_trim(true).build()?;
    /// drop(pool.get(4096));
    /// while pool.stats().total.trimmed == 0 {
    ///     std::thread::sleep(Duration::from_millis(5));
    /// }
    /// assert_eq!(pool.stats().total.retained_bytes, 0);
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn background_trim(mut self, on: bool) -> Self {
        self.background_trim = on;
        self.background_set_by = BACKGROUND_TRIM;
        self
    }

    /// Sets whether glibc's heap is asked to give free pages back to the system after a trim or a clear.
    ///
    /// Default: `false`, or `true` with [`release_when_idle`](Self::release_when_idle).
    ///
    /// The pool gives the whole pages of a buffer back by itself. This option adds the partial pages, the
    /// small buffers, and what the program's other code has freed. It does nothing on systems without glibc
    /// or with another allocator: [`on_trim`](Self::on_trim) is for these.
    ///
    /// The function `malloc_trim` is called after [`Pool::trim`], [`Pool::clear`], the trims of
    /// [`background_trim`](Self::background_trim) and the drop of the last handle. Trims by gets and drops
    /// do not call it. It is called once 1 MiB or more has left the pools with this option since the last
    /// call, by any way and all together.
    ///
    /// # Cost
    ///
    /// The function looks through the whole heap. Other threads' allocations may wait for it.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::builder().malloc_trim(true).build()?;
    /// drop(pool.get(1 << 20));
    /// assert_eq!(pool.clear().bytes, 1 << 20); // 1 MiB is enough for a call
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn malloc_trim(mut self, on: bool) -> Self {
        self.malloc_trim = on;
        self
    }

    /// Sets a function that is called after a trim or a clear that freed something.
    ///
    /// Default: none. The function receives what was freed.
    ///
    /// It is for a program that knows its heap better than the pool does, and asks it for the partial pages:
    /// by `mi_collect`, jemalloc's `arena.4096.purge`, or `malloc_trim`.
    ///
    /// The thread that called [`Pool::trim`] or [`Pool::clear`] calls it, and so does the thread of
    /// [`background_trim`](Self::background_trim). Trims by gets and drops do not call it, since it may
    /// take milliseconds. Neither do returned buffers that find no room, nor the drop of the last handle. It
    /// is called outside all locks when the trim is over, so it may use the pool. A trim or a clear in it
    /// calls it again if that frees something.
    ///
    /// A function that owns a handle to its own pool keeps that pool for ever.
    ///
    /// # Panics
    ///
    /// - If the function panics, the call of `trim` or `clear` panics, and nothing is lost. In the
    ///   background thread the panic ends there: the program's panic hook reports it, all pools are trimmed
    ///   as before, and the function is called again after the next trim.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    /// use tierpool::Pool;
    ///
    /// static FREED: AtomicUsize = AtomicUsize::new(0);
    ///
    /// let pool = Pool::builder()
    ///     .on_trim(|freed| {
    ///         // Here a program with mimalloc calls `mi_collect(true)`.
    ///         FREED.fetch_add(freed.bytes, Ordering::Relaxed);
    ///     })
    ///     .build()?;
    /// drop(pool.get(4096));
    /// pool.clear();
    /// assert_eq!(FREED.load(Ordering::Relaxed), 4096);
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn on_trim(mut self, hook: impl Fn(Freed) + Send + Sync + 'static) -> Self {
        self.on_trim = Some(Hook::new(move |freed| hook(Freed::new(freed))));
        self
    }

    /// Sets whether a buffer is overwritten with zeros before anyone else can get it, and before it is freed.
    ///
    /// Default: `false`.
    ///
    /// The pool never shows what a buffer held before, wiped or not, except with
    /// [`reuse_initialised`](Self::reuse_initialised). Wiping is for programs that do not want a secret to
    /// stay in memory.
    ///
    /// If a buffer comes home whole, only the bytes written through the guard's own methods and traits are
    /// wiped. The pool cannot see writes through [`DerefMut`](std::ops::DerefMut),
    /// [`spare_capacity_mut`](crate::PooledBuf::spare_capacity_mut) and
    /// [`chunk_mut`](bytes::BufMut::chunk_mut) (which `read_buf` of an asynchronous reader uses), nor those
    /// to the room of [`fill_with`](crate::PooledBuf::fill_with). A buffer that was lent in one of these
    /// ways is wiped over its whole allocation. So is one that was adopted or has grown. A buffer that
    /// [`PooledBytes`](crate::PooledBytes) share is wiped when the last of them is gone.
    ///
    /// # What is not wiped
    ///
    /// - A buffer that is [detached](crate::PooledBuf::detach).
    /// - A `BytesMut` that was split off behind `DerefMut` and is still in use when the buffer comes back.
    ///   Then the bytes that the guard was advanced over, and parts that were dropped before, are not wiped
    ///   either: the pool cannot tell them from the one in use. All that the guard holds is wiped.
    /// - A buffer that `BytesMut` itself frees behind `DerefMut`: when it grows there, or when another one
    ///   is assigned to it.
    ///
    /// # Cost
    ///
    /// Each return writes the bytes that were used, and leaves the fast path.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::builder().zero_on_return(true).build()?;
    /// pool.get(512).extend_from_slice(b"secret");
    /// // The drop has wiped these 6 bytes, and kept the buffer.
    /// assert_eq!(pool.stats().total.retained_buffers, 1);
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn zero_on_return(mut self, zero: bool) -> Self {
        self.zero_on_return = zero;
        self
    }

    /// Sets whether the rooms of [`PooledBuf::fill_with`](crate::PooledBuf::fill_with) may hold what was
    /// written there before.
    ///
    /// Default: `false`, and the rooms are zero.
    ///
    /// **With `true`, code that fills a room can read what the pool's other users wrote there.** Use it for
    /// a pool whose users may see each other's bytes. Then memory is zeroed once and handed out as it is, so
    /// a room of 64 KiB costs nothing. (It is zeroed again if it was lent since, as spare room or as a
    /// `BytesMut`.) Rooms of [`read_from`](crate::PooledBuf::read_from) follow this option, too.
    ///
    /// With [`zero_on_return`](Self::zero_on_return), rooms are zero in either case.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::builder().reuse_initialised(true).build()?;
    /// for read in 0..10 {
    ///     // Zeroes 64 KiB at the first time, and nothing later.
    ///     let mut buf = pool.get(64 << 10);
    ///     buf.fill_with(64 << 10, |room| {
    ///         room[0] = read;
    ///         Ok(1)
    ///     })?;
    ///     assert_eq!(buf[..], [read]);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reuse_initialised(mut self, on: bool) -> Self {
        self.reuse_initialised = on;
        self
    }

    /// Sets the share of the capacity, in percent, below which
    /// [`PooledBuf::freeze_compact`](crate::PooledBuf::freeze_compact) moves contents to a smaller buffer.
    ///
    /// Default: 50. With 0 it moves none, and with 100 all that a smaller size class holds.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) returns an error if `percent` is above 100.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::builder().compact_below(10).build()?;
    /// let mut buf = pool.get(4096);
    /// buf.extend_from_slice(&[7; 1000]); // 24 percent
    /// let _frozen = buf.freeze_compact();
    /// assert_eq!(pool.stats().total.outstanding_bytes, 4096); // not moved
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn compact_below(mut self, percent: u8) -> Self {
        self.compact_below = percent;
        self
    }

    /// Sets whether the pool learns which sizes to [hand out](Pool::get_default), to grow to, and to keep.
    ///
    /// Default: `true`.
    ///
    /// With `false`, its [targets](Pool::targets) stay as they are: those of a [profile](Self::profile), those
    /// of a call of [`Pool::recalibrate`], or none. Without any, all buffers that come back are kept, up to
    /// the largest size class.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::builder().learn_sizes(false).calibrate_after(0).build()?;
    /// pool.get(100).extend_from_slice(&[1; 100]);
    /// assert_eq!(pool.targets().default_size, 4096); // as at first
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn learn_sizes(mut self, on: bool) -> Self {
        self.learn_sizes = on;
        self
    }

    /// Sets the number of returns after which the pool calibrates: it does so when one step of its histogram
    /// has more than `calls`.
    ///
    /// Default: 42,000. With 0, the pool calibrates at each report of a thread.
    ///
    /// Each thread records its first returns of a size class, and later about one in 64, at random. That one
    /// counts for those before it. A thread reports to the pool after a sixteenth of `calls`, or after 4096
    /// returns. So a calibration may come that much later for each thread, and some 100 returns later for
    /// each size class. It comes earlier if sizes rise: see [`Pool::targets`].
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::builder().calibrate_after(1000).build()?;
    /// for _ in 0..1200 {
    ///     pool.get(700).extend_from_slice(&[1; 700]);
    /// }
    /// assert_eq!(pool.targets().default_size, 1024);
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn calibrate_after(mut self, calls: u64) -> Self {
        self.calibrate_after = calls;
        self
    }

    /// Sets the share of the returns that the target `max_size` is to hold, from 0 to 1.
    ///
    /// Default: 0.95.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) returns an error if it is not a number from 0 to 1.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::builder().calibrate_percentile(1.0).build()?;
    /// for len in [100, 100, 100, 5000] {
    ///     drop(pool.copy_from_slice(&vec![1; len]));
    /// }
    /// assert_eq!(pool.recalibrate().max_size, 8192); // holds all that came back
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn calibrate_percentile(mut self, percentile: f64) -> Self {
        self.calibrate_percentile = percentile;
        self
    }

    /// Sets the time after which the pool calibrates if the returns were too few for
    /// [`calibrate_after`](Self::calibrate_after), or `None` for never.
    ///
    /// Default: 60 seconds. A shorter time than a millisecond counts as a millisecond.
    ///
    /// With fewer than 1000 returns, the pool waits for another interval and goes on counting. As with
    /// [trims by time](Self::trim_interval), a drop that leaves the fast path does the work, or the thread of
    /// [`background_trim`](Self::background_trim) after a trim.
    ///
    /// ```
    /// use tierpool::{ConfigError, Pool};
    ///
    /// let pool = Pool::builder().calibrate_interval(None).build()?;
    /// let zero = Pool::builder().calibrate_interval(std::time::Duration::ZERO).build();
    /// assert!(matches!(zero, Err(ConfigError::ZeroInterval { .. })));
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn calibrate_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.calibrate_interval = interval.into();
        self
    }

    /// Sets the profile to begin with, which another pool has [learned](Pool::profile).
    ///
    /// Default: one that has learned nothing.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let before = Pool::new();
    /// before.get(100).extend_from_slice(b"learned");
    /// before.recalibrate();
    /// let pool = Pool::builder().profile(before.profile()).build()?;
    /// assert_eq!(pool.targets(), before.targets());
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// Checks the options and makes the pool.
    ///
    /// Allocates no buffer except those of [`keep_idle`](Self::keep_idle). Starts a thread if
    /// [`background_trim`](Self::background_trim) is set and no other pool has started it.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names the option, its value, the limit and the remedy.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let error = Pool::builder().min_size(4096).max_size(512).build().unwrap_err();
    /// assert!(error.to_string().starts_with("max_size (512 bytes) is below min_size (4 KiB)"));
    /// ```
    pub fn build(self) -> Result<Pool, ConfigError> {
        Pool::from_config(self.check()?, self.background_set_by)
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
        let mut retain_bytes = self.budget(&classes)?;
        let (field, is_default) = self.largest_comes_from();
        let mut least_budget = LeastBudget {
            largest: classes.max(),
            field,
            is_default,
            kept_idle: 0,
        };
        least_budget.check(retain_bytes)?;
        for (field, interval) in [
            (self.interval_set_by, self.trim_interval),
            ("calibrate_interval", self.calibrate_interval),
        ] {
            if interval.is_some_and(|interval| interval.is_zero()) {
                return Err(ConfigError::ZeroInterval { field });
            }
        }
        // Not as the negation: NaN is not in the range.
        if !(0.0..=1.0).contains(&self.calibrate_percentile) {
            return Err(ConfigError::Percentile {
                value: self.calibrate_percentile.to_string(),
            });
        }
        if self.compact_below > 100 {
            return Err(ConfigError::CompactBelow {
                percent: self.compact_below,
            });
        }
        if self.background_trim && self.trim_interval.is_none() {
            return Err(ConfigError::BackgroundWithoutInterval {
                field: self.background_set_by,
            });
        }
        let interval = self.trim_interval.map(|set| set.max(INTERVAL_LEAST));
        let (in_background, by_calls) = match self.background_trim {
            true => (interval, None),
            false => (None, interval),
        };
        if let Some(bytes) = self.max_outstanding_bytes {
            config::check_outstanding(bytes, &classes)?;
        }
        let keep_idle = self.idle_by_class(&classes)?;
        // A share gives way to what is kept idle: no one can know it beforehand.
        let limit = match self.retain_share {
            Some(_) => UNLIMITED,
            None => retain_bytes,
        };
        least_budget.kept_idle = self.kept_idle_bytes(&classes, &keep_idle, limit)?;
        retain_bytes = retain_bytes.max(least_budget.kept_idle);
        let kept_idle = classes.iter().filter(|class| keep_idle[class.get()] > 0);
        let kept_idle = kept_idle.collect();
        let limits = Limits {
            classes: config::class_limits(
                &classes,
                self.max_per_class,
                self.thread_cache_bytes,
                &keep_idle,
            ),
            weight: retain_bytes,
            thread_weight: self.thread_cache_bytes,
            trim_interval: by_calls,
            piece_weight: config::PIECE_BYTES,
        };
        Ok(Config {
            classes,
            limits,
            calibrating: Calibrating {
                threshold: self.learn_sizes.then_some(self.calibrate_after),
                percentile: self.calibrate_percentile,
                interval: self
                    .calibrate_interval
                    .filter(|_| self.learn_sizes)
                    .map(|set| set.max(INTERVAL_LEAST)),
                profile: self.profile.clone(),
                kept_idle,
            },
            background_trim: in_background,
            on_trim: self.on_trim.clone(),
            malloc_trim: self.malloc_trim,
            zero_on_return: self.zero_on_return,
            // A pool that wipes has zeros for each room.
            reuse_initialised: self.reuse_initialised && !self.zero_on_return,
            compact_below: self.compact_below,
            outstanding: self.max_outstanding_bytes,
            least_budget,
        })
    }

    /// The most bytes that the pool retains. A share of the limit is not yet raised to what is kept idle.
    ///
    /// # Errors
    ///
    /// - If the share is none, or is set beside `retain_bytes`.
    fn budget(&self, classes: &SizeClasses) -> Result<usize, ConfigError> {
        let by_default = || {
            let largest = classes.max().saturating_mul(RETAIN_LARGEST_DEFAULT);
            RETAIN_BYTES_DEFAULT.max(largest)
        };
        let Some(share) = self.retain_share else {
            return Ok(self.retain_bytes.unwrap_or_else(by_default));
        };
        let value = || share.to_string();
        // NaN is neither.
        if !(share > 0.0 && share <= 1.0) {
            return Err(ConfigError::Share { value: value() });
        }
        if let Some(retain_bytes) = self.retain_bytes {
            return Err(ConfigError::ShareBesideBytes {
                share: value(),
                retain_bytes,
            });
        }
        Ok(match cgroup::memory_limit() {
            Some(limit) => share_of(share, limit, classes.max()),
            None => by_default(),
        })
    }

    /// How many buffers of each class are to be kept idle.
    fn idle_by_class(&self, classes: &SizeClasses) -> Result<Vec<usize>, ConfigError> {
        let mut counts = vec![0_usize; classes.capacities().len()];
        for &(size, count) in &self.keep_idle {
            let Some(sum) = counts.get_mut(classes.for_request(size).get()) else {
                let (field, is_default) = self.largest_comes_from();
                return Err(ConfigError::KeepIdleAboveLargest {
                    size,
                    field,
                    largest: classes.max(),
                    is_default,
                });
            };
            *sum = sum.saturating_add(count);
        }
        Ok(counts)
    }

    /// The capacity of all buffers that are to be kept idle: `counts` of each class.
    fn kept_idle_bytes(
        &self,
        classes: &SizeClasses,
        counts: &[usize],
        retain_bytes: usize,
    ) -> Result<usize, ConfigError> {
        let mut bytes = 0_usize;
        for (&capacity, &count) in classes.capacities().iter().zip(counts) {
            if count > self.max_per_class {
                return Err(ConfigError::KeepIdleAbovePerClass {
                    capacity,
                    count,
                    max_per_class: self.max_per_class,
                });
            }
            bytes = bytes.saturating_add(count.saturating_mul(capacity));
        }
        if bytes > CAPACITY_MAX {
            let field = "keep_idle";
            return Err(ConfigError::TooLarge {
                field,
                value: bytes,
            });
        }
        if bytes > retain_bytes {
            return Err(ConfigError::KeepIdleAboveRetain {
                bytes,
                retain_bytes,
                is_default: self.retain_bytes.is_none(),
            });
        }
        Ok(bytes)
    }

    /// The option that sets the largest class, and whether it does so by its default.
    fn largest_comes_from(&self) -> (&'static str, bool) {
        match (&self.classes, self.max_size, self.min_size) {
            (Some(_), _, _) => ("classes", false),
            (None, Some(_), _) => ("max_size", false),
            (None, None, Some(min)) if min > MAX_SIZE_DEFAULT => ("min_size", false),
            (None, None, _) => ("max_size", true),
        }
    }
}

/// The share of a limit in bytes, and at least one buffer of the largest class.
fn share_of(share: f64, limit: u64, largest: usize) -> usize {
    // Saturates. `UNLIMITED` is above what may result: a share is a budget.
    let bytes = (limit as f64 * share) as usize;
    bytes.min(CAPACITY_MAX).max(largest)
}

impl Pool {
    /// Makes a pool with the default options, as [`Pool::default`] does.
    ///
    /// Its size classes double from 512 bytes to 1 MiB. It keeps at most 64 MiB of idle buffers, and
    /// trims itself every 10 seconds, in gets and drops. [`builder`](Self::builder) changes these.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::new();
    /// assert_eq!(pool.get(3000).capacity(), 4096);
    /// ```
    #[must_use]
    pub fn new() -> Self {
        let pool = Builder::default().build();
        pool.expect("the defaults are valid, and start no thread")
    }

    /// Returns the default options, to change some of them before the pool is made.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::builder().max_size(64 << 10).build()?;
    /// assert_eq!(pool.classes().last(), Some(&(64 << 10)));
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Default for Pool {
    /// The same as [`Pool::new`].
    fn default() -> Self {
        Pool::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_never_below_the_largest_class_and_never_without_limit() {
        const LARGEST: usize = 1 << 20;
        for (share, limit, budget) in [
            (0.05, 1 << 30, 53_687_091),
            (1.0, 1 << 30, 1 << 30),
            (0.25, 4 << 20, LARGEST),
            (0.05, 16 << 20, LARGEST),
            (f64::MIN_POSITIVE, 1 << 30, LARGEST),
            (0.5, 0, LARGEST),
            (1.0, u64::MAX, CAPACITY_MAX),
        ] {
            assert_eq!(
                share_of(share, limit, LARGEST),
                budget,
                "{share} of {limit}"
            );
        }
    }
}
