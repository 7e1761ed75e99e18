//! The public handle to a pool of objects. Knows no magazines and no atomics.

use super::guard::Pooled;
use super::shared::{Config, Shared};
use super::stats::ObjectStats;
use crate::error::ConfigError;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

/// A pool of objects of any type, shared by all threads.
///
/// It is for objects that are expensive to make and that any user can use again: compressors, parsers,
/// scratch space, per-request contexts. It has the levels of [`Pool`](crate::Pool): a cache per thread, and
/// a depot that all threads share. Clones are handles to the same pool.
///
/// ```
/// use tierpool::{ObjectPool, Pooled};
///
/// let pool = ObjectPool::builder(|| Vec::<u64>::with_capacity(256)) // called on a miss
///     .keep(|numbers| numbers.capacity() <= 4096) // one that has grown larger is dropped
///     .reset(|numbers| numbers.clear()) // before it is kept
///     .build()?;
///
/// let mut numbers: Pooled<Vec<u64>> = pool.get();
/// numbers.extend([1, 2, 3]);
/// drop(numbers); // goes home by itself
///
/// let again = pool.get(); // a local hit: no lock, nothing allocated
/// assert!(again.is_empty());
/// assert!(again.capacity() >= 256);
/// assert_eq!(pool.stats().local_hits, 1);
/// # Ok::<(), tierpool::ConfigError>(())
/// ```
///
/// # What it keeps
///
/// An object that comes back is kept if [`keep`](crate::ObjectPoolBuilder::keep) agrees and there is room for
/// it. [`max_idle`](crate::ObjectPoolBuilder::max_idle) bounds the idle objects of all levels together.
///
/// A [trim](Self::trim) drops the objects that no get took since the last one. Trims come
/// [by time](crate::ObjectPoolBuilder::trim_interval), too.
///
/// An object may be dropped at any time while it is idle, as with Go's `sync.Pool`. So do not pool
/// connections here, or anything else that must not vanish.
///
/// # The program's functions
///
/// `init` runs on the thread that gets. [`keep`](crate::ObjectPoolBuilder::keep) and
/// [`reset`](crate::ObjectPoolBuilder::reset) run on the thread that drops the guard. The `Drop` of an object
/// that is not kept runs there, too. Idle objects are dropped by the thread that does the trim: one that gets
/// or drops, one that calls [`trim`](Self::trim) or [`clear`](Self::clear), one that ends, or the thread of
/// [`background_trim`](crate::ObjectPoolBuilder::background_trim).
///
/// All of these may use the same pool: none runs under a lock. A function that owns a handle to its own
/// pool keeps that pool for ever. An idle object that owns one keeps it until a trim drops the object.
///
/// A panic of `init` goes on to the caller of `get`. A panic of the others ends where it is, after the
/// program's panic hook has reported it, and the object is dropped. [`ObjectStats::panics`] counts all of
/// them.
///
/// The functions end with the last handle or the last guard, whichever comes later. A panic of what they own
/// ends there, too, and is not counted.
///
/// # Objects that a panic left half-changed
///
/// A guard that is dropped while its thread unwinds gives its object back, as any other. If `reset` cannot
/// make such an object whole, refuse it:
///
/// ```
/// use std::panic::{AssertUnwindSafe, catch_unwind};
/// use tierpool::ObjectPool;
///
/// let pool = ObjectPool::builder(String::new).keep(|_| !std::thread::panicking()).build()?;
/// let used = catch_unwind(AssertUnwindSafe(|| {
///     let mut text = pool.get();
///     text.push_str("half a ");
///     panic!("in the middle");
/// }));
/// assert!(used.is_err());
/// assert_eq!((pool.stats().discarded_by_keep, pool.stats().idle), (1, 0));
/// # Ok::<(), tierpool::ConfigError>(())
/// ```
///
/// # The last handle
///
/// The drop of the last handle drops all idle objects, in the caches of all threads. Objects that are still
/// out stay valid. Each is dropped with its guard. As for a [`Pool`](crate::Pool#the-last-handle), the drop
/// waits for a trim that is running, and for a thread that is inside a get or a drop. It does not wait for
/// the `Drop` of objects that another thread has taken out, such as that of
/// [`background_trim`](crate::ObjectPoolBuilder::background_trim).
///
/// # Threads
///
/// Objects cross threads in the depot, so they must be `Send`. They need not be `Sync`. A pool of objects
/// that must stay on their thread does not compile:
///
/// ```compile_fail,E0277
/// use std::rc::Rc;
/// use tierpool::ObjectPool;
///
/// let pool = ObjectPool::new(|| Rc::new(1));
/// ```
pub struct ObjectPool<T: Send + 'static> {
    shared: Arc<Shared<T>>,
}

impl<T: Send + 'static> ObjectPool<T> {
    /// Makes a pool. `background_set_by` is the option that asks for a thread.
    ///
    /// # Errors
    ///
    /// - If the heap has no room for a list of the objects that are to be kept idle.
    /// - If a thread is to trim, and cannot be started.
    pub(super) fn from_config(
        config: Config<T>,
        background_set_by: &'static str,
    ) -> Result<Self, ConfigError> {
        // A handle from here on: dropped after an error or a panic, it drops the objects made so far.
        let pool = ObjectPool {
            shared: Shared::new(config),
        };
        pool.shared.stock_kept_idle()?;
        pool.shared.trim_in_background(background_set_by)?;
        Ok(pool)
    }

    /// Takes an idle object, or makes one with the pool's `init`.
    ///
    /// Which idle object you get is not promised.
    ///
    /// # Cost
    ///
    /// A hit in the thread's cache takes no lock, does no atomic read-modify-write and allocates nothing.
    /// There is one exception: an object's first hit after a trim leaves the fast path. A hit in the depot
    /// takes one exchange for up to 32 objects. A miss calls `init`, and allocates a cell for the object.
    ///
    /// # Panics
    ///
    /// - If `init` panics. The pool stays as it is.
    ///
    /// ```
    /// use tierpool::ObjectPool;
    ///
    /// let pool = ObjectPool::new(|| String::from("new"));
    /// pool.get().push_str("er");
    /// assert_eq!(*pool.get(), "newer"); // the same object: this pool resets nothing
    /// ```
    #[inline]
    pub fn get(&self) -> Pooled<T> {
        Pooled::new(self.shared.acquire())
    }

    /// Takes an idle object, or makes one with `init`, which may fail.
    ///
    /// This `init` takes the place of the pool's own.
    ///
    /// # Errors
    ///
    /// - The error of `init`. The call counts nothing then, and the pool stays as it is.
    ///
    /// # Panics
    ///
    /// - If `init` panics.
    ///
    /// ```
    /// use tierpool::ObjectPool;
    ///
    /// let pool = ObjectPool::new(|| 0_u32);
    /// assert!(pool.get_or_try_init(|| "x".parse()).is_err());
    /// assert_eq!(*pool.get_or_try_init(|| "7".parse())?, 7);
    /// assert_eq!(*pool.get_or_try_init(|| "x".parse())?, 7); // a hit: the object of the line before
    /// assert_eq!((pool.stats().gets, pool.stats().misses), (2, 1));
    /// # Ok::<(), std::num::ParseIntError>(())
    /// ```
    #[inline]
    pub fn get_or_try_init<E>(&self, init: impl FnOnce() -> Result<T, E>) -> Result<Pooled<T>, E> {
        self.shared.acquire_or(init).map(Pooled::new)
    }

    /// Takes an object into the pool that the pool has not made.
    ///
    /// It is outstanding until the guard is dropped, and then as any other. Allocates a cell for it.
    ///
    /// ```
    /// use tierpool::ObjectPool;
    ///
    /// let pool = ObjectPool::new(String::new);
    /// drop(pool.adopt(String::from("mine")));
    /// assert_eq!(*pool.get(), "mine");
    /// assert_eq!((pool.stats().adopted, pool.stats().misses), (1, 0));
    /// ```
    pub fn adopt(&self, object: T) -> Pooled<T> {
        Pooled::new(self.shared.adopt(object))
    }

    /// Drops the idle objects that no get took since the last trim. Returns how many.
    ///
    /// An object that came back since the last trim counts as needed, so the second trim drops it. Leaves
    /// as many as [`keep_idle`](crate::ObjectPoolBuilder::keep_idle).
    ///
    /// # Cost
    ///
    /// Takes a lock that no get and no drop waits for. Visits the caches of all threads. Waits up to 10 ms
    /// for threads that the system has stopped inside a get or a drop.
    ///
    /// ```
    /// use tierpool::ObjectPool;
    ///
    /// let pool = ObjectPool::new(String::new);
    /// drop((pool.get(), pool.get()));
    /// assert_eq!(pool.trim(), 0);
    /// drop(pool.get()); // needs one of the two
    /// assert_eq!(pool.trim(), 1);
    /// assert_eq!(pool.trim(), 1);
    /// ```
    pub fn trim(&self) -> usize {
        self.shared.trim()
    }

    /// Drops all idle objects, in the caches of all threads. Returns how many.
    ///
    /// Takes longer, as [`trim`](Self::trim) does.
    ///
    /// ```
    /// use tierpool::ObjectPool;
    ///
    /// let pool = ObjectPool::new(String::new);
    /// drop((pool.get(), pool.get()));
    /// assert_eq!((pool.clear(), pool.stats().idle), (2, 0));
    /// ```
    pub fn clear(&self) -> usize {
        self.shared.clear()
    }

    /// Counts the pool's events and its present objects.
    ///
    /// Reads the counters of every thread. Takes no lock and no memory.
    ///
    /// ```
    /// use tierpool::ObjectPool;
    ///
    /// let pool = ObjectPool::new(String::new);
    /// let _text = pool.get();
    /// assert_eq!((pool.stats().gets, pool.stats().outstanding), (1, 1));
    /// ```
    #[must_use]
    pub fn stats(&self) -> ObjectStats {
        self.shared.stats()
    }
}

impl<T: Send + 'static> Clone for ObjectPool<T> {
    /// Makes another handle to the same pool. Allocates nothing.
    fn clone(&self) -> Self {
        self.shared.add_handle();
        ObjectPool {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T: Send + 'static> Drop for ObjectPool<T> {
    /// Ends a handle. The [last one](ObjectPool#the-last-handle) drops all idle objects.
    fn drop(&mut self) {
        self.shared.remove_handle();
    }
}

impl<T: Send + 'static> fmt::Debug for ObjectPool<T> {
    /// Prints the counts. Takes no lock.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectPool")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

// The program's functions run outside of the pool's own work, so their panic leaves nothing of the
// pool half-changed. What they share, they must keep whole themselves, as any `Fn`. But a guard
// that is dropped by a panic gives its object to the next user, as it is.
impl<T: Send + UnwindSafe + 'static> UnwindSafe for ObjectPool<T> {}
impl<T: Send + UnwindSafe + 'static> RefUnwindSafe for ObjectPool<T> {}
