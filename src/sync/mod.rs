//! Atomics, locks and threads: the only file that names `std::sync::atomic`, loom or
//! shuttle.
//!
//! Every other file takes these from here. Under `--cfg loom` or `--cfg shuttle` they are
//! the checker's, for the models in `src/models`.

#[cfg(not(any(loom, shuttle)))]
mod imp {
    pub(crate) use std::sync::atomic::AtomicPtr;
    #[allow(unused_imports)] // each system has its own barrier
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, compiler_fence, fence};
    // For what is in a static: a checker's are made and forgotten with each run.
    pub(crate) use std::sync::atomic::{AtomicBool as StaticBool, AtomicUsize as StaticUsize};
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

    /// Whether a checker runs this.
    pub(crate) const MODELLED: bool = false;

    /// Whether the light barrier is a fence where the system runs no barrier for
    /// other threads: always, but in a model.
    #[inline(always)]
    pub(crate) const fn light_is_a_fence() -> bool {
        true
    }

    #[cfg(target_has_atomic = "64")]
    pub(super) type Count = std::sync::atomic::AtomicU64;
    // A machine without 64-bit atomics loses count after 2^32 events.
    #[cfg(not(target_has_atomic = "64"))]
    pub(super) type Count = AtomicUsize;

    /// What counts the pushes or pops of a ring: of 64 bits where the machine has such
    /// atomics (`engine/ring.rs`, "A position that wraps").
    pub(crate) type AtomicPosition = Count;
    #[cfg(target_has_atomic = "64")]
    pub(crate) type Position = u64;
    #[cfg(not(target_has_atomic = "64"))]
    pub(crate) type Position = usize;
}

#[cfg(any(loom, shuttle))]
mod imp {
    pub(super) use super::checker::Count;
    pub(crate) use super::checker::atomic::AtomicPtr;
    #[cfg(test)]
    pub(crate) use super::checker::model;
    pub(crate) use super::checker::{Exclusive, Mutex, MutexGuard, Ordering, fence, yield_now};
    pub(crate) use std::sync::atomic::compiler_fence;
    pub(crate) use std::sync::atomic::{AtomicBool as StaticBool, AtomicUsize as StaticUsize};

    use super::checker;
    use std::cell::{Cell, RefCell};
    use std::mem;
    use std::ops::Deref;
    use std::rc::Rc;
    use std::thread::panicking;

    pub(crate) const MODELLED: bool = true;

    macro_rules! atomic {
        ($name:ident, $value:ty) => {
            /// The checker's. Loom sees also when it is freed while a thread may still store to it.
            #[derive(Debug)]
            pub(crate) struct $name(checker::atomic::$name);

            impl $name {
                pub(crate) fn new(value: $value) -> Self {
                    $name(checker::atomic::$name::new(value))
                }
            }

            impl Deref for $name {
                type Target = checker::atomic::$name;

                fn deref(&self) -> &Self::Target {
                    &self.0
                }
            }

            impl Drop for $name {
                fn drop(&mut self) {
                    if !panicking() {
                        // SAFETY: the checker looks.
                        unsafe { checker::unsync_load!(self.0) };
                    }
                }
            }
        };
    }

    atomic!(AtomicBool, bool);
    atomic!(AtomicUsize, usize);

    pub(crate) use AtomicUsize as AtomicPosition;
    pub(crate) type Position = usize;

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
        // SAFETY: the checker looks.
        unsafe { checker::unsync_load!(number.0) }
    }

    /// A variable of which each of the model's threads has its own, as
    /// `std::thread::LocalKey`. It ends in [`end_thread`]: loom itself ends a
    /// thread's variables after `join` has returned elsewhere, and a variable's
    /// destructor finds no other one.
    pub(crate) struct LocalKey<T: 'static>(pub(crate) &'static checker::LocalKey<Local<T>>);

    pub(crate) struct Local<T>(RefCell<Option<Rc<T>>>);

    checker::thread_local! {
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
                crate::sync::checker::thread_local! {
                    static LOCAL: crate::sync::Local<$type> =
                        crate::sync::Local::new($init, &$name)
                }
                crate::sync::LocalKey(&LOCAL)
            };
        )*};
    }
    pub(crate) use local_keys as thread_local;
}

/// Loom: each order in which the threads' atomic operations can take effect, by the
/// memory model of C11, up to a number of preemptions.
#[cfg(loom)]
pub(crate) mod checker {
    pub(crate) use loom::sync::atomic::{Ordering, fence};
    pub(crate) use loom::sync::{Mutex, MutexGuard};
    pub(crate) use loom::thread::{LocalKey, yield_now};
    pub(crate) use loom::{sync::atomic, thread_local};

    pub(crate) type Count = atomic::AtomicU64;

    macro_rules! unsync {
        ($number:expr) => {
            $number.unsync_load()
        };
    }
    pub(crate) use unsync as unsync_load;

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

    /// How the models are run, and their threads.
    #[cfg(test)]
    pub(crate) mod model {
        pub(crate) use loom::thread::JoinHandle;

        use std::sync::{Arc, Mutex};

        /// What threads may use of the stack: 256 KiB. Enough to say what has failed;
        /// that of the first thread is not.
        const STACK_WORDS: usize = 32 * 1024;

        /// Runs a model in every order that at most `preemptions` allow.
        pub(crate) fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
            let mut builder = loom::model::Builder::new();
            builder.max_branches = 20_000;
            builder.max_threads = 4;
            builder.preemption_bound.get_or_insert(preemptions);
            let orders = Arc::new(Mutex::new(0));
            let counted = Arc::clone(&orders);
            builder.check(move || {
                *counted.lock().unwrap() += 1;
                model();
            });
            println!("{} orders", orders.lock().unwrap());
        }

        pub(crate) fn spawn(work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
            let thread = loom::thread::Builder::new().stack_size(STACK_WORDS);
            thread.spawn(work).expect("loom always has one")
        }
    }
}

/// Shuttle: some of the orders of threads that are too many, or too long, to try all. One
/// thread runs at a time, and sees all that the others did before: whatever an ordering
/// would allow beyond that is not tried.
#[cfg(all(shuttle, not(loom)))]
pub(crate) mod checker {
    pub(crate) use shuttle::sync::atomic::{Ordering, fence};
    pub(crate) use shuttle::sync::{Mutex, MutexGuard};
    pub(crate) use shuttle::thread::{LocalKey, yield_now};
    pub(crate) use shuttle::{sync::atomic, thread_local};

    use std::cell::Cell;
    use std::time::Duration;

    pub(crate) type Count = atomic::AtomicU64;

    macro_rules! unsync {
        ($number:expr) => {
            $number.raw_load()
        };
    }
    pub(crate) use unsync as unsync_load;

    /// Lets other threads run, as each atomic operation does.
    fn switch() {
        shuttle::thread::sleep(Duration::ZERO);
    }

    /// Fails the model if two threads have the same to themselves at once.
    pub(crate) struct Exclusive(Cell<bool>);

    impl Exclusive {
        pub(crate) fn new() -> Self {
            Exclusive(Cell::new(false))
        }

        pub(crate) fn touch(&self) {
            assert!(!self.0.replace(true), "two threads are there at once");
            switch();
            self.0.set(false);
        }
    }

    /// How the models are run, and their threads.
    #[cfg(test)]
    pub(crate) mod model {
        pub(crate) use shuttle::thread::JoinHandle;

        use shuttle::rand::{Rng, thread_rng};
        use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
        use std::env;
        use std::sync::{Arc, Mutex};

        /// What threads may use of the stack: 256 KiB.
        const STACK_BYTES: usize = 256 * 1024;

        /// Where the orders begin that are tried: a test that has passed passes again.
        const SEED: u64 = 20;

        /// How often a preemption is moved to another place, at most, in half of the orders.
        ///
        /// 3: more than most races need.
        const CHANGES_OF_PRIORITY: usize = 3;

        /// How many orders of a model are tried that loom tries all of.
        const FEW: usize = 200;

        /// Runs a model in some orders.
        pub(crate) fn check(_preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
            check_many(FEW, model);
        }

        /// Runs a model in so many orders: half of them where each step is any thread's, and
        /// half where the thread of the highest priority runs, and these change seldom.
        ///
        /// `SHUTTLE_TIMES` makes them so many times more, `SHUTTLE_RANDOM_SEED` others.
        /// An order that fails is printed, and is run again, alone, if it is given as
        /// `SHUTTLE_REPLAY`.
        pub(crate) fn check_many(orders: usize, model: impl Fn() + Send + Sync + 'static) {
            let times = env::var("SHUTTLE_TIMES").map_or(1, |times| times.parse().unwrap());
            let orders = orders * times;
            let model = Arc::new(model);
            if let Ok(order) = env::var("SHUTTLE_REPLAY") {
                return run(ReplayScheduler::new_from_encoded(&order), model);
            }
            run(
                RandomScheduler::new_from_seed(SEED, orders / 2),
                Arc::clone(&model),
            );
            let by_priority = PctScheduler::new_from_seed(SEED, CHANGES_OF_PRIORITY, orders / 2);
            run(by_priority, model);
        }

        fn run(scheduler: impl Scheduler + 'static, model: Arc<impl Fn() + Send + Sync + 'static>) {
            let mut config = shuttle::Config::new();
            config.stack_size = STACK_BYTES;
            config.silence_warnings = true; // what it does not see, `src/models` says
            let steps = Arc::new(Mutex::new(0));
            let counted = Arc::clone(&steps);
            let orders = shuttle::Runner::new(scheduler, config).run(move || {
                model();
                *counted.lock().unwrap() += shuttle::current::context_switches();
            });
            println!("{orders} orders of {} steps in all", steps.lock().unwrap());
        }

        pub(crate) fn spawn(work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
            let thread = shuttle::thread::Builder::new().stack_size(STACK_BYTES);
            thread.spawn(work).expect("shuttle always has one")
        }

        /// A number below another, as the order that is tried has it.
        pub(crate) fn random(below: usize) -> usize {
            thread_rng().gen_range(0..below)
        }
    }
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

/// A number that only says when, or how far, to do what is right at any time.
///
/// Every access is `Relaxed`: a hint orders nothing, and may be lost to another thread's.
/// So a model checker need not try which of its values each thread sees.
#[derive(Debug, Default)]
pub(crate) struct Hint(imp::StaticUsize);

impl Hint {
    pub(crate) const fn new(value: usize) -> Self {
        Hint(imp::StaticUsize::new(value))
    }

    pub(crate) fn get(&self) -> usize {
        // Relaxed, here and below: see `Hint`.
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: usize) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds, and loses no other thread's change. Returns the sum.
    pub(crate) fn add(&self, more: usize) -> usize {
        self.0.fetch_add(more, Ordering::Relaxed).wrapping_add(more)
    }

    /// As [`add`](Self::add), the other way.
    pub(crate) fn subtract(&self, less: usize) {
        // Relaxed: see `Hint`.
        self.0.fetch_sub(less, Ordering::Relaxed);
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
        // Relaxed: see `Counter`.
        self.0.fetch_add(events as _, Ordering::Relaxed);
    }

    /// Raises the count to `least` if it is below, and returns what it is then.
    #[allow(clippy::unnecessary_cast)] // `Count` is `AtomicUsize` on some machines
    pub(crate) fn raise_to(&self, least: u64) -> u64 {
        // Relaxed: see `Counter`.
        let before = self.0.fetch_max(least as _, Ordering::Relaxed) as u64;
        before.max(least)
    }

    #[allow(clippy::unnecessary_cast)] // `Count` is `AtomicUsize` on some machines
    pub(crate) fn get(&self) -> u64 {
        // Relaxed: see `Counter`.
        self.0.load(Ordering::Relaxed) as u64
    }
}

#[cfg(test)]
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
