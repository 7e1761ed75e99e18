//! Copies bytes between streams, and holds a buffer only while there are bytes in it.

use super::poll_read_new;
use super::turn::Turn;
use crate::buf::PooledBuf;
use crate::io::SIZE_DEFAULT;
use crate::pool::Pool;
use ::tokio::io::{AsyncRead, AsyncWrite};
use std::future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The most calls of one direction in one poll, reads and writes together.
///
/// 64: half of the calls that tokio allows a task at a time. So neither direction can use up the other
/// one's calls.
const CALLS_MAX: usize = 64;

/// Copies all bytes of `reader` to `writer`, through buffers of at least 8 KiB. Returns their number.
///
/// The same as `tokio::io::copy`, but it holds a buffer only while there are bytes in it. It flushes
/// the writer at the end, and whenever the reader has no bytes for now. It does not shut the writer down.
///
/// # Memory and cost
///
/// - While the reader has no bytes, it holds no buffer: a poll that finds nothing takes one and gives it
///   back.
/// - While the writer takes no bytes, it holds one buffer, and does not read.
/// - Nothing is zeroed before a read into a buffer that was idle in the pool.
/// - After 64 calls in a row, it lets other tasks run, on any runtime.
///
/// # Cancel safety
///
/// If the future is dropped, its buffer goes home. The bytes in it are lost: they were read and are
/// not written.
///
/// # Errors
///
/// - The error of the reader or of the writer. Interrupted calls are repeated. Bytes that were read and
///   not written are lost.
/// - [`WriteZero`](io::ErrorKind::WriteZero) if the writer takes no more bytes.
/// - A [`GetError`](crate::GetError) in an [`io::Error`], if there is no buffer: see [the limit](crate::tokio#a-limit-on-outstanding-bytes).
///
/// ```
/// use tierpool::Pool;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let pool = Pool::new();
/// let mut written = Vec::new();
/// let count = tierpool::tokio::copy(&pool, &mut &b"some bytes"[..], &mut written).await?;
/// assert_eq!((count, &written[..]), (10, &b"some bytes"[..]));
/// # Ok(())
/// # }
/// ```
pub async fn copy<R, W>(pool: &Pool, reader: &mut R, writer: &mut W) -> io::Result<u64>
where
    R: AsyncRead + Unpin + ?Sized,
    W: AsyncWrite + Unpin + ?Sized,
{
    copy_with_size(pool, reader, writer, SIZE_DEFAULT).await
}

/// As [`copy`], with buffers of at least `size` bytes, or 1 if that is 0.
///
/// The pool rounds the size up to a size class, and a read may fill all of that.
///
/// # Errors
///
/// - Those of [`copy`].
pub async fn copy_with_size<R, W>(
    pool: &Pool,
    reader: &mut R,
    writer: &mut W,
    size: usize,
) -> io::Result<u64>
where
    R: AsyncRead + Unpin + ?Sized,
    W: AsyncWrite + Unpin + ?Sized,
{
    let mut direction = Direction::new(pool, size);
    future::poll_fn(|cx| direction.poll_copy(cx, reader, writer)).await
}

/// Copies all bytes of `a` to `b`, and all bytes of `b` to `a`. Returns their numbers, in that order.
///
/// The same as `tokio::io::copy_bidirectional`, but each direction holds a buffer only while there are
/// bytes in it: see [`copy`]. So 10,000 idle connections hold no buffer.
///
/// At the end of one stream, it flushes the other one and shuts its writing down. The other direction goes
/// on. It is done when both directions are.
///
/// # Cancel safety
///
/// If the future is dropped, its buffers go home. The bytes in them are lost, at most one buffer in each
/// direction.
///
/// # Errors
///
/// - The first error of either direction, as for [`copy`], or of a shutdown. The other direction stops, too.
///
/// ```
/// use tierpool::Pool;
/// use tierpool::tokio::copy_bidirectional;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::new();
/// let ((mut client, mut near), (mut far, mut server)) = (duplex(64), duplex(64));
/// let relay = tokio::spawn({
///     let pool = pool.clone();
///     async move { copy_bidirectional(&pool, &mut near, &mut far).await }
/// });
///
/// client.write_all(b"ping").await?;
/// client.shutdown().await?; // the server reads to the end, and can still answer
/// let mut request = String::new();
/// server.read_to_string(&mut request).await?;
/// server.write_all(b"pong!").await?;
/// drop(server);
///
/// assert_eq!((&request[..], relay.await??), ("ping", (4, 5)));
/// assert_eq!(pool.stats().total.outstanding, 0);
/// # Ok(())
/// # }
/// ```
pub async fn copy_bidirectional<A, B>(pool: &Pool, a: &mut A, b: &mut B) -> io::Result<(u64, u64)>
where
    A: AsyncRead + AsyncWrite + Unpin + ?Sized,
    B: AsyncRead + AsyncWrite + Unpin + ?Sized,
{
    copy_bidirectional_with_sizes(pool, a, b, SIZE_DEFAULT, SIZE_DEFAULT).await
}

/// As [`copy_bidirectional`], with a size of the buffers for each direction.
///
/// The sizes are as in [`copy_with_size`].
///
/// # Errors
///
/// - Those of [`copy_bidirectional`].
pub async fn copy_bidirectional_with_sizes<A, B>(
    pool: &Pool,
    a: &mut A,
    b: &mut B,
    a_to_b_size: usize,
    b_to_a_size: usize,
) -> io::Result<(u64, u64)>
where
    A: AsyncRead + AsyncWrite + Unpin + ?Sized,
    B: AsyncRead + AsyncWrite + Unpin + ?Sized,
{
    let mut a_to_b = Direction::new(pool, a_to_b_size);
    let mut b_to_a = Direction::new(pool, b_to_a_size);
    future::poll_fn(|cx| {
        // Both, whatever comes of the first. The peer may read the bytes of one direction only after
        // those of the other.
        a_to_b.turn.holds_bytes = b_to_a.buf.is_some();
        let there = a_to_b.poll_to_shutdown(cx, a, b)?;
        b_to_a.turn.holds_bytes = a_to_b.buf.is_some();
        let back = b_to_a.poll_to_shutdown(cx, b, a)?;
        Poll::Ready(Ok((ready!(there), ready!(back))))
    })
    .await
}

/// How far a direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Copying,
    /// The reader is at its end, and all bytes are written.
    LastFlush,
    /// The writer is flushed.
    Shutdown,
    Done,
}

/// The copy of one stream's bytes to another stream.
struct Direction<'a> {
    pool: &'a Pool,
    size: usize,
    stage: Stage,
    turn: Turn,
    /// Never without unwritten bytes between two polls.
    buf: Option<PooledBuf>,
    /// Bytes of the buffer that are written.
    // Not advanced over: the buffer goes home as it left.
    written: usize,
    /// Bytes that are written in all.
    copied: u64,
    /// Whether bytes were written since the last flush.
    to_flush: bool,
}

impl<'a> Direction<'a> {
    fn new(pool: &'a Pool, size: usize) -> Self {
        Direction {
            pool,
            size: size.max(1),
            stage: Stage::Copying,
            turn: Turn::default(),
            buf: None,
            written: 0,
            copied: 0,
            to_flush: false,
        }
    }

    /// Copies to the end of the reader, and flushes the writer.
    fn poll_copy<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
    ) -> Poll<io::Result<u64>>
    where
        R: AsyncRead + Unpin + ?Sized,
        W: AsyncWrite + Unpin + ?Sized,
    {
        if self.stage == Stage::Copying {
            ready!(self.poll_turns(cx, reader, writer))?;
            self.stage = Stage::LastFlush;
        }
        if self.stage == Stage::LastFlush {
            ready!(Pin::new(writer).poll_flush(cx))?;
            self.stage = Stage::Shutdown;
        }
        Poll::Ready(Ok(self.copied))
    }

    /// As [`poll_copy`](Self::poll_copy). Shuts the writer down then.
    fn poll_to_shutdown<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
    ) -> Poll<io::Result<u64>>
    where
        R: AsyncRead + Unpin + ?Sized,
        W: AsyncWrite + Unpin + ?Sized,
    {
        let copied = ready!(self.poll_copy(cx, reader, writer))?;
        if self.stage == Stage::Shutdown {
            ready!(Pin::new(writer).poll_shutdown(cx))?;
            self.stage = Stage::Done;
        }
        Poll::Ready(Ok(copied))
    }

    /// Reads and writes by turns, until the reader is at its end and all bytes are written.
    fn poll_turns<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin + ?Sized,
        W: AsyncWrite + Unpin + ?Sized,
    {
        for _ in 0..CALLS_MAX {
            let called = match self.buf {
                Some(_) => ready!(self.poll_write(cx, writer)),
                None => match self.poll_read(cx, reader) {
                    Poll::Ready(Ok(false)) => return Poll::Ready(Ok(())),
                    Poll::Ready(read) => read.map(drop),
                    Poll::Pending => {
                        // The reader may depend on what the writer still holds.
                        if self.to_flush {
                            ready!(Pin::new(writer).poll_flush(cx))?;
                            self.to_flush = false;
                        }
                        return Poll::Pending;
                    }
                },
            };
            match called {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Poll::Ready(Err(error));
                }
                _ => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once. Returns `false` at the end of the reader.
    fn poll_read<R>(&mut self, cx: &mut Context<'_>, reader: &mut R) -> Poll<io::Result<bool>>
    where
        R: AsyncRead + Unpin + ?Sized,
    {
        let read = poll_read_new(self.pool, &mut self.turn, self.size, reader, cx, usize::MAX);
        self.buf = ready!(read)?;
        self.written = 0;
        Poll::Ready(Ok(self.buf.is_some()))
    }

    /// Writes once. Gives the buffer back if all bytes in it are written then.
    fn poll_write<W>(&mut self, cx: &mut Context<'_>, writer: &mut W) -> Poll<io::Result<()>>
    where
        W: AsyncWrite + Unpin + ?Sized,
    {
        let rest = self
            .buf
            .as_deref()
            .map_or(&[][..], |buf| &buf[self.written..]);
        let taken = ready!(Pin::new(writer).poll_write(cx, rest))?;
        if taken == 0 {
            let text = "the writer takes no more of the bytes";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::WriteZero, text)));
        }
        let left = rest.len().saturating_sub(taken); // a faulty writer may claim more
        let taken = rest.len() - left;
        self.written += taken;
        self.copied += taken as u64;
        self.to_flush = true;
        if left == 0 {
            self.buf = None;
        }
        Poll::Ready(Ok(()))
    }
}
