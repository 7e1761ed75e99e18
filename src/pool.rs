//! The public handle. Knows no magazines and no atomics.

use crate::buf::PooledBuf;
use crate::config::Config;
use crate::engine;
use crate::error::{ConfigError, GetError, SpawnError};
use crate::inner::Inner;
use crate::sizing::profile::Profile;
use crate::sizing::targets::Targets;
use crate::stats::Stats;
use crate::units::{self, Rounded};
use bytes::BytesMut;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

/// A pool of byte buffers in size classes, shared by all threads.
///
/// Clones are handles to the same pool. [`Pool::new`] has the default options, and
/// [`Pool::builder`] changes them. [`get`](Self::get) takes a buffer, and its drop gives it back.
///
/// ```
/// use tierpool::Pool;
///
/// let pool = Pool::new();
/// let mut buf = pool.get(3000); // empty, with room for 4096 bytes
/// buf.extend_from_slice(b"hello");
/// std::thread::spawn(move || drop(buf)).join().unwrap(); // on any thread
/// assert_eq!(pool.stats().total.retained_buffers, 1);
/// ```
///
/// # The last handle
///
/// The drop of the last handle frees all idle buffers, in the caches of all threads. Buffers that are
/// still out stay valid. Each is freed when it is dropped.
///
/// That drop waits for a trim that is running, and for a thread that is inside a get or a drop of
/// this pool. The second takes some nanoseconds, or until that thread runs again if the system has
/// stopped it there. On Linux the drop uses the system call `membarrier`. If a sandbox forbids that
/// call after the process has made its first pool, the buffers in thread caches are leaked.
///
/// # When the heap has no memory
///
/// [`try_get`](Self::try_get) and [`try_reserve`](PooledBuf::try_reserve) return an error. The other
/// calls behave as follows:
///
/// - [`trim`](Self::trim), [`clear`](Self::clear), and the clone or drop of a handle take no memory.
/// - A guard's drop, a calibration and the end of a thread can do without memory. A buffer is freed if
///   the queues of the pool cannot grow for it. A buffer that was adopted, or that grew on the heap,
///   needs a few words for the check whether it is whole. The pool first asks the heap whether it has
///   these words, and frees the buffer if not. If another thread takes the last words in between, the
///   process ends.
/// - These end the process, as `Vec` does: [`get`](Self::get), [`get_zeroed`](Self::get_zeroed),
///   [`copy_from_slice`](Self::copy_from_slice), [`adopt`](Self::adopt), [`prefill`](Self::prefill),
///   [`stats`](Self::stats), [`profile`](Self::profile), a conversion to `Bytes`, and making a pool.
///   ([Buffers that are kept idle](crate::Builder::keep_idle) are an exception:
///   [`build`](crate::Builder::build) returns an error.)
/// - A guard ends the process where it grows or moves its contents: in `split_off`, `shrink_to_fit`,
///   `freeze_compact` and `clone`, and where it is lent as a `BytesMut` or detached while
///   [parts](PooledBuf#parts) are out.
/// - A thread that first uses any pool has the system note what to do at its end. That takes a few
///   words, and ends the process if there are none.
///
/// # After `fork`
///
/// A child process that goes on without `exec` has copies of all pools. It may use them if no other
/// thread was inside a call of any pool at the fork. Otherwise their locks may be taken for ever: the
/// child may read guards, but must use no pool, drop no guard, and end with `_exit`.
pub struct Pool {
    shared: Arc<Inner>,
}

impl Pool {
    /// Makes a pool. `background_set_by` is the option that asks for a thread, if one does.
    ///
    /// # Errors
    ///
    /// - If the heap has no room for the buffers that are to be kept idle.
    /// - If a thread is to trim, and cannot be started.
    pub(crate) fn from_config(
        config: Config,
        background_set_by: &'static str,
    ) -> Result<Self, ConfigError> {
        // A handle from here on: dropped after an error, it frees the buffers made so far.
        let pool = Pool {
            shared: Inner::new(config),
        };
        pool.shared.stock_kept_idle()?;
        let started = pool.shared.trim_in_background();
        started.map_err(|error| ConfigError::Background {
            field: background_set_by,
            error: SpawnError::new(error),
        })?;
        Ok(pool)
    }

    #[cfg(any(feature = "limit", feature = "tokio"))]
    pub(crate) fn shared(&self) -> &Arc<Inner> {
        &self.shared
    }

    /// Takes an empty buffer with room for at least `size` bytes.
    ///
    /// The buffer is of the smallest size class that holds `size`, so `get(0)` is of the smallest class.
    /// Its capacity is that of the class, or more if it was [adopted](Self::adopt) or has grown on the
    /// heap. Above the largest class, it is a plain allocation of `size` bytes, which is freed on drop.
    ///
    /// Which idle buffer you get is not promised.
    ///
    /// # Cost
    ///
    /// A hit in the thread's cache takes no lock, does no atomic read-modify-write and allocates
    /// nothing. There is one exception: a buffer's first hit after a trim leaves the fast path. A hit
    /// in the depot takes one exchange for up to 32 buffers. A miss allocates.
    ///
    /// # Panics
    ///
    /// - If `size` is above `isize::MAX`.
    ///
    /// If the heap has no memory, the process ends, as with `Vec`. [`try_get`](Self::try_get) returns an
    /// error in both cases.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::new();
    /// let buf = pool.get(3000);
    /// assert_eq!((buf.len(), buf.capacity()), (0, 4096));
    /// drop(buf);
    /// assert_eq!(pool.get(4000).capacity(), 4096); // the same buffer again
    /// assert_eq!(pool.stats().total.local_hits, 1);
    /// ```
    #[must_use = "the buffer goes back at once unless you keep it"]
    #[inline]
    pub fn get(&self, size: usize) -> PooledBuf {
        PooledBuf::acquire(&self.shared, size)
    }

    /// Takes a buffer as [`get`](Self::get) does, or returns an error.
    ///
    /// If the heap refuses the buffer, the pool frees all its idle buffers, as [`clear`](Self::clear)
    /// does, and asks the heap once more. It keeps them if the refused buffer is larger than 16 times
    /// their bytes, since that could hardly help. While it does not help, the pool frees them less and
    /// less often. So a size from outside that no heap can serve leaves the pool as it is.
    ///
    /// A call that fails counts nothing in [`Stats`], except the buffers that it freed. It never fails
    /// for the pool's own memory: a thread goes without caches if there is no memory for them, and a
    /// buffer that comes back is freed if the pool's queues cannot grow.
    ///
    /// # Cost
    ///
    /// A hit costs the same as in `get`. A miss costs more, since the heap is asked for zeroed memory. Fresh
    /// pages are zero already. Other memory is overwritten.
    ///
    /// # Errors
    ///
    /// - [`GetError::TooLarge`] if `size` is above `isize::MAX`.
    /// - [`GetError::OutOfMemory`] if the heap refuses.
    ///
    /// ```
    /// use tierpool::{GetError, Pool};
    ///
    /// let pool = Pool::new();
    /// assert_eq!(pool.try_get(3000)?.capacity(), 4096);
    /// let refused = pool.try_get(usize::MAX).unwrap_err();
    /// assert!(matches!(refused, GetError::TooLarge { size: usize::MAX, .. }));
    /// # Ok::<(), GetError>(())
    /// ```
    #[inline]
    pub fn try_get(&self, size: usize) -> Result<PooledBuf, GetError> {
        PooledBuf::try_acquire(&self.shared, size)
    }

    /// Takes a buffer whose contents are `size` zeros.
    ///
    /// The result is that of [`get`](Self::get) and [`resize`](PooledBuf::resize).
    ///
    /// # Cost
    ///
    /// Writes only zeros that are not known to be there. Memory that comes fresh from the system is
    /// zero, so nothing is written to it.
    ///
    /// # Panics
    ///
    /// - If `size` is above `isize::MAX`.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::new();
    /// drop(pool.get_zeroed(100));
    /// pool.get(100).extend_from_slice(b"secret");
    /// assert_eq!(pool.get_zeroed(100)[..], [0; 100]);
    /// ```
    #[must_use = "the buffer goes back at once unless you keep it"]
    pub fn get_zeroed(&self, size: usize) -> PooledBuf {
        PooledBuf::acquire_zeroed(&self.shared, size)
    }

    /// Takes a buffer whose contents are a copy of `bytes`.
    ///
    /// The same as [`get`](Self::get) with their length, and
    /// [`extend_from_slice`](PooledBuf::extend_from_slice).
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::default();
    /// let buf = pool.copy_from_slice(b"hello");
    /// assert_eq!((&buf[..], buf.capacity()), (&b"hello"[..], 512));
    /// ```
    #[must_use = "the buffer goes back at once unless you keep it"]
    pub fn copy_from_slice(&self, bytes: &[u8]) -> PooledBuf {
        let mut buf = self.get(bytes.len());
        buf.extend_from_slice(bytes);
        buf
    }

    /// Takes an empty buffer of the size that came back most often lately.
    ///
    /// The same as [`get`](Self::get) with the `default_size` of the [targets](Self::targets). Before
    /// the first calibration that is 4096 bytes, or the largest size class if that is smaller. It is above
    /// the largest class if most of the buffers that come back are.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// assert_eq!(Pool::new().get_default().capacity(), 4096);
    /// ```
    #[must_use = "the buffer goes back at once unless you keep it"]
    #[inline]
    pub fn get_default(&self) -> PooledBuf {
        self.get(self.shared.default_size())
    }

    /// Takes in a buffer that the pool did not make, with its contents.
    ///
    /// On drop, it joins the largest size class that its capacity fills, if the budget has room. It is
    /// freed in three cases: its capacity is below the smallest class, it is above what the pool
    /// [keeps](Self::targets), or a part that was split off it is still in use.
    ///
    /// The guard takes a small allocation for the pool's notes. The contents are not copied.
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::new();
    /// drop(pool.adopt(BytesMut::with_capacity(1500)));
    /// assert_eq!(pool.get(1024).capacity(), 1500); // of the 1024-byte class
    /// ```
    pub fn adopt(&self, buf: BytesMut) -> PooledBuf {
        PooledBuf::adopt(&self.shared, buf)
    }

    /// Frees the idle buffers that no one needed since the last trim, and returns how many.
    ///
    /// Of each thread's cache and of the depot, it frees as many buffers as always lay there since the
    /// last trim. So a buffer that is used once between two trims stays, and a buffer that is not
    /// used between two trims is freed at the second. Buffers that are
    /// [kept idle](crate::Builder::keep_idle) on purpose always stay.
    ///
    /// The last trim may have had any cause: this call, the [interval](crate::Builder::trim_interval), or
    /// a [budget](crate::Builder::retain_bytes) that was short. A trim reaches the caches of all threads,
    /// also of threads that sleep, are blocked or have ended.
    ///
    /// Buffers that are dropped on other threads than they are taken on move in magazines. Of these, up to
    /// a full thread cache and a few magazines more than needed stay.
    ///
    /// # Cost
    ///
    /// No get and no drop waits for a trim, except a [`try_get`](Self::try_get) that the heap has
    /// refused. A get whose thread's cache is being visited is served by the depot or the heap. Another
    /// trim waits for this one. Threads that the system has stopped in the middle of a get or a drop delay
    /// it by some 10 ms in all. Then their caches are left to the next trim.
    ///
    /// Do not call it from an allocator or a signal handler: it takes locks and frees memory.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::new();
    /// drop((pool.get(4096), pool.get(4096)));
    /// assert_eq!(pool.trim().buffers, 0); // both were in use since the pool was made
    /// drop(pool.get(4096));
    /// assert_eq!(pool.trim().buffers, 1); // one was enough
    /// assert_eq!(pool.trim().bytes, 4096); // and now none is needed
    /// ```
    pub fn trim(&self) -> Freed {
        Freed::new(self.shared.trim())
    }

    /// Frees all idle buffers, and returns how many.
    ///
    /// Buffers that are [kept idle](crate::Builder::keep_idle) are freed, too; the next that come back
    /// take their place. The pool goes on working, and keeps buffers that come back from now on. Call
    /// this when memory is short.
    ///
    /// It reaches the caches of all threads, holds up no get and no drop, and waits for other trims as
    /// [`trim`](Self::trim) does.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::new();
    /// drop(pool.get(4096));
    /// assert_eq!(pool.clear().bytes, 4096);
    /// assert_eq!(pool.stats().total.retained_bytes, 0);
    /// ```
    pub fn clear(&self) -> Freed {
        Freed::new(self.shared.clear())
    }

    /// Sets the [budget](crate::Builder::retain_bytes) of a running pool, and returns what it freed.
    ///
    /// Under a lower budget, idle buffers above it are freed at once: first those that no one needed since
    /// the last trim. Buffers that are out are freed when they come back, if the budget is full. With 0
    /// the pool keeps nothing from now on, and with `usize::MAX` there is no budget. Buffers that are
    /// [kept idle](crate::Builder::keep_idle) stay.
    ///
    /// The cost is that of two [trims](Self::trim). If the system has stopped a thread in the middle of a
    /// get or a drop, the next trim frees what is in its caches. A buffer that a thread is storing at this
    /// moment is freed by the next get that leaves the fast path.
    ///
    /// # Errors
    ///
    /// The budget stays as it is:
    ///
    /// - [`ConfigError::RetainBelowLargest`] if `bytes` is not 0 and below the largest size class.
    /// - [`ConfigError::KeepIdleAboveRetain`] if `bytes` is below the buffers that are kept idle.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::builder().max_size(4096).build()?;
    /// let held: Vec<_> = (0..10).map(|_| pool.get(4096)).collect();
    /// drop(held);
    /// assert_eq!(pool.set_retain_bytes(16_384)?.buffers, 6);
    /// assert_eq!(pool.stats().total.retained_bytes, 16_384);
    /// assert!(pool.set_retain_bytes(100).is_err());
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn set_retain_bytes(&self, bytes: usize) -> Result<Freed, ConfigError> {
        self.shared.set_budget(bytes).map(Freed::new)
    }

    /// Makes up to `count` idle buffers for requests of `size` bytes, and returns how many it made.
    ///
    /// It makes fewer if the [budget](crate::Builder::retain_bytes) or
    /// [`max_per_class`](crate::Builder::max_per_class) is reached. Room that thread caches have leased for
    /// buffers that are out counts as used. It makes none if `size` is above the largest class.
    ///
    /// The buffers are in the depot, where any thread gets them. The second trim from now frees those
    /// that are not used. [`Builder::keep_idle`](crate::Builder::keep_idle) makes buffers that stay.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::new();
    /// assert_eq!(pool.prefill(4096, 100), 100);
    /// drop(pool.get(4096));
    /// assert_eq!(pool.stats().total.misses, 0);
    /// ```
    pub fn prefill(&self, size: usize, count: usize) -> usize {
        self.shared.prefill(size, count)
    }

    /// Returns the sizes that the pool aims at now.
    ///
    /// The pool learns how much of its buffers programs use: the most bytes that a buffer held while it
    /// was out. It records some of the buffers that come back, drawn at random. It calibrates after
    /// [enough returns](crate::Builder::calibrate_after) or
    /// [some time](crate::Builder::calibrate_interval): the most frequent size becomes `default_size`, and
    /// the size that holds 95 % of the contents becomes `max_size`. Before the first calibration,
    /// `default_size` is 4096 bytes, or the largest class if that is smaller, and `max_size` is the largest
    /// class.
    ///
    /// The targets decide
    ///
    /// - what [`get_default`](Self::get_default) asks for;
    /// - how far a guard [grows](PooledBuf#growth);
    /// - which buffers are kept: those up to `max_size`, rounded up to a size class. A larger buffer is kept
    ///   if its class was asked for at least twice since the last calibration, by `get`, `reserve` or
    ///   `prefill`, or is [kept idle](crate::Builder::keep_idle).
    ///
    /// So a program that asks for large buffers gets them from the pool. A buffer that grew larger than
    /// the program ever asks for is freed.
    ///
    /// A target changes only if the change is clear, or if its size did not come back at all. There is no
    /// wait if sizes rise: after 256 returned buffers were freed as too large, and these are more than a
    /// tenth of all, the pool calibrates at once. Other threads may keep larger buffers in their caches
    /// until the next trim. [`guide::learned_sizes`](crate::guide::learned_sizes) has the whole.
    ///
    /// Takes a lock that no get and no drop waits for.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let targets = Pool::new().targets();
    /// assert_eq!((targets.default_size, targets.max_size), (4096, 1 << 20));
    /// ```
    #[must_use]
    pub fn targets(&self) -> Targets {
        self.shared.targets()
    }

    /// Chooses the targets now, from the returns since the last calibration, and returns them.
    ///
    /// Without a return since then, the targets stay as they are.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::new();
    /// for _ in 0..20 {
    ///     pool.get(100).extend_from_slice(&[b'x'; 100]); // 65 to 128 bytes are one step
    /// }
    /// let targets = pool.recalibrate();
    /// assert_eq!((targets.default_size, targets.max_size), (128, 128));
    /// assert_eq!(pool.get_default().capacity(), 512); // the class that holds it
    /// ```
    pub fn recalibrate(&self) -> Targets {
        self.shared.recalibrate();
        self.shared.targets()
    }

    /// Returns what the pool has learned, to pass it to [`Builder::profile`](crate::Builder::profile).
    ///
    /// Takes a lock that no get and no drop waits for.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::new();
    /// assert_eq!(pool.profile().targets(), None);
    /// pool.get(100).extend_from_slice(b"learned");
    /// pool.recalibrate();
    /// assert_eq!(pool.profile().targets(), Some(pool.targets()));
    /// ```
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.shared.profile()
    }

    /// Returns the capacities of the size classes in bytes, ascending.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::builder().min_size(1024).max_size(5000).build()?;
    /// assert_eq!(pool.classes(), [1024, 2048, 4096, 5000]);
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    #[must_use]
    pub fn classes(&self) -> &[usize] {
        self.shared.classes().capacities()
    }

    /// Counts the pool's events and its present buffers.
    ///
    /// Reads the counters of every thread. Takes no lock, and allocates the list of classes.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::new();
    /// let _buf = pool.get(4096);
    /// let total = pool.stats().total;
    /// assert_eq!((total.gets, total.misses, total.outstanding_bytes), (1, 1, 4096));
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Restarts the [peaks](crate::Peaks) at the pool's present bytes.
    ///
    /// It restarts them for all users of the pool.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::new();
    /// drop(pool.get(1 << 20));
    /// pool.clear();
    /// assert_eq!(pool.stats().peaks.footprint_bytes, 1 << 20);
    /// pool.reset_peaks();
    /// drop(pool.get(4096));
    /// assert_eq!(pool.stats().peaks.footprint_bytes, 4096);
    /// ```
    pub fn reset_peaks(&self) {
        self.shared.reset_peaks();
    }
}

/// Counts the buffers that a [`trim`](Pool::trim) or a [`clear`](Pool::clear) freed.
///
/// `Display` prints one line, with the bytes rounded.
///
/// ```
/// use tierpool::Pool;
///
/// let pool = Pool::default();
/// drop((pool.get(4096), pool.get(8192)));
/// assert_eq!(pool.clear().to_string(), "2 buffers, 12.0 KiB");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Freed {
    /// The number of buffers.
    pub buffers: usize,
    /// Their capacity in bytes, all together.
    pub bytes: usize,
}

impl fmt::Display for Freed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let buffers = units::counted(self.buffers as u64, "buffer");
        write!(f, "{buffers}, {}", Rounded(self.bytes as u64))
    }
}

impl Freed {
    pub(crate) fn new(freed: engine::Freed) -> Self {
        Freed {
            buffers: freed.items,
            bytes: freed.weight,
        }
    }
}

impl Clone for Pool {
    /// Makes another handle to the same pool. Allocates nothing.
    fn clone(&self) -> Self {
        self.shared.add_handle();
        Pool {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Drop for Pool {
    /// Ends a handle. The [last one](Pool#the-last-handle) frees all idle buffers.
    fn drop(&mut self) {
        self.shared.remove_handle();
    }
}

impl fmt::Debug for Pool {
    /// Prints the size classes and the total counts. Takes no lock.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("classes", &self.classes())
            .field("total", &self.stats().total)
            .finish()
    }
}

// A pool runs no code of its user's except the hook of `Builder::on_trim`, and that only when a
// trim is over. So no panic can leave it half-changed.
impl UnwindSafe for Pool {}
impl RefUnwindSafe for Pool {}
