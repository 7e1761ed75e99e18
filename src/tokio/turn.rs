//! How a reader gets its buffers from a pool that may have a limit on outstanding bytes.
//!
//! Owns the rule. A reader that holds no bytes waits for its turn. A reader that holds some goes above the
//! limit: while it waited, others could wait for these bytes.

use crate::buf::PooledBuf;
use crate::error::GetError;
use crate::pool::Pool;
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
            true => Poll::Ready(get_above_limit(pool, size)),
            false => self.poll_in_turn(pool, size, cx),
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

/// Takes a buffer for a reader that holds bytes, also above the limit.
pub(super) fn get_above_limit(pool: &Pool, size: usize) -> Result<PooledBuf, GetError> {
    match pool.try_get(size) {
        Err(GetError::Exhausted { .. }) => PooledBuf::try_acquire_above_limit(pool.shared(), size),
        got => got,
    }
}
