//! The state that all handles and all guards of one pool share.
//!
//! Owns the engine, the size classes and the rare counters. `acquire` hands a buffer to a user,
//! `release` takes it back, and `learn` learns from returns. Knows nothing of how users hold
//! buffers.

mod acquire;
mod cell;
pub(crate) mod holders;
mod learn;
mod outstanding;
mod release;
pub(crate) mod slot;
mod surplus;

use crate::background::{self, Task};
use crate::backoff::Backoff;
use crate::config::{Config, Hook, LeastBudget};
use crate::engine::{ClassIndex, Engine, Freed, HasEngine, Item, Origin};
use crate::error::ConfigError;
use crate::limit::Limit;
use crate::sizing::calibrator::Calibrator;
use crate::sizing::size_class::SizeClasses;
use crate::stats::{Counters, Footprint, Stats};
use crate::sync::{AtomicUsize, Ordering, StaticUsize};
use crate::system;
use cell::{Hold, SlotBox, Spare};
use slot::{Home, Slot};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use surplus::Surplus;

/// The fewest freed bytes for which the heap is asked to look for free pages.
const MALLOC_TRIM_LEAST: usize = 1 << 20;

/// The bytes that pools with `malloc_trim` have given to the heap, by any way, since it was last
/// asked for free pages.
///
/// One count for the process, as there is one heap: many pools that free little each are worth one
/// call together.
static GIVEN_TO_HEAP: StaticUsize = StaticUsize::new(0);

/// A buffer of a pool, with its notes.
pub(crate) type BufferSlot = Slot<Inner>;

/// Access to a pool's buffer.
pub(crate) type BufferBox = SlotBox<Inner>;

/// A hold on a pool's buffer.
pub(crate) type BufferHold = Hold<Inner>;

/// The thread cache that a pool's buffer came from.
pub(crate) type BufferOrigin = Origin<BufferBox>;

/// One pool, as its handles, its guards and its idle buffers see it.
pub(crate) struct Inner {
    engine: Engine<BufferBox>,
    classes: SizeClasses,
    calibrator: Calibrator,
    zero_on_return: bool,
    reuse_initialised: bool,
    compact_below: u8,
    malloc_trim: bool,
    /// What each budget must hold.
    least_budget: LeastBudget,
    /// Which refusals of the heap do not lead to a clear.
    clears: Backoff,
    /// One per size class, and one for buffers of no class.
    counters: Box<[Counters]>,
    /// As many as `counters`.
    surplus: Box<[Surplus]>,
    footprint: Footprint,
    spare: Spare<Inner>,
    /// The number of `Pool` handles. The last one closes the engine.
    handles: AtomicUsize,
    /// How often the background thread trims the pool; `None` if it does not.
    background: Option<Duration>,
    /// Called with the buffers and bytes that a trim or a clear freed.
    on_trim: Option<Hook>,
    /// The limit on outstanding bytes, if there is one.
    limit: Option<Limit>,
}

impl HasEngine for Inner {
    type Item = BufferBox;

    fn engine(&self) -> &Engine<BufferBox> {
        &self.engine
    }
}

impl Task for Inner {
    fn run(&self) {
        self.trim();
        self.calibrate_if_time();
    }
}

impl Home for Inner {
    // Called when a buffer is made or ends, or when its capacity is found changed: never by a local
    // hit or a local return.
    #[inline]
    fn capacity_changes(&self, before: usize, after: usize) {
        self.footprint.changes(before, after);
        if self.malloc_trim && after < before {
            // Relaxed: it decides when to ask the heap, and orders nothing.
            GIVEN_TO_HEAP.fetch_add(before - after, Ordering::Relaxed);
        }
        if !(self.is_ordinary(before) && self.is_ordinary(after)) {
            self.count_above_class(before, after);
        }
    }

    fn outstanding_changes(&self, before: usize, after: usize) {
        if let Some(limit) = &self.limit {
            limit.changes(before, after);
        }
    }

    #[inline]
    fn spare(&self) -> &Spare<Self> {
        &self.spare
    }
}

impl Inner {
    /// A pool with one handle.
    pub(crate) fn new(config: Config) -> Arc<Self> {
        Arc::new_cyclic(|this| Inner {
            engine: Engine::new(&config.limits, config.is_quick(), this.clone()),
            counters: (0..=config.classes.capacities().len())
                .map(|_| Counters::default())
                .collect(),
            surplus: (0..=config.classes.capacities().len())
                .map(|_| Surplus::default())
                .collect(),
            footprint: Footprint::default(),
            spare: Spare::new(),
            calibrator: Calibrator::new(config.calibrating, &config.classes),
            classes: config.classes,
            zero_on_return: config.zero_on_return,
            reuse_initialised: config.reuse_initialised,
            compact_below: config.compact_below,
            least_budget: config.least_budget,
            malloc_trim: config.malloc_trim,
            clears: Backoff::new(),
            handles: AtomicUsize::new(1),
            background: config.background_trim,
            on_trim: config.on_trim,
            limit: config.outstanding.map(Limit::new),
        })
    }

    /// Registers the pool with the background thread, if that is to trim the pool.
    ///
    /// # Errors
    ///
    /// - If the thread cannot be started.
    pub(crate) fn trim_in_background(self: &Arc<Self>) -> io::Result<()> {
        match self.background {
            Some(interval) => background::join("tierpool-trim", self, interval),
            None => Ok(()),
        }
    }

    pub(crate) fn zero_on_return(&self) -> bool {
        self.zero_on_return
    }

    /// Whether `fill` rooms may show bytes that were written to them before.
    pub(crate) fn reuse_initialised(&self) -> bool {
        self.reuse_initialised
    }

    /// Contents are worth a smaller buffer if they fill less than this many percent of the
    /// capacity.
    pub(crate) fn compact_below(&self) -> u8 {
        self.compact_below
    }

    pub(crate) fn classes(&self) -> &SizeClasses {
        &self.classes
    }

    // ---- handles ----

    pub(crate) fn add_handle(&self) {
        // Relaxed: the new handle comes from one that is alive, so the count is not 0, and nothing
        // else is ordered by it.
        self.handles.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends a handle; the last one frees all that the pool retains. If a thread trims the pool, the
    /// pages go back to the system, as after a trim.
    pub(crate) fn remove_handle(&self) {
        // AcqRel: the work of other handles comes before the last one closes.
        if self.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            let releases = self.background.is_some();
            self.engine.close(|mut slot: BufferBox| {
                if releases {
                    let capacity = slot.capacity();
                    slot.give_back_pages(0..capacity);
                }
                slot.free();
            });
            if releases {
                background::leave(self);
            }
            self.ask_heap();
        }
    }

    // ---- idle ----

    /// Frees the buffers that were not needed since the last trim.
    pub(crate) fn trim(&self) -> Freed {
        let freed = self.engine.trim();
        self.ask_heap();
        self.call_hook(freed);
        freed
    }

    /// Frees all that is idle.
    pub(crate) fn clear(&self) -> Freed {
        let freed = self.clear_within_get();
        self.call_hook(freed);
        freed
    }

    /// As [`clear`](Self::clear), without the program's hook, which may take long.
    fn clear_within_get(&self) -> Freed {
        let freed = self.engine.clear();
        self.ask_heap();
        freed
    }

    /// Sets the budget, and frees the idle buffers above it.
    ///
    /// # Errors
    ///
    /// - If the budget is too small for the size classes or for the buffers that are kept idle.
    pub(crate) fn set_budget(&self, bytes: usize) -> Result<Freed, ConfigError> {
        self.least_budget.check(bytes)?;
        let freed = self.engine.set_limit(bytes);
        self.ask_heap();
        self.call_hook(freed);
        Ok(freed)
    }

    /// Asks the heap for its free pages, if the pool does that and enough has left the pools.
    fn ask_heap(&self) {
        // Relaxed, both: see `capacity_changes`. The exchange lets one of several threads ask.
        let is_enough = self.malloc_trim
            && GIVEN_TO_HEAP.load(Ordering::Relaxed) >= MALLOC_TRIM_LEAST
            && GIVEN_TO_HEAP.swap(0, Ordering::Relaxed) >= MALLOC_TRIM_LEAST;
        if is_enough {
            system::malloc_trim();
        }
    }

    /// The program's own code: no lock is held here, and no cache is claimed.
    fn call_hook(&self, freed: Freed) {
        if let Some(hook) = self.on_trim.as_ref().filter(|_| freed.items > 0) {
            hook.call(freed);
        }
    }

    /// Makes `count` idle buffers for requests of `request` bytes, as far as there is room. Returns
    /// how many.
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

    /// Makes the buffers that are to be kept idle. Must be called before any other thread has the
    /// pool.
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
        // Before the buffers are made: see `Store::reserve`.
        if !self.reserve(class, count) {
            return false;
        }
        while made.len() < count {
            match Slot::try_with_capacity(capacity, Arc::clone(self)) {
                Some(slot) => made.push(slot),
                None => return false,
            }
        }
        let next = || made.pop().expect("it is called `count` times at most");
        let stocked = self.engine.stock(class, count, next);
        self.counters(class).prefilled.add(stocked);
        self.engine.levels(class).idle_items == count
    }

    // ---- counts ----

    /// The class in which a buffer counts as outstanding: that of its
    /// capacity, or unclassed.
    #[inline]
    pub(crate) fn class_of(&self, capacity: usize) -> ClassIndex {
        match self.classes.of_capacity(capacity) {
            Some(class) => class,
            None => self.class_of_unusual(capacity),
        }
    }

    #[cold]
    fn class_of_unusual(&self, capacity: usize) -> ClassIndex {
        match self.classes.for_capacity(capacity) {
            Some(class) if capacity <= self.classes.max() => class,
            _ => self.classes.unclassed(),
        }
    }

    /// Whether a capacity is exactly a class's, or 0. For such buffers, their bytes follow from
    /// their number.
    #[inline]
    fn is_ordinary(&self, capacity: usize) -> bool {
        capacity == 0 || self.classes.of_capacity(capacity).is_some()
    }

    /// Counts the bytes of a buffer above its class's capacity, or above 0.
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

    /// The rare counters of the class in which a buffer counts as outstanding.
    pub(crate) fn counters_of(&self, slot: &BufferSlot) -> &Counters {
        self.counters(self.class_of(slot.capacity()))
    }

    /// The rare counters of a class, or of buffers of no class.
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
        // If buffers move meanwhile, the sums may count some of them twice. The footprint and the
        // leased bytes are one number each, and never below the retained bytes. The footprint is
        // read last: an idle buffer that is freed meanwhile was never outstanding.
        let leased = u64::try_from(self.engine.leased()).unwrap_or(u64::MAX);
        let footprint = self.footprint.bytes();
        total.retained_bytes = total.retained_bytes.min(leased).min(footprint);
        total.outstanding_bytes = footprint - total.retained_bytes;
        stats.peaks = self.footprint.peaks(total);
        stats.calibrations = self.calibrator.calibrations() as u64;
        stats.budget_bytes = self.engine.limit() as u64;
        if let Some(limit) = &self.limit {
            stats.limit_bytes = limit.bytes() as u64;
            stats.waits = limit.waits();
            stats.refusals = limit.refusals();
        }
        for notes in self.engine.notes() {
            let (capacity, used) = notes.use_of_capacity();
            stats.usage.capacity_bytes += capacity;
            stats.usage.used_bytes += used;
        }
        stats
    }
}
