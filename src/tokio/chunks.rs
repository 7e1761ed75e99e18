//! A reader of chunks that holds a buffer only during a read.

use super::turn::{Turn, until_ready};
use super::{cut, poll_read_new};
use crate::buf::PooledBytes;
use crate::io::SIZE_DEFAULT;
use crate::pool::Pool;
use ::tokio::io::AsyncRead;
use futures_core::Stream;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Returns the bytes of `R` as they come, in chunks that need no copy.
///
/// It is a [`Stream`], as `tokio_util::io::ReaderStream`. Each chunk has the bytes of one read, and is
/// never empty.
///
/// # Memory and cost
///
/// It holds no buffer between two calls. A chunk holds its whole buffer until it is dropped, even if a
/// read returned one byte: see [`copy_below`](Self::copy_below). A poll
/// that finds nothing takes a buffer and gives it back. Nothing is zeroed before a read, except by a miss:
/// see [`PooledReader`](super::PooledReader).
///
/// ```
/// use tierpool::Pool;
/// use tierpool::tokio::PooledChunks;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let pool = Pool::new();
/// let mut chunks = PooledChunks::new(&pool, &b"some bytes"[..]).chunk_bytes(4);
/// let mut got = Vec::new();
/// while let Some(chunk) = chunks.next_chunk().await {
///     got.push(chunk?);
/// }
/// assert_eq!(got, ["some", " byt", "es"]);
/// # Ok(())
/// # }
/// ```
pub struct PooledChunks<R> {
    pool: Pool,
    size: usize,
    copy_below: usize,
    turn: Turn,
    ended: bool,
    inner: R,
}

impl<R> PooledChunks<R> {
    /// Returns chunks of at most 8 KiB.
    pub fn new(pool: &Pool, inner: R) -> Self {
        PooledChunks {
            pool: pool.clone(),
            size: SIZE_DEFAULT,
            copy_below: 0,
            turn: Turn::default(),
            ended: false,
            inner,
        }
    }

    /// Sets the most bytes of a chunk. With 0, it is 1.
    #[must_use]
    pub fn chunk_bytes(mut self, bytes: usize) -> Self {
        self.size = bytes.max(1);
        self
    }

    /// Copies chunks of fewer than `bytes` bytes to buffers of their own size class, so that they do not
    /// keep a larger buffer out. The default is 0: no chunk is copied.
    #[must_use]
    pub fn copy_below(mut self, bytes: usize) -> Self {
        self.copy_below = bytes;
        self
    }

    /// Returns the source.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// Returns the source. No byte is buffered.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Returns the source. No byte is lost.
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: AsyncRead + Unpin> PooledChunks<R> {
    /// Returns the bytes of the next read, and `None` at the end of the input or after an error.
    ///
    /// It is cancel safe: if the future is dropped, no byte is lost. If it waits for room under the
    /// pool's limit then, it leaves the queue.
    ///
    /// # Errors
    ///
    /// - The error of the source.
    /// - A [`GetError`](crate::GetError) in an [`io::Error`], if there is no buffer: see [the limit](crate::tokio#a-limit-on-outstanding-bytes).
    pub async fn next_chunk(&mut self) -> Option<io::Result<PooledBytes>> {
        until_ready(self, |reader| &mut reader.turn, Self::poll_next_chunk).await
    }

    /// As [`next_chunk`](Self::next_chunk), for code that polls.
    ///
    /// A reader that waits for room under the pool's limit keeps its place in the queue between two polls. So
    /// poll it again when it wakes you, or drop it: others wait behind it.
    pub fn poll_next_chunk(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<PooledBytes>>> {
        self.poll_chunk_up_to(cx, usize::MAX)
    }

    /// As [`poll_next_chunk`](Self::poll_next_chunk), but reads at most `most` bytes, which is not 0.
    pub(crate) fn poll_chunk_up_to(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<Option<io::Result<PooledBytes>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_chunk(cx, self.size.min(most))).transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }

    fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        size: usize,
    ) -> Poll<io::Result<Option<PooledBytes>>> {
        let read = poll_read_new(&self.pool, &mut self.turn, size, &mut self.inner, cx, size);
        let Some(mut buf) = ready!(read)? else {
            return Poll::Ready(Ok(None));
        };
        let read = buf.len();
        let chunk = cut(&self.pool, &mut buf, read, self.copy_below)?;
        Poll::Ready(Ok(Some(chunk)))
    }
}

impl<R: AsyncRead + Unpin> Stream for PooledChunks<R> {
    type Item = io::Result<PooledBytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_next_chunk(cx)
    }
}

impl<R: fmt::Debug> fmt::Debug for PooledChunks<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledChunks")
            .field("reader", &self.inner)
            .field("chunk_bytes", &self.size)
            .finish_non_exhaustive()
    }
}
