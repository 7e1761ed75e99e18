//! The buffer as its user holds it: an owned guard that goes home on drop.
//!
//! Owns growth through the pool. Knows nothing of levels.

use crate::error::GetError;
use crate::shared::{BufferOrigin, BufferSlot, Shared};
use bytes::buf::UninitSlice;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::fmt;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::ops::{Deref, DerefMut};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

/// An owned buffer from a [`Pool`](crate::Pool), which goes back by itself when dropped.
///
/// Dereferences to [`BytesMut`], and implements [`BufMut`], [`Buf`],
/// [`io::Write`] and [`fmt::Write`].
///
/// It is `'static` and [`Send`]: it may be dropped on any thread, while the
/// thread unwinds or is being torn down, and after the last handle of its pool.
///
/// # Growth
///
/// What is called on the guard itself ([`reserve`](Self::reserve),
/// [`extend_from_slice`](Self::extend_from_slice), `put_slice`, `write!`, ...)
/// takes a larger buffer from the pool when this one is full, copies the
/// contents and gives the old one back. For `reserve`, the larger one is of the
/// smallest size class that holds what was asked for. Otherwise it is for what is to be
/// expected: before the pool's first [calibration](crate::Pool::calibration), the
/// smallest class that is at least eight times as large; from then on the class of
/// `default_size`, then that of `max_size` (in steps of at most eight times), then one
/// sixteen times as large; or the largest class, if that is less. What no class holds
/// is taken from the heap, at least twice as large.
///
/// What is called on the `BytesMut` (`(*buf).reserve(..)`, or a function that
/// takes `&mut BytesMut`) grows as `BytesMut` does, on the heap.
///
/// # Coming home
///
/// A buffer that was advanced or split comes home whole, unless a part of it is
/// still in use elsewhere; then it is freed with its last part. (A part of
/// length and capacity 0 may count as one or not.) One that has
/// grown joins the largest size class that it fills. It is freed if it is above
/// the pool's largest, or if it is above `max_size` and of a size that nobody
/// [asks for](crate::Pool::calibration). What the pool has no more room for is freed, too.
///
/// ```
/// use bytes::BufMut;
/// use tierpool::Pool;
///
/// let pool = Pool::default();
/// let mut buf = pool.get(10);
/// buf.put_slice(b"GET / HTTP/1.1\r\n");
/// buf.put_bytes(b'x', 5000); // outgrows the 512-byte class
/// assert_eq!((buf.len(), &buf[..4]), (5016, &b"GET "[..]));
/// drop(buf);
/// assert_eq!(pool.stats().total.outstanding, 0);
/// ```
#[repr(C)] // see `Origin`
pub struct PooledBuf {
    /// Taken out by `drop` alone.
    slot: ManuallyDrop<Box<BufferSlot>>,
    /// The thread cache that the slot may go back to if nothing has changed.
    // Here and not in the slot: what the drop must know to find its place in
    // the cache does not wait for the slot to be loaded.
    origin: BufferOrigin,
}

impl PooledBuf {
    /// Takes an empty buffer for `request` bytes.
    #[inline(always)]
    pub(crate) fn take(home: &Arc<Shared>, request: usize) -> Self {
        let (slot, origin) = home.take(request);
        PooledBuf {
            slot: ManuallyDrop::new(slot),
            origin,
        }
    }

    /// As [`take`](Self::take), unless there is none to be had.
    #[inline(always)]
    pub(crate) fn try_take(home: &Arc<Shared>, request: usize) -> Result<Self, GetError> {
        let (slot, origin) = home.try_take(request)?;
        Ok(PooledBuf {
            slot: ManuallyDrop::new(slot),
            origin,
        })
    }

    /// Takes in a buffer that the pool did not make.
    pub(crate) fn adopt(home: &Arc<Shared>, buf: BytesMut) -> Self {
        home.counters(home.class_of(buf.capacity())).adopted.bump();
        PooledBuf {
            slot: ManuallyDrop::new(BufferSlot::with_foreign(buf, Arc::clone(home))),
            origin: BufferOrigin::NONE,
        }
    }

    /// Takes the buffer out of the pool for good.
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::default();
    /// let mut buf = pool.get(10);
    /// buf.extend_from_slice(b"kept");
    /// let own: BytesMut = buf.detach();
    /// assert_eq!(&own[..], b"kept");
    /// assert_eq!((pool.stats().total.detached, pool.stats().total.outstanding), (1, 0));
    /// ```
    #[must_use = "the buffer is freed unless you keep it; to give it back, drop the guard"]
    pub fn detach(self) -> BytesMut {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, so the slot is taken out once.
        let mut slot = unsafe { ManuallyDrop::take(&mut this.slot) };
        slot.home().counters_of(&slot).detached.bump();
        mem::take(&mut slot.buf)
    }

    /// Makes the contents immutable and cheap to clone and slice.
    ///
    /// The buffer goes home when the last clone or slice is dropped, and counts
    /// as outstanding until then. `Bytes::try_into_mut` on it always fails.
    ///
    /// Allocates a few words for the shared count.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::default();
    /// let mut buf = pool.get(10);
    /// buf.extend_from_slice(b"header body");
    /// let frozen = buf.freeze();
    /// let body = frozen.slice(7..);
    /// drop(frozen);
    /// assert_eq!((&body[..], pool.stats().total.outstanding), (&b"body"[..], 1));
    /// drop(body);
    /// assert_eq!((pool.stats().total.returns, pool.stats().total.outstanding), (1, 0));
    /// ```
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }

    /// Makes room for at least `additional` bytes more, through the pool.
    ///
    /// Takes the smallest size class that holds the contents and `additional`
    /// bytes, if this buffer does not.
    ///
    /// # Panics
    ///
    /// - If the new capacity would be above `isize::MAX` bytes.
    #[inline]
    pub fn reserve(&mut self, additional: usize) {
        if self.spare() < additional {
            self.grow(additional, true);
        }
    }

    /// Appends `bytes`, growing through the pool.
    ///
    /// # Panics
    ///
    /// - If the new capacity would be above `isize::MAX` bytes.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        self.slot.buf.extend_from_slice(bytes);
    }

    /// Sets the length to `len`, cutting off or appending copies of `value`, growing through the pool.
    ///
    /// # Panics
    ///
    /// - If the new capacity would be above `isize::MAX` bytes.
    pub fn resize(&mut self, len: usize, value: u8) {
        match len.checked_sub(self.len()) {
            Some(more) => self.put_bytes(value, more),
            None => self.truncate(len),
        }
    }

    /// Cuts the contents off after `len` bytes; does nothing if they are not longer.
    pub fn truncate(&mut self, len: usize) {
        self.slot.note_written();
        self.slot.buf.truncate(len);
    }

    /// Empties the buffer. Keeps its capacity.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Bytes that fit without growing.
    #[inline(always)]
    fn spare(&self) -> usize {
        self.slot.buf.capacity() - self.slot.buf.len()
    }

    /// Notes that the buffer is lent out for writes that the pool cannot see.
    #[inline(always)]
    fn note_unseen(&mut self) {
        // A buffer that will be wiped has no origin. To look here is cheaper
        // than to write to the slot.
        if self.origin.is_none() {
            self.slot.note_unseen();
        }
    }

    /// Makes room for contents that come piece by piece.
    #[inline(always)]
    fn make_room(&mut self, additional: usize) {
        if self.spare() < additional {
            self.grow(additional, false);
        }
    }

    /// Exchanges the buffer for one with room for `additional` bytes more, and for
    /// what is to be expected after these, unless so many were `asked` for.
    #[cold]
    #[inline(never)]
    fn grow(&mut self, additional: usize, asked: bool) {
        self.slot.note_written();
        if self.slot.is_part_of_more() && self.slot.buf.try_reclaim(additional) {
            return; // there was room before the contents
        }
        let home = self.slot.home();
        let classes = home.classes();
        let (len, capacity) = (self.slot.buf.len(), self.slot.buf.capacity());
        let needed = len.checked_add(additional).expect("capacity overflow");
        let (slot, origin) = if needed > classes.max() {
            if home.class_of(self.slot.capacity()) == classes.unclassed() && !home.zero_on_return()
            {
                // From one plain allocation to another: the heap may do it in place.
                self.slot.buf.reserve(additional);
                return self.slot.note_grown_on_heap();
            }
            // At least double, so that appending costs constant time per byte.
            home.take(needed.max(capacity.saturating_mul(2).min(isize::MAX as usize)))
        } else if asked {
            home.take(needed)
        } else {
            let expected = home.calibrator().larger_than(capacity);
            home.take_to_grow(needed.max(expected.min(classes.max())))
        };
        let mut larger = PooledBuf {
            slot: ManuallyDrop::new(slot),
            origin,
        };
        larger.slot.buf.extend_from_slice(&self.slot.buf);
        mem::swap(self, &mut larger);
        let mut outgrown = ManuallyDrop::new(larger);
        // SAFETY: the guard is not dropped, so the slot is taken out once.
        let slot = unsafe { ManuallyDrop::take(&mut outgrown.slot) };
        Shared::keep_outgrown(slot, &outgrown.origin);
    }
}

impl Drop for PooledBuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: dropped once, and nothing uses the guard after its drop.
        let slot = unsafe { ManuallyDrop::take(&mut self.slot) };
        let len = slot.buf.len();
        if let Err(slot) = Shared::keep_local(slot, &self.origin) {
            Shared::keep(slot, len);
        }
    }
}

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
        self.note_unseen();
        &mut self.slot.buf
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

    #[inline]
    fn advance(&mut self, count: usize) {
        self.slot.buf.advance(count);
    }

    /// Splits off the first `len` bytes without copying.
    ///
    /// While that part lives, the buffer cannot go home: it is freed with it.
    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        self.slot.buf.copy_to_bytes(len)
    }
}

// SAFETY: `chunk_mut` and `advance_mut` are those of one `BytesMut`, which
// keeps the contract; growing exchanges that buffer before it is asked for a
// chunk, never between the two calls.
unsafe impl BufMut for PooledBuf {
    #[inline]
    fn remaining_mut(&self) -> usize {
        isize::MAX as usize - self.slot.buf.len()
    }

    #[inline]
    unsafe fn advance_mut(&mut self, count: usize) {
        // SAFETY: the caller has initialised the first `count` bytes of the
        // chunk that it got, which was this buffer's.
        unsafe { self.slot.buf.advance_mut(count) };
    }

    #[inline]
    fn chunk_mut(&mut self) -> &mut UninitSlice {
        self.make_room(1);
        // What is written there and not announced is not seen.
        self.note_unseen();
        self.slot.buf.chunk_mut()
    }

    /// Appends all that remains in `source`.
    ///
    /// # Panics
    ///
    /// - If the new capacity would be above `isize::MAX` bytes.
    /// - If `source` has bytes remaining, and gives an empty chunk.
    ///
    /// With that, as with a panic in `source` itself, what came before is kept.
    fn put<T: Buf>(&mut self, mut source: T)
    where
        Self: Sized,
    {
        self.make_room(source.remaining());
        while source.has_remaining() {
            let chunk = source.chunk();
            let len = chunk.len();
            // Else this would never end.
            assert!(len > 0, "a source has bytes remaining, and an empty chunk");
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
    /// Appends the bytes, growing through the pool, at first for as many as the iterator
    /// says that it has at least.
    ///
    /// # Panics
    ///
    /// - If the new capacity, or what the iterator says, would be above `isize::MAX` bytes.
    ///
    /// With that, as with a panic in the iterator itself, what came before is kept.
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

impl From<PooledBuf> for Bytes {
    /// As [`PooledBuf::freeze`].
    fn from(buf: PooledBuf) -> Bytes {
        buf.freeze()
    }
}

// A panic leaves the buffer as the last call left it; one in a source that is
// being put, or in an iterator, with what came before it.
impl UnwindSafe for PooledBuf {}
impl RefUnwindSafe for PooledBuf {}
