//! HTTP bodies: [`collect()`] reads a body into one buffer of a pool, and `ReaderBody` streams one.
//!
//! They work with each crate that has the bodies of `http-body`, such as `hyper` and `axum`.
//!
//! - [`collect()`] receives a body as a whole, up to a limit.
//! - `ReaderBody` sends an `AsyncRead`, such as a file, in pooled chunks. It needs the feature `tokio`
//!   as well.
//! - To send bytes that are there, use them as they are: a [`PooledBytes`](crate::PooledBytes) is a
//!   [`Buf`](::bytes::Buf), and so the data of a body, such as `http_body_util::Full<PooledBytes>`.
//!
//! See [`guide::bodies`](crate::guide::bodies) for a server that does all three.
//!
//! A handler that answers with the same bytes, and takes at most 1 MiB:
//!
//! ```
//! use http_body_util::Full;
//! use hyper::body::{Body, Bytes};
//! use hyper::{Request, Response, StatusCode};
//! use tierpool::http::{CollectError, collect};
//! use tierpool::{Pool, PooledBytes};
//!
//! type Answer = Response<Full<PooledBytes>>;
//!
//! async fn echo<B: Body>(pool: &Pool, request: Request<B>) -> Answer {
//!     let refusal = match collect(pool, request.into_body(), 1 << 20).await {
//!         Ok(collected) => return Response::new(Full::new(collected.buf.freeze())),
//!         Err(CollectError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
//!         Err(CollectError::NoBuffer(_)) => StatusCode::SERVICE_UNAVAILABLE,
//!         Err(_) => StatusCode::BAD_REQUEST, // the client has gone, or broke the protocol
//!     };
//!     let mut response = Answer::default();
//!     *response.status_mut() = refusal;
//!     response
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let pool = Pool::new();
//! let hello = Request::new(Full::<Bytes>::from("hello"));
//! let answer = collect(&pool, echo(&pool, hello).await.into_body(), 5).await?;
//! assert_eq!(answer.buf, "hello");
//!
//! let large = Request::new(Full::<Bytes>::from(vec![0; (1 << 20) + 1]));
//! assert_eq!(echo(&pool, large).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
//!
//! drop(answer);
//! assert_eq!(pool.stats().total.outstanding, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod collect;
#[cfg(feature = "tokio")]
mod reader_body;

pub use collect::{CollectError, Collected, collect};
#[cfg(feature = "tokio")]
pub use reader_body::{BodyError, ReaderBody};
