//! What all handles and all guards of one pool share, and what it makes of them.
//!
//! Owns the engine, the size classes and the rare counters. Decides what the
//! engine does not: what to do when it has nothing, and what a returned buffer
//! is worth. Knows nothing of how users hold buffers.

pub(crate) mod slot;

use crate::background::{self, Stop};
use crate::backoff::Backoff;
use crate::config::Config;
use crate::engine::{
    ClassIndex, Engine, Freed, HasEngine, Item, Mark, Origin, Return, UNLIMITED, Wait,
};
use crate::error::{ConfigError, GetError};
use crate::inner::slot::{Home, Slot, Spare};
use crate::sizing::calibrator::{Calibrated, Calibrator, Counted};
use crate::sizing::profile::Profile;
use crate::sizing::size_class::SizeClasses;
use crate::sizing::targets::{self, STEPS};
use crate::stats::{Counters, Discard, Footprint, Stats};
use crate::sync::{AtomicUsize, Ordering};
use crate::system;
use crate::system::CAPACITY_MAX;
use std::convert::Infallible;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// From how many freed bytes on it is worth having the heap look for free pages.
const MALLOC_TRIM_LEAST: usize = 1 << 20;

/// Of how many misses of a class one makes the depot's queues longer, if need be.
const RESERVE_EACH: u64 = 16;

/// For a buffer of how many times all that is idle it is worth freeing that.
///
/// 16: the heap refused it, so it has less than the buffer takes. What is idle makes up for the
/// difference in one of 16 cases at most.
const CLEAR_FOR_TIMES: usize = 16;

/// The cell that a buffer of a pool lives in.
pub(crate) type BufferSlot = Slot<Inner>;

/// The thread cache that such a cell came from.
pub(crate) type BufferOrigin = Origin<Box<BufferSlot>>;

/// One pool, as its handles, its guards and its idle buffers see it.
pub(crate) struct Inner {
    engine: Engine<Box<BufferSlot>>,
    classes: SizeClasses,
    calibrator: Calibrator,
    zero_on_return: bool,
    malloc_trim: bool,
    /// Which refusals of the heap pass without a clear.
    clears: Backoff,
    /// One per size class, and one for buffers of none.
    counters: Box<[Counters]>,
    footprint: Footprint,
    spare: Spare<Inner>,
    /// `Pool`s alive. The last one closes the engine.
    handles: AtomicUsize,
    /// The thread that trims, if there is to be one.
    background: Option<Background>,
}

/// A thread that trims: how often, and what ends it.
struct Background {
    interval: Duration,
    stop: Arc<Stop>,
}

impl HasEngine for Inner {
    type Item = Box<BufferSlot>;

    fn engine(&self) -> &Engine<Box<BufferSlot>> {
        &self.engine
    }
}

impl Home for Inner {
    // Called when a buffer is made or ends, or another capacity is seen: never by a local
    // hit or a local return.
    #[inline]
    fn capacity_changes(&self, before: usize, after: usize) {
        self.footprint.changes(before, after);
        if !(self.is_ordinary(before) && self.is_ordinary(after)) {
            self.count_above_class(before, after);
        }
    }

    #[inline]
    fn spare(&self) -> &Spare<Self> {
        &self.spare
    }
}

impl Counted for Inner {
    /// Exact while no thread is inside the pool, and never too many.
    fn returns(&self, wait: Wait) -> Option<[usize; STEPS]> {
        let mut returns = self.calibrator.told(); // before the rest: see `Engine::tally`
        for (kind, count) in self.engine.tally(wait)?.into_iter().enumerate() {
            let step = &mut returns[targets::step_of_kind(kind)];
            *step = step.wrapping_add(count);
        }
        Some(returns)
    }

    fn requests(&self, wait: Wait, classes: &mut [u64]) -> bool {
        if !self.engine.hits_not_in_exchange(wait, classes) {
            return false;
        }
        for (class, requests) in self.classes.iter().zip(classes) {
            let counters = self.counters(class);
            let more = counters.misses.get() + counters.prefilled.get();
            *requests = (*requests + more).saturating_sub(counters.grown_into.get());
        }
        true
    }

    fn give_up(&self, class: ClassIndex) {
        self.engine.give_up(class);
    }
}

impl Inner {
    /// A pool with one handle.
    pub(crate) fn new(config: Config) -> Arc<Self> {
        Arc::new_cyclic(|this| Inner {
            engine: Engine::new(&config.limits, !config.zero_on_return, this.clone()),
            counters: (0..=config.classes.capacities().len())
                .map(|_| Counters::default())
                .collect(),
            footprint: Footprint::default(),
            spare: Spare::new(),
            calibrator: Calibrator::new(config.calibrating, &config.classes),
            classes: config.classes,
            zero_on_return: config.zero_on_return,
            malloc_trim: config.malloc_trim,
            clears: Backoff::new(),
            handles: AtomicUsize::new(1),
            background: config.background_trim.map(|interval| Background {
                interval,
                stop: Arc::default(),
            }),
        })
    }

    /// Starts the thread that trims, if there is to be one.
    ///
    /// # Errors
    ///
    /// - If it cannot be started.
    pub(crate) fn trim_in_background(self: &Arc<Self>) -> io::Result<()> {
        let Some(Background { interval, stop }) = &self.background else {
            return Ok(());
        };
        // Weak: the thread keeps no pool alive between two trims.
        let pool = Arc::downgrade(self);
        let act = move || match pool.upgrade() {
            Some(pool) => {
                pool.trim();
                pool.calibrate_if_time();
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(()),
        };
        background::start("tierpool-trim", *interval, Arc::clone(stop), act)
    }

    pub(crate) fn zero_on_return(&self) -> bool {
        self.zero_on_return
    }

    pub(crate) fn classes(&self) -> &SizeClasses {
        &self.classes
    }

    // ---- out ----

    /// An empty buffer for `request` bytes, and the thread cache to which it may come back.
    ///
    /// # Panics
    ///
    /// - If `request` is above `isize::MAX`.
    #[inline(always)]
    pub(crate) fn take(self: &Arc<Self>, request: usize) -> (Box<BufferSlot>, BufferOrigin) {
        let class = self.classes.for_request(request);
        match self.engine.take_local(class) {
            Some(local_hit) => local_hit,
            None => self.take_slow(class, request, false),
        }
    }

    /// As [`take`](Self::take), unless there is none to be had.
    ///
    /// # Errors
    ///
    /// - If `request` is above `isize::MAX`.
    /// - If the heap has no room.
    #[inline(always)]
    pub(crate) fn try_take(
        self: &Arc<Self>,
        request: usize,
    ) -> Result<(Box<BufferSlot>, BufferOrigin), GetError> {
        let class = self.classes.for_request(request);
        match self.engine.take_local(class) {
            Some(local_hit) => Ok(local_hit),
            None => self.try_take_slow(class, request),
        }
    }

    /// As [`take`](Self::take), for a buffer that was outgrown by what nobody asked for.
    pub(crate) fn take_to_grow(
        self: &Arc<Self>,
        request: usize,
    ) -> (Box<BufferSlot>, BufferOrigin) {
        let class = self.classes.for_request(request);
        // Not the quick way if it is retired: its drop must not go that way, either.
        if !self.calibrator.is_retired(class) {
            if let Some((slot, origin)) = self.engine.take_local(class) {
                // SAFETY: found for this thread, in the engine of `self`.
                unsafe { origin.count_exchange() };
                return (slot, origin);
            }
        }
        self.counters(class).grown_into.bump();
        self.take_slow(class, request, true)
    }

    /// Local hit after all, depot hit, or else miss.
    #[cold]
    #[inline(never)]
    fn take_slow(
        self: &Arc<Self>,
        class: ClassIndex,
        request: usize,
        to_grow: bool,
    ) -> (Box<BufferSlot>, BufferOrigin) {
        let make = |capacity| -> Result<_, Infallible> {
            Ok(Slot::with_capacity(capacity, Arc::clone(self)))
        };
        let Ok(taken) = self.find_or_make(class, request, to_grow, make);
        taken
    }

    /// As [`take_slow`](Self::take_slow), unless there is none to be had.
    #[cold]
    #[inline(never)]
    fn try_take_slow(
        self: &Arc<Self>,
        class: ClassIndex,
        request: usize,
    ) -> Result<(Box<BufferSlot>, BufferOrigin), GetError> {
        if request > CAPACITY_MAX {
            return Err(GetError::TooLarge { size: request });
        }
        let make = |capacity| {
            let make = || Slot::try_with_capacity(capacity, Arc::clone(self));
            let made = make().or_else(|| {
                let cleared = self.may_clear_for(capacity);
                if cleared {
                    self.clear();
                }
                // Asked again in any case: another thread may have freed it just now.
                let made = make();
                if cleared {
                    self.clears.note(made.is_some());
                }
                made
            });
            made.ok_or(GetError::OutOfMemory { size: request })
        };
        self.find_or_make(class, request, false, make)
    }

    /// Whether to free all idle buffers, since the heap has refused one of `capacity` bytes:
    /// not where that is far more than they are, or where it was of no use lately.
    fn may_clear_for(&self, capacity: usize) -> bool {
        let idle = match self.engine.leased() {
            UNLIMITED => {
                let levels = self.classes.iter().map(|class| self.engine.levels(class));
                levels.map(|levels| levels.idle_weight).sum()
            }
            leased => leased,
        };
        capacity <= idle.saturating_mul(CLEAR_FOR_TIMES) && !self.clears.skips()
    }

    /// Finds a buffer, or has one of a capacity made, and counts that once it is there.
    fn find_or_make<E>(
        self: &Arc<Self>,
        class: ClassIndex,
        request: usize,
        to_grow: bool,
        make: impl FnOnce(usize) -> Result<Box<BufferSlot>, E>,
    ) -> Result<(Box<BufferSlot>, BufferOrigin), E> {
        let counters = self.counters(class);
        if class == self.classes.unclassed() {
            let slot = make(request)?;
            counters.oversize.bump();
            return Ok((slot, BufferOrigin::NONE));
        }
        let (slot, origin) = self.engine.take(class);
        let slot = match slot {
            Some(slot) => slot,
            None => {
                // Before it is made: see `Store::reserve`. Not each time, since that is for
                // eight times as many.
                let misses = counters.misses.get();
                if misses < RESERVE_EACH || misses % RESERVE_EACH == 0 {
                    self.reserve(class, 1);
                }
                let slot = make(self.classes.capacity(class))?;
                counters.misses.bump();
                slot
            }
        };
        if self.calibrator.is_retired(class) && !to_grow {
            self.calibrator.note_requests(class, 1);
        }
        let retired = self.calibrator.is_retired(class);
        if retired {
            // What came along from the depot: the next request must not go the quick
            // way, on which nobody takes note of it.
            self.engine.give_up(class);
        }
        if self.zero_on_return || retired {
            // Its drop must not go the quick way, past the wiping or the drop rule.
            return Ok((slot, BufferOrigin::NONE));
        }
        Ok((slot, origin))
    }

    /// Makes room in the depot for what there is of a class, outstanding and
    /// idle, and for `more`.
    ///
    /// Returns `false` if the heap refuses a part of that.
    fn reserve(&self, class: ClassIndex, more: usize) -> bool {
        let counters = self.counters(class);
        let alive = counters.alive().saturating_sub(self.engine.trimmed(class));
        let alive = usize::try_from(alive).unwrap_or(usize::MAX);
        self.engine.reserve(class, alive.saturating_add(more))
    }

    // ---- back ----

    /// Keeps a buffer in the thread cache that it came from, if that is this
    /// thread's, has room, and the buffer is as it left.
    ///
    /// Counts the length of its contents, and keeps none while the calibrator is to be
    /// told of those that it counted.
    #[inline(always)]
    pub(crate) fn keep_local(
        slot: Box<BufferSlot>,
        origin: &BufferOrigin,
    ) -> Result<(), Box<BufferSlot>> {
        let kind = targets::kind_of(slot.buf.len());
        Self::keep_whole(slot, origin, Return::OfKind(kind))
    }

    /// As [`keep_local`](Self::keep_local), for contents of another kind than can be seen.
    #[inline(always)]
    fn keep_whole(
        mut slot: Box<BufferSlot>,
        origin: &BufferOrigin,
        count: Return,
    ) -> Result<(), Box<BufferSlot>> {
        // SAFETY: it is local, and the slot keeps its pool alive, and with it
        // the engine that the origin is of.
        if !origin.is_local() || !slot.is_as_it_left(unsafe { origin.unit() }) {
            return Err(slot);
        }
        if !slot.buf.is_empty() {
            slot.buf.clear(); // to look is cheaper than to store
        }
        // SAFETY: as above.
        unsafe { origin.push(slot, count) }
    }

    /// Keeps a buffer that may have changed, or frees it and counts why.
    ///
    /// `len` is the length of its contents; it may have been emptied since.
    #[cold]
    #[inline(never)]
    pub(crate) fn keep(slot: Box<BufferSlot>, len: usize, origin: BufferOrigin) {
        match origin.is_marked() {
            true => Self::keep_marked(slot, len, origin),
            false => Self::keep_unmarked(slot, len),
        }
    }

    #[cold]
    #[inline(never)]
    fn keep_unmarked(slot: Box<BufferSlot>, len: usize) {
        let used = slot.consumed() + len;
        Self::keep_counted(slot, Some(used), false);
    }

    #[cold]
    #[inline(never)]
    fn keep_marked(slot: Box<BufferSlot>, len: usize, origin: BufferOrigin) {
        let used = slot.consumed() + len;
        let count = Return::OfKind(targets::kind_of(used));
        if let Err((slot, lent)) = Self::keep_lent(slot, origin, count) {
            Self::keep_rare(slot, Some(used), lent);
        }
    }

    /// As [`keep`](Self::keep), for a buffer whose contents have gone on to another:
    /// their length is not to be counted.
    pub(crate) fn keep_outgrown(slot: Box<BufferSlot>, origin: BufferOrigin) {
        let Err(slot) = Self::keep_whole(slot, &origin, Return::Exchanged) else {
            return;
        };
        if !origin.is_marked() {
            return Self::keep_rare(slot, None, false);
        }
        if let Err((slot, lent)) = Self::keep_lent(slot, origin, Return::Exchanged) {
            Self::keep_rare(slot, None, lent);
        }
    }

    /// Keeps a buffer that was lent out as a whole in the thread cache that it came from, if
    /// its allocation shows that it is as it left.
    ///
    /// Otherwise hands it back, with `true` if its allocation is yet to be looked at.
    #[inline(always)]
    fn keep_lent(
        mut slot: Box<BufferSlot>,
        origin: BufferOrigin,
        count: Return,
    ) -> Result<(), (Box<BufferSlot>, bool)> {
        slot.note_unseen();
        let lent = origin.has(Mark::Lent);
        let origin = origin.unmarked();
        if lent && origin.is_local() && slot.reclaim() {
            return Self::keep_whole(slot, &origin, count).map_err(|slot| (slot, false));
        }
        Err((slot, lent))
    }

    #[cold]
    #[inline(never)]
    fn keep_rare(slot: Box<BufferSlot>, used: Option<usize>, lent: bool) {
        Self::keep_counted(slot, used, lent);
    }

    /// `used` is how many bytes of contents it had; `None` if it was outgrown. `lent`,
    /// whether it was lent out as a whole, and not looked at since.
    #[inline(always)] // into two that are cold
    fn keep_counted(mut slot: Box<BufferSlot>, used: Option<usize>, lent: bool) {
        let shared = slot.home();
        if used.is_none() {
            shared.counters_of(&slot).growths.bump();
        }
        let held = shared.class_of(slot.capacity());
        let wipe = shared.zero_on_return;
        let kind = used.map(targets::kind_of);
        let count = kind.map_or(Return::Plain, Return::OfKind);
        // First the short ways, which touch no count that threads share. As it
        // is, in this thread's own cache: taken on another thread.
        let local = match shared.calibrator.is_retired(held) {
            true => None,
            false => shared.engine.local(held),
        };
        let is_known = !(lent || wipe);
        if let (true, Some(origin)) = (is_known, &local) {
            match Self::keep_whole(slot, origin, count) {
                Ok(()) => return,
                Err(returned) => slot = returned,
            }
        }
        // SAFETY: found for this thread, and the slot keeps its pool alive.
        let local = local.filter(|origin| unsafe { origin.has_room() });
        // Or after it has been made whole.
        let is_whole = is_known && slot.is_as_it_left(slot.capacity());
        let whole = is_whole || slot.make_whole(lent, wipe);
        if let (false, true, Some(origin)) = (is_whole, whole, &local) {
            match Self::keep_whole(slot, origin, count) {
                Ok(()) => return,
                Err(returned) => slot = returned,
            }
        }
        slot.buf.clear();
        if let Some(kind) = kind {
            let shared = slot.home();
            shared.count(held, kind); // first: it is judged by what comes of that
            // Perhaps nothing else kept it from going the quick way.
            let retired = shared.calibrator.is_retired(held);
            if let (true, false, Some(origin)) = (whole, retired, &local) {
                match Self::keep_whole(slot, origin, Return::Plain) {
                    Ok(()) => return,
                    Err(returned) => slot = returned,
                }
            }
        }
        match slot.home().judge(&slot, whole) {
            Ok(class) => Self::keep_in(slot, held, class),
            Err(reason) => Self::discard(slot, held, reason),
        }
    }

    /// The class that a returned buffer joins, or why it is freed.
    fn judge(&self, slot: &BufferSlot, whole: bool) -> Result<ClassIndex, Discard> {
        if !whole {
            return Err(Discard::Shared);
        }
        let holds_as_much = self.classes.for_request(slot.capacity());
        if self.calibrator.is_retired(holds_as_much) {
            return Err(Discard::AboveMax);
        }
        let class = self.classes.for_capacity(slot.capacity());
        class.ok_or(Discard::BelowMin)
    }

    /// Keeps a buffer in a class, which is another than it was `held` in if it has grown; or
    /// frees it if there is no room.
    fn keep_in(mut slot: Box<BufferSlot>, held: ClassIndex, class: ClassIndex) {
        let shared = slot.home();
        if shared.engine.refuses(class, slot.capacity()) {
            return Self::discard(slot, held, Discard::Full);
        }
        // Counted: the slot keeps its pool alive, but is given away below.
        let shared = Arc::clone(shared);
        if slot.capacity() != shared.classes.capacity(class) {
            slot.forget_base();
        }
        if let Err(slot) = shared.engine.keep(class, slot) {
            return Self::discard(slot, held, Discard::Full);
        }
        if class != held {
            shared.counters(held).moved_out.bump();
            shared.counters(class).moved_in.bump();
        }
    }

    /// Frees a buffer, and counts why.
    fn discard(slot: Box<BufferSlot>, held: ClassIndex, reason: Discard) {
        let shared = slot.home();
        shared.counters(held).discards.of(reason).bump();
        if reason == Discard::AboveMax
            && shared.has_class(&slot)
            && shared.calibrator.note_discard()
        {
            let calibrator = &shared.calibrator;
            calibrator.calibrate_if_many_discarded(&shared.classes, &**shared);
        }
        slot.free();
    }

    // ---- sizes ----

    /// Counts the length of contents that did not come back the quick way.
    fn count(&self, class: ClassIndex, kind: usize) {
        let step = targets::step_of_kind(kind);
        self.engine.next_batch(class, kind, |batch| {
            if self.calibrator.note_returns(step, batch + 1) {
                self.calibrate_if_due();
            }
            self.calibrator.batch(step)
        });
    }

    fn calibrate_if_time(&self) {
        if self.calibrator.is_time() {
            self.calibrate_if_due();
        }
    }

    #[cold]
    fn calibrate_if_due(&self) {
        self.calibrator.calibrate_if_due(&self.classes, self);
    }

    /// Chooses targets now, from what came back since that was done last.
    pub(crate) fn calibrate(&self) {
        self.calibrator.calibrate(&self.classes, self);
    }

    pub(crate) fn calibrated(&self) -> Calibrated {
        self.calibrator.calibrated(&self.classes)
    }

    pub(crate) fn profile(&self) -> Profile {
        self.calibrator.profile(&self.classes)
    }

    pub(crate) fn calibrator(&self) -> &Calibrator {
        &self.calibrator
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
            if let Some(background) = &self.background {
                background.stop.stop();
            }
        }
    }

    // ---- idle ----

    /// Frees what was not needed since the last trim.
    pub(crate) fn trim(&self) -> Freed {
        self.give_to_system(self.engine.trim())
    }

    /// Frees all that is idle.
    pub(crate) fn clear(&self) -> Freed {
        self.give_to_system(self.engine.clear())
    }

    fn give_to_system(&self, freed: Freed) -> Freed {
        if self.malloc_trim && freed.weight >= MALLOC_TRIM_LEAST {
            system::malloc_trim();
        }
        freed
    }

    /// Makes `count` idle buffers for requests of `request` bytes, as far as
    /// there is room. Says how many.
    pub(crate) fn prefill(self: &Arc<Self>, request: usize, count: usize) -> usize {
        let class = self.classes.for_request(request);
        if class == self.classes.unclassed() {
            return 0;
        }
        let capacity = self.classes.capacity(class);
        self.calibrator.note_requests(class, count);
        self.reserve(class, count);
        let make = || Slot::with_capacity(capacity, Arc::clone(self));
        let made = self.engine.stock(class, count, make);
        self.counters(class).prefilled.add(made);
        made
    }

    /// Makes the buffers that are to be kept idle. To be called before any other thread
    /// has the pool.
    ///
    /// # Errors
    ///
    /// - If the heap has no room for them, or for their places in the depot.
    pub(crate) fn stock_kept_idle(self: &Arc<Self>) -> Result<(), ConfigError> {
        for class in self.classes.iter() {
            let count = self.engine.keep_idle(class);
            let capacity = self.classes.capacity(class);
            if count > 0 && !self.stock_all(class, count) {
                return Err(ConfigError::KeepIdleOutOfMemory { capacity, count });
            }
        }
        Ok(())
    }

    /// Makes `count` idle buffers of a class that has none. Returns `false` if the heap has
    /// no room for all of them.
    fn stock_all(self: &Arc<Self>, class: ClassIndex, count: usize) -> bool {
        let capacity = self.classes.capacity(class);
        let mut made = Vec::new();
        if made.try_reserve_exact(count).is_err() {
            return false;
        }
        // Before they are made: see `Store::reserve`.
        if !self.reserve(class, count) {
            return false;
        }
        while made.len() < count {
            match Slot::try_with_capacity(capacity, Arc::clone(self)) {
                Some(slot) => made.push(slot),
                None => return false,
            }
        }
        let next = || made.pop().expect("it is asked for `count` at most");
        let stocked = self.engine.stock(class, count, next);
        self.counters(class).prefilled.add(stocked);
        self.engine.levels(class).idle_items == count
    }

    // ---- what can be seen ----

    /// The class in which a buffer counts as outstanding: that of its
    /// capacity, or unclassed.
    pub(crate) fn class_of(&self, capacity: usize) -> ClassIndex {
        match self.classes.for_capacity(capacity) {
            Some(class) if capacity <= self.classes.max() => class,
            _ => self.classes.unclassed(),
        }
    }

    /// Whether a capacity is exactly a class's, or 0: then the number of buffers is enough to
    /// know their bytes.
    #[inline]
    fn is_ordinary(&self, capacity: usize) -> bool {
        if capacity == 0 {
            return true;
        }
        let class = self.classes.for_request(capacity);
        self.classes.capacities().get(class.get()) == Some(&capacity)
    }

    /// Counts what a buffer has above its class's capacity, or above 0.
    #[cold]
    fn count_above_class(&self, before: usize, after: usize) {
        let above_class = |capacity| {
            let class = self.class_of(capacity);
            let of_class = match class == self.classes.unclassed() {
                true => 0,
                false => self.classes.capacity(class),
            };
            (&self.counters(class).above_class, capacity - of_class)
        };
        let (gauge, above) = above_class(after);
        gauge.add(above);
        let (gauge, above) = above_class(before);
        gauge.subtract(above);
    }

    /// Whether a size class holds as much as a buffer.
    fn has_class(&self, slot: &BufferSlot) -> bool {
        slot.capacity() <= self.classes.max()
    }

    /// The rare counters of the class in which a buffer counts as outstanding.
    pub(crate) fn counters_of(&self, slot: &BufferSlot) -> &Counters {
        self.counters(self.class_of(slot.capacity()))
    }

    /// The rare counters of a class, or of buffers of none.
    pub(crate) fn counters(&self, class: ClassIndex) -> &Counters {
        &self.counters[class.get()]
    }

    pub(crate) fn reset_peaks(&self) {
        self.footprint.reset_peaks();
    }

    pub(crate) fn stats(&self) -> Stats {
        let classes = self.classes.iter().map(|class| {
            (
                self.classes.capacity(class),
                self.counters(class),
                self.engine.levels(class),
                self.engine.keep_idle(class),
            )
        });
        let unclassed = self.counters(self.classes.unclassed());
        let mut stats = Stats::collect(classes, unclassed);
        let total = &mut stats.total;
        // Read while buffers move, the sums may have some of them twice. The footprint and
        // what is leased are one number each, and never less than what is retained. The
        // footprint comes last: an idle buffer that is freed meanwhile was never outstanding.
        let leased = u64::try_from(self.engine.leased()).unwrap_or(u64::MAX);
        let footprint = self.footprint.bytes();
        total.retained_bytes = total.retained_bytes.min(leased).min(footprint);
        total.outstanding_bytes = footprint - total.retained_bytes;
        stats.peaks = self.footprint.peaks(total);
        stats
    }
}
