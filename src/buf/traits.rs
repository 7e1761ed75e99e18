//! The traits that a guard implements: those of `BytesMut`, of `bytes` and of `std::io`.
//!
//! None of these knows more of the pool than the guard's own methods.

use super::PooledBuf;
use crate::engine::Mark;
use crate::system::CAPACITY_MAX;
use ::bytes::buf::UninitSlice;
use ::bytes::{Buf, BufMut, Bytes, BytesMut};
use std::borrow::BorrowMut;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut, Index, IndexMut};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::slice::SliceIndex;

impl Deref for PooledBuf {
    type Target = BytesMut;

    #[inline(always)]
    fn deref(&self) -> &BytesMut {
        &self.slot.buf
    }
}

impl DerefMut for PooledBuf {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut BytesMut {
        // It may grow in place, be cut, or be exchanged.
        if self.origin.has(Mark::Shared) {
            self.leave_parts();
        }
        self.note_used();
        self.origin.mark(Mark::Lent);
        &mut self.slot.buf
    }
}

impl<I: SliceIndex<[u8]>> Index<I> for PooledBuf {
    type Output = I::Output;

    #[inline]
    fn index(&self, index: I) -> &I::Output {
        &self.slot.buf[index]
    }
}

// Not through `deref_mut`: a write to the contents changes nothing else.
impl<I: SliceIndex<[u8]>> IndexMut<I> for PooledBuf {
    #[inline]
    fn index_mut(&mut self, index: I) -> &mut I::Output {
        &mut self.slot.buf[index]
    }
}

impl AsRef<[u8]> for PooledBuf {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        &self.slot.buf
    }
}

impl AsMut<[u8]> for PooledBuf {
    #[inline]
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.slot.buf
    }
}

impl BorrowMut<[u8]> for PooledBuf {
    #[inline]
    fn borrow_mut(&mut self) -> &mut [u8] {
        &mut self.slot.buf
    }
}

impl Clone for PooledBuf {
    /// Takes a buffer from the same pool and copies the contents.
    ///
    /// The clone is a [get](crate::Pool::get) like any other: its capacity is that of the smallest
    /// size class that holds the contents. To share the bytes without a copy,
    /// [`freeze`](PooledBuf::freeze) the guard and clone the result.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::default();
    /// let mut buf = pool.get(64 << 10);
    /// buf.extend_from_slice(b"hello");
    /// let copy = buf.clone();
    /// assert_eq!((&copy[..], copy.capacity()), (&b"hello"[..], 512));
    /// assert_eq!(pool.stats().total.outstanding, 2);
    /// ```
    fn clone(&self) -> Self {
        let mut clone = PooledBuf::acquire(self.slot.home(), self.len());
        clone.extend_from_slice(self);
        clone
    }
}

impl fmt::Debug for PooledBuf {
    /// Prints the contents as `BytesMut` does: `b"..."`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.slot.buf.fmt(f)
    }
}

impl Buf for PooledBuf {
    #[inline]
    fn remaining(&self) -> usize {
        self.slot.buf.remaining()
    }

    #[inline]
    fn chunk(&self) -> &[u8] {
        self.slot.buf.chunk()
    }

    /// Drops the first `count` bytes of the contents.
    ///
    /// # Panics
    ///
    /// - If `count` is above the length.
    #[inline]
    fn advance(&mut self, count: usize) {
        let len = self.slot.buf.len();
        assert!(
            count <= len,
            "advance: count ({count}) is above the length ({len})"
        );
        self.note_before_consuming();
        self.slot.buf.advance(count);
    }

    /// As [`split_to`](PooledBuf::split_to), as a `Bytes`. Copies nothing; allocates a few words.
    ///
    /// # Panics
    ///
    /// - If `len` is above the length.
    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        self.split_to(len).into()
    }
}

// SAFETY: `chunk_mut` lends the spare room of one `BytesMut`, or the probe if there is none. Both
// stay where they are while the guard is borrowed, and nothing else is written to. `advance_mut`
// takes the bytes from the one that was lent: it looks at the same spare room, which only the
// guard's owner can have changed since.
unsafe impl BufMut for PooledBuf {
    #[inline]
    fn remaining_mut(&self) -> usize {
        CAPACITY_MAX - self.slot.buf.len()
    }

    /// # Panics
    ///
    /// - If `count` is above the length of the chunk.
    #[inline]
    unsafe fn advance_mut(&mut self, count: usize) {
        if count > self.spare() {
            return self.append_probed(count);
        }
        // SAFETY: the caller has initialised the first `count` bytes of the
        // chunk that it got, which was this buffer's.
        unsafe { self.slot.buf.advance_mut(count) };
    }

    /// Lends the spare room; if there is none, a few bytes beside the buffer.
    ///
    /// See [`PooledBuf`], "Reading to the end".
    #[inline]
    fn chunk_mut(&mut self) -> &mut UninitSlice {
        if self.spare() == 0 {
            return self.chunk_of_full();
        }
        self.spare_chunk()
    }

    /// Appends all that remains in `source`.
    ///
    /// # Panics
    ///
    /// - If the new capacity would be above `isize::MAX` bytes.
    /// - If `source` has bytes remaining, and gives an empty chunk.
    ///
    /// The bytes appended before such a panic, or before one in `source` itself, are kept.
    fn put<T: Buf>(&mut self, mut source: T)
    where
        Self: Sized,
    {
        self.make_room(source.remaining());
        while source.has_remaining() {
            let chunk = source.chunk();
            let len = chunk.len();
            // Else this would never end.
            assert!(
                len > 0,
                "put: the source has {} bytes remaining, but an empty chunk: its `chunk` must \
                 return some of them",
                source.remaining()
            );
            self.extend_from_slice(chunk);
            source.advance(len);
        }
    }

    #[inline]
    fn put_slice(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn put_bytes(&mut self, value: u8, count: usize) {
        self.make_room(count);
        self.slot.buf.put_bytes(value, count);
    }
}

impl io::Write for PooledBuf {
    /// Appends all of `bytes`; never fails.
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Write for PooledBuf {
    /// Appends `text`; never fails.
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

impl Extend<u8> for PooledBuf {
    /// Appends the bytes, growing through the pool. First makes room for the lower bound of the
    /// iterator's `size_hint`.
    ///
    /// # Panics
    ///
    /// - If the new capacity, or that lower bound, would be above `isize::MAX` bytes.
    ///
    /// The bytes appended before such a panic, or before one in the iterator itself, are kept.
    fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
        let bytes = bytes.into_iter();
        self.make_room(bytes.size_hint().0);
        for byte in bytes {
            self.put_u8(byte);
        }
    }
}

impl<'a> Extend<&'a u8> for PooledBuf {
    fn extend<I: IntoIterator<Item = &'a u8>>(&mut self, bytes: I) {
        self.extend(bytes.into_iter().copied());
    }
}

impl Extend<Bytes> for PooledBuf {
    /// Appends the contents of each, growing through the pool.
    ///
    /// # Panics
    ///
    /// - If the new capacity would be above `isize::MAX` bytes.
    fn extend<I: IntoIterator<Item = Bytes>>(&mut self, pieces: I) {
        for piece in pieces {
            self.extend_from_slice(&piece);
        }
    }
}

impl From<PooledBuf> for BytesMut {
    /// Takes the buffer out of the pool for good, as [`PooledBuf::detach`] does.
    fn from(buf: PooledBuf) -> BytesMut {
        buf.detach()
    }
}

impl From<PooledBuf> for Vec<u8> {
    /// Takes the buffer out of the pool for good, as [`PooledBuf::detach`] does. Copies only while
    /// [parts](PooledBuf#parts) are out, or to close the gap before contents that were advanced.
    ///
    /// To keep the buffer in the pool and copy the bytes, call `buf.to_vec()`.
    fn from(buf: PooledBuf) -> Vec<u8> {
        buf.detach().into()
    }
}

impl From<PooledBuf> for Bytes {
    /// As [`PooledBuf::freeze`]. Allocates a few words for the count of the `Bytes`, unless it is
    /// empty.
    fn from(buf: PooledBuf) -> Bytes {
        buf.freeze().into()
    }
}

// A panic leaves the buffer as the last call left it. A panic in a source or an iterator keeps the
// bytes that were appended before it.
impl UnwindSafe for PooledBuf {}
impl RefUnwindSafe for PooledBuf {}
