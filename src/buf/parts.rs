//! A guard that shares its buffer with the parts that were cut from its contents.
//!
//! Owns when the guard may use all of the buffer again, and when it takes a fresh one. What a part
//! can do is in `bytes`.

use super::PooledBuf;
use super::bytes::PooledBytes;
use super::growth::Room;
use crate::engine::Mark;
use crate::error::GetError;
use crate::inner::{BufferBox, BufferOrigin, Inner};
use ::bytes::Buf;
use std::mem::{self, ManuallyDrop};
use std::ptr::NonNull;

impl PooledBuf {
    /// Cuts the first `at` bytes off and returns them, without a copy and without an allocation.
    ///
    /// The part shares the buffer. The guard goes on behind it, with all the room that it had. The buffer
    /// goes home when the guard and all parts are gone.
    ///
    /// When the guard is full while parts are out, it takes a fresh buffer from the pool, copies the rest of
    /// its contents there, and leaves this one to its parts. When all parts are gone, it uses the space
    /// before its contents again.
    ///
    /// # Panics
    ///
    /// - If `at` is above the length.
    ///
    /// ```
    /// use tierpool::{Pool, PooledBytes};
    ///
    /// let pool = Pool::new();
    /// let mut buf = pool.get(4096);
    /// buf.extend_from_slice(b"frame 1frame 2");
    /// let first: PooledBytes = buf.split_to(7);
    /// buf.extend_from_slice(b"frame 3");
    /// assert_eq!((&first[..], &buf[..]), (&b"frame 1"[..], &b"frame 2frame 3"[..]));
    ///
    /// drop(buf);
    /// assert_eq!(pool.stats().total.outstanding, 1);
    /// drop(first);
    /// assert_eq!((pool.stats().total.returns, pool.stats().total.outstanding), (1, 0));
    /// ```
    #[must_use = "the bytes are cut off; to skip them, call `advance`"]
    #[inline]
    pub fn split_to(&mut self, at: usize) -> PooledBytes {
        let len = self.len();
        assert!(at <= len, "split_to: at ({at}) is above the length ({len})");
        if at == 0 {
            return PooledBytes::new();
        }
        self.note_before_consuming();
        if !self.origin.has(Mark::Shared) {
            self.mark(Mark::Shared);
        }
        let (start, _) = self.contents();
        self.slot.buf.advance(at);
        // SAFETY: the bytes were contents of the buffer, and lie before them now. The guard goes
        // back there only when it is alone: see `is_shared`.
        unsafe { PooledBytes::of(self.slot.hold(), start, at) }
    }

    /// Cuts all contents off and returns them, without a copy and without an allocation.
    ///
    /// The same as [`split_to`](Self::split_to) with the whole length. The guard keeps the room behind the
    /// contents.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let mut buf = Pool::new().copy_from_slice(b"first");
    /// let first = buf.split();
    /// buf.extend_from_slice(b"second");
    /// assert_eq!((&first[..], &buf[..]), (&b"first"[..], &b"second"[..]));
    /// ```
    #[must_use = "the bytes are cut off; to drop them, call `clear`"]
    pub fn split(&mut self) -> PooledBytes {
        self.split_to(self.len())
    }

    /// Cuts the contents behind the first `at` bytes off and returns them. The guard keeps the first ones,
    /// and can grow.
    ///
    /// **Copies** the shorter side into another buffer of the pool: the bytes that are cut off lie where the
    /// guard goes on. [`split_to`](Self::split_to) copies nothing.
    ///
    /// # Panics
    ///
    /// - If `at` is above the length. (That of `BytesMut` allows up to the capacity.)
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::new();
    /// let mut buf = pool.get(4096);
    /// buf.extend_from_slice(b"head and tail");
    /// let tail = buf.split_off(8);
    /// buf.extend_from_slice(b" more");
    /// assert_eq!((&buf[..], &tail[..]), (&b"head and more"[..], &b" tail"[..]));
    /// ```
    #[must_use = "the bytes are cut off; to drop them, call `truncate`"]
    pub fn split_off(&mut self, at: usize) -> PooledBytes {
        let len = self.len();
        assert!(
            at <= len,
            "split_off: at ({at}) is above the length ({len})"
        );
        if at == len {
            return PooledBytes::new();
        }
        if at == 0 {
            return self.split();
        }
        let home = self.slot.home();
        if len - at <= at {
            let mut tail = PooledBuf::acquire(home, len - at);
            tail.extend_from_slice(&self.slot.buf[at..]);
            self.truncate(at);
            return tail.freeze();
        }
        let mut head = PooledBuf::acquire(home, self.slot.capacity());
        head.extend_from_slice(&self.slot.buf[..at]);
        let mut rest = mem::replace(self, head);
        rest.advance(at);
        rest.freeze()
    }

    /// Makes the contents immutable, and cheap to clone, slice and split. Copies nothing and allocates
    /// nothing.
    ///
    /// The buffer goes home when the last part is dropped, and counts as outstanding until then.
    /// [`freeze_compact`](Self::freeze_compact) does not keep a large buffer out for a few bytes.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use tierpool::{Pool, PooledBytes};
    ///
    /// let pool = Pool::new();
    /// let mut buf = pool.get(10);
    /// buf.extend_from_slice(b"header body");
    /// let frozen: PooledBytes = buf.freeze();
    /// let body = frozen.slice(7..);
    /// drop(frozen);
    /// assert_eq!((&body[..], pool.stats().total.outstanding), (&b"body"[..], 1));
    ///
    /// let bytes: Bytes = body.into(); // one small allocation
    /// drop(bytes);
    /// assert_eq!((pool.stats().total.returns, pool.stats().total.outstanding), (1, 0));
    /// ```
    #[must_use = "the buffer goes back at once unless you keep the bytes"]
    #[inline]
    pub fn freeze(self) -> PooledBytes {
        if self.is_empty() {
            return PooledBytes::new();
        }
        let (start, len) = self.contents();
        let (slot, origin) = self.into_slot();
        // SAFETY: the bytes are the contents of the buffer, and its guard is gone.
        unsafe { PooledBytes::of(Inner::into_hold(slot, origin), start, len) }
    }

    /// Freezes as [`freeze`](Self::freeze) does, but does not keep a large buffer out for a few bytes.
    ///
    /// Contents below half of the capacity move to the size class that holds them, and the large buffer
    /// goes home at once. [`Builder::compact_below`](crate::Builder::compact_below) sets another share than
    /// half.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::new();
    /// let mut buf = pool.get(64 << 10);
    /// buf.extend_from_slice(&[7; 500]);
    /// let frozen = buf.freeze_compact();
    /// assert_eq!(frozen, [7; 500]);
    /// assert_eq!(pool.stats().total.outstanding_bytes, 512);
    /// ```
    #[must_use = "the buffer goes back at once unless you keep the bytes"]
    pub fn freeze_compact(mut self) -> PooledBytes {
        let share = u128::from(self.slot.home().compact_below());
        if !self.is_empty() && (self.len() as u128) * 100 < self.whole_capacity() as u128 * share {
            self.shrink_to_fit();
        }
        self.freeze()
    }

    /// Moves the contents to the smallest size class that holds them, if that is smaller than this buffer.
    ///
    /// If the heap has no memory for a smaller buffer, the process ends.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::new();
    /// let mut buf = pool.get(64 << 10);
    /// buf.extend_from_slice(&[7; 500]);
    /// buf.shrink_to_fit();
    /// assert_eq!((buf.len(), buf.capacity()), (500, 512));
    /// ```
    pub fn shrink_to_fit(&mut self) {
        let home = self.slot.home();
        if home.capacity_for(self.len()) < self.whole_capacity() {
            let mut smaller = PooledBuf::acquire(home, self.len());
            smaller.extend_from_slice(&self.slot.buf);
            *self = smaller;
        }
    }

    /// The capacity of the whole buffer, as far as it can be seen.
    fn whole_capacity(&self) -> usize {
        match self.origin.has(Mark::Lent) {
            true => self.slot.buf.capacity(), // it may be another one
            false => self.slot.capacity(),
        }
    }

    /// Where the contents begin, and their length.
    fn contents(&self) -> (NonNull<u8>, usize) {
        let contents = &self.slot.buf[..];
        (NonNull::from(contents).cast(), contents.len())
    }

    /// The guard of a buffer that the last part has left.
    pub(super) fn of_last(slot: BufferBox) -> Self {
        let origin = slot.left();
        PooledBuf {
            slot: ManuallyDrop::new(slot),
            origin,
        }
    }

    /// Takes the slot out of the guard.
    pub(super) fn into_slot(self) -> (BufferBox, BufferOrigin) {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, so the slot is taken out once.
        (unsafe { ManuallyDrop::take(&mut this.slot) }, this.origin)
    }

    /// Whether parts may use the buffer. If not, the guard has all of it to itself again.
    pub(super) fn is_shared(&mut self) -> bool {
        if !self.origin.has(Mark::Shared) {
            return false;
        }
        let shared = !self.slot.is_alone();
        if !shared {
            self.origin.unmark(Mark::Shared);
        }
        shared
    }

    /// Takes a fresh buffer with room for `needed` bytes, and leaves this one to its parts.
    pub(super) fn move_on(&mut self, needed: usize, room: Room) {
        self.move_on_to(self.fresh(needed, room), room);
    }

    fn move_on_to(&mut self, request: usize, room: Room) {
        let home = self.slot.home();
        let as_large = request == self.slot.capacity();
        let asked = room == Room::Asked || as_large && self.was_asked_for();
        let (slot, origin) = match asked || request > home.classes().max() {
            true => home.acquire(request),
            false => home.acquire_to_grow(request),
        };
        self.move_to(slot, origin);
    }

    /// As [`move_on`](Self::move_on). An error leaves the guard as it is.
    pub(super) fn try_move_on(&mut self, needed: usize) -> Result<(), GetError> {
        let request = self.fresh(needed, Room::Asked);
        let home = self.slot.home();
        let (slot, origin) = match home.try_acquire(request) {
            // The heap may have room for `needed` bytes and not for more.
            Err(_) if needed < request => home.try_acquire(needed),
            taken => taken,
        }?;
        self.move_to(slot, origin);
        Ok(())
    }

    /// The capacity of the buffer that follows this one: as large, if a third of that stays free.
    ///
    /// So at least half as many bytes are written to it as were copied there, before the guard has
    /// to move on again.
    fn fresh(&self, needed: usize, room: Room) -> usize {
        let capacity = self.slot.capacity();
        match needed <= capacity - capacity / 3 {
            true => capacity,
            false => self.growth(needed, room),
        }
    }

    fn move_to(&mut self, mut slot: BufferBox, origin: BufferOrigin) {
        slot.buf.extend_from_slice(&self.slot.buf);
        let left = mem::replace(&mut *self.slot, slot);
        let from = mem::replace(&mut self.origin, origin);
        left.home().counters_of(&left).growths.bump();
        Inner::release_hold(Inner::into_hold(left, from));
    }

    /// Before the buffer is lent as a whole, or taken out: makes sure that no part uses it.
    #[cold]
    #[inline(never)]
    pub(super) fn leave_parts(&mut self) {
        if self.is_shared() {
            self.move_on_to(self.len().max(self.slot.capacity()), Room::Probed);
        }
    }

    /// Whether the buffer was taken because its size was named.
    fn was_asked_for(&self) -> bool {
        match self.origin.has(Mark::Probed) {
            true => !self.origin.has(Mark::Unasked),
            false => self.slot.use_so_far().was_asked_for(),
        }
    }
}
