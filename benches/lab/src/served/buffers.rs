//! Where a server's buffers come from: all that differs between the modes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::fmt;
use std::io;
use std::ops::Deref;
use tierpool::{Pool, PooledBuf, PooledBytes};

/// The buffers of one server.
#[derive(Clone)]
pub enum Buffers {
    Plain,
    Pool(Pool),
}

/// Plain `BytesMut`.
#[derive(Clone, Copy)]
pub struct Plain;

pub trait Source: Clone + Send + Sync + Unpin + 'static {
    type Buffer: Buffer;

    /// An empty buffer with room for at least `size` bytes.
    fn get(&self, size: usize) -> Self::Buffer;
}

pub trait Buffer: Buf + BufMut + fmt::Write + Send + Sync + 'static {
    /// A part of the contents, which shares the buffer.
    type Part: Buf + Deref<Target = [u8]> + Send + Sync + Unpin + 'static;

    fn reserve(&mut self, additional: usize);
    fn split_to(&mut self, len: usize) -> Self::Part;
    fn freeze(self) -> Self::Part;

    /// Appends at most `most` bytes of a file, from the offset `at`. Zeroes nothing.
    #[cfg(unix)]
    fn read_at(&mut self, file: &std::fs::File, most: usize, at: u64) -> io::Result<usize>;
}

impl Source for Plain {
    type Buffer = BytesMut;

    fn get(&self, size: usize) -> BytesMut {
        BytesMut::with_capacity(size)
    }
}

impl Source for Pool {
    type Buffer = PooledBuf;

    fn get(&self, size: usize) -> PooledBuf {
        self.get(size)
    }
}

impl Buffer for BytesMut {
    type Part = Bytes;

    fn reserve(&mut self, additional: usize) {
        self.reserve(additional);
    }

    fn split_to(&mut self, len: usize) -> Bytes {
        self.split_to(len).freeze()
    }

    fn freeze(self) -> Bytes {
        self.freeze()
    }

    #[cfg(unix)]
    fn read_at(&mut self, file: &std::fs::File, most: usize, at: u64) -> io::Result<usize> {
        use std::os::fd::AsRawFd;
        self.reserve(most);
        let room = self.spare_capacity_mut();
        let (start, len) = (room.as_mut_ptr().cast(), room.len().min(most));
        // SAFETY: the room is the buffer's alone, and of at least this length.
        let read = unsafe { libc::pread(file.as_raw_fd(), start, len, at as libc::off_t) };
        let Ok(read) = usize::try_from(read) else {
            return Err(io::Error::last_os_error());
        };
        // SAFETY: the system has written these bytes.
        unsafe { self.advance_mut(read) };
        Ok(read)
    }
}

impl Buffer for PooledBuf {
    type Part = PooledBytes;

    fn reserve(&mut self, additional: usize) {
        self.reserve(additional);
    }

    fn split_to(&mut self, len: usize) -> PooledBytes {
        self.split_to(len)
    }

    fn freeze(self) -> PooledBytes {
        self.freeze()
    }

    #[cfg(unix)]
    fn read_at(&mut self, file: &std::fs::File, most: usize, at: u64) -> io::Result<usize> {
        self.read_at(file, most, at)
    }
}
