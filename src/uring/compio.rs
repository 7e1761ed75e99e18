//! The traits of `compio-buf`.

use crate::buf::{PooledBuf, PooledBytes};
use compio_buf::{IoBuf, IoBufMut, ReserveError, SetLen};
use std::mem::MaybeUninit;
use std::slice;

impl IoBuf for PooledBuf {
    fn as_init(&self) -> &[u8] {
        self
    }
}

impl IoBufMut for PooledBuf {
    /// Lends the contents and the room behind them.
    fn as_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        let (start, capacity) = (self.lend_whole(), self.capacity());
        // SAFETY: from the contents on, `capacity` bytes of the buffer are the guard's alone, and it
        // is borrowed as long as the result. (The trait lends contents as bytes that need not be
        // initialised. So whoever borrows them must leave them initialised, as with a `Vec`.)
        unsafe { slice::from_raw_parts_mut(start.cast(), capacity) }
    }

    // Not by way of `as_uninit`, which lends the bytes anew: an address from before would be void.
    fn buf_capacity(&mut self) -> usize {
        self.capacity()
    }

    /// Makes room as [`PooledBuf::try_reserve`] does.
    fn reserve(&mut self, len: usize) -> Result<(), ReserveError> {
        let reserved = self.try_reserve(len);
        reserved.map_err(|error| ReserveError::ReserveFailed(Box::new(error)))
    }
}

impl SetLen for PooledBuf {
    unsafe fn set_len(&mut self, len: usize) {
        // SAFETY: the contents are initialised. The caller promises that the bytes from there to `len`
        // are, and that they are in the buffer.
        unsafe { PooledBuf::set_len(self, len) };
    }
}

impl IoBuf for PooledBytes {
    fn as_init(&self) -> &[u8] {
        self
    }
}
