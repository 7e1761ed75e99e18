//! The thread of `background_trim` takes none of its process's signals.
//!
//! No test harness: each fact is about a whole process, so this program starts a process for each.
//! An alarm after a minute ends a process that hangs, and the test fails. No process needs a
//! minute.

#[cfg(all(unix, not(miri)))]
fn main() {
    unix::main();
}

#[cfg(not(all(unix, not(miri))))]
fn main() {
    println!("there are no signals here: nothing to check");
}

#[cfg(all(unix, not(miri)))]
mod unix {
    use std::env;
    use std::error::Error;
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::ptr;
    use std::thread;
    use std::time::Duration;
    use tierpool::{ConfigError, Pool};

    const ALARM_SECONDS: u32 = 60;

    /// Names the fact that a child process checks.
    const FACT: &str = "TIERPOOL_SIGNALS_FACT";

    /// The facts, and the function that checks each.
    const FACTS: &[(&str, fn())] = &[
        (
            "a_signal_that_main_waits_for_comes_to_main",
            a_signal_that_main_waits_for_comes_to_main,
        ),
        (
            "the_thread_that_builds_a_pool_keeps_its_mask",
            the_thread_that_builds_a_pool_keeps_its_mask,
        ),
        (
            "a_thread_that_cannot_be_started_leaves_the_mask_unchanged",
            a_thread_that_cannot_be_started_leaves_the_mask_unchanged,
        ),
        #[cfg(target_os = "linux")]
        (
            "the_thread_blocks_every_signal_at_any_time",
            linux::the_thread_blocks_every_signal_at_any_time,
        ),
    ];

    pub(super) fn main() {
        if let Ok(named) = env::var(FACT) {
            // SAFETY: takes a number, and ends the process after that time.
            unsafe { libc::alarm(ALARM_SECONDS) };
            let (_, fact) = FACTS.iter().find(|(name, _)| *name == named).unwrap();
            return fact();
        }
        for (name, _) in FACTS {
            let this = env::current_exe().unwrap();
            let mut child = Command::new(this);
            child.env(FACT, name);
            if name.starts_with("a_thread_that_cannot_be_started") {
                // Nearly all addresses.
                child.env("RUST_MIN_STACK", (usize::MAX - 0xffff).to_string());
            }
            let status = child.status().unwrap();
            assert!(
                status.success(),
                "{name}: {status}, signal {:?}",
                status.signal()
            );
            println!("{name}: holds");
        }
    }

    fn builder() -> tierpool::Builder {
        Pool::builder()
            .trim_interval(Duration::from_millis(1))
            .background_trim(true)
    }

    /// A set of signals.
    #[derive(Clone, Copy)]
    struct Set(libc::sigset_t);

    impl Set {
        fn of(signals: &[libc::c_int]) -> Self {
            let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
            // SAFETY: writes all meaningful parts of the set that it is given. The rest is zero,
            // and numbers may be zero.
            unsafe {
                libc::sigemptyset(set.as_mut_ptr());
                for &signal in signals {
                    assert_eq!(libc::sigaddset(set.as_mut_ptr(), signal), 0);
                }
                Set(set.assume_init())
            }
        }

        /// Sets this thread's mask. Returns the earlier one.
        fn mask(&self) -> Set {
            let mut before = Set::of(&[]);
            // SAFETY: reads one set and writes another one.
            let error = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, &mut before.0) };
            assert_eq!(error, 0);
            before
        }

        fn now() -> Set {
            let mut now = Set::of(&[]);
            // SAFETY: writes one set.
            let error = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &mut now.0) };
            assert_eq!(error, 0);
            now
        }

        /// The signals in the set.
        fn signals(&self) -> Vec<libc::c_int> {
            let most = if cfg!(target_os = "linux") { 64 } else { 31 };
            // SAFETY: reads one set, which is initialised.
            (1..=most)
                .filter(|&signal| unsafe { libc::sigismember(&self.0, signal) } == 1)
                .collect()
        }
    }

    // Failed once: the thread blocked no signal, so it got this one, and the process ended.
    fn a_signal_that_main_waits_for_comes_to_main() {
        let term = Set::of(&[libc::SIGTERM]);
        for round in 0..200 {
            Set::of(&[]).mask();
            let pool = builder().build().unwrap();
            if round % 20 == 0 {
                thread::sleep(Duration::from_millis(5)); // the thread has started by then
            }
            term.mask();
            let mut got = 0;
            // SAFETY: sends this process a signal that this thread blocks. Then waits for it, and
            // writes one number.
            let error = unsafe {
                libc::kill(libc::getpid(), libc::SIGTERM);
                libc::sigwait(&term.0, &mut got)
            };
            assert_eq!((error, got), (0, libc::SIGTERM));
            drop(pool);
        }
    }

    fn the_thread_that_builds_a_pool_keeps_its_mask() {
        let masks: [&[libc::c_int]; 4] = [
            &[],
            &[libc::SIGTERM],
            &[libc::SIGHUP, libc::SIGINT, libc::SIGUSR2, libc::SIGCHLD],
            &[libc::SIGSEGV, libc::SIGALRM],
        ];
        for mask in masks {
            Set::of(mask).mask();
            let before = Set::now().signals();
            assert_eq!(before.len(), mask.len());
            let pool = builder().build().unwrap();
            assert_eq!(Set::now().signals(), before);
            // Also with a pool that has no thread.
            drop(Pool::default());
            drop(pool);
            assert_eq!(Set::now().signals(), before);
        }
    }

    fn a_thread_that_cannot_be_started_leaves_the_mask_unchanged() {
        for mask in [&[][..], &[libc::SIGTERM, libc::SIGUSR1]] {
            Set::of(mask).mask();
            let before = Set::now().signals();
            let error = builder().build().unwrap_err();
            assert!(matches!(
                error,
                ConfigError::Background {
                    field: "background_trim",
                    ..
                }
            ));
            let source = error.source().expect("the system's error");
            let source = source.downcast_ref::<io::Error>().expect("as it was");
            assert!(error.to_string().contains(&source.to_string()));
            assert_eq!(error, builder().build().unwrap_err());
            assert_eq!(Set::now().signals(), before);
        }
    }

    #[cfg(target_os = "linux")]
    mod linux {
        use super::{Set, builder};
        use std::fs;

        /// Signal `n` is bit `n - 1`. The first two cannot be blocked. glibc and musl use the
        /// others themselves.
        const ALL_BUT: [u32; 5] = [9, 19, 32, 33, 34];

        /// The signals that each thread of this process blocks, except for the first thread.
        fn blocked() -> Vec<u64> {
            let first = std::process::id().to_string();
            let tasks = fs::read_dir("/proc/self/task").unwrap();
            let others = tasks
                .map(|task| task.unwrap())
                .filter(|task| task.file_name() != *first);
            let status =
                others.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
            let masks = status.filter_map(|status| {
                let line = status.lines().find(|line| line.starts_with("SigBlk:"))?;
                let mask = line.split_whitespace().nth(1).unwrap();
                Some(u64::from_str_radix(mask, 16).unwrap())
            });
            masks.collect()
        }

        pub(super) fn the_thread_blocks_every_signal_at_any_time() {
            let all = ALL_BUT
                .iter()
                .fold(u64::MAX, |all, number| all & !(1 << (number - 1)));
            let mut seen = 0;
            for round in 0..300 {
                let before = blocked().len();
                Set::of(&[libc::SIGUSR1]).mask();
                let pool = builder().build().unwrap();
                // The thread may not have run any instruction yet. In later looks it has.
                for _ in 0..1 + round % 10 {
                    let masks = blocked();
                    seen += masks.len();
                    for mask in masks {
                        assert_eq!(mask & all, all, "{mask:x}");
                    }
                }
                drop(pool);
                while blocked().len() > before {
                    std::thread::yield_now(); // until the thread has ended
                }
            }
            assert!(seen > 0, "at least one thread was seen");
        }
    }
}
