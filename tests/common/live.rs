//! The number of live bytes that counted threads allocated, whichever thread frees them.

use super::booking::{Booking, Books, join};
use std::alloc::Layout;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;

/// The ledger of counted threads. All other threads have ledger 0.
const COUNTED: usize = 1;

static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);

pub struct LiveBytes;

impl Books for LiveBytes {
    fn allocated(ledger: usize, layout: Layout) {
        if ledger == COUNTED {
            LIVE_BYTES.fetch_add(layout.size() as i64, Ordering::Relaxed);
        }
    }

    fn freed(ledger: usize, layout: Layout) {
        if ledger == COUNTED {
            LIVE_BYTES.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        }
    }
}

#[global_allocator]
static ALLOCATOR: Booking<LiveBytes> = Booking::new();

pub fn live_bytes() -> i64 {
    LIVE_BYTES.load(Ordering::Relaxed)
}

/// Counts the calling thread's allocations from now on.
pub fn count_here() {
    join(COUNTED);
}

/// Runs `work` on a new thread and counts its allocations, up to the destructors of its
/// thread-locals.
///
/// # Panics
///
/// - If the system refuses the thread.
pub fn counted<T: Send + 'static>(
    builder: thread::Builder,
    work: impl FnOnce() -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let counted = move || {
        count_here();
        work()
    };
    let thread = builder.spawn(counted);
    thread.expect("the system allows one more thread")
}
