//! A body of one piece.

use crate::buf::{PooledBuf, PooledBytes};
use http_body::{Body, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// An HTTP body of one piece, whose buffer goes home when it is sent.
///
/// Nothing is copied and nothing is allocated. Its length is known, so HTTP/1 sends a
/// `Content-Length`. Clones share the buffer.
///
/// It is `http_body_util::Full<PooledBytes>` without that crate. For a body that is made piece by piece,
/// implement [`Body`] with `Data = PooledBytes`.
///
/// ```
/// use hyper::body::Body;
/// use tierpool::Pool;
/// use tierpool::http::PooledBody;
///
/// let pool = Pool::new();
/// let body = PooledBody::from(pool.copy_from_slice(b"hello"));
/// assert_eq!(body.size_hint().exact(), Some(5));
/// drop(body);
/// assert_eq!(pool.stats().total.outstanding, 0);
/// ```
#[derive(Clone, Debug, Default)]
pub struct PooledBody {
    /// Never empty.
    data: Option<PooledBytes>,
}

impl PooledBody {
    /// Makes a body with no bytes and no buffer.
    ///
    /// ```
    /// use hyper::body::Body;
    /// use tierpool::http::PooledBody;
    ///
    /// assert!(PooledBody::empty().is_end_stream());
    /// ```
    #[must_use]
    pub const fn empty() -> Self {
        PooledBody { data: None }
    }
}

impl From<PooledBytes> for PooledBody {
    /// If there are no bytes, the buffer goes home at once.
    fn from(data: PooledBytes) -> Self {
        PooledBody {
            data: Some(data).filter(|data| !data.is_empty()),
        }
    }
}

impl From<PooledBuf> for PooledBody {
    /// The same as from [`PooledBuf::freeze`].
    fn from(buf: PooledBuf) -> Self {
        buf.freeze().into()
    }
}

impl Body for PooledBody {
    type Data = PooledBytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<PooledBytes>, Infallible>>> {
        Poll::Ready(self.data.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let len = self.data.as_ref().map_or(0, PooledBytes::len);
        SizeHint::with_exact(len as u64)
    }
}
