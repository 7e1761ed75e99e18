//! The way out: an item that comes back, to this thread's cache or to the depot.
//!
//! Knows nothing of how the caller frees an item if there is no room.

use super::Engine;
use super::cache::Cache;
use super::depot::Depot;
use super::item::{ClassIndex, Item};
use super::local::Token;
use super::magazine::Magazine;
use super::origin::Here;
use super::rounds::Seen;
use super::threads::Local;
use crate::sync::{Ordering, fence};

/// A depot makes room for this many times its present items, up to the limits.
///
/// 8: room made later lies higher on the heap, and pins the freed memory below it. With 8, the last
/// growth comes at a sixteenth of the budget at most, since a store doubles.
const RESERVE_AHEAD: usize = 8;
/// The most magazines that a depot makes room for beyond the present ones: a megabyte.
const RESERVE_AHEAD_MAGAZINES: usize = 4096;

impl<T: Item> Engine<T> {
    /// Whether this cache of the calling thread, in this engine, has room for an item of `weight`
    /// or can get some: by leasing more, or by a flush to the depot. `false` for an item of another
    /// weight than the class's.
    #[inline]
    pub(crate) fn has_place(&self, cache: &Here<T>, weight: usize) -> bool {
        weight == cache.unit() && (cache.has_room() || self.make_room(cache.class()))
    }

    /// Makes room in this thread's full cache.
    #[cold]
    #[inline(never)]
    fn make_room(&self, class: ClassIndex) -> bool {
        let Some(local) = self.attach() else {
            return false;
        };
        let Some(Seen { room, .. }) = local.cache(class).look(local.me) else {
            return false; // claimed
        };
        let share = self.share(self.depot(class));
        self.widen(&local, class, share, room) || self.flush_full(&local, class, share)
    }

    /// Leases room for one item of `weight`, for [`put_loose`](Self::put_loose). Returns `false` if
    /// there is none, or the engine is closed.
    pub(crate) fn lease_loose(&self, class: ClassIndex, weight: usize) -> bool {
        if self.is_closed() {
            return false; // a hint that saves work; `settle` makes sure
        }
        let depot = self.depot(class);
        let leased = self.lease(depot, weight, 1) > 0;
        if !leased {
            self.note_refused(depot, weight);
        }
        leased
    }

    /// Keeps an item, which has its lease, loose in the depot. Hands it back if the heap has no
    /// room for a longer queue.
    pub(crate) fn put_loose(&self, class: ClassIndex, item: T) -> Result<(), T> {
        let depot = self.depot(class);
        depot.push_loose(item).inspect_err(|item| {
            self.end_loose_lease(depot, item.weight());
        })?;
        depot.returns.bump();
        self.settle();
        Ok(())
    }

    /// Leases more room for this thread's cache of a class: as much again as it has. Returns
    /// whether it has more now.
    fn widen(&self, local: &Local<'_, T>, class: ClassIndex, share: usize, room: usize) -> bool {
        let (depot, cache) = (self.depot(class), local.cache(class));
        if room >= share {
            return false; // as wide as it may be
        }
        let leased = self.lease(depot, cache.unit(), room.clamp(1, share - room));
        if leased == 0 {
            return false;
        }
        let account = cache.account();
        let mut granted = account.lease(cache.unit(), leased);
        if granted == 0 {
            self.hand_on_unneeded(local);
            granted = account.lease(cache.unit(), leased);
        }
        self.end_leases(depot, None, leased - granted);
        let widened = cache.add_room(local.me, granted); // less if it was claimed meanwhile
        self.end_leases(depot, Some(account), granted - widened);
        widened > 0
    }

    /// Moves the oldest items from this thread's full cache to the depot: a magazine, or half of
    /// the cache's items if that is fewer. Returns whether there is room in the cache now.
    fn flush_full(&self, local: &Local<'_, T>, class: ClassIndex, share: usize) -> bool {
        let (depot, cache) = (self.depot(class), local.cache(class));
        // Checked again: a larger lease may have taken room from the resting items.
        let Some(Seen { held, room }) = cache.look(local.me) else {
            return false; // claimed meanwhile
        };
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
        // The items take their leases along. The new leases are for the items that come next.
        let more = self.lease(depot, cache.unit(), out.saturating_sub(above));
        if more == 0 && above == 0 {
            return false; // the depot has used its part of the limit
        }
        let mut magazine = Magazine::new();
        if !cache.flush(local.me, out, more, &mut magazine) {
            self.end_leases(depot, None, more); // claimed meanwhile
            return false;
        }
        cache.account().give_back((out - more) * cache.unit());
        self.keep_in_depot(depot, magazine);
        more > 0
    }

    /// Keeps the items of a magazine, which have their leases, in the depot: whole if it is full,
    /// and loose if not.
    #[inline]
    pub(super) fn keep_in_depot(&self, depot: &Depot<T>, mut magazine: Magazine<T>) {
        if magazine.len() == depot.limits().magazine_rounds {
            match depot.push(magazine) {
                Ok(()) => return self.settle(),
                Err(back) => magazine = back,
            }
        }
        self.keep_rest(depot, &mut magazine);
    }

    /// Keeps items, which have their leases, loose in the depot. Returns how many it keeps.
    pub(super) fn keep_rest(&self, depot: &Depot<T>, magazine: &mut Magazine<T>) -> usize {
        let mut stored = 0;
        while let Some(item) = magazine.pop() {
            let weight = item.weight();
            match depot.push_loose(item) {
                Ok(()) => stored += 1,
                Err(item) => {
                    // The heap has no room for a longer queue, so this idle item is freed.
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

    /// After a push to a depot: makes sure that nothing stays in a closed engine.
    fn settle(&self) {
        // SeqCst: pairs with the fence in `close`. If that fence comes later, `close` finds the
        // pushed item in the depot. If this one comes later, we find the engine closed.
        fence(Ordering::SeqCst);
        if self.is_closed() {
            self.empty_depots(T::free);
        }
    }

    /// Moves the items that this thread has not needed since the last trim to the depot, and ends
    /// the leases of its empty room. When the limit on one thread's caches is reached, this makes
    /// room for another class.
    fn hand_on_unneeded(&self, local: &Local<'_, T>) {
        for (class, depot) in self.classes() {
            let cache = local.cache(class);
            if !cache.is_blank() {
                self.hand_on(local.me, cache, depot, cache.rounds().resting());
            }
        }
    }

    /// Makes the next return to each of this thread's caches a sample, as the first one of a new
    /// interval.
    pub(crate) fn restart_samples(&self) {
        if let Some(local) = self.threads.find() {
            local.restart_samples(self.depots.len());
        }
    }

    /// Moves all items of a class that this thread caches to the depot, and ends the leases of its
    /// room there. So the next return takes the slow path.
    pub(crate) fn give_up(&self, class: ClassIndex) {
        if let Some(local) = self.threads.find() {
            let cache = local.cache(class);
            self.hand_on(local.me, cache, self.depot(class), cache.rounds().held());
        }
    }

    /// Moves the `count` items that this thread has had longest to the depot, and ends the leases
    /// of its empty room.
    pub(super) fn hand_on(&self, me: Token, cache: &Cache<T>, depot: &Depot<T>, mut count: usize) {
        let full = depot.limits().magazine_rounds;
        while count > 0 {
            // Items that do not fill a magazine are kept loose, not as a short magazine: see
            // `Depot::idle`.
            let out = count.min(full);
            let mut magazine = Magazine::new();
            if !cache.flush(me, out, 0, &mut magazine) {
                break; // claimed: left to the claimer
            }
            cache.account().give_back(out * cache.unit());
            self.keep_in_depot(depot, magazine);
            count -= out;
        }
        let room = cache.cut_room(me);
        self.end_leases(depot, Some(cache.account()), room);
    }

    // ---- stock ----

    /// Makes `count` items of ordinary weight and keeps them in the depot, as
    /// far as there is room. Returns how many.
    pub(crate) fn stock(
        &self,
        class: ClassIndex,
        count: usize,
        mut make: impl FnMut() -> T,
    ) -> usize {
        let depot = self.depot(class);
        let limits = depot.limits();
        // As magazines, if a thread's cache can take a whole one.
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
            self.keep_in_depot(depot, magazine);
            stocked += leased;
        }
        stocked
    }

    /// Makes room in the depot for items of a class before they are made: for `items` in all, and
    /// for later ones as far as the heap allows. Returns `false` if the heap refuses.
    pub(crate) fn reserve(&self, class: ClassIndex, items: usize) -> bool {
        let depot = self.depot(class);
        let limits = depot.limits();
        let most = limits.items.min(self.account.limit() / limits.weight);
        let ahead = items
            .saturating_mul(RESERVE_AHEAD - 1)
            .min(RESERVE_AHEAD_MAGAZINES * limits.magazine_rounds);
        depot.reserve(items.saturating_add(ahead).min(most))
    }
}

#[cfg(test)]
impl<T: Item> Engine<T> {
    /// Keeps an item in the order of steps that the byte pool uses. Hands it back if there is no
    /// room.
    pub(crate) fn put(&self, class: ClassIndex, mut item: T) -> Result<(), T> {
        let origin = self.origin(class);
        // SAFETY: the caller keeps the engine alive.
        let cache = origin.and_then(|origin| unsafe { origin.here() });
        if let Some(place) = cache.filter(|cache| self.has_place(cache, item.weight())) {
            match place.push::<true>(item) {
                Ok(()) => return Ok(()),
                Err(back) => item = back,
            }
        }
        match self.lease_loose(class, item.weight()) {
            true => self.put_loose(class, item),
            false => Err(item),
        }
    }
}
