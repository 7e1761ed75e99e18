//! The items of one thread's cache: an array, filled from both ends.
//!
//! Owns the array, its room and the counts of items that came and went. Knows nothing of who may
//! touch them: an [`Alone`] is the proof of that, and `cache.rs` hands it out.
//!
//! # Items that no thread needed
//!
//! An item is *resting* if it was here at the last trim and has not been taken since. The number of
//! resting items is the cache's low-water mark: the fewest items that it held since that trim. They
//! lie apart, at the end of the array, so [`Alone::pop`] need not check the mark. When no other
//! item is left, the thread takes its slow path, and [`Alone::pop_any`] takes a resting one. A trim
//! moves the resting items to the depot, and puts the others to rest.
//!
//! ```text
//! array:  [ 0 .. len: the last is taken first | .. limit: room | resting: the first is taken first ]
//! ```

use super::item::{CACHE_ROUNDS, Idle, Levels, MAGAZINE_ROUNDS};
use super::magazine::{Magazine, close_gap};
use super::sampler::Sampler;
use crate::sync::{AtomicUsize, Counter, Exclusive, Hint, Ordering, fence, load_unshared};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;

/// One cache's items. Only the thread that is alone writes these numbers; any thread reads them.
// The fields that a get and a drop use come first: see `Cache`.
#[repr(C)]
pub(super) struct Rounds<T> {
    /// How many places of the array may be used from its start. Together with `resting`, this is
    /// the number of leases, at most [`CACHE_ROUNDS`].
    limit: AtomicUsize,
    /// How many places are initialised from the start.
    len: AtomicUsize,
    /// Items that the owner gave back.
    returns: Counter,
    /// The value of `returns` at which the next return is a sample. Used by the owner only.
    sample_at: Hint,
    /// How many places are initialised at the end.
    resting: AtomicUsize,
    array: UnsafeCell<[MaybeUninit<T>; CACHE_ROUNDS]>,
    sampler: Sampler,
    /// Items that came from the depot.
    refilled: Counter,
    /// Items that went to the depot.
    flushed: Counter,
    /// The most there may be room for.
    room_max: usize,
    exclusive: Exclusive,
}

/// Where the array lies, for a check of the layout.
pub(super) const ARRAY_AT: usize = std::mem::offset_of!(Rounds<()>, array);

// SAFETY: `array` needs the argument. It is touched only through an `Alone`, and the caller of
// `alone` promises that no two exist at once. Items cross threads that way, so `T: Send`.
unsafe impl<T: Send> Sync for Rounds<T> {}

/// Proof that the calling thread has some rounds to itself.
pub(super) struct Alone<'a, T>(&'a Rounds<T>);

/// The items and room that a claimer took out of a cache.
pub(super) struct Taken<T> {
    pub(super) items: [Magazine<T>; 2],
    /// How many leases the cache no longer needs, including those of these items.
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

impl<T> Rounds<T> {
    /// No items, and no room. There will be room for `room_max` items at most.
    pub(super) fn new(room_max: usize) -> Self {
        Rounds {
            limit: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            returns: Counter::default(),
            sample_at: Hint::new(0),
            resting: AtomicUsize::new(0),
            array: UnsafeCell::new([const { MaybeUninit::uninit() }; CACHE_ROUNDS]),
            sampler: Sampler::new(),
            refilled: Counter::default(),
            flushed: Counter::default(),
            room_max: room_max.min(CACHE_ROUNDS),
            exclusive: Exclusive::new(),
        }
    }

    /// # Safety
    ///
    /// - Until the result ends, no other thread has one for the same rounds.
    #[inline(always)]
    pub(super) unsafe fn alone(&self) -> Alone<'_, T> {
        Alone(self)
    }

    // ---- what other threads can see; exact for the owner, except while the cache is claimed ----

    /// How many items are here.
    pub(super) fn held(&self) -> usize {
        self.len() + self.resting()
    }

    /// For how many items there is room, including the items here.
    pub(super) fn room(&self) -> usize {
        self.limit() + self.resting()
    }

    /// Whether `push` would find room.
    pub(super) fn has_room(&self) -> bool {
        self.len() < self.limit()
    }

    /// How many items were here at the last trim and have not been taken since.
    pub(super) fn resting(&self) -> usize {
        // Relaxed: the thread that is alone writes it, and the next such thread has acquired it.
        // For others it is a hint. The same holds for `len` and `limit`.
        self.resting.load(Ordering::Relaxed)
    }

    fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    fn limit(&self) -> usize {
        // Relaxed: see `resting`.
        self.limit.load(Ordering::Relaxed)
    }

    // ---- samples: for the owner alone, whether it is inside or not ----

    /// How many items came back. For the owner.
    #[inline(always)]
    pub(super) fn returns(&self) -> u64 {
        self.returns.get()
    }

    /// Whether the next return is a sample, if samples are at random.
    #[inline(always)]
    pub(super) fn sample_is_due(&self) -> bool {
        self.returns.get() as usize == self.sample_at.get()
    }

    /// Takes the sample, if it is due. Returns how many returns it stands for. `interval` names the
    /// learner's present interval.
    pub(super) fn sample(&self, interval: usize) -> Option<usize> {
        if !self.sample_is_due() {
            return None;
        }
        let sample = self.sampler.take(interval);
        self.sample_after(sample.pass);
        Some(sample.stands_for)
    }

    /// Puts the next sample off by `returns` returns.
    fn sample_after(&self, returns: usize) {
        // Not `Hint::add`, which takes a read-modify-write.
        self.sample_at
            .set(self.sample_at.get().wrapping_add(returns));
    }

    /// Makes the next return a sample, as the first one of a new interval.
    pub(super) fn restart_samples(&self) {
        let now = self.returns.get() as usize;
        self.sampler.shorten(self.sample_at.get().wrapping_sub(now));
        self.sample_at.set(now);
    }

    /// Counts the items here, of weight `unit`, and the items that were served.
    ///
    /// Exact while no thread works here. Never more hits or returns than there were.
    pub(super) fn levels(&self, unit: usize) -> Levels {
        // Local hits are a difference: items that came, less those that went to the depot or are
        // here. That saves the hot path a store. Arrivals are read first, and written after the
        // length. Departures are read last, and written before it. So each counted arrival is in
        // the length or has departed, and the difference is never too large.
        let returns = self.returns.get();
        let came = returns.wrapping_add(self.refilled.get());
        // Acquire: pairs with the Release in `Counter::add_by_owner`.
        fence(Ordering::Acquire);
        // Acquire: pairs with the Release in `set_len` and `set_resting`. A trim that puts items to
        // rest writes `resting` first, so it is read last.
        let len = self.len.load(Ordering::Acquire);
        let idle_items = len + self.resting.load(Ordering::Acquire);
        let went = self.flushed.get().wrapping_add(idle_items as u64);
        Levels {
            local_hits: u64::try_from(came.wrapping_sub(went) as i64).unwrap_or(0),
            returns,
            idle_items,
            idle_weight: idle_items * unit,
            ..Levels::default()
        }
    }

    // ---- writes ----

    fn set_resting(&self, resting: usize) {
        // Release: pairs with the Acquire in `levels`.
        self.resting.store(resting, Ordering::Release);
    }

    #[inline(always)]
    fn set_len(&self, len: usize) {
        // Release: pairs with the Acquire in `levels`.
        self.len.store(len, Ordering::Release);
    }

    fn set_limit(&self, limit: usize) {
        assert!(
            limit + self.resting() <= CACHE_ROUNDS && limit >= self.len(),
            "items lie before the limit, or rest behind it"
        );
        // Relaxed: only the thread that is alone uses it, and the next one has acquired it.
        self.limit.store(limit, Ordering::Relaxed);
    }
}

/// The numbers that a thread has read while it was alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// How many items are there.
    pub(super) held: usize,
    /// For how many items there is room, including the items there.
    pub(super) room: usize,
}

impl<T> Alone<'_, T> {
    /// A number of these rounds.
    #[inline(always)]
    fn load(&self, number: &AtomicUsize) -> usize {
        // SAFETY: only the thread that is alone stores `len`, `limit` and `resting`, and `self`
        // proves that this one is.
        unsafe { load_unshared(number) }
    }

    /// The array.
    #[inline(always)]
    fn places(&mut self) -> &mut [MaybeUninit<T>; CACHE_ROUNDS] {
        self.0.exclusive.touch();
        // SAFETY: `self` proves that no other thread has a reference to the array. This thread has
        // no other one, since the result borrows `self` exclusively.
        unsafe { &mut *self.0.array.get() }
    }

    pub(super) fn look(&self) -> Seen {
        let resting = self.load(&self.0.resting);
        Seen {
            held: self.load(&self.0.len) + resting,
            room: self.load(&self.0.limit) + resting,
        }
    }

    /// Takes the latest item that is not resting.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<T> {
        let last = self.load(&self.0.len).checked_sub(1)?;
        // SAFETY: `last` is below `len`, so it is initialised and in the array; the new `len`
        // excludes it, so no thread reads it again.
        let item = unsafe { self.places().get_unchecked(last).assume_init_read() };
        self.0.set_len(last);
        Some(item)
    }

    /// Takes the latest item, resting or not.
    pub(super) fn pop_any(&mut self) -> Option<T> {
        let rounds = self.0;
        let (len, resting) = (rounds.len(), rounds.resting());
        if len == 0 && resting > 0 {
            // It no longer rests, and keeps its room.
            self.places().swap(0, CACHE_ROUNDS - resting);
            rounds.set_resting(resting - 1);
            rounds.set_limit(rounds.limit() + 1);
            rounds.set_len(1);
        }
        self.pop()
    }

    /// Adds an item, or hands it back if there is no room.
    #[inline(always)]
    pub(super) fn push(&mut self, item: T) -> Result<(), T> {
        let rounds = self.0;
        let len = self.load(&rounds.len);
        if len >= self.load(&rounds.limit) {
            return Err(item);
        }
        // SAFETY: `len` is below `limit`, so it is in the array. (It is not initialised, so
        // nothing is overwritten.)
        unsafe { self.places().get_unchecked_mut(len) }.write(item);
        rounds.set_len(len + 1);
        rounds.returns.add_by_owner(1); // after the length: see `levels`
        Ok(())
    }

    /// As [`push`](Self::push), for an item whose return is a sample: the distance to the next
    /// sample is not changed by it.
    pub(super) fn push_looked_at(&mut self, item: T) -> Result<(), T> {
        self.push(item)?;
        self.0.sample_after(1);
        Ok(())
    }

    /// Makes room for `more` items, which are leased, or for fewer if that would pass the limit.
    /// Returns for how many.
    pub(super) fn widen(&self, more: usize) -> usize {
        let rounds = self.0;
        let added = more.min(rounds.room_max.saturating_sub(rounds.room()));
        rounds.set_limit(rounds.limit() + added);
        added
    }

    /// Gives up the empty room. Returns for how many items that was.
    pub(super) fn cut_room(&self) -> usize {
        let cut = self.0.limit() - self.0.len();
        self.0.set_limit(self.0.len());
        cut
    }

    /// Moves a magazine's items in, as far as there is room.
    pub(super) fn refill(&mut self, magazine: &mut Magazine<T>) {
        let rounds = self.0;
        let (len, limit) = (rounds.len(), rounds.limit());
        let refilled = magazine.move_to(&mut self.places()[len..limit]);
        rounds.set_len(len + refilled);
        rounds.refilled.add_by_owner(refilled); // after the length: see `levels`
    }

    /// Moves the `out` oldest items to an empty magazine, with their room, and makes room for
    /// `more`. Returns `false`, and moves nothing, if the cache holds fewer items, if a magazine
    /// has fewer places, or if the magazine is not empty.
    pub(super) fn flush(&mut self, out: usize, more: usize, magazine: &mut Magazine<T>) -> bool {
        let may = out > 0 && out <= MAGAZINE_ROUNDS.min(self.0.held()) && magazine.len() == 0;
        if may {
            self.take_first(out, magazine);
            self.0.set_limit(self.0.limit() + more);
        }
        may
    }

    /// Takes the idle items out, and all empty room. Puts the items that stay to rest.
    pub(super) fn take_idle(&mut self, idle: Idle) -> Taken<T> {
        let rounds = self.0;
        let out = match idle {
            Idle::Unneeded => rounds.resting(),
            Idle::All | Idle::AboveLimit => rounds.held(),
        };
        let first = out.min(MAGAZINE_ROUNDS);
        let mut items = [Magazine::new(), Magazine::new()];
        self.take_first(first, &mut items[0]);
        self.take_first(out - first, &mut items[1]);
        let room = rounds.limit() - rounds.len();
        self.put_to_rest();
        Taken {
            items,
            rounds: out + room,
        }
    }

    /// Moves the `out` oldest items to an empty magazine, and gives up their room. The resting
    /// items are the oldest.
    ///
    /// # Panics
    ///
    /// - If the cache holds fewer items, or a magazine has fewer places.
    fn take_first(&mut self, out: usize, magazine: &mut Magazine<T>) {
        let rounds = self.0;
        let (len, resting) = (rounds.len(), rounds.resting());
        assert!(out <= len + resting && magazine.len() + out <= MAGAZINE_ROUNDS);
        let rested = out.min(resting);
        let others = out - rested;
        rounds.flushed.add_by_owner(out); // before the lengths: see `levels`
        let places = self.places();
        for part in [CACHE_ROUNDS - rested..CACHE_ROUNDS, 0..others] {
            let taken = places[part].iter();
            // SAFETY: the last `resting` and the first `len` places are initialised, and the taken
            // places are among them. The new numbers exclude them, so no thread reads them again.
            // Nothing panics before the numbers are stored, as the magazine has room for these
            // items.
            magazine.add(taken.map(|place| unsafe { place.assume_init_read() }));
        }
        if rested > 0 {
            places[CACHE_ROUNDS - resting..].rotate_right(rested);
        }
        close_gap(&mut places[..len], others);
        rounds.set_resting(resting - rested);
        rounds.set_len(len - others);
        rounds.set_limit(rounds.limit() - others);
    }

    /// Puts all items to rest, and gives up the empty room.
    ///
    /// # Panics
    ///
    /// - If an item rests already.
    fn put_to_rest(&mut self) {
        let rounds = self.0;
        let len = rounds.len();
        assert_eq!(rounds.resting(), 0);
        self.places().reverse(); // the last `len` places are initialised now: the last comes first
        rounds.set_resting(len); // before the length: see `levels`
        rounds.set_len(0);
        rounds.limit.store(0, Ordering::Relaxed); // Relaxed: see `set_limit`
    }
}

impl<T> Drop for Rounds<T> {
    /// For items that do not keep the engine alive. Items that do were taken out before.
    fn drop(&mut self) {
        let mut alone = Alone(self); // `&mut self` proves it
        while alone.pop_any().is_some() {}
    }
}
