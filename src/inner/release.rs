//! The way back: from a guard to the engine, or to the heap.
//!
//! ```text
//! release_local   as it left, in its own thread, room in the cache: one push
//! release         the rest: record, make whole, judge, keep or free
//! ```

use super::slot::{Use, Wipe};
use super::{BufferOrigin, BufferSlot, Inner};
use crate::engine::{ClassIndex, Here, Mark};
use crate::stats::Discard;
use std::sync::Arc;

impl Inner {
    /// Keeps a buffer in the thread cache that it came from, if that is this
    /// thread's, has room, and the buffer is as it left. Hands it back otherwise, and when a
    /// sample is due.
    #[inline(always)]
    pub(crate) fn release_local(
        mut slot: Box<BufferSlot>,
        origin: &BufferOrigin,
    ) -> Result<(), Box<BufferSlot>> {
        match Self::home_as_it_left(&slot, origin) {
            Some(cache) => {
                slot.empty();
                cache.push(slot)
            }
            None => Err(slot),
        }
    }

    /// The cache that a buffer came from, if that is this thread's, and the buffer is what it
    /// was then, except for its contents.
    #[inline(always)]
    fn home_as_it_left(slot: &BufferSlot, origin: &BufferOrigin) -> Option<Here<Box<BufferSlot>>> {
        // SAFETY: the slot keeps its pool alive, and with it the engine that the origin is of.
        // It is only given to the result.
        let cache = unsafe { origin.here() }?;
        slot.is_as_it_left(cache.unit()).then_some(cache)
    }

    /// Keeps a buffer that did not take the fast path, or frees it and counts why. The fast
    /// path may have emptied it; `before` is how it was used before that.
    #[cold]
    #[inline(never)]
    pub(crate) fn release(mut slot: Box<BufferSlot>, origin: BufferOrigin, before: Use) {
        match Self::home_as_it_left(&slot, &origin) {
            Some(cache) => {
                slot.note_use(before);
                Self::release_unchanged(slot, cache);
            }
            None => Self::release_changed(slot, origin),
        }
    }

    /// For a buffer whose thread cache has no room for it, or whose return is a sample.
    fn release_unchanged(mut slot: Box<BufferSlot>, cache: Here<Box<BufferSlot>>) {
        let pool = slot.home();
        let held = pool.class_of(slot.capacity());
        let sample = cache.sample(pool.calibrator.calibrations());
        if sample.is_some() && slot.was_asked_for() {
            pool.calibrator.note_requests(held, 1);
        }
        pool.record(&slot, held, sample.unwrap_or(1));
        slot.empty();
        // Else its class may have been retired just now.
        if sample.is_some() && cache.has_room() {
            match cache.push_looked_at(slot) {
                Ok(()) => return,
                Err(back) => slot = back, // another thread has claimed the cache just now
            }
        }
        Self::keep_or_free(slot, held, true);
    }

    /// For a buffer that has been lent, cut, consumed, taken on another thread, or is to be wiped.
    fn release_changed(mut slot: Box<BufferSlot>, origin: BufferOrigin) {
        let pool = slot.home();
        let held = pool.class_of(slot.capacity());
        if origin.has(Mark::Probed) {
            // The probe has taken the number's place. It is lent by a full buffer.
            slot.note_full(origin.has(Mark::Unasked));
        }
        slot.home().record(&slot, held, 1);
        let whole = Self::make_whole(&mut slot, &origin);
        Self::keep_or_free(slot, held, whole);
    }

    /// Keeps a buffer whose contents have gone on to a larger one, or frees it and counts why.
    pub(crate) fn release_outgrown(mut slot: Box<BufferSlot>, origin: BufferOrigin) {
        let cache = Self::home_as_it_left(&slot, &origin);
        let counted = cache.is_some();
        if let Some(cache) = cache {
            cache.count_growth();
            slot.empty();
            match cache.push_looked_at(slot) {
                Ok(()) => return,
                Err(back) => slot = back,
            }
        }
        let pool = slot.home();
        let held = pool.class_of(slot.capacity());
        if !counted {
            pool.counters(held).growths.bump();
        }
        let whole = Self::make_whole(&mut slot, &origin);
        Self::keep_or_free(slot, held, whole);
    }

    /// Empties a buffer and makes it whole, and wipes it if that is to be. Returns `false` if a
    /// part of it is in use elsewhere.
    fn make_whole(slot: &mut BufferSlot, origin: &BufferOrigin) -> bool {
        let wipe = match slot.home().zero_on_return {
            false => Wipe::Nothing,
            true if origin.is_marked() => Wipe::All,
            true => Wipe::Used,
        };
        let whole = slot.make_whole(origin.has(Mark::Lent), wipe);
        slot.forget_use();
        whole
    }

    /// Keeps an empty buffer, which counted as outstanding in the class `held`, or frees it.
    fn keep_or_free(slot: Box<BufferSlot>, held: ClassIndex, whole: bool) {
        match slot.home().judge(&slot, held, whole) {
            Ok(class) => Self::keep(slot, held, class),
            Err(reason) => Self::discard(slot, held, reason),
        }
    }

    /// The class that a returned buffer joins, or why it is freed.
    fn judge(
        &self,
        slot: &BufferSlot,
        held: ClassIndex,
        whole: bool,
    ) -> Result<ClassIndex, Discard> {
        if !whole {
            return Err(Discard::Shared);
        }
        let capacity = slot.capacity();
        if self.classes.capacities().get(held.get()) == Some(&capacity) {
            // As most are: the general case, below, comes to the same.
            return match self.calibrator.is_retired(held) {
                true => Err(Discard::AboveMax),
                false => Ok(held),
            };
        }
        let holds_as_much = self.classes.for_request(capacity);
        if self.calibrator.is_retired(holds_as_much) {
            return Err(Discard::AboveMax);
        }
        self.classes.for_capacity(capacity).ok_or(Discard::BelowMin)
    }

    /// Keeps a buffer in a class, which is another than it was `held` in if it has grown. Frees
    /// it if there is no room.
    fn keep(mut slot: Box<BufferSlot>, held: ClassIndex, class: ClassIndex) {
        let pool = slot.home();
        if class != held {
            pool.counters(held).moved_out.bump();
            pool.counters(class).moved_in.bump();
        }
        if slot.capacity() != pool.classes.capacity(class) {
            slot.forget_base();
        }
        // SAFETY: the slot keeps its pool alive, and is only given to the result.
        let place = unsafe { slot.home().engine.place_for(class, slot.capacity()) };
        if let Some(cache) = place {
            match cache.push_looked_at(slot) {
                Ok(()) => return,
                Err(back) => slot = back, // another thread has claimed the cache just now
            }
        }
        if !slot.home().engine.lease_loose(class, slot.capacity()) {
            return Self::discard(slot, class, Discard::Full);
        }
        // Counted: the slot keeps its pool alive, but is given away here.
        let pool = Arc::clone(slot.home());
        if let Err(slot) = pool.engine.put_loose(class, slot) {
            Self::discard(slot, class, Discard::Full);
        }
    }

    /// Frees a buffer, and counts why.
    fn discard(slot: Box<BufferSlot>, held: ClassIndex, reason: Discard) {
        let pool = slot.home();
        pool.counters(held).discards.of(reason).bump();
        if reason == Discard::AboveMax && slot.capacity() <= pool.classes.max() {
            pool.note_discard();
        }
        crate::engine::Item::free(slot);
    }
}
