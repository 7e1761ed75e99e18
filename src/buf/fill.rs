//! Room for code that wants initialised bytes, without zeroing what is zero already.
//!
//! Owns what such code may leave behind: nothing counts as contents that it did not announce.

#![allow(clippy::disallowed_types)] // the caller's socket and file: this opens none

use super::PooledBuf;
use crate::engine::Mark;
#[cfg(feature = "tokio")]
use crate::inner::Inner;
#[cfg(all(unix, not(miri)))]
use crate::system;
use ::bytes::BufMut;
use std::io::{self, Read};
#[cfg(all(unix, not(miri)))]
use std::mem::MaybeUninit;
use std::net::{SocketAddr, UdpSocket};
#[cfg(all(unix, not(miri)))]
use std::os::fd::AsFd;
#[cfg(feature = "tokio")]
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

impl PooledBuf {
    /// Lends `fill` a room of `room` initialised bytes, appends the bytes that it wrote, and returns their
    /// number.
    ///
    /// For code that needs `&mut [u8]`: `Read::read`, `recv_from`, decompressors, C libraries. `fill` returns
    /// the number of bytes that it wrote, from the front of the room. Grows through the pool.
    ///
    /// The room is zero. With [`Builder::reuse_initialised`](crate::Builder::reuse_initialised), it may hold
    /// bytes that the pool's other users wrote there.
    ///
    /// # Cost
    ///
    /// Zeroes those bytes of the room that are not known to be zero. A room that was lent to `fill` counts as
    /// written to its end, whatever `fill` returns, so the next room there is zeroed again. With
    /// `reuse_initialised`, memory is zeroed once, and again only if it was lent since, as
    /// [`spare_capacity_mut`](Self::spare_capacity_mut) or as a `BytesMut`.
    ///
    /// # Errors
    ///
    /// - The error of `fill`. Then nothing is appended.
    ///
    /// # Panics
    ///
    /// - If `fill` returns more than `room`.
    /// - If `fill` panics.
    /// - If the new capacity would be above `isize::MAX` bytes.
    ///
    /// After a panic nothing is appended.
    ///
    /// ```
    /// use std::io::Read;
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::new();
    /// let mut source = &b"some bytes"[..];
    /// let mut buf = pool.get(4096);
    /// let read = buf.fill_with(4, |room| source.read(room))?;
    /// assert_eq!((read, &buf[..]), (4, &b"some"[..]));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn fill_with(
        &mut self,
        room: usize,
        fill: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let written = fill(self.lend_room(room))?;
        self.append_room(room, written);
        Ok(written)
    }

    /// Reads once from `source`, appends at most `most` bytes, and returns their number: 0 at the source's
    /// end.
    ///
    /// The same as [`fill_with`](Self::fill_with) with [`Read::read`].
    ///
    /// # Errors
    ///
    /// - The error of `source`. Then nothing is appended.
    ///
    /// # Panics
    ///
    /// - If `source` returns more than `most`.
    /// - If the new capacity would be above `isize::MAX` bytes.
    ///
    /// ```
    /// use tierpool::Pool;
    ///
    /// let pool = Pool::new();
    /// let mut source = &b"some bytes"[..];
    /// let mut buf = pool.get(4096);
    /// while buf.read_from(&mut source, 4096)? > 0 {}
    /// assert_eq!(&buf[..], b"some bytes");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn read_from<R: Read + ?Sized>(
        &mut self,
        source: &mut R,
        most: usize,
    ) -> io::Result<usize> {
        self.fill_with(most, |room| source.read(room))
    }

    /// Receives one datagram and appends its first `most` bytes. Returns their number and the sender.
    ///
    /// On Unix, the system writes to memory that need not be initialised, so nothing is zeroed. Elsewhere it
    /// is the same as [`fill_with`](Self::fill_with) with [`UdpSocket::recv_from`].
    ///
    /// # Errors
    ///
    /// - The error of [`UdpSocket::recv_from`]. Then nothing is appended.
    ///
    /// # Panics
    ///
    /// - If the new capacity would be above `isize::MAX` bytes.
    ///
    /// ```
    /// use std::net::UdpSocket;
    /// use tierpool::Pool;
    ///
    /// let (here, there) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    /// there.send_to(b"ping", here.local_addr()?)?;
    ///
    /// let pool = Pool::new();
    /// let mut buf = pool.get(1500);
    /// let (len, from) = buf.recv_from(&here, 1500)?;
    /// assert_eq!((len, &buf[..]), (4, &b"ping"[..]));
    /// assert_eq!(from, there.local_addr()?);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn recv_from(
        &mut self,
        socket: &UdpSocket,
        most: usize,
    ) -> io::Result<(usize, SocketAddr)> {
        #[cfg(all(unix, not(miri)))]
        return self.fill_uninit(most, |room| {
            let (written, sender) = system::recv_from(socket.as_fd(), room)?;
            Ok((written, (written, sender)))
        });
        #[cfg(not(all(unix, not(miri))))]
        {
            let (written, sender) = socket.recv_from(self.lend_room(most))?;
            self.append_room(most, written);
            Ok((written, sender))
        }
    }

    /// Reads once from a place in a file, appends at most `most` bytes, and returns their number: 0 at the
    /// file's end.
    ///
    /// The file's own position does not move. The system writes to memory that need not be initialised, so
    /// nothing is zeroed.
    ///
    /// # Errors
    ///
    /// - The error of [`FileExt::read_at`](std::os::unix::fs::FileExt::read_at). Then nothing is appended.
    ///
    /// # Panics
    ///
    /// - If the new capacity would be above `isize::MAX` bytes.
    ///
    /// ```
    /// use std::fs::File;
    /// use tierpool::Pool;
    ///
    /// let file = File::open("/dev/zero")?;
    /// let mut buf = Pool::new().get(512);
    /// assert_eq!(buf.read_at(&file, 4, 100)?, 4);
    /// assert_eq!(buf, [0; 4]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[cfg(unix)]
    pub fn read_at(&mut self, file: &std::fs::File, most: usize, offset: u64) -> io::Result<usize> {
        #[cfg(not(miri))]
        return self.fill_uninit(most, |room| {
            let written = system::read_at(file.as_fd(), room, offset)?;
            Ok((written, written))
        });
        #[cfg(miri)]
        self.fill_with(most, |room| {
            std::os::unix::fs::FileExt::read_at(file, room, offset)
        })
    }

    /// Reads once from `source`, and appends at most `most` bytes to the room that there is. Returns
    /// their number: 0 at the source's end.
    ///
    /// Zeroes nothing and does not grow.
    ///
    /// # Panics
    ///
    /// - If there is no room, or `most` is 0: the source would seem to be at its end.
    /// - If `source` panics, or puts another `ReadBuf` in the place of the one it got.
    ///
    /// After a panic nothing is appended.
    #[cfg(feature = "tokio")]
    pub(crate) fn poll_read_from<R: ::tokio::io::AsyncRead + Unpin + ?Sized>(
        &mut self,
        source: &mut R,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let len = self.len();
        let spare = self.spare_capacity_mut();
        let most = most.min(spare.len());
        assert!(most > 0, "the source would seem to be at its end");
        let mut room = ::tokio::io::ReadBuf::uninit(&mut spare[..most]);
        let start = room.filled().as_ptr();
        ready!(Pin::new(source).poll_read(cx, &mut room))?;
        let (filled, written) = (room.filled().as_ptr(), room.filled().len());
        assert_eq!(filled, start, "the source has exchanged its `ReadBuf`");
        // SAFETY: `room` begins where the spare room behind the contents does. A source may put another
        // `ReadBuf` in its place. That begins elsewhere, since the room has a byte, or is cut out of this
        // one and ends in it. A `ReadBuf` counts only bytes as filled that are initialised, and not
        // more than it has.
        unsafe { self.set_len(len + written) };
        Poll::Ready(Ok(written))
    }

    /// Gives an empty guard all of its room again. Returns `false` if bytes that were cut off are in use, or
    /// if the pool cannot tell.
    #[cfg(feature = "codec")]
    pub(crate) fn try_reclaim_all(&mut self) -> bool {
        debug_assert!(self.is_empty(), "it would lose its contents");
        self.note_used();
        !self.is_shared() && self.slot.reclaim()
    }

    /// Gives the buffer back after a read that found nothing. The pool does not learn from it.
    #[cfg(feature = "tokio")]
    pub(crate) fn give_back_unused(self) {
        debug_assert!(self.is_empty(), "its use would be lost to the pool");
        let (slot, origin) = self.into_slot();
        match origin.has(Mark::Shared) {
            true => Inner::release_hold(Inner::into_hold(slot, origin)),
            false => Inner::release_unused(slot, origin),
        }
    }

    /// Returns the address of the contents, for writes to them and to the room behind them: to as many
    /// bytes as the [capacity](bytes::BytesMut::capacity).
    ///
    /// It is valid while the guard is moved, until the guard is used. The pool does not see the writes,
    /// nor which bytes they leave uninitialised. Those of the contents must stay initialised.
    #[cfg(any(feature = "compio", feature = "monoio", feature = "tokio-uring"))]
    pub(crate) fn lend_whole(&mut self) -> *mut u8 {
        self.slot.forget_initialised();
        self.note_unseen();
        let buf = &mut self.slot.buf;
        let len = buf.len();
        // So that the address is one for all bytes, and not for the contents or the room alone.
        buf.clear();
        let start = buf.spare_capacity_mut().as_mut_ptr();
        // SAFETY: these bytes were contents. Nothing has moved or changed them.
        unsafe { buf.set_len(len) };
        start.cast()
    }

    /// Appends what the system writes to a room of `room` bytes, which may be uninitialised. `fill`
    /// returns how many bytes it has initialised, from the front of the room.
    #[cfg(all(unix, not(miri)))]
    fn fill_uninit<R>(
        &mut self,
        room: usize,
        fill: impl FnOnce(&mut [MaybeUninit<u8>]) -> io::Result<(usize, R)>,
    ) -> io::Result<R> {
        self.make_room(room);
        self.slot.forget_zeros();
        self.note_unseen();
        let (written, result) = fill(&mut self.slot.buf.spare_capacity_mut()[..room])?;
        let len = self.slot.buf.len() + written.min(room);
        // SAFETY: the bytes were behind the contents. The system has written them.
        unsafe { self.slot.buf.set_len(len) };
        Ok(result)
    }

    /// Appends `count` zeros. Writes only those that are not known to be there.
    pub(super) fn append_zeros(&mut self, count: usize) {
        self.make_room(count);
        if self.knows_zeros() {
            self.slot.lend_room(count, true, false);
            self.append_room(count, count);
        } else {
            self.slot.buf.put_bytes(0, count);
        }
    }

    /// The `count` bytes behind the contents, initialised, after making room for them.
    fn lend_room(&mut self, count: usize) -> &mut [u8] {
        self.make_room(count);
        self.note_unseen();
        let reuse = self.slot.home().reuse_initialised();
        let known = !self.origin.has(Mark::Lent) && !self.origin.has(Mark::Probed);
        self.slot.lend_room(count, known, reuse)
    }

    /// Makes the first `written` bytes of a room of `room` bytes contents.
    fn append_room(&mut self, room: usize, written: usize) {
        assert!(
            written <= room,
            "the bytes written ({written}) are above the room that was to be filled ({room}): return \
             how many bytes were written to it"
        );
        let len = self.slot.buf.len() + written;
        // SAFETY: the room was behind the contents, and all of it is initialised.
        unsafe { self.slot.buf.set_len(len) };
        if self.knows_zeros() {
            self.mark(Mark::Known); // its return keeps what is known
        }
    }

    /// Whether some of the spare bytes are known to be zero.
    fn knows_zeros(&self) -> bool {
        let known = !self.origin.has(Mark::Lent) && !self.origin.has(Mark::Probed);
        known && self.slot.zeros_from() < self.slot.capacity()
    }
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "tokio")]
    #[test]
    #[should_panic(expected = "at its end")]
    fn a_source_is_not_polled_without_room() {
        use std::task::{Context, Waker};
        let mut full = crate::Pool::default().get_zeroed(512);
        let mut cx = Context::from_waker(Waker::noop());
        let _ = full.poll_read_from(&mut &b"more"[..], &mut cx, 9);
    }

    // Linux does so with a datagram whose checksum is wrong, and returns the next one's length.
    #[cfg(all(unix, not(miri)))]
    #[test]
    fn what_the_system_writes_and_does_not_announce_is_in_no_zeros() {
        let pool = crate::Pool::default();
        let mut buf = pool.get_zeroed(10); // of 512, and known to be zero behind these
        let filled = buf.fill_uninit(400, |room| {
            for byte in room {
                byte.write(b's');
            }
            Ok((4, ()))
        });
        assert!(filled.is_ok());
        buf.resize(500, 0);
        assert_eq!((&buf[10..14], &buf[14..]), (&b"ssss"[..], &[0; 486][..]));
    }
}
