//! Frames and chunks of a `tokio` [`AsyncRead`](::tokio::io::AsyncRead), without a copy.
//!
//! - [`PooledReader`] cuts frames out of a byte stream, by a length field or by a delimiter.
//! - [`PooledChunks`] returns the bytes as they come.
//! - [`write_all_vectored`] writes parts of several buffers with few system calls.
//! - [`copy_bidirectional`] and [`copy`] copy bytes between streams, as those of `tokio`.
//!
//! Frames and chunks are [`PooledBytes`], which share the buffer that they were
//! read into. A reader that waits for the first byte of a frame or chunk holds no buffer, so 10,000
//! idle connections hold none.
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
mod copy;
mod error;
mod framing;
mod reader;
mod write;

pub use chunks::PooledChunks;
pub use copy::{copy, copy_bidirectional, copy_bidirectional_with_sizes, copy_with_size};
pub use error::{FrameError, FramingError};
pub use framing::{Framing, LengthField};
pub use reader::PooledReader;
pub use write::write_all_vectored;

use crate::buf::{PooledBuf, PooledBytes};
use crate::error::GetError;
use crate::pool::Pool;
use ::bytes::Buf;

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
    let mut copy = pool.try_get(len)?;
    copy.extend_from_slice(&buf[..len]);
    buf.advance(len);
    Ok(copy.freeze())
}
