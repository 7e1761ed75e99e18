//! The way back: from a guard to the engine, or to the heap.
//!
//! ```text
//! release_local   unchanged, in its own thread, room in the cache: one push
//! release         the rest: record, make whole, keep or free
//! ```

use super::slot::{Use, Wipe};
use super::surplus;
use super::{BufferBox, BufferHold, BufferOrigin, BufferSlot, Inner};
use crate::engine::{ClassIndex, Here, Item, Mark};
use crate::stats::Discard;
use std::sync::Arc;

/// Why a buffer is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// Its guard was dropped. The pool records its use.
    Back,
    /// Its contents have moved to a larger buffer, whose use the pool will record. Or it was not used.
    Unrecorded,
}

impl Inner {
    /// Keeps a buffer in the thread cache that it came from, if that is this thread's and has room,
    /// and the buffer is unchanged. Otherwise hands it back, also when a sample is due.
    #[inline(always)]
    pub(crate) fn release_local(
        mut slot: BufferBox,
        origin: &BufferOrigin,
    ) -> Result<(), BufferBox> {
        match Self::home_as_it_left(&slot, origin) {
            Some(cache) => {
                slot.empty();
                cache.push::<false>(slot)
            }
            None => Err(slot),
        }
    }

    /// The cache that a buffer came from, if that is this thread's, and the buffer is unchanged
    /// except for its contents.
    #[inline(always)]
    fn home_as_it_left(slot: &BufferSlot, origin: &BufferOrigin) -> Option<Here<BufferBox>> {
        let cache = Self::here(slot, origin)?;
        slot.is_as_it_left(cache.unit()).then_some(cache)
    }

    /// The cache that is the origin of a buffer, if it is this thread's.
    #[inline(always)]
    fn here(_slot: &BufferSlot, origin: &BufferOrigin) -> Option<Here<BufferBox>> {
        // SAFETY: the slot keeps its pool alive, and with it the engine of this origin. The slot is
        // given to nothing but the result.
        unsafe { origin.here() }
    }

    /// This thread's cache of a class, if it has any.
    fn cache_of(slot: &BufferSlot, class: ClassIndex) -> Option<Here<BufferBox>> {
        Self::here(slot, &slot.home().engine.origin(class)?)
    }

    /// Keeps a buffer that did not take the fast path, or frees it and counts why. If it is
    /// unchanged, the fast path has emptied it; `used` is its use before that.
    #[cold]
    #[inline(never)]
    pub(crate) fn release(slot: BufferBox, origin: BufferOrigin, used: Use) {
        match Self::home_as_it_left(&slot, &origin) {
            Some(cache) => Self::release_unchanged(slot, cache, used),
            None => Self::release_changed(slot, origin),
        }
    }

    /// For a buffer whose thread cache has no room for it, or whose return is a sample.
    #[inline]
    fn release_unchanged(slot: BufferBox, cache: Here<BufferBox>, used: Use) {
        let pool = slot.home();
        let held = cache.class();
        let sample = cache.sample(pool.calibrator.calibrations());
        if sample.is_some() && used.was_asked_for() {
            pool.calibrator.note_requests(held, 1);
        }
        pool.record(&cache, slot.capacity(), used, sample.unwrap_or(1));
        if sample.is_none() {
            return Self::keep_or_free(slot, held, true, Came::Back, Some(cache));
        }
        // A class that has been retired in between has no room, either.
        if let Err(slot) = cache.push::<true>(slot) {
            Self::keep_or_free(slot, held, true, Came::Back, None);
        }
    }

    /// For a buffer that has been lent, cut, consumed, shared, taken on another thread, or is to be
    /// wiped.
    #[inline]
    fn release_changed(slot: BufferBox, origin: BufferOrigin) {
        match origin.has(Mark::Shared) {
            true => Self::release_hold(Self::into_hold(slot, origin)),
            false => Self::release_alone(slot, origin),
        }
    }

    /// Turns a guard's buffer into a part's hold on it.
    pub(crate) fn into_hold(mut slot: BufferBox, mut origin: BufferOrigin) -> BufferHold {
        match origin.has(Mark::Probed) {
            true => slot.end_probe(origin.has(Mark::Unasked)),
            false => slot.note_used(),
        }
        for mark in [Mark::Shared, Mark::Probed, Mark::Unasked] {
            origin.unmark(mark);
        }
        if origin.has(Mark::Lent) {
            slot.forget_base(); // it may be a different buffer, so its return checks it
        }
        slot.note_left(origin);
        slot.into_hold()
    }

    /// Gives a hold up. If it was the last one, releases the buffer.
    #[inline]
    pub(crate) fn release_hold(hold: BufferHold) {
        if let Some(slot) = hold.leave() {
            Self::release_last(slot);
        }
    }

    /// For a buffer whose last part is gone: releases it as a guard's drop does, with the guard's
    /// origin.
    #[inline(never)]
    fn release_last(mut slot: BufferBox) {
        let origin = slot.left();
        slot.note_used();
        if !origin.was_lent() {
            slot.move_back();
        }
        let before = slot.use_as_it_left();
        if let Err(slot) = Self::release_local(slot, &origin) {
            Self::release(slot, origin, before);
        }
    }

    /// For a buffer that has no other holder.
    #[inline]
    fn release_alone(mut slot: BufferBox, origin: BufferOrigin) {
        let pool = slot.home();
        let held = pool.class_of(slot.capacity());
        let used = match origin.has(Mark::Probed) {
            // The probe has overwritten the number. Only a full buffer lends it.
            true => slot.full_use(origin.has(Mark::Unasked)),
            false => slot.use_so_far(),
        };
        let cache = Self::cache_of(&slot, held);
        match &cache {
            Some(cache) => pool.record(cache, slot.capacity(), used, 1),
            None => pool.record_without_caches(held, used),
        }
        let whole = Self::make_whole(&mut slot, &origin);
        Self::keep_or_free(slot, held, whole, Came::Back, cache);
    }

    /// Keeps a buffer whose contents have moved to a larger one, or frees it and counts why.
    pub(crate) fn release_outgrown(slot: BufferBox, origin: BufferOrigin) {
        Self::release_unrecorded::<true>(slot, origin);
    }

    /// Keeps a buffer that was taken in case there were bytes to read, and there were none. Or frees
    /// it and counts why.
    ///
    /// Not as a drop: an idle connection is no sign that its buffers are too large.
    #[cfg(feature = "tokio")]
    pub(crate) fn release_unused(slot: BufferBox, origin: BufferOrigin) {
        Self::release_unrecorded::<false>(slot, origin);
    }

    /// Keeps a buffer, or frees it and counts why. Its use is not recorded.
    fn release_unrecorded<const OUTGROWN: bool>(mut slot: BufferBox, origin: BufferOrigin) {
        let asked = match origin.has(Mark::Probed) {
            true => !origin.has(Mark::Unasked),
            false => slot.use_so_far().was_asked_for(),
        };
        let cache = Self::home_as_it_left(&slot, &origin);
        let counted = cache.is_some();
        if let Some(cache) = cache {
            if OUTGROWN {
                cache.count_growth();
            }
            if asked {
                cache.count_requests(1);
            }
            slot.empty();
            match cache.push::<true>(slot) {
                Ok(()) => return,
                Err(back) => slot = back,
            }
        }
        let pool = slot.home();
        let held = pool.class_of(slot.capacity());
        if !counted {
            if OUTGROWN {
                pool.counters(held).growths.bump();
            }
            if asked {
                pool.counters(held).requests.bump();
            }
        }
        let whole = Self::make_whole(&mut slot, &origin);
        Self::keep_or_free(slot, held, whole, Came::Unrecorded, None);
    }

    /// Empties a buffer, makes it whole, and wipes it if the pool does that. Returns `false` if a
    /// part of it has another holder.
    fn make_whole(slot: &mut BufferSlot, origin: &BufferOrigin) -> bool {
        let wipe = match slot.home().zero_on_return {
            false => Wipe::Nothing,
            true if origin.was_lent() => Wipe::All,
            true => Wipe::Used,
        };
        let zeros_from = match wipe {
            Wipe::Nothing if origin.was_lent() => usize::MAX,
            Wipe::Nothing => slot.zeros_from(),
            // In such a pool, all initialised bytes were written, and wiped.
            Wipe::Used | Wipe::All => 0,
        };
        let whole = slot.make_whole(origin.has(Mark::Lent), wipe);
        slot.forget_use();
        slot.note_zeros_from(zeros_from);
        whole
    }

    /// Keeps an empty buffer, which counted as outstanding in the class `held`, or frees it.
    /// `cache` is this thread's cache of that class, if known.
    fn keep_or_free(
        slot: BufferBox,
        held: ClassIndex,
        whole: bool,
        came: Came,
        cache: Option<Here<BufferBox>>,
    ) {
        // Given back last: only then is the buffer no longer outstanding. Counted once more, since the
        // slot is given away.
        let charged = slot.home().limit().is_some();
        let charged = charged.then(|| (Arc::clone(slot.home()), slot.capacity()));
        Self::decide(slot, held, whole, came, cache);
        if let Some((pool, bytes)) = charged {
            pool.uncharge(bytes);
        }
    }

    /// Chooses whether to keep a buffer, and where.
    #[inline(always)]
    fn decide(
        slot: BufferBox,
        held: ClassIndex,
        whole: bool,
        came: Came,
        cache: Option<Here<BufferBox>>,
    ) {
        let pool = slot.home();
        if !whole {
            return Self::discard(slot, held, Discard::Shared);
        }
        if pool.classes.of_capacity(slot.capacity()) != Some(held) {
            return Self::keep_or_free_unusual(slot, held, came);
        }
        // Most buffers are.
        if pool.calibrator.is_retired(held) {
            return Self::discard_above_max(slot, held, came);
        }
        match cache {
            Some(cache) if cache.has_room() => Self::keep_in(slot, held, cache),
            cache => Self::keep(slot, held, cache),
        }
    }

    /// For a buffer whose capacity is not exactly its class's.
    #[cold]
    fn keep_or_free_unusual(mut slot: BufferBox, held: ClassIndex, came: Came) {
        let pool = slot.home();
        let capacity = slot.capacity();
        if pool
            .calibrator
            .is_retired(pool.classes.for_request(capacity))
        {
            return Self::discard_above_max(slot, held, came);
        }
        let Some(class) = pool.classes.for_capacity(capacity) else {
            return Self::discard(slot, held, Discard::BelowMin);
        };
        if class != held {
            pool.counters(held).moved_out.bump();
            pool.counters(class).moved_in.bump();
        }
        if capacity != pool.classes.capacity(class) {
            slot.forget_base();
        }
        Self::keep(slot, class, None);
    }

    /// Keeps a buffer in a class, or frees it if there is no room. `cache` is this thread's cache
    /// of that class, if known.
    fn keep(slot: BufferBox, class: ClassIndex, cache: Option<Here<BufferBox>>) {
        let cache = cache.or_else(|| Self::cache_of(&slot, class));
        let engine = &slot.home().engine;
        match cache.filter(|cache| engine.has_place(cache, slot.capacity())) {
            Some(cache) => Self::keep_in(slot, class, cache),
            None => Self::keep_loose(slot, class),
        }
    }

    /// Keeps a buffer in a cache that has room.
    fn keep_in(slot: BufferBox, class: ClassIndex, cache: Here<BufferBox>) {
        if let Err(slot) = cache.push::<true>(slot) {
            Self::keep_loose(slot, class); // another thread has claimed the cache since
        }
    }

    /// Keeps a buffer loose in the depot. Frees it if there is no room.
    fn keep_loose(slot: BufferBox, class: ClassIndex) {
        if !slot.home().engine.lease_loose(class, slot.capacity()) {
            return Self::discard(slot, class, Discard::Full);
        }
        // Counted once more: the slot keeps its pool alive, but is given away here.
        let pool = Arc::clone(slot.home());
        if let Err(slot) = pool.engine.put_loose(class, slot) {
            Self::discard(slot, class, Discard::Full);
        }
    }

    /// Frees a buffer that the drop rule does not keep.
    fn discard_above_max(slot: BufferBox, held: ClassIndex, came: Came) {
        let pool = slot.home();
        pool.counters(held).discards.of(Discard::AboveMax).bump();
        if came == Came::Back && slot.capacity() <= pool.classes.max() {
            pool.note_discard();
        }
        Self::free_discarded(slot, held);
    }

    /// Frees an empty buffer. If many of its class were discarded in a row, gives its pages back to
    /// the system first: no trim will ever see them.
    fn free_discarded(mut slot: BufferBox, held: ClassIndex) {
        let pool = slot.home();
        let (capacity, arrivals) = (slot.capacity(), pool.counters(held).arrivals());
        let in_a_row = surplus::in_a_row(pool.background.is_some(), pool.engine.limit());
        if pool.surplus[held.get()].note(capacity, arrivals, in_a_row) {
            slot.give_back_pages(0..capacity);
        }
        slot.free();
    }

    /// Frees a buffer, and counts why.
    fn discard(slot: BufferBox, held: ClassIndex, reason: Discard) {
        slot.home().counters(held).discards.of(reason).bump();
        match reason {
            // Another holder has a part of it.
            Discard::Shared => slot.free(),
            _ => Self::free_discarded(slot, held),
        }
    }
}
