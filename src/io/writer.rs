//! A buffered writer that gives its buffer back when it is flushed.

use super::SIZE_DEFAULT;
use crate::buf::PooledBuf;
use crate::pool::Pool;
use std::error::Error;
use std::fmt;
use std::io::{self, Seek, SeekFrom, Write};

/// Writes through a buffer of a pool, which it holds only while there are bytes in it.
///
/// It writes as [`std::io::BufWriter`] does: it flushes itself when it is full and when it is dropped,
/// and large writes bypass an empty buffer. **A drop ignores errors**: call [`flush`](Write::flush) or
/// [`into_inner`](Self::into_inner) to see them. A drop writes nothing after a panic in a write of the
/// inner writer, which may have written some of the bytes.
///
/// ```
/// use std::io::{self, Write};
/// use tierpool::Pool;
/// use tierpool::io::BufWriter;
///
/// let pool = Pool::new();
/// let mut writer = BufWriter::new(&pool, Vec::new());
/// write!(writer, "{} + {} = {}", 1, 2, 1 + 2)?;
/// assert_eq!((writer.buffer(), writer.get_ref().len()), (&b"1 + 2 = 3"[..], 0));
/// writer.flush()?;
/// assert_eq!((&writer.get_ref()[..], pool.stats().total.outstanding), (&b"1 + 2 = 3"[..], 0));
/// # Ok::<(), io::Error>(())
/// ```
pub struct BufWriter<W: Write> {
    pool: Pool,
    size: usize,
    /// Never empty between two calls.
    buf: Option<PooledBuf>,
    /// A call of the inner writer has not returned: it has panicked. Some of its bytes may be
    /// written, so the drop must not write them again.
    panicked: bool,
    /// `None` only after `into_inner`.
    inner: Option<W>,
}

impl<W: Write> BufWriter<W> {
    /// Makes a writer with a buffer of 8 KiB.
    pub fn new(pool: &Pool, inner: W) -> Self {
        Self::with_size(pool, SIZE_DEFAULT, inner)
    }

    /// Makes a writer with a buffer of `size` bytes. With 0, each write goes to `inner`.
    ///
    /// The first small write takes the buffer. It panics if `size` is above `isize::MAX`.
    pub fn with_size(pool: &Pool, size: usize, inner: W) -> Self {
        BufWriter {
            pool: pool.clone(),
            size,
            buf: None,
            panicked: false,
            inner: Some(inner),
        }
    }

    /// Returns the inner writer.
    pub fn get_ref(&self) -> &W {
        self.inner.as_ref().expect(HAS_INNER)
    }

    /// Returns the inner writer. A write to it comes before the bytes that are in the buffer.
    pub fn get_mut(&mut self) -> &mut W {
        self.inner.as_mut().expect(HAS_INNER)
    }

    /// Returns the bytes that are not written yet.
    #[must_use]
    pub fn buffer(&self) -> &[u8] {
        self.buf.as_deref().map_or(&[], |buf| buf)
    }

    /// Returns the most bytes that it holds back.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.size
    }

    /// Writes the bytes in the buffer, and returns the inner writer. Does not flush that.
    ///
    /// # Errors
    ///
    /// - The error of the inner writer, with this one, which has the bytes that are not written.
    pub fn into_inner(mut self) -> Result<W, IntoInnerError<W>> {
        match self.write_out() {
            Ok(()) => Ok(self.inner.take().expect(HAS_INNER)),
            Err(error) => Err(IntoInnerError {
                writer: self,
                error,
            }),
        }
    }

    /// Calls the inner writer.
    fn call<T>(&mut self, call: impl FnOnce(&mut W) -> T) -> T {
        self.panicked = true;
        let result = call(self.get_mut());
        self.panicked = false;
        result
    }

    /// Writes all bytes in the buffer, and gives it back. After an error, those that are not written
    /// are still in it.
    fn write_out(&mut self) -> io::Result<()> {
        let mut unwritten = Unwritten {
            buf: &mut self.buf,
            written: 0,
        };
        let inner = self.inner.as_mut().expect(HAS_INNER);
        while !unwritten.bytes().is_empty() {
            self.panicked = true;
            let result = inner.write(unwritten.bytes());
            self.panicked = false;
            match result {
                Ok(0) => {
                    let text = "the inner writer takes no more of the buffered bytes";
                    return Err(io::Error::new(io::ErrorKind::WriteZero, text));
                }
                // At most: a faulty writer may claim more than it got.
                Ok(count) => unwritten.written += count.min(unwritten.bytes().len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes room for `len` more bytes. Returns whether they go to the buffer.
    fn make_room(&mut self, len: usize) -> io::Result<bool> {
        if len > self.size - self.buffer().len() {
            self.write_out()?;
        }
        Ok(len < self.size)
    }

    fn append(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let buf = self.buf.get_or_insert_with(|| self.pool.get(self.size));
            buf.extend_from_slice(bytes);
        }
    }
}

/// The bytes that `write_out` has not written. Its drop takes the written ones out of the buffer, after
/// an error and after a panic, too.
struct Unwritten<'a> {
    buf: &'a mut Option<PooledBuf>,
    written: usize,
}

impl Unwritten<'_> {
    fn bytes(&self) -> &[u8] {
        self.buf.as_deref().map_or(&[], |buf| &buf[self.written..])
    }
}

impl Drop for Unwritten<'_> {
    fn drop(&mut self) {
        let kept = self.bytes().len();
        if kept == 0 {
            *self.buf = None;
        } else if let Some(buf) = self.buf {
            buf[..].copy_within(self.written.., 0);
            buf.truncate(kept);
        }
    }
}

const HAS_INNER: &str = "only `into_inner` takes it, and ends this writer";

impl<W: Write> Write for BufWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.make_room(bytes.len())? {
            self.append(bytes);
            return Ok(bytes.len());
        }
        self.call(|inner| inner.write(bytes))
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.make_room(bytes.len())? {
            self.append(bytes);
            return Ok(());
        }
        self.call(|inner| inner.write_all(bytes))
    }

    /// Passes all slices to the inner writer if one is as large as the buffer: a header and a body are
    /// one write of a socket. Otherwise copies as many of them as fit.
    // Whether the inner writer can write several slices at once is not known on stable Rust. If it
    // cannot, it would get small slices one by one, so these are copied.
    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let Some(first) = slices.iter().position(|slice| !slice.is_empty()) else {
            return Ok(0);
        };
        let slices = &slices[first..];
        if slices.iter().any(|slice| slice.len() >= self.size) {
            self.write_out()?;
            return self.call(|inner| inner.write_vectored(slices));
        }
        self.make_room(slices[0].len())?;
        let mut written = 0;
        for slice in slices {
            if slice.len() > self.size - self.buffer().len() {
                break;
            }
            self.append(slice);
            written += slice.len();
        }
        Ok(written)
    }

    /// Writes the bytes in the buffer, and flushes the inner writer. The buffer is back in the pool then.
    ///
    /// # Errors
    ///
    /// - The error of the inner writer. The bytes that are not written stay in the buffer.
    fn flush(&mut self) -> io::Result<()> {
        self.write_out()?;
        // Not through `call`: a flush writes no bytes of ours, so after its panic the drop may write.
        self.get_mut().flush()
    }
}

impl<W: Write + Seek> Seek for BufWriter<W> {
    /// Writes the bytes in the buffer, and seeks in the inner writer.
    ///
    /// # Errors
    ///
    /// - The error of the inner writer.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.write_out()?;
        self.get_mut().seek(to)
    }
}

impl<W: Write> Drop for BufWriter<W> {
    fn drop(&mut self) {
        if self.inner.is_some() && !self.panicked {
            let _ignored = self.write_out();
        }
    }
}

impl<W: Write + fmt::Debug> fmt::Debug for BufWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.buffer().len();
        f.debug_struct("BufWriter")
            .field("writer", self.get_ref())
            .field("buffer", &format_args!("{len}/{}", self.size))
            .finish()
    }
}

/// The error of [`BufWriter::into_inner`], with the writer.
///
/// It converts into the [`io::Error`], which drops the writer.
pub struct IntoInnerError<W: Write> {
    writer: BufWriter<W>,
    error: io::Error,
}

impl<W: Write> IntoInnerError<W> {
    /// Returns the error of the inner writer.
    pub fn error(&self) -> &io::Error {
        &self.error
    }

    /// Returns the writer, with the bytes that are not written.
    #[must_use]
    pub fn into_writer(self) -> BufWriter<W> {
        self.writer
    }

    /// Returns the error and the writer.
    #[must_use]
    pub fn into_parts(self) -> (io::Error, BufWriter<W>) {
        (self.error, self.writer)
    }
}

impl<W: Write> From<IntoInnerError<W>> for io::Error {
    fn from(error: IntoInnerError<W>) -> io::Error {
        error.error
    }
}

impl<W: Write> fmt::Debug for IntoInnerError<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IntoInnerError").field(&self.error).finish()
    }
}

impl<W: Write> fmt::Display for IntoInnerError<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<W: Write> Error for IntoInnerError<W> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}
