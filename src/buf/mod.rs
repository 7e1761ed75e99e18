//! The buffer as its user holds it: an owned guard that goes home on drop.
//!
//! `growth` exchanges a full buffer for a larger one. `parts` cuts the contents into `bytes`, which
//! share the buffer. `fill` lends room to code that wants initialised bytes. `contents` compares and
//! prints the bytes. `traits` implements the other traits. Knows nothing of levels.

mod bytes;
mod contents;
mod fill;
mod growth;
mod parts;
mod traits;

pub use bytes::PooledBytes;

use crate::engine::Mark;
use crate::error::GetError;
use crate::inner::{BufferBox, BufferOrigin, BufferSlot, Inner};
use ::bytes::{BufMut, BytesMut};
use growth::Room;
use std::mem::{self, ManuallyDrop, MaybeUninit};
use std::ptr;
use std::sync::Arc;

/// An owned buffer from a [`Pool`](crate::Pool), which goes back by itself when it is dropped.
///
/// It dereferences to [`BytesMut`], and implements [`BufMut`], [`Buf`](::bytes::Buf),
/// [`io::Write`](std::io::Write) and [`fmt::Write`](std::fmt::Write). It compares, orders and hashes as
/// the slice of its contents: `==` accepts slices, arrays, strings, vectors and the types of `bytes` on
/// either side.
///
/// It is `'static` and [`Send`]. It may be dropped on any thread, while the thread unwinds or ends, and
/// after the last handle of its pool.
///
/// ```
/// use bytes::BufMut;
/// use tierpool::Pool;
///
/// let pool = Pool::new();
/// let mut buf = pool.get(10);
/// buf.put_slice(b"GET / HTTP/1.1\r\n");
/// buf.put_bytes(b'x', 5000); // outgrows the 512-byte class
/// assert_eq!((buf.len(), &buf[..4]), (5016, &b"GET "[..]));
/// drop(buf);
/// assert_eq!(pool.stats().total.outstanding, 0);
/// ```
///
/// # Growth
///
/// A full guard takes a larger buffer from the pool, copies the contents and gives the old buffer back.
/// Its own methods and traits do so: [`reserve`](Self::reserve),
/// [`extend_from_slice`](Self::extend_from_slice), `put_slice`, `write!` and others.
///
/// - `reserve` and [`try_reserve`](Self::try_reserve) take the smallest size class that holds the
///   contents and the bytes asked for.
/// - Appending takes more, for the bytes to come: a buffer of `max_size` (see
///   [`Pool::targets`](crate::Pool::targets)), but at most eight times the capacity. Past `max_size` it
///   takes 32 times the capacity. It stops at the largest class if that holds the contents.
/// - Contents that no class holds go to a buffer from the heap of at least twice the capacity.
///
/// Each step is at least one and a half times the capacity, except the step to the largest class. So
/// appending `n` bytes copies at most `4 * n` bytes, however small the pieces are. (This holds while no
/// [parts](Self#parts) are out.)
///
/// # Reading to the end
///
/// A reader that fills the spare room ([`chunk_mut`](BufMut::chunk_mut), and `read_buf` of `tokio`) does
/// not grow the guard before it has written more bytes than the buffer holds. **A full guard lends 8
/// bytes beside its buffer** (4 on a 32-bit machine). A reader that is at its end writes none of them,
/// and the guard keeps its buffer. If the reader writes some, the guard takes the next size class and
/// appends them. So `get(n)` is enough for a message of `n` bytes:
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
/// let pool = Pool::new();
/// let message = [7; 4096];
/// let mut source = &message[..];
/// let mut buf = pool.get(4096);
/// while read(&mut source, &mut buf) > 0 {}
/// assert_eq!((&buf[..], buf.capacity()), (&message[..], 4096));
/// ```
///
/// **Before a datagram is received** (`recv_buf`), call `reserve` with its largest size: the part of a
/// datagram that exceeds the spare room is lost.
///
/// # A guard that must not grow
///
/// Put a [`limit`](BufMut::limit) around it. Bytes that do not fit are refused: `put` panics, a
/// [`writer`](BufMut::writer) writes less, and a reader sees that it is full. Where growth is right but
/// may fail, call [`try_reserve`](Self::try_reserve) first.
///
/// ```
/// use bytes::BufMut;
/// use std::io::Write;
/// use tierpool::Pool;
///
/// let pool = Pool::new();
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
/// # Parts
///
/// [`split_to`](Self::split_to) and [`split`](Self::split) cut contents off as [`PooledBytes`], and
/// [`freeze`](Self::freeze) makes one of the whole guard. Parts share the buffer: nothing is copied and
/// nothing is allocated. The guard goes on behind its parts. The buffer goes home as a whole when the
/// guard and all parts are gone, on any thread. Until then it is outstanding.
///
/// A full guard whose parts are out takes a fresh buffer, copies the rest of its contents, and leaves the
/// old buffer to its parts. The fresh one has the same size if a third of that stays free. Once all
/// parts are gone, a guard uses the space before its contents again. So a receive loop is this:
///
/// ```
/// use tierpool::{Pool, PooledBytes};
///
/// /// Cuts off the frames that are there: each has a byte with its length before it.
/// fn frames(rx: &mut tierpool::PooledBuf) -> Vec<PooledBytes> {
///     let mut frames = Vec::new();
///     while !rx.is_empty() && rx.len() > usize::from(rx[0]) {
///         let len = usize::from(rx[0]);
///         drop(rx.split_to(1));
///         frames.push(rx.split_to(len));
///     }
///     frames
/// }
///
/// let pool = Pool::new();
/// let mut source = &b"\x05hello\x05world\x03and"[..];
/// let mut rx = pool.get(4096);
/// let mut got = Vec::new();
/// while rx.read_from(&mut source, 4)? > 0 {
///     got.append(&mut frames(&mut rx)); // each may live as long as its user needs it
/// }
/// assert_eq!(got, ["hello", "world", "and"]);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Pitfalls
///
/// Methods of `BytesMut` that the guard does not have itself are reached through
/// [`DerefMut`](std::ops::DerefMut), as are those of `[u8]`. The pool does not see their effects.
///
/// - **A function that takes `&mut BytesMut`** (a codec, `(*buf).reserve(..)`) grows the buffer on the
///   heap, and may leave another one in its place. So the pool looks at the allocation when the guard is
///   dropped, which costs some 50 ns. While parts are out, the guard first moves to a fresh buffer, and
///   copies its contents.
/// - **Parts that are split there** (`BytesMut::split_to(&mut buf, n)`) are `BytesMut`s. If one is alive
///   when the guard is dropped, the buffer cannot come home: it is freed, and counted as
///   [`discards.shared`](crate::Discards::shared). The guard's own `split_to` does not lose it.
/// - **`socket.recv_from(&mut buf)`** reads into the contents. An empty guard has none. Call
///   [`recv_from`](Self::recv_from) or [`fill_with`](Self::fill_with).
/// - **`buf.clone()`** copies the contents into another buffer of the pool. To share them without a
///   copy, [`freeze`](Self::freeze) the guard and clone the result.
/// - **`mem::take(&mut buf)`** does not compile, since a guard cannot exist without a pool. Write
///   `mem::replace(&mut buf, pool.get(0))`.
///
/// Indexing (`buf[0] = 1`, `&mut buf[4..]`), [`as_mut`](AsMut::as_mut),
/// [`spare_capacity_mut`](Self::spare_capacity_mut) and [`set_len`](Self::set_len) are the guard's own,
/// and cost nothing more.
///
/// # Coming home
///
/// A buffer that was advanced or split comes home whole. If a `BytesMut` that was split off behind
/// `DerefMut` is still in use, the buffer is freed instead. (One of length and capacity 0 may or may not
/// count.)
///
/// A buffer that has grown joins the largest size class that its allocation fills, whatever it was cut
/// to. It is freed in three cases: it is above the pool's largest class, it is above `max_size` and of a
/// size that no one [asks for](crate::Pool::targets), or the pool has no room for it.
#[repr(C)] // see `Origin`
pub struct PooledBuf {
    /// Taken out by `drop` alone.
    slot: ManuallyDrop<BufferBox>,
    /// The thread cache that the slot may go back to if nothing has changed.
    // Here and not in the slot: so the drop can find its place in the cache before the slot is
    // loaded.
    origin: BufferOrigin,
}

impl PooledBuf {
    /// A guard of what the pool hands out.
    #[inline(always)]
    fn of((slot, origin): (BufferBox, BufferOrigin)) -> Self {
        PooledBuf {
            slot: ManuallyDrop::new(slot),
            origin,
        }
    }

    /// Takes an empty buffer for `request` bytes.
    #[inline(always)]
    pub(crate) fn acquire(home: &Arc<Inner>, request: usize) -> Self {
        PooledBuf::of(home.acquire(request))
    }

    /// As [`acquire`](Self::acquire), or an error if the heap refuses.
    #[inline(always)]
    pub(crate) fn try_acquire(home: &Arc<Inner>, request: usize) -> Result<Self, GetError> {
        Ok(PooledBuf::of(home.try_acquire(request)?))
    }

    /// As [`try_acquire`](Self::try_acquire), but exceeds the limit on outstanding bytes if it must.
    #[cfg(feature = "tokio")]
    pub(crate) fn try_acquire_above_limit(
        home: &Arc<Inner>,
        request: usize,
    ) -> Result<Self, GetError> {
        Ok(PooledBuf::of(home.try_acquire_above_limit(request)?))
    }

    /// As [`try_acquire`](Self::try_acquire), once the limit on outstanding bytes has room.
    #[cfg(feature = "limit")]
    pub(crate) async fn acquire_in_turn(
        home: &Arc<Inner>,
        request: usize,
    ) -> Result<Self, GetError> {
        Ok(PooledBuf::of(home.acquire_in_turn(request).await?))
    }

    /// Takes a buffer whose contents are `len` zeros.
    pub(crate) fn acquire_zeroed(home: &Arc<Inner>, len: usize) -> Self {
        let mut buf = PooledBuf::of(home.acquire_zeroed(len));
        buf.append_zeros(len);
        buf
    }

    /// Takes in a buffer that the pool did not make.
    pub(crate) fn adopt(home: &Arc<Inner>, buf: BytesMut) -> Self {
        home.counters(home.class_of(buf.capacity())).adopted.bump();
        let slot = BufferSlot::with_foreign(buf, Arc::clone(home));
        home.charge(&slot);
        PooledBuf::of((slot, BufferOrigin::NONE))
    }

    /// Takes the buffer out of the pool for good, and returns it.
    ///
    /// While [parts](Self#parts) are out, the buffer stays with them: the contents are copied to a fresh
    /// buffer, and that is taken out.
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::new();
    /// let mut buf = pool.get(10);
    /// buf.extend_from_slice(b"kept");
    /// let own: BytesMut = buf.detach();
    /// assert_eq!(&own[..], b"kept");
    /// assert_eq!((pool.stats().total.detached, pool.stats().total.outstanding), (1, 0));
    /// ```
    #[must_use = "the buffer is freed unless you keep it; to give it back, drop the guard"]
    pub fn detach(mut self) -> BytesMut {
        self.leave_parts();
        let (mut slot, _) = self.into_slot();
        slot.home().counters_of(&slot).detached.bump();
        slot.forget_use(); // overwrites a probe, which may hold a secret
        let (home, capacity) = (Arc::clone(slot.home()), slot.capacity());
        let buf = mem::take(&mut slot.buf);
        drop(slot);
        home.uncharge(capacity);
        buf
    }

    /// Makes room for at least `additional` more bytes, through the pool.
    ///
    /// Keeps the buffer if they fit. Otherwise it takes the smallest size class that holds the contents and
    /// `additional` bytes, and that is at least one and a half times the present capacity.
    ///
    /// # Panics
    ///
    /// - If the contents and `additional` are above `isize::MAX` bytes together.
    ///
    /// If the heap has no memory, the process ends, as with `Vec`. [`try_reserve`](Self::try_reserve)
    /// returns an error in both cases.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::new();
    /// let mut buf = pool.get(512);
    /// buf.reserve(1000);
    /// assert_eq!(buf.capacity(), 1024);
    /// ```
    #[inline]
    pub fn reserve(&mut self, additional: usize) {
        if self.spare() < additional {
            self.grow(additional, Room::Asked);
        }
    }

    /// Makes room as [`reserve`](Self::reserve) does, or returns an error.
    ///
    /// An error leaves the guard and its contents unchanged. Before it fails, the pool's idle buffers are
    /// freed, as in [`Pool::try_get`](crate::Pool::try_get). A guard above the largest size class copies its
    /// contents where `reserve` may not have to.
    ///
    /// # Errors
    ///
    /// - [`GetError::TooLarge`] if the contents and `additional` are above `isize::MAX` bytes together.
    /// - [`GetError::OutOfMemory`] if the heap refuses.
    ///
    /// ```
    /// use tierpool::{GetError, Pool};
    ///
    /// let pool = Pool::new();
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
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let mut buf = Pool::new().get(512);
    /// buf.extend_from_slice(b"one ");
    /// buf.extend_from_slice(b"two");
    /// assert_eq!(buf, "one two");
    /// ```
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

    /// Sets the length to `len`: cuts bytes off, or appends copies of `value`. Grows through the pool.
    ///
    /// Zeros that are known to be there are not written.
    ///
    /// # Panics
    ///
    /// - If the new capacity would be above `isize::MAX` bytes.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let mut buf = Pool::new().copy_from_slice(b"abc");
    /// buf.resize(5, b'.');
    /// assert_eq!(buf, "abc..");
    /// buf.resize(1, 0);
    /// assert_eq!(buf, "a");
    /// ```
    pub fn resize(&mut self, len: usize, value: u8) {
        match len.checked_sub(self.len()) {
            Some(more) if value == 0 => self.append_zeros(more),
            Some(more) => self.put_bytes(value, more),
            None => self.truncate(len),
        }
    }

    /// Cuts the contents off after `len` bytes. Does nothing if they are not longer.
    ///
    /// Keeps the capacity.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let mut buf = Pool::new().copy_from_slice(b"abc");
    /// buf.truncate(2);
    /// buf.truncate(9);
    /// assert_eq!(buf, "ab");
    /// ```
    pub fn truncate(&mut self, len: usize) {
        self.note_used();
        self.slot.buf.truncate(len);
    }

    /// Drops all contents. Keeps the capacity.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let mut buf = Pool::new().copy_from_slice(b"abc");
    /// buf.clear();
    /// assert_eq!((buf.len(), buf.capacity()), (0, 512));
    /// ```
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Sets the length, without a look at the bytes.
    ///
    /// The same as [`BytesMut::set_len`], but the pool sees it: the drop of the guard costs no more.
    ///
    /// # Safety
    ///
    /// - `len` is at most the capacity.
    /// - The first `len` bytes are initialised.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::new();
    /// let mut buf = pool.get(10);
    /// buf.spare_capacity_mut()[0].write(b'x');
    /// // SAFETY: the first byte was written by the line before.
    /// unsafe { buf.set_len(1) };
    /// assert_eq!(&buf[..], b"x");
    /// ```
    #[inline]
    pub unsafe fn set_len(&mut self, len: usize) {
        self.note_used();
        // SAFETY: as the caller promises.
        unsafe { self.slot.buf.set_len(len) };
    }

    /// Lends the room behind the contents, which may not be initialised.
    ///
    /// The same as [`BytesMut::spare_capacity_mut`], but the pool sees it, as with
    /// [`set_len`](Self::set_len), which makes bytes of it contents.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let mut buf = Pool::new().copy_from_slice(b"abc");
    /// assert_eq!(buf.spare_capacity_mut().len(), 512 - 3);
    /// ```
    #[inline]
    pub fn spare_capacity_mut(&mut self) -> &mut [MaybeUninit<u8>] {
        self.slot.forget_initialised();
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

    /// Notes how much is used now, before it is cut off, moved or lent.
    #[inline]
    fn note_used(&mut self) {
        // The number's place may be lent out as the probe. Only a full buffer lends it, so all of
        // that buffer was used.
        if !self.origin.has(Mark::Probed) {
            self.slot.note_used();
        }
    }

    /// Notes how much is used before some of it is consumed.
    #[inline]
    fn note_before_consuming(&mut self) {
        if !self.origin.has(Mark::Probed) {
            self.slot.note_before_consuming();
        }
    }

    /// Notes that the spare room is lent out for writes that the pool cannot see: it does not see
    /// bytes that are written there and not announced.
    #[inline(always)]
    fn note_unseen(&mut self) {
        // A buffer that will be wiped has no origin. So only one without an origin needs the mark.
        if self.origin.is_none() {
            self.mark(Mark::Unseen);
        }
    }

    // Apart, so that there is a branch: a store to the origin, even of the same value, makes the
    // guard's next move wait for it.
    #[cold]
    #[inline(never)]
    fn mark(&mut self, mark: Mark) {
        self.origin.mark(mark);
    }
}

impl Drop for PooledBuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: dropped once, and nothing uses the guard after its drop.
        let slot = unsafe { ManuallyDrop::take(&mut self.slot) };
        let before = slot.use_as_it_left();
        if let Err(slot) = Inner::release_local(slot, &self.origin) {
            // The origin by value, not by address: else a guard that was moved would have to be
            // written out again first.
            Inner::release(slot, self.origin, before);
        }
    }
}
