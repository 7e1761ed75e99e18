//! Moves idle items from other threads' caches to the depot, for a get that would miss.
//!
//! Owns when that is worth while. Knows nothing of bytes, or of how a get is served.
//!
//! While there is room, a get that finds no item has the caller make one. Once no more than
//! there is may be kept, what idles in other threads' caches must serve it: else the caches of
//! threads that sleep, or that only give back, would hold all that may be kept and serve no one.
//!
//! A reclaim visits some caches of one class, with one barrier. It moves the items that rest
//! there (not used since the last visit of a reclaim or a trim), and ends the leases of room
//! that holds nothing. The other items rest from then on. So a thread at work keeps what it
//! works with, and one that does nothing gives up everything at the second visit. This is the
//! second chance that the CLOCK algorithm gives to pages (Corbato, 1968).

use super::cache::{Cache, Patience};
use super::depot::Depot;
use super::local::Token;
use super::trim::CLAIMED_AT_ONCE;
use super::{ClassIndex, Engine, Idle, Item, Wait};
use crate::backoff::Backoff;
use crate::sync::{Hint, try_lock};

/// How many threads a reclaim looks at, for caches that are worth a visit.
///
/// 64: with a visit of each, these are four barriers, and 20 to 40 us in all.
const THREADS_MOST: usize = 64;

/// How often what a thread may cache of a class is halved at most.
///
/// 7: from 64 items to none.
const HALVED_MOST: usize = 7;

/// A returned item of a class was refused, and no miss has come since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
enum Refused {
    No,
    /// As many of the class were kept as may be.
    ByClass,
    /// As much of all classes was kept as may be.
    ByBudget,
}

/// What a class remembers of returns that were refused, and of its reclaims.
pub(super) struct Reclaims {
    /// A [`Refused`], as a number.
    refused: Hint,
    /// The thread at which the next reclaim begins to look.
    next: Hint,
    /// Which misses pass without a reclaim.
    backoff: Backoff,
    /// How often what a thread may cache of the class is halved.
    halved: Hint,
}

impl Reclaims {
    pub(super) fn new() -> Self {
        Reclaims {
            refused: Hint::new(Refused::No as usize),
            next: Hint::new(0),
            backoff: Backoff::new(),
            halved: Hint::new(0),
        }
    }

    fn note_refused(&self, refused: Refused) {
        self.refused.set(refused as usize);
    }

    fn is_refused(&self) -> bool {
        self.refused.get() != Refused::No as usize
    }

    /// Returns whether a larger budget would have spared the miss of just now.
    fn note_miss(&self) -> bool {
        let refused = self.refused.get();
        if refused == Refused::No as usize {
            return false;
        }
        self.refused.set(Refused::No as usize);
        // What was refused would have served now: threads' caches hold too much of the class.
        self.tighten();
        refused == Refused::ByBudget as usize
    }

    /// Halves what a thread may cache of the class.
    fn tighten(&self) {
        self.halved.set((self.halved.get() + 1).min(HALVED_MOST));
    }

    /// Doubles what a thread may cache of the class, up to its limits.
    pub(super) fn relax(&self) {
        self.halved.set(self.halved.get().saturating_sub(1));
    }
}

impl<T: Item> Engine<T> {
    /// How many items of a class the calling thread may cache now.
    ///
    /// While reclaims find what other threads cache and do not use, less and less. And while the
    /// budget is short, so little that the caches of all threads together hold at most half of it.
    pub(super) fn share(&self, depot: &Depot<T>) -> usize {
        let limits = depot.limits();
        let threads = self.threads_in_use.get();
        if threads <= 1 {
            return limits.cache_rounds;
        }
        let budget = self.account.limit() / limits.weight;
        let most = limits.cache_rounds.min(limits.items).min(budget);
        let share = most >> depot.reclaims.halved.get();
        if !self.trims.was_short() {
            return share;
        }
        share.min(budget / (2 * threads * self.depots.len()))
    }

    /// Whether no more of a class may be kept than is, or that was so just now.
    fn is_short(&self, depot: &Depot<T>) -> bool {
        depot.reclaims.is_refused()
            || depot.account.is_short_of(1)
            || self.account.is_short_of(depot.limits().weight)
    }

    /// Notes that an item was refused, if less that is idle would have made room for it.
    pub(super) fn note_refused(&self, depot: &Depot<T>, weight: usize) {
        if depot.account.is_short_of(1) {
            depot.reclaims.note_refused(Refused::ByClass);
        } else if self.account.is_short_of(weight) {
            depot.reclaims.note_refused(Refused::ByBudget);
        }
    }

    /// Notes a miss, which a larger budget might have spared.
    pub(super) fn note_miss(&self, depot: &Depot<T>) {
        if depot.reclaims.note_miss() {
            self.trims.note_shortage();
        }
    }

    /// Moves idle items of a class from other threads' caches to the depot, if no more than
    /// there is may be kept. Returns whether there were any.
    ///
    /// Visits at most [`THREADS_MOST`] caches, and waits for no thread.
    pub(super) fn reclaim(
        &self,
        depot: &Depot<T>,
        class: ClassIndex,
        cached: Option<(Token, &Cache<T>)>,
    ) -> bool {
        // More caches than its own: a thread that has ended may have left some items, too.
        if self.threads_made.get() <= 1 || !self.is_short(depot) {
            return false;
        }
        if let Some((me, cache)) = cached {
            // Who misses has room for nothing, which others may need who give back.
            let room = cache.cut_room(me);
            self.end_leases(depot, Some(cache.account()), room);
        }
        if depot.reclaims.backoff.skips() {
            return false;
        }
        let Some(_round) = try_lock(&self.trims.round) else {
            return false;
        };
        if self.is_closed() {
            return false; // its caches are claimed for good
        }
        let (mut items, mut rounds) = (0, 0);
        let mut threads = THREADS_MOST;
        while items == 0 && threads > 0 {
            let caches = self.caches_to_visit(class, depot, &mut threads);
            let taken = self.take_idle(caches, Idle::Unneeded, &mut Patience::Brief);
            for (cache, taken) in caches.into_iter().zip(taken) {
                let (Some(cache), Some(mut taken)) = (cache, taken) else {
                    continue;
                };
                items += taken.len();
                rounds += taken.rounds;
                self.end_taken_leases(depot, cache, &taken);
                let full = depot.limits().magazine_rounds;
                while let Some(mut magazine) = taken.next_magazine(full) {
                    if magazine.len() == full {
                        self.keep_magazine(depot, magazine);
                    } else {
                        self.keep_rest(depot, &mut magazine);
                    }
                }
            }
        }
        depot.reclaims.backoff.note(rounds > 0);
        if rounds > 0 {
            // Threads that cache what others need are to cache less.
            depot.reclaims.tighten();
        }
        items > 0
    }

    /// The next caches of a class that hold something or have room, among those of that many
    /// more `threads`.
    fn caches_to_visit(
        &self,
        class: ClassIndex,
        depot: &Depot<T>,
        left: &mut usize,
    ) -> [Option<&Cache<T>>; CLAIMED_AT_ONCE] {
        let mut found = [None; CLAIMED_AT_ONCE];
        let Some(threads) = self.threads(Wait::Never) else {
            *left = 0;
            return found;
        };
        *left = threads.len().min(*left);
        let mut free = found.iter_mut();
        let mut at = depot.reclaims.next.get();
        while *left > 0 {
            at = if at < threads.len() { at } else { 0 };
            let cache = &self.caches_of(&threads[at])[class.get()];
            if !cache.is_blank() {
                let Some(place) = free.next() else {
                    break;
                };
                *place = Some(cache);
            }
            at += 1;
            *left -= 1;
        }
        depot.reclaims.next.set(at);
        found
    }
}
