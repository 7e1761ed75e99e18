//! Acquires and releases items: the thread caches, the depots and the budget of one pool.
//!
//! Serves the items that it holds. The caller makes and frees them. Knows nothing of bytes, of the
//! heap, or of size classes beyond their index.
//!
//! ```text
//! get:  this thread's cache -> depot -> None, and the caller makes one
//! put:  this thread's cache -> depot -> Err, and the caller frees it
//! ```
//!
//! Each level leases room for its items: per item for loose items, per magazine in the depot, and
//! for its whole room in a thread cache. An item that moves takes its lease along.
//!
//! The files from top to bottom:
//!
//! - `get` and `put` decide between the levels.
//! - `trim` and `close` empty them.
//! - `reclaim` moves items from one thread's cache to where another thread finds them.
//! - `lease` leases room from the accounts.
//! - `threads`, `origin`, `cache`, `rounds` and `sampler` are for one thread's items.
//! - `depot`, `reclaims`, `store`, `ring` and `magazine` are for the shared items.
//! - `account`, `local`, `barrier` and `item` are for all of the above.

mod account;
mod barrier;
mod cache;
mod close;
mod depot;
mod get;
mod item;
mod lease;
mod local;
mod magazine;
mod origin;
mod put;
mod reclaim;
mod reclaims;
pub(crate) mod ring;
mod rounds;
mod sampler;
mod store;
mod threads;
mod trim;

pub(crate) use account::UNLIMITED;
pub(crate) use item::{CACHE_ROUNDS, ClassIndex, ClassLimits, Item, Levels, Limits};
pub(crate) use origin::{Here, Mark, Origin};
pub(crate) use trim::Freed;

use crate::sync::{AtomicBool, Ordering, fence};
use account::Account;
use depot::Depot;
use local::{ThreadExit, Token};
use std::sync::{Arc, Weak};
use threads::{Local, ThreadCaches, Threads};
use trim::Trims;

/// Thread caches over one depot per class.
pub(crate) struct Engine<T: Item> {
    threads: Threads<T>,
    depots: Box<[Depot<T>]>,
    /// The account from which all levels lease.
    account: Account,
    thread_weight: usize,
    trims: Trims<T>,
    closed: AtomicBool,
    /// The reference by which a thread that ends finds this engine.
    home: Arc<dyn ThreadExit>,
}

/// A type that contains an engine and is shared as an `Arc`.
pub(crate) trait HasEngine: Send + Sync + 'static {
    type Item: Item;
    fn engine(&self) -> &Engine<Self::Item>;

    /// Called when a thread that ends has moved its items out of its caches, outside all locks.
    #[inline(always)]
    fn after_thread_exit(&self) {}
}

/// A thread's reference to an engine. Small, since the thread may keep it for some time after the
/// engine is gone.
struct Home<H>(Weak<H>);

impl<H: HasEngine> ThreadExit for Home<H> {
    fn thread_exit(&self, me: Token, caches: *const ()) {
        if let Some(home) = self.0.upgrade() {
            home.engine().thread_exit(me, caches);
            home.after_thread_exit();
        }
    }
}

impl<T: Item> Engine<T> {
    /// An empty engine inside `home`.
    ///
    /// Unless `quick`, [`get_local`](Self::get_local) finds nothing, and each get is a
    /// [`get`](Self::get).
    pub(crate) fn new<H>(limits: &Limits, quick: bool, home: Weak<H>) -> Self
    where
        H: HasEngine<Item = T>,
    {
        barrier::prepare();
        Engine {
            threads: Threads::new(quick),
            depots: limits.classes.iter().copied().map(Depot::new).collect(),
            account: Account::with_variable(limits.weight),
            thread_weight: limits.thread_weight,
            trims: Trims::new(limits.trim_interval, limits.piece_weight),
            closed: AtomicBool::new(false),
            home: Arc::new(Home(home)),
        }
    }

    fn depot(&self, class: ClassIndex) -> &Depot<T> {
        &self.depots[class.get()]
    }

    fn classes(&self) -> impl Iterator<Item = (ClassIndex, &Depot<T>)> {
        (0..).map(ClassIndex).zip(&self.depots)
    }

    // ---- this thread's caches ----

    /// The origin of items from this thread's cache of a class, if it has any.
    #[inline]
    pub(crate) fn origin(&self, class: ClassIndex) -> Option<Origin<T>> {
        self.attach().map(|local| local.origin(class))
    }

    /// Finds or makes this thread's caches, and remembers them.
    ///
    /// `None` once the thread has let go of its caches for good, or the engine is closed. Also
    /// `None` if the heap has no room for them: then the next call tries again.
    fn attach(&self) -> Option<Local<'_, T>> {
        self.threads.find().or_else(|| {
            self.join()?;
            self.threads.find()
        })
    }

    /// Gives this thread caches: those of a thread that has ended, or new ones.
    fn join(&self) -> Option<()> {
        if self.is_closed() {
            return None;
        }
        let me = Token::of_this_thread()?;
        // The steps that the heap may refuse come first, so that none must be undone.
        if !local::reserve() {
            return None;
        }
        let thread = match self.threads.inherit() {
            Some(thread) => thread,
            None => {
                let limits = self.depots.iter().map(Depot::limits);
                self.threads
                    .add(ThreadCaches::new(limits, self.thread_weight)?)
            }
        };
        // SeqCst: pairs with the fence in `close`. If that fence comes later, `close` finds these
        // caches. If this one comes later, it finds the engine closed.
        fence(Ordering::SeqCst);
        if self.is_closed() {
            self.threads.leave(thread.thread());
            return None;
        }
        self.threads.attach(me, thread, Arc::downgrade(&self.home));
        Some(())
    }

    /// Moves the items that this thread cached to the depots, and leaves those that it cannot move
    /// to the next thread that inherits the caches.
    fn thread_exit(&self, me: Token, caches: *const ()) {
        let local = self.threads.local(me, caches);
        for (class, depot) in self.classes() {
            let cache = local.cache(class);
            self.hand_on(me, cache, depot, cache.rounds().held());
            cache.disown();
        }
        self.threads.leave(local.thread());
    }

    fn is_closed(&self) -> bool {
        // Relaxed: a hint, or ordered by the fences in `settle` and `join`.
        self.closed.load(Ordering::Relaxed)
    }

    // ---- counts ----

    /// The notes of each thread for the items' owner.
    pub(crate) fn notes(&self) -> impl Iterator<Item = &T::Notes> {
        self.threads.iter().map(|thread| &thread.thread().notes)
    }

    /// How many returned items of a class had been asked for, as far as samples have
    /// counted them. Never falls.
    pub(crate) fn requests(&self, class: ClassIndex) -> u64 {
        let caches = self
            .threads
            .iter()
            .map(|thread| &thread.caches()[class.get()]);
        caches.map(|cache| cache.requests.get()).sum()
    }

    /// Sums up one class over all levels. Exact while no thread uses the engine.
    pub(crate) fn levels(&self, class: ClassIndex) -> Levels {
        let depot = self.depot(class);
        let (idle_items, idle_weight) = depot.idle();
        let mut sum = Levels {
            local_hits: 0,
            depot_hits: depot.hits.get(),
            returns: depot.returns.get(),
            growths: 0,
            trimmed: depot.trimmed.get(),
            idle_items,
            idle_weight,
        };
        for thread in self.threads.iter() {
            let cache = thread.caches()[class.get()].levels();
            sum.local_hits += cache.local_hits;
            sum.depot_hits += cache.depot_hits;
            sum.returns += cache.returns;
            sum.growths += cache.growths;
            sum.idle_items += cache.idle_items;
            sum.idle_weight += cache.idle_weight;
        }
        // Never less than was shown before: the count of a cache that is at work may be low for a
        // moment, and a count must not fall.
        sum.local_hits = depot.local_hits_shown.raise_to(sum.local_hits);
        sum.returns = depot.returns_shown.raise_to(sum.returns);
        sum
    }

    /// Items of a class that trims leave idle.
    pub(crate) fn keep_idle(&self, class: ClassIndex) -> usize {
        self.depot(class).limits().keep_idle
    }

    /// How many idle items of a class were freed.
    pub(crate) fn trimmed(&self, class: ClassIndex) -> u64 {
        self.depot(class).trimmed.get()
    }

    /// The limit on the weight of all retained items.
    pub(crate) fn limit(&self) -> usize {
        self.account.limit()
    }

    /// The leased weight, never less than the weight of all retained items.
    pub(crate) fn leased(&self) -> usize {
        self.account.leased()
    }
}

impl<T: Item> Drop for Engine<T> {
    fn drop(&mut self) {
        if cfg!(debug_assertions) && !std::thread::panicking() {
            self.assert_leases();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::rounds::Rounds;
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::ops::Range;
    use std::rc::Rc;

    thread_local! {
        /// Things that this thread freed.
        static FREED: Cell<usize> = const { Cell::new(0) };
        /// Which parts of things this thread gave back.
        static RELEASED: RefCell<Vec<Range<usize>>> = const { RefCell::new(Vec::new()) };
    }

    /// An item without contents: only the number of such items matters.
    pub(super) struct Thing;

    impl Thing {
        pub(super) const WEIGHT: usize = 3;

        pub(super) fn freed() -> usize {
            FREED.get()
        }

        /// The parts that this thread released since the last call.
        pub(super) fn take_released() -> Vec<Range<usize>> {
            RELEASED.take()
        }
    }

    impl Item for Thing {
        type Notes = ();

        fn weight(&self) -> usize {
            Thing::WEIGHT
        }

        fn free(self) {
            FREED.set(FREED.get() + 1);
        }

        fn give_back_pages(&mut self, part: Range<usize>) -> Option<usize> {
            let len = part.len();
            RELEASED.with_borrow_mut(|released| released.push(part));
            Some(len)
        }
    }

    pub(super) struct Home {
        pub(super) engine: Engine<Thing>,
    }

    impl HasEngine for Home {
        type Item = Thing;

        fn engine(&self) -> &Engine<Thing> {
            &self.engine
        }
    }

    pub(super) const CLASS: ClassIndex = ClassIndex(0);
    const CACHE: usize = 8;

    /// An engine of one class of up to a hundred, with these limits on the weight of all, and
    /// of a thread's.
    pub(super) fn engine_of(weight: usize, thread_weight: usize) -> Arc<Home> {
        engine_in_pieces(weight, thread_weight, usize::MAX)
    }

    /// The same, with trims in pieces of this weight.
    pub(super) fn engine_in_pieces(
        weight: usize,
        thread_weight: usize,
        piece_weight: usize,
    ) -> Arc<Home> {
        let class = ClassLimits {
            items: 100,
            cache_rounds: CACHE,
            magazine_rounds: CACHE / 2,
            weight: Thing::WEIGHT,
            keep_idle: 0,
        };
        let limits = Limits {
            classes: [class].into(),
            weight,
            thread_weight,
            trim_interval: None,
            piece_weight,
        };
        Arc::new_cyclic(|home| Home {
            engine: Engine::new(&limits, true, home.clone()),
        })
    }

    #[test]
    #[cfg(debug_assertions)]
    fn an_engine_that_ends_with_a_lease_for_no_item_panics() {
        type Lease = fn(&Engine<Thing>) -> usize;
        let leases: [Lease; 4] = [
            |engine| engine.account.lease(Thing::WEIGHT, 1),
            |engine| engine.depots[CLASS.get()].account.lease(1, 1),
            |engine| {
                let thread = engine.threads.iter().next().expect("this one");
                thread.thread().account.lease(Thing::WEIGHT, 1)
            },
            |_| 0,
        ];
        for lease in leases {
            let home = engine_of(100, 100);
            // In the depot, from a thread that has ended, and in this thread's cache.
            let keep = || assert!(home.engine.put(CLASS, Thing).is_ok());
            std::thread::scope(|scope| {
                (0..2).for_each(|_| scope.spawn(keep).join().expect("it has put one"));
            });
            keep();
            let leased = lease(&home.engine);
            let end = std::panic::AssertUnwindSafe(|| drop(home));
            assert_eq!(std::panic::catch_unwind(end).is_err(), leased > 0);
        }
    }

    #[test]
    fn a_flush_to_a_smaller_room_ends_the_leases_of_the_rest() {
        for more in 0..=CACHE / 2 {
            let home = engine_of((CACHE + more) * Thing::WEIGHT, 1000 * Thing::WEIGHT);
            let kept = (0..2 * CACHE).filter(|_| home.engine.put(CLASS, Thing).is_ok());
            assert_eq!(kept.count(), CACHE + more);
            assert_eq!(home.engine.levels(CLASS).idle_items, CACHE + more);
            let thread = home.engine.threads.iter().next().expect("this one");
            let room = thread.caches()[CLASS.get()].rounds().room();
            assert_eq!(thread.thread().account.leased(), room * Thing::WEIGHT);
        }
    }

    /// Does not compile if `$type` is `$bound`: then two implementations fit, and neither
    /// is chosen.
    macro_rules! assert_is_not {
        ($type:ty: $bound:ident) => {
            const _: fn() = || {
                trait Ambiguous<A> {
                    fn chosen() {}
                }
                struct Is;
                impl<T> Ambiguous<()> for T {}
                impl<T: $bound> Ambiguous<Is> for T {}
                let _ = <$type as Ambiguous<_>>::chosen;
            };
        };
    }

    // A type that must stay on its thread keeps everything that holds it there.
    type StaysHere = Rc<()>;
    assert_is_not!(Rounds<StaysHere>: Send);
    assert_is_not!(Rounds<StaysHere>: Sync);
    assert_is_not!(ring::Ring<StaysHere>: Send);
    assert_is_not!(ring::Ring<StaysHere>: Sync);
}
