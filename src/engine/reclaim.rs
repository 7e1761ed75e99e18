//! Moves idle items from other threads' caches to the depot, for a get that would miss.
//!
//! Owns when a reclaim is worth while. Knows nothing of bytes, or of how a get is served.
//!
//! While there is room, the caller makes an item for a get that finds none. Once the limit is
//! reached, idle items in other threads' caches must serve it. Otherwise the limit could be filled
//! by the caches of threads that sleep, or that only return items. They serve no one.
//!
//! A reclaim visits some caches of one class, with one barrier. It moves the items that rest there
//! (not used since the last visit of a reclaim or a trim), and ends the leases of empty room. The
//! other items rest from then on. So a thread at work keeps the items it works with. A thread that
//! does nothing gives up everything at the second visit. This is the second chance that the CLOCK
//! algorithm gives to pages (Corbato, 1968).

use super::Engine;
use super::cache::{Cache, Patience};
use super::depot::Depot;
use super::item::{ClassIndex, Idle, Item};
use super::reclaims::Refused;
use super::threads::Local;
use super::trim::CLAIMED_AT_ONCE;
use crate::sync::try_lock;

/// How many threads a reclaim looks at, to find caches that are worth a visit.
///
/// 64: if it visits all of them, that takes four barriers, and 20 to 40 us in all.
const THREADS_MOST: usize = 64;

impl<T: Item> Engine<T> {
    /// How many items of a class the calling thread may cache now.
    ///
    /// Falls while reclaims find idle items in other threads' caches. While the budget is short,
    /// the caches of all threads together hold at most half of it.
    pub(super) fn share(&self, depot: &Depot<T>) -> usize {
        let limits = depot.limits();
        let threads = self.threads.in_use();
        if threads <= 1 {
            return limits.cache_rounds;
        }
        let budget = self.account.limit() / limits.weight;
        let most = limits.cache_rounds.min(limits.items).min(budget);
        let share = most >> depot.reclaims.halvings();
        if !self.trims.was_short() {
            return share;
        }
        share.min(budget / (2 * threads * self.depots.len()))
    }

    /// Whether no more items of a class may be kept, now or shortly before.
    fn is_short(&self, depot: &Depot<T>) -> bool {
        depot.reclaims.is_refused()
            || depot.account.is_short_of(1)
            || self.account.is_short_of(depot.limits().weight)
    }

    /// Notes that an item was refused, if freeing idle items would have made room for it.
    pub(super) fn note_refused(&self, depot: &Depot<T>, weight: usize) {
        if depot.account.is_short_of(1) {
            depot.reclaims.note_refused(Refused::ByClass);
        } else if self.account.is_short_of(weight) {
            depot.reclaims.note_refused(Refused::ByBudget);
        }
    }

    /// Notes a miss, and whether a larger budget would have avoided it.
    pub(super) fn note_miss(&self, depot: &Depot<T>) {
        if depot.reclaims.note_miss() {
            self.trims.note_shortage();
        }
    }

    /// Moves idle items of a class from other threads' caches to the depot, if no more items may be
    /// kept. Returns whether there were any.
    ///
    /// Visits at most [`THREADS_MOST`] caches, and waits for no thread.
    pub(super) fn reclaim(&self, class: ClassIndex, local: Option<&Local<'_, T>>) -> bool {
        let depot = self.depot(class);
        // This thread's own cache is not enough: a thread that has ended may have left some items,
        // too.
        if self.threads.made() <= 1 || !self.is_short(depot) {
            return false;
        }
        if let Some(local) = local {
            // A thread that misses gives up its empty room: threads that return items may need it.
            let cache = local.cache(class);
            let room = cache.cut_room(local.me);
            self.end_leases(depot, Some(cache.account()), room);
        }
        if depot.reclaims.backoff.skips() {
            return false;
        }
        let Some(_round) = try_lock(&self.trims.round) else {
            return false;
        };
        if self.is_closed() {
            return false; // the caches of a closed engine are claimed for good
        }
        let (mut items, mut rounds) = (0, 0);
        let mut threads = THREADS_MOST.min(self.threads.made());
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
                while let Some(magazine) = taken.next_magazine(full) {
                    self.keep_in_depot(depot, magazine);
                }
            }
        }
        depot.reclaims.backoff.note(rounds > 0);
        if rounds > 0 {
            // Threads that cache items which others need must cache less.
            depot.reclaims.tighten();
        }
        items > 0
    }

    /// The next caches of a class that hold something or have room, among those of the next
    /// `threads` threads.
    fn caches_to_visit(
        &self,
        class: ClassIndex,
        depot: &Depot<T>,
        left: &mut usize,
    ) -> [Option<&Cache<T>>; CLAIMED_AT_ONCE] {
        let mut found = [None; CLAIMED_AT_ONCE];
        let mut free = found.iter_mut();
        let first = depot.reclaims.next();
        // From there to the end, and then from the beginning.
        let mut from = self.threads.iter().skip(first).chain(self.threads.iter());
        let mut looked_at = 0;
        while looked_at < *left {
            let Some(thread) = from.next() else {
                break;
            };
            let cache = &thread.caches()[class.get()];
            if !cache.is_blank() {
                let Some(place) = free.next() else {
                    break;
                };
                *place = Some(cache);
            }
            looked_at += 1;
        }
        *left -= looked_at.max(1).min(*left);
        let all = self.threads.made().max(1);
        depot.reclaims.set_next((first + looked_at) % all);
        found
    }
}
