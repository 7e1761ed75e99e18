//! Frames and chunks of a `tokio` [`AsyncRead`], without a copy.
//!
//! - [`PooledReader`] cuts frames out of a byte stream, by a length field or by a delimiter.
//! - [`PooledChunks`] returns the bytes as they come.
//! - `PooledFramedRead` returns the frames of a codec of `tokio-util`, with the feature `codec`.
//! - [`write_all_vectored`] writes parts of several buffers with few system calls.
//! - [`copy_bidirectional`] and [`copy()`] copy bytes between streams, as those of `tokio`.
//!
//! Frames and chunks are [`PooledBytes`], which share the buffer that they were
//! read into. A reader that waits for the first byte of a frame or chunk holds no buffer, so 10,000
//! idle connections hold none.
//!
//! # A limit on outstanding bytes
//!
//! In a pool with a limit (feature `limit`), a reader that holds no bytes waits for its turn, as
//! `Pool::get_async` does. A reader that holds a part of a frame goes above the limit, and so does a copy
//! whose other direction holds bytes: while it waited, others could wait for these bytes. A buffer above
//! the limit is an error, as one that the heap refuses.
//!
//! # Sources
//!
//! The readers need `R: Unpin`, as sockets are. For other sources, use `Box::pin(source)` as `R`.
//!
//! ```
//! use tierpool::Pool;
//! use tierpool::tokio::{Framing, PooledReader};
//! use tokio::io::AsyncWriteExt;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = Pool::new();
//! let (mut client, server) = tokio::io::duplex(64);
//! client.write_all(b"\x00\x05hello\x00\x05world").await?;
//! drop(client);
//!
//! let framing = Framing::length_field().bytes(2).build()?;
//! let mut frames = PooledReader::new(&pool, framing, server).max_frame_bytes(1024);
//! let mut got = Vec::new();
//! while let Some(frame) = frames.next_frame().await {
//!     got.push(frame?);
//! }
//! assert_eq!(got, ["hello", "world"]);
//! assert_eq!(pool.stats().total.outstanding, 1); // both share one buffer
//! drop(got);
//! assert_eq!(pool.stats().total.outstanding, 0);
//! # Ok(())
//! # }
//! ```

mod chunks;
#[cfg(feature = "codec")]
mod codec;
mod copy;
mod error;
mod framing;
mod reader;
mod turn;
mod write;

pub use chunks::PooledChunks;
#[cfg(feature = "codec")]
pub use codec::PooledFramedRead;
pub use copy::{copy, copy_bidirectional, copy_bidirectional_with_sizes, copy_with_size};
pub use error::{FrameError, FramingError};
pub use framing::{Framing, LengthField};
pub use reader::PooledReader;
pub use write::write_all_vectored;

use crate::buf::{PooledBuf, PooledBytes};
use crate::error::GetError;
use crate::pool::Pool;
use ::bytes::Buf;
use ::tokio::io::AsyncRead;
use std::io;
use std::task::{Context, Poll, ready};
use turn::{Turn, get_above_limit};

/// Takes a buffer and reads once, at most `most` bytes. Returns the buffer, or `None` at the source's end.
///
/// Holds no buffer while the source has no bytes.
fn poll_read_new<R: AsyncRead + Unpin + ?Sized>(
    pool: &Pool,
    turn: &mut Turn,
    size: usize,
    source: &mut R,
    cx: &mut Context<'_>,
    most: usize,
) -> Poll<io::Result<Option<PooledBuf>>> {
    let mut buf = ready!(turn.poll_get(pool, size, cx))?;
    match buf.poll_read_from(source, cx, most) {
        Poll::Ready(Ok(1..)) => Poll::Ready(Ok(Some(buf))),
        nothing => {
            buf.give_back_unused();
            nothing.map_ok(|_| None)
        }
    }
}

/// Makes room in `buf` for `least` bytes, and for more of at most `most` if that costs little. Buffers have
/// `usual` bytes, or more for more contents.
///
/// Not with `try_reserve`: after one large frame, all buffers that follow would be as large.
fn poll_room(
    pool: &Pool,
    turn: &mut Turn,
    buf: &mut Option<PooledBuf>,
    usual: usize,
    (least, most): (usize, usize),
    cx: &mut Context<'_>,
) -> Poll<Result<(), GetError>> {
    let Some(full) = buf else {
        *buf = Some(ready!(turn.poll_get(pool, least.max(usual), cx))?);
        return Poll::Ready(Ok(()));
    };
    // A quarter: a read of a few bytes costs a system call as well.
    let room = least.max(most.min(usual / 4));
    if full.capacity() - full.len() >= room {
        return Poll::Ready(Ok(()));
    }
    // As many bytes again, so that each byte is copied a few times at most.
    let room = room.max(most.min(full.len()));
    let size = full.len().saturating_add(room).max(usual);
    let mut larger = get_above_limit(pool, size)?;
    larger.extend_from_slice(full);
    *full = larger;
    Poll::Ready(Ok(()))
}

/// Cuts the first `len` bytes off. Copies them if they are fewer than `copy_below`.
fn cut(
    pool: &Pool,
    buf: &mut PooledBuf,
    len: usize,
    copy_below: usize,
) -> Result<PooledBytes, GetError> {
    if len == 0 || len >= copy_below {
        return Ok(buf.split_to(len));
    }
    let mut copy = get_above_limit(pool, len)?;
    copy.extend_from_slice(&buf[..len]);
    buf.advance(len);
    Ok(copy.freeze())
}
