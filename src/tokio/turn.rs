//! How a reader gets its buffers from a pool that may have a limit on outstanding bytes.
//!
//! Owns the rule. A reader that holds no bytes waits for its turn. A reader that holds some goes above the
//! limit: while it waited, others could wait for these bytes.

use crate::buf::PooledBuf;
use crate::error::GetError;
use crate::pool::Pool;
use std::future;
use std::task::{Context, Poll};

/// A reader's place in the pool's queue, while it has one.
#[derive(Default)]
pub(super) struct Turn {
    /// Whether the reader holds bytes in another buffer.
    pub(super) holds_bytes: bool,
    #[cfg(feature = "limit")]
    place: Option<Place>,
}

#[cfg(feature = "limit")]
struct Place {
    size: usize,
    get: std::pin::Pin<Box<dyn Future<Output = Result<PooledBuf, GetError>> + Send + Sync>>,
}

impl Turn {
    /// Takes a buffer once there is room.
    pub(super) fn poll_get(
        &mut self,
        pool: &Pool,
        size: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<PooledBuf, GetError>> {
        match self.holds_bytes {
            true => {
                self.leave(); // a place that no one polls would keep what it has collected
                Poll::Ready(get_above_limit(pool, size))
            }
            false => self.poll_in_turn(pool, size, cx),
        }
    }

    /// Gives its place up.
    fn leave(&mut self) {
        #[cfg(feature = "limit")]
        {
            self.place = None;
        }
    }

    /// Allocates only to wait.
    #[cfg(feature = "limit")]
    fn poll_in_turn(
        &mut self,
        pool: &Pool,
        size: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<PooledBuf, GetError>> {
        let place = match self.place.take().filter(|place| place.size == size) {
            Some(place) => place,
            None if pool.shared().has_room(size) => match pool.try_get(size) {
                Err(GetError::Exhausted { .. }) => Place::of(pool, size), // another was faster
                got => return Poll::Ready(got),
            },
            None => Place::of(pool, size),
        };
        let got = self.place.insert(place).get.as_mut().poll(cx);
        if got.is_ready() {
            self.place = None;
        }
        got
    }

    #[cfg(not(feature = "limit"))]
    fn poll_in_turn(
        &mut self,
        pool: &Pool,
        size: usize,
        _cx: &mut Context<'_>,
    ) -> Poll<Result<PooledBuf, GetError>> {
        Poll::Ready(pool.try_get(size))
    }
}

#[cfg(feature = "limit")]
impl Place {
    fn of(pool: &Pool, size: usize) -> Self {
        let pool = pool.clone();
        let get = Box::pin(async move { pool.get_async(size).await });
        Place { size, get }
    }
}

/// A reader that leaves the queue when this is dropped.
struct Leaves<'a, S> {
    reader: &'a mut S,
    turn: fn(&mut S) -> &mut Turn,
}

impl<S> Drop for Leaves<'_, S> {
    fn drop(&mut self) {
        (self.turn)(self.reader).leave();
    }
}

/// Waits until `poll` is ready.
///
/// If the future is dropped before, the reader leaves the queue. Otherwise a task that does something
/// else then would wait behind its own reader's place, which it does not poll.
pub(super) async fn until_ready<S, T>(
    reader: &mut S,
    turn: fn(&mut S) -> &mut Turn,
    poll: fn(&mut S, &mut Context<'_>) -> Poll<T>,
) -> T {
    let leaves = Leaves { reader, turn };
    future::poll_fn(|cx| poll(leaves.reader, cx)).await
}

/// Takes a buffer for a reader that holds bytes, also above the limit.
pub(super) fn get_above_limit(pool: &Pool, size: usize) -> Result<PooledBuf, GetError> {
    match pool.try_get(size) {
        Err(GetError::Exhausted { .. }) => PooledBuf::try_acquire_above_limit(pool.shared(), size),
        got => got,
    }
}
