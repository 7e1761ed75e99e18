//! Keeps a panic of the program's own code from going further. Knows nothing of that code.

use std::mem;
use std::panic::{self, AssertUnwindSafe};

/// Runs `work`. Returns `None` if it panics: the panic ends here, once the program's panic hook has
/// reported it.
#[inline]
pub(crate) fn contain<R>(work: impl FnOnce() -> R) -> Option<R> {
    panic::catch_unwind(AssertUnwindSafe(work))
        .map_err(end)
        .ok()
}

/// Drops the payload of a panic, which may panic as well. The payload of that panic is leaked.
#[cold]
fn end(payload: Box<dyn std::any::Any + Send>) {
    let dropped = panic::catch_unwind(AssertUnwindSafe(|| drop(payload)));
    let _leaked = dropped.map_err(mem::forget);
}

#[cfg(test)]
mod tests {
    use super::*;

    struct PanicsAtItsEnd;

    impl Drop for PanicsAtItsEnd {
        fn drop(&mut self) {
            panic::resume_unwind(Box::new(())); // without a size, since no code can drop it
        }
    }

    #[test]
    fn a_panic_ends_here_even_if_its_payload_panics() {
        assert_eq!(contain(|| 3), Some(3));
        assert_eq!(contain(|| panic::panic_any(1)).map(|()| 1), None);
        assert_eq!(
            contain(|| panic::panic_any(PanicsAtItsEnd)).map(|()| 1),
            None
        );
    }
}
