//! Threads that take turns: one of them acts, and the others wait.
//!
//! Owns the threads. The data they act on is moved to the acting thread, and back. Knows nothing of
//! that data.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

/// The payload of a panic.
type Panic = Box<dyn Any + Send>;

type Task<T> = Box<dyn FnOnce(&mut T) + Send>;

/// A thread, and its channels.
struct Worker<T> {
    tasks: Sender<(T, Task<T>)>,
    done: Receiver<Result<T, Panic>>,
    thread: JoinHandle<()>,
}

/// Up to `N` threads.
pub(super) struct Crew<T, const N: usize> {
    workers: [Option<Worker<T>>; N],
    /// Each thread runs this first.
    at_start: fn(),
}

impl<T: Send + 'static, const N: usize> Crew<T, N> {
    /// A crew without threads.
    pub(super) fn new(at_start: fn()) -> Self {
        Crew {
            workers: [const { None }; N],
            at_start,
        }
    }

    /// Starts a thread, unless it runs. Returns whether it started one.
    pub(super) fn begin(&mut self, at: usize) -> bool {
        let begins = self.workers[at].is_none();
        if begins {
            self.workers[at] = Some(Worker::new(self.at_start));
        }
        begins
    }

    /// Ends a thread, with all its thread-locals, if it runs. Returns whether it ended one.
    pub(super) fn end(&mut self, at: usize) -> bool {
        let worker = self.workers[at].take();
        worker.map(Worker::end).is_some()
    }

    /// Runs a task on a running thread, and waits for it.
    ///
    /// # Panics
    ///
    /// - If the task panics, with the same payload.
    pub(super) fn act(&self, at: usize, on: T, task: impl FnOnce(&mut T) + Send + 'static) -> T {
        let worker = self.workers[at].as_ref().expect("it has begun");
        worker.tasks.send((on, Box::new(task))).expect("it runs");
        match worker.done.recv().expect("it sends its result") {
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
                    break; // the model is gone
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
        self.thread.join().expect("a panic of its task is caught");
    }
}

impl<T, const N: usize> Drop for Crew<T, N> {
    /// All threads end with it.
    fn drop(&mut self) {
        for worker in self.workers.iter_mut().filter_map(Option::take) {
            drop(worker.tasks);
            let _ended = worker.thread.join();
        }
    }
}
