//! Threads that take turns: one of them acts, the others wait.
//!
//! Owns the threads. Whatever they act on is moved to the one that acts, and back. Knows
//! nothing of what that is.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

/// What a panic carries.
type Panic = Box<dyn Any + Send>;

type Task<T> = Box<dyn FnOnce(&mut T) + Send>;

/// A thread, and the ways to it and back.
struct Worker<T> {
    tasks: Sender<(T, Task<T>)>,
    done: Receiver<Result<T, Panic>>,
    thread: JoinHandle<()>,
}

/// Up to `N` threads.
pub(super) struct Crew<T, const N: usize> {
    workers: [Option<Worker<T>>; N],
    /// Done first on each of them.
    at_start: fn(),
}

impl<T: Send + 'static, const N: usize> Crew<T, N> {
    /// Begins no thread yet.
    pub(super) fn new(at_start: fn()) -> Self {
        Crew {
            workers: [const { None }; N],
            at_start,
        }
    }

    /// Begins a thread, unless it runs. Says whether it did.
    pub(super) fn begin(&mut self, at: usize) -> bool {
        let begins = self.workers[at].is_none();
        if begins {
            self.workers[at] = Some(Worker::new(self.at_start));
        }
        begins
    }

    /// Ends a thread, with all its thread-locals, if it runs. Says whether it did.
    pub(super) fn end(&mut self, at: usize) -> bool {
        let worker = self.workers[at].take();
        worker.map(Worker::end).is_some()
    }

    /// Has a thread that runs do something, and waits for it.
    ///
    /// # Panics
    ///
    /// - If that panics: as it did.
    pub(super) fn act(&self, at: usize, on: T, task: impl FnOnce(&mut T) + Send + 'static) -> T {
        let worker = self.workers[at].as_ref().expect("it has begun");
        worker.tasks.send((on, Box::new(task))).expect("it runs");
        match worker.done.recv().expect("it sends what came of it") {
            Ok(done) => done,
            Err(panic) => panic::resume_unwind(panic),
        }
    }
}

impl<T: Send + 'static> Worker<T> {
    fn new(at_start: fn()) -> Self {
        let (tasks, to_do) = channel::<(T, Task<T>)>();
        let (result, done) = channel();
        let thread = thread::spawn(move || {
            at_start();
            for (mut on, task) in to_do {
                let done = panic::catch_unwind(AssertUnwindSafe(|| {
                    task(&mut on);
                    on
                }));
                if result.send(done).is_err() {
                    break; // the model is no more
                }
            }
        });
        Worker {
            tasks,
            done,
            thread,
        }
    }

    fn end(self) {
        drop(self.tasks);
        self.thread.join().expect("what it does is caught");
    }
}

impl<T, const N: usize> Drop for Crew<T, N> {
    /// No thread outlives it.
    fn drop(&mut self) {
        for worker in self.workers.iter_mut().filter_map(Option::take) {
            drop(worker.tasks);
            let _ended = worker.thread.join();
        }
    }
}
