//! The end of an engine: nothing stays in it, and nothing comes in any more.
//!
//! Knows nothing of the items.

use super::Engine;
use super::barrier;
use super::cache::Patience;
use super::item::{Idle, Item};
use crate::sync::{Ordering, fence, lock};

impl<T: Item> Engine<T> {
    /// Frees everything that is idle, in all threads' caches, and keeps nothing from now on.
    ///
    /// Waits for a trim that is going on. Also waits for a thread that is in the middle of a push
    /// or a pop, however long the system stops that thread there: the items in its cache could not
    /// be freed later. A second call does nothing.
    ///
    /// `free` ends an idle item, and waits for no other thread.
    pub(crate) fn close(&self, free: impl Fn(T)) {
        let mut round = lock(&self.trims.round); // held to the end: no other thread claims
        if self.is_closed() {
            return;
        }
        self.end_freeing(&mut round);
        // Relaxed: the fences below order it.
        self.closed.store(true, Ordering::Relaxed);
        // SeqCst: pairs with the fence in `join`. The store above comes before the load of the list
        // of threads. So each thread that joins is in that list, or finds the engine closed.
        fence(Ordering::SeqCst);
        let threads = self.threads.begin();
        let caches = || {
            let threads = self.threads.from(&threads);
            threads.flat_map(|thread| self.depots.iter().zip(thread.caches()))
        };
        for (_, cache) in caches() {
            cache.claim(); // for good: never unclaimed
        }
        // One barrier for all of them: no thread takes from this pool now. If the system refuses
        // the barrier, the items in the caches are leaked: touching them would be a race.
        if barrier::heavy() {
            for (depot, cache) in caches() {
                // SAFETY: claimed above, before the barrier.
                let taken = unsafe { cache.take_idle(Idle::All, &mut Patience::Endless) };
                if let Some(taken) = taken {
                    let rounds = taken.rounds;
                    for magazine in taken.items {
                        magazine.free(&free);
                    }
                    self.end_leases(depot, Some(cache.account()), rounds);
                }
            }
        }
        // SeqCst: pairs with the fence in `settle`. The store above comes before the loads of the
        // depots' queues.
        fence(Ordering::SeqCst);
        self.empty_depots(free);
    }

    /// Frees the items in the depots of a closed engine.
    pub(super) fn empty_depots(&self, free: impl Fn(T)) {
        for depot in &self.depots {
            while let Some(magazine) = depot.pop() {
                let items = magazine.len();
                magazine.free(&free);
                self.end_leases(depot, None, items);
            }
            while let Some(item) = depot.pop_loose() {
                let weight = item.weight();
                free(item);
                self.end_loose_lease(depot, weight);
            }
        }
    }
}
