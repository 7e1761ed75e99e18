//! Shuttle's atomics, locks and threads, and how shuttle runs a model.
//!
//! Shuttle tries some of the orders of threads, for models that have too many orders to try all.
//! One thread runs at a time, and sees everything that the others did before. Shuttle does not try
//! other effects that an ordering would allow.
//!
//! Owns the parts that only shuttle has. `loom.rs` has the same names. Knows nothing of the models.

pub(crate) use shuttle::sync::atomic::{Ordering, fence};
pub(crate) use shuttle::sync::{Mutex, MutexGuard};
pub(crate) use shuttle::thread::{LocalKey, yield_now};
pub(crate) use shuttle::{sync::atomic, thread_local};

use std::cell::Cell;
use std::time::Duration;

macro_rules! unsync {
    ($number:expr) => {
        $number.raw_load()
    };
}
pub(crate) use unsync as unsync_load;

/// Lets other threads run. Each atomic operation does this.
fn switch() {
    shuttle::thread::sleep(Duration::ZERO);
}

/// Fails the model if two threads have exclusive access at once.
pub(crate) struct Exclusive(Cell<bool>);

impl Exclusive {
    pub(crate) fn new() -> Self {
        Exclusive(Cell::new(false))
    }

    pub(crate) fn touch(&self) {
        assert!(
            !self.0.replace(true),
            "two threads have exclusive access at once"
        );
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

    /// The stack size of a model's threads: 256 KiB.
    const STACK_BYTES: usize = 256 * 1024;

    /// The seed of the orders: a test that has passed passes again.
    const SEED: u64 = 20;

    /// The most changes of priority in an order, in the half of the orders that have priorities.
    ///
    /// 3: more than most races need.
    const CHANGES_OF_PRIORITY: usize = 3;

    /// How many orders are tried of a model for which loom tries all.
    const FEW: usize = 200;

    /// Runs a model in some orders.
    pub(crate) fn check(_preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
        check_many(FEW, model);
    }

    /// Runs a model in `orders` orders. In half of them, any thread may run the next step. In the
    /// other half, the thread of the highest priority runs, and priorities change seldom.
    ///
    /// `SHUTTLE_TIMES` multiplies the number of orders, and `SHUTTLE_RANDOM_SEED` selects others.
    /// An order that fails is printed. Give it as `SHUTTLE_REPLAY` to run it again, alone.
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
        config.silence_warnings = true; // `src/models` lists the cases that shuttle does not see
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

    /// A number below `below`, which the present order determines.
    pub(crate) fn random(below: usize) -> usize {
        thread_rng().gen_range(0..below)
    }
}
