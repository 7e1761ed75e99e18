//! Gets that wait for room under a pool's limit on outstanding bytes.
//!
//! Owns how a thread waits. The queue is in `limit`, and what counts in `inner/outstanding`.

use crate::buf::PooledBuf;
use crate::clock::Stopwatch;
use crate::error::{ConfigError, GetError};
use crate::pool::Pool;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

#[cfg_attr(docsrs, doc(cfg(feature = "limit")))]
impl Pool {
    /// Waits for room under the limit on outstanding bytes, and takes a buffer as [`get`](Self::get) does.
    ///
    /// The result is a future for any runtime. Those who wait are served in the order of their first polls.
    /// In a pool without a limit it is ready at once.
    ///
    /// It is cancel safe: if the future is dropped, it leaves the queue, and takes nothing.
    ///
    /// # Errors
    ///
    /// - [`GetError::AboveLimit`] if the buffer is above the limit, or the limit falls below it.
    /// - [`GetError::Closed`] after [`close_queue`](Self::close_queue).
    /// - [`GetError::TooLarge`] and [`GetError::OutOfMemory`] as in [`try_get`](Self::try_get).
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::builder().max_outstanding_bytes(4096).build()?;
    /// let first = pool.get_async(4096).await?;
    /// let second = pool.get_async(100); // waits for the first
    /// let (second, ()) = tokio::join!(second, async { drop(first) });
    /// assert_eq!(second?.capacity(), 512);
    /// assert_eq!(pool.stats().waits, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_async(&self, size: usize) -> Result<PooledBuf, GetError> {
        PooledBuf::acquire_in_turn(self.shared(), size).await
    }

    /// Blocks the thread until there is room under the limit on outstanding bytes, for `timeout` at most,
    /// and takes a buffer as [`get`](Self::get) does.
    ///
    /// It waits in the same queue as [`get_async`](Self::get_async). Do not call it in an async task: it
    /// blocks the runtime's thread. A thread that holds a buffer itself may wait in vain, until the timeout.
    ///
    /// # Errors
    ///
    /// - [`GetError::Exhausted`] if there is no room in time.
    /// - The others as in [`get_async`](Self::get_async).
    ///
    /// ```
    /// use std::time::Duration;
    /// use tierpool::{GetError, Pool};
    ///
    /// let pool = Pool::builder().max_outstanding_bytes(4096).build()?;
    /// let first = pool.get_timeout(4096, Duration::ZERO)?;
    /// let refused = pool.get_timeout(4096, Duration::from_millis(1)).unwrap_err();
    /// assert!(matches!(refused, GetError::Exhausted { .. }));
    /// std::thread::spawn(move || drop(first));
    /// pool.get_timeout(4096, Duration::from_secs(60))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_timeout(&self, size: usize, timeout: Duration) -> Result<PooledBuf, GetError> {
        if self.shared().has_room(size) {
            // Not through the queue: in a task that has used up its turn, tokio would let that wait.
            match self.try_get(size) {
                Err(GetError::Exhausted { .. }) => {} // another was faster
                got => return got,
            }
        }
        let waited = Stopwatch::start();
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut get = pin!(self.get_async(size));
        loop {
            if let Poll::Ready(got) = get.as_mut().poll(&mut context) {
                return got;
            }
            match timeout.saturating_sub(waited.passed()) {
                Duration::ZERO => return Err(self.shared().give_up_waiting(size)),
                left => thread::park_timeout(left),
            }
        }
    }

    /// Sets the limit on outstanding bytes of a pool that was built with one.
    ///
    /// A higher limit serves those who wait. Under a lower one, buffers that are out stay out, and gets wait
    /// until enough of them are home. Those who wait for more than the new limit receive
    /// [`GetError::AboveLimit`].
    ///
    /// A pool that was built with a limit below 4 GiB refuses single buffers of 4 GiB and more, also under a
    /// higher limit.
    ///
    /// # Errors
    ///
    /// - [`ConfigError::NoLimit`] if the pool was built without a limit.
    /// - [`ConfigError::OutstandingBelowSmallest`] if it is below the smallest size class.
    ///
    /// ```
    /// use tierpool::{GetError, Pool};
    ///
    /// let pool = Pool::builder().max_outstanding_bytes(4096).build()?;
    /// let _first = pool.try_get(4096)?;
    /// assert!(pool.try_get(4096).is_err());
    /// pool.set_max_outstanding_bytes(8192)?;
    /// assert!(pool.try_get(4096).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_max_outstanding_bytes(&self, bytes: usize) -> Result<(), ConfigError> {
        self.shared().set_limit(bytes)
    }

    /// Ends all waits for room under the limit on outstanding bytes, for a program that shuts down.
    ///
    /// Each [`get_async`](Self::get_async), [`get_timeout`](Self::get_timeout) and
    /// [`try_get`](Self::try_get), present or later, returns [`GetError::Closed`]. Growth and plain gets go
    /// on, so that work at hand can end. Buffers that are out come home as before.
    ///
    /// It cannot be undone. In a pool without a limit it does nothing.
    ///
    /// ```
    /// use tierpool::{GetError, Pool};
    ///
    /// let pool = Pool::builder().max_outstanding_bytes(4096).build()?;
    /// pool.close_queue();
    /// assert_eq!(pool.try_get(1).unwrap_err(), GetError::Closed);
    /// # Ok::<(), tierpool::ConfigError>(())
    /// ```
    pub fn close_queue(&self) {
        self.shared().close_queue();
    }
}

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
