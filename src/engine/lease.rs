//! Leases: room for an item, before it is put anywhere.
//!
//! Owns from which accounts a lease is taken. Knows nothing of the use of the room.

use super::Engine;
use super::account::Account;
use super::depot::Depot;
use super::item::Item;

impl<T: Item> Engine<T> {
    /// Leases room for `count` items of `weight` each, or as many as there is
    /// room for. Returns for how many.
    pub(super) fn lease(&self, depot: &Depot<T>, weight: usize, count: usize) -> usize {
        let items = depot.account.lease(1, count);
        let granted = self.account.lease(weight, items);
        depot.account.give_back(items - granted);
        granted
    }

    /// Ends the leases of `items` items of ordinary weight. If a `thread` account is given, ends
    /// them there as well.
    pub(super) fn end_leases(&self, depot: &Depot<T>, thread: Option<&Account>, items: usize) {
        let weight = items * depot.limits().weight;
        depot.account.give_back(items);
        self.account.give_back(weight);
        if let Some(thread) = thread {
            thread.give_back(weight);
        }
    }

    pub(super) fn end_loose_lease(&self, depot: &Depot<T>, weight: usize) {
        depot.account.give_back(1);
        self.account.give_back(weight);
    }

    /// Asserts at the engine's end that each lease belongs to an item here or to room in a cache.
    /// Fails after a race that leaves a lease too many or too few.
    pub(super) fn assert_leases(&self) {
        let mut leased = 0_usize;
        for (class, depot) in self.classes() {
            let rooms = self.threads.iter();
            let rooms: usize = rooms
                .map(|thread| thread.caches()[class.get()].rounds().room())
                .sum();
            let (items, weight) = depot.idle();
            depot.account.assert_leased(rooms + items);
            // Wrapping: without a limit the room may be any number, and is not compared.
            let in_caches = rooms.wrapping_mul(depot.limits().weight);
            leased = leased.wrapping_add(in_caches).wrapping_add(weight);
        }
        self.account.assert_leased(leased);
        for thread in self.threads.iter() {
            let caches = thread.caches().iter();
            let rooms = caches.map(|cache| cache.rounds().room() * cache.unit());
            thread.thread().account.assert_leased(rooms.sum());
        }
    }
}
