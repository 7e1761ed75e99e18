//! One thread's cache of one size class: an array of items behind `busy` and `owner`.
//!
//! Owns the items that one thread keeps at hand, and the protocol by which
//! another thread takes them away. Knows nothing of bytes, of the depot, or of
//! how a thread finds its cache.
//!
//! # The protocol
//!
//! The owner enters by storing `busy`, running the light barrier and then
//! loading `owner`; it goes on only if it reads its own token. Whoever closes
//! the cache stores `owner` first, runs the heavy barrier and then waits until
//! `busy` is clear. Each stores before it loads, and the barriers pair, so at
//! least one of them sees the other: either the owner sees that the cache is no
//! longer its own and leaves without touching an item, or the closer sees
//! `busy` and waits. Neither a lock nor an atomic read-modify-write is on the
//! owner's side.

use super::barrier;
use super::depot::{MAGAZINE_ROUNDS, Magazine};
use super::local::Token;
use super::{ClassLimits, Item, Levels};
use crate::sync::{AtomicBool, AtomicUsize, Counter, Ordering, fence};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr;

/// Two magazines: after an exchange in either direction one remains, so a
/// thread that alternates at the boundary does not go to the depot each time.
const CACHE_ROUNDS: usize = 2 * MAGAZINE_ROUNDS;

/// `owner` of a cache that no thread uses.
const FREE: usize = 0;
/// `owner` of a cache that takes nothing in any more.
const CLOSED: usize = 1;
/// Added to the token in `owner` where the light barrier is not enough: the
/// quick comparison then fails, and the owner runs a full one. Tokens are even.
const FENCED: usize = 1;

// No token, fenced or not, is a cache's that no thread may enter.
const _: () = assert!(Token::LEAST > CLOSED && Token::LEAST % 2 == 0);

/// One thread's cache of one size class.
// 128: two cache lines, since processors fetch them in pairs; two threads'
// caches must not share one. What a `get` and a drop use is in the first 64.
#[repr(C, align(128))]
pub(super) struct Cache<T> {
    /// [`FREE`], [`CLOSED`], or the token of the thread that may enter, plus
    /// [`FENCED`] if need be.
    owner: AtomicUsize,
    /// Set while the owner works on `rounds`.
    busy: AtomicBool,
    /// How many `rounds` may be used, at most [`CACHE_ROUNDS`].
    limit: usize,
    /// Weight of every item here.
    unit: usize,
    /// How many `rounds` are initialised, from the start. Written by the owner,
    /// as are the counters.
    len: AtomicUsize,
    /// Items that the owner gave back.
    returns: Counter,
    /// Items that came from the depot.
    refilled: Counter,
    /// Items that went to the depot.
    flushed: Counter,
    rounds: UnsafeCell<[MaybeUninit<T>; CACHE_ROUNDS]>,
    /// Items handed to the owner straight from a magazine out of the depot.
    pub(super) depot_hits: Counter,
}

const _: () = assert!(
    std::mem::offset_of!(Cache<Box<()>>, rounds) <= 64,
    "what every get and drop uses is in one cache line"
);

// SAFETY: `rounds` is the one field that needs the argument. It is touched by
// the owner between `enter` and `leave`, and by whoever closed the cache after
// `drain` has seen the owner leave; the protocol above keeps these apart.
// Items cross threads that way, hence `T: Send`.
unsafe impl<T: Send> Sync for Cache<T> {}

impl<T: Item> Cache<T> {
    pub(super) fn new(limits: ClassLimits) -> Self {
        Cache {
            owner: AtomicUsize::new(FREE),
            busy: AtomicBool::new(false),
            limit: limits.cache_rounds.min(CACHE_ROUNDS),
            unit: limits.weight,
            len: AtomicUsize::new(0),
            returns: Counter::default(),
            refilled: Counter::default(),
            flushed: Counter::default(),
            rounds: UnsafeCell::new([const { MaybeUninit::uninit() }; CACHE_ROUNDS]),
            depot_hits: Counter::default(),
        }
    }

    /// Takes the item that came last, if the cache is `me`'s and holds one.
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

    /// Weight of every item here.
    #[inline(always)]
    pub(super) fn unit(&self) -> usize {
        self.unit
    }

    /// Keeps an item of weight [`unit`](Self::unit), or hands it back if the
    /// cache is full or not `me`'s.
    ///
    /// # Safety
    ///
    /// - `me` is the calling thread's.
    /// - `this` is alive at the call. Once it has kept the item, it need not
    ///   be: another thread may free the item, and with it what kept `this`
    ///   alive. Hence a pointer and not a reference.
    #[inline(always)]
    pub(super) unsafe fn push(this: *const Self, me: Token, item: T) -> Result<(), T> {
        // SAFETY: alive, as the caller promises, until `busy` is clear.
        let cache = unsafe { &*this };
        debug_assert_eq!(item.weight(), cache.unit, "else `levels` would lie");
        if !cache.enter(me) {
            return Err(item);
        }
        // SAFETY: between `enter` and the store below.
        let kept = unsafe { cache.add_last(item) };
        if kept.is_ok() {
            cache.returns.add_by_owner(1); // after the length: see `levels`
        }
        // What `leave` does, but through the pointer: no reference to the
        // whole is alive when the store lets another thread free it.
        // SAFETY: alive until this store is seen. Release: as in `leave`.
        unsafe { (*this).busy.store(false, Ordering::Release) };
        kept
    }

    /// Moves a magazine's items in, as far as there is room and the cache is `me`'s.
    pub(super) fn refill(&self, me: Token, magazine: &mut Magazine<T>) {
        if self.enter(me) {
            let len = self.len();
            // SAFETY: between `enter` and `leave`; up to `limit`, at most the
            // array's length, the rounds from `len` on are not initialised.
            let refilled = unsafe { magazine.move_to(self.round(len), self.limit - len) };
            self.set_len(len + refilled);
            self.refilled.add_by_owner(refilled); // after the length: see `levels`
            self.leave();
        }
    }

    /// Moves out the `out` items that came first, at most a magazine; none if
    /// there are fewer, or the cache is not `me`'s.
    pub(super) fn flush(&self, me: Token, out: usize) -> Option<Magazine<T>> {
        let len = self.len();
        if out == 0 || out > len.min(MAGAZINE_ROUNDS) || !self.enter(me) {
            return None;
        }
        // SAFETY: between `enter` and `leave`; `out` is at most `len`, and the
        // first `len` rounds are initialised. What is moved out is overwritten
        // by the rest, or excluded by the new `len`, so it is used there only.
        let magazine = unsafe {
            let magazine = Magazine::filled_from(self.round(0), out);
            ptr::copy(self.round(out), self.round(0), len - out);
            magazine
        };
        self.flushed.add_by_owner(out); // before the length: see `levels`
        // Release: for this length and all that this thread will write; pairs
        // with the Acquire of the length in `levels`.
        fence(Ordering::Release);
        self.set_len(len - out);
        self.leave();
        Some(magazine)
    }

    /// Makes a free cache `me`'s. Leaves any other as it is.
    pub(super) fn acquire(&self, me: Token) {
        // Acquire: what the last owner did to the items; pairs with the
        // Release in `release`. Relaxed: on failure nothing is touched.
        let _ = self.owner.compare_exchange(
            FREE,
            owner_value(me),
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        // Release: whoever sees a length that this thread will write sees what
        // the last owner counted; pairs with the Acquire of it in `levels`.
        fence(Ordering::Release);
    }

    /// Makes `me`'s cache free, for the next thread with whatever it holds.
    pub(super) fn release(&self, me: Token) {
        // Release: publishes what this thread did to the items; pairs with
        // the Acquire in `acquire`. Relaxed: it was closed, which stays.
        let _ = self.owner.compare_exchange(
            owner_value(me),
            FREE,
            Ordering::Release,
            Ordering::Relaxed,
        );
    }

    /// Ends the cache's life: after a heavy barrier, no owner enters any more.
    pub(super) fn close(&self) {
        // AcqRel: Acquire pairs with `release`, since a free cache may hold
        // items. Release is not needed; the heavy barrier orders the rest.
        self.owner.swap(CLOSED, Ordering::AcqRel);
    }

    /// Frees all items of a cache that was closed before the last heavy barrier.
    ///
    /// Waits for an owner that is in the middle of a push or a pop.
    ///
    /// # Safety
    ///
    /// - [`close`](Self::close) and then [`barrier::heavy`] ran on this thread.
    /// - No other thread calls this.
    pub(super) unsafe fn drain(&self) {
        let mut spins = 0_u32;
        // Acquire: the owner's writes to the items; pairs with the Release in `leave`.
        while self.busy.load(Ordering::Acquire) {
            // An owner that was stopped by the scheduler needs our processor.
            if spins < 64 {
                spins += 1;
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        // SAFETY: the owner is out, as was just seen, and cannot come back in:
        // it would load `owner` after the heavy barrier and read CLOSED. The
        // caller promises that nobody else drains.
        while let Some(item) = unsafe { self.take_last() } {
            drop(item);
        }
    }

    /// What this cache holds and what it has served.
    ///
    /// Exact while the owner is not at work. Never more hits than there were.
    pub(super) fn levels(&self) -> Levels {
        // What came and neither went to the depot nor is here was handed out:
        // the difference saves the hot path a store. What came is read first,
        // and written after the length; what went is read last, and written
        // before it. So nothing is counted as come that is not in the length
        // or gone, and the difference is never too large.
        let returns = self.returns.get();
        let came = returns.wrapping_add(self.refilled.get());
        // Acquire: pairs with the Release in `Counter::add_by_owner`.
        fence(Ordering::Acquire);
        // Acquire: pairs with the Release fences in `flush` and `acquire`.
        let idle_items = self.len.load(Ordering::Acquire);
        let went = self.flushed.get().wrapping_add(idle_items as u64);
        Levels {
            local_hits: u64::try_from(came.wrapping_sub(went) as i64).unwrap_or(0),
            depot_hits: self.depot_hits.get(),
            returns,
            idle_items,
            idle_weight: idle_items * self.unit,
        }
    }

    #[inline(always)]
    fn enter(&self, me: Token) -> bool {
        // Relaxed: the light barrier orders it before the load below.
        self.busy.store(true, Ordering::Relaxed);
        barrier::light();
        // Relaxed: only this thread stores this token, so what it orders was
        // ordered in `acquire`. It may be stale; then whoever has stored over
        // it runs its heavy barrier after this load, sees `busy`, and waits.
        self.owner.load(Ordering::Relaxed) == me.get() || self.enter_fenced(me)
    }

    /// Enters where the light barrier is not enough, and leaves what is not `me`'s.
    #[cold]
    fn enter_fenced(&self, me: Token) -> bool {
        barrier::full();
        // Relaxed: as in `enter`.
        let entered = self.owner.load(Ordering::Relaxed) == me.get() + FENCED;
        if !entered {
            self.leave();
        }
        entered
    }

    #[inline(always)]
    fn leave(&self) {
        // Release: publishes the work on the items; pairs with the Acquire in `drain`.
        self.busy.store(false, Ordering::Release);
    }

    /// How many items are here: for the owner, exact.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        // Relaxed: written by the owner, which is this thread, or read for
        // `Stats`, or ordered by `busy` in `drain`. So in `set_len`.
        self.len.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn set_len(&self, len: usize) {
        self.len.store(len, Ordering::Relaxed);
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

    /// # Safety
    ///
    /// - The caller has the cache to itself: it is between `enter` and
    ///   `leave`, or it has closed the cache and seen the owner leave.
    #[inline(always)]
    unsafe fn take_last(&self) -> Option<T> {
        let last = self.len().checked_sub(1)?;
        // SAFETY: `last` is below `len`, hence initialised and in the array;
        // the new `len` excludes it, so nobody reads it again. The caller has
        // the cache to itself.
        let item = unsafe { self.round(last).read().assume_init() };
        self.set_len(last);
        Some(item)
    }

    /// # Safety
    ///
    /// - As for [`take_last`](Self::take_last).
    #[inline(always)]
    unsafe fn add_last(&self, item: T) -> Result<(), T> {
        let len = self.len();
        if len >= self.limit {
            return Err(item);
        }
        // SAFETY: `len` is below `limit`, hence in the array, and this round
        // is not initialised, so nothing is overwritten. The caller has the
        // cache to itself.
        unsafe { self.round(len).write(MaybeUninit::new(item)) };
        self.set_len(len + 1);
        Ok(())
    }
}

/// What `owner` holds while the cache is `me`'s.
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
        let len = *self.len.get_mut();
        for round in &mut self.rounds.get_mut()[..len] {
            // SAFETY: rounds below `len` are initialised, and `&mut self`
            // says that no thread uses the cache.
            unsafe { round.assume_init_drop() };
        }
    }
}
