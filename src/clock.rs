//! A coarse clock that never goes back.
//!
//! Owns the unit: milliseconds, which wrap. Knows nothing of what is timed.

use crate::sync::{AtomicUsize, Ordering};
use std::time::Duration;

/// An event that comes round after an interval.
pub(crate) struct Timer {
    interval: usize,
    next: AtomicUsize,
}

impl Timer {
    pub(crate) fn new(interval: Duration) -> Self {
        // Half of what wraps, so that what is to come can be told from what
        // has passed.
        let interval = usize::try_from(interval.as_millis())
            .unwrap_or(usize::MAX)
            .min(usize::MAX / 2);
        let timer = Timer {
            interval,
            next: AtomicUsize::new(0),
        };
        timer.restart();
        timer
    }

    /// Whether the interval has passed since the last restart.
    pub(crate) fn is_over(&self) -> bool {
        // Relaxed: a time, which orders nothing. So below.
        let next = self.next.load(Ordering::Relaxed);
        system::now().wrapping_sub(next) <= usize::MAX / 2
    }

    pub(crate) fn restart(&self) {
        let next = system::now().wrapping_add(self.interval);
        self.next.store(next, Ordering::Relaxed);
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
mod system {
    /// The kernel's tick, 1 to 10 ms: read without asking the hardware.
    pub(super) fn now() -> usize {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: writes one `timespec`, to the one that it is given. It cannot
        // fail with this clock; if it did, the time would stand still.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time) };
        (time.tv_sec as usize)
            .wrapping_mul(1000)
            .wrapping_add(time.tv_nsec as usize / 1_000_000)
    }
}

#[cfg(any(miri, not(target_os = "linux")))]
mod system {
    use std::sync::OnceLock;
    use std::time::Instant;

    pub(super) fn now() -> usize {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_millis() as usize
    }
}
