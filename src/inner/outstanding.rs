//! What counts towards the limit on outstanding bytes, in a pool that has one.
//!
//! Owns the rule: a buffer is charged by its capacity, from the get to the moment when it is idle, freed
//! or detached. So growth, parts and frozen bytes count. Gets that may fail are charged before the
//! buffer is found. Others are charged after it.
//!
//! In such a pool no get and no drop takes the fast path: a thread's caches are not in its memo, and
//! no guard knows the cache that it came from. So the fast path does not look for a limit.

#[cfg(feature = "limit")]
use super::{BufferBox, BufferOrigin};
use super::{BufferSlot, Inner};
use crate::error::GetError;
use crate::limit::{Charged, Limit};
#[cfg(feature = "limit")]
use crate::{config, error::ConfigError, system::CAPACITY_MAX};
#[cfg(feature = "limit")]
use std::sync::Arc;

impl Inner {
    pub(crate) fn limit(&self) -> Option<&Limit> {
        self.limit.as_ref()
    }

    /// Counts a buffer as outstanding, also above the limit.
    pub(crate) fn charge(&self, slot: &BufferSlot) {
        if let Some(limit) = &self.limit {
            limit.charge(slot.capacity());
        }
    }

    /// Ends the charge of a buffer of `capacity` bytes, which is idle, freed or detached now.
    pub(crate) fn uncharge(&self, capacity: usize) {
        if let Some(limit) = &self.limit {
            limit.give_back(capacity);
        }
    }

    /// Charges the bytes of a buffer for `request` bytes, before it is found.
    ///
    /// # Errors
    ///
    /// - If there is no room.
    pub(super) fn try_charge(&self, request: usize) -> Result<Option<Charged<'_>>, GetError> {
        let Some(limit) = &self.limit else {
            return Ok(None);
        };
        limit.try_charge(self.capacity_for(request)).map(Some)
    }
}

#[cfg(feature = "limit")]
impl Inner {
    /// An empty buffer for `request` bytes, once there is room and all that wait longer have theirs.
    ///
    /// # Errors
    ///
    /// - If `request` is above `isize::MAX`, or above the limit.
    /// - If the heap has no room.
    /// - If the queue is closed.
    pub(crate) async fn acquire_in_turn(
        self: &Arc<Self>,
        request: usize,
    ) -> Result<(BufferBox, BufferOrigin), GetError> {
        let Some(limit) = &self.limit else {
            return self.try_acquire(request);
        };
        if request > CAPACITY_MAX {
            return Err(GetError::TooLarge { size: request });
        }
        let charged = limit.charge_in_turn(self.capacity_for(request)).await?;
        self.acquire_charged(request, Some(charged))
    }

    /// Whether a request for `request` bytes need not wait now; a hint.
    pub(crate) fn has_room(&self, request: usize) -> bool {
        let limit = self.limit.as_ref();
        limit.is_none_or(|limit| limit.has_room(self.capacity_for(request)))
    }

    /// The error of a request for `request` bytes that has waited long enough.
    pub(crate) fn give_up_waiting(&self, request: usize) -> GetError {
        let limit = self.limit.as_ref().expect("only a limit lets a get wait");
        limit.give_up(self.capacity_for(request))
    }

    /// Changes the limit.
    ///
    /// # Errors
    ///
    /// - If there is none, or `bytes` is below the smallest size class.
    pub(crate) fn set_limit(&self, bytes: usize) -> Result<(), ConfigError> {
        let limit = self.limit.as_ref().ok_or(ConfigError::NoLimit)?;
        config::check_outstanding(bytes, &self.classes)?;
        limit.set(bytes);
        Ok(())
    }

    pub(crate) fn close_queue(&self) {
        if let Some(limit) = &self.limit {
            limit.close();
        }
    }
}
