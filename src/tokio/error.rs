//! Errors of a framing and of frames. Describes them; checks nothing.
//!
//! The form of a message is that of `src/error.rs`.

use crate::error::GetError;
use crate::system::CAPACITY_MAX;
use crate::units::Exact;
use std::error::Error;
use std::fmt;
use std::io;

/// Tells why a [`Framing`](super::Framing) cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FramingError {
    /// The length field has no bytes, or more than 8.
    #[non_exhaustive]
    FieldBytes {
        /// The number of bytes.
        value: usize,
    },
    /// The length field ends, or the frame begins, behind the most bytes that a buffer can have.
    #[non_exhaustive]
    HeadTooLarge {
        /// The larger of the offset of the field and the bytes to skip.
        bytes: usize,
    },
    /// The delimiter has no bytes.
    EmptyDelimiter,
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FieldBytes { value } => write!(
                f,
                "bytes ({value}) is not from 1 to 8: a length field is a number of at most 64 bits; \
                 use 1 to 8"
            ),
            Self::HeadTooLarge { bytes } => write!(
                f,
                "offset or skip ({}) is too near to isize::MAX ({}): no buffer can hold so much; use less",
                Exact(*bytes),
                Exact(CAPACITY_MAX)
            ),
            Self::EmptyDelimiter => write!(
                f,
                "delimiter is empty: it would end no frame; use one byte or more"
            ),
        }
    }
}

impl Error for FramingError {}

/// Tells why a [`PooledReader`](super::PooledReader) returns no more frames.
///
/// Converts into an [`io::Error`], which keeps it as its inner error.
#[derive(Debug)]
#[non_exhaustive]
pub enum FrameError {
    /// A frame is larger than [`max_frame_bytes`](super::PooledReader::max_frame_bytes). Nothing was
    /// reserved for it.
    #[non_exhaustive]
    TooLarge {
        /// The bytes of the frame. If a delimiter ends the frames, the frame has at least as many.
        size: u64,
        /// The limit, in bytes.
        limit: usize,
    },
    /// After adjustment, the length field is negative or above `u64::MAX`, or the frame ends within its
    /// own length field.
    #[non_exhaustive]
    Length {
        /// The value of the field.
        field: u64,
        /// The adjustment.
        adjustment: i64,
    },
    /// The input ended within a frame.
    #[non_exhaustive]
    Incomplete {
        /// The bytes that were received, with those of the length field.
        received: usize,
    },
    /// The heap refuses a buffer for the frame, or the frame is above the pool's limit on outstanding bytes.
    /// [`source`](Error::source) returns the pool's error.
    NoBuffer(GetError),
    /// The source failed. [`source`](Error::source) returns its error.
    Io(io::Error),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { size, limit } => write!(
                f,
                "a frame ({size} bytes or more) is above max_frame_bytes ({}); raise that, or have the \
                 sender send less",
                Exact(*limit)
            ),
            Self::Length { field, adjustment } => write!(
                f,
                "a length field ({field}, adjusted by {adjustment}) is not the length of a frame; \
                 compare the framing with the sender's"
            ),
            Self::Incomplete { received } => write!(
                f,
                "the input ended within a frame, after {} of it",
                Exact(*received)
            ),
            Self::NoBuffer(_) => f.write_str("no buffer for the frame"),
            Self::Io(_) => f.write_str("the source of the frames failed"),
        }
    }
}

impl Error for FrameError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NoBuffer(error) => Some(error),
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<GetError> for FrameError {
    fn from(error: GetError) -> Self {
        Self::NoBuffer(error)
    }
}

impl From<FrameError> for io::Error {
    /// `TooLarge` and `Length` become [`InvalidData`](io::ErrorKind::InvalidData), and `Incomplete`
    /// becomes [`UnexpectedEof`](io::ErrorKind::UnexpectedEof). The others become the error in them.
    fn from(error: FrameError) -> io::Error {
        let kind = match error {
            FrameError::TooLarge { .. } | FrameError::Length { .. } => io::ErrorKind::InvalidData,
            FrameError::Incomplete { .. } => io::ErrorKind::UnexpectedEof,
            FrameError::NoBuffer(error) => return error.into(),
            FrameError::Io(error) => return error,
        };
        io::Error::new(kind, error)
    }
}
