//! The way to a user: a buffer for a request, from the engine or from the heap.

use super::{BufferBox, BufferOrigin, BufferSlot, Inner};
use crate::engine::ClassIndex;
use crate::error::GetError;
use crate::limit::Charged;
use crate::system::CAPACITY_MAX;
use std::convert::Infallible;
use std::sync::Arc;

/// One in this many misses of a class makes the depot's queues longer, if they need it.
const RESERVE_EACH: u64 = 16;

/// Idle buffers are freed for a refused buffer of at most this many times their total bytes.
///
/// 16: the heap has less room than the refused buffer takes. Even so, the idle buffers can make up
/// the difference in one of 16 cases at most.
const CLEAR_FOR_TIMES: usize = 16;

/// Why a buffer is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// The program named its size.
    Request,
    /// A guard has outgrown its buffer, by an append.
    Growth,
}

/// # Panics
///
/// - If no buffer can be as large as `request`.
fn check_request(request: usize) {
    assert!(
        request <= CAPACITY_MAX,
        "capacity overflow: a buffer of {request} bytes is above isize::MAX ({CAPACITY_MAX} \
         bytes), the most that can be allocated; ask for less, or call try_get for an error"
    );
}

impl Inner {
    /// An empty buffer for `request` bytes, and the thread cache that it may come back to.
    ///
    /// # Panics
    ///
    /// - If `request` is above `isize::MAX`.
    #[inline(always)]
    pub(crate) fn acquire(self: &Arc<Self>, request: usize) -> (BufferBox, BufferOrigin) {
        let class = self.classes.for_request(request);
        match self.engine.get_local(class) {
            Some(local_hit) => local_hit,
            None => self.acquire_slow(class, request, Want::Request),
        }
    }

    /// As [`acquire`](Self::acquire), or an error if the heap refuses.
    ///
    /// # Errors
    ///
    /// - If `request` is above `isize::MAX`.
    /// - If the heap has no room.
    #[inline(always)]
    pub(crate) fn try_acquire(
        self: &Arc<Self>,
        request: usize,
    ) -> Result<(BufferBox, BufferOrigin), GetError> {
        let class = self.classes.for_request(request);
        match self.engine.get_local(class) {
            Some(local_hit) => Ok(local_hit),
            None => self.try_acquire_slow(request),
        }
    }

    /// As [`acquire`](Self::acquire), for a guard that an append has filled.
    pub(crate) fn acquire_to_grow(self: &Arc<Self>, request: usize) -> (BufferBox, BufferOrigin) {
        let class = self.classes.for_request(request);
        // Not on the fast path if the class is retired: then its drop must not take the fast path,
        // either.
        let local = match self.calibrator.is_retired(class) {
            true => None,
            false => self.engine.get_local(class),
        };
        let (mut slot, origin) =
            local.unwrap_or_else(|| self.acquire_slow(class, request, Want::Growth));
        slot.note_grown();
        (slot, origin)
    }

    /// As [`acquire`](Self::acquire). A new buffer is all zero, and its slot notes that.
    pub(crate) fn acquire_zeroed(self: &Arc<Self>, request: usize) -> (BufferBox, BufferOrigin) {
        let class = self.classes.for_request(request);
        let make = |capacity| -> Result<_, Infallible> {
            let home = || Arc::clone(self);
            Ok(match BufferSlot::try_with_capacity(capacity, home()) {
                Some(slot) => slot,
                // Panics, or ends the process, as for any other request.
                None => BufferSlot::with_capacity(capacity, home()),
            })
        };
        self.engine.get_local(class).unwrap_or_else(|| {
            let Ok(taken) = self.find_or_make(class, request, Want::Request, make);
            self.charge(&taken.0);
            taken
        })
    }

    /// Acquires by a late local hit, a depot hit, or a miss.
    #[cold]
    #[inline(never)]
    fn acquire_slow(
        self: &Arc<Self>,
        class: ClassIndex,
        request: usize,
        want: Want,
    ) -> (BufferBox, BufferOrigin) {
        let make = |capacity| -> Result<_, Infallible> {
            Ok(BufferSlot::with_capacity(capacity, Arc::clone(self)))
        };
        let Ok(taken) = self.find_or_make(class, request, want, make);
        self.charge(&taken.0);
        taken
    }

    /// As [`acquire_slow`](Self::acquire_slow), or an error if the heap or the limit refuses.
    #[cold]
    #[inline(never)]
    fn try_acquire_slow(
        self: &Arc<Self>,
        request: usize,
    ) -> Result<(BufferBox, BufferOrigin), GetError> {
        if request > CAPACITY_MAX {
            return Err(GetError::TooLarge { size: request });
        }
        self.acquire_charged(request, self.try_charge(request)?)
    }

    /// As [`acquire`](Self::acquire), or an error if the heap refuses. Exceeds the limit if it must.
    #[cfg(feature = "tokio")]
    pub(crate) fn try_acquire_above_limit(
        self: &Arc<Self>,
        request: usize,
    ) -> Result<(BufferBox, BufferOrigin), GetError> {
        let taken = self.acquire_charged(request, None)?;
        self.charge(&taken.0);
        Ok(taken)
    }

    /// Acquires a buffer for which the limit, if there is one, is charged already.
    ///
    /// # Errors
    ///
    /// - If the heap has no room.
    pub(super) fn acquire_charged(
        self: &Arc<Self>,
        request: usize,
        charged: Option<Charged<'_>>,
    ) -> Result<(BufferBox, BufferOrigin), GetError> {
        let class = self.classes.for_request(request);
        let make = |capacity| {
            let make = || BufferSlot::try_with_capacity(capacity, Arc::clone(self));
            let made = make().or_else(|| {
                let cleared = self.may_clear_for(capacity);
                if cleared {
                    self.clear_within_get();
                }
                // Tried again in any case: another thread may have freed memory since.
                let made = make();
                if cleared {
                    self.clears.note(made.is_some());
                }
                made
            });
            made.ok_or(GetError::OutOfMemory { size: request })
        };
        let taken = self.find_or_make(class, request, Want::Request, make)?;
        if let Some(charged) = charged {
            charged.keep(taken.0.capacity());
        }
        Ok(taken)
    }

    /// Whether to free all idle buffers after the heap refused one of `capacity` bytes. `false` if
    /// that is far more than their bytes, or if it did not help lately.
    fn may_clear_for(&self, capacity: usize) -> bool {
        let idle = self.engine.leased();
        capacity <= idle.saturating_mul(CLEAR_FOR_TIMES) && !self.clears.skips()
    }

    /// Finds a buffer or makes one. Counts it once it is there.
    fn find_or_make<E>(
        self: &Arc<Self>,
        class: ClassIndex,
        request: usize,
        want: Want,
        make: impl FnOnce(usize) -> Result<BufferBox, E>,
    ) -> Result<(BufferBox, BufferOrigin), E> {
        let counters = self.counters(class);
        if class == self.classes.unclassed() {
            check_request(request);
            let slot = make(request)?;
            counters.oversize.bump();
            return Ok((slot, BufferOrigin::NONE));
        }
        let (slot, origin) = self.engine.get(class);
        let slot = match slot {
            Some(slot) => slot,
            None => {
                // Before the buffer is made: see `Store::reserve`. Not at each miss, since each
                // call makes room for eight times as many.
                let misses = counters.misses.get();
                if misses < RESERVE_EACH || misses % RESERVE_EACH == 0 {
                    self.reserve(class, 1);
                }
                let slot = make(self.classes.capacity(class))?;
                counters.misses.bump();
                slot
            }
        };
        if want == Want::Request {
            self.calibrator.note_requests(class, 1);
        }
        let retired = self.calibrator.is_retired(class);
        if retired {
            // Gives up the items that came along from the depot. Otherwise the next request would
            // take the fast path, which does not count it.
            self.engine.give_up(class);
        }
        if self.zero_on_return || retired || self.limit.is_some() {
            // Its drop must not take the fast path: that skips the wiping, the drop rule and the
            // limit.
            return Ok((slot, BufferOrigin::NONE));
        }
        Ok((slot, origin))
    }

    /// The capacity of a new buffer for `request` bytes.
    pub(crate) fn capacity_for(&self, request: usize) -> usize {
        let class = self.classes.for_request(request);
        match class == self.classes.unclassed() {
            true => request,
            false => self.classes.capacity(class),
        }
    }

    /// Makes room in the depot for all buffers of a class, outstanding and idle, and for `more`.
    ///
    /// Returns `false` if the heap refuses a part of that.
    pub(super) fn reserve(&self, class: ClassIndex, more: usize) -> bool {
        let counters = self.counters(class);
        let alive = counters.alive().saturating_sub(self.engine.trimmed(class));
        let alive = usize::try_from(alive).unwrap_or(usize::MAX);
        self.engine.reserve(class, alive.saturating_add(more))
    }
}
