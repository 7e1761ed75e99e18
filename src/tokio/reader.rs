//! A reader of frames that gives its buffer back when it is empty.

use super::error::FrameError;
use super::framing::{Found, Framing};
use super::turn::{Turn, until_ready};
use super::{cut, poll_room};
use crate::buf::{PooledBuf, PooledBytes};
use crate::error::GetError;
use crate::io::SIZE_DEFAULT;
use crate::pool::Pool;
use ::bytes::Buf;
use ::tokio::io::AsyncRead;
use futures_core::Stream;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The most bytes of a frame, unless the caller sets another number: as in `tokio_util`.
const MAX_FRAME_DEFAULT: usize = 8 << 20;

/// Cuts frames out of the bytes of `R`, which share the buffer that they were read into.
///
/// It is a [`Stream`], and [`next_frame`](Self::next_frame) needs no further crate.
///
/// ```
/// use tierpool::Pool;
/// use tierpool::tokio::{FrameError, Framing, PooledReader};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let source = &b"one\r\n\r\nthree\r\nfo"[..];
/// let mut lines = PooledReader::new(&Pool::new(), Framing::delimiter("\r\n")?, source);
/// for line in ["one", "", "three"] {
///     assert_eq!(lines.next_frame().await.unwrap()?, line);
/// }
/// let error = lines.next_frame().await.unwrap().unwrap_err();
/// assert!(matches!(error, FrameError::Incomplete { received: 2, .. }));
/// assert!(lines.next_frame().await.is_none());
/// # Ok(())
/// # }
/// ```
///
/// # The end
///
/// `None` after the last frame means that the input ended between two frames. An error comes once.
/// After the end or an error, it returns only `None`, reads nothing and holds no buffer.
///
/// # Memory
///
/// It holds a buffer only while there are bytes of a frame in it. Each frame holds the whole buffer that
/// it is in, until it is dropped. If frames are kept for long, set [`copy_below`](Self::copy_below).
///
/// A large frame is read into a buffer of the size class that holds it. The reader takes that buffer once
/// the length field is here, before the sender has sent the rest. So
/// [`max_frame_bytes`](Self::max_frame_bytes) limits the bytes that one connection can keep out. With a
/// delimiter, the buffer grows with the bytes received.
///
/// # Cost
///
/// - A frame within one read costs a cut of the buffer: nothing is copied or allocated.
/// - The first bytes of a frame are copied if there is no room for its rest: at most twice with a length
///   field. With a delimiter, they are copied each time that the buffer doubles. That is at most 3 copies
///   for each byte of the frame, on average.
/// - A poll that finds nothing takes a buffer and gives it back. If only the length field is here, the buffer
///   has the size of the frame. Above [`Builder::max_size`](crate::Builder::max_size), each such poll is an
///   allocation. [`Stats`](crate::Stats) counts both. [Learned sizes](crate::guide::learned_sizes) do not.
///   With [`Builder::zero_on_return`](crate::Builder::zero_on_return), the pool overwrites that buffer.
/// - Nothing is zeroed before a read into a buffer that was idle in the pool. A miss costs what it costs in
///   [`Pool::try_get`].
pub struct PooledReader<R> {
    pool: Pool,
    framing: Framing,
    size: usize,
    max_frame: usize,
    copy_below: usize,
    /// Empty only while it is read into, and after a panic of the source.
    buf: Option<PooledBuf>,
    /// Bytes of the buffer that are known to end no delimiter.
    searched: usize,
    /// Of a frame that is not complete: dropped from the buffer.
    head: Option<Head>,
    turn: Turn,
    ended: bool,
    inner: R,
}

#[derive(Clone, Copy)]
struct Head {
    /// Bytes that were dropped: the bytes before the frame.
    skipped: usize,
    /// The bytes of the frame.
    len: usize,
}

impl<R> PooledReader<R> {
    /// Makes a reader with buffers of 8 KiB, and frames of at most 8 MiB.
    pub fn new(pool: &Pool, framing: Framing, inner: R) -> Self {
        PooledReader {
            pool: pool.clone(),
            framing,
            size: SIZE_DEFAULT,
            max_frame: MAX_FRAME_DEFAULT,
            copy_below: 0,
            buf: None,
            searched: 0,
            head: None,
            turn: Turn::default(),
            ended: false,
            inner,
        }
    }

    /// Sets the bytes of the buffer that a frame's first bytes are read into. With 0, it is 1.
    ///
    /// The pool rounds them up to a size class, and a read may fill all of that. A larger buffer means fewer
    /// reads, and more frames that share it.
    #[must_use]
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.size = bytes.max(1);
        self
    }

    /// Sets the most bytes of a frame. The delimiter and the bytes skipped do not count.
    ///
    /// A larger frame is [`FrameError::TooLarge`].
    #[must_use]
    pub fn max_frame_bytes(mut self, bytes: usize) -> Self {
        self.max_frame = bytes;
        self
    }

    /// Copies frames of fewer than `bytes` bytes to buffers of their own size class, so that they do not
    /// keep a larger buffer out. The default is 0: no frame is copied.
    #[must_use]
    pub fn copy_below(mut self, bytes: usize) -> Self {
        self.copy_below = bytes;
        self
    }

    /// Returns the source.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// Returns the source. A read from it skips the bytes that are in the buffer.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Returns the source. Bytes that are in the buffer are lost.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// Returns the bytes that were read, and belong to no frame that was returned.
    ///
    /// The bytes before a frame are not among them while the reader waits for the rest of the frame.
    #[must_use]
    pub fn buffer(&self) -> &[u8] {
        self.buf.as_deref().map_or(&[], |buf| buf)
    }

    fn find(&mut self) -> Result<Found, FrameError> {
        if let Some(Head { len, .. }) = self.head {
            return Ok(match len.saturating_sub(self.buffer().len()) {
                0 => Found::Frame {
                    skip: 0,
                    len,
                    behind: 0,
                },
                missing => Found::Missing {
                    least: missing,
                    most: missing,
                },
            });
        }
        let mut searched = self.searched;
        let found = self
            .framing
            .find(self.buffer(), &mut searched, self.max_frame);
        self.searched = searched;
        found
    }

    /// Drops the bytes before a frame that is not complete.
    ///
    /// So a frame as large as a size class needs a buffer of that class, and not of the next one.
    fn drop_head(&mut self, skip: usize, len: usize) {
        let buf = self.buf.as_mut().expect("it has the head");
        buf.advance(skip);
        self.head = Some(Head { skipped: skip, len });
    }

    /// Cuts off the frame that was found.
    fn take(&mut self, skip: usize, len: usize, behind: usize) -> Result<PooledBytes, GetError> {
        let buf = self.buf.as_mut().expect("a frame was found in it");
        buf.advance(skip);
        let frame = cut(&self.pool, buf, len, self.copy_below)?;
        buf.advance(behind);
        self.head = None;
        self.give_back_if_empty();
        Ok(frame)
    }

    fn give_back_if_empty(&mut self) {
        if self.buffer().is_empty() {
            self.buf = None;
        }
    }

    fn end(&mut self) {
        self.buf = None;
        self.ended = true;
    }
}

impl<R: AsyncRead + Unpin> PooledReader<R> {
    /// Returns the next frame, and `None` at the end of the input or after an error.
    ///
    /// It is cancel safe: if the future is dropped, no byte is lost. If it waits for room under the
    /// pool's limit then, it leaves the queue.
    ///
    /// # Errors
    ///
    /// - [`FrameError::TooLarge`] if the frame is above the limit.
    /// - [`FrameError::Length`] if the length field is not the length of a frame.
    /// - [`FrameError::Incomplete`] if the input ends within a frame.
    /// - [`FrameError::NoBuffer`] if there is no buffer: see [the limit](crate::tokio#a-limit-on-outstanding-bytes).
    /// - [`FrameError::Io`] if the source returns an error.
    ///
    /// # Panics
    ///
    /// - If the source panics. No byte is lost.
    pub async fn next_frame(&mut self) -> Option<Result<PooledBytes, FrameError>> {
        until_ready(self, |reader| &mut reader.turn, Self::poll_next_frame).await
    }

    /// As [`next_frame`](Self::next_frame), for code that polls.
    ///
    /// A reader that waits for room under the pool's limit keeps its place in the queue between two polls. So
    /// poll it again when it wakes you, or drop it: others wait behind it.
    pub fn poll_next_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<PooledBytes, FrameError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_frame(cx)).transpose();
        if !matches!(next, Some(Ok(_))) {
            self.end();
        }
        Poll::Ready(next)
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<PooledBytes>, FrameError>> {
        loop {
            let (least, most) = match self.find()? {
                Found::Frame { skip, len, behind } => {
                    return Poll::Ready(Ok(Some(self.take(skip, len, behind)?)));
                }
                Found::Head { skip, len } => {
                    self.drop_head(skip, len);
                    continue;
                }
                Found::Missing { least, most } => (least, most),
            };
            if ready!(self.poll_read(cx, least, most))? == 0 {
                let head = self.head.map_or(0, |head| head.skipped);
                return Poll::Ready(match head + self.buffer().len() {
                    0 => Ok(None),
                    received => Err(FrameError::Incomplete { received }),
                });
            }
        }
    }

    /// Reads once. Gives the buffer back if there is nothing in it then.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        least: usize,
        most: usize,
    ) -> Poll<Result<usize, FrameError>> {
        let room = (least, most);
        ready!(poll_room(
            &self.pool,
            &mut self.turn,
            &mut self.buf,
            self.size,
            room,
            cx
        ))?;
        let buf = self.buf.as_mut().expect("it has room");
        let read = buf.poll_read_from(&mut self.inner, cx, usize::MAX);
        if let Some(unused) = self.buf.take_if(|buf| buf.is_empty()) {
            unused.give_back_unused();
        }
        read.map_err(FrameError::Io)
    }
}

impl<R: AsyncRead + Unpin> Stream for PooledReader<R> {
    type Item = Result<PooledBytes, FrameError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_next_frame(cx)
    }
}

impl<R: fmt::Debug> fmt::Debug for PooledReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledReader")
            .field("reader", &self.inner)
            .field("framing", &self.framing)
            .field("buffered", &self.buffer().len())
            .finish_non_exhaustive()
    }
}
