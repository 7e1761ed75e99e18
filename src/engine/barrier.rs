//! An asymmetric pair of memory barriers: free on the frequent side, costly on the rare one.
//!
//! Owns the choice between the real barriers and plain fences. Knows nothing of caches.
//!
//! Two threads that each store to one place and then load the other's place need a full barrier
//! between their store and their load. Otherwise both can miss the other's store. If one of the two
//! does this millions of times a second and the other almost never, the cost can be moved to the
//! rare side. The frequent side runs [`light`], which only keeps the compiler from reordering. The
//! rare side runs [`heavy`]: it asks the operating system to run a full barrier on every processor
//! that runs a thread of this process. `seize` and Folly's hazard pointers use the same pair.
//!
//! | system | `light` | `heavy` |
//! |---|---|---|
//! | Linux 4.14 and later | compiler fence | `membarrier(PRIVATE_EXPEDITED)` |
//! | Linux, `membarrier` refused | `SeqCst` fence | `SeqCst` fence |
//! | Windows | compiler fence | `FlushProcessWriteBuffers` |
//! | others, Miri, and the models | `SeqCst` fence | `SeqCst` fence |

use crate::sync::{self, MODELLED, Ordering, StaticBool, compiler_fence, fence};
use std::sync::Once;

/// Whether this system may run barriers for us.
const ASKS_THE_SYSTEM: bool = system::MAY_BE_ASKED && !MODELLED;

/// Whether the operating system runs barriers for us. Only ever goes from
/// `false` to `true`, inside [`prepare`].
static ASYMMETRIC: StaticBool = StaticBool::new(false);

/// Decides, once in the life of the process, which barriers the two sides run.
///
/// Must have returned before anything else here is used.
pub(super) fn prepare() {
    static DECIDED: Once = Once::new();
    // Relaxed: whoever reaches a cache got there through an engine that was
    // built after this call returned, and sharing the engine ordered the two.
    DECIDED.call_once(|| {
        let asymmetric = ASKS_THE_SYSTEM && system::register();
        ASYMMETRIC.store(asymmetric, Ordering::Relaxed);
    });
}

/// Whether [`light`] is enough on the frequent side. If not, that side must run
/// [`full`] instead.
#[inline]
pub(super) fn light_is_enough() -> bool {
    // Relaxed: see `prepare`.
    !ASKS_THE_SYSTEM && sync::light_is_a_fence() || ASYMMETRIC.load(Ordering::Relaxed)
}

/// The frequent side: the caller's earlier stores come before its later loads,
/// as seen by any thread that runs [`heavy`].
///
/// Orders nothing unless [`light_is_enough`]. It does not check that, to save the time: the caller
/// must check before it relies on the order.
#[inline(always)]
pub(super) fn light() {
    if ASKS_THE_SYSTEM {
        // SeqCst: pairs with the full barrier that `heavy` makes every processor
        // run; here only the compiler has to be held.
        compiler_fence(Ordering::SeqCst);
    } else if light_is_enough() {
        full();
    }
}

/// The frequent side, where the operating system runs no barrier for it.
#[inline]
pub(super) fn full() {
    // SeqCst: pairs with the fence in `heavy`.
    fence(Ordering::SeqCst);
}

/// The rare side: as [`light`], and pairs with every thread's `light` as a full barrier.
///
/// Takes about a microsecond where the system does it, so run one for many caches. Returns `false`
/// if the system ran such barriers before and refuses now, for example in a sandbox that the
/// process entered since.
#[must_use]
pub(super) fn heavy() -> bool {
    // SeqCst: pairs with the fence in `full`; and orders this thread's own
    // accesses around the system call.
    fence(Ordering::SeqCst);
    // Relaxed: see `prepare`.
    let done = !ASYMMETRIC.load(Ordering::Relaxed) || system::barrier_on_all_threads();
    // SeqCst: as above, for the accesses that follow.
    fence(Ordering::SeqCst);
    done
}

#[cfg(all(target_os = "linux", not(miri)))]
mod system {
    pub(super) const MAY_BE_ASKED: bool = true;

    fn membarrier(command: libc::c_int) -> bool {
        // SAFETY: `membarrier` takes a command, flags and a processor number
        // by value and touches no memory of ours; an unknown command fails.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
    }

    pub(super) fn register() -> bool {
        membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)
    }

    pub(super) fn barrier_on_all_threads() -> bool {
        membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED)
    }
}

#[cfg(all(windows, not(miri)))]
mod system {
    pub(super) const MAY_BE_ASKED: bool = true;

    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn FlushProcessWriteBuffers();
    }

    pub(super) fn register() -> bool {
        true
    }

    pub(super) fn barrier_on_all_threads() -> bool {
        // SAFETY: takes nothing, returns nothing, cannot fail, and exists in
        // every Windows that Rust supports.
        unsafe { FlushProcessWriteBuffers() };
        true
    }
}

#[cfg(any(miri, not(any(target_os = "linux", windows))))]
mod system {
    pub(super) const MAY_BE_ASKED: bool = false;

    pub(super) fn register() -> bool {
        false
    }

    pub(super) fn barrier_on_all_threads() -> bool {
        unreachable!("`register` reported no such barrier")
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
#[cfg(test)]
mod tests {
    use super::*;
    use std::env;
    use std::process::Command;

    /// Set for the process that the test starts, to see it decide.
    const ALONE: &str = "TIERPOOL_BARRIER_ALONE";

    // Until the system has promised the heavy barrier, and where it never does, the frequent side
    // must run a full barrier itself. A process that relied on the light one would fail once in a
    // very long time.
    #[test]
    fn the_light_barrier_is_enough_once_the_system_has_promised_the_heavy_one() {
        if env::var_os(ALONE).is_none() {
            // Other tests of this process have decided already.
            let name = "the_light_barrier_is_enough_once";
            let own = env::current_exe().expect("a test has a path");
            let ran = Command::new(own).arg(name).env(ALONE, "1").output();
            let ran = ran.expect("a test binary can be run");
            let said = String::from_utf8_lossy(&ran.stdout);
            assert!(ran.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        assert!(!light_is_enough());
        prepare();
        assert_eq!(light_is_enough(), system::register());
        assert!(heavy());
    }
}
