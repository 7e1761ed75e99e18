//! A buffer with the notes that its home needs.
//!
//! Owns these notes: where the buffer began, how much of it was written, and how much of that is
//! known to be zero. Keeps the home alive. Knows nothing of levels, of size classes, or of who
//! holds the slot (`cell.rs`).
//!
//! The count that keeps the home alive belongs to the slot from its beginning to its end, and so
//! does the capacity that the home counts. So moving a slot between a guard and a cache counts
//! nothing.

use super::cell::{SlotBox, Spare};
use crate::engine::Origin;
use crate::system;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::hint;
use std::mem::{self, MaybeUninit};
use std::ops::Range;
use std::ptr;
use std::slice;
use std::sync::Arc;

/// Where a slot belongs.
pub(crate) trait Home: Send + Sync + 'static {
    /// Counts that a slot's known capacity goes from `before` to `after` bytes. A slot begins
    /// at 0 and ends at 0, so the home's count is the capacity of all slots.
    fn capacity_changes(&self, before: usize, after: usize);

    /// Counts the same change for a slot that neither begins nor ends with it. Such a slot is
    /// outstanding: the capacity of idle slots does not change.
    fn outstanding_changes(&self, before: usize, after: usize);

    /// The memory that an ended slot left for the next one.
    fn spare(&self) -> &Spare<Self>
    where
        Self: Sized;
}

/// A buffer with the notes that its home needs.
#[repr(C)] // what the hot path uses is in the first cache line
pub(crate) struct Slot<H: Home> {
    pub(crate) buf: BytesMut,
    /// Address of the whole buffer's first byte. 0 if that is not known, and for a buffer of a size
    /// class whose capacity is not exactly the class's.
    base: usize,
    /// The whole buffer's capacity in bytes, when it was last seen whole, was adopted, or grew on
    /// the heap. It decides the class in which the buffer counts as outstanding. Its home has
    /// counted it: see [`Home`].
    capacity: usize,
    /// The most bytes from `base` on that were used since the buffer left home, as a number.
    /// [`UNASKED`] is added for a buffer whose size no one named. [`ZEROS_KNOWN`] is added for a
    /// buffer with bytes that are known to be zero.
    ///
    /// Or the [probe](Self::probe) of a full buffer. The guard knows whether it is a number or a
    /// probe: it marks its origin as [`Probed`](crate::engine::Mark::Probed) before it lends the
    /// probe.
    used: [u8; PROBE],
    home: Arc<H>,
    /// How many bytes from `base` on are known to be initialised.
    initialised: usize,
    /// With [`ZEROS_KNOWN`]: the bytes from here to `initialised` are zero, except those that are
    /// used.
    zero_from: usize,
    /// The origin of the guard that has left the slot to others.
    left: Origin<SlotBox<H>>,
}

/// How many bytes a full buffer lends out before it grows.
///
/// 8: the size of `used` anyway. A reader that is at the end of its input writes none of them.
pub(crate) const PROBE: usize = mem::size_of::<usize>();

/// Added to `used`, whose number is never that large itself.
const UNASKED: usize = 1 << (usize::BITS - 1);

/// Added to `used`, whose number is hardly ever that large itself: see
/// [`is_small`](Slot::is_small).
///
/// A return on the fast path forgets it. So only bytes that the slow path has seen are known.
const ZEROS_KNOWN: usize = 1 << (usize::BITS - 2);

const FLAGS: usize = UNASKED | ZEROS_KNOWN;

/// How a buffer was used while it was out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    /// How many bytes are used now.
    now: usize,
    /// The number that the slot had noted before.
    before: usize,
}

impl Use {
    /// The most bytes that were used at once.
    pub(crate) fn most(self) -> usize {
        self.now.max(self.before & !FLAGS)
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
    /// The bytes that were used, as far as the pool has seen.
    Used,
    All,
}

/// At least as many words as `BytesMut::freeze` allocates at once: the address, the
/// capacity and a count, and one to spare.
const FREEZE_WORDS: usize = 4;

/// The least number of bytes that are worth a system call to give their pages back.
///
/// 8 KiB: at least one whole page, wherever they lie. The call takes 2 to 5 us, whatever the
/// length, and 0.1 us for each page (`docs/memory.md`).
const RELEASE_LEAST: usize = 8 << 10;

impl<H: Home> Slot<H> {
    /// A slot with a new buffer of at least `capacity` bytes.
    pub(crate) fn with_capacity(capacity: usize, home: Arc<H>) -> SlotBox<H> {
        let buf = BytesMut::with_capacity(capacity);
        SlotBox::new(Self::with_own(buf, capacity, home))
    }

    /// As [`with_capacity`](Self::with_capacity); `None` if the heap has no room.
    ///
    /// Its spare bytes are zero, which is not promised.
    pub(crate) fn try_with_capacity(capacity: usize, home: Arc<H>) -> Option<SlotBox<H>> {
        // A `BytesMut` ends the process if the heap refuses it, but a vector can be refused. A full
        // vector becomes a `Bytes`, and then a `BytesMut`, without a copy.
        let mut buf = BytesMut::from(Bytes::from(system::zeroed(capacity)?));
        buf.clear();
        let mut slot = Self::with_own(buf, capacity, home);
        slot.note_all_zero();
        SlotBox::try_new(slot)
    }

    /// Notes that all of a new buffer is zero.
    fn note_all_zero(&mut self) {
        self.initialised = self.capacity;
        self.note_zeros_from(0);
    }

    /// A slot with a buffer that was made for it with at least `capacity` bytes.
    // Inline, here and below: otherwise the slot is moved twice.
    #[inline]
    fn with_own(buf: BytesMut, capacity: usize, home: Arc<H>) -> Self {
        let mut slot = Self::of(buf, home);
        if slot.capacity == capacity {
            slot.remember_whole();
        }
        slot.set_used(0);
        slot
    }

    /// A slot with a buffer whose capacity is known, and nothing else.
    pub(crate) fn with_foreign(buf: BytesMut, home: Arc<H>) -> SlotBox<H> {
        SlotBox::new(Self::of(buf, home))
    }

    #[inline]
    fn of(buf: BytesMut, home: Arc<H>) -> Self {
        const {
            assert!(
                mem::offset_of!(Self, initialised) <= 64,
                "in the second cache line"
            )
        };
        let capacity = buf.capacity();
        home.capacity_changes(0, capacity);
        Slot {
            base: 0,
            capacity,
            buf,
            used: UNASKED.to_ne_bytes(),
            home,
            initialised: 0,
            zero_from: 0,
            left: Origin::NONE,
        }
    }

    /// Capacity in bytes of the whole buffer, as last seen.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many bytes were consumed from the buffer's front, if that can be seen.
    pub(crate) fn consumed(&self) -> usize {
        match self.is_part() {
            true => self.buf.as_ptr().addr() - self.base,
            false => 0,
        }
    }

    pub(crate) fn home(&self) -> &Arc<H> {
        &self.home
    }

    /// Whether the buffer has the address and the capacity with which it left home, if it belongs
    /// to a size class of `capacity` bytes.
    ///
    /// If it was not lent out as a whole, it is then unchanged except for its contents: no one else
    /// holds a byte of an allocation that this buffer covers. If it was lent, the allocation may be
    /// a larger one, or shared: use [`reclaim`](Self::reclaim) to find out.
    #[inline(always)]
    pub(crate) fn is_as_it_left(&self, capacity: usize) -> bool {
        self.buf.as_ptr().addr() == self.base && self.buf.capacity() == capacity
    }

    /// Whether the allocation may be larger than the buffer's capacity.
    pub(crate) fn is_part_of_more(&self) -> bool {
        !self.is_as_it_left(self.capacity)
    }

    /// Makes every return check this buffer, since its capacity is not ordinary.
    pub(crate) fn forget_base(&mut self) {
        self.base = 0;
        self.initialised = 0;
    }

    /// Makes room for `additional` more bytes within the allocation, if it is large enough.
    ///
    /// Prefers the room behind the contents to the room before them, since that takes no copy, and
    /// takes all of it.
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

    /// Empties the buffer and makes it the whole of its allocation again. Returns `false` if
    /// someone else holds a part of it, or if the heap has no room to find that out.
    ///
    /// If `lent`, the buffer was lent out as a whole, and its address and its capacity
    /// prove nothing.
    ///
    /// Overwrites it with zeros as `wipe` names, except the parts that others hold.
    pub(crate) fn make_whole(&mut self, lent: bool, wipe: Wipe) -> bool {
        if lent {
            self.initialised = 0; // it may be a different one, at the same address
        }
        if wipe == Wipe::Nothing && !lent && self.is_as_it_left(self.capacity) {
            self.buf.clear();
            return true;
        }
        let wipe = match wipe {
            // The pool has not seen writes to any other allocation than the known one.
            Wipe::Used if !self.is_part() || !self.is_small() => Wipe::All,
            wipe => wipe,
        };
        let bytes = match wipe {
            Wipe::Nothing => 0,
            Wipe::Used => self.use_so_far().most(),
            Wipe::All => usize::MAX,
        };
        self.buf.clear(); // so that `reclaim` overwrites the bytes that it moves past
        let whole = !lent && self.is_as_it_left(self.capacity) || self.reclaim();
        if whole {
            self.wipe(bytes);
            self.note_wiped(bytes);
            return true;
        }
        if wipe != Wipe::Nothing {
            // Wipes the bytes before it as well, if no one holds a part: `examine` may lose them.
            let _before = self.buf.try_reclaim(self.capacity);
            self.wipe_to_full();
        }
        if self.examine() {
            let bytes = if wipe == Wipe::Nothing { 0 } else { usize::MAX };
            self.wipe(bytes);
            self.note_wiped(bytes);
            return true;
        }
        false
    }

    /// Empties the buffer and makes it whole, if it is all of the allocation that the slot knows,
    /// and no one else holds a part. Relies on the allocation's answer, not on the buffer's address
    /// and capacity. Takes no memory.
    pub(crate) fn reclaim(&mut self) -> bool {
        if self.buf.as_ptr().addr() == self.base {
            // From its second byte on, a request for the whole capacity gives the answer. Only a
            // buffer without other holders moves back to the beginning, and only if the allocation
            // has no room behind it. Then it covers all of the allocation, whatever part it was
            // before.
            if self.buf.is_empty() {
                if !self.buf.try_reclaim(1) {
                    return false; // has no capacity, and is shared
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

    /// Makes a buffer whole that has grown, was adopted or exchanged, if no one else holds a part.
    /// Otherwise, or if there is no memory to find out, gives the buffer up.
    fn examine(&mut self) -> bool {
        if self.buf.capacity() == 0 && !self.is_part() && !self.buf.try_reclaim(1) {
            // Taken out, with nothing left in its place. An empty `Bytes` would give no answer.
            self.remember_whole();
            return true;
        }
        // The check takes memory for a moment, and ends the process if the heap refuses it. A full
        // buffer needs none.
        let is_full = self.buf.len() == self.buf.capacity();
        if !is_full && !system::has_room_for::<[usize; FREEZE_WORDS]>(1) {
            return false;
        }
        // Only a `Bytes` can tell whether it is alone. Turned back into a `BytesMut`, it covers the
        // allocation to its end. A request for one byte more succeeds only at the beginning.
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

    /// Whether the buffer lies in the known allocation.
    fn is_part(&self) -> bool {
        let known = self.base..=self.base.saturating_add(self.capacity);
        self.base != 0 && known.contains(&self.buf.as_ptr().addr())
    }

    /// Notes that the present buffer is the whole of its allocation.
    fn remember_whole(&mut self) {
        self.base = self.buf.as_ptr().addr();
        self.initialised = 0;
        self.remember_capacity();
    }

    fn remember_capacity(&mut self) {
        let capacity = self.buf.capacity();
        if capacity != self.capacity {
            self.home.capacity_changes(self.capacity, capacity);
            self.home.outstanding_changes(self.capacity, capacity);
            self.capacity = capacity;
        }
    }

    /// Notes that the buffer has grown on the heap: its capacity counts from now on, and its return
    /// checks whether it is whole.
    pub(crate) fn note_grown_on_heap(&mut self) {
        self.forget_base();
        self.remember_capacity();
    }

    /// Notes how many bytes are used now, before they are cut off or moved.
    #[inline]
    pub(crate) fn note_used(&mut self) {
        let used = self.used();
        let now = self.used_now();
        if now > used & !FLAGS {
            self.set_used(now | used & FLAGS);
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

    /// As [`use_so_far`](Self::use_so_far), for an unchanged buffer.
    #[inline(always)]
    pub(crate) fn use_as_it_left(&self) -> Use {
        Use {
            now: self.buf.len(),
            before: self.used(),
        }
    }

    /// As [`use_so_far`](Self::use_so_far), for a buffer that was full once, when its length was
    /// the present one.
    pub(crate) fn full_use(&self, unasked: bool) -> Use {
        Use {
            now: self.consumed() + self.buf.capacity(),
            before: if unasked { UNASKED } else { 0 },
        }
    }

    /// Notes how many bytes a full buffer has used, in place of the probe.
    pub(crate) fn end_probe(&mut self, unasked: bool) {
        self.set_used(0);
        let used = self.full_use(unasked);
        self.set_used(used.most() | used.before);
    }

    /// Notes how many bytes are used before some are consumed, if that could not be seen later.
    #[inline]
    pub(crate) fn note_before_consuming(&mut self) {
        if self.base == 0 {
            self.note_used();
        }
    }

    /// How many bytes are used, including consumed ones.
    #[inline]
    fn used_now(&self) -> usize {
        self.consumed() + self.buf.len()
    }

    /// Empties a buffer that is whole, and forgets how it was used.
    #[inline(always)]
    pub(crate) fn empty(&mut self) {
        // A check is cheaper than a store.
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

    /// A few bytes beside the buffer, for a reader that may be at the end of its input: it writes
    /// here if the buffer is full.
    ///
    /// Takes the place of the number that [`note_used`](Self::note_used) notes, until
    /// [`forget_use`](Self::forget_use).
    pub(crate) fn probe(&mut self) -> &mut [u8; PROBE] {
        &mut self.used
    }

    // ---- zeros ----

    /// Whether the number of bytes fits beside the flags. It does for every buffer, except for
    /// those of a gigabyte on a 32-bit machine.
    fn is_small(&self) -> bool {
        self.capacity < ZEROS_KNOWN
    }

    /// The start of the bytes that are known to be zero: they go up to `initialised`. A number
    /// beyond all bytes if none are known.
    ///
    /// Only valid while the buffer is the one that left home, and [`probe`](Self::probe) was not
    /// lent.
    pub(crate) fn zeros_from(&self) -> usize {
        match self.used() & ZEROS_KNOWN != 0 && self.is_small() {
            true => self.zero_from.max(self.use_so_far().most()),
            false => usize::MAX,
        }
    }

    /// Notes that the bytes from here to the last initialised one are zero, except the used ones.
    pub(crate) fn note_zeros_from(&mut self, start: usize) {
        if start < self.initialised && self.is_small() {
            self.zero_from = start;
            self.set_used(self.used() | ZEROS_KNOWN);
        }
    }

    /// Notes that the spare bytes were lent for writing. The borrower may not leave a byte
    /// uninitialised.
    #[inline(always)]
    pub(crate) fn forget_zeros(&mut self) {
        self.zero_from = usize::MAX;
    }

    /// Notes that the spare bytes were lent to a borrower that may leave them uninitialised.
    #[inline(always)]
    pub(crate) fn forget_initialised(&mut self) {
        self.initialised = 0;
    }

    /// Notes that a wiped buffer is zero as far as it was wiped, and in the rest of its initialised
    /// bytes.
    fn note_wiped(&mut self, bytes: usize) {
        self.initialised = self.initialised.max(bytes.min(self.capacity));
    }

    /// The `count` bytes behind the contents, initialised. There must be room for them.
    ///
    /// All are zero, unless `reuse`: then they may show earlier contents. If not `known`, the
    /// buffer may be a different one than left home, or its notes are lent out.
    ///
    /// They count as written from now on.
    pub(crate) fn lend_room(&mut self, count: usize, known: bool, reuse: bool) -> &mut [u8] {
        let start = self.used_now();
        let end = start + count;
        // The bytes that need no zeroing, as offsets from the base.
        let ready = match known && self.is_part() {
            true if reuse => start..self.initialised,
            true => self.zeros_from()..self.initialised,
            false => 0..0,
        };
        let spare = &mut self.buf.spare_capacity_mut()[..count];
        match ready.start < end && start < ready.end {
            true => {
                let (before, behind) = (ready.start.max(start), ready.end.min(end));
                spare[..before - start].fill(MaybeUninit::new(0));
                spare[behind - start..].fill(MaybeUninit::new(0));
            }
            false => spare.fill(MaybeUninit::new(0)),
        }
        let spare = ptr::from_mut(spare).cast::<u8>();
        if known && self.is_part() {
            // There is no gap: all bytes before `start` are initialised, since they were contents.
            self.initialised = self.initialised.max(end);
            self.zero_from = self.zero_from.max(end);
        }
        // SAFETY: these bytes are the buffer's alone, and it is borrowed as long as the result.
        // Each is initialised. The bytes that were not overwritten above lie between `start` and
        // `initialised`, so they were written once. No borrower since may have left them
        // uninitialised: `forget_initialised` and `forget_base` are called for such a borrower.
        unsafe { slice::from_raw_parts_mut(spare, count) }
    }

    // ---- parts ----

    /// Notes the origin of a guard that leaves the slot to other holders, for the last one's
    /// return.
    pub(crate) fn note_left(&mut self, origin: Origin<SlotBox<H>>) {
        self.left = origin;
    }

    /// The origin of the guard that left the slot to other holders.
    pub(crate) fn left(&self) -> Origin<SlotBox<H>> {
        self.left
    }

    /// Empties a buffer whose contents have only moved their beginning, and restores the state in
    /// which it left home.
    pub(crate) fn move_back(&mut self) {
        if self.is_part() && !self.is_as_it_left(self.capacity) {
            self.buf.clear();
            let _moved = self.buf.try_reclaim(self.capacity);
        }
    }

    /// Makes `len` bytes, which begin at `start`, the contents. They were contents of this buffer
    /// before, or still are. Returns `false` if they do not lie in it.
    pub(crate) fn show(&mut self, start: usize, len: usize) -> bool {
        self.note_used();
        if let Some(skip) = start.checked_sub(self.buf.as_ptr().addr()) {
            if skip + len <= self.buf.len() {
                self.buf.truncate(skip + len);
                self.buf.advance(skip);
                return true;
            }
        }
        self.buf.clear();
        let whole = self.is_part()
            && (self.is_as_it_left(self.capacity) || self.buf.try_reclaim(self.capacity))
            && self.is_as_it_left(self.capacity);
        let skip = start.wrapping_sub(self.base);
        if !whole || skip > self.capacity || len > self.capacity - skip {
            return false;
        }
        // SAFETY: within the capacity. The bytes are initialised: those of the part were contents.
        // So were the bytes before it, from the base on: a buffer's contents begin at its base, and
        // their beginning moves only past contents.
        unsafe { self.buf.set_len(skip + len) };
        self.buf.advance(skip);
        true
    }

    // ---- the heap ----

    /// Gives the whole pages in a part of the empty buffer back to the system. Returns how many
    /// bytes these are, or `None` on a system where that is not possible.
    pub(super) fn give_back_pages(&mut self, part: Range<usize>) -> Option<usize> {
        if part.len() < RELEASE_LEAST {
            return Some(0);
        }
        self.initialised = 0;
        system::release_pages(self.buf.spare_capacity_mut().get_mut(part)?)
    }

    /// Overwrites the first `bytes` of the empty buffer with zeros, or all of it if it is shorter.
    fn wipe(&mut self, bytes: usize) {
        let spare = self.buf.spare_capacity_mut();
        let bytes = bytes.min(spare.len());
        spare[..bytes].fill(MaybeUninit::new(0));
        // Keeps the compiler from removing the writes where the buffer is freed next.
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
