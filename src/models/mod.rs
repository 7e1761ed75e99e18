//! Models of the races between threads, checked by loom. It tries every order in which the threads'
//! atomic operations can take effect, up to a number of preemptions.
//!
//! ```text
//! RUSTFLAGS="--cfg loom -C debug-assertions" cargo test --release -p tierpool --lib --features limit models
//! ```
//!
//! Owns the numbered items and the assertions about them. The models run the code of `src/engine`,
//! `src/inner/holders.rs`, `src/limit`, `src/object` and `src/sizing/calibrator.rs`, with loom's atomics and locks
//! (`src/sync`) and tiny limits; no part of it is copied. A test is named by its race.
//!
//! Under `--cfg shuttle` the same models run in some hundred orders drawn at random. The purpose is
//! `schedules.rs`, which is too large for loom.
//!
//! # Assertions
//!
//! - No item is lost, taken twice, or used by two threads that no operation orders.
//! - No thread touches the items of a cache while another thread may.
//! - Nothing is freed while another thread may still write to it.
//! - When the threads are done, the leases cover all idle items and stay within the limit.
//!   After `clear` nothing is idle and nothing is leased. When the engine ends, exactly the items
//!   there are leased: see its `drop`.
//! - A closed engine holds nothing.
//! - A reader of busy threads' counts never finds too many hits or returns.
//!
//! # Races and their models
//!
//! | threads | models |
//! |---|---|
//! | a claim (trim, clear) and the cache's owner in a get or a drop, on the fast or the slow path | `claim` |
//! | a claim and a claim | `claim`: `trim_races_trim`, `trim_races_clear`, `trim_on_the_slow_path_races_clear` |
//! | a claim and a thread's end, or the thread that inherits from it | `exit` |
//! | a reclaim and the cache's owner, a trim, another reclaim, closing, or a thread's end | `reclaim` |
//! | closing and a thread that puts an item in, claims, or ends | `close` |
//! | get, drop and trim at a depot | `depot` |
//! | pushes and pops at one of the rings of a depot | `ring` |
//! | a guard and the parts cut from it, which leave, clone, grow or write again | `parts` |
//! | a return, a clear and the last handle's drop of a pool of objects, whose objects are dropped outside locks | `objects` |
//! | two leases of the last room, or a lease and the end of a lease | `budget` |
//! | a reader of counts, and the owner or a claim | `claim`: `stats_race_..`, `calibrate` |
//! | a thread that records returns or asks for a retired class, and a calibration | `calibrate` |
//! | the limit on outstanding bytes: waits, cancels, debts, changes and closing (feature `limit`) | `limit` |
//! | all of these at once, in long runs | `schedules` |
//! | a reset of the peaks, and buffers that are made | `schedules`, since loom weakens `SeqCst` |
//!
//! Two races have no model. The first is that of the last two handles: their count is one atomic
//! number that reaches 0 once. `close` follows, and its locks and barriers show it the work of
//! other threads, whatever the count orders. The second is the thread of `background.rs`, which
//! meets others under one lock.
//!
//! # Limits of loom
//!
//! - The real light barrier, which only stops the compiler, and the system call that makes up for
//!   it. Here both sides run the fence that they run where there is no such call. The system
//!   promises that the pair is as good as two fences. There is also no model of a system that
//!   promises the barrier and refuses it later.
//! - The inside of `OnceLock`, and so how a store grows.
//! - Orders that need more preemptions than the model's bound, or than `LOOM_MAX_PREEMPTIONS`; more
//!   than a handful of threads and items.
//! - Loads that return a value that no order has stored yet, which C11 allows ("out of thin air"),
//!   and machines that are weaker than C11.
//! - Memory: reads through a dangling pointer, or of uninitialised bytes.
//! - Clocks: in the models, a trim is due by shortage instead of by time.
//!
//! # Limits of shuttle
//!
//! All of the above, except long orders and many threads. Also the effects of weak orderings: for
//! shuttle, each is `SeqCst`, a fence is nothing, and each load returns the latest value. So it
//! finds mistakes in the steps of a protocol and in their order, and none in an ordering. It does
//! not try all orders: a mistake may remain that it has not found in some thousands.
//!
//! # Models that must fail
//!
//! `weakened.rs` takes one kind of ordering from one file of the engine, and runs a model that must
//! fail then. This shows that the models detect such mistakes.
//!
//! # Orderings that no model needs
//!
//! If one of these is weakened alone, no model fails, since another operation orders the same:
//!
//! - The orderings of `Cache::own`, `disown` and `claim`: those of `Threads::leave` and `inherit`
//!   lie between two owners, and the barriers lie between owner and claimer.
//! - Either fence of `heavy`: without a system call between them one is enough, and without both
//!   `claim_races_get` fails. With a system call, the first fence comes after the claim, and the
//!   second before the load of `busy`.
//! - The fence at the end of `close`: the heavy barrier before it is a fence, too.
//! - `trim` of a closed engine: its caches have no room, so none is claimed again.
//! - The orderings in `Account` (`lease`, `give_back`): no item is reached through a lease.

mod budget;
mod calibrate;
mod claim;
mod close;
mod depot;
mod exit;
#[cfg(feature = "limit")]
mod limit;
mod objects;
mod parts;
mod reclaim;
mod ring;
/// Models that only shuttle can run.
#[cfg(all(shuttle, not(loom)))]
mod schedules;
/// Models that must fail. Only loom can see that.
#[cfg(loom)]
mod weakened;

use crate::engine::{ClassIndex, ClassLimits, Engine, HasEngine, Here, Item, Limits, Origin};
use crate::sync::{AtomicUsize, Exclusive, Ordering, end_thread, model};
use std::cell::RefCell;
use std::ops::Deref;
use std::sync::Arc;

/// Runs a model in every order that at most `preemptions` allow.
fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    model::check(preemptions, whole(model));
}

/// A model from its beginning to its threads' ends.
pub(super) fn whole(model: impl Fn() + Send + Sync + 'static) -> impl Fn() + Send + Sync + 'static {
    let model = Arc::new(model);
    move || {
        LEDGER.take();
        let model = Arc::clone(&model);
        spawn(move || model()).join().unwrap();
        assert_eq!(alive(), 0, "items are lost");
    }
}

/// A thread that ends before it is joined, with its destructors.
pub(super) fn spawn(work: impl FnOnce() + Send + 'static) -> model::JoinHandle<()> {
    spawn_endless(move || {
        work();
        end_thread();
    })
}

/// A thread that leaves its caches as they are, without destructors.
fn spawn_endless(work: impl FnOnce() + Send + 'static) -> model::JoinHandle<()> {
    model::spawn(work)
}

// ---- items ----

const WEIGHT: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Out,
    /// In the engine, as far as the thread that put it there knows.
    Kept,
    Freed,
}

/// The known facts of the items of one run of a model.
struct Ledger {
    items: Vec<State>,
    /// How many the engine may hold.
    kept_max: usize,
    /// If it matters in which order items come and go: makes loom see that.
    order: Option<&'static AtomicUsize>,
}

/// Lets the engine hold `items` items, as far as the models can see.
fn allow(items: usize) {
    let order = Box::leak(Box::new(AtomicUsize::new(0)));
    ledger(|ledger| {
        ledger.kept_max = items;
        ledger.order = Some(order);
    });
}

/// Must be called before an item is noted to be kept or freed.
fn in_order() {
    if let Some(order) = ledger(|ledger| ledger.order) {
        order.fetch_add(1, Ordering::Relaxed);
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger {
            items: Vec::new(),
            kept_max: usize::MAX,
            order: None,
        }
    }
}

std::thread_local! {
    /// The ledger of the model that this test runs. All threads of the model run on the test's
    /// thread.
    static LEDGER: RefCell<Ledger> = RefCell::default();
}

fn ledger<R>(look: impl FnOnce(&mut Ledger) -> R) -> R {
    LEDGER.with_borrow_mut(look)
}

/// How many items are alive.
pub(super) fn alive() -> usize {
    ledger(|ledger| {
        let items = ledger.items.iter();
        items.filter(|&&state| state != State::Freed).count()
    })
}

/// An item that detects a second use.
///
/// It is a reference, so that a faulty engine drops it twice and not a part of the heap. It is
/// small, as loom's threads have small stacks.
pub(super) struct Number(&'static Numbered);

/// The state of an item. Never freed: it is a few words, and a model runs some thousand times.
struct Numbered {
    number: usize,
    weight: usize,
    alone: Exclusive,
    /// The pool that the item keeps alive.
    pool: RefCell<Option<Handle>>,
}

// SAFETY: only the item's holder uses it, and `alone` makes loom check that this is one thread.
unsafe impl Send for Number {}

impl Number {
    fn new() -> Self {
        Self::of_weight(WEIGHT)
    }

    pub(super) fn of_weight(weight: usize) -> Self {
        let number = ledger(|ledger| {
            ledger.items.push(State::Out);
            ledger.items.len() - 1
        });
        Number(Box::leak(Box::new(Numbered {
            number,
            weight,
            alone: Exclusive::new(),
            pool: RefCell::new(None),
        })))
    }

    /// Makes the item keep a pool alive.
    fn keep_alive(&self, pool: Handle) {
        self.0.alone.touch();
        self.0.pool.replace(Some(pool));
    }

    /// Takes the handle of the pool that the item keeps alive.
    fn take_pool(&self) -> Option<Handle> {
        self.0.alone.touch();
        self.0.pool.take()
    }

    /// Its number: items count from 0, in the order in which they were made.
    fn number(&self) -> usize {
        self.0.number
    }

    fn came_out(&self) {
        self.0.alone.touch();
        ledger(|ledger| {
            let state = &mut ledger.items[self.0.number];
            assert_ne!(*state, State::Freed, "a freed item came out");
            *state = State::Out;
        });
    }
}

/// Notes that the engine has kept an item, unless it is out or freed again.
fn went_in(number: usize) {
    in_order();
    ledger(|ledger| {
        if ledger.items[number] == State::Out {
            ledger.items[number] = State::Kept;
        }
        let kept = ledger.items.iter().filter(|&&state| state == State::Kept);
        assert!(kept.count() <= ledger.kept_max, "above the limit");
    });
}

impl Item for Number {
    type Notes = ();

    fn weight(&self) -> usize {
        self.0.weight
    }

    fn free(self) {
        drop(self);
    }

    fn give_back_pages(&mut self, _part: std::ops::Range<usize>) -> Option<usize> {
        None
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        in_order();
        let before =
            ledger(|ledger| std::mem::replace(&mut ledger.items[self.0.number], State::Freed));
        assert_ne!(before, State::Freed, "an item is freed twice");
        drop(self.take_pool());
    }
}

/// Counts events before they happen, with an atomic that orders nothing else.
#[derive(Clone)]
struct Begun(Arc<AtomicUsize>);

impl Begun {
    fn new() -> Self {
        Begun(Arc::new(AtomicUsize::new(0)))
    }

    fn one_more(&self) {
        // Relaxed: so that the counter does not make a model pass.
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of events so far. An exchange sees the last one.
    fn now(&self) -> usize {
        // Relaxed: as above.
        self.0.fetch_add(0, Ordering::Relaxed)
    }
}

// ---- pools ----

const CLASS: ClassIndex = ClassIndex(0);

/// Two items in a cache, exchanged one by one, and no other limit.
fn limits() -> Limits {
    Limits {
        classes: Box::new([ClassLimits {
            items: 8,
            cache_rounds: 2,
            magazine_rounds: 1,
            weight: WEIGHT,
            keep_idle: 0,
        }]),
        weight: 8 * WEIGHT,
        thread_weight: 2 * WEIGHT,
        trim_interval: None,
        piece_weight: usize::MAX,
    }
}

/// Limits with which a cache is exchanged whole.
fn limits_of_whole_magazines() -> Limits {
    let mut limits = limits();
    limits.classes[0].magazine_rounds = 2;
    limits
}

/// Limits that allow no item in a cache.
fn limits_without_caches() -> Limits {
    let mut limits = limits();
    limits.classes[0].cache_rounds = 0;
    limits.classes[0].magazine_rounds = 0;
    limits
}

/// An engine as the byte pool uses it (`src/inner`), without bytes.
pub(super) struct Pool {
    pub(super) engine: Engine<Number>,
    pub(super) limit: usize,
    /// See [`Handle`].
    handles: AtomicUsize,
}

impl HasEngine for Pool {
    type Item = Number;

    fn engine(&self) -> &Engine<Number> {
        &self.engine
    }
}

/// An item in a caller's hands, and its origin.
pub(super) struct Held {
    pub(super) item: Number,
    pub(super) origin: Origin<Number>,
}

impl Pool {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        let pool = Arc::new_cyclic(|this| Pool {
            engine: Engine::new(limits, true, this.clone()),
            limit: limits.weight,
            handles: AtomicUsize::new(1),
        });
        // Made here, since loom does not see how the depot's rings are published.
        pool.engine.reserve(CLASS, 1);
        pool
    }

    /// A pool, and `count` items, which are in this thread's cache.
    fn stocked(limits: &Limits, count: usize) -> Arc<Self> {
        let pool = Self::new(limits);
        let held: Vec<_> = (0..count).map(|_| pool.get()).collect();
        held.into_iter().for_each(|held| pool.put(held));
        assert_eq!(pool.idle(), count);
        pool
    }

    fn get(&self) -> Held {
        let (item, origin) = self.take(CLASS);
        let item = item.unwrap_or_else(Number::new);
        Held { item, origin }
    }

    pub(super) fn take(&self, class: ClassIndex) -> (Option<Number>, Origin<Number>) {
        let (item, origin) = match self.engine.get_local(class) {
            Some((item, origin)) => (Some(item), origin),
            None => self.engine.get(class),
        };
        if let Some(item) = &item {
            item.came_out();
        }
        (item, origin)
    }

    fn put(&self, held: Held) {
        self.put_to(CLASS, held);
    }

    /// Puts an item back in the order of steps that the byte pool uses. Returns whether it was
    /// kept.
    pub(super) fn put_to(&self, class: ClassIndex, held: Held) -> bool {
        let number = held.item.0.number;
        held.item.0.alone.touch();
        let kept = match put_local(held.item, held.origin) {
            Ok(()) => true,
            Err(item) => {
                self.engine.trim_if_due();
                match put_sample(item, held.origin) {
                    Ok(()) => true,
                    Err(item) => self.engine.put(class, item).is_ok(),
                }
            }
        };
        if kept {
            went_in(number);
        }
        kept
    }

    /// How many items the engine counts as idle.
    fn idle(&self) -> usize {
        self.engine.levels(CLASS).idle_items
    }

    /// Asserts what holds while no thread except the caller uses the pool.
    fn assert_accounted(&self, out: usize) {
        let levels = self.engine.levels(CLASS);
        assert_eq!(
            levels.idle_items + out,
            alive(),
            "an item is lost or doubled"
        );
        let leased = self.engine.leased();
        assert!(levels.idle_weight <= leased, "retained without a lease");
        assert!(leased <= self.limit, "leased above the limit");
        self.engine.clear();
        assert_eq!(alive(), out, "`clear` left items");
        assert_eq!(self.idle(), 0);
        assert_eq!(self.engine.leased(), 0, "leases without an item");
    }

    /// Asserts that this thread may still cache two items.
    fn assert_room_for_two(&self) {
        let held = [self.get(), self.get()];
        held.into_iter().for_each(|held| self.put(held));
        let held = [(); 2].map(|()| self.engine.get_local(CLASS));
        assert!(
            held.iter().all(Option::is_some),
            "this thread has leases without items"
        );
    }
}

/// The cache that an item came from, if it is this thread's.
fn home_as_it_left(item: &Number, origin: Origin<Number>) -> Option<Here<Number>> {
    // SAFETY: either the caller or the item keeps the pool alive.
    let cache = unsafe { origin.here() }?;
    (cache.unit() == item.weight()).then_some(cache)
}

/// The fast path of a drop.
fn put_local(item: Number, origin: Origin<Number>) -> Result<(), Number> {
    match home_as_it_left(&item, origin) {
        Some(cache) => cache.push::<false>(item),
        None => Err(item),
    }
}

/// The first step of the slow path, with an item whose return may be a sample.
fn put_sample(item: Number, origin: Origin<Number>) -> Result<(), Number> {
    match home_as_it_left(&item, origin) {
        Some(cache) if cache.sample(0).is_some() && cache.has_room() => cache.push::<true>(item),
        _ => Err(item),
    }
}

/// Keeps a pool alive if any thread may drop the last handle.
///
/// Loom does not see how the standard library's `Arc` orders its owners' work before it frees. This
/// type does the same where loom sees it.
struct Handle(Arc<Pool>);

impl Clone for Handle {
    fn clone(&self) -> Self {
        self.0.handles.fetch_add(1, Ordering::Relaxed);
        Handle(Arc::clone(&self.0))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.handles.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Deref for Handle {
    type Target = Pool;

    fn deref(&self) -> &Pool {
        &self.0
    }
}
