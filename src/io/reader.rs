//! A buffered reader that gives its buffer back when it is empty.

use super::SIZE_DEFAULT;
use crate::buf::PooledBuf;
use crate::pool::Pool;
use std::fmt;
use std::io::{self, BufRead, IoSliceMut, Read, Seek, SeekFrom};

/// Reads through a buffer of a pool, which it holds only while there are unread bytes in it.
///
/// It reads as [`std::io::BufReader`] does: large reads bypass an empty buffer.
///
/// # Cost
///
/// Each time the buffer is filled, it is taken from the pool and zeroed first. With
/// [`Builder::reuse_initialised`](crate::Builder::reuse_initialised) it is not zeroed; then `R` may see
/// bytes that the pool's other users wrote.
///
/// A read that waits for its source holds the buffer meanwhile.
///
/// ```
/// use std::io::{self, BufRead};
/// use tierpool::Pool;
/// use tierpool::io::BufReader;
///
/// let pool = Pool::new();
/// let mut reader = BufReader::new(&pool, &b"one\ntwo\n"[..]);
/// let mut line = String::new();
/// reader.read_line(&mut line)?;
/// assert_eq!((&line[..], reader.buffer()), ("one\n", &b"two\n"[..]));
/// reader.consume(4);
/// assert_eq!(pool.stats().total.outstanding, 0);
/// # Ok::<(), io::Error>(())
/// ```
pub struct BufReader<R: ?Sized> {
    pool: Pool,
    size: usize,
    /// Never empty between two calls.
    buf: Option<PooledBuf>,
    /// How many bytes of the buffer have been read.
    // Not advanced over: the buffer goes home as it left.
    read: usize,
    inner: R,
}

impl<R> BufReader<R> {
    /// Makes a reader with a buffer of 8 KiB.
    pub fn new(pool: &Pool, inner: R) -> Self {
        Self::with_size(pool, SIZE_DEFAULT, inner)
    }

    /// Makes a reader with a buffer of `size` bytes, or 1 if that is 0.
    ///
    /// It fills the buffer with at most `size` bytes at once, also if the size class holds more. The
    /// first read panics if `size` is above `isize::MAX`.
    pub fn with_size(pool: &Pool, size: usize, inner: R) -> Self {
        BufReader {
            pool: pool.clone(),
            size: size.max(1),
            buf: None,
            read: 0,
            inner,
        }
    }

    /// Returns the source. Bytes that are in the buffer are lost.
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: ?Sized> BufReader<R> {
    /// Returns the source.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// Returns the source. A read from it skips the bytes that are in the buffer.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Returns the unread bytes in the buffer, and reads none.
    #[must_use]
    pub fn buffer(&self) -> &[u8] {
        self.buf.as_ref().map_or(&[], |buf| &buf[self.read..])
    }

    /// Returns the most bytes that it reads ahead.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.size
    }

    /// Gives the buffer back, with the bytes in it.
    fn discard(&mut self) {
        self.buf = None;
        self.read = 0;
    }
}

impl<R: Read + ?Sized> Read for BufReader<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.buf.is_none() && bytes.len() >= self.size {
            return self.inner.read(bytes);
        }
        let mut unread = self.fill_buf()?;
        let count = unread.read(bytes)?;
        self.consume(count);
        Ok(count)
    }

    fn read_vectored(&mut self, slices: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let lengths = slices.iter().map(|slice| slice.len());
        if self.buf.is_none() && lengths.fold(0, usize::saturating_add) >= self.size {
            return self.inner.read_vectored(slices);
        }
        let mut unread = self.fill_buf()?;
        let count = unread.read_vectored(slices)?;
        self.consume(count);
        Ok(count)
    }

    // The source may know how much is left, as a `File` does.
    fn read_to_end(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        let unread = self.buffer();
        bytes.try_reserve(unread.len())?;
        bytes.extend_from_slice(unread);
        let count = unread.len();
        self.discard();
        Ok(count + self.inner.read_to_end(bytes)?)
    }
}

impl<R: Read + ?Sized> BufRead for BufReader<R> {
    /// Returns the unread bytes. If there are none, reads once from the source.
    ///
    /// # Errors
    ///
    /// - The error of the source. Then the buffer is back in the pool.
    ///
    /// # Panics
    ///
    /// - If the source returns more bytes than there is room for.
    /// - If the size is above `isize::MAX`.
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.buf.is_none() {
            let mut buf = self.pool.get(self.size);
            // An error, a panic or the end of the source drops the guard.
            if buf.read_from(&mut self.inner, self.size)? > 0 {
                self.buf = Some(buf);
            }
        }
        Ok(self.buffer())
    }

    fn consume(&mut self, count: usize) {
        if count < self.buffer().len() {
            self.read += count;
        } else {
            self.discard();
        }
    }
}

impl<R: Seek + ?Sized> Seek for BufReader<R> {
    /// Seeks from where the caller has read to, and drops the bytes in the buffer.
    ///
    /// # Errors
    ///
    /// - The error of the source. Then the bytes in the buffer stay, unless the seek took two steps: it
    ///   was by nearly `i64::MIN`.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let ahead = self.buffer().len() as i64; // a buffer has at most `isize::MAX` bytes
        let position = match to {
            SeekFrom::Current(offset) => match offset.checked_sub(ahead) {
                Some(offset) => self.inner.seek(SeekFrom::Current(offset))?,
                None => {
                    // Two steps, since one cannot go so far.
                    self.inner.seek(SeekFrom::Current(-ahead))?;
                    self.discard();
                    self.inner.seek(SeekFrom::Current(offset))?
                }
            },
            to => self.inner.seek(to)?,
        };
        self.discard();
        Ok(position)
    }

    /// Returns where the caller has read to. The bytes in the buffer stay.
    ///
    /// # Errors
    ///
    /// - The error of the source.
    /// - If the source is before the bytes that were read from it: it was moved through
    ///   [`get_mut`](Self::get_mut).
    fn stream_position(&mut self) -> io::Result<u64> {
        let position = self.inner.stream_position()?;
        position
            .checked_sub(self.buffer().len() as u64)
            .ok_or_else(|| {
                let text = "the source is before the bytes that were read from it";
                io::Error::new(io::ErrorKind::InvalidInput, text)
            })
    }

    /// Seeks from where the caller has read to. Within the buffer, its bytes stay.
    ///
    /// # Errors
    ///
    /// - As [`seek`](Self::seek).
    fn seek_relative(&mut self, offset: i64) -> io::Result<()> {
        let len = self.buf.as_ref().map_or(0, |buf| buf.len());
        let to = (self.read as i64).checked_add(offset);
        match to.and_then(|to| usize::try_from(to).ok()) {
            Some(to) if to < len => self.read = to,
            Some(to) if to == len => self.discard(),
            _ => drop(self.seek(SeekFrom::Current(offset))?),
        }
        Ok(())
    }
}

impl<R: fmt::Debug + ?Sized> fmt::Debug for BufReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.buffer().len();
        f.debug_struct("BufReader")
            .field("reader", &&self.inner)
            .field("buffer", &format_args!("{len}/{}", self.size))
            .finish()
    }
}
