//! The shared pool. A process has one, so each fact runs in a separate process.
//!
//! No test harness: the facts about the end of the process need the main thread.

mod common {
    pub mod forget;
}

use common::forget::forget;
use std::cell::RefCell;
use std::env;
use std::error::Error;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::thread;
use tierpool::{ConfigError, Pool, PooledBuf, SetGlobalError, global, set_global};

/// The facts, each by its name.
const FACTS: [(&str, fn()); 7] = [
    (
        "the_default_pool_cannot_be_set_later",
        the_default_pool_cannot_be_set_later,
    ),
    (
        "a_set_pool_cannot_be_set_again",
        a_set_pool_cannot_be_set_again,
    ),
    (
        "refused_options_leave_the_pool_to_be_set",
        refused_options_leave_the_pool_to_be_set,
    ),
    ("one_of_many_threads_sets_it", one_of_many_threads_sets_it),
    (
        "all_threads_get_the_same_pool",
        all_threads_get_the_same_pool,
    ),
    (
        "it_works_in_the_destructors_of_threads",
        it_works_in_the_destructors_of_threads,
    ),
    (
        "the_process_ends_with_buffers_out",
        the_process_ends_with_buffers_out,
    ),
];

fn main() {
    if let Some(name) = env::args().nth(1).filter(|arg| !arg.starts_with('-')) {
        let fact = FACTS.iter().find(|(known, _)| *known == name);
        // A filter for other tests: `cargo test some_name` passes it to this program, too.
        if let Some((_, fact)) = fact {
            fact();
        }
        return;
    }
    if cfg!(miri) {
        // Miri starts no process.
        return it_works_in_the_destructors_of_threads();
    }
    let this = env::current_exe().unwrap();
    for (name, _) in FACTS {
        let child = Command::new(&this)
            .arg(name)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success(), "{name}: {}\n{said}", child.status);
    }
    println!("{} facts about the shared pool hold", FACTS.len());
}

fn small() -> tierpool::Builder {
    Pool::builder().classes([64, 1000]).trim_interval(None)
}

fn the_default_pool_cannot_be_set_later() {
    assert_eq!(global().classes(), Pool::new().classes());
    let error = set_global(small()).unwrap_err();
    assert_eq!(error, SetGlobalError::AlreadyUsed);
    assert_eq!(
        error.to_string(),
        "the shared pool is in use already, with the default options: it is made once; call \
         set_global before anything calls global"
    );
    assert!(error.source().is_none());
    assert_eq!(global().classes(), Pool::new().classes());
}

fn a_set_pool_cannot_be_set_again() {
    let pool = set_global(small()).unwrap();
    assert_eq!(pool.classes(), [64, 1000]);
    assert!(std::ptr::eq(pool, global()));
    // Not even with options that `build` would refuse.
    let error = set_global(Pool::builder().max_size(0)).unwrap_err();
    assert_eq!(error, SetGlobalError::AlreadySet);
    assert_eq!(
        error.to_string(),
        "the shared pool is set already: it is made once; call set_global in one place"
    );
    assert_eq!(global().classes(), [64, 1000]);
}

fn refused_options_leave_the_pool_to_be_set() {
    let error = set_global(Pool::builder().max_size(0)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the options for the shared pool are refused"
    );
    let source = error.source().and_then(|source| source.downcast_ref());
    assert!(matches!(
        source,
        Some(ConfigError::Zero {
            field: "max_size",
            ..
        })
    ));
    assert_eq!(set_global(small()).unwrap().classes(), [64, 1000]);
}

fn one_of_many_threads_sets_it() {
    const THREADS: usize = 8;
    let all = Barrier::new(THREADS);
    let set = |_| {
        let (all, builder) = (&all, small().keep_idle(64, 3));
        move || {
            all.wait();
            set_global(builder)
        }
    };
    let results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(set(n))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let late: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert_eq!(late.len(), THREADS - 1);
    assert!(
        late.iter()
            .all(|error| *error == SetGlobalError::AlreadySet)
    );
    assert_eq!(global().stats().total.retained_buffers, 3);
}

fn all_threads_get_the_same_pool() {
    let addresses: Vec<_> = thread::scope(|scope| {
        let address = || std::ptr::from_ref(global()).addr();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(address)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let here = std::ptr::from_ref(global()).addr();
    assert!(addresses.iter().all(|&address| address == here));
}

/// Uses the pool when the thread ends.
struct AtEnd(RefCell<Option<PooledBuf>>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        let mut buf = global().get(1000);
        buf.extend_from_slice(b"late");
        assert_eq!(buf[..], *b"late");
        drop(self.0.take());
    }
}

thread_local! {
    static AT_END: AtEnd = const { AtEnd(RefCell::new(None)) };
}

fn it_works_in_the_destructors_of_threads() {
    set_global(small()).unwrap();
    let use_it = |first: bool| {
        move || {
            // Thread-locals end in an order that depends on which was first used.
            if first {
                drop(global().get(64));
            }
            AT_END.with(|at_end| at_end.0.replace(Some(global().get(64))));
        }
    };
    for first in [false, true] {
        thread::spawn(use_it(first)).join().unwrap();
    }
    assert_eq!(global().stats().total.outstanding, 0);
    let idle = global().stats().total.retained_buffers;
    assert_eq!(global().clear().buffers, idle as usize);
    // And on the main thread.
    use_it(true)();
}

fn the_process_ends_with_buffers_out() {
    set_global(small()).unwrap();
    let held = global().get(64);
    let (send, wait) = std::sync::mpsc::channel::<()>();
    let (started, begun) = std::sync::mpsc::channel();
    // This thread is inside `recv`, and holds a buffer, when `main` returns.
    thread::spawn(move || {
        let _held = global().get(1000);
        started.send(()).unwrap();
        let _ended = wait.recv();
    });
    begun.recv().unwrap();
    assert_eq!(global().stats().total.outstanding, 2);
    forget((held, send));
}
