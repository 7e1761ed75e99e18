//! The heap cell that carries a buffer and keeps its home alive.
//!
//! Owns the notes on a buffer that is out: where it began and how much of it was written. Knows
//! nothing of levels or of size classes.
//!
//! The count that keeps the home alive lives here, from the cell's allocation
//! to its end, and so does the capacity that the home counts: moving a cell between a
//! guard and a cache counts nothing.

use crate::engine::Item;
use crate::sizing::samples::Samples;
use crate::sync::{Mutex, try_lock};
use crate::system;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::hint;
use std::mem::{self, MaybeUninit};
use std::ops::Range;
use std::ptr;
use std::sync::Arc;

/// Where a slot belongs.
pub(crate) trait Home {
    /// Counts that a slot's known capacity goes from `before` to `after` bytes. A slot begins
    /// at 0 and ends at 0, so what its home has counted adds up to the capacity of all slots.
    fn capacity_changes(&self, before: usize, after: usize);

    /// The memory that an ended slot left for the next one.
    fn spare(&self) -> &Spare<Self>
    where
        Self: Sized;
}

/// The memory of a slot that has ended, for the next one; or none.
///
/// A heap takes longer for a slot than for many a buffer. While no buffer may be kept, each new
/// slot finds here the memory of the one before it.
// One, since it pins all memory below it on the heap; and the lowest, so that this is little.
pub(crate) struct Spare<H: Home>(Mutex<Option<Box<MaybeUninit<Slot<H>>>>>);

impl<H: Home> Spare<H> {
    pub(crate) fn new() -> Self {
        Spare(Mutex::new(None))
    }

    /// `None` also while another thread is here.
    fn take(&self) -> Option<Box<MaybeUninit<Slot<H>>>> {
        try_lock(&self.0)?.take()
    }

    /// Keeps whichever lies lower of this one and the one that is here, and frees the other.
    fn put(&self, memory: Box<MaybeUninit<Slot<H>>>) {
        let Some(mut spare) = try_lock(&self.0) else {
            return;
        };
        match &*spare {
            Some(lower) if lower.as_ptr() < memory.as_ptr() => {}
            _ => *spare = Some(memory),
        }
    }
}

/// A buffer with the notes that its home needs.
// 64: one cache line, not shared with a neighbour on the heap that another thread may use. And
// glibc's heap serves no aligned block from the few that it keeps for a thread. So these stay
// low, and pin no memory of a burst (`docs/design.md`).
#[repr(align(64))]
pub(crate) struct Slot<H: Home> {
    pub(crate) buf: BytesMut,
    /// Address of the whole buffer's first byte; 0 if that is not known, and
    /// for a buffer of a size class whose capacity is not exactly the class's.
    base: usize,
    /// The whole buffer's capacity in bytes, when it was last seen whole, or when it was adopted or
    /// grew on the heap. It decides the class in which the buffer counts as outstanding. Its home
    /// has counted it: see [`Home`].
    capacity: usize,
    /// The most bytes from `base` on that were used since the buffer left home, as a number.
    /// [`UNASKED`] is added for a buffer whose size no one named.
    ///
    /// Or the [probe](Self::probe) of a full buffer. The guard knows which of the two it is: it
    /// marks its origin as [`Probed`](crate::engine::Mark::Probed) before it lends the probe.
    used: [u8; PROBE],
    home: Arc<H>,
}

/// How many bytes a full buffer lends out before it grows.
///
/// 8: the size of `used` anyway. A reader that is at its end writes none of them.
pub(crate) const PROBE: usize = mem::size_of::<usize>();

/// Added to `used`, which is never that large itself.
const UNASKED: usize = 1 << (usize::BITS - 1);

/// How a buffer was used while it was out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    /// How many bytes are used now.
    now: usize,
    /// The number that the slot has noted.
    before: usize,
}

impl Use {
    /// The most bytes that were used at once.
    pub(crate) fn most(self) -> usize {
        self.now.max(self.before & !UNASKED)
    }

    /// Whether the buffer was taken because its size was named.
    pub(crate) fn was_asked_for(self) -> bool {
        self.before & UNASKED == 0
    }
}

/// The part of a buffer to overwrite when it comes home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wipe {
    Nothing,
    /// The bytes that the pool has seen to be used.
    Used,
    All,
}

/// At least as many words as `BytesMut::freeze` allocates at once: the address, the
/// capacity and a count, and one to spare.
const FREEZE_WORDS: usize = 4;

/// How many bytes are worth a call of the system to give their pages back.
///
/// 64 KiB: 16 pages, or less where pages are larger.
const RELEASE_LEAST: usize = 64 << 10;

impl<H: Home> Slot<H> {
    /// A slot with a new buffer of at least `capacity` bytes.
    pub(crate) fn with_capacity(capacity: usize, home: Arc<H>) -> Box<Self> {
        let buf = BytesMut::with_capacity(capacity);
        let slot = Self::with_own(buf, capacity, home);
        match slot.home.spare().take() {
            Some(spare) => slot.moved_to(spare),
            None => Box::new(slot),
        }
    }

    /// As [`with_capacity`](Self::with_capacity), unless the heap has no room for it.
    ///
    /// Its spare bytes are zero, which is not promised.
    pub(crate) fn try_with_capacity(capacity: usize, home: Arc<H>) -> Option<Box<Self>> {
        // A `BytesMut` ends the process if the heap refuses it. A vector need not, and a full one
        // becomes a `Bytes`, and that a `BytesMut`, as it is.
        let mut buf = BytesMut::from(Bytes::from(system::zeroed(capacity)?));
        buf.clear();
        let slot = Self::with_own(buf, capacity, home);
        match slot.home.spare().take() {
            Some(spare) => Some(slot.moved_to(spare)),
            None => system::boxed(slot).ok(),
        }
    }

    #[inline]
    fn moved_to(self, mut memory: Box<MaybeUninit<Self>>) -> Box<Self> {
        memory.write(self);
        // SAFETY: initialised by the line above.
        unsafe { memory.assume_init() }
    }

    /// A slot with a buffer that was made for it with at least `capacity` bytes.
    // Inline, here and below: else it is moved twice.
    #[inline]
    fn with_own(buf: BytesMut, capacity: usize, home: Arc<H>) -> Self {
        let mut slot = Self::of(buf, home);
        if slot.capacity == capacity {
            slot.remember_whole();
        }
        slot.set_used(0);
        slot
    }

    /// A slot with a buffer that is unknown except for its capacity.
    pub(crate) fn with_foreign(buf: BytesMut, home: Arc<H>) -> Box<Self> {
        Box::new(Self::of(buf, home))
    }

    #[inline]
    fn of(buf: BytesMut, home: Arc<H>) -> Self {
        const { assert!(size_of::<Self>() <= 64, "a slot is as long as a cache line") };
        let capacity = buf.capacity();
        home.capacity_changes(0, capacity);
        Slot {
            base: 0,
            capacity,
            buf,
            used: UNASKED.to_ne_bytes(),
            home,
        }
    }

    /// Capacity in bytes of the whole buffer, as last seen.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many bytes were consumed from the buffer's front, as far as that can be seen.
    pub(crate) fn consumed(&self) -> usize {
        match self.is_part() {
            true => self.buf.as_ptr().addr() - self.base,
            false => 0,
        }
    }

    pub(crate) fn home(&self) -> &Arc<H> {
        &self.home
    }

    /// Whether the buffer has the address and the capacity with which it left home, if
    /// it is one of a size class of `capacity` bytes.
    ///
    /// If it was not lent out as a whole, it is then as it left, except for its contents:
    /// no one else holds a byte of an allocation that this buffer covers. If it was lent,
    /// the allocation may be a larger one, or shared: ask [`reclaim`](Self::reclaim).
    #[inline(always)]
    pub(crate) fn is_as_it_left(&self, capacity: usize) -> bool {
        self.buf.as_ptr().addr() == self.base && self.buf.capacity() == capacity
    }

    /// Whether the buffer may have more room than its capacity says.
    pub(crate) fn is_part_of_more(&self) -> bool {
        !self.is_as_it_left(self.capacity)
    }

    /// Makes every return of this buffer look at it, since its capacity is not ordinary.
    pub(crate) fn forget_base(&mut self) {
        self.base = 0;
    }

    /// Makes room for `additional` bytes more, if the allocation has it, without the heap.
    ///
    /// Prefers the room behind the contents to that before them, since that takes no copy,
    /// and takes all of it.
    pub(crate) fn use_room(&mut self, additional: usize) -> bool {
        if !self.is_part_of_more() {
            return false;
        }
        if self.is_part() {
            let end = self.buf.as_ptr().addr() + self.buf.len();
            let behind = (self.base + self.capacity).saturating_sub(end);
            if behind >= additional && self.buf.try_reclaim(behind) {
                return true;
            }
        }
        self.buf.try_reclaim(additional)
    }

    /// Empties the buffer and makes it the whole of its allocation again.
    /// Returns `false` if a part of it is still in use elsewhere, or if the heap has
    /// no room to find that out.
    ///
    /// If `lent`, the buffer was lent out as a whole, and its address and its capacity
    /// prove nothing.
    ///
    /// Overwrites it with zeros as `wipe` names, except the parts that others hold.
    pub(crate) fn make_whole(&mut self, lent: bool, wipe: Wipe) -> bool {
        if wipe == Wipe::Nothing && !lent && self.is_as_it_left(self.capacity) {
            self.buf.clear();
            return true;
        }
        let wipe = match wipe {
            // The pool has not seen the writes to any allocation but the known one.
            Wipe::Used if !self.is_part() => Wipe::All,
            wipe => wipe,
        };
        let bytes = match wipe {
            Wipe::Nothing => 0,
            Wipe::Used => self.use_so_far().most(),
            Wipe::All => usize::MAX,
        };
        self.buf.clear(); // so that `reclaim` overwrites what it steps over
        let whole = !lent && self.is_as_it_left(self.capacity) || self.reclaim();
        if whole {
            self.wipe(bytes);
            return true;
        }
        if wipe != Wipe::Nothing {
            // Wipes the bytes before it, too, if no one holds a part: `examine` may lose them.
            let _before = self.buf.try_reclaim(self.capacity);
            self.wipe_to_full();
        }
        if self.examine() {
            self.wipe(if wipe == Wipe::Nothing { 0 } else { usize::MAX });
            return true;
        }
        false
    }

    /// Empties the buffer and makes it whole, if it is all of the allocation that the slot
    /// knows, and no one else holds a part. Asks the allocation, and not the buffer's
    /// address and capacity. Takes no memory.
    pub(crate) fn reclaim(&mut self) -> bool {
        if self.buf.as_ptr().addr() == self.base {
            // From its second byte, a request for all of it is an answer: only a buffer that is
            // alone moves back to the beginning, and only if the allocation has no room behind.
            // Then it covers all of the allocation, whatever it was cut to.
            if self.buf.is_empty() {
                if !self.buf.try_reclaim(1) {
                    return false; // of no capacity, and shared
                }
                self.buf.put_u8(0);
            }
            self.buf.advance(1);
            self.buf.clear();
        } else {
            self.buf.clear();
            if !self.is_part() {
                return false;
            }
        }
        self.buf.try_reclaim(self.capacity) && self.is_as_it_left(self.capacity)
    }

    /// Makes a buffer whole that has grown, was adopted or exchanged, if no one holds a part. Gives
    /// the buffer up if someone does, or if there is no memory to find out.
    fn examine(&mut self) -> bool {
        if self.buf.capacity() == 0 && !self.is_part() && !self.buf.try_reclaim(1) {
            // Taken out, and nothing left in its place. An empty `Bytes` could
            // not be asked.
            self.remember_whole();
            return true;
        }
        // The check takes memory for a moment, and ends the process if that is refused. A full
        // buffer needs none.
        let is_full = self.buf.len() == self.buf.capacity();
        if !is_full && !system::has_room_for::<[usize; FREEZE_WORDS]>(1) {
            return false;
        }
        // Only a `Bytes` can be asked whether it is alone. Made a `BytesMut` again, it covers the
        // allocation to its end. One byte more than that is available only at its beginning.
        match mem::take(&mut self.buf).freeze().try_into_mut() {
            Ok(buf) => {
                self.buf = buf;
                self.buf.clear();
                let _whole_already = !self.buf.try_reclaim(self.buf.capacity().saturating_add(1));
                self.remember_whole();
                true
            }
            Err(_shared) => false,
        }
    }

    /// Ends a slot whose buffer was taken out, and leaves its memory to the next one. Returns
    /// its hold on its home.
    fn end(self: Box<Self>) -> Arc<H> {
        self.home.capacity_changes(self.capacity, 0);
        debug_assert_eq!(self.buf.capacity(), 0, "else it is leaked");
        let slot = Box::into_raw(self);
        // SAFETY: the box gave its memory away just now. The home is read once, and nothing of
        // the slot is used after that: its `drop` does no more than the line above, and the
        // other fields own nothing. The memory goes back to a box for the same layout.
        let (home, memory) = unsafe {
            let home = ptr::read(&raw const (*slot).home);
            (home, Box::from_raw(slot.cast::<MaybeUninit<Self>>()))
        };
        home.spare().put(memory);
        home
    }

    /// Whether the buffer lies in the allocation that the slot knows.
    fn is_part(&self) -> bool {
        let known = self.base..=self.base.saturating_add(self.capacity);
        self.base != 0 && known.contains(&self.buf.as_ptr().addr())
    }

    /// Takes the present buffer for the whole of its allocation.
    fn remember_whole(&mut self) {
        self.base = self.buf.as_ptr().addr();
        self.remember_capacity();
    }

    fn remember_capacity(&mut self) {
        let capacity = self.buf.capacity();
        if capacity != self.capacity {
            self.home.capacity_changes(self.capacity, capacity);
            self.capacity = capacity;
        }
    }

    /// Notes that the pool has let the buffer grow on the heap: its capacity counts from now
    /// on, and its return looks whether it is whole.
    pub(crate) fn note_grown_on_heap(&mut self) {
        self.forget_base();
        self.remember_capacity();
    }

    /// Notes how much is used now, before it is cut off or moved.
    #[inline]
    pub(crate) fn note_used(&mut self) {
        let used = self.used();
        let now = self.used_now();
        if now > used & !UNASKED {
            self.set_used(now | used & UNASKED);
        }
    }

    /// Notes that the buffer was taken to grow into.
    #[inline]
    pub(crate) fn note_grown(&mut self) {
        self.set_used(self.used() | UNASKED);
    }

    /// How the buffer was used since it left home.
    pub(crate) fn use_so_far(&self) -> Use {
        Use {
            now: self.used_now(),
            before: self.used(),
        }
    }

    /// As [`use_so_far`](Self::use_so_far), for a buffer that is as it left.
    #[inline(always)]
    pub(crate) fn use_as_it_left(&self) -> Use {
        Use {
            now: self.buf.len(),
            before: self.used(),
        }
    }

    /// As [`use_so_far`](Self::use_so_far), for a buffer that was full once, when it was as long as
    /// it is now.
    pub(crate) fn full_use(&self, unasked: bool) -> Use {
        Use {
            now: self.consumed() + self.buf.capacity(),
            before: if unasked { UNASKED } else { 0 },
        }
    }

    /// Notes how much is used before some of it is consumed, if that could not be seen later.
    #[inline]
    pub(crate) fn note_before_consuming(&mut self) {
        if self.base == 0 {
            self.note_used();
        }
    }

    /// How many bytes are used, with those that were consumed.
    #[inline]
    fn used_now(&self) -> usize {
        self.consumed() + self.buf.len()
    }

    /// Empties a buffer that is whole, and forgets how it was used.
    #[inline(always)]
    pub(crate) fn empty(&mut self) {
        // To look is cheaper than to store.
        if self.buf.len() | self.used() != 0 {
            self.buf.clear();
            self.set_used(0);
        }
    }

    /// Forgets how the buffer was used. Overwrites the [probe](Self::probe).
    pub(crate) fn forget_use(&mut self) {
        self.set_used(0);
    }

    #[inline(always)]
    fn used(&self) -> usize {
        usize::from_ne_bytes(self.used)
    }

    #[inline(always)]
    fn set_used(&mut self, used: usize) {
        self.used = used.to_ne_bytes();
    }

    /// A few bytes beside the buffer, for a reader that may be at its end: written to where
    /// the buffer is full.
    ///
    /// Takes the place of the number that [`note_used`](Self::note_used) notes, until
    /// [`forget_use`](Self::forget_use).
    pub(crate) fn probe(&mut self) -> &mut [u8; PROBE] {
        &mut self.used
    }

    /// Gives the pages in a part of the empty buffer back to the system. Returns `false` if
    /// that cannot be done here.
    fn give_back_pages(&mut self, part: Range<usize>) -> bool {
        if part.len() < RELEASE_LEAST {
            return true;
        }
        match self.buf.spare_capacity_mut().get_mut(part) {
            Some(part) => system::release_pages(part),
            None => false,
        }
    }

    /// Overwrites the first `bytes` of the empty buffer with zeros, or all there are.
    fn wipe(&mut self, bytes: usize) {
        let spare = self.buf.spare_capacity_mut();
        let bytes = bytes.min(spare.len());
        spare[..bytes].fill(MaybeUninit::new(0));
        // So that the compiler does not find the writes useless where the
        // buffer is freed next.
        hint::black_box(spare.as_ptr());
    }

    /// Overwrites all of the empty buffer with zeros, and shows them as its contents.
    fn wipe_to_full(&mut self) {
        self.buf.resize(self.buf.capacity(), 0);
        hint::black_box(self.buf.as_ptr()); // as in `wipe`
    }
}

impl<H: Home> Drop for Slot<H> {
    fn drop(&mut self) {
        self.home.capacity_changes(self.capacity, 0);
    }
}

impl<H: Home + Send + Sync + 'static> Item for Box<Slot<H>> {
    type Notes = Samples;

    #[inline(always)]
    fn weight(&self) -> usize {
        self.capacity
    }

    /// The cell first: freeing a buffer of 64 KiB or more makes glibc's heap join its small free
    /// blocks with their neighbours. A cell that was freed later would stay unjoined, and pin all
    /// memory below it.
    fn free(mut self) {
        let buf = mem::take(&mut self.buf);
        let home = Slot::end(self);
        drop(buf);
        drop(home);
    }

    fn give_back_pages(&mut self, part: Range<usize>) -> bool {
        Slot::give_back_pages(self, part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nowhere(Spare<Nowhere>);

    impl Home for Nowhere {
        fn capacity_changes(&self, _before: usize, _after: usize) {}

        fn spare(&self) -> &Spare<Self> {
            &self.0
        }
    }

    #[test]
    fn of_many_spares_the_lowest_is_kept() {
        let home = Arc::new(Nowhere(Spare::new()));
        let slots = || -> Vec<_> {
            (0..9)
                .map(|_| Slot::with_capacity(1, Arc::clone(&home)))
                .collect()
        };
        for order in [|_: &mut Vec<_>| {}, |slots: &mut Vec<_>| slots.reverse()] {
            let mut slots: Vec<Box<Slot<Nowhere>>> = slots();
            slots.sort_by_key(|slot| ptr::from_ref(&**slot).addr());
            let lowest = ptr::from_ref(&*slots[0]).addr();
            order(&mut slots);
            slots.into_iter().for_each(Item::free);
            let spare = home.spare().take().expect("one was kept");
            assert_eq!(spare.as_ptr().addr(), lowest);
            assert!(home.spare().take().is_none());
        }
        assert_eq!(Arc::strong_count(&home), 1);
    }
}
