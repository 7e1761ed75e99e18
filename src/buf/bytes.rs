//! A part of a buffer's contents: immutable, shared, and cheap to clone.
//!
//! Owns where the part begins and ends. The count of those who hold the buffer is in the buffer's
//! cell (`inner/cell.rs`).

use super::PooledBuf;
use crate::inner::{BufferHold, Inner};
use ::bytes::{Buf, Bytes, BytesMut};
use std::fmt;
use std::mem;
use std::ops::{Bound, Deref, RangeBounds};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::NonNull;
use std::slice;

/// Immutable bytes that share a buffer of a [`Pool`](crate::Pool). As [`Bytes`], but the buffer goes
/// home.
///
/// [`PooledBuf::split_to`] cuts one off a guard, and [`PooledBuf::freeze`] makes one of a whole guard.
/// Parts of one buffer share it, with each other and with the guard that they were cut from. The buffer
/// goes home as a whole when all of them are gone, on the thread that drops the last one. Until then it
/// is outstanding with its whole capacity, even for one small part. To keep a part for long, copy it:
/// `pool.copy_from_slice(&part).freeze()`.
///
/// Cloning, slicing, splitting and dropping allocate nothing: the count of parts is kept beside the
/// buffer. (The last drop brings the buffer home, as a guard's drop does. That may take memory for a
/// thread's first caches, and for a buffer that was adopted or lent.)
///
/// A part that was advanced or truncated to its end holds the buffer until it is dropped, as a `Bytes`
/// does. [`clear`](Self::clear) lets go of the buffer.
///
/// # As `Bytes`
///
/// Where a `Bytes` is needed, convert it with `Bytes::from(part)`. That allocates a few words, once.
/// Clones and slices of that `Bytes` allocate nothing. An empty part allocates nothing.
///
/// It is a [`Buf`], so it can be the data of an HTTP body as it is.
///
/// ```
/// use bytes::Buf;
/// use tierpool::Pool;
///
/// let pool = Pool::new();
/// let mut buf = pool.get(100);
/// buf.extend_from_slice(b"key=value");
/// let mut frame = buf.freeze();
/// let key = frame.split_to(3);
/// frame.advance(1);
/// assert_eq!((&key[..], &frame[..]), (&b"key"[..], &b"value"[..]));
/// ```
pub struct PooledBytes {
    start: NonNull<u8>,
    len: usize,
    /// `None` if it is empty and needs no buffer.
    hold: Option<BufferHold>,
}

// SAFETY: the bytes do not change while it holds the buffer, and the hold may go to any thread.
unsafe impl Send for PooledBytes {}
// SAFETY: as above.
unsafe impl Sync for PooledBytes {}

impl PooledBytes {
    /// Makes a part with no bytes and no buffer.
    ///
    /// ```
    /// use tierpool::PooledBytes;
    ///
    /// assert!(PooledBytes::new().is_empty());
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        PooledBytes {
            start: NonNull::dangling(),
            len: 0,
            hold: None,
        }
    }

    /// A part of the buffer that `hold` keeps.
    ///
    /// # Safety
    ///
    /// - The bytes lie in that buffer, and no one writes to them while one holds it.
    #[inline]
    pub(super) unsafe fn of(hold: BufferHold, start: NonNull<u8>, len: usize) -> Self {
        let hold = Some(hold);
        PooledBytes { start, len, hold }
    }

    /// Returns the number of bytes.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// assert_eq!(Pool::new().copy_from_slice(b"abc").freeze().len(), 3);
    /// ```
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Returns `true` if there are no bytes.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// assert!(Pool::new().get(100).freeze().is_empty());
    /// ```
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the bytes of a range, which share the buffer.
    ///
    /// # Panics
    ///
    /// - If the range begins behind its end, or ends behind the last byte.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let bytes = Pool::new().copy_from_slice(b"hello world").freeze();
    /// assert_eq!(bytes.slice(6..), b"world"[..]);
    /// assert_eq!(bytes.slice(..=4), b"hello"[..]);
    /// ```
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let begin = match range.start_bound() {
            Bound::Included(&at) => at,
            Bound::Excluded(&at) => at
                .checked_add(1)
                .expect("slice: the begin of the range is above usize::MAX"),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&at) => at
                .checked_add(1)
                .expect("slice: the end of the range is above usize::MAX"),
            Bound::Excluded(&at) => at,
            Bound::Unbounded => self.len,
        };
        assert!(
            begin <= end,
            "slice: the begin of the range ({begin}) is above its end ({end})"
        );
        assert!(
            end <= self.len,
            "slice: the end of the range ({end}) is above the length ({})",
            self.len
        );
        if begin == end {
            return PooledBytes::new();
        }
        let mut part = self.clone();
        part.truncate(end);
        part.skip(begin);
        part
    }

    /// Returns the part that shows `subset`, which is a slice of these bytes.
    ///
    /// For a parser that returns slices of its input.
    ///
    /// # Panics
    ///
    /// - If `subset` is not empty, and not a slice of these bytes.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let bytes = Pool::new().copy_from_slice(b"key=value").freeze();
    /// let value = bytes.split(|&byte| byte == b'=').nth(1).unwrap();
    /// assert_eq!(bytes.slice_ref(value), "value");
    /// ```
    #[must_use]
    pub fn slice_ref(&self, subset: &[u8]) -> Self {
        if subset.is_empty() {
            return PooledBytes::new();
        }
        let begin = subset.as_ptr().addr().wrapping_sub(self.start.addr().get());
        assert!(
            begin <= self.len && subset.len() <= self.len - begin,
            "slice_ref: the subset ({} bytes) is not a slice of these {} bytes: pass a part of what they \
             deref to",
            subset.len(),
            self.len
        );
        self.slice(begin..begin + subset.len())
    }

    /// Cuts the first `at` bytes off, and returns them. Both share the buffer.
    ///
    /// # Panics
    ///
    /// - If `at` is above the length.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let mut bytes = Pool::new().copy_from_slice(b"head body").freeze();
    /// assert_eq!(bytes.split_to(5), "head ");
    /// assert_eq!(bytes, "body");
    /// ```
    #[must_use = "the bytes are cut off; to skip them, call `advance`"]
    #[inline]
    pub fn split_to(&mut self, at: usize) -> Self {
        let len = self.len;
        assert!(at <= len, "split_to: at ({at}) is above the length ({len})");
        if at == len {
            return mem::take(self);
        }
        let part = self.slice(..at);
        self.skip(at);
        part
    }

    /// Cuts the bytes behind the first `at` off, and returns them. Both share the buffer.
    ///
    /// # Panics
    ///
    /// - If `at` is above the length.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let mut bytes = Pool::new().copy_from_slice(b"head body").freeze();
    /// assert_eq!(bytes.split_off(5), "body");
    /// assert_eq!(bytes, "head ");
    /// ```
    #[must_use = "the bytes are cut off; to drop them, call `truncate`"]
    pub fn split_off(&mut self, at: usize) -> Self {
        let len = self.len;
        assert!(
            at <= len,
            "split_off: at ({at}) is above the length ({len})"
        );
        if at == 0 {
            return mem::take(self);
        }
        let part = self.slice(at..);
        self.truncate(at);
        part
    }

    /// Keeps the first `len` bytes. Does nothing if there are no more.
    ///
    /// Holds the buffer even if no bytes are left.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let mut bytes = Pool::new().copy_from_slice(b"abc").freeze();
    /// bytes.truncate(2);
    /// assert_eq!(bytes, "ab");
    /// ```
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Drops all bytes, and lets go of the buffer.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::new();
    /// let mut bytes = pool.copy_from_slice(b"abc").freeze();
    /// bytes.clear();
    /// assert_eq!(pool.stats().total.outstanding, 0);
    /// ```
    pub fn clear(&mut self) {
        *self = PooledBytes::new();
    }

    /// Returns `true` if no other part and no guard shares the buffer.
    ///
    /// It is also `true` if there is no buffer. A `BytesMut` that was split off behind
    /// [`DerefMut`](std::ops::DerefMut) is not seen.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let bytes = Pool::new().copy_from_slice(b"abc").freeze();
    /// assert!(bytes.is_unique());
    /// let clone = bytes.clone();
    /// assert!(!clone.is_unique());
    /// ```
    #[must_use]
    pub fn is_unique(&self) -> bool {
        self.hold.as_ref().is_none_or(BufferHold::is_alone)
    }

    /// Makes the bytes writable again without a copy, if no one else shares the buffer.
    ///
    /// The contents of the guard are these bytes. It has the buffer's room behind them, if the buffer was
    /// neither adopted nor lent as `&mut BytesMut`.
    ///
    /// # Errors
    ///
    /// Returns the bytes as they are in three cases:
    ///
    /// - Another part or a guard shares the buffer.
    /// - They have no buffer, which is possible if they are empty.
    /// - They were split off, and the buffer was adopted, was lent as `&mut BytesMut`, or had grown
    ///   above the largest size class.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::new();
    /// let bytes = pool.copy_from_slice(b"hello").freeze();
    /// let other = bytes.clone();
    /// let bytes = bytes.try_into_mut().unwrap_err();
    /// drop(other);
    /// let mut buf = bytes.try_into_mut().unwrap();
    /// buf.extend_from_slice(b" again");
    /// assert_eq!(&buf[..], b"hello again");
    /// ```
    pub fn try_into_mut(mut self) -> Result<PooledBuf, PooledBytes> {
        if !self.is_unique() {
            return Err(self);
        }
        let Some(hold) = self.hold.take() else {
            return Err(self);
        };
        let mut slot = hold.leave().expect("it is alone");
        if slot.show(self.start.as_ptr().addr(), self.len) {
            return Ok(PooledBuf::of_last(slot));
        }
        self.hold = Some(slot.into_hold());
        Err(self)
    }

    /// Skips bytes that are there.
    #[inline]
    fn skip(&mut self, count: usize) {
        debug_assert!(count <= self.len);
        // SAFETY: at most to the end of the bytes, which lie in one buffer.
        self.start = unsafe { self.start.add(count) };
        self.len -= count;
    }
}

impl Drop for PooledBytes {
    #[inline]
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            Inner::release_hold(hold);
        }
    }
}

impl Clone for PooledBytes {
    #[inline]
    fn clone(&self) -> Self {
        PooledBytes {
            hold: self.hold.clone(),
            ..*self
        }
    }
}

impl Default for PooledBytes {
    fn default() -> Self {
        PooledBytes::new()
    }
}

impl Deref for PooledBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: these bytes were contents of the buffer, so they are initialised. It stays where
        // it is while this holds it, and no one writes to them: the guard goes on behind them, and
        // uses the space before its contents again only when it is alone. Empty ones that have no
        // buffer have a pointer that does for no bytes.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for PooledBytes {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Buf for PooledBytes {
    #[inline]
    fn remaining(&self) -> usize {
        self.len
    }

    #[inline]
    fn chunk(&self) -> &[u8] {
        self
    }

    /// # Panics
    ///
    /// - If `count` is above the length.
    #[inline]
    fn advance(&mut self, count: usize) {
        let len = self.len;
        assert!(
            count <= len,
            "advance: count ({count}) is above the length ({len})"
        );
        self.skip(count);
    }

    /// Cuts the first `len` bytes off, as a `Bytes`. Allocates a few words.
    ///
    /// # Panics
    ///
    /// - If `len` is above the length.
    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        self.split_to(len).into()
    }
}

impl From<PooledBytes> for Bytes {
    /// Allocates a few words for the count of the `Bytes`, unless it is empty.
    fn from(bytes: PooledBytes) -> Bytes {
        match bytes.is_empty() {
            true => Bytes::new(),
            false => Bytes::from_owner(bytes),
        }
    }
}

impl From<PooledBytes> for Vec<u8> {
    /// Copies the bytes.
    fn from(bytes: PooledBytes) -> Vec<u8> {
        bytes.to_vec()
    }
}

impl From<PooledBytes> for BytesMut {
    /// Copies the bytes.
    fn from(bytes: PooledBytes) -> BytesMut {
        BytesMut::from(&bytes[..])
    }
}

impl From<PooledBuf> for PooledBytes {
    /// As [`PooledBuf::freeze`].
    fn from(buf: PooledBuf) -> PooledBytes {
        buf.freeze()
    }
}

impl fmt::Debug for PooledBytes {
    /// Prints the bytes as `Bytes` does: `b"..."`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("b\"")?;
        for &byte in self {
            match byte {
                0 => f.write_str("\\0"),
                b'\'' => f.write_str("'"),
                _ => write!(f, "{}", byte.escape_ascii()),
            }?;
        }
        f.write_str("\"")
    }
}

// The bytes do not change. A panic in a drop leaves nothing half done.
impl UnwindSafe for PooledBytes {}
impl RefUnwindSafe for PooledBytes {}
