//! The public handle. Knows no magazines and no atomics.

use crate::config::Config;
use crate::guard::PooledBuf;
use crate::shared::Shared;
use crate::stats::Stats;
use bytes::BytesMut;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

/// A pool of byte buffers in tiers of capacity, shared by all threads.
///
/// Clones are handles to the same pool. When the last handle is dropped, what
/// the pool retains is freed, in every thread's cache; buffers that are still
/// out stay valid and are freed when they are dropped. (On Linux this takes the
/// system call `membarrier`. If a sandbox forbids it after the process has made
/// its first pool, what thread caches hold is leaked then.)
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
pub struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    pub(crate) fn from_config(config: Config) -> Self {
        Pool {
            shared: Shared::new(config),
        }
    }

    /// Takes an empty buffer with room for at least `size` bytes.
    ///
    /// It is of the smallest size class that holds `size`, and has the class's
    /// capacity, or more if it was [adopted](Self::adopt) or has grown on the
    /// heap. Above the largest class, it is a plain allocation of `size` bytes
    /// that is freed on drop. `get(0)` is of the smallest class. Which idle
    /// buffer you get is not promised.
    ///
    /// A local hit takes no lock, does no atomic read-modify-write and
    /// allocates nothing. A miss allocates.
    ///
    /// # Panics
    ///
    /// - If `size` is above `isize::MAX`, as `Vec::with_capacity` does.
    #[inline]
    pub fn get(&self, size: usize) -> PooledBuf {
        PooledBuf::take(&self.shared, size)
    }

    /// Takes in a buffer that the pool did not make, with its contents.
    ///
    /// On drop it joins the largest size class that its capacity fills, as far
    /// as the bound on loose buffers allows. It is freed if its capacity is below
    /// the smallest class or above the largest, or if a part that was split off
    /// it is still in use.
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

    /// The capacities of the size classes, ascending, in bytes.
    #[must_use]
    pub fn classes(&self) -> &[usize] {
        self.shared.classes().capacities()
    }

    /// What the pool has done and what it holds.
    ///
    /// Looks at every thread's counters, under a lock that gets and drops do not
    /// take, but for a thread's first.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
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

// A pool runs no code of its user's, so no panic can leave it half-changed.
impl UnwindSafe for Pool {}
impl RefUnwindSafe for Pool {}
