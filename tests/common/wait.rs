//! Waits without a fixed time.

use std::thread;
use std::time::Duration;

/// Waits until `is_so` returns `true`.
///
/// Gives up after 60,000 looks, at least 1 ms apart. Only a pool that never gets there fails.
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
