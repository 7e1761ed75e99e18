//! Frees idle items on purpose: trim, clear and close.
//!
//! Owns when a trim is due, and the claims: nothing else takes items out of
//! another thread's cache. Knows nothing of bytes.
//!
//! A trim visits each thread's caches, and then each depot, and frees what was
//! not needed since it was there last. One that comes by time, or because the
//! budget is short, is done on the slow path of a get or a drop, and there in
//! parts of a limited size, so that none of these waits for the whole.

use super::barrier;
use super::cache::{Cache, Taken};
use super::depot::{Depot, Magazine};
use super::{Engine, Idle, Item};
use crate::clock::Timer;
use crate::sync::{AtomicUsize, Mutex, Ordering, fence, lock, try_lock};
use std::ops::{AddAssign, Range};
use std::time::Duration;

/// How much one part of a trim does at least, counted in items freed: as many as
/// one thread caches of one class.
const PART_ITEMS: usize = 64;
/// As how many of these it counts to visit a thread: a barrier, and a claim of
/// each of its caches.
const VISIT_ITEMS: usize = 16;

/// How many caches of a thread are claimed at once: all, where a pool has so
/// many classes at most. What is taken out of them lies on the stack, half a
/// kilobyte each.
const CLAIMED_AT_ONCE: usize = 16;

/// After how many misses that more room would have spared a trim is due.
///
/// At first after one, which begins the interval; then after 8: the fewer, the
/// sooner the budget follows the program, and the shorter the time in which an
/// item must be needed to be kept. While that frees nothing, after twice as many
/// each time, since then all that is retained is in use.
const SHORTAGES_FIRST: usize = 1;
const SHORTAGES_LEAST: usize = 8;
const SHORTAGES_MOST: usize = 256;

/// When to trim, and how far the present one has got.
pub(super) struct Trims {
    /// Held by whoever claims caches. A get or a drop tries at most.
    round: Mutex<Round>,
    timer: Option<Timer>,
    /// The [`Scope`] of the trim that is due, as a number; 0 for none.
    due: AtomicUsize,
    shortages: AtomicUsize,
    /// How many of these make a trim due.
    shortages_limit: AtomicUsize,
}

/// One trim, done in parts.
struct Round {
    running: bool,
    /// Its [`Scope`], as a number, and the classes that it therefore visits.
    scope: usize,
    classes: Range<usize>,
    /// How many threads' caches are yet to be visited: the first so many.
    // A number: a list would take memory, and a trim is for when there is none.
    threads: usize,
    /// Whose depots are yet to be visited.
    depots: Range<usize>,
    /// Whether all that is in the first of these is marked to be freed.
    marked: bool,
    /// Whether it has freed an item, or room that held none.
    freed_any: bool,
}

/// What a trim is to make room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// All classes: the budget is short.
    All,
    /// One class, which holds as many items as it may.
    Class(usize),
}

impl Scope {
    /// Above 0; the highest for all.
    pub(super) fn number(self) -> usize {
        match self {
            Scope::All => usize::MAX,
            Scope::Class(class) => class + 1,
        }
    }
}

/// What was freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Freed {
    pub(crate) items: usize,
    pub(crate) weight: usize,
}

impl AddAssign for Freed {
    fn add_assign(&mut self, more: Freed) {
        self.items += more.items;
        self.weight += more.weight;
    }
}

impl Trims {
    pub(super) fn new(interval: Option<Duration>) -> Self {
        Trims {
            round: Mutex::new(Round {
                running: false,
                scope: 0,
                classes: 0..0,
                threads: 0,
                depots: 0..0,
                marked: false,
                freed_any: false,
            }),
            timer: interval.map(Timer::new),
            due: AtomicUsize::new(0),
            shortages: AtomicUsize::new(0),
            shortages_limit: AtomicUsize::new(SHORTAGES_FIRST),
        }
    }

    // Relaxed, here and below: what says when a trim is due decides nothing
    // but when; the lock of the round orders the rest.
    fn is_due(&self) -> bool {
        self.due.load(Ordering::Relaxed) != 0 || self.is_time()
    }

    fn is_time(&self) -> bool {
        self.timer.as_ref().is_some_and(Timer::is_over)
    }

    /// Notes a miss that more room would have spared, for which a trim of
    /// `scope` would make it.
    fn note_shortage(&self, scope: usize) {
        // Relaxed: see `is_due`.
        let shortages = self.shortages.fetch_add(1, Ordering::Relaxed) + 1;
        if shortages >= self.shortages_limit.load(Ordering::Relaxed) {
            self.due.fetch_max(scope, Ordering::Relaxed);
        }
    }

    fn round_is_over(&self, round: &mut Round) {
        round.running = false;
        // Relaxed, here and below: see `is_due`. The lock of the round is the caller's.
        let before = self.shortages_limit.load(Ordering::Relaxed);
        let limit = match round.freed_any {
            true => SHORTAGES_LEAST,
            false => (2 * before).clamp(SHORTAGES_LEAST, SHORTAGES_MOST),
        };
        self.shortages_limit.store(limit, Ordering::Relaxed);
        self.shortages.store(0, Ordering::Relaxed);
        if round.scope == Scope::All.number() {
            self.due.store(0, Ordering::Relaxed);
            if let Some(timer) = &self.timer {
                timer.restart();
            }
        } else {
            // What is due for other classes stays due, by time as well. Relaxed: as above.
            let _more_is_due =
                self.due
                    .compare_exchange(round.scope, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

impl<T: Item> Engine<T> {
    /// Frees what was not needed since the last trim, on all levels.
    pub(crate) fn trim(&self) -> Freed {
        self.free_idle(Idle::Unneeded)
    }

    /// Frees all that is idle, on all levels.
    pub(crate) fn clear(&self) -> Freed {
        self.free_idle(Idle::All)
    }

    fn free_idle(&self, idle: Idle) -> Freed {
        let mut round = lock(&self.trims.round);
        let mut freed = Freed::default();
        if self.is_closed() {
            return freed;
        }
        self.begin(&mut round, Scope::All.number());
        while let Some(part) = self.free_part(&mut round, idle) {
            freed += part;
        }
        self.trims.round_is_over(&mut round);
        freed
    }

    /// Does a part of a trim, if one is due and nobody is at it.
    pub(super) fn trim_if_due(&self) {
        if self.trims.is_due() {
            self.trim_part();
        }
    }

    #[cold]
    fn trim_part(&self) {
        let Some(mut round) = try_lock(&self.trims.round) else {
            return;
        };
        if self.is_closed() {
            return;
        }
        if !round.running {
            // Looked at again: it may have been done since. One more would free
            // what was not needed in no time at all.
            let scope = match self.trims.is_time() {
                true => Scope::All.number(),
                // Relaxed: see `is_due`.
                false => self.trims.due.load(Ordering::Relaxed),
            };
            if scope == 0 {
                return;
            }
            self.begin(&mut round, scope);
        }
        let mut done = 0;
        while done < PART_ITEMS {
            done += match round.threads {
                0 => 1,
                _ => VISIT_ITEMS,
            };
            match self.free_part(&mut round, Idle::Unneeded) {
                Some(part) => done += part.items,
                None => return self.trims.round_is_over(&mut round),
            }
        }
    }

    /// Notes a miss of a class, which may be for want of room.
    pub(super) fn note_miss(&self, depot: &Depot<T>) {
        // Relaxed: says that a trim may help, and nothing else.
        let scope = depot.refused.load(Ordering::Relaxed);
        if scope != 0 {
            depot.refused.store(0, Ordering::Relaxed);
            self.trims.note_shortage(scope);
        }
    }

    /// Notes that an item of `class` was refused, if a trim may help.
    pub(super) fn note_refused(&self, class: usize, weight: usize) {
        let depot = &self.depots[class];
        let scope = if depot.account.is_short_of(1) {
            Scope::Class(class)
        } else if self.account.is_short_of(weight) {
            Scope::All
        } else {
            return;
        };
        // Relaxed: see `note_miss`.
        depot.refused.store(scope.number(), Ordering::Relaxed);
    }

    fn begin(&self, round: &mut Round, scope: usize) {
        let classes = match scope == Scope::All.number() {
            true => 0..self.depots.len(),
            false => scope - 1..scope,
        };
        *round = Round {
            running: true,
            scope,
            classes: classes.clone(),
            threads: self.caches_len(),
            depots: classes,
            marked: false,
            freed_any: false,
        };
    }

    /// One thread's caches, or up to [`PART_ITEMS`] of one depot; `None` at the end.
    fn free_part(&self, round: &mut Round, idle: Idle) -> Option<Freed> {
        let freed = if let Some(at) = round.threads.checked_sub(1) {
            round.threads = at;
            let caches = self.nth_caches(at)?;
            let (freed, rounds) = self.free_cached(caches, round.classes.clone(), idle);
            round.freed_any |= rounds > 0;
            freed
        } else {
            let depot = self.depots[round.depots.clone()].first()?;
            if idle == Idle::All && !round.marked {
                // All that is here now, and not what comes in meanwhile, of
                // which there may be no end.
                depot.reset_low();
                round.marked = true;
            }
            let freed = self.free_shared(depot);
            if freed.items < PART_ITEMS {
                depot.reset_low();
                round.depots.start += 1;
                round.marked = false;
            }
            freed
        };
        round.freed_any |= freed.items > 0;
        Some(freed)
    }

    /// Says what it freed, and for how many items it ended leases.
    fn free_cached(
        &self,
        caches: &[Cache<T>],
        classes: Range<usize>,
        idle: Idle,
    ) -> (Freed, usize) {
        let (mut freed, mut rounds) = (Freed::default(), 0);
        let depots = self.depots[classes.clone()].chunks(CLAIMED_AT_ONCE);
        for (depots, caches) in depots.zip(caches[classes].chunks(CLAIMED_AT_ONCE)) {
            if caches.iter().all(Cache::is_blank) {
                continue;
            }
            let taken = self.take_claimed(caches, idle);
            // Freed after all claims have ended: that takes longer than the rest.
            for ((depot, cache), taken) in depots.iter().zip(caches).zip(taken) {
                if let Some(taken) = taken {
                    let items = taken.items.iter().map(Magazine::len).sum();
                    taken.items.into_iter().for_each(Magazine::free);
                    self.end_leases(depot, Some(cache.account()), taken.rounds);
                    freed += self.note_freed(depot, items, items * depot.limits().weight);
                    rounds += taken.rounds;
                }
            }
        }
        (freed, rounds)
    }

    fn take_claimed(&self, caches: &[Cache<T>], idle: Idle) -> [Option<Taken<T>>; CLAIMED_AT_ONCE] {
        for cache in caches {
            cache.claim();
        }
        // One barrier for all of these, and not for all threads, so that no
        // thread is kept from its caches for long. If the system refuses it,
        // they stay as they are: to look would be a race.
        let alone = barrier::heavy();
        std::array::from_fn(|at| {
            let cache = caches.get(at)?;
            // SAFETY: claimed above, before the barrier.
            let taken = alone.then(|| unsafe { cache.take_idle(idle) });
            cache.unclaim();
            taken
        })
    }

    fn free_shared(&self, depot: &Depot<T>) -> Freed {
        let mut freed = Freed::default();
        while freed.items < PART_ITEMS {
            let Some(magazine) = depot.pop_idle() else {
                break;
            };
            let items = magazine.len();
            magazine.free();
            self.end_leases(depot, None, items);
            freed += self.note_freed(depot, items, items * depot.limits().weight);
        }
        while freed.items < PART_ITEMS {
            let Some(item) = depot.pop_idle_loose() else {
                break;
            };
            let weight = item.weight();
            item.free();
            self.end_loose_lease(depot, weight);
            freed += self.note_freed(depot, 1, weight);
        }
        freed
    }

    pub(super) fn note_freed(&self, depot: &Depot<T>, items: usize, weight: usize) -> Freed {
        if items > 0 {
            depot.trimmed.add(items);
        }
        Freed { items, weight }
    }

    /// Frees everything that is idle, in all threads' caches, and keeps nothing from now on.
    ///
    /// # Safety
    ///
    /// - Called once in the engine's life.
    pub(crate) unsafe fn close(&self) {
        let _round = lock(&self.trims.round); // kept: no claim but these
        // Relaxed: the locks, and the fence below, order it.
        self.closed.store(true, Ordering::Relaxed);
        // No more come: see `join`. No list of them, as in `Round`.
        let threads = 0..self.caches_len();
        let caches = || {
            threads
                .clone()
                .filter_map(|at| self.nth_caches(at))
                .flat_map(|caches| self.depots.iter().zip(caches))
        };
        for (_, cache) in caches() {
            cache.claim(); // for good
        }
        // One barrier for all of them: nobody takes from this pool now. If the
        // system refuses it, what they hold is leaked: to look would be a race.
        if barrier::heavy() {
            for (depot, cache) in caches() {
                // SAFETY: claimed above, before the barrier.
                let taken = unsafe { cache.take_idle(Idle::All) };
                taken.items.into_iter().for_each(Magazine::free);
                self.end_leases(depot, Some(cache.account()), taken.rounds);
            }
        }
        // SeqCst: pairs with the fence in `settle`. Here the store comes from the
        // beginning, and the loads are those of the depots' queues.
        fence(Ordering::SeqCst);
        self.empty_depots();
    }

    /// Frees what a depot of a closed engine holds.
    pub(super) fn empty_depots(&self) {
        for depot in &self.depots {
            while let Some(magazine) = depot.pop() {
                let items = magazine.len();
                magazine.free();
                self.end_leases(depot, None, items);
            }
            while let Some(item) = depot.pop_loose() {
                let weight = item.weight();
                item.free();
                self.end_loose_lease(depot, weight);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::UNLIMITED;
    use crate::engine::tests::{CLASS, Thing, engine_of};

    #[test]
    fn trims_come_after_fewer_shortages_once_one_freed_items_or_room() {
        let home = engine_of(UNLIMITED, UNLIMITED);
        let engine = &home.engine;
        let put = || assert!(engine.keep(CLASS, Thing).is_ok());
        // What it is after a trim that found it at this.
        let limit_after = |before| {
            engine
                .trims
                .shortages_limit
                .store(before, Ordering::Relaxed);
            let freed = engine.trim().items;
            (freed, engine.trims.shortages_limit.load(Ordering::Relaxed))
        };
        let freed_before = Thing::freed();
        assert_eq!(limit_after(SHORTAGES_FIRST), (0, SHORTAGES_LEAST));
        assert_eq!(limit_after(64), (0, 128));
        assert_eq!(limit_after(SHORTAGES_MOST), (0, SHORTAGES_MOST));
        // In this thread's cache: the second trim frees it.
        put();
        assert_eq!(limit_after(64), (0, 128));
        assert_eq!(limit_after(64), (1, SHORTAGES_LEAST));
        // In the depot, where a thread at its end leaves it.
        std::thread::scope(|scope| {
            // Joined, so that its caches are at their end, too.
            scope.spawn(put).join().expect("it has put one");
        });
        assert_eq!(limit_after(64), (0, 128));
        assert_eq!(limit_after(64), (1, SHORTAGES_LEAST));
        // Room in the cache for what was taken out of it.
        put();
        assert!(engine.take(CLASS).0.is_some());
        assert_eq!(limit_after(64), (0, SHORTAGES_LEAST));
        assert_eq!(limit_after(64), (0, 128), "there is none left");
        let freed = Thing::freed() - freed_before;
        assert_eq!(freed, 2, "each in the way that is best for the heap");
    }
}
