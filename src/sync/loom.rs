//! Loom's atomics, locks and threads, and how loom runs a model.
//!
//! Loom tries each order in which the threads' atomic operations can take effect in the memory
//! model of C11, up to a number of preemptions.
//!
//! Owns the parts that only loom has. `shuttle.rs` has the same names. Knows nothing of the models.

pub(crate) use loom::sync::atomic::{Ordering, fence};
pub(crate) use loom::sync::{Mutex, MutexGuard};
pub(crate) use loom::thread::{LocalKey, yield_now};
pub(crate) use loom::{sync::atomic, thread_local};

macro_rules! unsync {
    ($number:expr) => {
        $number.unsync_load()
    };
}
pub(crate) use unsync as unsync_load;

/// Shows loom that the caller has exclusive access to something. Loom fails the model if two
/// threads have access and no operation orders them.
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

    /// The stack size of a model's threads: 256 KiB. That is enough to report a failure; the first
    /// thread's stack is not.
    const STACK_WORDS: usize = 32 * 1024;

    /// Runs a model in every order with at most `preemptions`.
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
