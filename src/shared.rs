//! What all handles and all guards of one pool share, and what it makes of them.
//!
//! Owns the engine, the size classes and the rare counters. Decides what the
//! engine does not: what to do when it has nothing, and what a returned buffer
//! is worth. Knows nothing of how users hold buffers.

use crate::builder::Config;
use crate::engine::{ClassIndex, Engine, EngineId, HasEngine, Refusal};
use crate::size_class::SizeClasses;
use crate::slot::Slot;
use crate::stats::{Counters, Discard, Stats};
use crate::sync::{AtomicUsize, Ordering};
use std::sync::Arc;

/// The cell that a buffer of a pool lives in.
pub(crate) type BufferSlot = Slot<Shared>;

/// One pool, as its handles, its guards and its idle buffers see it.
pub(crate) struct Shared {
    engine: Engine<Box<BufferSlot>>,
    classes: SizeClasses,
    zero_on_return: bool,
    /// One per size class.
    counters: Box<[Counters]>,
    /// For buffers of no size class.
    unclassed: Counters,
    /// `Pool`s alive. The last one closes the engine.
    handles: AtomicUsize,
}

impl HasEngine for Shared {
    type Item = Box<BufferSlot>;

    fn engine(&self) -> &Engine<Box<BufferSlot>> {
        &self.engine
    }
}

impl Shared {
    /// A pool with one handle.
    pub(crate) fn new(config: Config) -> Arc<Self> {
        Arc::new_cyclic(|this| Shared {
            counters: config.classes.iter().map(|_| Counters::default()).collect(),
            engine: Engine::new(config.limits, this.clone()),
            classes: config.classes,
            zero_on_return: config.zero_on_return,
            unclassed: Counters::default(),
            handles: AtomicUsize::new(1),
        })
    }

    pub(crate) fn zero_on_return(&self) -> bool {
        self.zero_on_return
    }

    pub(crate) fn classes(&self) -> &SizeClasses {
        &self.classes
    }

    /// The engine whose thread cache takes a whole buffer back as it is; none
    /// if the buffer must be looked at first.
    #[inline(always)]
    pub(crate) fn direct_return(&self) -> EngineId {
        if self.zero_on_return {
            EngineId::NONE
        } else {
            self.engine.id()
        }
    }

    // ---- out ----

    /// An empty buffer for `request` bytes, and its size class.
    ///
    /// # Panics
    ///
    /// - If `request` is above `isize::MAX`.
    #[inline(always)]
    pub(crate) fn take(self: &Arc<Self>, request: usize) -> (Box<BufferSlot>, Option<ClassIndex>) {
        let class = self.classes.for_request(request);
        if let Some(class) = class {
            if let Some(slot) = self.engine.take_local(class) {
                return (slot, Some(class)); // local hit
            }
        }
        (self.take_slow(class, request), class)
    }

    /// Depot hit, else miss.
    #[cold]
    #[inline(never)]
    fn take_slow(self: &Arc<Self>, class: Option<ClassIndex>, request: usize) -> Box<BufferSlot> {
        let Some(class) = class else {
            let slot = Slot::with_capacity(request, Arc::clone(self));
            self.unclassed.oversize.bump();
            return slot;
        };
        if let Some(slot) = self.engine.take(class) {
            return slot;
        }
        let slot = Slot::with_capacity(self.classes.capacity(class), Arc::clone(self));
        self.counters(Some(class)).misses.bump();
        slot
    }

    // ---- back ----

    /// Keeps a buffer in this thread's cache if it comes as it left and there is room.
    ///
    /// # Safety
    ///
    /// - `slot` came from a pool whose [`direct_return`](Self::direct_return)
    ///   is `engine`, or `engine` is `NONE`.
    /// - `class` is one of that pool's classes.
    #[inline(always)]
    pub(crate) unsafe fn keep_local(
        engine: EngineId,
        class: ClassIndex,
        mut slot: Box<BufferSlot>,
    ) -> Result<(), Box<BufferSlot>> {
        if engine == EngineId::NONE || !slot.is_whole() {
            return Err(slot);
        }
        slot.buf.clear();
        // SAFETY: the slot keeps its pool alive, and with it the engine, whose
        // items are of this type. The class is as the caller promises.
        unsafe { Engine::keep_local(engine, class, slot) }
    }

    /// Keeps a buffer that may have changed, or frees it and counts why.
    ///
    /// `held` is the class in which its guard is counted as outstanding.
    #[cold]
    #[inline(never)]
    pub(crate) fn keep(mut slot: Box<BufferSlot>, held: Option<ClassIndex>) {
        // Counted here: the slot keeps its pool alive, but is given away below.
        let shared = Arc::clone(slot.home());
        let counters = shared.counters(held);
        let discard = |reason| counters.discards.of(reason).bump();
        if !slot.make_whole() {
            return discard(Discard::Shared);
        }
        if shared.zero_on_return {
            slot.wipe();
        }
        if slot.capacity() > shared.classes.max() {
            return discard(Discard::AboveMax);
        }
        let Some(class) = shared.classes.for_capacity(slot.capacity()) else {
            return discard(Discard::BelowMin);
        };
        match shared.engine.keep(class, slot) {
            Ok(()) if held == Some(class) => {}
            Ok(()) => {
                counters.moved_out.bump();
                shared.counters(Some(class)).moved_in.bump();
            }
            Err((_slot, Refusal::Full)) => discard(Discard::Full),
            Err((_slot, Refusal::NoCache)) => discard(Discard::NoCache),
            // The last handle is gone, and with it all who could read a count.
            Err((_slot, Refusal::Closed)) => {}
        }
    }

    // ---- handles ----

    pub(crate) fn add_handle(&self) {
        // Relaxed: made from a handle that is alive, so the count is not 0,
        // and nothing else is ordered by it.
        self.handles.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends a handle; the last one frees what the pool retains.
    pub(crate) fn remove_handle(&self) {
        // AcqRel: what other handles did comes before the last one closes.
        if self.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            // SAFETY: the count reaches 0 once, since a handle is made from a
            // handle only.
            unsafe { self.engine.close() };
        }
    }

    // ---- what can be seen ----

    /// The rare counters of a class, or of buffers of none.
    pub(crate) fn counters(&self, class: Option<ClassIndex>) -> &Counters {
        class.map_or(&self.unclassed, |class| &self.counters[class.get()])
    }

    pub(crate) fn stats(&self) -> Stats {
        let classes = self.classes.iter().map(|class| {
            let counters = self.counters(Some(class));
            (
                self.classes.capacity(class),
                counters,
                self.engine.levels(class),
            )
        });
        Stats::collect(classes, &self.unclassed)
    }
}
