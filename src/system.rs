//! What the pool asks of the system's heap.

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
