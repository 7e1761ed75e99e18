//! What the pool asks of the heap and of the system behind it, beside what the
//! standard library asks for it.
//!
//! Owns the ways to be refused: what is asked for here and is not to be had is a
//! `None` or an `Err`, and never ends the process. Knows nothing of what it is for.

use std::alloc::{self, Layout};
use std::hint;
use std::mem::MaybeUninit;

/// So many bytes, all zero, which fill their vector; `None` if the heap has them not.
///
/// Zero, since a vector shows all that it holds. What the heap takes from the system for
/// it, is zero already; the rest is overwritten.
pub(crate) fn zeroed(len: usize) -> Option<Vec<u8>> {
    let layout = Layout::array::<u8>(len).ok()?;
    if layout.size() == 0 {
        return Some(Vec::new());
    }
    // SAFETY: the size is not 0.
    let start = unsafe { alloc::alloc_zeroed(layout) };
    if start.is_null() {
        return None;
    }
    // SAFETY: the global allocator has just given `start` for this layout, that of a
    // vector with room for `len` bytes, to nobody else; and all of them are
    // initialised, with zeros.
    Some(unsafe { Vec::from_raw_parts(start, len, len) })
}

/// `value` in a block of its own; handed back if the heap has none.
pub(crate) fn boxed<T>(value: T) -> Result<Box<T>, T> {
    const { assert!(size_of::<T>() > 0, "else there is nothing to ask for") };
    // SAFETY: the size is not 0.
    let block = unsafe { alloc::alloc(Layout::new::<T>()) }.cast::<T>();
    if block.is_null() {
        return Err(value);
    }
    // SAFETY: the global allocator has just given the block for the layout of a `T`, to
    // nobody else. It is initialised by the write, before a box owns it.
    unsafe {
        block.write(value);
        Ok(Box::from_raw(block))
    }
}

/// Whether the heap gives a block for so many `T` now.
///
/// The block is given back before this returns. For what can be had only in a way
/// that ends the process if it is refused. In between, another thread may take
/// the last that there is; as long as none does, a heap that gave the block gives
/// it again.
pub(crate) fn has_room_for<T>(count: usize) -> bool {
    let mut probe = Vec::<T>::new();
    let has_room = probe.try_reserve_exact(count).is_ok();
    // So that the compiler does not find the block useless, and leave it out.
    hint::black_box(probe.as_ptr());
    has_room
}

/// Gives the whole pages among some bytes back to the system. Returns whether this system can.
///
/// The bytes are uninitialised before and after, whatever they are.
pub(crate) fn release_pages(bytes: &mut [MaybeUninit<u8>]) -> bool {
    #[cfg(all(target_os = "linux", not(miri)))]
    {
        // SAFETY: takes a number, and cannot fail for this one.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page = usize::try_from(page).unwrap_or(usize::MAX);
        let pages = match bytes.as_ptr().align_offset(page) {
            first if first < bytes.len() => &mut bytes[first..],
            _ => &mut [],
        };
        let len = pages.len() / page * page;
        if len > 0 {
            // SAFETY: these are whole pages, and `bytes` is the only way to them. What they
            // held may be lost, as they are uninitialised. If the system refuses, as it does
            // for locked pages, nothing has changed.
            unsafe { libc::madvise(pages.as_mut_ptr().cast(), len, libc::MADV_DONTNEED) };
        }
        true
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    {
        let _bytes = bytes;
        false
    }
}

/// Has the heap give free pages back, if it is one that can be asked.
///
/// glibc's keeps what lies below a block that is still in use, and the blocks
/// that its threads' caches hold; `malloc_trim` gives back whole free pages
/// wherever they lie. It locks one arena after the other meanwhile.
pub(crate) fn malloc_trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    // SAFETY: takes a number, may be called by any thread at any time, and
    // touches no block that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_heap_can_give_is_refused() {
        const NO_HEAP_HAS: usize = isize::MAX as usize;
        assert_eq!(zeroed(NO_HEAP_HAS), None);
        assert_eq!(zeroed(NO_HEAP_HAS + 1), None, "no layout is so large");
        assert_eq!(zeroed(usize::MAX), None);
        assert!(!has_room_for::<u8>(NO_HEAP_HAS));
        assert!(!has_room_for::<u64>(usize::MAX));
    }

    #[test]
    fn what_is_given_is_whole() {
        for len in [0, 1, 511, 4096, 1 << 20] {
            let bytes = zeroed(len).expect("so much there is");
            assert_eq!((bytes.len(), bytes.capacity()), (len, len));
            assert!(bytes.iter().all(|&byte| byte == 0));
            assert!(has_room_for::<u8>(len));
        }
        let boxed = boxed(String::from("owned")).expect("so much there is");
        assert_eq!(*boxed, "owned");
    }
}
