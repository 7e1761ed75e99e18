//! `mem::forget` that leak checkers do not count as a leak.
//!
//! Owns the forgotten values, in a static. Miri, AddressSanitizer and valgrind count nothing that
//! is reachable from a static as leaked, and still report other leaks. Knows nothing of the values.

use std::any::Any;
use std::sync::{Mutex, PoisonError};

/// Never drops `value`, and never touches it again, as [`std::mem::forget`].
pub fn forget(value: impl Send + 'static) {
    static FORGOTTEN: Mutex<Vec<Box<dyn Any + Send>>> = Mutex::new(Vec::new());
    let mut forgotten = FORGOTTEN.lock().unwrap_or_else(PoisonError::into_inner);
    forgotten.push(Box::new(value));
}
