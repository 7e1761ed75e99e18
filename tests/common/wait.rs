//! Waiting for what has no time set.

use std::thread;
use std::time::Duration;

/// Waits until something is so.
///
/// Gives up after so many looks that only a pool that never does it can fail:
/// 1 ms each at least, a minute in all.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..60_000 {
        if is_so() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("never: {what}");
}
