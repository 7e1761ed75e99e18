//! The one thread that trims all pools of the process that ask for it.
//!
//! Owns the thread, the list of its tasks, and the time when each is due. Knows nothing of a task's
//! work.
//!
//! The thread starts with the first task and ends with the last one. The list has a lock, which no
//! thread holds while a task runs.

use crate::clock::Stopwatch;
use crate::panics;
use crate::system::SignalsBlocked;
use std::io;
use std::process;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// Work that is due after each interval.
pub(crate) trait Task: Send + Sync {
    /// Does the work once. It may panic: that ends neither the thread nor the task.
    fn run(&self);
}

/// A task in the list.
struct Entry {
    /// Weak: the thread keeps no task alive between two runs.
    task: Weak<dyn Task>,
    interval: Duration,
    /// The time until the task is due. It counts down, so a clock that is set back delays the task
    /// only once, by at most one interval.
    left: Duration,
    /// Whether the task has joined since the thread last counted down.
    is_new: bool,
    /// Whether the task will run in the present sweep.
    is_due: bool,
}

impl Entry {
    fn is_of(&self, task: *const ()) -> bool {
        self.task.as_ptr().cast::<()>() == task
    }

    /// Makes the task due one interval from now on. `passed` is the time since the thread last
    /// counted down. That time does not count for this task, and the rest of the sweep does.
    fn has_run(&mut self, passed: Duration) {
        self.left = self.interval.saturating_add(passed);
    }
}

struct Tasks {
    entries: Vec<Entry>,
    /// The process whose thread runs the tasks, if there is a thread. A forked child has a copy of
    /// the list, and no thread.
    runs_in: Option<u32>,
}

static TASKS: Mutex<Tasks> = Mutex::new(Tasks {
    entries: Vec::new(),
    runs_in: None,
});
/// Notified when a task joins, and when the last one leaves.
static CHANGED: Condvar = Condvar::new();

fn tasks() -> MutexGuard<'static, Tasks> {
    TASKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `task` after each `interval`, for the first time one interval from now. Stops when the task
/// ends or [`leave`] removes it from the list. Starts the thread if there is none.
///
/// The thread takes none of the process's signals: it blocks all of them, from its first
/// instruction on. The calling thread's own mask is unchanged.
///
/// # Errors
///
/// - If the system cannot start the thread.
/// - If signals cannot be blocked.
pub(crate) fn join<T: Task + 'static>(
    name: &str,
    task: &Arc<T>,
    interval: Duration,
) -> io::Result<()> {
    let task: Weak<T> = Arc::downgrade(task);
    let mut tasks = tasks();
    let here = Some(process::id());
    if tasks.runs_in == here {
        CHANGED.notify_one();
    } else {
        // The thread waits for the lock, and then finds the task.
        start(name)?;
        tasks.runs_in = here;
    }
    tasks.entries.push(Entry {
        task,
        interval,
        left: interval,
        is_new: true,
        is_due: false,
    });
    Ok(())
}

/// Removes a task from the list, if it is there. The last one ends the thread.
///
/// Does not wait for the thread, which may run the task at this moment. A destructor at process
/// exit may call this, and there a wait for another thread may never end.
pub(crate) fn leave<T: Task>(task: &T) {
    let task = (&raw const *task).cast::<()>();
    let mut tasks = tasks();
    tasks.entries.retain(|entry| !entry.is_of(task));
    if tasks.entries.is_empty() {
        CHANGED.notify_one();
    }
}

fn start(name: &str) -> io::Result<()> {
    // A thread begins with the mask of the thread that starts it.
    let _until_it_is_started = SignalsBlocked::in_this_thread()?;
    let thread = thread::Builder::new().name(String::from(name));
    thread.spawn(run_all).map(|_detached| ())
}

/// Runs each task when it is due, until there is none.
fn run_all() {
    let mut tasks = tasks();
    while let Some(least) = tasks.least_left() {
        let stopwatch = Stopwatch::start();
        if !least.is_zero() {
            // The wait may end early: the time that passed is counted below in any case.
            let (guard, result) = CHANGED
                .wait_timeout(tasks, least)
                .unwrap_or_else(PoisonError::into_inner);
            tasks = guard;
            let waited = match result.timed_out() {
                true => least.max(stopwatch.passed()), // if the clock was set back
                false => stopwatch.passed(),
            };
            tasks.count_down(waited);
            continue;
        }
        // Runs all due tasks in turn, so that none can starve another one. Takes no memory.
        for entry in &mut tasks.entries {
            entry.is_due = entry.left.is_zero();
        }
        // Each task may leave meanwhile, and others may join.
        while let Some(entry) = tasks.entries.iter_mut().find(|entry| entry.is_due) {
            entry.is_due = false;
            let task = entry.task.clone();
            drop(tasks);
            run(&task);
            tasks = self::tasks();
            let of_task = task.as_ptr().cast::<()>();
            let entry = tasks.entries.iter_mut().find(|entry| entry.is_of(of_task));
            if let Some(entry) = entry {
                entry.has_run(stopwatch.passed());
            }
        }
        tasks.count_down(stopwatch.passed());
    }
    // Under the lock: a task that joins from here on starts another thread.
    tasks.entries = Vec::new();
    tasks.runs_in = None;
}

impl Tasks {
    /// The time until the next task is due; `None` if there is none.
    fn least_left(&mut self) -> Option<Duration> {
        let left = self.entries.iter_mut().map(|entry| {
            entry.is_new = false;
            entry.left
        });
        left.min()
    }

    /// Subtracts the time that has passed since `least_left`, except for tasks that have joined
    /// since.
    fn count_down(&mut self, passed: Duration) {
        for entry in &mut self.entries {
            if !entry.is_new {
                entry.left = entry.left.saturating_sub(passed);
            }
        }
    }
}

/// Runs a task that has not ended. A panic ends here, once the program's panic hook has reported
/// it.
fn run(task: &Weak<dyn Task>) {
    // The task may end here, with everything that it owns.
    let _reported = panics::contain(|| {
        if let Some(task) = task.upgrade() {
            task.run();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Task for Nothing {
        fn run(&self) {}
    }

    // Failed once: the runs of later tasks in the same sweep did not count.
    #[test]
    fn the_interval_counts_from_the_end_of_a_run() {
        let interval = Duration::from_secs(10);
        let task: Weak<Nothing> = Weak::new();
        let entry = |left, is_new| Entry {
            task: task.clone(),
            interval,
            left,
            is_new,
            is_due: false,
        };
        let mut tasks = Tasks {
            entries: vec![
                entry(Duration::ZERO, false),
                entry(Duration::ZERO, false),
                entry(interval, true),
            ],
            runs_in: None,
        };
        // The first task's run ends after a second, the next one's after four.
        tasks.entries[0].has_run(Duration::from_secs(1));
        tasks.entries[1].has_run(Duration::from_secs(4));
        tasks.count_down(Duration::from_secs(4));
        let left = tasks.entries.iter().map(|entry| entry.left.as_secs());
        assert_eq!(left.collect::<Vec<_>>(), [7, 10, 10]);
        let mut for_ever = entry(Duration::ZERO, false);
        for_ever.interval = Duration::MAX;
        for_ever.has_run(interval);
        assert_eq!(for_ever.left, Duration::MAX);
    }
}
