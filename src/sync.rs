//! Atomics and locks: the only file that names `std::sync::atomic` or loom.
//!
//! Every other file takes these from here. Under `--cfg loom` they are loom's,
//! for the models in `src/models`.

#[cfg(not(loom))]
mod imp {
    pub(crate) use crossbeam_queue::ArrayQueue;
    #[allow(unused_imports)] // each system has its own barrier
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, compiler_fence, fence};
    // For counts that no protocol depends on: loom does not look at them.
    pub(crate) use std::sync::atomic::AtomicU8;
    // For what is in a static: loom's are made and forgotten with each run.
    pub(crate) use std::sync::atomic::AtomicBool as StaticBool;
    pub(crate) use std::sync::{Mutex, MutexGuard};
    pub(crate) use std::thread::yield_now;
    pub(crate) use std::thread_local;

    /// Shows a model checker that the caller has something to itself.
    pub(crate) struct Exclusive;

    impl Exclusive {
        pub(crate) fn new() -> Self {
            Exclusive
        }

        #[inline(always)]
        pub(crate) fn touch(&self) {}
    }

    /// Loads where nobody else stores meanwhile: not atomic, so that the compiler
    /// can make it part of the instruction that uses it.
    ///
    /// # Safety
    ///
    /// - No other thread stores to it until the caller lets it.
    #[inline(always)]
    pub(crate) unsafe fn load_unshared(number: &AtomicUsize) -> usize {
        // SAFETY: valid, being a reference; the caller excludes stores.
        unsafe { number.as_ptr().read() }
    }

    #[cfg(target_has_atomic = "64")]
    pub(super) type Count = std::sync::atomic::AtomicU64;
    // A machine without 64-bit atomics loses count after 2^32 events.
    #[cfg(not(target_has_atomic = "64"))]
    pub(super) type Count = AtomicUsize;
}

#[cfg(loom)]
mod imp {
    pub(crate) use loom::sync::atomic::{Ordering, fence};
    pub(crate) use loom::sync::{Mutex, MutexGuard};
    pub(crate) use loom::thread::yield_now;
    pub(crate) use std::sync::atomic::AtomicBool as StaticBool;
    pub(crate) use std::sync::atomic::AtomicU8;

    use std::cell::{Cell, RefCell};
    use std::collections::VecDeque;
    use std::mem;
    use std::ops::Deref;
    use std::rc::Rc;
    use std::thread::panicking;

    macro_rules! atomic {
        ($name:ident, $value:ty) => {
            /// Loom's, which sees also when it is freed while a thread may still store to it.
            #[derive(Debug)]
            pub(crate) struct $name(loom::sync::atomic::$name);

            impl $name {
                pub(crate) fn new(value: $value) -> Self {
                    $name(loom::sync::atomic::$name::new(value))
                }
            }

            impl Deref for $name {
                type Target = loom::sync::atomic::$name;

                fn deref(&self) -> &Self::Target {
                    &self.0
                }
            }

            impl Drop for $name {
                fn drop(&mut self) {
                    if !panicking() {
                        // SAFETY: loom looks.
                        unsafe { self.0.unsync_load() };
                    }
                }
            }
        };
    }

    atomic!(AtomicBool, bool);
    atomic!(AtomicUsize, usize);

    pub(super) type Count = loom::sync::atomic::AtomicU64;

    /// Shows loom that the caller has something to itself. Loom fails the model
    /// if two threads are there with nothing to order them.
    pub(crate) struct Exclusive(loom::cell::UnsafeCell<()>);

    impl Exclusive {
        pub(crate) fn new() -> Self {
            Exclusive(loom::cell::UnsafeCell::new(()))
        }

        pub(crate) fn touch(&self) {
            self.0.with_mut(|_| ());
        }
    }

    impl Drop for Exclusive {
        fn drop(&mut self) {
            if !panicking() {
                self.touch(); // to free it, too, takes being alone
            }
        }
    }

    /// Loads where nobody else stores meanwhile; loom fails the model if somebody may.
    ///
    /// # Safety
    ///
    /// - No other thread stores to it until the caller lets it.
    pub(crate) unsafe fn load_unshared(number: &AtomicUsize) -> usize {
        // SAFETY: loom looks.
        unsafe { number.unsync_load() }
    }

    /// What `crossbeam_queue::ArrayQueue` promises, and no more: who takes an
    /// item has seen what was done before it was pushed; the length is one that
    /// the queue had, but perhaps not the last. Nothing else is ordered, so that
    /// a model cannot pass because the queue is a lock.
    pub(crate) struct ArrayQueue<T> {
        capacity: usize,
        len: AtomicUsize,
        /// Of the standard library's: invisible to loom, which never leaves a
        /// thread for another one but at loom's operations. None is under it.
        items: std::sync::Mutex<VecDeque<T>>,
    }

    impl<T> ArrayQueue<T> {
        pub(crate) fn new(capacity: usize) -> Self {
            ArrayQueue {
                capacity,
                len: AtomicUsize::new(0),
                items: Default::default(),
            }
        }

        pub(crate) fn push(&self, item: T) -> Result<(), T> {
            if self.change_len(|len| (len + 1).min(self.capacity), Ordering::Release)
                == self.capacity
            {
                return Err(item);
            }
            self.items().push_back(item);
            Ok(())
        }

        pub(crate) fn pop(&self) -> Option<T> {
            self.change_len(|len| len.saturating_sub(1), Ordering::Acquire);
            self.items().pop_front()
        }

        pub(crate) fn len(&self) -> usize {
            self.len.load(Ordering::Acquire)
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.len() == 0
        }

        /// Says what the length was. No other thread runs between the change and
        /// the caller's next operation of loom's.
        fn change_len(&self, change: impl Fn(usize) -> usize, order: Ordering) -> usize {
            loop {
                // The items are as many as the last length says. Other threads
                // may run before the exchange, and then it fails.
                let len = self.items().len();
                let changed = self
                    .len
                    .compare_exchange(len, change(len), order, Ordering::Relaxed);
                if changed.is_ok() {
                    return len;
                }
            }
        }

        fn items(&self) -> std::sync::MutexGuard<'_, VecDeque<T>> {
            self.items
                .lock()
                .unwrap_or_else(super::PoisonError::into_inner)
        }
    }

    /// A variable of which each of loom's threads has its own, as
    /// `std::thread::LocalKey`. It ends in [`end_thread`]: loom itself ends a
    /// thread's variables after `join` has returned elsewhere, and a variable's
    /// destructor finds no other one.
    pub(crate) struct LocalKey<T: 'static>(pub(crate) &'static loom::thread::LocalKey<Local<T>>);

    pub(crate) struct Local<T>(RefCell<Option<Rc<T>>>);

    loom::thread_local! {
        /// What ends this thread's variables, in the order in which they began.
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
        /// Of a thread that does not end while the model runs.
        fn drop(&mut self) {
            mem::forget(self.0.take());
        }
    }

    /// Does what the end of a thread does. A model's threads call it last.
    #[cfg(test)]
    pub(crate) fn end_thread() {
        while let Some(end) = ENDS.with(|ends| ends.borrow_mut().pop()) {
            end();
        }
    }

    std::thread_local! {
        static LIGHT_IS_A_FENCE: Cell<bool> = const { Cell::new(true) };
    }

    /// Whether the light barrier is a fence. If not, it is nothing, as where the
    /// system has refused the heavy one.
    pub(crate) fn light_is_a_fence() -> bool {
        LIGHT_IS_A_FENCE.get()
    }

    /// Decides the above for the models that the calling test runs: all
    /// threads of a model run on the test's.
    #[cfg(test)]
    pub(crate) fn set_light_is_a_fence(is: bool) {
        LIGHT_IS_A_FENCE.set(is);
    }

    macro_rules! local_keys {
        ($(static $name:ident: $type:ty = const $init:block;)*) => {$(
            static $name: crate::sync::LocalKey<$type> = {
                loom::thread_local! {
                    static LOCAL: crate::sync::Local<$type> =
                        crate::sync::Local::new($init, &$name)
                }
                crate::sync::LocalKey(&LOCAL)
            };
        )*};
    }
    pub(crate) use local_keys as thread_local;
}

pub(crate) use imp::*;

use std::sync::{PoisonError, TryLockError};

/// Locks a mutex. Nothing panics while one is held but for want of memory, and
/// then what it guards is whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As [`lock`], unless another thread has it locked.
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// A number of events, for [`Stats`](crate::Stats) and the calibrator.
///
/// Every access is `Relaxed`, unless it says otherwise: a counter orders nothing.
#[derive(Debug, Default)]
pub(crate) struct Counter(imp::Count);

impl Counter {
    /// Counts events where the calling thread is the only writer.
    ///
    /// A plain load, add and store: no read-modify-write. `Release`, so that
    /// whoever has read the count and then passed an `Acquire` fence sees what
    /// was written before it.
    #[inline(always)]
    pub(crate) fn add_by_owner(&self, events: usize) {
        let count = self.0.load(Ordering::Relaxed);
        self.0
            .store(count.wrapping_add(events as _), Ordering::Release);
    }

    /// Counts one event where several threads write.
    pub(crate) fn bump(&self) {
        self.add(1);
    }

    /// Counts events where several threads write.
    pub(crate) fn add(&self, events: usize) {
        self.0.fetch_add(events as _, Ordering::Relaxed);
    }

    /// Raises the count to `least` if it is below, and returns what it is then.
    #[allow(clippy::unnecessary_cast)] // `Count` is `AtomicUsize` on some machines
    pub(crate) fn raise_to(&self, least: u64) -> u64 {
        let before = self.0.fetch_max(least as _, Ordering::Relaxed) as u64;
        before.max(least)
    }

    #[allow(clippy::unnecessary_cast)] // `Count` is `AtomicUsize` on some machines
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed) as u64
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[cfg(target_has_atomic = "64")]
    #[test]
    fn a_counter_goes_on_beyond_what_32_bits_hold() {
        let counter = Counter::default();
        let mut expected = u64::from(u32::MAX) - 2;
        assert_eq!(counter.raise_to(expected), expected);
        for _ in 0..5 {
            counter.bump();
            counter.add_by_owner(1);
            counter.add(1000);
            expected += 1002;
            assert_eq!(counter.get(), expected);
        }
        assert_eq!(counter.raise_to(7), expected, "it does not fall");
    }
}
