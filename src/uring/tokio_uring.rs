//! The traits of `tokio-uring`.

use crate::buf::{PooledBuf, PooledBytes};
use ::tokio_uring::buf::{IoBuf, IoBufMut};

// SAFETY: the runtime owns the guard, so no one else uses it, and a move leaves the buffer where it
// is (see the module). The first `bytes_init` bytes are the contents, and `bytes_total` ends where
// the buffer does.
unsafe impl IoBuf for PooledBuf {
    fn stable_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }

    fn bytes_total(&self) -> usize {
        self.capacity()
    }
}

// SAFETY: the address is that of `stable_ptr`, and may be written to up to the capacity.
unsafe impl IoBufMut for PooledBuf {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.lend_whole()
    }

    unsafe fn set_init(&mut self, pos: usize) {
        if pos > self.len() {
            // SAFETY: the caller promises that the bytes up to `pos` are initialised, and in the
            // buffer.
            unsafe { self.set_len(pos) };
        }
    }
}

// SAFETY: the part holds its buffer, whose bytes do not move or change (see the module). All its
// bytes are initialised.
unsafe impl IoBuf for PooledBytes {
    fn stable_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }

    fn bytes_total(&self) -> usize {
        self.len()
    }
}
