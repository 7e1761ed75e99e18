//! The names that the crate uses where a model checker runs it: the checker's atomics and locks,
//! wrapped.
//!
//! Owns the code that is the same for both checkers: atomics that detect a free that comes too
//! early, and thread-local variables. Knows nothing of how a model is run. `native.rs` has the same
//! names.

#[cfg(test)]
pub(crate) use super::checker::model;
pub(crate) use super::checker::{Exclusive, Mutex, MutexGuard, Ordering, yield_now};
pub(crate) use std::sync::atomic::compiler_fence;
pub(crate) use std::sync::atomic::{
    AtomicBool as StaticBool, AtomicPtr as StaticPtr, AtomicUsize as StaticUsize,
};

use super::{checker, weaken};
use std::cell::{Cell, RefCell};
use std::mem;
use std::rc::Rc;
use std::thread::panicking;

pub(crate) const MODELLED: bool = true;

/// An object of a library, whose operations the checker cannot see.
///
/// Before each of them comes a [`step`](Self::step): there the checker may run another thread. The
/// steps are ordered as the operations are.
#[cfg(feature = "limit")]
pub(crate) struct Unseen(AtomicUsize);

#[cfg(feature = "limit")]
impl Unseen {
    pub(crate) fn new() -> Self {
        Unseen(AtomicUsize::new(0))
    }

    pub(crate) fn step(&self) {
        // AcqRel: orders the accesses around the steps, as the operations do.
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// Makes a step when the result is dropped.
    pub(crate) fn step_at_end(&self) -> impl Drop {
        struct AtEnd<'a>(&'a Unseen);
        impl Drop for AtEnd<'_> {
            fn drop(&mut self) {
                self.0.step();
            }
        }
        AtEnd(self)
    }
}

macro_rules! atomic {
    ($name:ident, $value:ty $(, $modify:ident)*) => {
        /// The checker's atomic. Loom also detects a free while another thread may still store to
        /// it.
        ///
        /// It has the operations that the crate uses. Each takes the ordering that [`weaken`]
        /// leaves.
        #[derive(Debug)]
        pub(crate) struct $name(checker::atomic::$name);

        impl $name {
            pub(crate) fn new(value: $value) -> Self {
                $name(checker::atomic::$name::new(value))
            }

            #[track_caller]
            pub(crate) fn load(&self, ordering: Ordering) -> $value {
                self.0.load(weaken::left(ordering))
            }

            #[track_caller]
            pub(crate) fn store(&self, value: $value, ordering: Ordering) {
                self.0.store(value, weaken::left(ordering));
            }

            $(
                #[track_caller]
                pub(crate) fn $modify(&self, value: $value, ordering: Ordering) -> $value {
                    self.0.$modify(value, weaken::left(ordering))
                }
            )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new(Default::default())
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                if !panicking() {
                    // SAFETY: the checker detects a race.
                    unsafe { checker::unsync_load!(self.0) };
                }
            }
        }
    };
}

atomic!(AtomicBool, bool);
atomic!(AtomicU64, u64, fetch_add, fetch_max);
atomic!(
    AtomicUsize,
    usize,
    swap,
    fetch_add,
    fetch_sub,
    fetch_and,
    fetch_or,
    fetch_max,
    fetch_min
);

impl AtomicBool {
    #[track_caller]
    pub(crate) fn compare_exchange(
        &self,
        current: bool,
        new: bool,
        success: Ordering,
        failure: Ordering,
    ) -> Result<bool, bool> {
        let (success, failure) = (weaken::left(success), weaken::left(failure));
        self.0.compare_exchange(current, new, success, failure)
    }
}

/// As the other atomics, for an address.
pub(crate) struct AtomicPtr<T>(checker::atomic::AtomicPtr<T>);

impl<T> AtomicPtr<T> {
    pub(crate) fn new(address: *mut T) -> Self {
        AtomicPtr(checker::atomic::AtomicPtr::new(address))
    }

    #[track_caller]
    pub(crate) fn load(&self, ordering: Ordering) -> *mut T {
        self.0.load(weaken::left(ordering))
    }

    #[track_caller]
    pub(crate) fn compare_exchange_weak(
        &self,
        current: *mut T,
        new: *mut T,
        success: Ordering,
        failure: Ordering,
    ) -> Result<*mut T, *mut T> {
        let (success, failure) = (weaken::left(success), weaken::left(failure));
        self.0.compare_exchange_weak(current, new, success, failure)
    }
}

impl AtomicUsize {
    #[track_caller]
    pub(crate) fn compare_exchange_weak(
        &self,
        current: usize,
        new: usize,
        success: Ordering,
        failure: Ordering,
    ) -> Result<usize, usize> {
        let (success, failure) = (weaken::left(success), weaken::left(failure));
        self.0.compare_exchange_weak(current, new, success, failure)
    }

    #[track_caller]
    pub(crate) fn fetch_update(
        &self,
        success: Ordering,
        failure: Ordering,
        update: impl FnMut(usize) -> Option<usize>,
    ) -> Result<usize, usize> {
        let (success, failure) = (weaken::left(success), weaken::left(failure));
        self.0.fetch_update(success, failure, update)
    }
}

pub(super) use AtomicU64 as Count;
pub(crate) use AtomicUsize as AtomicPosition;
pub(crate) type Position = usize;

#[track_caller]
pub(crate) fn fence(ordering: Ordering) {
    match weaken::left(ordering) {
        // Relaxed: the fence was weakened to none.
        Ordering::Relaxed => {}
        ordering => checker::fence(ordering),
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        if !panicking() {
            self.touch(); // freeing it needs exclusive access, too
        }
    }
}

/// Loads a number that no other thread stores to meanwhile. Loom fails the model if one may.
///
/// # Safety
///
/// - No other thread stores to it until the caller lets it.
pub(crate) unsafe fn load_unshared(number: &AtomicUsize) -> usize {
    // SAFETY: the checker detects a race.
    unsafe { checker::unsync_load!(number.0) }
}

/// A variable with one value for each of the model's threads, as `std::thread::LocalKey`. It ends
/// in [`end_thread`]. Loom itself ends a thread's variables after `join` has returned elsewhere,
/// and a variable's destructor finds no other variable then.
pub(crate) struct LocalKey<T: 'static>(pub(crate) &'static checker::LocalKey<Local<T>>);

pub(crate) struct Local<T>(RefCell<Option<Rc<T>>>);

checker::thread_local! {
    /// The functions that end this thread's variables, in the order in which they began.
    static ENDS: RefCell<Vec<Box<dyn FnOnce()>>> = RefCell::new(Vec::new());
}

impl<T: 'static> Local<T> {
    pub(crate) fn new(value: T, key: &'static LocalKey<T>) -> Self {
        if mem::needs_drop::<T>() {
            let end = move || drop(key.0.with(|local| local.0.take()));
            ENDS.with(|ends| ends.borrow_mut().push(Box::new(end)));
        }
        Local(RefCell::new(Some(Rc::new(value))))
    }
}

impl<T> LocalKey<T> {
    pub(crate) fn with<R>(&'static self, work: impl FnOnce(&T) -> R) -> R {
        let value = self.0.with(|local| local.0.borrow().clone());
        work(&value.expect("not used after its end"))
    }
}

impl<T> Drop for Local<T> {
    /// For a thread that does not end while the model runs.
    fn drop(&mut self) {
        mem::forget(self.0.take());
    }
}

/// Runs the destructors that the end of a thread runs. A model's threads call it last.
#[cfg(test)]
pub(crate) fn end_thread() {
    while let Some(end) = ENDS.with(|ends| ends.borrow_mut().pop()) {
        end();
    }
}

std::thread_local! {
    static LIGHT_IS_A_FENCE: Cell<bool> = const { Cell::new(true) };
}

/// Whether the light barrier is a fence. If not, it is nothing, as on a system that has refused the
/// heavy one.
pub(crate) fn light_is_a_fence() -> bool {
    LIGHT_IS_A_FENCE.get()
}

/// Sets `light_is_a_fence` for the models that the calling test runs: all threads of a model run on
/// the test's thread.
#[cfg(test)]
pub(crate) fn set_light_is_a_fence(is: bool) {
    LIGHT_IS_A_FENCE.set(is);
}

macro_rules! local_keys {
    ($(static $name:ident: $type:ty = const $init:block;)*) => {$(
        static $name: crate::sync::LocalKey<$type> = {
            crate::sync::checker::thread_local! {
                static LOCAL: crate::sync::Local<$type> =
                    crate::sync::Local::new($init, &$name)
            }
            crate::sync::LocalKey(&LOCAL)
        };
    )*};
}
pub(crate) use local_keys as thread_local;
