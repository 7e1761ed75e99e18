//! How a full guard gets room: from a larger buffer of the pool, or a few bytes beside its own.

use super::PooledBuf;
use crate::engine::Mark;
use crate::error::GetError;
use crate::inner::slot::PROBE;
use crate::inner::{BufferBox, BufferOrigin, Inner};
use crate::sizing::calibrator::least_growth;
use crate::system::CAPACITY_MAX;
use ::bytes::buf::UninitSlice;
use std::mem;

/// Why a guard needs room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// The guard's user named the size.
    Asked,
    /// Bytes are appended, and more may follow.
    Appended,
    /// A reader wrote a few bytes where its end was expected.
    Probed,
}

/// The smallest part of a buffer that is worth lending for writes, in bytes.
///
/// 64: `BytesMut` lends at least as much.
const CHUNK_LEAST: usize = 64;

/// The sum; `None` if no buffer can be that large.
fn with_additional(len: usize, additional: usize) -> Option<usize> {
    let needed = len.checked_add(additional)?;
    (needed <= CAPACITY_MAX).then_some(needed)
}

#[cold]
#[inline(never)]
fn capacity_overflow(len: usize, additional: usize) -> ! {
    panic!(
        "capacity overflow: {len} bytes and {additional} more are above isize::MAX ({CAPACITY_MAX} \
         bytes), the most that can be allocated; append less, or call try_reserve for an error"
    )
}

impl PooledBuf {
    /// Exchanges the buffer for one with room for `additional` more bytes, unless there is room
    /// before the contents.
    ///
    /// # Panics
    ///
    /// - If the contents and `additional` are above `isize::MAX` bytes together.
    #[cold]
    #[inline(never)]
    pub(super) fn grow(&mut self, additional: usize, room: Room) {
        let len = self.slot.buf.len();
        let Some(needed) = with_additional(len, additional) else {
            capacity_overflow(len, additional);
        };
        self.note_used();
        if self.is_shared() {
            return self.move_on(needed, room);
        }
        if self.slot.use_room(additional) {
            return;
        }
        let home = self.slot.home();
        let request = self.growth(needed, room);
        let (slot, origin) = if request <= home.classes().max() && room != Room::Asked {
            home.acquire_to_grow(request)
        } else if request > home.classes().max() && self.is_plain() {
            // From one plain allocation to another: the heap may do it in place.
            self.slot.buf.reserve(request - len);
            return self.slot.note_grown_on_heap();
        } else {
            home.acquire(request)
        };
        self.exchange_for(slot, origin);
    }

    /// As [`grow`](Self::grow), for room that the user asks for. An error leaves the guard as it
    /// is.
    #[cold]
    #[inline(never)]
    pub(super) fn try_grow(&mut self, additional: usize) -> Result<(), GetError> {
        let len = self.slot.buf.len();
        let Some(needed) = with_additional(len, additional) else {
            let size = len.saturating_add(additional);
            return Err(GetError::TooLarge { size });
        };
        self.note_used();
        if self.is_shared() {
            return self.try_move_on(needed);
        }
        if self.slot.use_room(additional) {
            return Ok(());
        }
        let home = self.slot.home();
        let request = self.growth(needed, Room::Asked);
        let (slot, origin) = match home.try_acquire(request) {
            // The heap may have room for `needed` bytes and not for more.
            Err(_) if needed < request => home.try_acquire(needed),
            taken => taken,
        }?;
        self.exchange_for(slot, origin);
        Ok(())
    }

    /// The capacity to ask for if `needed` bytes must fit.
    ///
    /// At least one and a half times the present one. So appending costs constant time per byte,
    /// however small the appends and the steps between classes are. Only the step to the largest
    /// class may be smaller. It comes once: above that class, the capacity doubles.
    pub(super) fn growth(&self, needed: usize, room: Room) -> usize {
        let home = self.slot.home();
        let (capacity, largest) = (self.slot.buf.capacity(), home.classes().max());
        let wanted = match room {
            Room::Asked | Room::Probed => least_growth(capacity),
            Room::Appended => home.larger_than(capacity),
        };
        let request = needed.max(wanted);
        if request <= largest {
            return request;
        }
        let is_below = self.slot.capacity() < largest;
        let least = least_growth(capacity);
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
    fn exchange_for(&mut self, mut slot: BufferBox, origin: BufferOrigin) {
        slot.buf.extend_from_slice(&self.slot.buf);
        let outgrown = mem::replace(&mut *self.slot, slot);
        let from = mem::replace(&mut self.origin, origin);
        Inner::release_outgrown(outgrown, from);
    }

    /// The room that a full guard lends for writes: room before the contents, or else a few bytes
    /// beside the buffer.
    ///
    /// A reader asks once more for room than it needs, to find the end of its source. So the buffer
    /// does not grow before a write.
    #[cold]
    #[inline(never)]
    pub(super) fn chunk_of_full(&mut self) -> &mut UninitSlice {
        self.note_used(); // before the contents move
        let probed = self.origin.has(Mark::Probed);
        if !self.is_shared() && (self.slot.use_room(CHUNK_LEAST) || self.slot.use_room(1)) {
            if probed {
                // Probed while a part was in use elsewhere. The probe may have been written to.
                let bytes = *self.slot.probe();
                self.write_behind(&bytes);
            }
            return self.spare_chunk();
        }
        self.note_unseen();
        if !probed && !self.slot.use_so_far().was_asked_for() {
            self.origin.mark(Mark::Unasked);
        }
        self.origin.mark(Mark::Probed);
        UninitSlice::new(self.slot.probe())
    }

    /// The spare room, for writes that the pool cannot see.
    #[inline(always)]
    pub(super) fn spare_chunk(&mut self) -> &mut UninitSlice {
        self.slot.forget_zeros();
        self.note_unseen();
        self.slot.buf.spare_capacity_mut().into()
    }

    /// Writes bytes behind the contents, as far as there is room, and does not announce them.
    fn write_behind(&mut self, bytes: &[u8]) {
        self.slot.forget_zeros();
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
    pub(super) fn append_probed(&mut self, count: usize) {
        let spare = self.spare();
        let chunk = if spare == 0 { PROBE } else { spare };
        assert!(
            spare == 0 && count <= PROBE,
            "advance_mut: count ({count}) is above the length of the chunk ({chunk}): announce only \
             bytes that were written to it"
        );
        let probed = *self.slot.probe();
        self.grow(count, Room::Probed);
        self.slot.buf.extend_from_slice(&probed[..count]);
        // The rest may have been written to as well, and be announced next.
        self.note_unseen();
        self.write_behind(&probed[count..]);
    }
}
