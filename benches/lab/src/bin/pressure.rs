//! Gives the pool's idle memory back when the system is short of memory.
//!
//! ```sh
//! cargo run --release -p tierpool-lab --bin pressure             # this process's cgroup, 10 s
//! cargo run --release -p tierpool-lab --bin pressure -- DIR 60   # a cgroup's directory, 60 s
//! ```
//!
//! A thread of its own looks at the cgroup v2 files `memory.pressure` (how much of
//! the time tasks stood still for want of memory) and `memory.current` against
//! `memory.high` (from where on the kernel slows the group down) or else
//! `memory.max` (from where on it kills), twice a second, and calls [`Pool::clear`]
//! when either says so. The pool has `malloc_trim(true)`: what glibc's heap keeps
//! would help nobody. Without a cgroup v2 it looks at
//! `/proc/pressure/memory`, the same numbers for the whole system; without that,
//! it says so and watches nothing.
//!
//! Meanwhile two threads use buffers in bursts, and each second a line shows what
//! the pool retains. `Pool::clear` may be called by any thread, from the callback
//! of a service manager or from a thread that waits for a signal; not from inside a
//! signal handler or an allocator, since it takes locks and frees memory.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tierpool::Pool;

/// From which share of the time on, over the last ten seconds, in percent.
const PRESSURE_HIGH: f64 = 10.0;
/// From which part of the limit on, in percent.
const USED_HIGH: u64 = 90;

/// Where the numbers are.
struct Watch {
    pressure: Option<PathBuf>,
    current: Option<PathBuf>,
    /// `memory.high`, then `memory.max`.
    limits: Vec<PathBuf>,
}

/// What they say.
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

    fn look(&self) -> Result<Seen, Box<dyn Error>> {
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
fn some_avg10(text: &str) -> Result<f64, Box<dyn Error>> {
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

fn bytes(text: &str) -> Result<u64, Box<dyn Error>> {
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

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let watch = match args.next() {
        Some(directory) => {
            let watch = Watch::in_directory(Path::new(&directory));
            if watch.is_blind() {
                let missing = "no memory.pressure there, nor memory.current and a limit";
                let usage = "usage: pressure [DIRECTORY [SECONDS]]";
                return Err(format!("{directory}: {missing}; {usage}").into());
            }
            watch
        }
        None => Watch::of_this_process(),
    };
    let seconds: u64 = match args.next() {
        Some(seconds) => seconds
            .parse()
            .map_err(|error| format!("seconds: {seconds}: {error}"))?,
        None => 10,
    };
    if let Some(more) = args.next() {
        return Err(format!("{more}: one argument too many").into());
    }
    if watch.is_blind() {
        println!("neither a cgroup v2 nor /proc/pressure here: nothing says when memory is short");
    }
    for path in watch.pressure.iter().chain(&watch.limits) {
        println!("watching {}", path.display());
    }

    let pool = Pool::builder().malloc_trim(true).build()?;
    let stop = Arc::new(AtomicBool::new(false));
    let cleared = Arc::new(AtomicU64::new(0));
    let watcher = {
        let (pool, stop, cleared) = (pool.clone(), Arc::clone(&stop), Arc::clone(&cleared));
        thread::spawn(move || -> Result<(), String> {
            while !stop.load(Ordering::Relaxed) {
                let seen = watch.look().map_err(|error| error.to_string())?;
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
    // A file that cannot be read any more ends the watch, and with it the program.
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
