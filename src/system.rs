//! The pool's requests to the heap and to the operating system, beyond those of the standard
//! library.
//!
//! Owns the handling of refusals: a refused request is a `None` or an `Err`, and never ends the
//! process. Knows nothing of the use of the memory.

use std::alloc::{self, Layout};
use std::hint;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
#[cfg(all(unix, not(miri)))]
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
#[cfg(all(unix, not(miri)))]
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// No buffer can be larger: Rust's allocations end at `isize::MAX` bytes.
pub(crate) const CAPACITY_MAX: usize = isize::MAX as usize;

/// `len` bytes, all zero, that fill their vector; `None` if the heap refuses.
///
/// Zeroed, since a vector shows all bytes that it holds. Costs as much as [`zeroed_slice`].
pub(crate) fn zeroed(len: usize) -> Option<Vec<u8>> {
    let bytes = zeroed_slice::<u8>(len)?;
    // SAFETY: all of them are initialised, with zeros.
    Some(unsafe { bytes.assume_init() }.into_vec())
}

/// Memory for `len` values, all of its bytes zero; `None` if the heap refuses.
///
/// Memory that the heap takes from the system is zero already, and is not touched. The rest is
/// overwritten.
pub(crate) fn zeroed_slice<T>(len: usize) -> Option<Box<[MaybeUninit<T>]>> {
    let layout = Layout::array::<T>(len).ok()?;
    if layout.size() == 0 {
        return Some(Box::new_uninit_slice(len)); // asks the heap for nothing
    }
    // SAFETY: the size is not 0.
    let start = unsafe { alloc::alloc_zeroed(layout) }.cast::<MaybeUninit<T>>();
    if start.is_null() {
        return None;
    }
    let slice = ptr::slice_from_raw_parts_mut(start, len);
    // SAFETY: the global allocator has given the block for the slice's layout, and
    // nothing else refers to it. A `MaybeUninit` may be any bytes.
    Some(unsafe { Box::from_raw(slice) })
}

/// Moves `value` to a block from the heap; hands it back if the heap has none.
pub(crate) fn boxed<T>(value: T) -> Result<Box<T>, T> {
    let mut one = Vec::new();
    if one.try_reserve_exact(1).is_err() {
        return Err(value);
    }
    one.push(value);
    let one = Box::into_raw(one.into_boxed_slice()).cast::<T>();
    // SAFETY: from a box of one `T` in a slice, which has the layout of a `T`.
    Ok(unsafe { Box::from_raw(one) })
}

/// Returns whether the heap gives a block for `count` values of `T` now. Frees the block again.
///
/// This is a hint, for an allocation by other code that ends the process if it is refused. Another
/// thread may take the last memory in between.
pub(crate) fn has_room_for<T>(count: usize) -> bool {
    let mut probe = Vec::<T>::new();
    let has_room = probe.try_reserve_exact(count).is_ok();
    // Keeps the compiler from removing the unused block.
    hint::black_box(probe.as_ptr());
    has_room
}

/// Gives the whole pages among some bytes back to the system. Returns how many bytes these are,
/// or `None` on a system where the pool cannot do that.
///
/// The bytes are uninitialised before and after, whatever they are. A later write to them takes a
/// page fault for each page. If the system refuses, as for locked pages, the result is 0 bytes.
/// Where huge pages are in use, the system splits one if only a part of it is given back.
pub(crate) fn release_pages(bytes: &mut [MaybeUninit<u8>]) -> Option<usize> {
    let page = pages::size()?;
    let pages = match bytes.as_ptr().align_offset(page) {
        first if first < bytes.len() => &mut bytes[first..],
        _ => &mut [],
    };
    let len = pages.len() / page * page;
    // SAFETY: these are whole pages, and `bytes` is the only reference to them. Their contents may
    // be lost, as they are uninitialised.
    let released = len > 0 && unsafe { pages::release(pages.as_mut_ptr().cast(), len) };
    Some(if released { len } else { 0 })
}

#[cfg(all(target_os = "linux", not(miri)))]
mod pages {
    use std::ffi::c_void;

    pub(super) fn size() -> Option<usize> {
        // SAFETY: takes a number, and cannot fail for this one.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(size).ok()
    }

    /// Returns `false` if the system refuses, as it does for locked pages. Nothing has changed
    /// then.
    ///
    /// # Safety
    ///
    /// - The pages are whole, and no other code uses them. Their contents may be lost.
    pub(super) unsafe fn release(pages: *mut c_void, len: usize) -> bool {
        // SAFETY: as the caller promises. `errno` belongs to this thread, and is restored: a drop
        // may run between the program's own call and its read of `errno`.
        unsafe {
            let errno = libc::__errno_location();
            let before = *errno;
            let result = libc::madvise(pages, len, libc::MADV_DONTNEED);
            *errno = before;
            result == 0
        }
    }
}

#[cfg(all(windows, not(miri)))]
mod pages {
    use std::ffi::c_void;

    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn DiscardVirtualMemory(pages: *mut c_void, len: usize) -> u32;
    }

    /// 4096: the page of each machine that has both Windows and Rust.
    pub(super) fn size() -> Option<usize> {
        Some(4096)
    }

    /// Returns `false` if the system refuses. Nothing has changed then.
    ///
    /// # Safety
    ///
    /// - The pages are whole, and no other code uses them. Their contents may be lost.
    pub(super) unsafe fn release(pages: *mut c_void, len: usize) -> bool {
        // SAFETY: as the caller promises.
        unsafe { DiscardVirtualMemory(pages, len) == 0 }
    }
}

#[cfg(any(miri, not(any(target_os = "linux", windows))))]
mod pages {
    use std::ffi::c_void;

    pub(super) fn size() -> Option<usize> {
        None
    }

    pub(super) unsafe fn release(_pages: *mut c_void, _len: usize) -> bool {
        unreachable!("there are no pages to release")
    }
}

/// As [`FileExt::read_at`](std::os::unix::fs::FileExt::read_at), into bytes that may be
/// uninitialised. Returns how many bytes from the first one on are initialised then.
#[cfg(all(unix, not(miri)))]
pub(crate) fn read_at(
    file: BorrowedFd<'_>,
    room: &mut [MaybeUninit<u8>],
    offset: u64,
) -> io::Result<usize> {
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    use libc::{off_t as Offset, pread};
    #[cfg(any(target_os = "linux", target_os = "android"))]
    use libc::{off64_t as Offset, pread64 as pread};
    let offset = Offset::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: writes at most as many bytes as the room has, to the room.
    let read = unsafe {
        pread(
            file.as_raw_fd(),
            room.as_mut_ptr().cast(),
            room.len(),
            offset,
        )
    };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// As [`UdpSocket::recv_from`](std::net::UdpSocket::recv_from), into bytes that may be
/// uninitialised. Returns how many bytes from the first one on are initialised then.
#[cfg(all(unix, not(miri)))]
pub(crate) fn recv_from(
    socket: BorrowedFd<'_>,
    room: &mut [MaybeUninit<u8>],
) -> io::Result<(usize, SocketAddr)> {
    // Zeroed, since a system need not write all of it.
    let mut sender = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut sender_len = size_of_val(&sender) as libc::socklen_t;
    // SAFETY: writes at most as many bytes as the room has, to the room, and an address of at most
    // its length, to the address.
    let received = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            room.as_mut_ptr().cast(),
            room.len(),
            0,
            sender.as_mut_ptr().cast(),
            &raw mut sender_len,
        )
    };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let sender = &raw const sender;
    // SAFETY: an address is made of numbers, and each was zeroed or written. The family gives the
    // kind of the address. Each kind is shorter than the storage, and no more aligned.
    let sender = unsafe {
        match libc::c_int::from((*sender.cast::<libc::sockaddr_storage>()).ss_family) {
            libc::AF_INET => {
                let v4 = *sender.cast::<libc::sockaddr_in>();
                let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
                SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)))
            }
            libc::AF_INET6 => {
                let v6 = *sender.cast::<libc::sockaddr_in6>();
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                let port = u16::from_be(v6.sin6_port);
                SocketAddr::V6(SocketAddrV6::new(
                    ip,
                    port,
                    v6.sin6_flowinfo,
                    v6.sin6_scope_id,
                ))
            }
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
    };
    Ok((received, sender))
}

/// Asks the heap to give free pages back, if it is one that can be asked.
///
/// glibc's heap keeps free memory below a block that is in use, and the blocks in its threads'
/// caches. `malloc_trim` gives back whole free pages wherever they lie. It locks one arena after
/// the other meanwhile.
pub(crate) fn malloc_trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    // SAFETY: takes a number, may be called by any thread at any time, and
    // touches no block that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Blocks all signals in the calling thread until it is dropped, also by a panic.
///
/// A thread that is started meanwhile blocks them for good. Does nothing on systems without
/// signals.
pub(crate) struct SignalsBlocked {
    before: signals::Mask,
    /// Keeps it on its thread.
    _of_this_thread: PhantomData<*const ()>,
}

impl SignalsBlocked {
    /// # Errors
    ///
    /// - If the system refuses. The thread's signals are unchanged then.
    pub(crate) fn in_this_thread() -> io::Result<Self> {
        Ok(SignalsBlocked {
            before: signals::block_all()?,
            _of_this_thread: PhantomData,
        })
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        signals::restore(&self.before);
    }
}

// The Unix systems named here have no such call in the `libc` crate, and hardly any signals.
#[cfg(all(
    unix,
    not(any(
        target_os = "emscripten",
        target_os = "espidf",
        target_os = "horizon",
        target_os = "l4re",
        target_os = "nuttx",
        target_os = "vita",
        miri,
    ))
))]
mod signals {
    use std::io;
    use std::mem::MaybeUninit;

    /// Zeroed, then written by the system, which need not write all of it.
    pub(super) type Mask = MaybeUninit<libc::sigset_t>;

    /// Blocks all signals in the calling thread. Returns the mask that it had.
    pub(super) fn block_all() -> io::Result<Mask> {
        let mut all = Mask::zeroed();
        // SAFETY: writes one set, to the place that it is given.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        exchange(&all)
    }

    /// Gives the calling thread a mask that it had.
    pub(super) fn restore(before: &Mask) {
        // It cannot fail: the same call has succeeded with another set.
        _ = exchange(before);
    }

    /// Gives the calling thread a mask. Returns the one that it had.
    fn exchange(mask: &Mask) -> io::Result<Mask> {
        let mut before = Mask::zeroed();
        let (new, old) = (mask.as_ptr(), before.as_mut_ptr());
        // SAFETY: reads one set, of numbers that are zeroed at least, and writes another.
        match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, new, old) } {
            0 => Ok(before),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

#[cfg(any(
    not(unix),
    target_os = "emscripten",
    target_os = "espidf",
    target_os = "horizon",
    target_os = "l4re",
    target_os = "nuttx",
    target_os = "vita",
    miri,
))]
mod signals {
    use std::io;

    pub(super) type Mask = ();

    pub(super) fn block_all() -> io::Result<Mask> {
        Ok(())
    }

    pub(super) fn restore(_before: &Mask) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Range;
    use std::slice;

    #[test]
    fn a_request_that_no_heap_can_serve_is_refused() {
        const LAYOUT_MAX: usize = isize::MAX as usize;
        assert_eq!(zeroed(LAYOUT_MAX + 1), None, "no layout is so large");
        assert_eq!(zeroed(usize::MAX), None);
        assert!(zeroed_slice::<u64>(usize::MAX / 4).is_none());
        assert!(!has_room_for::<u64>(usize::MAX));
        // Two blocks of this size and the program need more addresses than there are.
        let (one, other) = (zeroed(LAYOUT_MAX), zeroed(LAYOUT_MAX));
        assert!(one.is_none() || other.is_none());
        assert!(one.is_none() || !has_room_for::<u8>(LAYOUT_MAX));
    }

    #[test]
    fn a_granted_block_has_the_requested_length() {
        for len in [0, 1, 511, 4096, 1 << 20] {
            let bytes = zeroed(len).expect("the heap has room");
            assert_eq!((bytes.len(), bytes.capacity()), (len, len));
            assert!(bytes.iter().all(|&byte| byte == 0));
            assert!(has_room_for::<u8>(len));
        }
        let boxed = boxed(String::from("owned")).expect("the heap has room");
        assert_eq!(*boxed, "owned");
    }

    #[test]
    fn only_whole_pages_are_released() {
        const PAGE: usize = 64 << 10; // the largest of any system
        const PART: Range<usize> = 1000..5 * PAGE - 1000;
        let mut bytes = vec![7_u8; 5 * PAGE];
        let start = bytes.as_mut_ptr().cast::<MaybeUninit<u8>>();
        // SAFETY: they lie in the vector, which no other code uses meanwhile. They are read through
        // `black_box` below, since the system has changed them.
        let part = unsafe { slice::from_raw_parts_mut(start.add(PART.start), PART.len()) };
        let released = release_pages(part);
        let bytes = hint::black_box(bytes);
        let outside = bytes[..PART.start].iter().chain(&bytes[PART.end..]);
        assert!(outside.copied().all(|byte| byte == 7));
        // All except the partial pages at either end.
        let zeros = bytes.iter().filter(|&&byte| byte == 0).count();
        let least = released.map_or(0, |_| PART.len() - 2 * PAGE);
        let released_bytes = released.unwrap_or(0);
        assert!((least..=PART.len()).contains(&released_bytes));
        if !cfg!(windows) {
            // On such a system, the bytes may be anything.
            assert_eq!(zeros, released_bytes);
        }
        let can = cfg!(all(any(target_os = "linux", windows), not(miri)));
        assert_eq!(released.is_some(), can);
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    #[test]
    fn locked_pages_stay_and_so_does_errno() {
        const LEN: usize = 256 << 10; // whole pages on any system, and few enough to be locked
        let mut bytes = vec![7_u8; LEN];
        // The system call itself: AddressSanitizer's `mlock` locks nothing.
        // SAFETY: locks pages in memory, or fails; changes no byte.
        if unsafe { libc::syscall(libc::SYS_mlock, bytes.as_ptr(), LEN) } != 0 {
            return; // the system forbids it
        }
        let start = bytes.as_mut_ptr().cast::<MaybeUninit<u8>>();
        // SAFETY: they are the vector, which no other code uses meanwhile.
        let part = unsafe { slice::from_raw_parts_mut(start, LEN) };
        // SAFETY: `errno` is this thread's own.
        unsafe { *libc::__errno_location() = 12_345 };
        let released = release_pages(part);
        // SAFETY: as above.
        let errno = unsafe { *libc::__errno_location() };
        let bytes = hint::black_box(bytes);
        // SAFETY: as for `mlock`.
        unsafe { libc::munlock(bytes.as_ptr().cast(), LEN) };
        assert_eq!((released, errno), (Some(0), 12_345));
        assert!(bytes.iter().all(|&byte| byte == 7));
    }

    /// Which signals this thread blocks.
    #[cfg(all(unix, not(miri)))]
    fn blocked() -> Vec<libc::c_int> {
        let mut now = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: writes one set, and then reads it.
        (1..32)
            .filter(|&signal| unsafe {
                libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), now.as_mut_ptr());
                libc::sigismember(now.as_ptr(), signal) == 1
            })
            .collect()
    }

    #[cfg(all(unix, not(miri)))]
    #[test]
    fn signals_are_blocked_until_the_guard_is_dropped_even_by_a_panic() {
        let before = blocked();
        let guard = SignalsBlocked::in_this_thread().expect("nothing forbids it");
        // All but SIGKILL and SIGSTOP, which cannot be blocked.
        assert_eq!(blocked().len(), 29);
        // A second guard restores the mask that the first one has set.
        drop(SignalsBlocked::in_this_thread());
        assert_eq!(blocked().len(), 29);
        drop(guard);
        assert_eq!(blocked(), before);
        let panicked = std::panic::catch_unwind(|| {
            let _guard = SignalsBlocked::in_this_thread();
            assert_eq!(blocked(), before, "the block has outlived its guard");
        });
        assert!(panicked.is_err());
        assert_eq!(blocked(), before);
    }
}
