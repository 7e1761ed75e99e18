//! The traits of `monoio`.

use crate::buf::{PooledBuf, PooledBytes};
use ::monoio::buf::{IoBuf, IoBufMut};

// SAFETY: the runtime owns the guard, so no one else uses it, and a move leaves the buffer where it
// is (see the module). The first `bytes_init` bytes are the contents.
unsafe impl IoBuf for PooledBuf {
    fn read_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }
}

// SAFETY: the address is that of `read_ptr`. From there, `bytes_total` bytes may be written to: that
// is where the buffer ends.
unsafe impl IoBufMut for PooledBuf {
    fn write_ptr(&mut self) -> *mut u8 {
        self.lend_whole()
    }

    fn bytes_total(&mut self) -> usize {
        self.capacity()
    }

    /// Sets the length to `pos`, also if the contents are longer, as for a `Vec`.
    unsafe fn set_init(&mut self, pos: usize) {
        // SAFETY: the caller promises that the bytes up to `pos` are initialised, and in the buffer.
        unsafe { self.set_len(pos) };
    }
}

// SAFETY: the part holds its buffer, whose bytes do not move or change (see the module). All its
// bytes are initialised.
unsafe impl IoBuf for PooledBytes {
    fn read_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }
}
