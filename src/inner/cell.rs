//! The heap cell that a slot lives in, and the ways to hold it.
//!
//! Owns the cell's memory. A [`SlotBox`] is the way to the slot: an idle buffer has one, and so has
//! a guard. A [`Hold`] keeps the slot out, for a part that was cut from a guard's contents. Whoever
//! is last has the `SlotBox`. Knows nothing of what is in a slot.
//!
//! A `Box` would not do: it claims all of the cell, and holds count there while a guard writes to
//! the slot.

use super::holders::Holders;
use super::slot::{Home, Slot};
use crate::engine::Item;
use crate::sizing::samples::Samples;
use crate::sync::{Mutex, try_lock};
use crate::system;
use std::mem::{self, ManuallyDrop, MaybeUninit};
use std::ops::{Deref, DerefMut, Range};
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// A slot and the number of those who hold it.
// 64: begins a cache line, so what the hot path uses of the slot is in one. It shares none with a
// neighbour on the heap that another thread may use. And glibc's heap serves no aligned block from
// the few that it keeps for a thread. So these stay low, and pin no memory of a burst
// (`docs/design.md`).
#[repr(C, align(64))]
struct Cell<H: Home> {
    slot: Slot<H>,
    /// Behind the first cache line, where words have 64 bits: a part may be dropped while another
    /// thread uses the guard.
    holders: Holders,
}

/// A slot, with the right to read and change it.
///
/// There is one for each slot. Other holders may count themselves out meanwhile.
pub(crate) struct SlotBox<H: Home>(NonNull<Cell<H>>);

// SAFETY: it gives what a `Box<Slot>` gives. The count beside the slot is atomic.
unsafe impl<H: Home + Send + Sync> Send for SlotBox<H> {}
// SAFETY: as above.
unsafe impl<H: Home + Send + Sync> Sync for SlotBox<H> {}

impl<H: Home> SlotBox<H> {
    /// A cell for a slot: the one that its home has to spare, or a new one.
    pub(super) fn new(slot: Slot<H>) -> Self {
        match slot.home().spare().take() {
            Some(spare) => Self::moved_to(spare, slot),
            None => Self::owning(Box::new(Cell::of(slot))),
        }
    }

    /// As [`new`](Self::new); `None` if the heap has no room.
    pub(super) fn try_new(slot: Slot<H>) -> Option<Self> {
        match slot.home().spare().take() {
            Some(spare) => Some(Self::moved_to(spare, slot)),
            None => system::boxed(Cell::of(slot)).ok().map(Self::owning),
        }
    }

    #[inline]
    fn moved_to(mut memory: Box<MaybeUninit<Cell<H>>>, slot: Slot<H>) -> Self {
        memory.write(Cell::of(slot));
        // SAFETY: initialised by the line above.
        Self::owning(unsafe { memory.assume_init() })
    }

    fn owning(cell: Box<Cell<H>>) -> Self {
        SlotBox(NonNull::from(Box::leak(cell)))
    }

    fn into_cell(self) -> NonNull<Cell<H>> {
        ManuallyDrop::new(self).0
    }

    /// A hold on the slot beside this one.
    pub(crate) fn hold(&self) -> Hold<H> {
        self.holders().join();
        Hold(self.0)
    }

    /// The hold that this is, without the right to the slot.
    pub(crate) fn into_hold(self) -> Hold<H> {
        Hold(self.into_cell())
    }

    /// Whether no one else holds the slot.
    pub(crate) fn is_alone(&self) -> bool {
        self.holders().is_alone()
    }

    fn holders(&self) -> &Holders {
        // SAFETY: the cell lives as long as one holds it. This reaches no byte of the slot.
        unsafe { &(*self.0.as_ptr()).holders }
    }

    /// Ends a slot whose buffer was taken out, and leaves its memory to the next one. Returns
    /// its hold on its home.
    fn end(self) -> Arc<H> {
        self.home().capacity_changes(self.capacity(), 0);
        debug_assert_eq!(self.buf.capacity(), 0, "else it is leaked");
        let cell = self.into_cell().as_ptr();
        // SAFETY: nothing else holds the cell: an item is alone. The home is read once, and nothing
        // of the slot is used after that: its `drop` does no more than the line above, and the
        // other fields own nothing. The memory goes back to a box for the same layout.
        let (home, memory) = unsafe {
            let home = ptr::read((*cell).slot.home());
            (home, Box::from_raw(cell.cast::<MaybeUninit<Cell<H>>>()))
        };
        home.spare().put(memory);
        home
    }
}

impl<H: Home> Cell<H> {
    fn of(slot: Slot<H>) -> Self {
        const {
            let behind = mem::offset_of!(Self, holders) >= 64;
            assert!(behind || cfg!(not(target_pointer_width = "64")));
        }
        Cell {
            slot,
            holders: Holders::one(),
        }
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
        debug_assert!(self.is_alone(), "others still read its buffer");
        // SAFETY: it came from a box, and no one else holds it.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl<H: Home + Send + Sync + 'static> Item for SlotBox<H> {
    type Notes = Samples;

    #[inline(always)]
    fn weight(&self) -> usize {
        self.capacity()
    }

    /// The cell first: freeing a buffer of 64 KiB or more makes glibc's heap join its small free
    /// blocks with their neighbours. A cell that was freed later would stay unjoined, and pin all
    /// memory below it.
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

// SAFETY: it counts itself out, which is atomic, and passes the slot on if it is the last one.
unsafe impl<H: Home + Send + Sync> Send for Hold<H> {}
// SAFETY: as above; shared, it only counts.
unsafe impl<H: Home + Send + Sync> Sync for Hold<H> {}

impl<H: Home> Hold<H> {
    fn holders(&self) -> &Holders {
        // SAFETY: the cell lives as long as one holds it. This reaches no byte of the slot.
        unsafe { &(*self.0.as_ptr()).holders }
    }

    /// Whether no one else holds the slot.
    pub(crate) fn is_alone(&self) -> bool {
        self.holders().is_alone()
    }

    /// Gives the hold up. Returns the slot if it was the last one.
    // A hold that is dropped instead keeps the slot out for ever.
    pub(crate) fn leave(self) -> Option<SlotBox<H>> {
        // Not `then_some`: that would make a second one, to drop it.
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

/// The memory of a cell that has ended, for the next one; or none.
///
/// A heap takes longer for a cell than for many a buffer. While no buffer may be kept, each new
/// slot finds here the memory of the one before it.
// One, since it pins all memory below it on the heap; and the lowest, so that this is little.
pub(crate) struct Spare<H: Home>(Mutex<Option<Box<MaybeUninit<Cell<H>>>>>);

impl<H: Home> Spare<H> {
    pub(crate) fn new() -> Self {
        Spare(Mutex::new(None))
    }

    /// `None` also while another thread is here.
    fn take(&self) -> Option<Box<MaybeUninit<Cell<H>>>> {
        try_lock(&self.0)?.take()
    }

    /// Keeps whichever lies lower of this one and the one that is here, and frees the other.
    fn put(&self, memory: Box<MaybeUninit<Cell<H>>>) {
        let Some(mut spare) = try_lock(&self.0) else {
            return;
        };
        match &*spare {
            Some(lower) if lower.as_ptr() < memory.as_ptr() => {}
            _ => *spare = Some(memory),
        }
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
            let mut slots: Vec<SlotBox<Nowhere>> = slots();
            slots.sort_by_key(|slot| slot.0.addr());
            let lowest = slots[0].0.addr().get();
            order(&mut slots);
            slots.into_iter().for_each(Item::free);
            let spare = home.spare().take().expect("one was kept");
            assert_eq!(spare.as_ptr().addr(), lowest);
            assert!(home.spare().take().is_none());
        }
        assert_eq!(Arc::strong_count(&home), 1);
    }

    #[test]
    fn the_last_holder_has_the_slot_whichever_that_is() {
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
        let slot = slot.into_hold().leave().expect("as before");
        assert_eq!(Arc::strong_count(&home), 2);
        drop(slot);
        assert_eq!(Arc::strong_count(&home), 1);
    }
}
