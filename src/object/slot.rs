//! The heap cell of one object, and the list of the objects that wait to be dropped.
//!
//! Owns the object, and keeps its pool alive. Knows nothing of levels.
//!
//! The count that keeps the pool alive belongs to the slot from its beginning to its end. So moving
//! a slot between a guard and a cache counts nothing.

use super::ObjectBox;
use super::shared::{LOOK_EACH, Shared};
use crate::engine::Item;
use crate::panics;
use crate::sync::{Hint, Mutex, lock};
use std::sync::Arc;

/// An object of a pool.
// The home first: a drop reads it, whatever the size of the object.
#[repr(C)]
pub(super) struct Slot<T: Send + 'static> {
    home: Arc<Shared<T>>,
    /// The next one in the list of a [`Doomed`].
    next: Option<ObjectBox<T>>,
    pub(super) value: T,
}

impl<T: Send + 'static> Slot<T> {
    pub(super) fn new(value: T, home: Arc<Shared<T>>) -> ObjectBox<T> {
        Box::new(Slot {
            home,
            next: None,
            value,
        })
    }

    #[inline(always)]
    pub(super) fn home(&self) -> &Arc<Shared<T>> {
        &self.home
    }

    /// The home, beside the object.
    pub(super) fn parts(&mut self) -> (&Shared<T>, &mut T) {
        (&self.home, &mut self.value)
    }

    /// Drops the object where it lies. A panic of its `Drop` is counted, and goes no further.
    ///
    /// The program's code runs here, so the caller holds no lock.
    pub(super) fn end(self: Box<Self>) {
        let home = Arc::clone(&self.home);
        if panics::contain(|| drop(self)).is_none() {
            home.counters.panics.bump();
        }
    }
}

impl<T: Send + 'static> Item for ObjectBox<T> {
    type Notes = ();

    const SAMPLE_EACH: Option<u64> = Some(LOOK_EACH);

    #[inline(always)]
    fn weight(&self) -> usize {
        1
    }

    /// Does not drop the object yet: see [`Doomed`].
    fn free(self) {
        // Never the last count: the caller is inside the engine of this home, and keeps it alive.
        let home = Arc::clone(&self.home);
        home.doomed.add(self);
    }
}

/// Objects that the engine has freed, and that are yet to be dropped.
///
/// A list through the slots themselves, so it takes no memory. No code of the program runs under its
/// lock, and no thread takes another lock while it holds this one.
pub(super) struct Doomed<T: Send + 'static> {
    first: Mutex<Option<ObjectBox<T>>>,
    /// 1 if there is one, as far as can be seen. Exact for objects that the calling thread has added.
    any: Hint,
}

impl<T: Send + 'static> Doomed<T> {
    pub(super) fn new() -> Self {
        Doomed {
            first: Mutex::new(None),
            any: Hint::new(0),
        }
    }

    pub(super) fn add(&self, mut slot: ObjectBox<T>) {
        let mut first = lock(&self.first);
        slot.next = first.take();
        *first = Some(slot);
        self.any.set(1);
    }

    /// Drops those that are here now.
    #[inline]
    pub(super) fn drop_all(&self) {
        if self.any.get() != 0 {
            self.drop_some();
        }
    }

    #[cold]
    fn drop_some(&self) {
        let mut next = {
            let mut first = lock(&self.first);
            self.any.set(0);
            first.take()
        };
        // The lock is free again. One after the other: the end of a long chain would overflow the
        // stack.
        while let Some(mut slot) = next {
            next = slot.next.take();
            slot.end();
        }
    }
}
