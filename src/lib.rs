//! A tiered byte-buffer pool: owned [`BytesMut`](bytes::BytesMut) guards that go home by themselves.
//!
//! [`Pool::get`] hands out a [`PooledBuf`] that dereferences to `BytesMut`. Its contents can be cut
//! into [`PooledBytes`], which share its buffer without a copy. When all of these are dropped, the
//! buffer goes back to the cache of the dropping thread. From there, buffers move in batches to a
//! depot that all threads share. When these are full, buffers go to the heap.
//!
//! ```
//! use bytes::BufMut;
//! use tierpool::Pool;
//!
//! let pool = Pool::new();
//!
//! let mut buf = pool.get(3000); // empty; the 4096-byte class holds it
//! buf.put_slice(b"hello");
//! assert_eq!((&buf[..], buf.capacity()), (&b"hello"[..], 4096));
//! drop(buf); // goes home by itself
//!
//! let mut again = pool.get(4000); // a local hit: no lock, nothing allocated
//! assert_eq!(pool.stats().total.local_hits, 1);
//!
//! again.put_slice(b"frame 1frame 2");
//! let first = again.split_to(7); // shares the buffer; nothing is copied or allocated
//! let second = again.freeze();
//! assert_eq!(first, "frame 1");
//! drop(first);
//! std::thread::spawn(move || drop(second)).join().unwrap(); // on any thread
//! assert_eq!(pool.stats().total.outstanding, 0);
//! ```
//!
//! The [`guide`] has a server, line by line, and pages on memory, options, threads and troubleshooting.
//!
//! # Levels
//!
//! | level | holds | a hit costs |
//! |---|---|---|
//! | thread cache | up to 64 buffers or 512 KiB of each size class, at least 2 (1 above 2 MiB); [8 MiB](Builder::thread_cache_bytes) in all | no lock, no atomic read-modify-write |
//! | depot | up to the budget | one exchange for up to 32 buffers |
//! | depot, loose | buffers whose capacity is not exactly their class's, and partial magazines | one exchange for each buffer |
//! | heap | | an allocation |
//!
//! # Memory
//!
//! The levels together never retain more than the [budget](Builder::retain_bytes), at any moment. A
//! returned buffer that finds no room is freed and [counted](Discards::full).
//!
//! A [trim](Pool::trim) frees the buffers that no one used since the last one.
//! [Trims come by time](Builder::trim_interval), too. With [`Builder::release_when_idle`], memory that
//! was not needed for some time goes back to the system, also while the program rests.
//! [`Pool::clear`] frees all idle buffers, and the drop of the last handle frees everything.
//! [`Builder::keep_idle`] keeps buffers warm that no trim frees. See [`guide::memory`].
//!
//! # Objects
//!
//! [`ObjectPool`] does the same for objects of any type, as Go's `sync.Pool`: compressors, parsers,
//! per-request contexts. Its guard [`Pooled`] is owned, and goes home when it is dropped.
//!
//! # Readers and writers
//!
//! [`io::BufReader`] and [`io::BufWriter`] hold a buffer only while there are bytes in it.
//!
//! # Numbers
//!
//! [`Pool::stats`] counts events, and shows the bytes that are outstanding and retained, with their
//! [peaks](Peaks). [`Stats::explain`] names the numbers that stand out, and the options that change
//! them. See [`guide::troubleshooting`].
//!
//! # Sizes
//!
//! The pool records how much of its buffers is used. From that it learns which size
//! [`Pool::get_default`] hands out, how far a full buffer grows, and which buffers are too large to be
//! kept: see [`Pool::targets`] and [`guide::learned_sizes`]. [`SizeClasses::fit`] chooses the best
//! size classes for recorded requests: see [`guide::size_classes`].
//!
//! # Options from outside
//!
//! [`Builder::from_env`] reads options from the environment, and the feature `serde` from a file.
//! [`Builder::retain_share`] takes the budget from the memory limit of a container. [`global()`] is one pool
//! for all crates of a program.
//!
//! # Systems
//!
//! `wasm32-unknown-unknown` has no clock and no threads. Trims and calibrations by time never
//! happen there. With [`Builder::release_when_idle`] or [`Builder::background_trim`],
//! [`Builder::build`] returns [`ConfigError::Background`]. Everything else works, such as
//! [`Pool::trim`] and calibration by the number of returns.
//!
//! # Features
//!
//! - `axum`: a guard and a part can be returned from a handler.
//! - `codec`: with `tokio`, existing decoders of `tokio-util` read from buffers of a pool.
//! - `compio`, `monoio`, `tokio-uring`: the owned-buffer traits of these io_uring runtimes. See
//!   [`guide::io_uring`].
//! - `http-body`: the module `http` reads an HTTP body into one buffer of a pool, up to a limit. It
//!   works with the bodies of `hyper`, `axum` and others. With `tokio` as well, it streams an
//!   `AsyncRead` as a body.
//! - `limit`: a limit on outstanding bytes, and gets that wait for room under it. See [`guide::limits`].
//! - `serde`: the options of a [`Builder`] can be read, and saved. So can a [`Profile`], which holds what
//!   a pool has learned. [`Stats`] and its parts, [`ObjectStats`], [`Targets`] and [`Freed`] can be
//!   serialized.
//! - `tokio`: the module `tokio` cuts frames out of an `AsyncRead` without a copy. It copies between
//!   streams with no buffer for an idle one.
//!
//! # Safety
//!
//! No safe call shows what a buffer held before: a buffer comes out with length 0, and its spare
//! capacity is available only as uninitialised memory. The exception is
//! [`Builder::reuse_initialised`], which is off by default. [`Builder::zero_on_return`] overwrites
//! the memory as well.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_op_in_unsafe_fn)]
#![warn(missing_docs, clippy::undocumented_unsafe_blocks)]
// What clippy.toml lists.
#![cfg_attr(not(test), warn(clippy::disallowed_methods, clippy::disallowed_types))]

#[cfg(feature = "axum")]
mod axum;
mod background;
mod backoff;
mod buf;
mod builder;
mod cgroup;
mod clock;
mod config;
mod engine;
mod error;
mod explain;
mod global;
pub mod guide;
#[cfg(feature = "http-body")]
pub mod http;
mod inner;
pub mod io;
mod limit;
#[cfg(feature = "limit")]
mod limited;
mod object;
mod outside;
mod panics;
mod pool;
mod report;
mod sizing;
mod stats;
mod sync;
mod system;
#[cfg(feature = "tokio")]
pub mod tokio;
mod units;
#[cfg(any(feature = "compio", feature = "monoio", feature = "tokio-uring"))]
mod uring;

/// Models of the races between threads, for a checker.
#[cfg(all(test, any(loom, shuttle)))]
mod models;

pub use buf::{PooledBuf, PooledBytes};
pub use builder::Builder;
pub use error::{ConfigError, FitError, GetError, SpawnError};
pub use explain::Explanation;
pub use global::{SetGlobalError, global, set_global};
pub use object::{ObjectPool, ObjectPoolBuilder, ObjectStats, Pooled};
pub use outside::EnvError;
pub use pool::{Freed, Pool};
pub use sizing::histogram::{Histogram, HistogramCell};
pub use sizing::profile::Profile;
pub use sizing::size_class::SizeClasses;
pub use sizing::targets::Targets;
pub use stats::{ClassStats, Counts, Discards, Peaks, Stats, Usage};

/// Whether each step of a unit test costs microseconds: under Miri, and under valgrind, for
/// which `scripts/sanitize.sh` sets `--cfg slow`.
#[cfg(test)]
const SLOW: bool = cfg!(any(miri, slow));

// The examples of the README are tested with the others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
