//! The way in: an item for a get, from this thread's cache, from the depot, or from the idle items
//! of other threads' caches.
//!
//! Knows nothing of how the caller makes an item if there is none.

use super::Engine;
use super::depot::Depot;
use super::item::{ClassIndex, Item};
use super::magazine::Magazine;
use super::origin::Origin;
use super::threads::Local;

impl<T: Item> Engine<T> {
    /// Takes an item from this thread's cache, if the thread used this engine
    /// lately and the cache holds one that is not resting. Returns also where it came from.
    #[inline(always)]
    pub(crate) fn get_local(&self, class: ClassIndex) -> Option<(T, Origin<T>)> {
        let local = self.threads.recall_quick()?;
        let item = local.cache(class).pop(local.me)?;
        Some((item, local.origin(class)))
    }

    /// Takes an item from this thread's cache, from the depot, or from the idle items of other
    /// threads' caches. Returns also the cache that it may come back to. That holds also for an
    /// item that the caller makes because there is none here.
    #[cold]
    #[inline(never)]
    pub(crate) fn get(&self, class: ClassIndex) -> (Option<T>, Origin<T>) {
        let Some(local) = self.attach() else {
            return (self.get_shared(class, None), Origin::NONE);
        };
        let cache = local.cache(class);
        let item = cache.pop_resting(local.me).or_else(|| {
            self.trim_if_due();
            let local = (!cache.is_claimed()).then_some(&local);
            self.get_shared(class, local)
        });
        (item, local.origin(class))
    }

    /// Takes an item from the depot. If there is none, takes an idle one from another thread's
    /// cache.
    fn get_shared(&self, class: ClassIndex, local: Option<&Local<'_, T>>) -> Option<T> {
        let mut item = self.get_from_depot(class, local);
        if item.is_none() && self.reclaim(class, local) {
            item = self.get_from_depot(class, local);
        }
        if item.is_none() {
            self.note_miss(self.depot(class));
        }
        item
    }

    /// Takes an item from the depot, and with it a magazine for this thread's
    /// cache if it has one and may enter.
    fn get_from_depot(&self, class: ClassIndex, local: Option<&Local<'_, T>>) -> Option<T> {
        let depot = self.depot(class);
        if depot.is_empty() {
            return None;
        }
        // A magazine is broken up if the cache has no room for it. In that case, a loose item comes
        // first.
        let half = depot.limits().magazine_rounds.div_ceil(2);
        let roomy = local.is_some_and(|local| {
            let cache = local.cache(class);
            let more = cache.account().room_for(cache.unit());
            cache
                .rounds()
                .room()
                .saturating_add(more)
                .min(self.share(depot))
                >= half
        });
        roomy
            .then(|| self.get_from_magazine(class, local))
            .flatten()
            .or_else(|| self.get_loose(depot))
            .or_else(|| self.get_from_magazine(class, local))
    }

    fn get_loose(&self, depot: &Depot<T>) -> Option<T> {
        let item = depot.pop_loose()?;
        self.end_loose_lease(depot, item.weight());
        depot.hits.bump();
        Some(item)
    }

    fn get_from_magazine(&self, class: ClassIndex, local: Option<&Local<'_, T>>) -> Option<T> {
        let depot = self.depot(class);
        let mut magazine = depot.pop()?;
        let item = magazine.pop();
        match local {
            Some(local) => {
                self.refill(local, class, &mut magazine);
                local.cache(class).depot_hits.add_by_owner(1);
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
    fn refill(&self, local: &Local<'_, T>, class: ClassIndex, magazine: &mut Magazine<T>) {
        let (depot, cache) = (self.depot(class), local.cache(class));
        let came = depot.limits().magazine_rounds;
        // Includes room for the item that was taken: it will come back.
        let more = came
            .min(self.share(depot))
            .saturating_sub(cache.rounds().room());
        let leased = cache.account().lease(cache.unit(), more);
        let kept = cache.refill(local.me, magazine, leased); // less if it was claimed meanwhile
        cache.account().give_back((leased - kept) * cache.unit());
        // The cache took over `kept` leases. The others end, except those of items that found no
        // room there.
        self.end_leases(depot, None, came - kept - magazine.len());
        self.keep_rest(depot, magazine);
    }
}
