//! HTTP bodies: [`collect()`] reads a body into one buffer of a pool, and [`PooledBody`] sends one.
//!
//! They work with each crate that has the bodies of `http-body`, such as `hyper` and `axum`. A
//! [`PooledBytes`](crate::PooledBytes) can also be the data of any other body, since it is a
//! [`Buf`](bytes::Buf).
//!
//! A handler that answers with the same bytes, and takes at most 1 MiB:
//!
//! ```
//! use http_body_util::Full;
//! use hyper::body::{Body, Bytes};
//! use hyper::{Request, Response, StatusCode};
//! use tierpool::Pool;
//! use tierpool::http::{CollectError, PooledBody, collect};
//!
//! async fn echo<B: Body>(pool: &Pool, request: Request<B>) -> Response<PooledBody> {
//!     let refusal = match collect(pool, request.into_body(), 1 << 20).await {
//!         Ok(collected) => return Response::new(PooledBody::from(collected.buf)),
//!         Err(CollectError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
//!         Err(CollectError::OutOfMemory(_)) => StatusCode::SERVICE_UNAVAILABLE,
//!         Err(_) => StatusCode::BAD_REQUEST, // the client has gone, or broke the protocol
//!     };
//!     let mut response = Response::new(PooledBody::empty());
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

mod body;
mod collect;

pub use body::PooledBody;
pub use collect::{CollectError, Collected, collect};
