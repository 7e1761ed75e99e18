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
pub(crate) use local::EngineId;

use crate::sync::{AtomicBool, AtomicUsize, Ordering, full_fence};
use cache::Cache;
use depot::{Depot, Magazine};
use local::{ThreadExit, Token};
use std::sync::{Mutex, PoisonError, Weak};
use thread_local::ThreadLocal;

/// What the engine must know of an item.
pub(crate) trait Item: Send + 'static {
    /// What keeping the item costs, in the unit of the caller's limits.
    ///
    /// The same at every call between `keep` and the next `take`.
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
}

/// Why an item could not be kept. The caller has it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// This thread's cache and the depot are at their limits.
    Full,
    /// This thread is being torn down, or the one before it on the same
    /// cache still is: there is no cache to keep it in.
    NoCache,
    /// The engine is closed.
    Closed,
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

/// One thread's caches, one per class. Outlives the thread; the next one inherits it.
struct ThreadCache<T> {
    /// 0, or the token of the thread whose exit will free the caches.
    owner: AtomicUsize,
    caches: Box<[Cache<T>]>,
}

/// Thread caches over one depot per class.
pub(crate) struct Engine<T: Item> {
    id: EngineId,
    limits: Box<[ClassLimits]>,
    threads: ThreadLocal<ThreadCache<T>>,
    depots: Box<[Depot<T>]>,
    closed: AtomicBool,
    /// Itself, for threads to tell of their exit.
    this: Weak<dyn ThreadExit>,
}

/// A type that contains an engine and is shared as an `Arc`.
pub(crate) trait HasEngine: Send + Sync + 'static {
    type Item: Item;
    fn engine(&self) -> &Engine<Self::Item>;
}

impl<H: HasEngine> ThreadExit for H {
    fn thread_exit(&self, caches: *const ()) {
        self.engine().thread_exit(caches);
    }
}

impl<T: Item> Engine<T> {
    /// An empty engine inside `home`.
    pub(crate) fn new<H>(limits: Box<[ClassLimits]>, home: Weak<H>) -> Self
    where
        H: HasEngine<Item = T>,
    {
        barrier::prepare();
        Engine {
            id: next_id(),
            threads: ThreadLocal::new(),
            depots: limits
                .iter()
                .map(|limits| Depot::new(limits.depot_magazines))
                .collect(),
            limits,
            closed: AtomicBool::new(false),
            this: home,
        }
    }

    #[inline(always)]
    pub(crate) fn id(&self) -> EngineId {
        self.id
    }

    // ---- take ----

    /// Takes an item from this thread's cache, if the thread used this engine last.
    #[inline(always)]
    pub(crate) fn take_local(&self, class: ClassIndex) -> Option<T> {
        let (me, caches) = local::recall(self.id)?;
        // SAFETY: `attach` remembered the address under this engine's id, and
        // the caches live as long as the engine, which `&self` keeps alive.
        // `class` is one of this engine's, as the caller's size classes are.
        unsafe { cache_at::<T>(caches, class) }.pop(me)
    }

    /// Takes an item from this thread's cache or from the depot.
    #[cold]
    #[inline(never)]
    pub(crate) fn take(&self, class: ClassIndex) -> Option<T> {
        // A thread that is being torn down does without: what it left in a
        // magazine that it took from the depot would have no place to go.
        let cache = self.attach(class)?;
        let me = Token::current();
        if let Some(item) = cache.pop(me) {
            return Some(item);
        }
        let depot = &self.depots[class.get()];
        let mut magazine = depot.pop()?;
        let item = magazine.pop();
        let left = cache.load(me, magazine);
        // The cache was empty, so all found room, unless it was closed
        // meanwhile: then nothing may be kept.
        drop(left);
        depot.hits.bump();
        item
    }

    // ---- keep ----

    /// Keeps an item in this thread's cache, if the thread used `engine` last
    /// and there is room.
    ///
    /// # Safety
    ///
    /// - The engine with this id is alive, and its items are of type `T`.
    /// - `class` is one of its classes.
    #[inline(always)]
    pub(crate) unsafe fn keep_local(engine: EngineId, class: ClassIndex, item: T) -> Result<(), T> {
        let Some((me, caches)) = local::recall(engine) else {
            return Err(item);
        };
        // SAFETY: `attach` remembered the address under this id, and the
        // caches live as long as the engine, which is alive, as the caller
        // promises, like the class. Once `push` has made the item visible to
        // a closing thread, the engine may end; nothing is touched after that.
        unsafe { cache_at::<T>(caches, class) }.push(me, item)
    }

    /// Keeps an item in this thread's cache; if that is full, moves a magazine
    /// to the depot first.
    #[cold]
    #[inline(never)]
    pub(crate) fn keep(&self, class: ClassIndex, item: T) -> Result<(), (T, Refusal)> {
        // Relaxed: a hint that saves work; `attach` and `hand_over` make sure.
        if self.closed.load(Ordering::Relaxed) {
            return Err((item, Refusal::Closed));
        }
        let Some(cache) = self.attach(class) else {
            return Err((item, Refusal::NoCache));
        };
        let me = Token::current();
        let item = match cache.push(me, item) {
            Ok(()) => return Ok(()),
            Err(item) => item,
        };
        let depot = &self.depots[class.get()];
        // Looked at first: moving a magazine out and in again is not free.
        if depot.is_full() {
            return Err((item, Refusal::Full));
        }
        let magazine = cache.unload(me, self.limits[class.get()].magazine_rounds);
        if let Err(magazine) = self.hand_over(depot, magazine) {
            // It fits where it came from, unless the cache was closed
            // meanwhile: then nothing may be kept.
            drop(cache.load(me, magazine));
            return Err((item, Refusal::Full));
        }
        cache.push(me, item).map_err(|item| (item, Refusal::Closed))
    }

    /// Moves a magazine to the depot, or hands it back if there is no room.
    fn hand_over(&self, depot: &Depot<T>, magazine: Magazine<T>) -> Result<(), Magazine<T>> {
        if magazine.is_empty() {
            return Ok(());
        }
        depot.push(magazine)?;
        // SeqCst: pairs with the fence in `close`. Either that one comes
        // later, and `close` finds the magazine in the depot, or this one
        // does, and we find the engine closed.
        full_fence(Ordering::SeqCst);
        if self.closed.load(Ordering::Relaxed) {
            self.empty_depots();
        }
        Ok(())
    }

    // ---- a thread's cache ----

    /// Finds or makes this thread's caches, remembers them, and returns the one of `class`.
    ///
    /// `None` while the thread is being torn down, while the cache that it
    /// would inherit is not free yet, and once the engine is closed.
    fn attach(&self, class: ClassIndex) -> Option<&Cache<T>> {
        if local::torn_down() {
            return None;
        }
        let me = Token::current();
        // Before `at_exit`: destructors of thread-locals run in reverse, and
        // the one of the `thread_local` crate must outlive ours, because it
        // panics when it is asked for a cache after its own.
        let thread = self.threads.get_or(|| self.new_thread_cache());
        let caches = thread.caches.as_ptr().cast::<()>();
        // Relaxed: only this thread stores its own token.
        if thread.owner.load(Ordering::Relaxed) != me.get() {
            // Acquire: pairs with the Release in `thread_exit`. Relaxed: on
            // failure nothing is touched.
            thread
                .owner
                .compare_exchange(0, me.get(), Ordering::Acquire, Ordering::Relaxed)
                .ok()?;
            if !local::at_exit(self.this.clone(), caches) {
                // Relaxed: nothing was touched.
                thread.owner.store(0, Ordering::Relaxed);
                return None;
            }
            for cache in &thread.caches {
                cache.acquire(me);
            }
            // SeqCst: pairs with the fence in `close`. Either that one comes
            // later, and `close` finds these caches, or this one does, and we
            // find the engine closed.
            full_fence(Ordering::SeqCst);
        }
        if self.closed.load(Ordering::Relaxed) {
            for cache in &thread.caches {
                cache.close();
            }
            return None;
        }
        local::remember(self.id, caches);
        Some(&thread.caches[class.get()])
    }

    fn new_thread_cache(&self) -> ThreadCache<T> {
        ThreadCache {
            owner: AtomicUsize::new(0),
            caches: self.limits.iter().copied().map(Cache::new).collect(),
        }
    }

    /// Moves what this thread cached to the depot, as far as that has room,
    /// and leaves the rest to the next thread that inherits the caches.
    fn thread_exit(&self, caches: *const ()) {
        let me = Token::current();
        let Some(thread) = self
            .threads
            .iter()
            .find(|thread| thread.caches.as_ptr().cast::<()>() == caches)
        else {
            return;
        };
        for ((cache, depot), limits) in thread.caches.iter().zip(&self.depots).zip(&self.limits) {
            loop {
                let magazine = cache.unload(me, limits.magazine_rounds);
                if magazine.is_empty() {
                    break;
                }
                if let Err(magazine) = self.hand_over(depot, magazine) {
                    // It fits where it came from, unless the cache was closed
                    // meanwhile: then nothing may be kept.
                    drop(cache.load(me, magazine));
                    break;
                }
            }
            cache.release(me);
        }
        // Release: publishes the state of the caches; pairs with the Acquire in `attach`.
        thread.owner.store(0, Ordering::Release);
    }

    // ---- close ----

    /// Frees everything that is idle, in all threads' caches, and keeps nothing from now on.
    ///
    /// # Safety
    ///
    /// - Called once in the engine's life.
    pub(crate) unsafe fn close(&self) {
        // Relaxed: the fence orders it.
        self.closed.store(true, Ordering::Relaxed);
        // SeqCst: pairs with the fences in `hand_over` and `attach`.
        full_fence(Ordering::SeqCst);
        let caches: Vec<&Cache<T>> = self
            .threads
            .iter()
            .flat_map(|thread| &*thread.caches)
            .collect();
        for cache in &caches {
            cache.close();
        }
        barrier::heavy(); // one for all of them
        for cache in caches {
            // SAFETY: closed above, before the barrier; and nobody else
            // drains, since `close` is called once.
            unsafe { cache.drain(drop) };
        }
        self.empty_depots();
    }

    fn empty_depots(&self) {
        for depot in &self.depots {
            while let Some(magazine) = depot.pop() {
                drop(magazine);
            }
        }
    }

    // ---- what can be seen ----

    /// Sums up one class over all levels. Exact while no thread uses the engine.
    pub(crate) fn levels(&self, class: ClassIndex) -> Levels {
        let depot = &self.depots[class.get()];
        let (idle_items, idle_weight) = depot.idle();
        let mut sum = Levels {
            depot_hits: depot.hits.get(),
            idle_items,
            idle_weight,
            ..Levels::default()
        };
        for thread in &self.threads {
            let cache = &thread.caches[class.get()];
            let (items, weight) = cache.idle();
            sum.local_hits += cache.hits.get();
            sum.returns += cache.returns.get();
            sum.idle_items += items;
            sum.idle_weight += weight;
        }
        sum
    }
}

/// # Safety
///
/// - `caches` is the address of a `ThreadCache<T>`'s caches that are alive.
/// - `class` is one of that engine's classes.
#[inline(always)]
unsafe fn cache_at<'a, T>(caches: *const (), class: ClassIndex) -> &'a Cache<T> {
    // SAFETY: as the caller promises.
    unsafe { &*caches.cast::<Cache<T>>().add(class.get()) }
}

fn next_id() -> EngineId {
    // A mutex: not every machine has 64-bit atomics, and an id must never
    // come again, since a memo may outlive the engine that it names.
    static LAST: Mutex<u64> = Mutex::new(0);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    *last += 1;
    EngineId(*last)
}
