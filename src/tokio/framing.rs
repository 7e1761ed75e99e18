//! Where frames begin and end. Looks at bytes; reads none and holds no buffer.

use super::error::{FrameError, FramingError};
use crate::system::CAPACITY_MAX;
use std::io::BufRead;

/// How frames are cut out of a byte stream: by a length field, or by a delimiter.
///
/// ```
/// use tierpool::tokio::{Framing, FramingError};
///
/// let by_length = Framing::length_field().bytes(2).little_endian().build()?;
/// let by_line = Framing::delimiter("\r\n")?;
/// assert_ne!(by_length, by_line);
/// # Ok::<(), FramingError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framing(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    LengthField(LengthField),
    /// Never empty.
    Delimiter(Box<[u8]>),
}

impl Framing {
    /// Returns the default options of a framing by length field, which [`LengthField::build`] makes.
    pub fn length_field() -> LengthField {
        LengthField {
            offset: 0,
            bytes: 4,
            little_endian: false,
            adjustment: 0,
            skip: None,
        }
    }

    /// Makes a framing in which `delimiter` ends each frame. It is not part of the frame.
    ///
    /// The first occurrence counts, and nothing escapes it. Bytes behind the last delimiter are
    /// [`FrameError::Incomplete`].
    ///
    /// # Errors
    ///
    /// - [`FramingError::EmptyDelimiter`] if it has no bytes.
    pub fn delimiter(delimiter: impl AsRef<[u8]>) -> Result<Self, FramingError> {
        match delimiter.as_ref() {
            [] => Err(FramingError::EmptyDelimiter),
            delimiter => Ok(Framing(Kind::Delimiter(delimiter.into()))),
        }
    }

    /// Looks for the first frame in `bytes`.
    ///
    /// `searched` is 0 for a new frame, and is kept until its end is found. So no byte is searched for
    /// a delimiter twice.
    pub(super) fn find(
        &self,
        bytes: &[u8],
        searched: &mut usize,
        limit: usize,
    ) -> Result<Found, FrameError> {
        match &self.0 {
            Kind::LengthField(field) => field.find(bytes, limit),
            Kind::Delimiter(delimiter) => find_delimiter(delimiter, bytes, searched, limit),
        }
    }
}

/// What is known of the first frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// `skip` bytes, then the frame, of `len` bytes, then `behind` bytes that end it.
    Frame {
        skip: usize,
        len: usize,
        behind: usize,
    },
    /// `skip` bytes, then a part of the frame, which has `len` bytes.
    Head { skip: usize, len: usize },
    /// `least` bytes or more are missing, and never more than `most`.
    Missing { least: usize, most: usize },
}

/// Options of framing by a length field, which counts the bytes of the frame.
///
/// The default is a big-endian field of 4 bytes at the start of a message, which counts the bytes behind
/// it.
///
/// The options have the meaning of those of `tokio_util::codec::LengthDelimitedCodec`, with two
/// differences. The limit on frames counts the bytes after adjustment. A frame that would end within its
/// own length field is an error.
///
/// A protocol whose field counts the whole message, with 3 bytes before a field of 2:
///
/// ```
/// use tierpool::Pool;
/// use tierpool::tokio::{Framing, PooledReader};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let field = Framing::length_field().offset(3).bytes(2);
/// let whole = field.clone().skip(0).build()?;
/// let body = field.adjustment(-5).build()?; // and skips the field, and the bytes before it
///
/// let message = &b"GET\x00\x09/img"[..];
/// for (framing, frame) in [(whole, message), (body, b"/img")] {
///     let mut frames = PooledReader::new(&Pool::new(), framing, message);
///     assert_eq!(frames.next_frame().await.unwrap()?, frame);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "`build` makes the framing"]
pub struct LengthField {
    offset: usize,
    bytes: usize,
    little_endian: bool,
    adjustment: i64,
    skip: Option<usize>,
}

impl LengthField {
    /// Sets the number of bytes before the field. The default is 0.
    pub fn offset(mut self, bytes: usize) -> Self {
        self.offset = bytes;
        self
    }

    /// Sets the number of bytes of the field, from 1 to 8. The default is 4.
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// Reads the field with its least significant byte first. The default is big-endian.
    pub fn little_endian(mut self) -> Self {
        self.little_endian = true;
        self
    }

    /// Sets a number that is added to the field's value. The sum is the number of bytes of the frame.
    /// The default is 0.
    pub fn adjustment(mut self, bytes: i64) -> Self {
        self.adjustment = bytes;
        self
    }

    /// Sets the number of bytes before the frame, which are dropped. By default, the frame begins
    /// behind the field. With 0, it begins with the bytes before the field.
    pub fn skip(mut self, bytes: usize) -> Self {
        self.skip = Some(bytes);
        self
    }

    /// Makes the framing.
    ///
    /// # Errors
    ///
    /// - [`FramingError::FieldBytes`] if the field has no bytes, or more than 8.
    /// - [`FramingError::HeadTooLarge`] if the field ends, or the frame begins, behind the most bytes that
    ///   a buffer can have.
    pub fn build(self) -> Result<Framing, FramingError> {
        if !(1..=8).contains(&self.bytes) {
            return Err(FramingError::FieldBytes { value: self.bytes });
        }
        let most = CAPACITY_MAX - self.bytes;
        let largest = self.offset.max(self.skip.unwrap_or(0));
        if largest > most {
            return Err(FramingError::HeadTooLarge { bytes: largest });
        }
        Ok(Framing(Kind::LengthField(self)))
    }

    fn find(&self, bytes: &[u8], limit: usize) -> Result<Found, FrameError> {
        let field_end = self.offset + self.bytes;
        let skip = self.skip.unwrap_or(field_end);
        let head = field_end.max(skip);
        if let Some(least @ 1..) = head.checked_sub(bytes.len()) {
            let most = usize::MAX;
            return Ok(Found::Missing { least, most });
        }
        let field = self.read(&bytes[self.offset..field_end]);
        let adjusted = i128::from(field) + i128::from(self.adjustment);
        let size = u64::try_from(adjusted).ok();
        let Some(size) = size.filter(|_| skip as i128 + adjusted >= field_end as i128) else {
            let adjustment = self.adjustment;
            return Err(FrameError::Length { field, adjustment });
        };
        let len = usize::try_from(size).ok().filter(|&len| len <= limit);
        let Some(len) = len else {
            return Err(FrameError::TooLarge { size, limit });
        };
        if len <= bytes.len() - skip {
            let behind = 0;
            return Ok(Found::Frame { skip, len, behind });
        }
        Ok(Found::Head { skip, len })
    }

    fn read(&self, field: &[u8]) -> u64 {
        let append = |value, &byte| value << 8 | u64::from(byte);
        match self.little_endian {
            true => field.iter().rev().fold(0, append),
            false => field.iter().fold(0, append),
        }
    }
}

fn find_delimiter(
    delimiter: &[u8],
    bytes: &[u8],
    searched: &mut usize,
    limit: usize,
) -> Result<Found, FrameError> {
    let last = delimiter[delimiter.len() - 1];
    // Where the delimiter of the largest frame ends.
    let end = limit.saturating_add(delimiter.len());
    let within = &bytes[..bytes.len().min(end)];
    while *searched < within.len() {
        // The standard library's `memchr`, which is not public: up to the next byte that may end it.
        let skipped = (&within[*searched..]).skip_until(last);
        *searched += skipped.expect("a slice has no errors");
        if within[..*searched].ends_with(delimiter) {
            let len = *searched - delimiter.len();
            *searched = 0;
            return Ok(Found::Frame {
                skip: 0,
                len,
                behind: delimiter.len(),
            });
        }
    }
    match end - within.len() {
        0 => Err(FrameError::TooLarge {
            size: limit as u64 + 1,
            limit,
        }),
        most => Ok(Found::Missing { least: 1, most }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(framing: &Framing, bytes: &[u8], limit: usize) -> Result<Found, String> {
        framing
            .find(bytes, &mut 0, limit)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_field_is_read_in_both_byte_orders_and_all_widths() {
        for bytes in 1..=8 {
            let field = Framing::length_field().bytes(bytes);
            let octets: Vec<u8> = (1..=bytes as u8).collect();
            let big = octets
                .iter()
                .fold(0, |all, &one| all * 256 + u64::from(one));
            assert_eq!(field.read(&octets), big);
            let little = field.little_endian();
            assert_eq!(little.read(&octets), big.swap_bytes() >> (64 - 8 * bytes));
        }
    }

    #[test]
    fn a_length_beyond_what_can_be_counted_is_an_error() {
        let field = Framing::length_field().bytes(8);
        let most = field.clone().build().unwrap();
        let found = most.find(&[0xff; 8], &mut 0, usize::MAX);
        assert!(matches!(found, Ok(Found::Head { .. }))); // the heap refuses
        let error = most.find(&[0xff; 8], &mut 0, 100);
        let size = u64::MAX;
        assert!(matches!(error, Err(FrameError::TooLarge { size: s, limit: 100 }) if s == size));
        for (adjustment, first) in [(1, 0xff), (-1, 0), (i64::MIN, 0)] {
            let field = field.clone().adjustment(adjustment).build().unwrap();
            let error = field.find(&[first; 8], &mut 0, usize::MAX);
            assert!(matches!(error, Err(FrameError::Length { .. })), "{error:?}");
        }
    }

    #[test]
    fn a_frame_does_not_end_within_its_length_field() {
        let field = Framing::length_field().bytes(2).skip(0).build().unwrap();
        assert!(find(&field, &[0, 0], 9).is_err());
        assert!(find(&field, &[0, 1], 9).is_err());
        let found = Found::Frame {
            skip: 0,
            len: 2,
            behind: 0,
        };
        assert_eq!(find(&field, &[0, 2], 9), Ok(found));
    }

    #[test]
    fn no_byte_is_searched_twice() {
        let framing = Framing::delimiter("ab").unwrap();
        let mut searched = 0;
        let mut bytes = vec![b'x'; 10];
        assert!(framing.find(&bytes, &mut searched, 99).is_ok());
        assert_eq!(searched, 10);
        bytes[3..5].copy_from_slice(b"ab"); // behind its back
        bytes.extend_from_slice(b"..ab");
        let found = framing.find(&bytes, &mut searched, 99).unwrap();
        assert!(matches!(found, Found::Frame { len: 12, .. }));
        assert_eq!(searched, 0);
    }
}
