//! A tiered byte-buffer pool.
#![deny(unsafe_op_in_unsafe_fn)]
#![warn(missing_docs, clippy::undocumented_unsafe_blocks)]

mod builder;
mod engine;
mod guard;
mod pool;
mod shared;
mod size_class;
mod slot;
mod stats;
mod sync;

pub use builder::{Builder, ConfigError};
pub use guard::PooledBuf;
pub use pool::Pool;
pub use stats::{ClassStats, Counts, Discards, Stats};
