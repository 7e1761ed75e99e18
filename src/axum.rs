//! Pooled bytes as an answer of `axum`. Owns nothing.

use crate::buf::{PooledBuf, PooledBytes};
use ::bytes::Bytes;
use axum_core::response::{IntoResponse, Response};

impl IntoResponse for PooledBytes {
    /// Answers with these bytes, as `axum` does with [`Bytes`]: the content type is
    /// `application/octet-stream`.
    ///
    /// Copies nothing; allocates a few words. The buffer goes home once the bytes are sent.
    fn into_response(self) -> Response {
        Bytes::from(self).into_response()
    }
}

impl IntoResponse for PooledBuf {
    /// As a frozen guard: see [`PooledBuf::freeze`].
    fn into_response(self) -> Response {
        self.freeze().into_response()
    }
}
