//! Waiting for what has no time set.

use std::thread;
use std::time::Duration;

/// Waits until something is so.
///
/// Gives up after 60,000 looks, 1 ms apart at least. Only a pool that never does it fails.
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
