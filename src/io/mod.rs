//! Readers and writers of `std::io` that hold a pool's buffer only while there are bytes in it.
//!
//! [`BufReader`] and [`BufWriter`] read and write as those of the standard library. They take their buffer
//! from a [`Pool`](crate::Pool) when they need it, and give it back when it is empty. So 10,000 idle
//! connections hold no buffers. Go's `net/http` does the same with its readers and writers.
//!
//! ```
//! use std::io::{self, BufRead, Write};
//! use tierpool::Pool;
//! use tierpool::io::{BufReader, BufWriter};
//!
//! let pool = Pool::new();
//! let mut answers = BufWriter::new(&pool, Vec::new());
//! for line in BufReader::new(&pool, &b"hello\nworld\n"[..]).lines() {
//!     writeln!(answers, "{}", line?.to_uppercase())?;
//! }
//! assert_eq!(pool.stats().total.outstanding, 1); // the writer's, until it is flushed
//! assert_eq!(answers.into_inner()?, b"HELLO\nWORLD\n");
//! assert_eq!(pool.stats().total.outstanding, 0);
//! # Ok::<(), io::Error>(())
//! ```

mod reader;
mod writer;

pub use reader::BufReader;
pub use writer::{BufWriter, IntoInnerError};

/// The bytes of a buffer, unless the caller sets another number: as in the standard library.
pub(crate) const SIZE_DEFAULT: usize = 8 << 10;
