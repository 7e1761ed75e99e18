//! A tiered byte-buffer pool: owned [`BytesMut`](bytes::BytesMut) guards that
//! go home by themselves.
//!
//! [`Pool::get`] hands out a [`PooledBuf`] that dereferences to `BytesMut`. When
//! it is dropped, or the last [`Bytes`](bytes::Bytes) frozen from it, the buffer
//! goes back: to the dropping thread's cache, from there in batches to a depot
//! that all threads share, and to the heap when these are full.
//!
//! ```
//! use bytes::BufMut;
//! use tierpool::Pool;
//!
//! let pool = Pool::builder().min_size(512).max_size(1 << 20).build()?;
//!
//! let mut buf = pool.get(3000); // empty; the 4096-byte class holds it
//! buf.put_slice(b"hello");
//! assert_eq!((&buf[..], buf.capacity()), (&b"hello"[..], 4096));
//! drop(buf); // goes home by itself
//!
//! let again = pool.get(4000); // a local hit: no lock, nothing allocated
//! assert_eq!(pool.stats().total.local_hits, 1);
//!
//! let frozen = again.freeze(); // a `Bytes`; home when its last clone is dropped
//! std::thread::spawn(move || drop(frozen)).join().unwrap(); // on any thread
//! assert_eq!(pool.stats().total.outstanding, 0);
//! # Ok::<(), tierpool::ConfigError>(())
//! ```
//!
//! # Levels
//!
//! | level | holds | a hit costs |
//! |---|---|---|
//! | thread cache | up to 64 buffers or 512 KiB of each size class, at least 2 (1 above 2 MiB) | no lock, no atomic read-modify-write |
//! | depot | up to 16 MiB of each size class, at least one magazine | one exchange for up to 32 buffers |
//! | depot, loose | up to 512 KiB of each size class, or of twice its capacity | one exchange for each buffer |
//! | heap | | an allocation |
//!
//! These are the bounds on what the pool retains. What is above them is freed
//! on return, and counted. Loose are buffers whose capacity is not exactly their
//! class's, and what ending threads leave over.
//!
//! # Safety
//!
//! No safe call shows what a buffer held before: a buffer comes out with length
//! 0, and its spare capacity is only to be had as uninitialised memory. See
//! [`Builder::zero_on_return`] for programs that want it overwritten as well.
#![deny(unsafe_op_in_unsafe_fn)]
#![warn(missing_docs, clippy::undocumented_unsafe_blocks)]

mod builder;
mod config;
mod engine;
mod error;
mod guard;
mod pool;
mod shared;
mod size_class;
mod slot;
mod stats;
mod sync;

pub use builder::Builder;
pub use error::ConfigError;
pub use guard::PooledBuf;
pub use pool::Pool;
pub use stats::{ClassStats, Counts, Discards, Stats};

// The README's example is tested with the others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
