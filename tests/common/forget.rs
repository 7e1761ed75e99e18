//! `mem::forget` that leak checkers do not count as a leak.
//!
//! Owns what was forgotten, in a static: Miri, AddressSanitizer and valgrind take what
//! is reachable from there for not leaked, and go on looking at all the rest. Knows
//! nothing of what it is.

use std::any::Any;
use std::sync::{Mutex, PoisonError};

/// Never drops `value`, and never touches it again, as [`std::mem::forget`].
pub fn forget(value: impl Send + 'static) {
    static FORGOTTEN: Mutex<Vec<Box<dyn Any + Send>>> = Mutex::new(Vec::new());
    let mut forgotten = FORGOTTEN.lock().unwrap_or_else(PoisonError::into_inner);
    forgotten.push(Box::new(value));
}
