//! Orderings that are weakened for a model that must fail without them.
//!
//! Owns which kind of ordering is weakened, and in which source file. Knows nothing of the models,
//! or of the purpose of an ordering.
//!
//! Each atomic operation and fence looks at the file that it is called from. The engine is compiled
//! without changes, and does not know of this.

use super::Ordering;
use std::cell::Cell;
use std::panic::Location;
use std::path::Path;

/// The weakened orderings.
#[derive(Clone, Copy)]
struct Weak {
    /// The end of a source file's path.
    file: &'static str,
    kind: Ordering,
    /// Whether an operation has used a weakened ordering.
    met: bool,
}

std::thread_local! {
    static WEAK: Cell<Option<Weak>> = const { Cell::new(None) };
}

/// The ordering that the checker runs where the calling file names `named`.
#[track_caller]
pub(super) fn left(named: Ordering) -> Ordering {
    let Some(weak) = WEAK.get() else {
        return named;
    };
    let left = without(named, weak.kind);
    if left == named || !Path::new(Location::caller().file()).ends_with(weak.file) {
        return named;
    }
    WEAK.set(Some(Weak { met: true, ..weak }));
    left
}

fn without(named: Ordering, kind: Ordering) -> Ordering {
    match (named, kind) {
        // AcqRel: the other half stays, Acquire or Release.
        (Ordering::AcqRel, Ordering::Acquire) => Ordering::Release,
        (Ordering::AcqRel, Ordering::Release) => Ordering::Acquire,
        // Relaxed: the weakened ordering has no other half.
        _ if named == kind => Ordering::Relaxed,
        _ => named,
    }
}

/// Runs models with one kind of ordering weakened in one source file, until a model fails.
///
/// Weakens it for the rest of the calling test: all threads of a model run on the test's thread.
///
/// # Panics
///
/// - If a model fails.
/// - If all pass. The message tells whether they used such an ordering.
#[allow(dead_code)] // shuttle sees no ordering
pub(crate) fn fail_without(kind: Ordering, file: &'static str, models: impl FnOnce()) -> ! {
    let met = false;
    WEAK.set(Some(Weak { file, kind, met }));
    models();
    match WEAK.get() {
        Some(Weak { met: true, .. }) => panic!("the models need no {kind:?} in {file}"),
        _ => panic!("the models meet no {kind:?} in {file}"),
    }
}
