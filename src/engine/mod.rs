//! Takes and keeps items: the one place that decides between the levels.
//!
//! Owns the thread caches, the depots and the budget. Knows nothing of bytes, of
//! size classes beyond their index, or of the heap: it serves what it holds, and
//! the caller makes and frees items.
//!
//! ```text
//! take:  this thread's cache -> depot -> None, and the caller makes one
//! keep:  this thread's cache -> depot -> Err, and the caller frees it
//! ```
//!
//! What a level holds is leased: by the item where it is loose, by the magazine
//! in the depot, by the room in a thread cache. An item that moves takes its lease
//! along.

mod account;
mod barrier;
mod cache;
mod depot;
mod local;
mod reclaim;
pub(crate) mod ring;
mod store;
mod tally;
mod trim;

pub(crate) use account::UNLIMITED;
pub(crate) use cache::CACHE_ROUNDS;
pub(crate) use tally::{BATCH_MAX, KINDS, Return};
pub(crate) use trim::Freed;

use crate::sync::{AtomicBool, Hint, Mutex, MutexGuard, Ordering, fence, lock, lock_briefly};
use account::Account;
use cache::Cache;
use depot::{Depot, Magazine};
use local::{EngineId, ThreadExit, Token};
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::{Arc, Weak};
use std::time::Duration;
use trim::Trims;

/// How many times the items that there are a depot makes room for, up to what the
/// limits allow.
///
/// 8: what it makes later lies higher on the heap, and pins all that lies below
/// after that has been freed. The last room lies above a sixteenth of the budget
/// at most, since a store doubles.
const RESERVE_AHEAD: usize = 8;
/// The most magazines that it makes room for beyond what there is: a megabyte.
const RESERVE_AHEAD_MAGAZINES: usize = 4096;

/// What the engine must know of an item.
pub(crate) trait Item: Send + 'static {
    /// What keeping the item costs, in the unit of the caller's limits.
    ///
    /// Does not change while the engine holds the item. Not 0.
    fn weight(&self) -> usize;

    /// Ends the item, in the order that is best for the heap.
    fn free(self);

    /// Gives the memory that a part of an idle item takes back to the system, so that less is
    /// left to do for [`free`](Self::free). The part is a range of its weight. Returns `false`
    /// if that cannot be done here.
    fn release(&mut self, part: Range<usize>) -> bool;
}

/// Index of a size class in an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClassIndex(pub(crate) usize);

impl ClassIndex {
    #[inline(always)]
    pub(crate) fn get(self) -> usize {
        self.0
    }
}

/// How much the levels may hold.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) classes: Box<[ClassLimits]>,
    /// Weight of all that the levels hold together.
    pub(crate) weight: usize,
    /// Weight of what the caches of one thread hold together.
    pub(crate) thread_weight: usize,
    /// How long an item may go unneeded before the slow path of a get or a drop
    /// frees it; `None` if that is for others to do.
    pub(crate) trim_interval: Option<Duration>,
    /// Weight that the slow path of a get or a drop frees at most for a trim, or one item if
    /// that is heavier.
    pub(crate) piece_weight: usize,
}

/// How much of one class the levels may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClassLimits {
    /// Items on all levels together.
    pub(crate) items: usize,
    /// Items in one thread's cache, at most [`CACHE_ROUNDS`].
    pub(crate) cache_rounds: usize,
    /// Items that move at once between cache and depot, at most half of [`CACHE_ROUNDS`].
    pub(crate) magazine_rounds: usize,
    /// Weight of an ordinary item. Any other is kept loose in the depot, so
    /// that the thread caches need not look at what they hand out.
    pub(crate) weight: usize,
    /// Items that trims leave idle in the depot.
    pub(crate) keep_idle: usize,
}

/// Whether to wait for a thread that the system has stopped while it had the list of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// For what gets and drops do.
    Never,
    ForLock,
}

/// Which idle items to free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Idle {
    /// Those that were not needed since the last trim.
    Unneeded,
    All,
}

/// What the levels hold of one class and what they have served.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Levels {
    pub(crate) local_hits: u64,
    pub(crate) depot_hits: u64,
    pub(crate) returns: u64,
    /// Returns that were exchanged for another, as far as the caches counted them.
    pub(crate) exchanged: u64,
    pub(crate) trimmed: u64,
    pub(crate) idle_items: usize,
    pub(crate) idle_weight: usize,
}

/// One thread's caches, one per class. Outlives the thread; another one inherits it.
struct ThreadCaches<T> {
    /// Whether a thread has it now. Changes under the lock of [`Engine::threads`].
    in_use: bool,
    /// Never changes, so that what it holds stays where it is.
    // A vector, here and below: it can be asked for room beforehand; and when it is moved
    // itself, what it holds is not touched.
    caches: Vec<Cache<T>>,
    /// The one account that the caches lease from. After them, so that it is freed last.
    account: Vec<Account>,
}

impl<T: Item> ThreadCaches<T> {
    /// Caches for one thread, in use; `None` if the heap has no room for them.
    fn new(depots: &[Depot<T>], weight: usize) -> Option<Self> {
        let (mut caches, mut account) = (Vec::new(), Vec::new());
        caches.try_reserve_exact(depots.len()).ok()?;
        account.try_reserve_exact(1).ok()?;
        account.push(Account::new(weight));
        let address = NonNull::from(&account[0]);
        caches.extend(depots.iter().map(|depot| {
            // SAFETY: the account stays where it is, and is only ever read, until it is
            // dropped with its vector, after the caches.
            unsafe { Cache::new(depot.limits(), address) }
        }));
        Some(ThreadCaches {
            in_use: true,
            caches,
            account,
        })
    }
}

/// Thread caches over one depot per class.
pub(crate) struct Engine<T: Item> {
    id: EngineId,
    /// What [`take_local`](Self::take_local) recalls: `id`, or what no memo holds.
    quick: EngineId,
    /// As many as there were threads at once. None is removed while the engine
    /// lives. Locked for less than a microsecond at a time: when a thread first uses the
    /// engine and when it ends; and, to look at one thread's caches, for `Stats`, calibrations,
    /// trims and reclaims. A get or a drop that is not its thread's first does not wait for
    /// the lock: see [`Wait`].
    threads: Mutex<Vec<ThreadCaches<T>>>,
    /// How many these are, and how many of them are in use.
    threads_made: Hint,
    threads_in_use: Hint,
    depots: Box<[Depot<T>]>,
    /// What all levels together lease from.
    account: Account,
    thread_weight: usize,
    trims: Trims<T>,
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
// SAFETY: as above; nothing here changes behind a shared reference.
unsafe impl<T: Send> Sync for Origin<T> {}

/// What the holder of an item may note in the item's origin.
///
/// A marked origin is no thread's: [`Origin::is_local`] is `false`, so the item does not
/// go back without a look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The item was lent out as a whole. It may be another one now.
    Lent = 1,
    /// The item was lent out to be written to.
    Written = 2,
}

const _: () = assert!((Mark::Lent as usize | Mark::Written as usize) < Token::STEP);

impl<T> Clone for Origin<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Origin<T> {}

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

    /// Whether it is [`Origin::NONE`], marked or not.
    #[inline(always)]
    pub(crate) fn is_none(&self) -> bool {
        self.owner.get() < Token::LEAST
    }

    #[inline(always)]
    pub(crate) fn mark(&mut self, mark: Mark) {
        self.owner = self.owner.with(mark as usize);
    }

    #[inline(always)]
    pub(crate) fn is_marked(&self) -> bool {
        self.owner.bits() != 0
    }

    pub(crate) fn has(&self, mark: Mark) -> bool {
        self.owner.bits() & mark as usize != 0
    }

    /// The same without marks. It is a thread's again, if it was one's.
    pub(crate) fn unmarked(&self) -> Self {
        Origin {
            owner: self.owner.without_bits(),
            cache: self.cache,
        }
    }

    /// Whether it is the calling thread's cache, and unmarked.
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

    /// Whether it has room for another item.
    ///
    /// # Safety
    ///
    /// - As for [`unit`](Self::unit).
    pub(crate) unsafe fn has_room(&self) -> bool {
        // SAFETY: as in `unit`.
        unsafe { self.cache.as_ref() }.has_room()
    }

    /// Counts that the item which came from there was taken in exchange for another.
    ///
    /// # Safety
    ///
    /// - As for [`unit`](Self::unit).
    #[inline(always)]
    pub(crate) unsafe fn count_exchange(&self) {
        // SAFETY: as in `unit`.
        let cache = unsafe { self.cache.as_ref() };
        cache.taken_in_exchange.add_by_owner(1);
    }

    /// Keeps an item, or hands it back if there is no room for it here, or as
    /// [`Return`] says.
    ///
    /// The item's weight must be [`unit`](Self::unit). Once this has kept it,
    /// another thread may close the engine and end it.
    ///
    /// # Safety
    ///
    /// - As for [`unit`](Self::unit); the item may be what keeps the engine alive.
    #[inline(always)]
    pub(crate) unsafe fn push(&self, item: T, count: Return) -> Result<(), T> {
        // SAFETY: as in `unit`, at the call.
        unsafe { Cache::push(self.cache.as_ptr(), self.owner, item, count) }
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
    pub(crate) fn new<H>(limits: &Limits, quick: bool, home: Weak<H>) -> Self
    where
        H: HasEngine<Item = T>,
    {
        barrier::prepare();
        let id = EngineId::next();
        Engine {
            id,
            quick: if quick { id } else { EngineId::NOBODY },
            threads: Mutex::new(Vec::new()),
            threads_made: Hint::new(0),
            threads_in_use: Hint::new(0),
            depots: limits.classes.iter().copied().map(Depot::new).collect(),
            account: Account::new(limits.weight),
            thread_weight: limits.thread_weight,
            trims: Trims::new(limits.trim_interval, limits.piece_weight),
            closed: AtomicBool::new(false),
            home: Arc::new(Home(home)),
        }
    }

    // ---- take ----

    /// Takes an item from this thread's cache, if the thread used this engine
    /// lately and the cache holds one that is not resting, and says where it came
    /// from.
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

    /// Takes an item from this thread's cache, from the depot, or from what other threads
    /// cache and do not use. Returns also the cache that it may come back to, as may the item that
    /// the caller makes if there is none.
    #[cold]
    #[inline(never)]
    pub(crate) fn take(&self, class: ClassIndex) -> (Option<T>, Origin<T>) {
        self.trim_if_due();
        let Some((me, caches)) = self.attach() else {
            return (self.take_shared(class, None), Origin::NONE);
        };
        // SAFETY: `attach` gave the address.
        let cache = unsafe { self.cache_at(caches, class) };
        let item = cache.pop_resting(me).or_else(|| {
            let cached = (!cache.is_claimed()).then_some((me, cache));
            self.take_shared(class, cached)
        });
        (item, Origin::new(cache, me))
    }

    /// Takes an item from the depot, if need be one that another thread has cached and does
    /// not use.
    fn take_shared(&self, class: ClassIndex, cached: Option<(Token, &Cache<T>)>) -> Option<T> {
        let depot = &self.depots[class.get()];
        let mut item = self.take_from_depot(depot, cached);
        if item.is_none() && self.reclaim(depot, class, cached) {
            item = self.take_from_depot(depot, cached);
        }
        if item.is_none() {
            self.note_miss(depot);
        }
        item
    }

    /// Takes an item from the depot, and with it a magazine for this thread's
    /// cache if it has one and may enter.
    fn take_from_depot(&self, depot: &Depot<T>, cached: Option<(Token, &Cache<T>)>) -> Option<T> {
        if depot.is_empty() {
            return None;
        }
        // A magazine is broken up where there is no room for it: a loose item
        // first, then.
        let half = depot.limits().magazine_rounds.div_ceil(2);
        let roomy = cached.is_some_and(|(_, cache)| {
            let more = cache.account().room_for(cache.unit());
            cache.room().saturating_add(more).min(self.share(depot)) >= half
        });
        roomy
            .then(|| self.take_from_magazine(depot, cached))
            .flatten()
            .or_else(|| self.take_loose(depot))
            .or_else(|| self.take_from_magazine(depot, cached))
    }

    fn take_loose(&self, depot: &Depot<T>) -> Option<T> {
        let item = depot.pop_loose()?;
        self.end_loose_lease(depot, item.weight());
        depot.hits.bump();
        Some(item)
    }

    fn take_from_magazine(
        &self,
        depot: &Depot<T>,
        cached: Option<(Token, &Cache<T>)>,
    ) -> Option<T> {
        let mut magazine = depot.pop()?;
        let item = magazine.pop();
        match cached {
            Some((me, cache)) => {
                self.refill(me, cache, depot, &mut magazine);
                cache.depot_hits.add_by_owner(1);
            }
            None => {
                self.end_leases(depot, None, 1);
                self.keep_rest(depot, &mut magazine);
                depot.hits.bump();
            }
        }
        item
    }

    /// Moves the rest of a magazine out of the depot, from which one item was
    /// taken, to this thread's empty cache.
    fn refill(&self, me: Token, cache: &Cache<T>, depot: &Depot<T>, magazine: &mut Magazine<T>) {
        let came = depot.limits().magazine_rounds;
        // Room for the item that was taken, too: it will come back.
        let more = came.min(self.share(depot)).saturating_sub(cache.room());
        let leased = cache.account().lease(cache.unit(), more);
        let kept = cache.refill(me, magazine, leased); // less if it was claimed meanwhile
        cache.account().give_back((leased - kept) * cache.unit());
        // The cache took over so many leases; the others are at an end, but for
        // those of items that found no room there.
        let rest = magazine.len();
        self.end_leases(depot, None, came - kept - rest);
        self.keep_rest(depot, magazine);
    }

    /// Keeps items, which have their leases, loose in the depot. Returns how many it keeps.
    fn keep_rest(&self, depot: &Depot<T>, magazine: &mut Magazine<T>) -> usize {
        let mut stored = 0;
        while let Some(item) = magazine.pop() {
            let weight = item.weight();
            match depot.push_loose(item) {
                Ok(()) => stored += 1,
                Err(item) => {
                    // No memory for the queue: idle, and freed.
                    item.free();
                    self.end_loose_lease(depot, weight);
                    self.note_freed(depot, 1, weight);
                }
            }
        }
        if stored > 0 {
            self.settle();
        }
        stored
    }

    /// Makes room in the depot for what is to be made of a class: `items` in all,
    /// and more to come, as far as the heap has it. Returns `false` if it has not.
    pub(crate) fn reserve(&self, class: ClassIndex, items: usize) -> bool {
        let depot = &self.depots[class.get()];
        let limits = depot.limits();
        let most = limits.items.min(self.account.limit() / limits.weight);
        let ahead = items
            .saturating_mul(RESERVE_AHEAD - 1)
            .min(RESERVE_AHEAD_MAGAZINES * limits.magazine_rounds);
        depot.reserve(items.saturating_add(ahead).min(most))
    }

    // ---- keep ----

    /// Keeps an item in this thread's cache, after flushing a magazine from there
    /// to the depot if it was full; or loose in the depot, if the item or the
    /// thread is not one for a cache, or the cache is claimed. Hands it back if
    /// there is no room, or the engine is closed.
    #[cold]
    #[inline(never)]
    pub(crate) fn keep(&self, class: ClassIndex, item: T) -> Result<(), T> {
        if self.is_closed() {
            return Err(item); // a hint that saves work: see `settle`
        }
        self.trim_if_due();
        let depot = &self.depots[class.get()];
        let mut item = item;
        if item.weight() == depot.limits().weight {
            if let Some((me, caches)) = self.attach() {
                match self.keep_cached(me, caches, class, item) {
                    Ok(()) => return Ok(()),
                    Err(back) => item = back,
                }
            }
        }
        if self.lease(depot, item.weight(), 1) == 0 {
            self.note_refused(depot, item.weight());
            return Err(item);
        }
        depot.push_loose(item).inspect_err(|item| {
            self.end_loose_lease(depot, item.weight());
        })?;
        depot.returns.bump();
        self.settle();
        Ok(())
    }

    /// Keeps an item of ordinary weight in this thread's cache, or hands it back.
    fn keep_cached(
        &self,
        me: Token,
        caches: *const (),
        class: ClassIndex,
        item: T,
    ) -> Result<(), T> {
        // SAFETY: `attach` gave the address.
        let cache = unsafe { self.cache_at(caches, class) };
        // SAFETY: `attach` gave this thread's token; and `cache` outlives the
        // call, here and below, since the caller keeps the engine alive.
        let item = match unsafe { Cache::push(cache, me, item, Return::Plain) } {
            Ok(()) => return Ok(()),
            Err(item) => item,
        };
        let depot = &self.depots[class.get()];
        let share = self.share(depot);
        if !(self.widen(me, caches, class, share) || self.flush_full(me, cache, depot, share)) {
            return Err(item);
        }
        // SAFETY: as above.
        unsafe { Cache::push(cache, me, item, Return::Plain) }
    }

    /// Leases more room for this thread's cache of a class: as much again as it
    /// has, since it has been too little. Returns whether there is more now.
    fn widen(&self, me: Token, caches: *const (), class: ClassIndex, share: usize) -> bool {
        // SAFETY: `attach` gave the address.
        let cache = unsafe { self.cache_at(caches, class) };
        let depot = &self.depots[class.get()];
        let room = cache.room();
        if cache.held() < room || room >= share {
            return false; // claimed just now, or as wide as it may be
        }
        let more = room.clamp(1, share - room);
        let account = cache.account();
        let mut granted = account.lease(cache.unit(), more);
        if granted == 0 {
            self.hand_on_unneeded(me, caches);
            granted = account.lease(cache.unit(), more);
        }
        let leased = self.lease(depot, cache.unit(), granted);
        account.give_back((granted - leased) * cache.unit());
        if leased == 0 {
            return false;
        }
        let widened = cache.add_room(me, leased); // less if it was claimed meanwhile
        self.end_leases(depot, Some(account), leased - widened);
        widened > 0
    }

    /// Moves the items that came first from this thread's full cache to the depot: a
    /// magazine, or half of its items if these are fewer. Returns whether there is room in
    /// the cache now.
    fn flush_full(&self, me: Token, cache: &Cache<T>, depot: &Depot<T>, share: usize) -> bool {
        let (room, held) = (cache.room(), cache.held());
        if held == 0 || held < room {
            return false;
        }
        // Room above the share is not leased anew.
        let above = room.saturating_sub(share);
        let full = depot.limits().magazine_rounds;
        let out = match held >= full {
            true => full,
            false => held.div_ceil(2).max(above).min(held),
        };
        // The items take their leases along. These are for the items that come instead.
        let more = self.lease(depot, cache.unit(), out.saturating_sub(above));
        if more == 0 && above == 0 {
            return false; // the depot has its part of what may be kept
        }
        let mut magazine = Magazine::new();
        if !cache.flush(me, out, more, &mut magazine) {
            self.end_leases(depot, None, more); // claimed meanwhile
            return false;
        }
        cache.account().give_back((out - more) * cache.unit());
        if out == full {
            self.keep_magazine(depot, magazine);
        } else {
            self.keep_rest(depot, &mut magazine);
        }
        more > 0
    }

    /// Keeps a full magazine, which has its leases, in the depot.
    #[inline]
    fn keep_magazine(&self, depot: &Depot<T>, magazine: Magazine<T>) {
        match depot.push(magazine) {
            Ok(()) => self.settle(),
            Err(mut magazine) => drop(self.keep_rest(depot, &mut magazine)),
        }
    }

    /// After a push to a depot: makes sure that nothing stays in a closed engine.
    fn settle(&self) {
        // SeqCst: pairs with the fence in `close`. Either that one comes
        // later, and `close` finds in the depot what was pushed, or this one
        // does, and we find the engine closed.
        fence(Ordering::SeqCst);
        if self.is_closed() {
            self.empty_depots();
        }
    }

    fn is_closed(&self) -> bool {
        // Relaxed: a hint, or ordered by the fence in `settle`, or by the lock
        // under which `close` sets it.
        self.closed.load(Ordering::Relaxed)
    }

    /// Whether [`keep`](Self::keep) would hand the item back. Costs less than to try, and
    /// notes the refusal, but may miss it.
    pub(crate) fn refuses(&self, class: ClassIndex, weight: usize) -> bool {
        let depot = &self.depots[class.get()];
        let full = depot.account.is_full_for(1) || self.account.is_full_for(weight);
        if !full || self.trims.is_due_for_shortages() {
            return false; // there may be room after a trim
        }
        if weight == depot.limits().weight {
            let Some(origin) = self.local(class) else {
                return false;
            };
            // SAFETY: `local` found it for this thread, and `&self` keeps it alive.
            let cache = unsafe { origin.cache.as_ref() };
            let may_make_room =
                cache.room() > self.share(depot) || cache.account().is_full_for(weight);
            if cache.has_room() || may_make_room {
                return false;
            }
        }
        self.note_refused(depot, weight);
        true
    }

    // ---- stock ----

    /// Makes `count` items of ordinary weight and keeps them in the depot, as
    /// far as there is room. Says how many.
    pub(crate) fn stock(
        &self,
        class: ClassIndex,
        count: usize,
        mut make: impl FnMut() -> T,
    ) -> usize {
        let depot = &self.depots[class.get()];
        let limits = depot.limits();
        // As magazines where a cache can take these.
        let batch = if limits.cache_rounds > 0 {
            limits.magazine_rounds
        } else {
            1
        };
        let mut stocked = 0;
        while stocked < count {
            let leased = self.lease(depot, limits.weight, batch.min(count - stocked));
            if leased == 0 {
                break;
            }
            let mut magazine = Magazine::new();
            for _ in 0..leased {
                magazine.push(make());
            }
            if leased == limits.magazine_rounds {
                self.keep_magazine(depot, magazine);
            } else {
                self.keep_rest(depot, &mut magazine);
            }
            stocked += leased;
        }
        stocked
    }

    // ---- leases ----

    /// Leases room for `count` items of `weight` each, or as many as there is
    /// room for, and says for how many.
    fn lease(&self, depot: &Depot<T>, weight: usize, count: usize) -> usize {
        let items = depot.account.lease(1, count);
        let granted = self.account.lease(weight, items);
        depot.account.give_back(items - granted);
        granted
    }

    /// Ends the leases of so many items of ordinary weight, which are a
    /// thread's, if there is one, too.
    fn end_leases(&self, depot: &Depot<T>, thread: Option<&Account>, items: usize) {
        let weight = items * depot.limits().weight;
        depot.account.give_back(items);
        self.account.give_back(weight);
        if let Some(thread) = thread {
            thread.give_back(weight);
        }
    }

    fn end_loose_lease(&self, depot: &Depot<T>, weight: usize) {
        depot.account.give_back(1);
        self.account.give_back(weight);
    }

    // ---- kinds ----

    /// Takes what came of the last batch of items of a kind to this thread's cache the
    /// quick way, which `next` is told of, and grants as many more as that says. Nothing
    /// came to a thread that has no cache.
    pub(crate) fn next_batch(
        &self,
        class: ClassIndex,
        kind: usize,
        next: impl FnOnce(usize) -> u8,
    ) {
        let Some((_, caches)) = self.attached() else {
            next(0);
            return;
        };
        // SAFETY: `attached` gave the address.
        let cache = unsafe { self.cache_at(caches, class) };
        let batch = cache.take_batch(kind);
        cache.grant(kind, next(batch));
    }

    /// How many items of each kind came back the quick way and are in no batch that was
    /// taken. `None` if that would take a [wait](Wait).
    ///
    /// Never too many, if what the batches were added to was read before.
    pub(crate) fn tally(&self, wait: Wait) -> Option<[usize; KINDS]> {
        let mut kinds = [0_usize; KINDS];
        let visited = self.visit_caches(wait, |caches| {
            for (kind, count) in caches.iter().flat_map(Cache::counts) {
                kinds[kind] += count;
            }
        });
        visited.then_some(kinds)
    }

    /// How many items of each class were taken from here, except those in exchange for
    /// another. Never too many, except those that are being taken just now. Returns `false`
    /// if that would take a [wait](Wait).
    pub(crate) fn hits_not_in_exchange(&self, wait: Wait, classes: &mut [u64]) -> bool {
        for (sum, depot) in classes.iter_mut().zip(&self.depots) {
            *sum = depot.hits.get();
        }
        self.visit_caches(wait, |caches| {
            for (sum, cache) in classes.iter_mut().zip(caches) {
                let levels = cache.levels();
                let hits = levels.local_hits + levels.depot_hits;
                *sum += hits.saturating_sub(cache.taken_in_exchange.get());
            }
        })
    }

    // ---- a thread's caches ----

    /// Finds or makes this thread's caches, and remembers them.
    ///
    /// `None` once the thread has let go of its caches for good, or the engine
    /// is closed; or if there is no memory for them, and then it is tried again next
    /// time.
    fn attach(&self) -> Option<(Token, *const ())> {
        self.attached().or_else(|| {
            let me = Token::of_this_thread()?;
            let caches = self.join(me)?;
            local::remember(self.id, caches);
            Some((me, caches))
        })
    }

    /// Finds this thread's caches, if it has any, and remembers them.
    fn attached(&self) -> Option<(Token, *const ())> {
        if let Some(recalled) = local::recall(self.id) {
            return Some(recalled);
        }
        let _not_torn_down = Token::of_this_thread()?;
        let (me, caches) = local::find(self.id)?;
        local::remember(self.id, caches);
        Some((me, caches))
    }

    /// Gives this thread caches: those of a thread that has ended, or new ones.
    fn join(&self, me: Token) -> Option<*const ()> {
        // First all that may be refused, so that nothing is to be undone.
        if !local::reserve() {
            return None;
        }
        let caches = match self.inherit()? {
            Some(caches) => caches,
            None => self.add_caches()?,
        };
        self.threads_in_use.add(1);
        for cache in caches {
            cache.acquire(me);
        }
        let address = caches.as_ptr().cast::<()>();
        local::attach(me, self.id, Arc::downgrade(&self.home), address);
        Some(address)
    }

    /// The caches of a thread that has ended, now in use, if there are any; `None` if
    /// the engine is closed.
    fn inherit(&self) -> Option<Option<&[Cache<T>]>> {
        let mut threads = lock(&self.threads);
        // `close` sets it before it takes the lock that we hold. Either we see
        // it here, or `close` sees these caches in use.
        if self.is_closed() {
            return None;
        }
        let free = threads.iter_mut().find(|thread| !thread.in_use);
        Some(free.map(|thread| {
            thread.in_use = true;
            self.caches_of(thread)
        }))
    }

    /// New caches, in use; `None` if the engine is closed, or the heap has no room for them.
    fn add_caches(&self) -> Option<&[Cache<T>]> {
        // Before the lock is taken: the heap may take its time.
        let made = ThreadCaches::new(&self.depots, self.thread_weight)?;
        let mut threads = lock(&self.threads);
        if self.is_closed() {
            return None; // as in `inherit`
        }
        threads.try_reserve(1).ok()?;
        threads.push(made);
        self.threads_made.set(threads.len());
        threads.last().map(|made| self.caches_of(made))
    }

    /// Moves what this thread cached to the depot, and leaves what it cannot
    /// move to the next thread that inherits the caches.
    fn thread_exit(&self, me: Token, caches: *const ()) {
        for (class, depot) in (0..).map(ClassIndex).zip(&self.depots) {
            // SAFETY: the address is one that `join` gave out for this engine.
            let cache = unsafe { self.cache_at(caches, class) };
            self.hand_on(me, cache, depot, cache.held());
            cache.release();
        }
        self.threads_in_use.subtract(1);
        for thread in &mut *lock(&self.threads) {
            if ptr::addr_eq(thread.caches.as_ptr(), caches) {
                thread.in_use = false;
            }
        }
    }

    /// Moves what this thread has not needed since the last trim to the depot,
    /// and ends the leases of room that holds nothing: for another class, where
    /// the limit on one thread's caches is reached.
    fn hand_on_unneeded(&self, me: Token, caches: *const ()) {
        for (class, depot) in (0..).map(ClassIndex).zip(&self.depots) {
            // SAFETY: `attach` gave the address.
            let cache = unsafe { self.cache_at(caches, class) };
            if !cache.is_blank() {
                self.hand_on(me, cache, depot, cache.resting());
            }
        }
    }

    /// Moves all that this thread caches of a class to the depot, and ends the leases of
    /// its room there, so that what returns next comes the slow way.
    pub(crate) fn give_up(&self, class: ClassIndex) {
        if let Some((me, caches)) = self.attached() {
            // SAFETY: `attached` gave the address.
            let cache = unsafe { self.cache_at(caches, class) };
            self.hand_on(me, cache, &self.depots[class.get()], cache.held());
        }
    }

    /// Moves the `count` items that this thread has had longest to the depot,
    /// and ends the leases of room that holds nothing.
    fn hand_on(&self, me: Token, cache: &Cache<T>, depot: &Depot<T>, mut count: usize) {
        let full = depot.limits().magazine_rounds;
        while count > 0 {
            // What fills no magazine goes loose. Not as a short magazine: see `Depot::idle`.
            let out = if count >= full { full } else { count };
            let mut magazine = Magazine::new();
            if !cache.flush(me, out, 0, &mut magazine) {
                break; // claimed: left to whoever comes next
            }
            cache.account().give_back(out * cache.unit());
            if out == full {
                self.keep_magazine(depot, magazine);
            } else {
                self.keep_rest(depot, &mut magazine);
            }
            count -= out;
        }
        let room = cache.cut_room(me);
        self.end_leases(depot, Some(cache.account()), room);
    }

    /// Looks at each thread's caches, without allocating, and without keeping a new thread
    /// waiting for long. Returns `false` if that would take a [wait](Wait).
    fn visit_caches(&self, wait: Wait, mut visit: impl FnMut(&[Cache<T>])) -> bool {
        let Some(count) = self.caches_len(wait) else {
            return false;
        };
        (0..count).all(|at| {
            let caches = self.nth_caches(at, wait);
            caches.inspect(|caches| visit(caches)).is_some()
        })
    }

    /// How many threads' caches there are. They are counted from 0 on, and none is removed.
    /// `None` if that would take a [wait](Wait).
    fn caches_len(&self, wait: Wait) -> Option<usize> {
        self.threads(wait).map(|threads| threads.len())
    }

    /// The caches of one of the threads. `None` if that would take a [wait](Wait).
    fn nth_caches(&self, at: usize, wait: Wait) -> Option<&[Cache<T>]> {
        let threads = self.threads(wait)?;
        threads.get(at).map(|thread| self.caches_of(thread))
    }

    fn threads(&self, wait: Wait) -> Option<MutexGuard<'_, Vec<ThreadCaches<T>>>> {
        match wait {
            Wait::Never => lock_briefly(&self.threads),
            Wait::ForLock => Some(lock(&self.threads)),
        }
    }

    /// A thread's caches, for longer than the lock is held under which they were found.
    fn caches_of(&self, thread: &ThreadCaches<T>) -> &[Cache<T>] {
        let caches = &thread.caches;
        // SAFETY: so many caches are there. `thread` is one of this engine's, and these
        // are neither moved nor removed while the engine lives, as `self` does; nor does
        // anybody have them to himself.
        unsafe { slice::from_raw_parts(caches.as_ptr(), caches.len()) }
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

    // ---- what can be seen ----

    /// Sums up one class over all levels. Exact while no thread uses the engine.
    pub(crate) fn levels(&self, class: ClassIndex) -> Levels {
        let depot = &self.depots[class.get()];
        let (idle_items, idle_weight) = depot.idle();
        let mut sum = Levels {
            local_hits: 0,
            depot_hits: depot.hits.get(),
            returns: depot.returns.get(),
            exchanged: 0,
            trimmed: depot.trimmed.get(),
            idle_items,
            idle_weight,
        };
        self.visit_caches(Wait::ForLock, |caches| {
            let cache = caches[class.get()].levels();
            sum.local_hits += cache.local_hits;
            sum.depot_hits += cache.depot_hits;
            sum.returns += cache.returns;
            sum.exchanged += cache.exchanged;
            sum.idle_items += cache.idle_items;
            sum.idle_weight += cache.idle_weight;
        });
        // Never less than was shown before: a cache that is at work shows too
        // few, and a count must not fall.
        sum.local_hits = depot.local_hits_shown.raise_to(sum.local_hits);
        sum.returns = depot.returns_shown.raise_to(sum.returns);
        sum
    }

    /// Items of a class that trims leave idle.
    pub(crate) fn keep_idle(&self, class: ClassIndex) -> usize {
        self.depots[class.get()].limits().keep_idle
    }

    /// How many idle items of a class were freed.
    pub(crate) fn trimmed(&self, class: ClassIndex) -> u64 {
        self.depots[class.get()].trimmed.get()
    }

    /// What is leased now, never less than the weight of all that is retained.
    pub(crate) fn leased(&self) -> usize {
        self.account.leased()
    }
}

/// In debug builds: what is leased is for what is here, or for room in a cache, and for
/// nothing else. After a race whose end leaves a lease too many or too few, this fails.
impl<T: Item> Drop for Engine<T> {
    fn drop(&mut self) {
        if !cfg!(debug_assertions) || std::thread::panicking() {
            return;
        }
        let threads = lock(&self.threads);
        let mut leased = 0_usize;
        for (class, depot) in self.depots.iter().enumerate() {
            let rooms = threads.iter().map(|thread| thread.caches[class].room());
            let rooms: usize = rooms.sum();
            let (items, weight) = depot.idle();
            depot.account.assert_leased(rooms + items);
            // Wrapping: without a limit it may be any number, and is not compared.
            let in_caches = rooms.wrapping_mul(depot.limits().weight);
            leased = leased.wrapping_add(in_caches).wrapping_add(weight);
        }
        self.account.assert_leased(leased);
        for thread in &*threads {
            let rooms = thread
                .caches
                .iter()
                .map(|cache| cache.room() * cache.unit());
            thread.account[0].assert_leased(rooms.sum());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    thread_local! {
        /// Things that this thread freed.
        static FREED: Cell<usize> = const { Cell::new(0) };
        /// Which parts of things it released.
        static RELEASED: RefCell<Vec<Range<usize>>> = const { RefCell::new(Vec::new()) };
    }

    /// An item of which only the number counts.
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
        fn weight(&self) -> usize {
            Thing::WEIGHT
        }

        fn free(self) {
            FREED.set(FREED.get() + 1);
        }

        fn release(&mut self, part: Range<usize>) -> bool {
            RELEASED.with_borrow_mut(|released| released.push(part));
            true
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
    fn an_engine_that_ends_with_a_lease_for_nothing_says_so() {
        type Lease = fn(&Engine<Thing>) -> usize;
        let leases: [Lease; 4] = [
            |engine| engine.account.lease(Thing::WEIGHT, 1),
            |engine| engine.depots[CLASS.get()].account.lease(1, 1),
            |engine| lock(&engine.threads)[0].account[0].lease(Thing::WEIGHT, 1),
            |_| 0,
        ];
        for lease in leases {
            let home = engine_of(100, 100);
            // In the depot, from a thread that has ended, and in this thread's cache.
            let keep = || assert!(home.engine.keep(CLASS, Thing).is_ok());
            std::thread::scope(|scope| {
                (0..2).for_each(|_| scope.spawn(keep).join().expect("it has kept one"));
            });
            keep();
            let leased = lease(&home.engine);
            let end = std::panic::AssertUnwindSafe(|| drop(home));
            assert_eq!(std::panic::catch_unwind(end).is_err(), leased > 0);
        }
    }

    #[test]
    fn a_magazine_that_goes_for_less_room_than_it_had_gives_the_threads_leases_back() {
        for more in 0..=CACHE / 2 {
            let home = engine_of((CACHE + more) * Thing::WEIGHT, 1000 * Thing::WEIGHT);
            let kept = (0..2 * CACHE).filter(|_| home.engine.keep(CLASS, Thing).is_ok());
            assert_eq!(kept.count(), CACHE + more);
            assert_eq!(home.engine.levels(CLASS).idle_items, CACHE + more);
            let thread = &lock(&home.engine.threads)[0];
            let room = thread.caches[CLASS.get()].room();
            assert_eq!(thread.account[0].leased(), room * Thing::WEIGHT);
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

    // What must stay on its thread makes nothing that holds it go to another one.
    type StaysHere = Rc<()>;
    assert_is_not!(Cache<StaysHere>: Send);
    assert_is_not!(Cache<StaysHere>: Sync);
    assert_is_not!(Origin<StaysHere>: Send);
    assert_is_not!(Origin<StaysHere>: Sync);
    assert_is_not!(ring::Ring<StaysHere>: Send);
    assert_is_not!(ring::Ring<StaysHere>: Sync);
}
