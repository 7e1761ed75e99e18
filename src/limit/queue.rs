//! A limit on outstanding bytes, and the queue of those who wait for room under it.
//!
//! Owns the charged bytes and the queue. Knows nothing of buffers, or of who is charged.
//!
//! The queue is `tokio`'s semaphore, with one permit for each byte. It serves its waiters in the
//! order of their arrival. A waiter at the head collects permits until it has all, so small requests
//! do not starve a large one. It needs no runtime, and a waiter that is dropped leaves the queue and
//! returns its permits. `event-listener` has no counts, `async-lock`'s semaphore gives out one permit
//! at a time, and `std` has none.
//!
//! A semaphore has no permits below zero. Some charges do not wait: those of plain gets, and of
//! growth. What they take beyond the free permits is the *debt*. Bytes that come home pay the debt
//! first. (Not so what a cancelled waiter had collected: the semaphore passes that on to the next
//! waiters, and only the rest pays.) So at rest:
//!
//! ```text
//! charged + free permits == limit + debt        and one of free permits and debt is 0
//! ```

use crate::error::GetError;
use crate::sync::{AtomicUsize, Counter, Ordering, Unseen, fence};
use ::tokio::sync::{Notify, Semaphore, SemaphorePermit, TryAcquireError};
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::pin;
use std::task::Poll;

/// The bytes of one permit, under a limit that a `u32` cannot hold. Requests of the semaphore are
/// `u32`s: with this, one request can be up to 256 GiB.
///
/// 64: a charge is rounded up to it, and the capacity of nearly every size class is a multiple.
const LARGE_UNIT: usize = 64;

/// A limit on the charged bytes.
pub(crate) struct Limit {
    queue: Semaphore,
    queue_seen: Unseen,
    /// Bytes of one permit. A charge is rounded up, and the limit is rounded down.
    unit: usize,
    /// In permits.
    limit: AtomicUsize,
    /// Permits that are charged beyond the limit.
    debt: AtomicUsize,
    /// Wakes all waiters after a change of the limit: some may be above it now.
    changed: Notify,
    waits: Counter,
    refusals: Counter,
}

/// Bytes that are charged, and are free again if this is dropped.
#[must_use]
pub(crate) struct Charged<'a> {
    limit: &'a Limit,
    permits: usize,
}

impl<'a> Charged<'a> {
    fn new(limit: &'a Limit, permit: SemaphorePermit<'_>) -> Self {
        let permits = permit.num_permits();
        permit.forget(); // its drop would not look at the debt
        Charged { limit, permits }
    }

    /// Leaves the charge with what it was taken for. `bytes` is the exact number, which may differ.
    pub(crate) fn keep(self, bytes: usize) {
        let (limit, permits) = (self.limit, self.permits);
        mem::forget(self);
        limit.exchange(permits, limit.permits(bytes));
    }
}

impl Drop for Charged<'_> {
    fn drop(&mut self) {
        self.limit.release(self.permits);
    }
}

/// Pays the debt when it is dropped. A waiter that leaves the queue returns permits on its own.
struct Settles<'a>(&'a Limit);

impl Drop for Settles<'_> {
    fn drop(&mut self) {
        self.0.settle();
    }
}

impl Limit {
    pub(crate) fn new(bytes: usize) -> Self {
        let unit = match u32::try_from(bytes) {
            Ok(_) => 1,
            Err(_) => LARGE_UNIT,
        };
        let permits = Self::in_permits(bytes, unit);
        Limit {
            queue: Semaphore::new(permits),
            queue_seen: Unseen::new(),
            unit,
            limit: AtomicUsize::new(permits),
            debt: AtomicUsize::new(0),
            changed: Notify::new(),
            waits: Counter::default(),
            refusals: Counter::default(),
        }
    }

    fn queue(&self) -> &Semaphore {
        self.queue_seen.step();
        &self.queue
    }

    fn in_permits(bytes: usize, unit: usize) -> usize {
        (bytes / unit).min(Semaphore::MAX_PERMITS)
    }

    fn permits(&self, bytes: usize) -> usize {
        bytes.div_ceil(self.unit)
    }

    /// The permits of a request.
    ///
    /// # Errors
    ///
    /// - If it is above the limit.
    fn request(&self, bytes: usize) -> Result<u32, GetError> {
        // Relaxed: a waiter looks again after each change, which `changed` orders.
        let limit = self.limit.load(Ordering::Relaxed);
        let permits = u32::try_from(self.permits(bytes)).ok();
        permits
            .filter(|&permits| permits as usize <= limit)
            .ok_or(GetError::AboveLimit {
                asked: bytes,
                limit: limit.saturating_mul(self.unit),
            })
    }

    /// The limit in bytes.
    pub(crate) fn bytes(&self) -> usize {
        // Relaxed: read for a message or for `Stats`.
        self.limit.load(Ordering::Relaxed).saturating_mul(self.unit)
    }

    /// The charged bytes, with those that waiters have collected.
    pub(crate) fn charged(&self) -> usize {
        // Relaxed: read for a message. The three are not of one moment.
        let (limit, debt) = (
            self.limit.load(Ordering::Relaxed),
            self.debt.load(Ordering::Relaxed),
        );
        let free = self.queue().available_permits();
        (limit + debt)
            .saturating_sub(free)
            .saturating_mul(self.unit)
    }

    /// How many requests have waited.
    pub(crate) fn waits(&self) -> u64 {
        self.waits.get()
    }

    /// How many requests got no room: refused at once, or after a wait.
    pub(crate) fn refusals(&self) -> u64 {
        self.refusals.get()
    }

    // ---- requests ----

    fn exhausted(&self, bytes: usize) -> GetError {
        GetError::Exhausted {
            asked: bytes,
            outstanding: self.charged(),
            limit: self.bytes(),
        }
    }

    /// Whether there is room for `bytes`; a hint.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.permits(bytes) <= self.queue().available_permits()
    }

    /// Charges `bytes` if there is room and no request waits.
    ///
    /// # Errors
    ///
    /// - If there is no room.
    pub(crate) fn try_charge(&self, bytes: usize) -> Result<Charged<'_>, GetError> {
        let charged = self.request(bytes).and_then(|permits| {
            let permit = self.queue().try_acquire_many(permits);
            permit.map_err(|error| match error {
                TryAcquireError::NoPermits => self.exhausted(bytes),
                TryAcquireError::Closed => GetError::Closed,
            })
        });
        match charged {
            Ok(permit) => Ok(Charged::new(self, permit)),
            Err(error) => {
                self.refusals.bump();
                Err(error)
            }
        }
    }

    /// Charges `bytes` once there is room and all earlier waiters have theirs.
    ///
    /// If the future is dropped, it leaves the queue and charges nothing.
    ///
    /// # Errors
    ///
    /// - If `bytes` is above the limit, or the limit falls below it.
    /// - If the queue is or becomes closed.
    pub(crate) async fn charge_in_turn(&self, bytes: usize) -> Result<Charged<'_>, GetError> {
        let permits = self.request(bytes).inspect_err(|_| self.refusals.bump())?;
        let _settles = Settles(self); // dropped after the waiter, which returns its permits
        let mut permit = pin!(self.queue().acquire_many(permits));
        #[allow(clippy::let_unit_value)] // except in a model
        let _leaves = self.queue_seen.step_at_end();
        let mut has_waited = false;
        loop {
            // Made before the look at the limit: it is woken by each change from now on.
            self.queue_seen.step();
            let mut changed = pin!(self.changed.notified());
            if let Err(error) = self.request(bytes) {
                self.refusals.bump();
                return Err(error);
            }
            let turn = poll_fn(|cx| {
                self.queue_seen.step();
                if let Poll::Ready(permit) = permit.as_mut().poll(cx) {
                    return Poll::Ready(Some(permit));
                }
                if !has_waited {
                    has_waited = true;
                    self.waits.bump();
                }
                changed.as_mut().poll(cx).map(|()| None)
            });
            match turn.await {
                Some(Ok(permit)) => {
                    return Ok(Charged::new(self, permit));
                }
                Some(Err(_closed)) => {
                    self.refusals.bump();
                    return Err(GetError::Closed);
                }
                None => {}
            }
        }
    }

    /// The error of a request that has waited long enough.
    pub(crate) fn give_up(&self, bytes: usize) -> GetError {
        self.refusals.bump();
        self.exhausted(bytes)
    }

    // ---- charges that do not wait ----

    /// Charges `bytes`, also if there is no room.
    pub(crate) fn charge(&self, bytes: usize) {
        let permits = self.permits(bytes);
        let request = u32::try_from(permits).ok();
        match request.map(|permits| self.queue().try_acquire_many(permits)) {
            Some(Ok(permit)) => permit.forget(),
            _ => self.add_debt(permits),
        }
    }

    /// Ends the charge of `bytes`.
    pub(crate) fn give_back(&self, bytes: usize) {
        self.release(self.permits(bytes));
    }

    /// Notes that `before` charged bytes have become `after`.
    pub(crate) fn changes(&self, before: usize, after: usize) {
        self.exchange(self.permits(before), self.permits(after));
    }

    fn exchange(&self, before: usize, after: usize) {
        if after > before {
            self.add_debt(after - before);
        } else {
            self.release(before - after);
        }
    }

    fn add_debt(&self, permits: usize) {
        if permits > 0 {
            // Relaxed: the fence in `settle` orders it.
            self.debt.fetch_add(permits, Ordering::Relaxed);
            self.settle();
        }
    }

    fn release(&self, permits: usize) {
        let free = permits - self.pay(permits);
        if free > 0 {
            self.queue().add_permits(free);
            self.settle();
        }
    }

    /// Pays as much of the debt as `permits` allow. Returns how many that took.
    fn pay(&self, permits: usize) -> usize {
        let mut paid = 0;
        // Relaxed: it is one number, and orders nothing else.
        let _ = self
            .debt
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |debt| {
                paid = debt.min(permits);
                (paid > 0).then(|| debt - paid)
            });
        paid
    }

    /// Pays the debt from the free permits, as far as there are both.
    ///
    /// Called after each addition to one of the two.
    fn settle(&self) {
        // SeqCst: of a thread that adds debt and one that adds permits, the one whose fence comes
        // second sees both.
        fence(Ordering::SeqCst);
        loop {
            // Relaxed: the fence orders it.
            let debt = self.debt.load(Ordering::Relaxed);
            if debt == 0 {
                return;
            }
            let taken = self.queue().forget_permits(debt);
            if taken == 0 {
                return; // whoever adds permits next looks at the debt
            }
            // Another thread may have paid meanwhile.
            let rest = taken - self.pay(taken);
            if rest == 0 {
                continue;
            }
            self.queue().add_permits(rest);
            fence(Ordering::SeqCst); // SeqCst: as above, for the permits just added
        }
    }

    // ---- changes ----

    /// Sets the limit. Waiters that are above it now receive an error.
    pub(crate) fn set(&self, bytes: usize) {
        let after = Self::in_permits(bytes, self.unit);
        // Relaxed: `changed` orders it for waiters. For others, the limit is what the permits say.
        let before = self.limit.swap(after, Ordering::Relaxed);
        self.exchange(after, before); // a higher limit releases permits
        self.queue_seen.step();
        self.changed.notify_waiters();
    }

    /// Ends all waits and refuses all requests. Charges that do not wait go on.
    pub(crate) fn close(&self) {
        self.queue().close();
    }

    /// Whether nothing is charged.
    #[cfg(all(test, any(loom, shuttle)))]
    pub(crate) fn is_free(&self) -> bool {
        // Relaxed: read when all threads have ended.
        let (limit, debt) = (
            self.limit.load(Ordering::Relaxed),
            self.debt.load(Ordering::Relaxed),
        );
        (self.queue().available_permits(), debt) == (limit, 0)
    }
}
