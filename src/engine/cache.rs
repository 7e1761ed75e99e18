//! One thread's cache of one size class: who may touch its items, and when.
//!
//! Owns the protocol by which the owner works without a lock and another thread takes the
//! items away. Knows nothing of bytes, of the depot, or of how a thread finds its cache. The
//! operations on the items, once a thread is inside, are in `rounds.rs`.
//!
//! # The protocol
//!
//! The owner enters by storing `busy`, running the light barrier and then loading `owner`. It goes
//! on only if it reads its own token. A claimer marks `owner` first, runs the heavy barrier, and
//! then waits until `busy` is clear.
//!
//! Each stores before it loads, and the barriers pair. So at least one of them sees the other.
//! Either the owner sees the claim, and leaves without touching an item. Or the claimer sees
//! `busy`, and waits. The owner's side has no lock and no atomic read-modify-write, and the owner
//! never waits.
//!
//! One thread claims at a time, under a lock of the engine (`trim.rs`). It ends the claim by
//! removing its mark. A cache of a closed engine stays claimed for good.

use super::account::Account;
use super::barrier;
use super::item::{ClassIndex, ClassLimits, Idle, Item, Levels};
use super::local::Token;
use super::magazine::Magazine;
use super::rounds::{ARRAY_AT, Alone, Rounds, Seen, Taken};
use crate::clock;
use crate::sync::{AtomicBool, AtomicUsize, Counter, MODELLED, Ordering, StaticPtr, yield_now};
use std::ptr::NonNull;
use std::time::Duration;

/// How long a claimer sleeps after each wait in which the owner did not leave.
const OWNER_WAIT: Duration = Duration::from_micros(100);

/// How long a claimer waits for an owner that is in the middle of a push or a pop.
///
/// A push or a pop takes some nanoseconds, unless the system stops the owner's thread there.
/// Then it takes until that thread runs again.
#[derive(Debug)]
pub(super) enum Patience {
    /// Some microseconds: as long as a get or a drop may wait.
    Brief,
    /// As long as this in all, for one claimer's caches together.
    Naps(Duration),
    /// As long as it takes.
    Endless,
}

impl Patience {
    /// Waits a little, the longer the more often it has waited before. Returns `false` once it has
    /// used up its patience.
    fn wait(&mut self, waited: u32) -> bool {
        const SPINS: u32 = 64;
        if MODELLED {
            if let Patience::Brief = self {
                return false;
            }
            yield_now();
            return true;
        }
        // Sleeps: an owner that the system has stopped, or one of lower priority, needs our
        // processor.
        match (waited, self) {
            (..SPINS, _) => std::hint::spin_loop(),
            (_, Patience::Brief) => return false,
            (_, Patience::Naps(left)) if left.is_zero() => return false,
            (_, Patience::Naps(left)) => *left = left.saturating_sub(clock::nap(OWNER_WAIT)),
            (_, Patience::Endless) => drop(clock::nap(OWNER_WAIT)),
        }
        true
    }
}

/// `owner` of a cache that no thread uses.
const FREE: usize = 0;
/// Added to the token in `owner` where the light barrier is not enough. The comparison on the fast
/// path fails then, and the owner runs a full barrier.
const FENCED: usize = 1;
/// Added to `owner`, whatever its value, while another thread has the cache.
const CLAIMED: usize = 2;

// No token has one of these bits set, and none is `FREE`.
const _: () = assert!(Token::LEAST > FREE && Token::STEP > (FENCED | CLAIMED));
const _: () = assert!(Token::LEAST % Token::STEP == 0 && Token::STEP.is_power_of_two());

/// The state that a thread has once, for all of its caches.
pub(super) struct Thread<N> {
    /// Whether a thread has the caches now.
    pub(super) in_use: AtomicBool,
    /// The account from which the caches lease.
    pub(super) account: Account,
    /// The notes that the items' owner keeps for the thread.
    pub(super) notes: N,
}

/// One thread's cache of one size class.
// 128: two cache lines, since processors fetch them in pairs, and two threads' caches must not
// share one. The fields that a get and a drop use are in the first 64 bytes.
#[repr(C, align(128))]
pub(super) struct Cache<T: Item> {
    /// [`FREE`], or the token of the thread that may enter, plus [`FENCED`] where its light barrier
    /// is not enough. In addition, [`CLAIMED`].
    owner: AtomicUsize,
    /// Set while the owner works on `rounds`.
    busy: AtomicBool,
    /// Weight of every item here.
    unit: usize,
    rounds: Rounds<T>,
    /// Items handed to the owner straight from a magazine out of the depot.
    pub(super) depot_hits: Counter,
    /// Items that the owner outgrew.
    pub(super) growths: Counter,
    /// Returned items that the owner had asked for by size, as far as samples have counted them.
    pub(super) requests: Counter,
    class: ClassIndex,
    // Never changes. Atomic only so that the cache may go from thread to thread.
    thread: StaticPtr<Thread<T::Notes>>,
}

const _: () = assert!(
    3 * size_of::<usize>() + ARRAY_AT <= 64 || MODELLED,
    "the fields of every get and drop are in one cache line"
);

impl<T: Item> Cache<T> {
    /// A cache that no thread uses yet.
    ///
    /// # Safety
    ///
    /// - `thread` is valid, and only read, until the cache is dropped.
    pub(super) unsafe fn new(
        class: ClassIndex,
        limits: ClassLimits,
        thread: NonNull<Thread<T::Notes>>,
    ) -> Self {
        Cache {
            owner: AtomicUsize::new(FREE),
            busy: AtomicBool::new(false),
            unit: limits.weight,
            rounds: Rounds::new(limits.cache_rounds),
            depot_hits: Counter::default(),
            growths: Counter::default(),
            requests: Counter::default(),
            class,
            thread: StaticPtr::new(thread.as_ptr()),
        }
    }

    // ---- for the owner ----

    /// Takes the latest item, if the cache is `me`'s and holds one that is not resting.
    #[inline(always)]
    pub(super) fn pop(&self, me: Token) -> Option<T> {
        let item = self.enter(me)?.pop();
        self.leave();
        item
    }

    /// Takes the latest item, resting or not, if the cache is `me`'s and holds any.
    pub(super) fn pop_resting(&self, me: Token) -> Option<T> {
        self.inside(me, |alone| alone.pop_any())?
    }

    /// Keeps an item of weight [`unit`](Self::unit). Hands it back if the cache has no room, if
    /// `me` may not enter, or, unless `LOOKED_AT`, if a sample is due.
    ///
    /// # Safety
    ///
    /// - `this` is alive at the call. Once it has kept the item, it need not be: another thread may
    ///   free the item, and the item may be the last thing that keeps `this` alive. So `this` is a
    ///   pointer and not a reference.
    #[inline(always)]
    pub(super) unsafe fn push<const LOOKED_AT: bool>(
        this: NonNull<Self>,
        me: Token,
        item: T,
    ) -> Result<(), T> {
        // SAFETY: alive, as the caller promises, until `busy` is clear.
        let cache = unsafe { this.as_ref() };
        debug_assert_eq!(item.weight(), cache.unit, "otherwise `levels` is wrong");
        if !LOOKED_AT && cache.sample_is_due() {
            return Err(item);
        }
        let Some(mut alone) = cache.enter(me) else {
            return Err(item);
        };
        let kept = match LOOKED_AT && T::SAMPLE_EACH.is_none() {
            true => alone.push_looked_at(item),
            false => alone.push(item),
        };
        // As `leave`, but not a call of it. A call would hold a reference to the whole cache while
        // the store lets another thread free it. Nothing here uses the cache after the store.
        // Release: as in `leave`.
        cache.busy.store(false, Ordering::Release);
        kept
    }

    /// Whether the next return is a sample. For the owner.
    #[inline(always)]
    pub(super) fn sample_is_due(&self) -> bool {
        match T::SAMPLE_EACH {
            Some(each) => self.rounds.returns() % each == 0,
            None => self.rounds.sample_is_due(),
        }
    }

    /// How many items the cache holds, and its room; `None` if `me` may not enter.
    pub(super) fn look(&self, me: Token) -> Option<Seen> {
        self.inside(me, |alone| alone.look())
    }

    /// Moves a magazine's items in, as far as there is room, after making room for `more` items as
    /// [`add_room`](Self::add_room) does.
    pub(super) fn refill(&self, me: Token, magazine: &mut Magazine<T>, more: usize) -> usize {
        let refilled = self.inside(me, |alone| {
            let added = alone.widen(more);
            alone.refill(magazine);
            added
        });
        refilled.unwrap_or(0)
    }

    /// Makes room for `more` items, which are leased. Returns for how many: fewer if the cache
    /// reaches its limit, and none if `me` may not enter.
    pub(super) fn add_room(&self, me: Token, more: usize) -> usize {
        self.inside(me, |alone| alone.widen(more)).unwrap_or(0)
    }

    /// Gives up the empty room. Returns for how many items that was.
    pub(super) fn cut_room(&self, me: Token) -> usize {
        self.inside(me, |alone| alone.cut_room()).unwrap_or(0)
    }

    /// As [`Alone::flush`]. Returns `false` also if the cache is not `me`'s to enter.
    pub(super) fn flush(
        &self,
        me: Token,
        out: usize,
        more: usize,
        magazine: &mut Magazine<T>,
    ) -> bool {
        let flushed = self.inside(me, |alone| alone.flush(out, more, magazine));
        flushed.unwrap_or(false)
    }

    /// Makes a free cache `me`'s.
    pub(super) fn own(&self, me: Token) {
        // Acquire: sees the last owner's work on the items; pairs with the Release in `disown`.
        // `enter` acquires a claimer's work.
        let before = self.owner.fetch_or(owner_value(me), Ordering::Acquire);
        debug_assert_eq!(before & !CLAIMED, FREE, "one owner at a time");
    }

    /// Leaves this thread's cache to the next thread, with the items in it.
    pub(super) fn disown(&self) {
        // Release: publishes what this thread did to the items; pairs with
        // the Acquire in `own` and in `claim`.
        self.owner.fetch_and(CLAIMED, Ordering::Release);
    }

    /// Runs `work` inside; `None` if the cache is not `me`'s to enter.
    fn inside<R>(&self, me: Token, work: impl FnOnce(&mut Alone<T>) -> R) -> Option<R> {
        let done = work(&mut self.enter(me)?);
        self.leave();
        Some(done)
    }

    #[inline(always)]
    fn enter(&self, me: Token) -> Option<Alone<'_, T>> {
        // Relaxed: the light barrier orders it before the load below.
        self.busy.store(true, Ordering::Relaxed);
        barrier::light();
        // Acquire: sees the last claimer's work, if the cache was claimed since this thread was
        // here; pairs with the Release in `unclaim`. The value may be stale. Then the claimer runs
        // its heavy barrier after this load, sees `busy`, and waits.
        if self.owner.load(Ordering::Acquire) == me.get() || self.enter_fenced(me) {
            // SAFETY: the cache is this thread's, and not claimed, until `leave`.
            return Some(unsafe { self.rounds.alone() });
        }
        None
    }

    /// Enters where the light barrier is not enough, and leaves a cache that is not `me`'s to
    /// enter.
    #[cold]
    fn enter_fenced(&self, me: Token) -> bool {
        barrier::full();
        // Acquire: as in `enter`.
        let entered = self.owner.load(Ordering::Acquire) == me.get() + FENCED;
        if !entered {
            self.leave();
        }
        entered
    }

    #[inline(always)]
    fn leave(&self) {
        // Release: publishes the work on the items; pairs with the Acquire in
        // `take_idle`.
        self.busy.store(false, Ordering::Release);
    }

    /// Enters, as a push or a pop does, and stays inside until the result is called: like an owner
    /// whose thread the system has stopped.
    #[cfg(test)]
    pub(super) fn stop_inside(&self, me: Token) -> impl FnOnce() {
        assert!(self.enter(me).is_some());
        || self.leave()
    }

    // ---- for a claimer ----

    /// Keeps the owner out, once a heavy barrier has run. One thread at a time
    /// does this.
    pub(super) fn claim(&self) {
        // Acquire: sees the work of an owner that has left; pairs with `disown`. The heavy barrier
        // orders the rest.
        let before = self.owner.fetch_or(CLAIMED, Ordering::Acquire);
        debug_assert_eq!(before & CLAIMED, 0, "one claimer at a time");
    }

    /// Lets the owner in again.
    pub(super) fn unclaim(&self) {
        // Release: publishes the claimer's work; pairs with the Acquire in `enter`.
        self.owner.fetch_and(!CLAIMED, Ordering::Release);
    }

    /// Takes the idle items out of a cache that was claimed before the last heavy barrier,
    /// as [`Alone::take_idle`]. `None` if the owner is in the middle of a push or a pop for
    /// longer than `patience`.
    ///
    /// # Safety
    ///
    /// - [`claim`](Self::claim) and then [`barrier::heavy`] ran on this thread,
    ///   and [`unclaim`](Self::unclaim) did not.
    pub(super) unsafe fn take_idle(&self, idle: Idle, patience: &mut Patience) -> Option<Taken<T>> {
        let mut waited = 0_u32;
        // Acquire: the owner's writes to the items; pairs with the Release in `leave`.
        while self.busy.load(Ordering::Acquire) {
            if !patience.wait(waited) {
                return None;
            }
            waited = waited.saturating_add(1);
        }
        // SAFETY: the owner is out, as the loop has seen, and cannot come back in:
        // it would load `owner` after the heavy barrier and find it claimed.
        // No other thread claims at the same time.
        let mut alone = unsafe { self.rounds.alone() };
        Some(alone.take_idle(idle))
    }

    // ---- for every thread; exact for the owner, except while the cache is claimed ----

    /// Weight of every item here.
    #[inline(always)]
    pub(super) fn unit(&self) -> usize {
        self.unit
    }

    /// The class of the items here.
    pub(super) fn class(&self) -> ClassIndex {
        self.class
    }

    /// The items, as far as they can be seen from outside.
    pub(super) fn rounds(&self) -> &Rounds<T> {
        &self.rounds
    }

    /// The items that this cache holds, and the counts of those it has served.
    pub(super) fn levels(&self) -> Levels {
        Levels {
            depot_hits: self.depot_hits.get(),
            growths: self.growths.get(),
            ..self.rounds.levels(self.unit)
        }
    }

    /// Its thread's state for all caches.
    pub(super) fn thread(&self) -> &Thread<T::Notes> {
        // SAFETY: valid as long as the cache is, as `new` was promised. Relaxed: never stored to.
        unsafe { &*self.thread.load(Ordering::Relaxed) }
    }

    /// The account from which all caches of its thread lease.
    pub(super) fn account(&self) -> &Account {
        &self.thread().account
    }

    /// Whether a claimer has it now.
    pub(super) fn is_claimed(&self) -> bool {
        // Relaxed: a hint.
        self.owner.load(Ordering::Relaxed) & CLAIMED != 0
    }

    /// Whether it holds nothing and has no room.
    pub(super) fn is_blank(&self) -> bool {
        self.rounds.room() == 0
    }
}

/// The value of `owner` while the cache is `me`'s and not claimed.
fn owner_value(me: Token) -> usize {
    if barrier::light_is_enough() {
        me.get()
    } else {
        me.get() + FENCED
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::UNLIMITED;
    use crate::engine::item::{CACHE_ROUNDS, MAGAZINE_ROUNDS};
    use std::sync::Arc;

    /// An item whose end can be seen.
    struct Seen {
        _end: Arc<()>,
    }

    impl Item for Seen {
        type Notes = ();

        fn weight(&self) -> usize {
            1
        }

        fn free(self) {}

        fn give_back_pages(&mut self, _part: std::ops::Range<usize>) -> Option<usize> {
            None
        }
    }

    /// The cache of the thread that made it, and how many of its items are left.
    struct Owned {
        cache: Cache<Seen>,
        me: Token,
        /// After the cache, which has its address. In a vector, as in `ThreadCaches`.
        _thread: Vec<Thread<()>>,
        end: Arc<()>,
    }

    impl Owned {
        fn new() -> Self {
            barrier::prepare();
            let me = Token::of_this_thread().expect("this thread is not at its end");
            let limits = ClassLimits {
                items: UNLIMITED,
                cache_rounds: CACHE_ROUNDS,
                magazine_rounds: MAGAZINE_ROUNDS,
                weight: 1,
                keep_idle: 0,
            };
            let thread = vec![Thread {
                in_use: AtomicBool::new(true),
                account: Account::new(UNLIMITED),
                notes: (),
            }];
            // SAFETY: it stays where it is when its vector is moved, is only read, and is
            // dropped after the cache, by the order of the fields.
            let cache = unsafe { Cache::new(ClassIndex(0), limits, NonNull::from(&thread[0])) };
            cache.own(me);
            Owned {
                cache,
                me,
                _thread: thread,
                end: Arc::new(()),
            }
        }

        fn item(&self) -> Seen {
            Seen {
                _end: Arc::clone(&self.end),
            }
        }

        fn alive(&self) -> usize {
            Arc::strong_count(&self.end) - 1
        }

        /// Makes room for `count` items, and puts them in.
        fn put(&self, count: usize) {
            assert_eq!(self.cache.add_room(self.me, count), count);
            for _ in 0..count {
                // SAFETY: the token is this thread's, and the cache lives on.
                let kept = unsafe {
                    Cache::push::<true>(NonNull::from(&self.cache), self.me, self.item())
                };
                assert!(kept.is_ok());
            }
        }

        fn magazine(&self, count: usize) -> Magazine<Seen> {
            let mut magazine = Magazine::new();
            for _ in 0..count {
                magazine.push(self.item());
            }
            magazine
        }
    }

    #[test]
    fn a_cache_that_ends_frees_its_items_resting_or_not() {
        let owned = Owned::new();
        let cache = &owned.cache;
        owned.put(5);
        cache.claim();
        assert!(barrier::heavy());
        // SAFETY: claimed, and then the barrier, by the lines above.
        let taken = unsafe { cache.take_idle(Idle::Unneeded, &mut Patience::Brief) };
        cache.unclaim();
        let taken = taken.expect("the owner is here, and in no push or pop");
        assert_eq!(taken.rounds, 0, "they rest from now on");
        owned.put(3);
        assert_eq!((cache.rounds().held(), cache.rounds().resting()), (8, 5));
        assert_eq!(owned.alive(), 8);
        let end = Arc::clone(&owned.end);
        drop(owned);
        assert_eq!(Arc::strong_count(&end), 1);
    }

    // Failed once: patience was counted in naps, and a nap on a busy processor takes much longer.
    #[test]
    fn patience_ends_after_the_time_that_was_waited() {
        const ALL: Duration = Duration::from_millis(2);
        let mut patience = Patience::Naps(ALL);
        assert!(patience.wait(1000));
        // As long as the nap took, which is always longer than was asked for.
        assert!(matches!(patience, Patience::Naps(left) if ALL - left > OWNER_WAIT));
        let waits = (0..).take_while(|&waited| patience.wait(waited + 1000));
        let most = ALL.as_micros() / OWNER_WAIT.as_micros();
        assert!(
            waits.count() as u128 <= most,
            "none, if the first took as long as all"
        );
        assert!(!patience.wait(1000), "it is used up for other caches, too");
        assert!(!Patience::Brief.wait(1000));
        assert!(Patience::Endless.wait(1000));
    }

    #[test]
    fn a_cache_lets_only_its_owner_in() {
        let owned = Owned::new();
        owned.put(2);
        let cache = &owned.cache;
        std::thread::scope(|scope| {
            let stranger = || {
                let me = Token::of_this_thread().expect("this thread is not at its end");
                assert!(cache.pop(me).is_none());
                assert!(cache.pop_resting(me).is_none());
                assert_eq!(cache.add_room(me, 1), 0);
                assert_eq!(cache.cut_room(me), 0);
                assert_eq!(cache.refill(me, &mut Magazine::new(), 1), 0);
                assert!(!cache.flush(me, 1, 0, &mut Magazine::new()));
            };
            scope.spawn(stranger).join().expect("it was not let in");
        });
        assert_eq!((cache.rounds().held(), cache.rounds().room()), (2, 2));
        cache.claim();
        assert!(cache.pop(owned.me).is_none());
        assert_eq!(cache.add_room(owned.me, 1), 0);
        cache.unclaim();
        cache.disown();
        assert!(cache.pop(owned.me).is_none());
        cache.own(owned.me);
        assert!(cache.pop(owned.me).is_some());
    }

    #[test]
    fn a_refill_stops_when_the_room_of_the_cache_is_full() {
        let owned = Owned::new();
        owned.put(3);
        let mut magazine = owned.magazine(7);
        assert_eq!(owned.cache.refill(owned.me, &mut magazine, 2), 2);
        assert_eq!(
            (owned.cache.rounds().held(), owned.cache.rounds().room()),
            (5, 5)
        );
        assert_eq!(magazine.len(), 5);
        assert_eq!(owned.alive(), 10);
        assert_eq!(owned.cache.refill(owned.me, &mut magazine, 0), 0);
        assert_eq!((owned.cache.rounds().held(), magazine.len()), (5, 5));
        drop(magazine);
        assert_eq!(owned.alive(), 5, "a magazine that ends frees its items");
    }

    #[test]
    fn a_flush_that_cannot_be_whole_moves_nothing() {
        let owned = Owned::new();
        let held = MAGAZINE_ROUNDS + 2;
        owned.put(held);
        for (out, before) in [
            (0, 0),
            (MAGAZINE_ROUNDS + 1, 0), // more items than fit in a magazine
            (2, 1),                   // a magazine that is not empty
        ] {
            let mut magazine = owned.magazine(before);
            assert!(!owned.cache.flush(owned.me, out, 9, &mut magazine));
            assert_eq!(
                (owned.cache.rounds().held(), owned.cache.rounds().room()),
                (held, held)
            );
            assert_eq!(magazine.len(), before);
        }
        let mut magazine = Magazine::new();
        assert!(
            owned
                .cache
                .flush(owned.me, MAGAZINE_ROUNDS, 9, &mut magazine)
        );
        assert_eq!(
            (owned.cache.rounds().held(), owned.cache.rounds().room()),
            (2, 11)
        );
        assert_eq!(magazine.len(), MAGAZINE_ROUNDS);
        // More than the cache holds.
        let mut magazine = Magazine::new();
        assert!(!owned.cache.flush(owned.me, 3, 9, &mut magazine));
        assert_eq!(
            (owned.cache.rounds().held(), owned.cache.rounds().room()),
            (2, 11)
        );
        assert_eq!(magazine.len(), 0);
    }
}
