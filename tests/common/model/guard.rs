//! One outstanding buffer, until its guard or its last part returns it.
//!
//! Owns the pool's notes on it: how many bytes were used, which are known to be zero, how it was
//! lent. Knows nothing of the level that it returns to.

use super::levels::Life;
use super::memory::{Memory, View, Zeros};
use super::pool::least_growth;

#[derive(Debug)]
pub(super) struct GuardModel {
    pub(super) view: View,
    /// Address of the whole buffer, as the pool last saw it; 0 if the pool has not seen it.
    pub(super) base: usize,
    /// Capacity of the whole buffer, as the pool last saw it.
    pub(super) capacity: usize,
    /// The class in which it counts as outstanding.
    pub(super) class: usize,
    /// The thread to whose cache it may return on the fast path.
    pub(super) origin: Option<Life>,
    /// Whether its `BytesMut` was lent out. It may be any other `BytesMut` now.
    pub(super) lent: bool,
    /// Whether a few bytes beside it were lent out, because it was full.
    pub(super) probed: bool,
    /// The most bytes that it held, as far as the pool has noted.
    pub(super) most: usize,
    /// Whether the user asked for it, rather than adopted it or grew into it.
    pub(super) asked: bool,
    /// The number under which parts hold it, if any did.
    pub(super) cell: Option<usize>,
    /// Whether the guard has noted that parts may hold it.
    pub(super) shared: bool,
    /// Whether its room was lent out while it had no origin.
    pub(super) unseen: bool,
    /// Whether its return must keep the knowledge of zeros.
    pub(super) knows: bool,
    pub(super) zeros: Zeros,
}

impl GuardModel {
    /// Whether it begins in the memory that the pool knows as the buffer's own.
    pub(super) fn is_known(&self, memory: &Memory) -> bool {
        let known = self.base..=self.base + self.capacity;
        self.base != 0 && known.contains(&memory.address(&self.view))
    }

    /// How many bytes were taken from the front, as far as the pool knows where the front was.
    pub(super) fn consumed(&self, memory: &Memory) -> usize {
        match self.is_known(memory) {
            true => memory.address(&self.view) - self.base,
            false => 0,
        }
    }

    /// Whether it has the address and the capacity with which it left home.
    pub(super) fn looks_as_it_left(&self, memory: &Memory) -> bool {
        memory.address(&self.view) == self.base && self.view.capacity == self.capacity
    }

    /// Whether it is all of the memory that the pool knows, that memory is a whole allocation, and
    /// no one else has a part.
    pub(super) fn is_alone_and_whole(&self, memory: &Memory) -> bool {
        let allocation = memory.of(&self.view);
        self.is_known(memory)
            && memory.is_alone(&self.view)
            && (allocation.base, allocation.capacity) == (self.base, self.capacity)
    }

    // ---- zeros ----

    /// The start of the bytes that are known to be zero, or a number beyond all bytes.
    pub(super) fn zeros_from(&self, memory: &Memory) -> usize {
        match self.zeros.known {
            true => self.zeros.from.max(self.used_now(memory).max(self.most)),
            false => usize::MAX,
        }
    }

    pub(super) fn knows_zeros(&self, memory: &Memory) -> bool {
        !self.lent && !self.probed && self.zeros_from(memory) < self.capacity
    }

    /// Notes that its room is lent out for writing, in any way.
    pub(super) fn lend_unseen(&mut self) {
        self.unseen |= self.origin.is_none();
    }

    /// As `lend_unseen`, for initialised bytes. They may have any value from now on.
    pub(super) fn lend_chunk(&mut self) {
        self.lend_unseen();
        self.zeros.from = usize::MAX;
    }

    /// As `lend_unseen`, for bytes that the borrower may leave uninitialised.
    pub(super) fn lend_spare(&mut self) {
        self.lend_unseen();
        self.zeros.initialised = 0;
    }

    /// Notes that a room of `count` initialised bytes is lent out. They count as written.
    pub(super) fn lend_room(&mut self, memory: &Memory, count: usize) {
        if !self.lent && !self.probed && self.is_known(memory) {
            let end = self.used_now(memory) + count;
            self.zeros.initialised = self.zeros.initialised.max(end);
            self.zeros.from = self.zeros.from.max(end);
        }
    }

    /// Notes that only `written` bytes of such a room were written.
    pub(super) fn note_room_written(&mut self, memory: &Memory, count: usize, written: usize) {
        if self.lent || self.probed || !self.is_known(memory) {
            return;
        }
        let (start, zeros) = (self.used_now(memory), &mut self.zeros);
        let end = start + count;
        if end >= zeros.initialised || zeros.known && zeros.from <= end {
            zeros.note_from(start + written);
        }
    }

    /// Notes that a part of such a room has become contents.
    pub(super) fn note_appended(&mut self, memory: &Memory) {
        self.knows |= self.knows_zeros(memory);
    }

    // ---- parts ----

    /// Notes that the guard leaves the buffer to its parts.
    pub(super) fn leave(&mut self, memory: &Memory) {
        if self.probed {
            self.most = self.most_used(memory);
            self.probed = false;
            self.zeros.known = false;
        } else {
            self.note_used(memory);
        }
        self.shared = false;
        if self.lent {
            self.base = 0;
            self.zeros.initialised = 0;
        }
    }

    /// Notes that the last holder has left.
    pub(super) fn left_by_all(&mut self, memory: &Memory) {
        self.note_used(memory);
        let was_lent = self.lent || self.unseen || self.probed;
        if !was_lent && self.is_known(memory) && !self.looks_as_it_left(memory) {
            self.view.contents.clear();
            memory.try_reclaim(&mut self.view, self.capacity);
        }
    }

    /// Turns the last part, which begins at `start`, into a guard. Returns `false` if that fails.
    pub(super) fn show(&mut self, memory: &Memory, start: usize, contents: &[u8]) -> bool {
        self.note_used(memory);
        let (address, len) = (memory.address(&self.view), self.view.contents.len());
        let consumed = match start.checked_sub(address) {
            Some(skip) if skip + contents.len() <= len => skip,
            _ => {
                self.view.contents.clear();
                let whole = self.is_known(memory)
                    && (self.looks_as_it_left(memory)
                        || memory.try_reclaim(&mut self.view, self.capacity))
                    && self.looks_as_it_left(memory);
                if !whole {
                    return false;
                }
                start - self.base
            }
        };
        self.view.offset += consumed;
        self.view.capacity -= consumed;
        self.view.contents = contents.to_vec();
        true
    }

    /// The known zeros once the buffer is home. `wipes`: whether the pool wipes.
    pub(super) fn zeros_at_home(&self, memory: &Memory, as_it_left: bool, wipes: bool) -> Zeros {
        let mut zeros = self.zeros;
        if as_it_left {
            zeros.known = false;
            return zeros;
        }
        let from = match wipes {
            true => 0,
            false if self.lent || self.unseen || self.probed => usize::MAX,
            false => self.zeros_from(memory),
        };
        if self.lent {
            zeros.initialised = 0;
        }
        let whole = memory.of(&self.view).capacity;
        let is_known = self.may_be_kept_as_it_is(memory) || self.is_alone_and_whole(memory);
        let wiped = match wipes {
            true if is_known && !(self.lent || self.unseen || self.probed) => {
                self.most_used(memory)
            }
            true => whole,
            false => 0,
        };
        if !is_known {
            zeros.initialised = 0;
        }
        zeros.initialised = zeros.initialised.max(wiped.min(whole));
        zeros.known = false;
        zeros.note_from(from);
        zeros
    }

    /// Whether the pool may keep it after only a check of its address and capacity.
    pub(super) fn may_be_kept_as_it_is(&self, memory: &Memory) -> bool {
        match self.lent {
            true => self.is_alone_and_whole(memory),
            false => self.looks_as_it_left(memory),
        }
    }

    /// Whether it came from this thread's cache, and is unchanged.
    pub(super) fn is_as_it_left(&self, memory: &Memory, me: Life) -> bool {
        let marked = self.lent || self.probed || self.shared || self.knows;
        self.origin == Some(me) && !marked && self.looks_as_it_left(memory)
    }

    /// How many bytes it holds now, including consumed ones.
    pub(super) fn used_now(&self, memory: &Memory) -> usize {
        self.consumed(memory) + self.view.contents.len()
    }

    /// Notes how many bytes it holds, as the pool does.
    pub(super) fn note_used(&mut self, memory: &Memory) {
        let now = self.used_now(memory);
        if !self.probed {
            self.most = now.max(self.most);
        }
    }

    /// Notes the use before some bytes are consumed.
    pub(super) fn note_before_consuming(&mut self, memory: &Memory) {
        if self.base == 0 {
            self.note_used(memory);
        }
    }

    /// Notes that its `BytesMut` is lent out.
    pub(super) fn lend(&mut self, memory: &Memory) {
        self.note_used(memory);
        self.lent = true;
    }

    /// The most bytes that it held, as the pool records it.
    pub(super) fn most_used(&self, memory: &Memory) -> usize {
        match self.probed {
            // The probe has overwritten the number. Only a full buffer lends it.
            true => self.consumed(memory) + self.view.capacity,
            false => self.used_now(memory).max(self.most),
        }
    }

    /// The capacity that its pool counts while it is outstanding.
    pub(super) fn whole_capacity(&self) -> usize {
        match self.lent {
            true => self.view.capacity,
            false => self.capacity,
        }
    }

    /// Whether its return counts as a request.
    pub(super) fn was_asked_for(&self) -> bool {
        self.asked
    }

    /// Makes room for `additional` more bytes without the heap.
    pub(super) fn use_room(&mut self, memory: &Memory, additional: usize) -> bool {
        if self.looks_as_it_left(memory) {
            return false;
        }
        if self.is_known(memory) {
            let end = memory.address(&self.view) + self.view.contents.len();
            let behind = (self.base + self.capacity).saturating_sub(end);
            if behind >= additional && memory.try_reclaim(&mut self.view, behind) {
                return true;
            }
        }
        memory.try_reclaim(&mut self.view, additional)
    }

    /// The capacity to request if `needed` bytes must fit, and `wanted` would be better.
    pub(super) fn growth(&self, largest: usize, needed: usize, wanted: usize) -> usize {
        let capacity = self.view.capacity;
        let request = needed.max(wanted);
        if request <= largest {
            return request;
        }
        let fits_well = least_growth(capacity) <= largest;
        if needed <= largest && (self.capacity < largest || fits_well) {
            return largest;
        }
        needed.max(2 * capacity)
    }

    /// Empties the buffer. Returns its capacity if it is then the whole of its allocation; `None`
    /// if a part has another holder.
    pub(super) fn make_whole(&mut self, memory: &mut Memory) -> Option<usize> {
        self.view.contents.clear();
        if self.may_be_kept_as_it_is(memory) || self.is_alone_and_whole(memory) {
            return Some(self.capacity);
        }
        let is_known = self.is_known(memory);
        let view = &mut self.view;
        if !is_known && view.capacity == 0 && !memory.try_reclaim(view, 1) {
            return Some(0); // taken out, with nothing left in its place
        }
        if !memory.is_alone(view) {
            return None;
        }
        let allocation = memory.allocations.get_mut(&view.allocation).unwrap();
        allocation.counted = false;
        Some(allocation.capacity)
    }
}
