//! A body that streams an `AsyncRead`. Owns how its length and its end compare with the source's.

use crate::buf::PooledBytes;
use crate::error::GetError;
use crate::pool::Pool;
use crate::tokio::PooledChunks;
use ::http::HeaderMap;
use ::tokio::io::AsyncRead;
use http_body::{Body, Frame, SizeHint};
use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A body that reads `R` while it is sent, in chunks of a pool.
///
/// The chunks need no copy: each is read into a buffer, and the buffer goes home once the chunk is
/// written to the connection.
///
/// It needs the features `http-body` and `tokio`, and `R: Unpin`, as files and sockets are. For other
/// sources, use `Box::pin(source)` as `R`.
///
/// # Length
///
/// Without [`content_length`](Self::content_length), the body ends where the source ends. HTTP/1 frames
/// each chunk then. With a length:
///
/// - [`size_hint`](Body::size_hint) is exact, so hyper sends the header `Content-Length`.
/// - A longer source is read as far as the length. The rest stays in the source. So a log file that
///   grows is sent as it was when its length was read.
/// - A shorter source is an error, [`BodyError::TooShort`]. The peer waits for bytes that never come, so
///   the server must close the connection. hyper does so after each error of a body.
///
/// # Memory and cost
///
/// It holds no buffer between two polls. While the source has nothing, no buffer is out: a poll takes one
/// and gives it back. After an error, after the end, and if it is dropped half-way, it holds nothing.
/// It drops the source at the end.
///
/// Chunks that wait for a slow peer are the connection's: hyper holds a few at a time.
///
/// ```
/// use http_body_util::BodyExt;
/// use hyper::body::Body;
/// use tierpool::Pool;
/// use tierpool::http::ReaderBody;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let pool = Pool::new();
/// let source = &b"some bytes, and more"[..];
/// let mut body = ReaderBody::new(&pool, source).content_length(10).chunk_bytes(4);
/// assert_eq!(body.size_hint().exact(), Some(10));
///
/// let mut got = Vec::new();
/// while let Some(frame) = body.frame().await {
///     got.push(frame?.into_data().unwrap());
/// }
/// assert_eq!(got, ["some", " byt", "es"]);
/// # Ok::<(), tierpool::http::BodyError>(())
/// # }).unwrap();
/// ```
pub struct ReaderBody<R> {
    /// `None` after the end of the data or an error.
    chunks: Option<PooledChunks<R>>,
    /// The bytes of the whole body, if that is known.
    length: Option<u64>,
    sent: u64,
    trailers: Option<HeaderMap>,
}

impl<R> ReaderBody<R> {
    /// Returns a body of unknown length, in chunks of at most 8 KiB.
    pub fn new(pool: &Pool, source: R) -> Self {
        ReaderBody {
            chunks: Some(PooledChunks::new(pool, source)),
            length: None,
            sent: 0,
            trailers: None,
        }
    }

    /// Sets the most bytes of a chunk. With 0, it is 1.
    ///
    /// For files, 64 KiB takes fewer system calls than the default of 8 KiB.
    #[must_use]
    pub fn chunk_bytes(mut self, bytes: usize) -> Self {
        self.chunks = self.chunks.map(|chunks| chunks.chunk_bytes(bytes));
        self
    }

    /// Sets the bytes of the whole body. See [Length](Self#length).
    ///
    /// ```
    /// use http_body_util::BodyExt;
    /// use tierpool::Pool;
    /// use tierpool::http::{BodyError, ReaderBody};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let body = ReaderBody::new(&Pool::new(), &b"short"[..]).content_length(8);
    /// let error = body.collect().await.unwrap_err();
    /// assert!(matches!(error, BodyError::TooShort { expected: 8, sent: 5, .. }));
    /// # });
    /// ```
    #[must_use]
    pub fn content_length(mut self, bytes: u64) -> Self {
        self.length = Some(bytes);
        self
    }

    /// Sends these trailers after the data.
    ///
    /// HTTP/1 has trailers only in bodies of unknown length. hyper sends them if the header `Trailer` lists
    /// them and, from a server, if the request has `TE: trailers`. Otherwise it leaves them out.
    ///
    /// For trailers that depend on the data, use `http_body_util::BodyExt::with_trailers`.
    #[must_use]
    pub fn trailers(mut self, trailers: HeaderMap) -> Self {
        self.trailers = Some(trailers);
        self
    }

    /// The bytes of data that are still to be sent, if that is known.
    fn left(&self) -> Option<u64> {
        match self.chunks {
            Some(_) => Some(self.length?.saturating_sub(self.sent)),
            None => Some(0),
        }
    }
}

impl<R: AsyncRead + Unpin> ReaderBody<R> {
    /// Returns the next bytes of the source, and `None` at the end of the body.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<PooledBytes>, BodyError>> {
        let left = self.left();
        let Some(chunks) = self.chunks.as_mut().filter(|_| left != Some(0)) else {
            return Poll::Ready(Ok(None));
        };
        let most = left.map_or(usize::MAX, |left| left.try_into().unwrap_or(usize::MAX));
        Poll::Ready(match ready!(chunks.poll_chunk_up_to(cx, most)) {
            Some(Ok(chunk)) => {
                self.sent += chunk.len() as u64;
                Ok(Some(chunk))
            }
            Some(Err(error)) => Err(error.into()),
            None => match self.length {
                Some(expected) => Err(BodyError::TooShort {
                    expected,
                    sent: self.sent,
                }),
                None => Ok(None),
            },
        })
    }
}

impl<R: AsyncRead + Unpin> Body for ReaderBody<R> {
    type Data = PooledBytes;
    type Error = BodyError;

    /// Returns the next chunk, then the trailers, then `None`. After an error it returns `None`.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<PooledBytes>, BodyError>>> {
        let data = ready!(self.poll_data(cx));
        if let Ok(Some(chunk)) = data {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        self.chunks = None;
        let trailers = self.trailers.take();
        Poll::Ready(match data {
            Err(error) => Some(Err(error)),
            Ok(_) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left() == Some(0) && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.left().map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl<R: fmt::Debug> fmt::Debug for ReaderBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReaderBody")
            .field("source", &self.chunks.as_ref().map(PooledChunks::get_ref))
            .field("content_length", &self.length)
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}

/// Tells why a [`ReaderBody`] ends before its end.
///
/// ```
/// use http_body_util::BodyExt;
/// use tierpool::Pool;
/// use tierpool::http::ReaderBody;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let body = ReaderBody::new(&Pool::new(), &b"short"[..]).content_length(8);
/// assert_eq!(
///     body.collect().await.unwrap_err().to_string(),
///     "the source ended after 5 bytes of content_length (8 bytes): the body is cut off; announce \
///      what the source has"
/// );
/// # });
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum BodyError {
    /// The source ended before [`content_length`](ReaderBody::content_length).
    #[non_exhaustive]
    TooShort {
        /// The bytes that were announced.
        expected: u64,
        /// The bytes that the source had.
        sent: u64,
    },
    /// The source failed. [`source`](Error::source) returns its error.
    Source(io::Error),
    /// There is no buffer for the next chunk. [`source`](Error::source) returns the pool's error.
    NoBuffer(GetError),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { expected, sent } => write!(
                f,
                "the source ended after {sent} bytes of content_length ({expected} bytes): the body is \
                 cut off; announce what the source has"
            ),
            Self::Source(_) => f.write_str("the source of the body failed"),
            Self::NoBuffer(_) => f.write_str("no buffer for a chunk of the body"),
        }
    }
}

impl Error for BodyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::TooShort { .. } => None,
            Self::Source(error) => Some(error),
            Self::NoBuffer(error) => Some(error),
        }
    }
}

impl From<io::Error> for BodyError {
    /// A [`GetError`] in it becomes `NoBuffer`. All others become `Source`.
    fn from(error: io::Error) -> Self {
        match error.downcast() {
            Ok(error) => Self::NoBuffer(error),
            Err(error) => Self::Source(error),
        }
    }
}
