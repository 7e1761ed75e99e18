//! Gives the pool's idle memory back when the system is short of memory.
//!
//! ```text
//! cargo run --release -p tierpool-lab --bin pressure             # this process's cgroup, 10 s
//! cargo run --release -p tierpool-lab --bin pressure -- DIR 60   # a cgroup's directory, 60 s
//! ```
//!
//! A thread looks at files of cgroup v2 twice a second. It calls [`Pool::clear`] if one of them
//! shows that memory is short:
//!
//! - `memory.pressure`: the share of the time in which tasks waited for memory.
//! - `memory.current` against `memory.high`, where the kernel begins to slow the group down. If that
//!   is not set, against `memory.max`, where the kernel kills.
//!
//! Without a cgroup v2 it looks at `/proc/pressure/memory`, the same numbers for the whole system.
//! Without that file, it prints so and watches nothing. The pool has `malloc_trim(true)`, so that
//! glibc's heap gives back its free memory as well.
//!
//! Meanwhile two threads use buffers in bursts. Each second a line shows the memory that the pool
//! retains.
//!
//! Any thread may call `Pool::clear`: in the callback of a service manager, or in a thread that
//! waits for a signal. A signal handler or an allocator must not, since `clear` takes locks and
//! frees memory.

use std::ffi::OsString;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tierpool::Pool;
use tierpool_lab::{Result, no_more, print};

/// Memory is short from this share of the last ten seconds on, in percent.
const PRESSURE_HIGH: f64 = 10.0;
/// Memory is short from this share of the limit on, in percent.
const USED_HIGH: u64 = 90;

/// Where the numbers are.
struct Watch {
    pressure: Option<PathBuf>,
    current: Option<PathBuf>,
    /// `memory.high`, then `memory.max`.
    limits: Vec<PathBuf>,
}

/// The numbers.
#[derive(Debug, Default)]
struct Seen {
    /// `some avg10`, in percent.
    pressure: Option<f64>,
    /// Bytes in use, and the limit if one is set.
    used: Option<(u64, u64)>,
}

impl Watch {
    fn in_directory(directory: &Path) -> Self {
        let file = |name: &str| Some(directory.join(name)).filter(|path| path.exists());
        Watch {
            pressure: file("memory.pressure"),
            current: file("memory.current"),
            limits: ["memory.high", "memory.max"]
                .into_iter()
                .filter_map(file)
                .collect(),
        }
    }

    fn is_blind(&self) -> bool {
        self.pressure.is_none() && (self.current.is_none() || self.limits.is_empty())
    }

    /// This process's cgroup, or else the whole system.
    fn of_this_process() -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let unified = groups.lines().find_map(|line| line.strip_prefix("0::/"));
        let directory = Path::new("/sys/fs/cgroup").join(unified.unwrap_or_default());
        let mut watch = Watch::in_directory(&directory);
        if watch.pressure.is_none() {
            let system = PathBuf::from("/proc/pressure/memory");
            watch.pressure = Some(system).filter(|path| path.exists());
        }
        watch
    }

    fn look(&self) -> Result<Seen> {
        let read = |path: &PathBuf| {
            fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let mut seen = Seen::default();
        if let Some(path) = &self.pressure {
            seen.pressure = Some(some_avg10(&read(path)?)?);
        }
        if let Some(path) = &self.current {
            let current = bytes(&read(path)?)?;
            for limit in &self.limits {
                let limit = read(limit)?;
                if seen.used.is_none() && limit.trim() != "max" {
                    seen.used = Some((current, bytes(&limit)?));
                }
            }
        }
        Ok(seen)
    }
}

impl Seen {
    fn is_short(&self) -> bool {
        let stalled = self.pressure.is_some_and(|share| share >= PRESSURE_HIGH);
        let near = |(current, limit): (u64, u64)| current >= limit / 100 * USED_HIGH;
        stalled || self.used.is_some_and(near)
    }
}

/// The number after `avg10=` in the line that begins with `some`.
fn some_avg10(text: &str) -> Result<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "));
    let fields = some.ok_or("memory.pressure: no line begins with `some`")?;
    let number = fields
        .split(' ')
        .find_map(|field| field.strip_prefix("avg10="))
        .ok_or("memory.pressure: no field `avg10`")?;
    Ok(number
        .parse()
        .map_err(|error| format!("memory.pressure: avg10={number}: {error}"))?)
}

fn bytes(text: &str) -> Result<u64> {
    let text = text.trim();
    Ok(text
        .parse()
        .map_err(|error| format!("memory.current or a limit: {text}: {error}"))?)
}

/// Bursts of buffers, with pauses, until it is stopped.
fn use_buffers(pool: &Pool, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let mut held: Vec<_> = (0..200).map(|at| pool.get(256 << (at % 9))).collect();
        for buf in &mut held {
            buf.resize(buf.capacity(), 1);
        }
        drop(black_box(held));
        thread::sleep(Duration::from_millis(50));
    }
}

const HELP: &str = "\
Watches a cgroup's memory, and clears a pool when memory is short.

Usage: pressure [DIRECTORY [SECONDS]]

  DIRECTORY  of a cgroup v2 [that of this process, or the whole system]
  SECONDS    how long to watch [10]
  --help     this text
";

enum Task {
    Help,
    Watch(Watch, u64),
}

impl Task {
    fn parse(args: &mut dyn Iterator<Item = OsString>) -> Result<Self> {
        let watch = match args.next() {
            Some(arg) if arg == "--help" || arg == "-h" => return Ok(Task::Help),
            Some(directory) => {
                let watch = Watch::in_directory(Path::new(&directory));
                if watch.is_blind() {
                    let missing = "has no memory.pressure, nor memory.current with a limit";
                    return Err(format!("{} {missing}", directory.to_string_lossy()).into());
                }
                watch
            }
            None => Watch::of_this_process(),
        };
        let seconds = match args.next() {
            Some(seconds) => {
                let seconds = seconds.to_string_lossy();
                let parsed = seconds.parse();
                parsed.map_err(|error| format!("SECONDS: {seconds}: {error}"))?
            }
            None => 10,
        };
        no_more(args)?;
        Ok(Task::Watch(watch, seconds))
    }
}

fn main() -> ExitCode {
    tierpool_lab::run(
        "pressure",
        |args| Task::parse(args),
        |task| match task {
            Task::Help => print(HELP),
            Task::Watch(watch, seconds) => run(watch, seconds),
        },
    )
}

fn run(watch: Watch, seconds: u64) -> Result<()> {
    if watch.is_blind() {
        println!("no cgroup v2 and no /proc/pressure/memory here: nothing to watch");
    }
    for path in watch.pressure.iter().chain(&watch.limits) {
        println!("watching {}", path.display());
    }

    let pool = Pool::builder().malloc_trim(true).build()?;
    let stop = Arc::new(AtomicBool::new(false));
    let cleared = Arc::new(AtomicU64::new(0));
    let watcher = {
        let (pool, stop, cleared) = (pool.clone(), Arc::clone(&stop), Arc::clone(&cleared));
        thread::spawn(move || -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                let seen = watch.look()?;
                if seen.is_short() {
                    let freed = pool.clear();
                    cleared.fetch_add(1, Ordering::Relaxed);
                    println!("short of memory: {seen:?}; freed {} bytes", freed.bytes);
                }
                thread::sleep(Duration::from_millis(500));
            }
            Ok(())
        })
    };
    let users: Vec<_> = (0..2)
        .map(|_| {
            let (pool, stop) = (pool.clone(), Arc::clone(&stop));
            thread::spawn(move || use_buffers(&pool, &stop))
        })
        .collect();

    let start = Instant::now();
    // A file that can no longer be read ends the watch, and so the program.
    while start.elapsed() < Duration::from_secs(seconds) && !watcher.is_finished() {
        thread::sleep(Duration::from_secs(1));
        let total = pool.stats().total;
        println!(
            "{:>4} s: retained {:>9} bytes, outstanding {:>4} buffers, hit rate {:.2} %, cleared {} times",
            start.elapsed().as_secs(),
            total.retained_bytes,
            total.outstanding,
            100.0 * total.hit_rate(),
            cleared.load(Ordering::Relaxed)
        );
    }
    stop.store(true, Ordering::Relaxed);
    for user in users {
        user.join()
            .map_err(|_| "a thread that uses buffers has panicked")?;
    }
    watcher.join().map_err(|_| "the watcher has panicked")??;
    Ok(())
}
