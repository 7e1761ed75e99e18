//! The heap cell that a slot lives in, and the ways to hold it.
//!
//! Owns the cell's memory. A [`SlotBox`] gives access to the slot: an idle buffer has one, and so
//! has a guard. A [`Hold`] keeps the slot outstanding, for a part that was cut from a guard's
//! contents. The last holder gets the `SlotBox`. Knows nothing of the contents of a slot.
//!
//! A `Box` would not do: it would claim the whole cell for itself, but holders count in the cell
//! while a guard writes to the slot.

use super::holders::Holders;
use super::slot::{Home, Slot};
use crate::engine::Item;
use crate::sizing::samples::Samples;
use crate::sync::{Mutex, try_lock};
use std::alloc::{self, Layout};
use std::mem::{self, ManuallyDrop};
use std::ops::{Deref, DerefMut, Range};
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// A slot and the number of those who hold it.
#[repr(C)] // the slot's fields for the hot path come first
struct Cell<H: Home> {
    slot: Slot<H>,
    /// Behind the first cache line, where words have 64 bits: a part may be dropped while another
    /// thread uses the guard.
    holders: Holders,
}

/// A slot, with the right to read and change it.
///
/// There is one for each slot. Other holders may leave meanwhile.
pub(crate) struct SlotBox<H: Home>(NonNull<Cell<H>>);

// SAFETY: it gives what a `Box<Slot>` gives. The count beside the slot is atomic.
unsafe impl<H: Home> Send for SlotBox<H> {}
// SAFETY: as above.
unsafe impl<H: Home> Sync for SlotBox<H> {}

impl<H: Home> SlotBox<H> {
    /// A cell for a slot: in the spare block of its home, or in a new one.
    pub(super) fn new(slot: Slot<H>) -> Self {
        let block = slot.home().spare().take().or_else(Block::new);
        block.unwrap_or_else(|| Block::<H>::refused()).put(slot)
    }

    /// As [`new`](Self::new); `None` if the heap has no room.
    pub(super) fn try_new(slot: Slot<H>) -> Option<Self> {
        let block = slot.home().spare().take().or_else(Block::new)?;
        Some(block.put(slot))
    }

    fn into_cell(self) -> NonNull<Cell<H>> {
        ManuallyDrop::new(self).0
    }

    /// A new hold on this slot.
    pub(crate) fn hold(&self) -> Hold<H> {
        self.holders().join();
        Hold(self.0)
    }

    /// Turns this into a hold, without access to the slot.
    pub(crate) fn into_hold(self) -> Hold<H> {
        Hold(self.into_cell())
    }

    /// Whether no one else holds the slot.
    pub(crate) fn is_alone(&self) -> bool {
        self.holders().is_alone()
    }

    fn holders(&self) -> &Holders {
        // SAFETY: the cell lives as long as there is a holder. This reads no byte of the slot.
        unsafe { &(*self.0.as_ptr()).holders }
    }

    /// Ends a slot whose buffer was taken out, and leaves its block to the next slot. Returns its
    /// reference to its home.
    fn end(self) -> Arc<H> {
        self.home().capacity_changes(self.capacity(), 0);
        debug_assert_eq!(self.buf.capacity(), 0, "its buffer would leak");
        let block = Block(self.into_cell());
        // SAFETY: nothing else holds the cell: an item is alone. The home is read once, and no
        // field of the slot is used after that. The slot's `drop` would do no more than the line
        // above, and its other fields own nothing.
        let home = unsafe { ptr::read((*block.0.as_ptr()).slot.home()) };
        home.spare().put(block);
        home
    }
}

impl<H: Home> Deref for SlotBox<H> {
    type Target = Slot<H>;

    #[inline(always)]
    fn deref(&self) -> &Slot<H> {
        // SAFETY: the cell is alive, and only this gives access to the slot in it.
        unsafe { &(*self.0.as_ptr()).slot }
    }
}

impl<H: Home> DerefMut for SlotBox<H> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Slot<H> {
        // SAFETY: as in `deref`. The reference covers the slot alone, and not the count, which
        // other holders change.
        unsafe { &mut (*self.0.as_ptr()).slot }
    }
}

impl<H: Home> Drop for SlotBox<H> {
    fn drop(&mut self) {
        debug_assert!(self.is_alone(), "other holders still read its buffer");
        let _freed_last = Block(self.0);
        // SAFETY: a block has a cell from `put` to the end of its `SlotBox`, and there is no other
        // holder.
        unsafe { ptr::drop_in_place(self.0.as_ptr()) };
    }
}

impl<H: Home> Item for SlotBox<H> {
    type Notes = Samples;

    #[inline(always)]
    fn weight(&self) -> usize {
        self.capacity()
    }

    /// The cell is freed first: freeing a buffer of 64 KiB or more makes glibc's heap join its
    /// small free blocks with their neighbours. A cell that is freed later would stay unjoined, and
    /// pin all memory below it.
    fn free(mut self) {
        let buf = mem::take(&mut self.buf);
        let home = self.end();
        drop(buf);
        drop(home);
    }

    fn give_back_pages(&mut self, part: Range<usize>) -> Option<usize> {
        Slot::give_back_pages(self, part)
    }
}

/// A hold on a slot, without access to it: the buffer stays where it is meanwhile.
pub(crate) struct Hold<H: Home>(NonNull<Cell<H>>);

// SAFETY: it only leaves, which is atomic, and passes the slot on if it is the last holder.
unsafe impl<H: Home> Send for Hold<H> {}
// SAFETY: as above; a shared `Hold` only counts.
unsafe impl<H: Home> Sync for Hold<H> {}

impl<H: Home> Hold<H> {
    fn holders(&self) -> &Holders {
        // SAFETY: the cell lives as long as there is a holder. This reads no byte of the slot.
        unsafe { &(*self.0.as_ptr()).holders }
    }

    /// Whether no one else holds the slot.
    pub(crate) fn is_alone(&self) -> bool {
        self.holders().is_alone()
    }

    /// Gives the hold up. Returns the slot if it was the last one.
    // A hold that is forgotten instead keeps the slot outstanding for ever.
    pub(crate) fn leave(self) -> Option<SlotBox<H>> {
        // Not `then_some`: that would make a second `SlotBox`, and drop it.
        self.holders().leave().then(|| SlotBox(self.0))
    }
}

impl<H: Home> Clone for Hold<H> {
    #[inline]
    fn clone(&self) -> Self {
        self.holders().join();
        Hold(self.0)
    }
}

/// Memory for a cell, without a cell in it.
struct Block<H: Home>(NonNull<Cell<H>>);

// SAFETY: it is memory, and no other value has its address.
unsafe impl<H: Home> Send for Block<H> {}

impl<H: Home> Block<H> {
    /// The block begins a cache line, so the slot's fields for the hot path are in one line, shared
    /// with no neighbour on the heap. And glibc's heap does not serve an aligned block from the few
    /// blocks that it keeps for a thread. So cells stay low, and pin no memory of a burst.
    ///
    /// The size is that of a cell, not of two cache lines: blocks of 112 bytes and more pin memory
    /// of a burst again (`docs/design.md`).
    const LAYOUT: Layout = match Layout::new::<Cell<H>>().align_to(64) {
        Ok(layout) => layout,
        Err(_) => panic!("64 is a power of two"),
    };

    /// A block from the heap; `None` if it has none.
    fn new() -> Option<Self> {
        // SAFETY: a cell is not empty.
        NonNull::new(unsafe { alloc::alloc(Self::LAYOUT) }.cast()).map(Block)
    }

    /// Ends the process, as `Box::new` does.
    fn refused() -> ! {
        alloc::handle_alloc_error(Self::LAYOUT)
    }

    fn put(self, slot: Slot<H>) -> SlotBox<H> {
        const {
            let behind = mem::offset_of!(Cell<H>, holders) >= 64;
            assert!(behind || cfg!(not(target_pointer_width = "64")));
        }
        let block = ManuallyDrop::new(self);
        let holders = Holders::one();
        // SAFETY: the block is as large as a cell, and more than aligned. It has no cell yet.
        unsafe { block.0.write(Cell { slot, holders }) };
        SlotBox(block.0)
    }
}

impl<H: Home> Drop for Block<H> {
    fn drop(&mut self) {
        // SAFETY: from `alloc` with this layout, in `new`, and freed once.
        unsafe { alloc::dealloc(self.0.as_ptr().cast(), Self::LAYOUT) };
    }
}

/// The block of a cell that has ended, for the next cell; or none.
///
/// A heap takes longer for a cell than for many a buffer. While no buffer may be kept, each new
/// slot reuses the block of the one before it.
// Only one, since it pins all memory below it on the heap; and the lowest, to pin little.
pub(crate) struct Spare<H: Home>(Mutex<Option<Block<H>>>);

impl<H: Home> Spare<H> {
    pub(crate) fn new() -> Self {
        Spare(Mutex::new(None))
    }

    /// Returns `None` also while another thread is here.
    fn take(&self) -> Option<Block<H>> {
        try_lock(&self.0)?.take()
    }

    /// Keeps this block or the present one, whichever lies lower, and frees the other.
    fn put(&self, block: Block<H>) {
        let Some(mut spare) = try_lock(&self.0) else {
            return;
        };
        match &*spare {
            Some(lower) if lower.0 < block.0 => {}
            _ => *spare = Some(block),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nowhere(Spare<Nowhere>);

    impl Home for Nowhere {
        fn capacity_changes(&self, _before: usize, _after: usize) {}

        fn outstanding_changes(&self, _before: usize, _after: usize) {}

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
            let mut slots: Vec<SlotBox<Nowhere>> = slots();
            slots.sort_by_key(|slot| slot.0.addr());
            let lowest = slots[0].0.addr().get();
            order(&mut slots);
            slots.into_iter().for_each(Item::free);
            let spare = home.spare().take().expect("one was kept");
            assert_eq!(spare.0.addr().get(), lowest);
            assert!(home.spare().take().is_none());
        }
        assert_eq!(Arc::strong_count(&home), 1);
    }

    #[test]
    fn the_last_holder_gets_the_slot_whether_guard_or_part() {
        let home = Arc::new(Nowhere(Spare::new()));
        let slot = Slot::with_capacity(1, Arc::clone(&home));
        assert!(slot.is_alone());
        let (one, other) = (slot.hold(), slot.hold());
        assert!(!slot.is_alone());
        assert!(one.leave().is_none());
        let third = other.clone();
        assert!(slot.into_hold().leave().is_none());
        assert!(!third.is_alone());
        assert!(other.leave().is_none());
        assert!(third.is_alone());
        let slot = third.leave().expect("no one else holds it");
        assert!(slot.is_alone());
        let slot = slot.into_hold().leave().expect("no one else holds it");
        assert_eq!(Arc::strong_count(&home), 2);
        drop(slot);
        assert_eq!(Arc::strong_count(&home), 1);
    }
}
