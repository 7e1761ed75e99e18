//! A limit on outstanding bytes.
//!
//! Owns the choice: with the feature `limit` a pool may have one, without it none can exist.

#[cfg(feature = "limit")]
mod queue;
#[cfg(feature = "limit")]
pub(crate) use queue::{Charged, Limit};

#[cfg(not(feature = "limit"))]
mod none;
#[cfg(not(feature = "limit"))]
pub(crate) use none::{Charged, Limit};
