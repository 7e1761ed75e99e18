//! Writes parts of several buffers at once.

use crate::buf::PooledBytes;
use ::bytes::Buf;
use ::tokio::io::AsyncWrite;
use std::future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Poll, ready};

/// The most parts of one write. 64: as in `tokio`'s `write_all_buf`.
const SLICES_MAX: usize = 64;

/// Writes all bytes of `parts`, in their order and without a copy. Does not flush.
///
/// Each write passes up to 64 parts to [`AsyncWrite::poll_write_vectored`]. Bytes that are written are
/// cut off `parts`, and a part that is written lets go of its buffer. So it is cancel safe: if the
/// future is dropped, `parts` are the bytes that are not written, and a further call writes them.
///
/// # Errors
///
/// - The error of the writer. Then `parts` are the bytes that are not written.
/// - [`WriteZero`](io::ErrorKind::WriteZero) if the writer takes no more bytes.
///
/// ```
/// use tierpool::Pool;
/// use tierpool::tokio::write_all_vectored;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let pool = Pool::new();
/// let mut parts = ["head ", "body"].map(|part| pool.copy_from_slice(part.as_bytes()).freeze());
/// let mut written = Vec::new();
/// write_all_vectored(&mut written, &mut parts).await?;
/// assert_eq!(written, b"head body");
/// assert_eq!(pool.stats().total.outstanding, 0);
/// # Ok(())
/// # }
/// ```
pub async fn write_all_vectored<W: AsyncWrite + Unpin + ?Sized>(
    writer: &mut W,
    parts: &mut [PooledBytes],
) -> io::Result<()> {
    let mut written = 0; // parts, from the front
    future::poll_fn(|cx| {
        loop {
            written += let_go(&mut parts[written..], 0);
            let rest = &parts[written..];
            if rest.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = rest.len().min(SLICES_MAX);
            for (slice, part) in slices.iter_mut().zip(rest) {
                *slice = IoSlice::new(part);
            }
            let slices = &slices[..count];
            let bytes = ready!(Pin::new(&mut *writer).poll_write_vectored(cx, slices))?;
            if bytes == 0 {
                let text = "the writer takes no more of the bytes";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::WriteZero, text)));
            }
            // Only what the writer got: a faulty one may claim more.
            written += let_go(&mut parts[written..][..count], bytes);
        }
    })
    .await
}

/// Cuts the first `bytes` bytes off `parts`. Returns how many parts are empty then, from the front.
fn let_go(parts: &mut [PooledBytes], mut bytes: usize) -> usize {
    for (at, part) in parts.iter_mut().enumerate() {
        if bytes < part.len() {
            part.advance(bytes);
            return at;
        }
        bytes -= part.len();
        part.clear();
    }
    parts.len()
}
