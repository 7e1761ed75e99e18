//! A thread that runs an action at intervals until it is stopped.
//!
//! Owns the thread and how it ends. Knows nothing of the action.

use crate::system::SignalsBlocked;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Ends the thread.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    stopped: Mutex<bool>,
    wake: Condvar,
}

impl Stop {
    /// Makes the thread end. Does not wait for that: this may run in a destructor at process exit,
    /// where a wait for another thread may never end.
    pub(crate) fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
    }

    /// Waits for the interval to pass. Returns `false` if the thread is stopped first.
    fn wait(&self, interval: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let (stopped, _) = self
            .wake
            .wait_timeout_while(stopped, interval, |stopped| !*stopped)
            .unwrap_or_else(PoisonError::into_inner);
        !*stopped
    }
}

/// Starts a thread that calls `act` after each interval, until `act` breaks off or the thread is
/// stopped.
///
/// The thread takes none of the process's signals: it blocks all of them, from its first
/// instruction on. The calling thread's own mask is the same before and after.
///
/// # Errors
///
/// - If the system cannot start a thread.
/// - If signals cannot be blocked.
pub(crate) fn start(
    name: &str,
    interval: Duration,
    stop: Arc<Stop>,
    mut act: impl FnMut() -> ControlFlow<()> + Send + 'static,
) -> io::Result<()> {
    let run = move || while stop.wait(interval) && act().is_continue() {};
    let name = String::from(name);
    // A thread begins with the mask of the thread that starts it.
    let _until_it_is_started = SignalsBlocked::in_this_thread()?;
    thread::Builder::new()
        .name(name)
        .spawn(run)
        .map(|_detached| ())
}
