//! Takes and keeps items: the one place that decides between the levels.
//!
//! Owns the thread caches and the depots. Knows nothing of bytes, of size
//! classes beyond their index, or of the heap: it serves what it holds, and
//! the caller makes and frees items.
//!
//! ```text
//! take:  this thread's cache -> depot -> None, and the caller makes one
//! keep:  this thread's cache -> depot -> Err, and the caller frees it
//! ```

mod barrier;
mod cache;
mod depot;
mod local;

pub(crate) use depot::MAGAZINE_ROUNDS;

use crate::sync::{AtomicBool, Ordering, fence};
use cache::Cache;
use depot::Depot;
use local::{EngineId, ThreadExit, Token};
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// What the engine must know of an item.
pub(crate) trait Item: Send + 'static {
    /// What keeping the item costs, in the unit of the caller's limits.
    ///
    /// Does not change while the engine holds the item.
    fn weight(&self) -> usize;
}

/// Index of a size class in an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClassIndex(pub(crate) u8);

impl ClassIndex {
    #[inline(always)]
    pub(crate) fn get(self) -> usize {
        usize::from(self.0)
    }
}

/// How much of one class each level may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClassLimits {
    /// Items in one thread's cache.
    pub(crate) cache_rounds: usize,
    /// Items that move at once between cache and depot, at most [`MAGAZINE_ROUNDS`].
    pub(crate) magazine_rounds: usize,
    /// Magazines in the depot.
    pub(crate) depot_magazines: usize,
    /// Weight of the loose items in the depot.
    pub(crate) depot_loose_weight: usize,
    /// Weight of an ordinary item. Any other is kept loose in the depot, so
    /// that the thread caches need not look at what they hand out.
    pub(crate) weight: usize,
}

/// What the levels hold of one class and what they have served.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Levels {
    pub(crate) local_hits: u64,
    pub(crate) depot_hits: u64,
    pub(crate) returns: u64,
    pub(crate) idle_items: usize,
    pub(crate) idle_weight: usize,
}

/// One thread's caches, one per class. Outlives the thread; another one inherits it.
struct ThreadCaches<T> {
    /// Whether a thread has it now. Changes under the lock of [`Engine::threads`].
    in_use: bool,
    /// Not in the vector itself, which moves what it holds.
    caches: Arc<[Cache<T>]>,
}

/// Thread caches over one depot per class.
pub(crate) struct Engine<T: Item> {
    id: EngineId,
    /// What [`take_local`](Self::take_local) recalls: `id`, or what no memo holds.
    quick: EngineId,
    /// As many as there were threads at once. None is removed while the engine
    /// lives. Locked when a thread first uses the engine, when it ends, for
    /// `Stats`, and for `close`; never for a get or a drop beside these.
    threads: Mutex<Vec<ThreadCaches<T>>>,
    depots: Box<[Depot<T>]>,
    closed: AtomicBool,
    /// The way back here, for threads to tell of their exit.
    home: Arc<dyn ThreadExit>,
}

/// The thread cache that an item may come back to, and whose it was.
// The order of the fields, here and in the guard, keeps the two addresses of a
// guard apart: next to each other, the compiler writes them through a vector
// register, which costs more than it saves (`docs/design.md`).
#[repr(C)]
pub(crate) struct Origin<T> {
    owner: Token,
    /// Dangling in [`Origin::NONE`] only.
    cache: NonNull<Cache<T>>,
}

// SAFETY: what follows the address demands that the calling thread is the one
// that `owner` names, on whichever thread the origin is.
unsafe impl<T: Send> Send for Origin<T> {}
// SAFETY: as above; nothing here changes.
unsafe impl<T: Send> Sync for Origin<T> {}

impl<T: Item> Origin<T> {
    /// No thread's cache.
    pub(crate) const NONE: Self = Origin {
        cache: NonNull::dangling(),
        owner: Token::NOBODY,
    };

    #[inline(always)]
    fn new(cache: &Cache<T>, owner: Token) -> Self {
        Origin {
            cache: NonNull::from(cache),
            owner,
        }
    }

    /// Whether it is [`Origin::NONE`].
    #[inline(always)]
    pub(crate) fn is_none(&self) -> bool {
        self.owner == Token::NOBODY
    }

    /// Whether it is the calling thread's cache.
    #[inline(always)]
    pub(crate) fn is_local(&self) -> bool {
        local::is_this_thread(self.owner)
    }

    /// Weight of the items that it takes.
    ///
    /// # Safety
    ///
    /// - [`is_local`](Self::is_local) on the calling thread.
    /// - The engine is alive.
    #[inline(always)]
    pub(crate) unsafe fn unit(&self) -> usize {
        // SAFETY: it is local, so not `NONE`, and the caches live as long as
        // the engine, which is alive.
        unsafe { self.cache.as_ref() }.unit()
    }

    /// Keeps an item, or hands it back if there is no room for it here.
    ///
    /// The item's weight must be [`unit`](Self::unit). Once this has kept it,
    /// another thread may close the engine and end it.
    ///
    /// # Safety
    ///
    /// - As for [`unit`](Self::unit); the item may be what keeps the engine alive.
    #[inline(always)]
    pub(crate) unsafe fn push(&self, item: T) -> Result<(), T> {
        // SAFETY: as in `unit`, at the call.
        unsafe { Cache::push(self.cache.as_ptr(), self.owner, item) }
    }
}

/// A type that contains an engine and is shared as an `Arc`.
pub(crate) trait HasEngine: Send + Sync + 'static {
    type Item: Item;
    fn engine(&self) -> &Engine<Self::Item>;
}

/// What a thread keeps of an engine. Small, since it may keep it for some time
/// after the engine is gone.
struct Home<H>(Weak<H>);

impl<H: HasEngine> ThreadExit for Home<H> {
    fn thread_exit(&self, me: Token, caches: *const ()) {
        if let Some(home) = self.0.upgrade() {
            home.engine().thread_exit(me, caches);
        }
    }
}

impl<T: Item> Engine<T> {
    /// An empty engine inside `home`.
    ///
    /// Unless `quick`, [`take_local`](Self::take_local) finds nothing, and all
    /// goes through [`take`](Self::take).
    pub(crate) fn new<H>(limits: &[ClassLimits], quick: bool, home: Weak<H>) -> Self
    where
        H: HasEngine<Item = T>,
    {
        barrier::prepare();
        let id = EngineId::next();
        Engine {
            id,
            quick: if quick { id } else { EngineId::NOBODY },
            threads: Mutex::default(),
            depots: limits.iter().copied().map(Depot::new).collect(),
            closed: AtomicBool::new(false),
            home: Arc::new(Home(home)),
        }
    }

    // ---- take ----

    /// Takes an item from this thread's cache, if the thread used this engine
    /// lately, and says where it came from.
    #[inline(always)]
    pub(crate) fn take_local(&self, class: ClassIndex) -> Option<(T, Origin<T>)> {
        let origin = self.recall(self.quick, class)?;
        // SAFETY: `recall` found it for this thread, and `&self` keeps it alive.
        let item = unsafe { origin.cache.as_ref() }.pop(origin.owner)?;
        Some((item, origin))
    }

    /// This thread's cache, if the thread used this engine lately.
    pub(crate) fn local(&self, class: ClassIndex) -> Option<Origin<T>> {
        self.recall(self.id, class)
    }

    /// As [`local`](Self::local), if `id` is this engine's; `None` otherwise.
    #[inline(always)]
    fn recall(&self, id: EngineId, class: ClassIndex) -> Option<Origin<T>> {
        let (owner, caches) = local::recall(id)?;
        // SAFETY: `attach` remembered the address under this engine's id. The
        // class is one that the caller knows, hence one of this engine's.
        let cache = unsafe { self.cache_at(caches, class) };
        Some(Origin::new(cache, owner))
    }

    /// Takes an item from this thread's cache or from the depot. Says also to
    /// which cache it, or the one that the caller must make, may come back.
    #[cold]
    #[inline(never)]
    pub(crate) fn take(&self, class: ClassIndex) -> (Option<T>, Origin<T>) {
        let depot = &self.depots[class.get()];
        let Some((me, cache)) = self.attach(class) else {
            return (self.take_loose(depot), Origin::NONE);
        };
        let origin = Origin::new(cache, me);
        if let Some(item) = cache.pop(me) {
            return (Some(item), origin);
        }
        if let Some(mut magazine) = depot.pop() {
            let item = magazine.pop();
            // The cache was empty, so the rest finds room, unless it was
            // closed meanwhile: then nothing may be kept.
            cache.refill(me, &mut magazine);
            cache.depot_hits.add_by_owner(1);
            return (item, origin);
        }
        (self.take_loose(depot), origin)
    }

    fn take_loose(&self, depot: &Depot<T>) -> Option<T> {
        let item = depot.pop_loose()?;
        depot.hits.bump();
        Some(item)
    }

    // ---- keep ----

    /// Keeps an item in this thread's cache, after flushing a magazine from there
    /// to the depot if it was full; or loose in the depot, if the item or the
    /// thread is not one for a cache. Hands it back if the levels are at their
    /// limits, or the engine is closed.
    #[cold]
    #[inline(never)]
    pub(crate) fn keep(&self, class: ClassIndex, item: T) -> Result<(), T> {
        // Relaxed: a hint that saves work; `join` and `settle` make sure.
        if self.closed.load(Ordering::Relaxed) {
            return Err(item);
        }
        let depot = &self.depots[class.get()];
        if item.weight() == depot.limits().weight {
            if let Some((me, cache)) = self.attach(class) {
                return self.keep_cached(me, cache, depot, item);
            }
        }
        depot.push_loose(item)?;
        depot.returns.bump();
        self.settle();
        Ok(())
    }

    fn keep_cached(&self, me: Token, cache: &Cache<T>, depot: &Depot<T>, item: T) -> Result<(), T> {
        // SAFETY: `attach` gave this thread's token; and `cache` outlives the
        // call, here and below, since the caller keeps the engine alive.
        let item = match unsafe { Cache::push(cache, me, item) } {
            Ok(()) => return Ok(()),
            Err(item) => item,
        };
        // Looked at first: moving a magazine out and in again is not free.
        if depot.is_full() || !self.flush(me, cache, depot) {
            return Err(item);
        }
        // SAFETY: as above.
        unsafe { Cache::push(cache, me, item) }
    }

    /// Moves a magazine from this thread's cache to the depot. Says whether
    /// there was one and room for it.
    fn flush(&self, me: Token, cache: &Cache<T>, depot: &Depot<T>) -> bool {
        let Some(magazine) = cache.flush(me, depot.limits().magazine_rounds) else {
            return false;
        };
        match depot.push(magazine) {
            Ok(()) => {
                self.settle();
                true
            }
            Err(mut magazine) => {
                // It fits where it came from, unless the cache was closed
                // meanwhile: then nothing may be kept.
                cache.refill(me, &mut magazine);
                false
            }
        }
    }

    /// After a push to a depot: makes sure that nothing stays in a closed engine.
    fn settle(&self) {
        // SeqCst: pairs with the fence in `close`. Either that one comes
        // later, and `close` finds in the depot what was pushed, or this one
        // does, and we find the engine closed.
        fence(Ordering::SeqCst);
        if self.closed.load(Ordering::Relaxed) {
            self.empty_depots();
        }
    }

    // ---- a thread's cache ----

    /// Finds or makes this thread's caches, remembers them, and returns the one of `class`.
    ///
    /// `None` once the thread has let go of its caches for good, or the engine
    /// is closed.
    fn attach(&self, class: ClassIndex) -> Option<(Token, &Cache<T>)> {
        let me = Token::of_this_thread()?;
        let (me, caches) = match local::find(self.id) {
            Some(found) => found,
            None => (me, self.join(me)?),
        };
        local::remember(self.id, caches);
        // SAFETY: the address is one that `join` gave out for this engine.
        Some((me, unsafe { self.cache_at(caches, class) }))
    }

    /// Gives this thread caches: those of a thread that has ended, or new ones.
    fn join(&self, me: Token) -> Option<*const ()> {
        let mut threads = self.threads();
        // Relaxed: `close` sets it before it takes the lock that we hold.
        // Either we see it here, or `close` sees these caches in use.
        if self.closed.load(Ordering::Relaxed) {
            return None;
        }
        let free = threads.iter_mut().find(|thread| !thread.in_use);
        let caches = match free {
            Some(thread) => {
                thread.in_use = true;
                Arc::clone(&thread.caches)
            }
            None => {
                let limits = self.depots.iter().map(Depot::limits);
                let caches: Arc<[_]> = limits.map(Cache::new).collect();
                threads.push(ThreadCaches {
                    in_use: true,
                    caches: Arc::clone(&caches),
                });
                caches
            }
        };
        drop(threads);
        for cache in &*caches {
            cache.acquire(me);
        }
        let address = caches.as_ptr().cast::<()>();
        local::attach(me, self.id, Arc::downgrade(&self.home), address);
        Some(address)
    }

    /// Moves what this thread cached to the depot, as far as that has room,
    /// and leaves the rest to the next thread that inherits the caches.
    fn thread_exit(&self, me: Token, caches: *const ()) {
        for (class, depot) in (0..).map(ClassIndex).zip(&self.depots) {
            // SAFETY: the address is one that `join` gave out for this engine.
            let cache = unsafe { self.cache_at(caches, class) };
            while self.flush(me, cache, depot) {}
            // What fills no magazine, or finds the depot full of them, goes
            // loose. Not as a short magazine: the depot has a limit on their
            // number, and many short threads would use it up.
            while let Some(mut rest) = cache.flush(me, cache.len().min(MAGAZINE_ROUNDS)) {
                while let Some(item) = rest.pop() {
                    if let Err(item) = depot.push_loose(item) {
                        rest.push(item);
                        break;
                    }
                }
                self.settle();
                if rest.len() > 0 {
                    // There was room for it a moment ago, unless the cache was
                    // closed meanwhile: then nothing may be kept.
                    cache.refill(me, &mut rest);
                    break;
                }
            }
            cache.release(me);
        }
        for thread in &mut *self.threads() {
            if ptr::addr_eq(thread.caches.as_ptr(), caches) {
                thread.in_use = false;
            }
        }
    }

    fn threads(&self) -> MutexGuard<'_, Vec<ThreadCaches<T>>> {
        // Nothing panics while it is held but for want of memory, and then the
        // list is whole.
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Safety
    ///
    /// - [`join`](Self::join) of this engine returned `caches`.
    /// - `class` is one of this engine's classes.
    #[inline(always)]
    unsafe fn cache_at(&self, caches: *const (), class: ClassIndex) -> &Cache<T> {
        // SAFETY: at the address, there is one cache for each class, and the
        // caches live as long as `self`, since none is removed.
        unsafe { &*caches.cast::<Cache<T>>().add(class.get()) }
    }

    // ---- close ----

    /// Frees everything that is idle, in all threads' caches, and keeps nothing from now on.
    ///
    /// # Safety
    ///
    /// - Called once in the engine's life.
    pub(crate) unsafe fn close(&self) {
        // Relaxed: the lock below, and the fence, order it.
        self.closed.store(true, Ordering::Relaxed);
        let threads: Vec<Arc<[Cache<T>]>> = self
            .threads()
            .iter()
            .map(|thread| Arc::clone(&thread.caches))
            .collect();
        let caches = || threads.iter().flat_map(|caches| &**caches);
        for cache in caches() {
            cache.close();
        }
        // One barrier for all of them. If the system refuses it, what they
        // hold is leaked: to look would be a race.
        if barrier::heavy() {
            for cache in caches() {
                // SAFETY: closed above, before the barrier; and nobody else
                // drains, since `close` is called once.
                unsafe { cache.drain() };
            }
        }
        // SeqCst: pairs with the fence in `settle`. Here the store comes from the
        // beginning, and the loads are those of the depots' queues.
        fence(Ordering::SeqCst);
        self.empty_depots();
    }

    fn empty_depots(&self) {
        for depot in &self.depots {
            while depot.pop().is_some() {}
            while depot.pop_loose().is_some() {}
        }
    }

    // ---- what can be seen ----

    /// Sums up one class over all levels. Exact while no thread uses the engine.
    pub(crate) fn levels(&self, class: ClassIndex) -> Levels {
        let depot = &self.depots[class.get()];
        let (idle_items, idle_weight) = depot.idle();
        let mut sum = Levels {
            local_hits: 0,
            depot_hits: depot.hits.get(),
            returns: depot.returns.get(),
            idle_items,
            idle_weight,
        };
        for thread in &*self.threads() {
            let cache = thread.caches[class.get()].levels();
            sum.local_hits += cache.local_hits;
            sum.depot_hits += cache.depot_hits;
            sum.returns += cache.returns;
            sum.idle_items += cache.idle_items;
            sum.idle_weight += cache.idle_weight;
        }
        // Never less than was shown before: a cache that is at work shows too
        // few, and a count must not fall.
        sum.local_hits = depot.local_hits_shown.raise_to(sum.local_hits);
        sum
    }
}
