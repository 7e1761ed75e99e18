//! The buffer as its user holds it: an owned guard that goes home on drop.
//!
//! Owns growth through the pool. Knows nothing of levels.

use crate::engine::Mark;
use crate::error::GetError;
use crate::inner::slot::PROBE;
use crate::inner::{BufferOrigin, BufferSlot, Inner};
use crate::sizing::calibrator;
use crate::system::CAPACITY_MAX;
use bytes::buf::UninitSlice;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::fmt;
use std::io;
use std::mem::{self, ManuallyDrop, MaybeUninit};
use std::ops::{Deref, DerefMut, Index, IndexMut};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr;
use std::slice::SliceIndex;
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
/// The guard's own methods and traits ([`reserve`](Self::reserve),
/// [`extend_from_slice`](Self::extend_from_slice), `put_slice`, `write!`, ...) take a larger
/// buffer from the pool when this one is full, copy the contents and give the old one back.
///
/// - `reserve` and [`try_reserve`](Self::try_reserve) take the smallest size class that
///   holds the contents and the bytes asked for.
/// - Appending takes more, for the bytes to come. Before the pool's first
///   [calibration](crate::Pool::calibration), it takes a buffer eight times as large. After
///   it, it takes one of `default_size`, then of `max_size` (but at most eight times as
///   large at once), then sixteen times as large. It stops at the largest class, as long as
///   that holds the contents.
/// - Contents that no class holds go to a buffer from the heap, at least twice as large.
///
/// Each step is at least one and a half times the capacity. (One may be smaller: the step to
/// the largest class.) So appending `n` bytes copies at most `4 * n` bytes, however small the
/// pieces are, and however close the size classes.
///
/// # Reading to the end
///
/// A reader that fills the spare room ([`chunk_mut`](BufMut::chunk_mut), and `read_buf` of
/// `tokio`) does not grow the guard before it has written more bytes than the buffer holds.
/// **A full guard lends 8 bytes beside its buffer** (4 on a 32-bit machine). If the reader is
/// at its end, it writes none of them, and nothing happens. If it writes some, the guard
/// takes the next size class, and the bytes are appended. So `get(n)` is enough for a
/// message of `n` bytes:
///
/// ```
/// use bytes::BufMut;
/// use tierpool::Pool;
///
/// /// Reads one chunk, as `read_buf` does.
/// fn read(source: &mut &[u8], buf: &mut impl BufMut) -> usize {
///     let chunk = buf.chunk_mut();
///     let len = chunk.len().min(source.len());
///     chunk[..len].copy_from_slice(&source[..len]);
///     *source = &source[len..];
///     // SAFETY: these bytes were written above.
///     unsafe { buf.advance_mut(len) };
///     len
/// }
///
/// let pool = Pool::default();
/// let message = [7; 4096];
/// let mut source = &message[..];
/// let mut buf = pool.get(4096);
/// while read(&mut source, &mut buf) > 0 {}
/// assert_eq!((&buf[..], buf.capacity()), (&message[..], 4096));
/// ```
///
/// **Before a datagram is received** (`recv_buf`), call `reserve` with its largest size: of a
/// longer one than the spare room, the rest is lost.
///
/// # A guard that must not grow
///
/// Put a [`limit`](BufMut::limit) around it. What does not fit is refused: `put` panics, a
/// [`writer`](BufMut::writer) writes less, and a reader sees that it is full.
///
/// ```
/// use bytes::BufMut;
/// use std::io::Write;
/// use tierpool::Pool;
///
/// let pool = Pool::default();
/// let mut buf = pool.get(512);
/// buf.put_bytes(b'.', 500);
///
/// let room = buf.capacity() - buf.len();
/// let mut fixed = (&mut buf).limit(room).writer();
/// assert_eq!(fixed.write(b"hello, world and all")?, 12);
/// assert_eq!(fixed.write(b" and all")?, 0);
/// assert!(buf.ends_with(b"hello, world"));
/// assert_eq!((buf.len(), buf.capacity()), (512, 512));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Where growth is right but may fail, call [`try_reserve`](Self::try_reserve) first.
///
/// # Lending the `BytesMut`
///
/// Methods of `BytesMut` (`(*buf).reserve(..)`, or a function that takes `&mut BytesMut`) grow
/// as `BytesMut` does, on the heap. The pool does not see what they do. So it looks at the
/// buffer's allocation when the guard is dropped, which costs some 15 ns. Indexing
/// (`buf[0] = 1`, `&mut buf[4..]`), [`as_mut`](AsMut::as_mut),
/// [`spare_capacity_mut`](Self::spare_capacity_mut) and [`set_len`](Self::set_len) are the
/// guard's own and cost nothing more.
///
/// # Coming home
///
/// A buffer that was advanced or split comes home whole, unless a part of it is
/// still in use elsewhere; then it is freed with its last part. (A part of
/// length and capacity 0 may count as one or not.) One that has
/// grown joins the largest size class that its allocation fills, whatever it was cut to. It
/// is freed if it is above the pool's largest, or if it is above `max_size` and of a size
/// that no one [asks for](crate::Pool::calibration). It is also freed if the pool has no room
/// for it.
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
    pub(crate) fn take(home: &Arc<Inner>, request: usize) -> Self {
        let (slot, origin) = home.take(request);
        PooledBuf {
            slot: ManuallyDrop::new(slot),
            origin,
        }
    }

    /// As [`take`](Self::take), unless there is none to be had.
    #[inline(always)]
    pub(crate) fn try_take(home: &Arc<Inner>, request: usize) -> Result<Self, GetError> {
        let (slot, origin) = home.try_take(request)?;
        Ok(PooledBuf {
            slot: ManuallyDrop::new(slot),
            origin,
        })
    }

    /// Takes in a buffer that the pool did not make.
    pub(crate) fn adopt(home: &Arc<Inner>, buf: BytesMut) -> Self {
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
        slot.note_unseen(); // overwrites a probe, which may hold a secret
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
    /// Takes the smallest size class that holds the contents and `additional` bytes, if
    /// this buffer does not, and at least one and a half times its capacity.
    ///
    /// # Panics
    ///
    /// - If the contents and `additional` are above `isize::MAX` bytes together.
    ///
    /// If there is no memory, ends the process as `Vec` does;
    /// [`try_reserve`](Self::try_reserve) does not.
    #[inline]
    pub fn reserve(&mut self, additional: usize) {
        if self.spare() < additional {
            self.grow(additional, Room::Asked);
        }
    }

    /// Makes room for at least `additional` bytes more, as [`reserve`](Self::reserve), or
    /// returns an error where that would panic or end the process.
    ///
    /// On an error the guard and its contents are as before. What is true of
    /// [`Pool::try_get`](crate::Pool::try_get) is true of the buffer that this takes: what
    /// the pool holds idle is freed before it fails. A guard above the largest size class
    /// copies its contents where `reserve` may not have to.
    ///
    /// # Errors
    ///
    /// - [`GetError::TooLarge`] if the contents and `additional` are above `isize::MAX`
    ///   bytes together.
    /// - [`GetError::OutOfMemory`] if the heap refuses.
    ///
    /// ```
    /// use tierpool::{GetError, Pool};
    ///
    /// let pool = Pool::default();
    /// let mut buf = pool.get(512);
    /// buf.extend_from_slice(b"head");
    /// buf.try_reserve(1000)?;
    /// assert_eq!((&buf[..], buf.capacity()), (&b"head"[..], 1024));
    ///
    /// let refused = buf.try_reserve(usize::MAX).unwrap_err();
    /// assert!(matches!(refused, GetError::TooLarge { .. }));
    /// assert_eq!((&buf[..], buf.capacity()), (&b"head"[..], 1024));
    /// # Ok::<(), GetError>(())
    /// ```
    #[inline]
    pub fn try_reserve(&mut self, additional: usize) -> Result<(), GetError> {
        if self.spare() < additional {
            return self.try_grow(additional);
        }
        Ok(())
    }

    /// Appends `bytes`, growing through the pool.
    ///
    /// # Panics
    ///
    /// - If the new capacity would be above `isize::MAX` bytes.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        debug_assert!(bytes.len() <= self.spare());
        let buf = &mut self.slot.buf;
        let (len, end) = (buf.len(), buf.spare_capacity_mut().as_mut_ptr());
        // SAFETY: `make_room` has made room for these bytes behind the contents. They are
        // initialised before they count, and lie in no part of a buffer that is borrowed here.
        // (`BytesMut::extend_from_slice` would look at the room twice more.)
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr().cast(), end, bytes.len());
            buf.set_len(len + bytes.len());
        }
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
        self.note_written();
        self.slot.buf.truncate(len);
    }

    /// Empties the buffer. Keeps its capacity.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Sets the length, without a look at the bytes.
    ///
    /// As [`BytesMut::set_len`], but known to the pool: a guard on which this is called costs
    /// no more when it is dropped.
    ///
    /// # Safety
    ///
    /// - `len` is at most the capacity.
    /// - The first `len` bytes are initialised.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::default();
    /// let mut buf = pool.get(10);
    /// buf.spare_capacity_mut()[0].write(b'x');
    /// // SAFETY: the first byte was written by the line before.
    /// unsafe { buf.set_len(1) };
    /// assert_eq!(&buf[..], b"x");
    /// ```
    #[inline]
    pub unsafe fn set_len(&mut self, len: usize) {
        self.note_written();
        // SAFETY: as the caller promises.
        unsafe { self.slot.buf.set_len(len) };
    }

    /// The room behind the contents, which may not be initialised.
    ///
    /// As [`BytesMut::spare_capacity_mut`], but known to the pool, as is
    /// [`set_len`](Self::set_len).
    #[inline]
    pub fn spare_capacity_mut(&mut self) -> &mut [MaybeUninit<u8>] {
        // What is written there and not announced is not seen.
        self.note_unseen();
        self.slot.buf.spare_capacity_mut()
    }

    /// Bytes that fit without growing.
    #[inline(always)]
    fn spare(&self) -> usize {
        self.slot.buf.capacity() - self.slot.buf.len()
    }

    /// Makes room for contents that come piece by piece.
    #[inline(always)]
    fn make_room(&mut self, additional: usize) {
        if self.spare() < additional {
            self.grow(additional, Room::Appended);
        }
    }

    /// Exchanges the buffer for one with room for `additional` bytes more, unless there is
    /// room before the contents.
    ///
    /// # Panics
    ///
    /// - If the contents and `additional` are above `isize::MAX` bytes together.
    #[cold]
    #[inline(never)]
    fn grow(&mut self, additional: usize, room: Room) {
        let len = self.slot.buf.len();
        let Some(needed) = with_additional(len, additional) else {
            capacity_overflow(len, additional);
        };
        self.note_written();
        if self.slot.use_room(additional) {
            return;
        }
        let home = self.slot.home();
        let request = self.growth(needed, room);
        let (slot, origin) = if request <= home.classes().max() && room != Room::Asked {
            home.take_to_grow(request)
        } else if request > home.classes().max() && self.is_plain() {
            // From one plain allocation to another: the heap may do it in place.
            self.slot.buf.reserve(request - len);
            return self.slot.note_grown_on_heap();
        } else {
            home.take(request)
        };
        self.exchange_for(slot, origin);
    }

    /// As [`grow`](Self::grow), for room that is asked for, or leaves the guard as it is.
    #[cold]
    #[inline(never)]
    fn try_grow(&mut self, additional: usize) -> Result<(), GetError> {
        let len = self.slot.buf.len();
        let Some(needed) = with_additional(len, additional) else {
            let size = len.saturating_add(additional);
            return Err(GetError::TooLarge { size });
        };
        self.note_written();
        if self.slot.use_room(additional) {
            return Ok(());
        }
        let home = self.slot.home();
        let request = self.growth(needed, Room::Asked);
        let (slot, origin) = match home.try_take(request) {
            // The heap may have what is needed where it does not have more.
            Err(_) if needed < request => home.try_take(needed),
            taken => taken,
        }?;
        self.exchange_for(slot, origin);
        Ok(())
    }

    /// The capacity to ask for where `needed` bytes are to fit.
    ///
    /// At least one and a half times the present one. So appending costs constant time per
    /// byte, however small its steps are and those of the classes. The step to the largest
    /// class may be smaller. It comes once: above that class, the capacity doubles.
    fn growth(&self, needed: usize, room: Room) -> usize {
        let home = self.slot.home();
        let (capacity, largest) = (self.slot.buf.capacity(), home.classes().max());
        let wanted = match room {
            Room::Asked | Room::Probed => calibrator::least_growth(capacity),
            Room::Appended => home.calibrator().larger_than(capacity),
        };
        let request = needed.max(wanted);
        if request <= largest {
            return request;
        }
        let is_below = self.slot.capacity() < largest;
        let least = calibrator::least_growth(capacity);
        if needed <= largest && (is_below || least <= largest) {
            return largest;
        }
        needed.max(capacity.saturating_mul(2).min(CAPACITY_MAX))
    }

    /// Whether the buffer is of no size class, and is not to be wiped.
    fn is_plain(&self) -> bool {
        let home = self.slot.home();
        home.class_of(self.slot.capacity()) == home.classes().unclassed() && !home.zero_on_return()
    }

    /// Moves the contents to a larger buffer, and gives this one back.
    #[inline(always)] // into two that are cold
    fn exchange_for(&mut self, slot: Box<BufferSlot>, origin: BufferOrigin) {
        let mut larger = PooledBuf {
            slot: ManuallyDrop::new(slot),
            origin,
        };
        larger.slot.buf.extend_from_slice(&self.slot.buf);
        mem::swap(self, &mut larger);
        let mut outgrown = ManuallyDrop::new(larger);
        // SAFETY: the guard is not dropped, so the slot is taken out once.
        let slot = unsafe { ManuallyDrop::take(&mut outgrown.slot) };
        Inner::keep_outgrown(slot, outgrown.origin);
    }

    /// Notes what is written now, before it is cut off or moved.
    #[inline(always)]
    fn note_written(&mut self) {
        // A buffer that will be wiped has no origin. With a mark, all of it will be, and
        // the number's place may be lent out as the probe.
        if self.origin.is_none() && !self.origin.is_marked() {
            self.slot.note_written();
        }
    }

    /// Notes that the buffer is lent out for writes that the pool cannot see.
    #[inline(always)]
    fn note_unseen(&mut self) {
        // A buffer that will be wiped has no origin, so it has no use for one without marks.
        if self.origin.is_none() {
            self.mark_written();
        }
    }

    // Apart, so that there is a branch: a store to the origin, even of what it has, makes
    // the guard's next move wait for it.
    #[cold]
    #[inline(never)]
    fn mark_written(&mut self) {
        self.origin.mark(Mark::Written);
    }

    /// What a full guard lends to be written to: room before the contents, or else a few
    /// bytes beside the buffer.
    ///
    /// Who reads to the end of a source asks for room once more than it needs. So the
    /// buffer does not grow before something is written.
    #[cold]
    #[inline(never)]
    fn chunk_of_full(&mut self) -> &mut UninitSlice {
        self.note_unseen(); // before the contents move, and before the probe is written to
        if self.slot.use_room(CHUNK_LEAST) || self.slot.use_room(1) {
            // The probe may have been lent before, while a part was in use elsewhere, and
            // been written to.
            let probed = *self.slot.probe();
            self.write_behind(&probed);
            return self.slot.buf.spare_capacity_mut().into();
        }
        UninitSlice::new(self.slot.probe())
    }

    /// Writes bytes behind the contents, as far as there is room, and does not announce them.
    fn write_behind(&mut self, bytes: &[u8]) {
        for (to, &byte) in self.slot.buf.spare_capacity_mut().iter_mut().zip(bytes) {
            to.write(byte);
        }
    }

    /// Appends `count` bytes that were written to the [chunk of a full
    /// guard](Self::chunk_of_full), growing to the next class.
    ///
    /// # Panics
    ///
    /// - If the chunk has fewer bytes.
    #[cold]
    #[inline(never)]
    fn append_probed(&mut self, count: usize) {
        let spare = self.spare();
        let chunk = if spare == 0 { PROBE } else { spare };
        assert!(
            spare == 0 && count <= PROBE,
            "{count} bytes cannot have been written to a chunk of {chunk}"
        );
        let probed = *self.slot.probe();
        self.grow(count, Room::Probed);
        self.slot.buf.extend_from_slice(&probed[..count]);
        // The rest may have been written to as well, and be announced next.
        self.note_unseen();
        self.write_behind(&probed[count..]);
    }
}

/// What room is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// Its size was named by the guard's user.
    Asked,
    /// Something is appended, and more may follow.
    Appended,
    /// A few bytes came where the end was due.
    Probed,
}

/// From how many bytes on a part of a buffer is worth being lent to be written to.
///
/// 64: what `BytesMut` lends at least.
const CHUNK_LEAST: usize = 64;

/// The sum, if a buffer can be that large.
fn with_additional(len: usize, additional: usize) -> Option<usize> {
    let needed = len.checked_add(additional)?;
    (needed <= CAPACITY_MAX).then_some(needed)
}

#[cold]
#[inline(never)]
fn capacity_overflow(len: usize, additional: usize) -> ! {
    panic!(
        "capacity overflow: {len} bytes and {additional} more are above {CAPACITY_MAX}, the most \
         that can be allocated"
    )
}

impl Drop for PooledBuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: dropped once, and nothing uses the guard after its drop.
        let slot = unsafe { ManuallyDrop::take(&mut self.slot) };
        let len = slot.buf.len();
        if let Err(slot) = Inner::keep_local(slot, &self.origin) {
            // The origin as it is, not where it is: else a guard that was moved would have to be
            // written out again first.
            Inner::keep(slot, len, self.origin);
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
        // It may grow in place, be cut, or be exchanged.
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

// Not through `deref_mut`: what is written to the contents changes nothing else.
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

// SAFETY: `chunk_mut` lends the spare room of one `BytesMut`, or, where there is none, the
// probe; both stay where they are while the guard is borrowed and are all that is written
// to. `advance_mut` takes the bytes from the one that was lent: it looks at the same spare
// room, which nothing but the guard's owner has changed since.
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
        self.spare_capacity_mut().into()
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
