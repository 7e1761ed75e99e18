//! Shuttle's atomics, locks and threads, and how shuttle runs a model.
//!
//! Shuttle tries some of the orders of threads, for models that have too many orders to try all.
//! One thread runs at a time, and sees all that the others did before. What an ordering would
//! allow beyond that is not tried.
//!
//! Owns what only shuttle has. `loom.rs` has the same names. Knows nothing of the models.

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

    /// The stack that threads may use: 256 KiB.
    const STACK_BYTES: usize = 256 * 1024;

    /// Where the orders begin that are tried: a test that has passed passes again.
    const SEED: u64 = 20;

    /// The most moves of a preemption to another place, in half of the orders.
    ///
    /// 3: more than most races need.
    const CHANGES_OF_PRIORITY: usize = 3;

    /// How many orders are tried of a model that loom tries completely.
    const FEW: usize = 200;

    /// Runs a model in some orders.
    pub(crate) fn check(_preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
        check_many(FEW, model);
    }

    /// Runs a model in `orders` orders. In half of them each step is any thread's. In the other
    /// half the thread of the highest priority runs, and priorities change seldom.
    ///
    /// `SHUTTLE_TIMES` multiplies their number, and `SHUTTLE_RANDOM_SEED` selects others. An order
    /// that fails is printed. It is run again, alone, if it is given as `SHUTTLE_REPLAY`.
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
        config.silence_warnings = true; // `src/models` lists what it does not see
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
