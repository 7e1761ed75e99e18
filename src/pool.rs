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

/// A pool of byte buffers in tiers of capacity, shared by all threads.
///
/// Clones are handles to the same pool. When the last handle is dropped, all idle
/// buffers are freed, in every thread's cache. Buffers that are still
/// out stay valid and are freed when they are dropped.
///
/// The drop of the last handle waits for a trim that is going on. It also waits for a thread
/// that is inside a get or a drop of this pool: some nanoseconds, or until that thread runs
/// again if the system has stopped it just there. (On Linux the drop takes the
/// system call `membarrier`. If a sandbox forbids it after the process has made
/// its first pool, the buffers in thread caches are leaked.)
///
/// ```
/// use tierpool::Pool;
///
/// let pool = Pool::default();
/// let mut buf = pool.get(3000); // empty, with room for 4096 bytes
/// buf.extend_from_slice(b"hello");
/// std::thread::spawn(move || drop(buf)).join().unwrap(); // goes home by itself
/// assert_eq!(pool.stats().total.retained_buffers, 1);
/// ```
///
/// # After `fork`
///
/// A child process that goes on without `exec` has copies of all pools. If another thread
/// was in a call of any pool when it was forked, the child must use none, since their locks
/// may be taken for ever: it may read guards, but must drop none, and must end by `_exit`.
/// If none was, it may go on as its parent does (`docs/memory.md`).
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

    /// Takes an empty buffer with room for at least `size` bytes.
    ///
    /// It is of the smallest size class that holds `size`, and has the class's
    /// capacity, or more if it was [adopted](Self::adopt) or has grown on the
    /// heap. Above the largest class, it is a plain allocation of `size` bytes
    /// that is freed on drop. `get(0)` is of the smallest class. Which idle
    /// buffer you get is not promised.
    ///
    /// A local hit takes no lock, does no atomic read-modify-write and allocates nothing.
    /// Exception: a buffer's first hit after a trim takes the slow path. A miss allocates.
    ///
    /// # Panics
    ///
    /// - If `size` is above `isize::MAX`, as `Vec::with_capacity` does.
    ///
    /// Ends the process if there is no memory, as `Vec` does;
    /// [`try_get`](Self::try_get) does not.
    #[must_use = "the buffer goes back at once unless you keep it"]
    #[inline]
    pub fn get(&self, size: usize) -> PooledBuf {
        PooledBuf::acquire(&self.shared, size)
    }

    /// Like [`get`](Self::get), but returns an error where `get` would panic, or end the process
    /// because there is no memory.
    ///
    /// If the heap refuses the buffer, all idle buffers are freed, as by [`clear`](Self::clear),
    /// and the heap is asked once more. They are not freed for a buffer of more than 16 times their
    /// bytes, since that could hardly help. While it does not help, they are freed less and less
    /// often. So an outside size that no heap can serve leaves the pool as it is.
    ///
    /// A call that fails counts nothing in [`Stats`], except the buffers that it freed. The pool's own
    /// memory never makes it fail: a thread goes without caches if there is no memory for them,
    /// and buffers that come back are freed if the pool's queues cannot grow.
    ///
    /// A hit costs the same as in `get`. A miss costs more: the heap is asked for a block of zeros,
    /// the one kind that can be refused and made a `BytesMut` of. Fresh pages are zero already. Any
    /// other block is overwritten, as far as it reaches.
    ///
    /// # What else takes memory
    ///
    /// - These take none: [`trim`](Self::trim), `clear`, the clone or the drop of a handle.
    /// - These can do without it: a guard's drop, a calibration and the end of a thread. They may
    ///   make the thread's caches and the pool's queues larger. A buffer that finds no room there
    ///   is freed. A buffer that was adopted or that grew on the heap takes a few words to check
    ///   whether it is whole. It is freed if the heap refuses them. (The heap is first asked
    ///   whether it has the memory, which is then allocated. In between, another thread may take
    ///   the last, and then the process ends.)
    /// - These end the process if there is no memory, as `Vec` does: `get`,
    ///   [`get_zeroed`](Self::get_zeroed), [`adopt`](Self::adopt), [`prefill`](Self::prefill),
    ///   [`stats`](Self::stats), [`profile`](Self::profile), a conversion to `Bytes`, and making a
    ///   pool (not its [idle buffers](crate::Builder::keep_idle)). A guard does it if it grows: call
    ///   [`try_reserve`](PooledBuf::try_reserve) first. It does it also if it moves its contents: in
    ///   `split_off`, `shrink_to_fit` and `freeze_compact`, and where it is lent as a `BytesMut` or
    ///   detached while [parts](PooledBuf#parts) are out.
    /// - When a thread first uses any pool, the system or the standard library notes what to do at
    ///   its end. That takes a few words, and ends the process if there are none.
    ///
    /// # Errors
    ///
    /// - [`GetError::TooLarge`] if `size` is above `isize::MAX`.
    /// - [`GetError::OutOfMemory`] if the heap refuses.
    ///
    /// ```
    /// use tierpool::{GetError, Pool};
    ///
    /// let pool = Pool::default();
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
    /// As [`get`](Self::get) and [`resize`](PooledBuf::resize). Writes only those zeros that are not
    /// known to be there: none to memory that comes from the system.
    ///
    /// # Panics
    ///
    /// - If `size` is above `isize::MAX`.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::default();
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
    /// As [`get`](Self::get), with the present `default_size` of the [targets](Self::targets).
    /// Before the first calibration, that is 4096 bytes, or the largest size class if that is
    /// smaller. It is above the largest class if most of the buffers that come back are.
    #[must_use = "the buffer goes back at once unless you keep it"]
    #[inline]
    pub fn get_default(&self) -> PooledBuf {
        self.get(self.shared.default_size())
    }

    /// Takes in a buffer that the pool did not make, with its contents.
    ///
    /// On drop it joins the largest size class that its capacity fills, as far
    /// as the budget allows. It is freed if its capacity is below
    /// the smallest class or above what is [kept](Self::targets), or if a part that
    /// was split off it is still in use.
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::default();
    /// drop(pool.adopt(BytesMut::with_capacity(1500)));
    /// assert_eq!(pool.get(1024).capacity(), 1500); // of the 1024-byte class
    /// ```
    pub fn adopt(&self, buf: BytesMut) -> PooledBuf {
        PooledBuf::adopt(&self.shared, buf)
    }

    /// Frees the idle buffers that were not needed since the last trim. Returns how many
    /// those were.
    ///
    /// In each thread's cache and in the depot, their number is the fewest that were there at any
    /// time since. A buffer that is used once between two trims stays for ever. One that is not
    /// used between two trims is freed at the second. A trim reaches the caches of all threads,
    /// also of those that are asleep, are blocked or have ended.
    ///
    /// The buffers that are [kept idle](crate::Builder::keep_idle) on purpose stay in any case.
    ///
    /// The last trim is the last of any cause: a call of this, the
    /// [interval](crate::Builder::trim_interval), or a
    /// [budget](crate::Builder::retain_bytes) that was short.
    ///
    /// Buffers that are dropped on other threads than they are taken on go round in magazines. Then
    /// up to a full thread cache and a few magazines more than needed stay.
    ///
    /// No get or drop waits for it, except a [`try_get`](Self::try_get) that the heap has refused.
    /// A get whose thread's cache is being visited is served by the depot, or by the heap. Another
    /// trim waits for this one. Threads that the system has stopped in the middle of a get or a
    /// drop hold this up for some 10 ms, all together. Then their caches are left to the next trim.
    /// Do not call it from inside an allocator or a signal handler: it takes locks, and frees
    /// memory.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::default();
    /// drop((pool.get(4096), pool.get(4096)));
    /// assert_eq!(pool.trim().buffers, 0); // both were in use since the pool was made
    /// drop(pool.get(4096));
    /// assert_eq!(pool.trim().buffers, 1); // one was enough
    /// assert_eq!(pool.trim().bytes, 4096); // and now none is needed
    /// ```
    pub fn trim(&self) -> Freed {
        Freed::new(self.shared.trim())
    }

    /// Frees all idle buffers at once. Returns how many those were.
    ///
    /// Also those that are [kept idle](crate::Builder::keep_idle).
    ///
    /// For memory pressure. The pool goes on working, and keeps buffers that come back
    /// from now on. It reaches all threads' caches and holds up no get or drop, like
    /// [`trim`](Self::trim), and waits as `trim` does.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::default();
    /// drop(pool.get(4096));
    /// assert_eq!(pool.clear().bytes, 4096);
    /// assert_eq!(pool.stats().total.retained_bytes, 0);
    /// ```
    pub fn clear(&self) -> Freed {
        Freed::new(self.shared.clear())
    }

    /// Makes `count` idle buffers for requests of `size` bytes ahead of time. Returns how many it
    /// made.
    ///
    /// It makes fewer if the [budget](crate::Builder::retain_bytes) or
    /// [`max_per_class`](crate::Builder::max_per_class) is reached, none if `size` is above the
    /// largest class. Room that threads' caches have leased for buffers that are out counts as
    /// well. They are in the depot, for any thread. The second trim from now frees those that are
    /// not used: [`Builder::keep_idle`](crate::Builder::keep_idle) makes buffers that stay.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::default();
    /// assert_eq!(pool.prefill(4096, 100), 100);
    /// drop(pool.get(4096));
    /// assert_eq!(pool.stats().total.misses, 0);
    /// ```
    pub fn prefill(&self, size: usize, count: usize) -> usize {
        self.shared.prefill(size, count)
    }

    /// The sizes that the pool aims at now.
    ///
    /// The pool learns how much of its buffers programs use: the most bytes that a buffer held
    /// while it was out, whatever was cleared, cut off or consumed before its drop. It
    /// records some of the buffers that come back, drawn at random. After
    /// [enough](crate::Builder::calibrate_after) returns, or some
    /// [time](crate::Builder::calibrate_interval), it takes the most
    /// frequent size for `default_size`, and the size that holds 95 % of them for `max_size`, as
    /// `valyala/bytebufferpool` does. Before that, `default_size` is 4096 bytes, or what the
    /// largest class holds if that is less, and `max_size` is the largest class.
    ///
    /// Later, a target changes only if the change is clear, or if its size did not come back at
    /// all. The pool does not wait if sizes rise: once it has freed 256 returned buffers as too
    /// large, and these are more than a tenth of all, it makes new targets from these returns. The
    /// targets decide
    ///
    /// - what [`get_default`](Self::get_default) asks for;
    /// - what a guard [grows](PooledBuf#growth) to;
    /// - which buffers are not kept: those with a capacity above `max_size`, rounded up to a size
    ///   class. Such a buffer is kept if its class was asked for, by `get`, `reserve` or `prefill`,
    ///   at least twice since the last calibration, or is [kept idle](crate::Builder::keep_idle).
    ///   So a program that asks for large buffers gets them from the pool, and a buffer that grew
    ///   larger than the program ever asks for is freed.
    ///
    /// Other threads than the one that calibrated may keep what their caches have room for,
    /// until the next trim reaches them. See `docs/calibration.md`.
    ///
    /// Takes a lock that gets and drops do not wait for.
    #[must_use]
    pub fn targets(&self) -> Targets {
        self.shared.targets()
    }

    /// Chooses targets now, from the returns since that was done last, and returns them.
    ///
    /// Without a return since then, they stay as they are.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::default();
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

    /// What the pool has learned, for [`Builder::profile`](crate::Builder::profile).
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.shared.profile()
    }

    /// The capacities of the size classes, ascending, in bytes.
    #[must_use]
    pub fn classes(&self) -> &[usize] {
        self.shared.classes().capacities()
    }

    /// The pool's event counts and its present buffers.
    ///
    /// Looks at every thread's counters. Takes no lock, and allocates the list of classes.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Restarts the [peaks](crate::Peaks): from here on they are the most since this call.
    ///
    /// They begin with the pool's present bytes. Another thread's call resets them for all.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::default();
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
    fn clone(&self) -> Self {
        self.shared.add_handle();
        Pool {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.remove_handle();
    }
}

impl fmt::Debug for Pool {
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
