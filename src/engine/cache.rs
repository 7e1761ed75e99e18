//! One thread's cache of one size class: an array of items behind `busy` and `owner`.
//!
//! Owns the items that one thread keeps at hand, their low-water mark, and the
//! protocol by which another thread takes them away. Knows nothing of bytes, of
//! the depot, or of how a thread finds its cache.
//!
//! # The protocol
//!
//! The owner enters by storing `busy`, running the light barrier and then
//! loading `owner`; it goes on only if it reads its own token. Whoever claims
//! the cache marks `owner` first, runs the heavy barrier and then waits until
//! `busy` is clear. Each stores before it loads, and the barriers pair, so at
//! least one of them sees the other: either the owner sees that the cache is
//! claimed and leaves without touching an item, or the claimer sees `busy` and
//! waits. Neither a lock nor an atomic read-modify-write is on the owner's
//! side, and the owner never waits.
//!
//! One thread claims at a time, under a lock of the engine's (`trim.rs`). It
//! ends a claim by taking its mark off again; a cache of a closed engine stays
//! claimed for good.
//!
//! # What was not needed
//!
//! The items that were here at the last trim, and not taken since, are *resting*.
//! They are as many as the cache's low-water mark says: the fewest it held since
//! that trim. They lie apart, at the end of the array, so that [`Cache::pop`]
//! need not look where the mark is. When there is nothing else, the thread goes
//! the slow way, and [`Cache::pop_resting`] takes one of them. A trim frees those
//! that are left, and puts the others to rest.
//!
//! ```text
//! rounds:  [ 0 .. len: the last is taken first | .. limit: room | resting: the first is taken first ]
//! ```

use super::account::Account;
use super::barrier;
use super::depot::{MAGAZINE_ROUNDS, Magazine};
use super::local::Token;
use super::tally::{Return, Tally};
use super::{ClassLimits, Idle, Item, Levels};
use crate::clock;
use crate::sync::{
    AtomicBool, AtomicUsize, Counter, Exclusive, MODELLED, Ordering, fence, load_unshared,
    yield_now,
};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::time::Duration;

/// Two magazines: after an exchange in either direction one remains, so a
/// thread that alternates at the boundary does not go to the depot each time.
pub(crate) const CACHE_ROUNDS: usize = 2 * MAGAZINE_ROUNDS;

/// How long a claimer sleeps each time that it has waited in vain for an owner to leave.
const OWNER_WAIT: Duration = Duration::from_micros(100);

/// How long a claimer waits for an owner that is in the middle of a push or a pop.
///
/// These take some nanoseconds, unless the system stops the owner's thread just there. Then
/// they take until that thread runs again.
#[derive(Debug)]
pub(super) enum Patience {
    /// Some microseconds: what a get or a drop may spend.
    Brief,
    /// As long as this in all, for one claimer's caches together.
    Naps(Duration),
    /// As long as it takes.
    Endless,
}

impl Patience {
    /// Waits a little, the longer the more often it has waited before. Returns `false` once
    /// it waits no more.
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
/// Added to the token in `owner` where the light barrier is not enough: the
/// quick comparison then fails, and the owner runs a full one.
const FENCED: usize = 1;
/// Added to `owner`, whoever that is, while another thread has the cache.
const CLAIMED: usize = 2;

// No token has a bit of these, and none is `FREE`.
const _: () = assert!(Token::LEAST > FREE && Token::STEP > (FENCED | CLAIMED));
const _: () = assert!(Token::LEAST % Token::STEP == 0 && Token::STEP.is_power_of_two());

/// One thread's cache of one size class.
// 128: two cache lines, since processors fetch them in pairs; two threads'
// caches must not share one. What a `get` and a drop use is in the first 64.
#[repr(C, align(128))]
pub(super) struct Cache<T> {
    /// [`FREE`], or the token of the thread that may enter, plus [`FENCED`] if
    /// need be; and [`CLAIMED`].
    owner: AtomicUsize,
    /// Set while the owner works on `rounds`.
    busy: AtomicBool,
    /// How many `rounds` may be used from the start. With `resting`, as many as
    /// are leased, and at most [`CACHE_ROUNDS`]. Written, as is all below, by who
    /// is inside: the owner between `enter` and `leave`, or the claimer.
    limit: AtomicUsize,
    /// Weight of every item here.
    unit: usize,
    /// How many `rounds` are initialised from the start.
    len: AtomicUsize,
    /// How many `rounds` are initialised at the end.
    resting: AtomicUsize,
    /// Items that the owner gave back, but for those in `tally` and `exchanged`.
    returns: Counter,
    /// Items that came from the depot.
    refilled: Counter,
    rounds: UnsafeCell<[MaybeUninit<T>; CACHE_ROUNDS]>,
    /// Items that the owner gave back the quick way.
    tally: Tally,
    /// Items that the owner gave back the quick way, exchanged for another.
    exchanged: Counter,
    /// Items that the owner took in exchange for another.
    pub(super) taken_in_exchange: Counter,
    /// Items that went to the depot, or were freed here.
    flushed: Counter,
    /// Items handed to the owner straight from a magazine out of the depot.
    pub(super) depot_hits: Counter,
    /// What all caches of this thread together lease from.
    account: NonNull<Account>,
    /// The most there may be room for.
    room_max: usize,
    exclusive: Exclusive,
}

const _: () = assert!(
    std::mem::offset_of!(Cache<Box<()>>, rounds) <= 64 || MODELLED,
    "what every get and drop uses is in one cache line"
);

// SAFETY: `rounds` and `account` need the argument. `rounds` is touched by
// the owner between `enter` and `leave`, and by whoever has claimed the cache
// and then seen the owner leave; the protocol above keeps these apart. Items
// cross threads that way, hence `T: Send`. For `account`, see below.
unsafe impl<T: Send> Sync for Cache<T> {}
// SAFETY: `account` is the one field that needs the argument. It is only read through
// that address, which is good on any thread: an account is made of atomics.
unsafe impl<T: Send> Send for Cache<T> {}

/// What a claimer took out of a cache.
pub(super) struct Taken<T> {
    pub(super) items: [Magazine<T>; 2],
    /// How many rounds' leases the cache had and needs no more, these items' included.
    pub(super) rounds: usize,
}

impl<T> Taken<T> {
    /// How many items there are.
    pub(super) fn len(&self) -> usize {
        self.items.iter().map(Magazine::len).sum()
    }

    /// Takes up to `full` of the items.
    pub(super) fn next_magazine(&mut self, full: usize) -> Option<Magazine<T>> {
        let mut rest = self.items.iter_mut().filter(|items| items.len() > 0);
        rest.next().map(|items| items.split_first(full))
    }
}

impl<T: Item> Cache<T> {
    /// A cache that no thread uses yet.
    ///
    /// # Safety
    ///
    /// - `account` is valid, and nobody has it to himself, until the cache is dropped.
    pub(super) unsafe fn new(limits: ClassLimits, account: NonNull<Account>) -> Self {
        Cache {
            owner: AtomicUsize::new(FREE),
            busy: AtomicBool::new(false),
            limit: AtomicUsize::new(0),
            unit: limits.weight,
            len: AtomicUsize::new(0),
            resting: AtomicUsize::new(0),
            returns: Counter::default(),
            refilled: Counter::default(),
            rounds: UnsafeCell::new([const { MaybeUninit::uninit() }; CACHE_ROUNDS]),
            tally: Tally::new(),
            exchanged: Counter::default(),
            taken_in_exchange: Counter::default(),
            flushed: Counter::default(),
            depot_hits: Counter::default(),
            account,
            room_max: limits.cache_rounds.min(CACHE_ROUNDS),
            exclusive: Exclusive::new(),
        }
    }

    /// Takes the item that came last, if the cache is `me`'s and holds one that
    /// is not resting.
    #[inline(always)]
    pub(super) fn pop(&self, me: Token) -> Option<T> {
        if !self.enter(me) {
            return None;
        }
        // SAFETY: between `enter` and `leave`.
        let item = unsafe { self.take_last() };
        self.leave();
        item
    }

    /// Takes the item that came last, if the cache is `me`'s and holds any.
    pub(super) fn pop_resting(&self, me: Token) -> Option<T> {
        if self.held() == 0 || !self.enter(me) {
            return None;
        }
        // SAFETY: between `enter` and `leave`, here and below.
        let item = unsafe { self.take_last() }.or_else(|| unsafe { self.take_resting() });
        self.leave();
        item
    }

    /// Weight of every item here.
    #[inline(always)]
    pub(super) fn unit(&self) -> usize {
        self.unit
    }

    /// Keeps an item of weight [`unit`](Self::unit), or hands it back if the
    /// cache has no room or is not `me`'s to enter, or as [`Return`] says.
    ///
    /// # Safety
    ///
    /// - `me` is the calling thread's.
    /// - `this` is alive at the call. Once it has kept the item, it need not
    ///   be: another thread may free the item, and with it what kept `this`
    ///   alive. Hence a pointer and not a reference.
    #[inline(always)]
    pub(super) unsafe fn push(
        this: *const Self,
        me: Token,
        item: T,
        count: Return,
    ) -> Result<(), T> {
        // SAFETY: alive, as the caller promises, until `busy` is clear.
        let cache = unsafe { &*this };
        debug_assert_eq!(item.weight(), cache.unit, "else `levels` would lie");
        if !cache.enter(me) {
            return Err(item);
        }
        // SAFETY: between `enter` and the store below.
        let kept = unsafe { cache.add_last(item, count) };
        // What `leave` does, but through the pointer: no reference to the
        // whole is alive when the store lets another thread free it.
        // SAFETY: alive until this store is seen. Release: as in `leave`.
        unsafe { (*this).busy.store(false, Ordering::Release) };
        kept
    }

    /// Moves a magazine's items in, as far as there is room, after making room
    /// for `more` as [`add_room`](Self::add_room) does.
    pub(super) fn refill(&self, me: Token, magazine: &mut Magazine<T>, more: usize) -> usize {
        let mut added = 0;
        if self.enter(me) {
            added = self.widen(more);
            let len = self.len();
            self.exclusive.touch();
            // SAFETY: between `enter` and `leave`; from `len` up to `limit`,
            // the rounds are not initialised.
            let refilled = unsafe { magazine.move_to(self.round(len), self.limit() - len) };
            self.set_len(len + refilled);
            self.refilled.add_by_owner(refilled); // after the length: see `levels`
            self.leave();
        }
        added
    }

    /// Makes room for `more` items, which are leased, and says for how many it
    /// did: for none if the cache is not `me`'s to enter, and for fewer if it
    /// would have too much room.
    pub(super) fn add_room(&self, me: Token, more: usize) -> usize {
        let mut added = 0;
        if self.enter(me) {
            added = self.widen(more);
            self.leave();
        }
        added
    }

    /// Called by who is inside.
    fn widen(&self, more: usize) -> usize {
        // Looked at again: what the caller saw from outside may have changed.
        let added = more.min(self.room_max.saturating_sub(self.room()));
        self.set_limit(self.limit() + added);
        added
    }

    /// Gives up the room that holds nothing, and says for how many items that was.
    pub(super) fn cut_room(&self, me: Token) -> usize {
        if !self.enter(me) {
            return 0;
        }
        let cut = self.limit() - self.len();
        self.set_limit(self.len());
        self.leave();
        cut
    }

    /// Moves the `out` items that came first to an empty magazine, and with them
    /// their room, but makes room for `more`. Says whether it did: not if there
    /// are fewer, the magazine is not empty, or the cache is not `me`'s to enter.
    pub(super) fn flush(
        &self,
        me: Token,
        out: usize,
        more: usize,
        magazine: &mut Magazine<T>,
    ) -> bool {
        if out == 0 || out > MAGAZINE_ROUNDS || !self.enter(me) {
            return false;
        }
        let enough = out <= self.held() && magazine.len() == 0;
        if enough {
            // SAFETY: between `enter` and `leave`; `out` and the magazine were
            // just looked at.
            unsafe { self.take_first(out, magazine) };
            self.set_limit(self.limit() + more);
        }
        self.leave();
        enough
    }

    /// Makes a free cache `me`'s.
    pub(super) fn acquire(&self, me: Token) {
        // Acquire: what the last owner did to the items; pairs with the
        // Release in `release`. What a claimer did is acquired by `enter`.
        let before = self.owner.fetch_or(owner_value(me), Ordering::Acquire);
        debug_assert_eq!(before & !CLAIMED, FREE, "one owner at a time");
    }

    /// Makes this thread's cache free, for the next thread with whatever it holds.
    pub(super) fn release(&self) {
        // Release: publishes what this thread did to the items; pairs with
        // the Acquire in `acquire` and in `claim`.
        self.owner.fetch_and(CLAIMED, Ordering::Release);
    }

    /// Keeps the owner out, once a heavy barrier has run. One thread at a time
    /// does this.
    pub(super) fn claim(&self) {
        // Acquire: what an owner that has ended did; pairs with `release`. The
        // heavy barrier orders the rest.
        let before = self.owner.fetch_or(CLAIMED, Ordering::Acquire);
        debug_assert_eq!(before & CLAIMED, 0, "one claimer at a time");
    }

    /// Lets the owner in again.
    pub(super) fn unclaim(&self) {
        // Release: what the claimer did; pairs with the Acquire in `enter`.
        self.owner.fetch_and(!CLAIMED, Ordering::Release);
    }

    /// Takes the idle items out of a cache that was claimed before the last
    /// heavy barrier, and all its room but for what it holds, and begins anew
    /// to mark what is needed.
    ///
    /// `None` if the owner is in the middle of a push or a pop for longer than `patience`.
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
        let out = match idle {
            Idle::Unneeded => self.resting(),
            Idle::All => self.held(),
        };
        let first = out.min(MAGAZINE_ROUNDS);
        let mut items = [Magazine::new(), Magazine::new()];
        // SAFETY: the owner is out, as was just seen, and cannot come back in:
        // it would load `owner` after the heavy barrier and find it claimed.
        // Nobody else claims at the same time. Both numbers together are at
        // most what is held, and each is at most a magazine.
        unsafe {
            self.take_first(first, &mut items[0]);
            self.take_first(out - first, &mut items[1]);
        }
        let room = self.limit() - self.len();
        // SAFETY: as above; none is resting any more.
        unsafe { self.put_to_rest() };
        Some(Taken {
            items,
            rounds: out + room,
        })
    }

    /// What this cache holds and what it has served.
    ///
    /// Exact while nobody is at work on it. Never more hits than there were.
    pub(super) fn levels(&self) -> Levels {
        // What came and neither went to the depot nor is here was handed out:
        // the difference saves the hot path a store. What came is read first,
        // and written after the length; what went is read last, and written
        // before it. So nothing is counted as come that is not in the length
        // or gone, and the difference is never too large.
        let exchanged = self.exchanged.get();
        let mut returns = self.returns.get() + exchanged;
        // Acquire: pairs with the Release in `Counter::add_by_owner`. See `Tally::counts`.
        fence(Ordering::Acquire);
        returns += self
            .tally
            .counts()
            .map(|(_, count)| count as u64)
            .sum::<u64>();
        let came = returns.wrapping_add(self.refilled.get());
        // Acquire: pairs with the Release in `Counter::add_by_owner` and in `Tally::count_down`.
        fence(Ordering::Acquire);
        // Acquire: pairs with the Release in `set_len` and `set_resting`. What is
        // put to rest is written there first, and read last.
        let len = self.len.load(Ordering::Acquire);
        let idle_items = len + self.resting.load(Ordering::Acquire);
        let went = self.flushed.get().wrapping_add(idle_items as u64);
        Levels {
            local_hits: u64::try_from(came.wrapping_sub(went) as i64).unwrap_or(0),
            depot_hits: self.depot_hits.get(),
            returns,
            exchanged,
            idle_items,
            idle_weight: idle_items * self.unit,
            ..Levels::default()
        }
    }

    /// Takes what came of the last batch of items of a kind the quick way. For the
    /// owner, who [grants](Self::grant) another then.
    pub(super) fn take_batch(&self, kind: usize) -> usize {
        let batch = usize::from(self.tally.take(kind));
        self.returns.add_by_owner(batch);
        batch
    }

    /// Has so many items of a kind come back the quick way. For the owner, after
    /// [`take_batch`](Self::take_batch).
    pub(super) fn grant(&self, kind: usize, batch: u8) {
        self.tally.grant(kind, batch);
    }

    /// How many items of each kind came back the quick way and are in no batch that
    /// was taken.
    pub(super) fn counts(&self) -> impl Iterator<Item = (usize, usize)> {
        self.tally.counts()
    }

    /// What all caches of this thread together lease from.
    pub(super) fn account(&self) -> &Account {
        // SAFETY: valid as long as the cache is, as `new` was promised.
        unsafe { self.account.as_ref() }
    }

    /// Whether an item would find room in front. As exact as [`held`](Self::held).
    pub(super) fn has_room(&self) -> bool {
        self.len() < self.limit()
    }

    /// Whether another thread has it just now, as far as can be seen.
    pub(super) fn is_claimed(&self) -> bool {
        // Relaxed: a hint.
        self.owner.load(Ordering::Relaxed) & CLAIMED != 0
    }

    /// Whether it holds nothing and no room, as far as can be seen from outside.
    pub(super) fn is_blank(&self) -> bool {
        self.room() == 0
    }

    #[inline(always)]
    fn enter(&self, me: Token) -> bool {
        // Relaxed: the light barrier orders it before the load below.
        self.busy.store(true, Ordering::Relaxed);
        barrier::light();
        // Acquire: what the last claimer did, if the cache was claimed since we
        // were here; pairs with the Release in `unclaim`. It may be stale; then
        // whoever claims runs its heavy barrier after this load, sees `busy`,
        // and waits.
        self.owner.load(Ordering::Acquire) == me.get() || self.enter_fenced(me)
    }

    /// Enters where the light barrier is not enough, and leaves what is not
    /// `me`'s to enter.
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

    /// Enters, as a push or a pop does, and stays there until `end` is called: as if the
    /// system had stopped the owner's thread.
    #[cfg(test)]
    pub(super) fn stop_inside(&self, me: Token) -> impl FnOnce() {
        assert!(self.enter(me));
        || self.leave()
    }

    /// How many items are here. For the owner exact, unless the cache is
    /// claimed; so for [`room`](Self::room) and [`resting`](Self::resting).
    pub(super) fn held(&self) -> usize {
        self.len() + self.resting()
    }

    /// For how many items there is room, those that are here included.
    pub(super) fn room(&self) -> usize {
        self.limit() + self.resting()
    }

    /// How many items were here at the last trim and have not been taken since.
    pub(super) fn resting(&self) -> usize {
        // Relaxed: written by who is inside, and whoever enters next has
        // acquired it; or only looked at. So for `len` and `limit`.
        self.resting.load(Ordering::Relaxed)
    }

    fn set_resting(&self, resting: usize) {
        // Release: pairs with the Acquire in `levels`.
        self.resting.store(resting, Ordering::Release);
    }

    fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn set_len(&self, len: usize) {
        // Release: pairs with the Acquire in `levels`.
        self.len.store(len, Ordering::Release);
    }

    fn limit(&self) -> usize {
        // Relaxed: see `resting`.
        self.limit.load(Ordering::Relaxed)
    }

    fn set_limit(&self, limit: usize) {
        assert!(
            limit + self.resting() <= CACHE_ROUNDS && limit >= self.len(),
            "what is initialised lies before the limit, or rests behind it"
        );
        // Relaxed: nobody who is not inside makes anything of it; who is inside has it
        // from the last one's `leave`, `unclaim` or `release`.
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Address of one of `rounds`.
    ///
    /// # Safety
    ///
    /// - `at` is at most [`CACHE_ROUNDS`].
    #[inline(always)]
    unsafe fn round(&self, at: usize) -> *mut MaybeUninit<T> {
        // SAFETY: in the array, or at its end.
        unsafe { self.rounds.get().cast::<MaybeUninit<T>>().add(at) }
    }

    /// Takes the item that came last of those that are not resting.
    ///
    /// # Safety
    ///
    /// - The caller is inside: between `enter` and `leave`, or it has claimed
    ///   the cache and seen the owner leave.
    #[inline(always)]
    unsafe fn take_last(&self) -> Option<T> {
        // SAFETY: only who is inside stores it.
        let last = unsafe { load_unshared(&self.len) }.checked_sub(1)?;
        self.exclusive.touch();
        // SAFETY: `last` is below `len`, hence initialised and in the array;
        // the new `len` excludes it, so nobody reads it again. The caller has
        // the cache to itself.
        let item = unsafe { self.round(last).read().assume_init() };
        self.set_len(last);
        Some(item)
    }

    /// Takes the resting item that came last, and leaves its room.
    ///
    /// # Safety
    ///
    /// - As for [`take_last`](Self::take_last).
    unsafe fn take_resting(&self) -> Option<T> {
        let rest = self.resting().checked_sub(1)?;
        self.exclusive.touch();
        // SAFETY: the last `resting` rounds are initialised; the new number
        // excludes the first of these, so nobody reads it again. The caller
        // has the cache to itself.
        let item = unsafe { self.round(CACHE_ROUNDS - 1 - rest).read().assume_init() };
        self.set_resting(rest);
        self.set_limit(self.limit() + 1);
        Some(item)
    }

    /// Moves the `out` items that came first to an empty magazine, and gives up
    /// their room. Those that are resting came before all others.
    ///
    /// # Safety
    ///
    /// - As for [`take_last`](Self::take_last).
    /// - `out` is at most what is [held](Self::held), and at most [`MAGAZINE_ROUNDS`].
    /// - The magazine is empty.
    unsafe fn take_first(&self, out: usize, magazine: &mut Magazine<T>) {
        let (len, resting) = (self.len(), self.resting());
        let rested = out.min(resting);
        let others = out - rested;
        self.exclusive.touch();
        self.flushed.add_by_owner(out); // before the lengths: see `levels`
        // SAFETY: the last `resting` rounds are initialised, and `rested` is at
        // most that. What is moved out is overwritten by the rest, or excluded
        // by the new number, so it is used there only. The caller has the cache
        // to itself.
        unsafe {
            magazine.add_from(self.round(CACHE_ROUNDS - rested), rested);
            let left = resting - rested;
            let from = self.round(CACHE_ROUNDS - resting);
            ptr::copy(from, self.round(CACHE_ROUNDS - left), left);
        }
        self.set_resting(resting - rested);
        // SAFETY: the first `len` rounds are initialised, and `others` is at
        // most that. Otherwise as above.
        unsafe {
            magazine.add_from(self.round(0), others);
            ptr::copy(self.round(others), self.round(0), len - others);
        }
        self.set_len(len - others);
        self.set_limit(self.limit() - others);
    }

    /// Puts all items to rest, and gives up the room that holds nothing.
    ///
    /// # Safety
    ///
    /// - As for [`take_last`](Self::take_last).
    /// - None is resting.
    unsafe fn put_to_rest(&self) {
        let len = self.len();
        self.exclusive.touch();
        // The last comes to lie first. SAFETY: the first `len` rounds are
        // initialised, and moved to the last `len`, where none is, or within
        // the array; from there they are used from now on. The caller has the
        // cache to itself.
        unsafe {
            std::slice::from_raw_parts_mut(self.round(0), len).reverse();
            ptr::copy(self.round(0), self.round(CACHE_ROUNDS - len), len);
        }
        self.set_resting(len); // before the length: see `levels`
        self.set_len(0);
        self.limit.store(0, Ordering::Relaxed); // Relaxed: see `set_limit`
    }

    /// # Safety
    ///
    /// - As for [`take_last`](Self::take_last).
    #[inline(always)]
    unsafe fn add_last(&self, item: T, count: Return) -> Result<(), T> {
        // SAFETY: only who is inside stores them.
        let (len, limit) = unsafe { (load_unshared(&self.len), load_unshared(&self.limit)) };
        if len >= limit {
            return Err(item);
        }
        let left = match count {
            Return::OfKind(kind) => match self.tally.left(kind).checked_sub(1) {
                Some(left) => left,
                None => return Err(item),
            },
            _ => 0,
        };
        self.exclusive.touch();
        // SAFETY: `len` is below `limit`, hence in the array, and this round
        // is not initialised, so nothing is overwritten. The caller has the
        // cache to itself.
        unsafe { self.round(len).write(MaybeUninit::new(item)) };
        self.set_len(len + 1);
        // After the length: see `levels`.
        match count {
            Return::OfKind(kind) => self.tally.count_down(kind, left),
            Return::Exchanged => self.exchanged.add_by_owner(1),
            Return::Plain => self.returns.add_by_owner(1),
        }
        Ok(())
    }
}

/// What `owner` holds while the cache is `me`'s and not claimed.
fn owner_value(me: Token) -> usize {
    if barrier::light_is_enough() {
        me.get()
    } else {
        me.get() + FENCED
    }
}

impl<T> Drop for Cache<T> {
    /// For items that do not keep the engine alive; those that do were drained.
    fn drop(&mut self) {
        // Relaxed: `&mut self` says that no thread uses the cache.
        let len = self.len.load(Ordering::Relaxed);
        let resting = self.resting.load(Ordering::Relaxed);
        let (front, end) = self.rounds.get_mut().split_at_mut(CACHE_ROUNDS - resting);
        for round in front[..len].iter_mut().chain(end) {
            // SAFETY: these are the initialised ones.
            unsafe { round.assume_init_drop() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::UNLIMITED;
    use std::sync::Arc;

    /// An item whose end can be seen.
    struct Seen {
        _end: Arc<()>,
    }

    impl Item for Seen {
        fn weight(&self) -> usize {
            1
        }

        fn free(self) {}

        fn release(&mut self, _part: std::ops::Range<usize>) -> bool {
            false
        }
    }

    /// The cache of the thread that made it, and how many of its items are left.
    struct Owned {
        cache: Cache<Seen>,
        me: Token,
        /// After the cache, which has its address. In a vector, as those of threads are.
        _account: Vec<Account>,
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
            let account = vec![Account::new(UNLIMITED)];
            // SAFETY: the account stays where it is when its vector is moved, is only ever
            // read, and is dropped after the cache, by the order of the fields.
            let cache = unsafe { Cache::new(limits, NonNull::from(&account[0])) };
            cache.acquire(me);
            Owned {
                cache,
                me,
                _account: account,
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

        /// Puts in so many, after making room for as many.
        fn put(&self, count: usize) {
            assert_eq!(self.cache.add_room(self.me, count), count);
            for _ in 0..count {
                // SAFETY: the token is this thread's, and the cache lives on.
                let kept = unsafe { Cache::push(&self.cache, self.me, self.item(), Return::Plain) };
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
    fn a_cache_that_ends_frees_what_it_holds_resting_or_not() {
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
        assert_eq!((cache.held(), cache.resting()), (8, 5));
        assert_eq!(owned.alive(), 8);
        let end = Arc::clone(&owned.end);
        drop(owned);
        assert_eq!(Arc::strong_count(&end), 1);
    }

    // Failed once: it was counted in naps, and each took as long as the processor was busy.
    #[test]
    fn patience_ends_after_the_time_that_was_waited() {
        const ALL: Duration = Duration::from_millis(2);
        let mut patience = Patience::Naps(ALL);
        assert!(patience.wait(1000));
        // As long as it took, which is always longer than was asked for.
        assert!(matches!(patience, Patience::Naps(left) if ALL - left > OWNER_WAIT));
        let waits = (0..).take_while(|&waited| patience.wait(waited + 1000));
        let most = ALL.as_micros() / OWNER_WAIT.as_micros();
        assert!((1..=most).contains(&(waits.count() as u128)));
        assert!(!patience.wait(1000), "it is used up for other caches, too");
        assert!(!Patience::Brief.wait(1000));
        assert!(Patience::Endless.wait(1000));
    }

    #[test]
    fn a_cache_lets_nobody_in_but_its_owner() {
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
        assert_eq!((cache.held(), cache.room()), (2, 2));
        cache.claim();
        assert!(cache.pop(owned.me).is_none());
        assert_eq!(cache.add_room(owned.me, 1), 0);
        cache.unclaim();
        cache.release();
        assert!(cache.pop(owned.me).is_none());
        cache.acquire(owned.me);
        assert!(cache.pop(owned.me).is_some());
    }

    #[test]
    fn a_refill_of_a_cache_that_holds_some_stops_where_its_room_does() {
        let owned = Owned::new();
        owned.put(3);
        let mut magazine = owned.magazine(7);
        assert_eq!(owned.cache.refill(owned.me, &mut magazine, 2), 2);
        assert_eq!((owned.cache.held(), owned.cache.room()), (5, 5));
        assert_eq!(magazine.len(), 5);
        assert_eq!(owned.alive(), 10);
        assert_eq!(owned.cache.refill(owned.me, &mut magazine, 0), 0);
        assert_eq!((owned.cache.held(), magazine.len()), (5, 5));
        drop(magazine);
        assert_eq!(owned.alive(), 5, "what is in a magazine ends with it");
    }

    #[test]
    fn a_flush_that_cannot_be_whole_moves_nothing() {
        let owned = Owned::new();
        let held = MAGAZINE_ROUNDS + 2;
        owned.put(held);
        for (out, before) in [
            (0, 0),
            (MAGAZINE_ROUNDS + 1, 0), // more than a magazine takes
            (2, 1),                   // a magazine that is not empty
        ] {
            let mut magazine = owned.magazine(before);
            assert!(!owned.cache.flush(owned.me, out, 9, &mut magazine));
            assert_eq!((owned.cache.held(), owned.cache.room()), (held, held));
            assert_eq!(magazine.len(), before);
        }
        let mut magazine = Magazine::new();
        assert!(
            owned
                .cache
                .flush(owned.me, MAGAZINE_ROUNDS, 9, &mut magazine)
        );
        assert_eq!((owned.cache.held(), owned.cache.room()), (2, 11));
        assert_eq!(magazine.len(), MAGAZINE_ROUNDS);
        // More than there are.
        let mut magazine = Magazine::new();
        assert!(!owned.cache.flush(owned.me, 3, 9, &mut magazine));
        assert_eq!((owned.cache.held(), owned.cache.room()), (2, 11));
        assert_eq!(magazine.len(), 0);
    }
}
