//! Reads a body into one buffer. Owns its limit, and the errors of that.

use crate::buf::PooledBuf;
use crate::error::GetError;
use crate::pool::Pool;
use crate::units::Exact;
use ::bytes::{Buf, BufMut};
use ::http::HeaderMap;
use http_body::Body;
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;

/// A whole body, as [`collect`] returns it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Collected {
    /// The data of all frames, in order.
    pub buf: PooledBuf,
    /// The trailers, if the body had some.
    pub trailers: Option<HeaderMap>,
}

/// Reads a body to its end, into one buffer of the pool. Refuses more than `limit` bytes of data.
///
/// Trailers do not count towards the limit: the connection that reads them limits them.
///
/// If the future is dropped before it is done, the buffer is back in the pool.
///
/// # Cost
///
/// It takes no buffer before the first byte arrives. Then it takes one for all bytes that the body
/// announces: the lower bound of its [`size_hint`](Body::size_hint), which is a request's
/// `Content-Length`. So the data of a body of known length is copied once.
///
/// A body that announces less than it sends grows the buffer, as
/// [`try_reserve`](PooledBuf::try_reserve) does: each step is at least one and a half times the
/// capacity.
///
/// The future has room for the body twice. If the body is large, pass a `Box::pin(body)`.
///
/// **A client that announces `limit` bytes and sends 1 makes you hold a buffer for `limit` bytes**
/// until the body ends or fails. Put a timeout around the call.
///
/// # Errors
///
/// After each error, the body is dropped, and the buffer is back in the pool.
///
/// - [`CollectError::TooLarge`] if the body announces more than `limit` bytes, before any is read; or
///   if it sends more.
/// - [`CollectError::Body`] if the body fails.
/// - [`CollectError::NoBuffer`] if the heap or the pool's limit on outstanding bytes refuses the buffer. It
///   does not wait for room: a server answers with the status 503.
///
/// # Panics
///
/// - If a frame's `Buf` is faulty: it has bytes remaining, but an empty chunk.
/// - If the body has several frames of trailers, with more headers together than a `HeaderMap` holds.
///   HTTP has at most one such frame.
///
/// ```
/// use http_body_util::Full;
/// use hyper::body::Bytes;
/// use tierpool::Pool;
/// use tierpool::http::{CollectError, collect};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let pool = Pool::new();
/// let body = Full::<Bytes>::from("hello");
/// assert_eq!(collect(&pool, body.clone(), 5).await.unwrap().buf, "hello");
///
/// let refused = collect(&pool, body, 4).await.unwrap_err();
/// assert!(matches!(refused, CollectError::TooLarge { limit: 4, at_least: 5, .. }));
/// # });
/// ```
pub async fn collect<B: Body>(
    pool: &Pool,
    body: B,
    limit: usize,
) -> Result<Collected, CollectError<B::Error>> {
    let mut body = pin!(body);
    let at_least = body.size_hint().lower();
    if at_least > limit as u64 {
        return Err(CollectError::TooLarge { limit, at_least });
    }
    let announced = at_least as usize; // at most `limit`
    let mut buf = None;
    let mut trailers: Option<HeaderMap> = None;
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        match frame.map_err(CollectError::Body)?.into_data() {
            Ok(data) => append(pool, &mut buf, data, announced, limit)?,
            Err(frame) => match (frame.into_trailers(), &mut trailers) {
                (Ok(more), Some(trailers)) => trailers.extend(more),
                (Ok(first), None) => trailers = Some(first),
                (Err(_), _) => {} // a kind of frame that HTTP does not have yet
            },
        }
    }
    let buf = match buf {
        Some(buf) => buf,
        None => pool.try_get(0).map_err(CollectError::NoBuffer)?,
    };
    Ok(Collected { buf, trailers })
}

/// Appends a frame's data. Takes the buffer if these are the first bytes.
fn append<E>(
    pool: &Pool,
    buf: &mut Option<PooledBuf>,
    data: impl Buf,
    announced: usize,
    limit: usize,
) -> Result<(), CollectError<E>> {
    let more = data.remaining();
    if more == 0 {
        return Ok(());
    }
    let len = buf.as_ref().map_or(0, |buf| buf.len());
    if more > limit - len {
        let at_least = (len as u64).saturating_add(more as u64);
        return Err(CollectError::TooLarge { limit, at_least });
    }
    let buf = match buf {
        Some(buf) => {
            buf.try_reserve(more).map_err(CollectError::NoBuffer)?;
            buf
        }
        None => {
            let taken = pool.try_get(more.max(announced));
            buf.insert(taken.map_err(CollectError::NoBuffer)?)
        }
    };
    buf.put(data.take(more)); // no more than was checked, also if `data` is faulty
    Ok(())
}

/// Tells why [`collect`] returned no body. `E` is the error of the body.
///
/// A message names the limit and the remedy. The error of the body or of the pool is the
/// [`source`](Error::source).
///
/// ```
/// use http_body_util::Full;
/// use hyper::body::Bytes;
/// use tierpool::Pool;
/// use tierpool::http::collect;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let body = Full::<Bytes>::from(vec![0; 3 << 20]);
/// let error = collect(&Pool::new(), body, 2 << 20).await.unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "the body (at least 3 MiB) is above limit (2 MiB): no more is collected; send less, or raise \
///      limit"
/// );
/// # });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CollectError<E> {
    /// The body announces or sends more than `limit`.
    #[non_exhaustive]
    TooLarge {
        /// The most bytes of data that were to be collected.
        limit: usize,
        /// The bytes that the body announces, or has sent so far: it has at least as many.
        at_least: u64,
    },
    /// The body failed before its end. [`source`](Error::source) returns its error.
    Body(E),
    /// There is no buffer for the bytes that the body announces or has sent.
    /// [`source`](Error::source) returns the pool's error.
    NoBuffer(GetError),
}

impl<E> fmt::Display for CollectError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { limit, at_least } => write!(
                f,
                "the body (at least {}) is above limit ({}): no more is collected; send less, or \
                 raise limit",
                Exact(usize::try_from(*at_least).unwrap_or(usize::MAX)),
                Exact(*limit)
            ),
            Self::Body(_) => f.write_str("the body failed before its end"),
            Self::NoBuffer(_) => f.write_str("no buffer for the body"),
        }
    }
}

impl<E: Error + 'static> Error for CollectError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::TooLarge { .. } => None,
            Self::Body(error) => Some(error),
            Self::NoBuffer(error) => Some(error),
        }
    }
}
