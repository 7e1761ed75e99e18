//! The state that all handles, all guards and all idle objects of one pool share.
//!
//! Owns the engine, the program's functions and the rare counters: the way of an object to a user,
//! and its way back. Knows nothing of how users hold objects.

use super::slot::{Doomed, Slot};
use super::stats::{Counters, ObjectStats};
use super::{CLASS, ObjectBox, ObjectOrigin};
use crate::background::{self, Task};
use crate::engine::{Engine, HasEngine, Here, Item, Limits};
use crate::error::{ConfigError, SpawnError};
use crate::panics;
use crate::sync::{AtomicUsize, Counter, Ordering};
use std::convert::Infallible;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

/// One in this many misses makes the depot's queues longer, if they need it.
const RESERVE_EACH: u64 = 16;

/// One in this many drops to a thread's cache looks for a trim that is due by time.
///
/// So a thread whose objects all come from its cache trims the pool, too. 1024: a look costs some 40 ns. A
/// thread that drops 100 objects a second looks as often as a trim is due by default.
pub(super) const LOOK_EACH: u64 = 1024;

pub(super) type Keep<T> = Box<dyn Fn(&T) -> bool + Send + Sync>;
pub(super) type Reset<T> = Box<dyn Fn(&mut T) + Send + Sync>;

/// The program's functions for the objects of a pool.
pub(super) struct Functions<T: 'static> {
    /// Makes an object for a get that misses.
    pub(super) init: Box<dyn Fn() -> T + Send + Sync>,
    /// Whether to keep an object that comes back.
    pub(super) keep: Option<Keep<T>>,
    /// Prepares an object that comes back for its next user.
    pub(super) reset: Option<Reset<T>>,
}

impl<T: 'static> Drop for Functions<T> {
    /// Ends the functions, with what they own. A panic there goes no further: the drop of a guard or
    /// the end of a thread may be the end of the pool.
    fn drop(&mut self) {
        // It owns nothing, so it takes no memory.
        let nothing = Box::new(|| -> T { unreachable!("the pool has ended") });
        let init = mem::replace(&mut self.init, nothing);
        let _reported = panics::contain(|| drop(init));
        let _reported = panics::contain(|| drop(self.keep.take()));
        let _reported = panics::contain(|| drop(self.reset.take()));
    }
}

/// Checked options.
pub(super) struct Config<T: 'static> {
    pub(super) functions: Functions<T>,
    pub(super) limits: Limits,
    /// How often the background thread trims the pool; `None` if it does not.
    pub(super) background: Option<Duration>,
}

/// One pool, as its handles, its guards and its idle objects see it.
pub(super) struct Shared<T: Send + 'static> {
    engine: Engine<ObjectBox<T>>,
    functions: Functions<T>,
    pub(super) doomed: Doomed<T>,
    pub(super) counters: Counters,
    /// The number of `ObjectPool` handles. The last one closes the engine.
    handles: AtomicUsize,
    background: Option<Duration>,
}

impl<T: Send + 'static> HasEngine for Shared<T> {
    type Item = ObjectBox<T>;

    fn engine(&self) -> &Engine<ObjectBox<T>> {
        &self.engine
    }

    fn after_thread_exit(&self) {
        self.drop_doomed();
    }
}

impl<T: Send + 'static> Task for Shared<T> {
    fn run(&self) {
        self.trim();
    }
}

/// Counts a panic of the function that it is made for, unless it is [forgotten](Self::none_came).
struct Panic<'a>(&'a Counter);

impl Panic<'_> {
    fn none_came(self) {
        mem::forget(self);
    }
}

impl Drop for Panic<'_> {
    fn drop(&mut self) {
        self.0.bump();
    }
}

impl<T: Send + 'static> Shared<T> {
    /// A pool with one handle.
    pub(super) fn new(config: Config<T>) -> Arc<Self> {
        Arc::new_cyclic(|this| Shared {
            engine: Engine::new(&config.limits, true, this.clone()),
            functions: config.functions,
            doomed: Doomed::new(),
            counters: Counters::default(),
            handles: AtomicUsize::new(1),
            background: config.background,
        })
    }

    /// Registers the pool with the background thread, if that is to trim the pool.
    ///
    /// # Errors
    ///
    /// - If the thread cannot be started.
    pub(super) fn trim_in_background(
        self: &Arc<Self>,
        field: &'static str,
    ) -> Result<(), ConfigError> {
        let Some(interval) = self.background else {
            return Ok(());
        };
        let joined = background::join("tierpool-trim", self, interval);
        joined.map_err(|error| ConfigError::Background {
            field,
            error: SpawnError::new(error),
        })
    }

    /// Makes the objects that are to be kept idle. Must be called before any other thread has the
    /// pool.
    ///
    /// # Errors
    ///
    /// - If the heap has no room for a list of them.
    ///
    /// # Panics
    ///
    /// - If `init` panics.
    pub(super) fn stock_kept_idle(self: &Arc<Self>) -> Result<(), ConfigError> {
        let count = self.engine.keep_idle(CLASS);
        let mut made = Made(Vec::new());
        let has_room = made.0.try_reserve_exact(count).is_ok();
        if !has_room || !self.engine.reserve(CLASS, count) {
            return Err(ConfigError::KeepIdleObjectsOutOfMemory { count });
        }
        while made.0.len() < count {
            let value = self.counting_panics(&self.functions.init);
            made.0.push(Slot::new(value, Arc::clone(self)));
        }
        // The engine calls no code of the program: all objects are there.
        let next = || made.0.pop().expect("it is called `count` times at most");
        let stocked = self.engine.stock(CLASS, count, next);
        self.counters.prefilled.add(stocked);
        self.drop_doomed();
        Ok(())
    }

    // ---- handles ----

    pub(super) fn add_handle(&self) {
        // Relaxed: the new handle comes from one that is alive, so the count is not 0, and nothing
        // else is ordered by it.
        self.handles.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends a handle; the last one drops all idle objects.
    pub(super) fn remove_handle(&self) {
        // AcqRel: the work of other handles comes before the last one closes.
        if self.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.engine.close(Item::free);
            if self.background.is_some() {
                background::leave(self);
            }
            self.drop_doomed();
        }
    }

    // ---- the way to a user ----

    /// An idle object, or a new one.
    ///
    /// # Panics
    ///
    /// - If `init` panics.
    #[inline(always)]
    pub(super) fn acquire(self: &Arc<Self>) -> (ObjectBox<T>, ObjectOrigin<T>) {
        match self.engine.get_local(CLASS) {
            Some(local_hit) => local_hit,
            None => self.acquire_slow(),
        }
    }

    /// As [`acquire`](Self::acquire), where `init` makes the new object.
    ///
    /// # Errors
    ///
    /// - The error of `init`.
    #[inline]
    pub(super) fn acquire_or<E>(
        self: &Arc<Self>,
        init: impl FnOnce() -> Result<T, E>,
    ) -> Result<(ObjectBox<T>, ObjectOrigin<T>), E> {
        match self.engine.get_local(CLASS) {
            Some(local_hit) => Ok(local_hit),
            None => self.find_or_make(init),
        }
    }

    #[cold]
    #[inline(never)]
    fn acquire_slow(self: &Arc<Self>) -> (ObjectBox<T>, ObjectOrigin<T>) {
        let init = || Ok::<T, Infallible>((self.functions.init)());
        let Ok(taken) = self.find_or_make(init);
        taken
    }

    /// Finds an object or makes one. Counts it once it is there.
    fn find_or_make<E>(
        self: &Arc<Self>,
        init: impl FnOnce() -> Result<T, E>,
    ) -> Result<(ObjectBox<T>, ObjectOrigin<T>), E> {
        let (slot, origin) = self.engine.get(CLASS);
        self.drop_doomed(); // the get may have done a piece of a trim
        let slot = match slot {
            Some(slot) => slot,
            None => {
                // Before the object is made, so that the queues lie below it on the heap: see
                // `Store::reserve`. Not at each miss, since each call makes room for eight times as
                // many.
                let misses = self.counters.misses.get();
                if misses < RESERVE_EACH || misses % RESERVE_EACH == 0 {
                    self.reserve_for_one_more();
                }
                let made = self.counting_panics(init)?;
                let slot = Slot::new(made, Arc::clone(self));
                self.counters.misses.bump();
                slot
            }
        };
        Ok((slot, origin))
    }

    /// Calls `init`. Counts its panic, if one comes.
    fn counting_panics<R>(&self, init: impl FnOnce() -> R) -> R {
        let panic = Panic(&self.counters.panics);
        let made = init();
        panic.none_came();
        made
    }

    /// Takes an object in that the pool has not made.
    pub(super) fn adopt(self: &Arc<Self>, value: T) -> (ObjectBox<T>, ObjectOrigin<T>) {
        self.counters.adopted.bump();
        let origin = self.engine.origin(CLASS).unwrap_or(ObjectOrigin::NONE);
        (Slot::new(value, Arc::clone(self)), origin)
    }

    /// Makes room in the depot for all objects, outstanding and idle, and for one more.
    fn reserve_for_one_more(&self) {
        let alive = self.counters.alive();
        let alive = alive.saturating_sub(self.engine.trimmed(CLASS));
        let alive = usize::try_from(alive).unwrap_or(usize::MAX);
        // If the heap refuses, an object may find no room when it comes back.
        let _reserved = self.engine.reserve(CLASS, alive.saturating_add(1));
    }

    // ---- the way back ----

    /// Keeps an object in the thread cache that it came from, if that is this thread's and has
    /// room. Otherwise in another place, or drops it and counts why.
    #[inline(always)]
    pub(super) fn release(mut slot: ObjectBox<T>, origin: ObjectOrigin<T>) {
        let functions = &slot.home().functions;
        if functions.keep.is_some() || functions.reset.is_some() {
            if let Some(reason) = Self::prepare(&mut slot) {
                return Self::discard(slot, reason);
            }
        }
        let slot = match Self::here(&slot, &origin) {
            Some(cache) => match cache.push::<false>(slot) {
                Ok(()) => return,
                Err(slot) => slot,
            },
            None => slot,
        };
        Self::release_slow(slot);
    }

    /// Runs the program's functions for an object that comes back. Returns why it is to be dropped,
    /// if it is.
    #[inline]
    fn prepare(slot: &mut Slot<T>) -> Option<Discard> {
        let (home, value) = slot.parts();
        let Functions { keep, reset, .. } = &home.functions;
        let kept = panics::contain(|| {
            let kept = keep.as_ref().is_none_or(|keep| keep(value));
            if let Some(reset) = reset.as_ref().filter(|_| kept) {
                reset(value);
            }
            kept
        });
        match kept {
            Some(true) => None,
            Some(false) => Some(Discard::NotKept),
            None => {
                home.counters.panics.bump();
                Some(Discard::Panicked)
            }
        }
    }

    /// The cache that is the origin of an object, if it is this thread's.
    #[inline(always)]
    fn here(_slot: &Slot<T>, origin: &ObjectOrigin<T>) -> Option<Here<ObjectBox<T>>> {
        // SAFETY: the slot keeps its pool alive, and with it the engine of this origin. The slot is
        // given to nothing but the result.
        unsafe { origin.here() }
    }

    /// For an object of another thread's cache, or of a full one, or if it is time to look for a trim.
    #[cold]
    #[inline(never)]
    fn release_slow(mut slot: ObjectBox<T>) {
        let pool = slot.home();
        let origin = pool.engine.origin(CLASS);
        let cache = origin.and_then(|origin| Self::here(&slot, &origin));
        if cache.as_ref().is_none_or(|cache| cache.sample_is_due()) {
            pool.engine.trim_if_due();
        }
        let cache = cache.filter(|cache| pool.engine.has_place(cache, slot.weight()));
        pool.drop_doomed();
        if let Some(cache) = cache {
            match cache.push::<true>(slot) {
                Ok(()) => return,
                Err(back) => slot = back,
            }
        }
        Self::release_loose(slot);
    }

    /// Keeps an object loose in the depot, or drops it if there is no room.
    fn release_loose(slot: ObjectBox<T>) {
        if !slot.home().engine.lease_loose(CLASS, slot.weight()) {
            return Self::discard(slot, Discard::Full);
        }
        // Counted once more: the slot keeps its pool alive, but is given away here.
        let pool = Arc::clone(slot.home());
        if let Err(slot) = pool.engine.put_loose(CLASS, slot) {
            Self::discard(slot, Discard::Full);
        }
        pool.drop_doomed(); // the engine may have been closed meanwhile
    }

    /// Drops an object, and counts why.
    #[cold]
    fn discard(slot: ObjectBox<T>, reason: Discard) {
        slot.home().counters.discards(reason).bump();
        slot.end();
    }

    /// Takes an object out of the pool for good.
    #[allow(clippy::boxed_local)] // a guard has it boxed
    pub(super) fn detach(slot: ObjectBox<T>) -> T {
        slot.home().counters.detached.bump();
        let Slot { value, .. } = *slot;
        value
    }

    // ---- idle ----

    /// Drops the objects that were not needed since the last trim. Returns how many.
    pub(super) fn trim(&self) -> usize {
        let freed = self.engine.trim().items;
        self.drop_doomed();
        freed
    }

    /// Drops all that is idle. Returns how many.
    pub(super) fn clear(&self) -> usize {
        let freed = self.engine.clear().items;
        self.drop_doomed();
        freed
    }

    /// Drops the objects that the engine has freed. The program's code runs here.
    pub(super) fn drop_doomed(&self) {
        self.doomed.drop_all();
    }

    // ---- counts ----

    pub(super) fn stats(&self) -> ObjectStats {
        let levels = self.engine.levels(CLASS);
        self.counters.snapshot(levels)
    }
}

/// Why a returned object was dropped instead of kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Discard {
    Full,
    NotKept,
    Panicked,
}

/// Objects that are not in the engine yet. What is left ends as any other object.
struct Made<T: Send + 'static>(Vec<ObjectBox<T>>);

impl<T: Send + 'static> Drop for Made<T> {
    fn drop(&mut self) {
        while let Some(slot) = self.0.pop() {
            slot.end();
        }
    }
}
