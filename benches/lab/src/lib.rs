//! The code that the lab's programs share.
//!
//! - `served` measures a server: it runs in a child process, and its load in this one.
//! - `workers` verify messages on other threads.
//! - `table` compares two columns of numbers, and puts the result into words.
//! - `heap` counts allocations, and `accounts` checks a pool's numbers.
//! - `plot` draws.

pub mod accounts;
pub mod heap;
pub mod plot;
pub mod random;
pub mod served;
pub mod table;
pub mod workers;

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::{self, ExitCode};
use std::{env, fs};

pub const KIB: usize = 1 << 10;
pub const MIB: usize = 1 << 20;

pub type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Parses the arguments and does the task. Exits with 2 for bad arguments, with 1 for a failure.
pub fn run<T>(
    name: &str,
    parse: impl FnOnce(&mut dyn Iterator<Item = OsString>) -> Result<T>,
    perform: impl FnOnce(T) -> Result<()>,
) -> ExitCode {
    let (code, problem) = match parse(&mut env::args_os().skip(1)) {
        Err(problem) => (2, format!("{problem}\nTry --help.")),
        Ok(task) => match perform(task) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => (1, error.to_string()),
        },
    };
    // Not `eprintln`, which panics if stderr cannot be written.
    let _ = writeln!(io::stderr(), "{name}: {problem}");
    ExitCode::from(code)
}

/// Writes to stdout at once. Ends the process quietly if the reader is gone, as in `frames | head`.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes());
    match written.and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => process::exit(0),
        outcome => Ok(outcome?),
    }
}

/// Fails if an argument is left.
pub fn no_more(args: &mut dyn Iterator<Item = OsString>) -> Result<()> {
    match args.next() {
        None => Ok(()),
        Some(arg) => Err(format!("one argument too many: {}", arg.to_string_lossy()).into()),
    }
}

/// Bytes in memory now: a line of `/proc/self/status`. `None` on a system without that file.
///
/// Not from `statm`, which counts pages and does not give their size.
pub fn resident_bytes() -> Option<usize> {
    status_bytes("VmRSS:")
}

/// The most bytes that were in memory. `None` as for [`resident_bytes`].
pub fn resident_bytes_max() -> Option<usize> {
    status_bytes("VmHWM:")
}

fn status_bytes(name: &str) -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: usize = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * KIB)
}

/// How many files and sockets this process may have. Raises the limit as far as the system allows.
#[cfg(unix)]
pub fn descriptors_max() -> io::Result<usize> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to an `rlimit` that this function owns.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // macOS allows no more, whatever it says.
    let most = limit.rlim_max.min(if cfg!(target_os = "macos") {
        10_240
    } else {
        1 << 20
    });
    if limit.rlim_cur < most {
        limit.rlim_cur = most;
        // SAFETY: the pointer is to an `rlimit` that this function owns.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur as usize)
}

#[cfg(not(unix))]
pub fn descriptors_max() -> io::Result<usize> {
    Ok(1 << 20)
}

pub fn mib(bytes: usize) -> f64 {
    bytes as f64 / MIB as f64
}

/// NaN if there is no value.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = |at: usize| values.get(at).copied().unwrap_or(f64::NAN);
    (middle(values.len().saturating_sub(1) / 2) + middle(values.len() / 2)) / 2.0
}

/// By nearest rank. NaN if there is no value.
pub fn percentile(sorted: &[u64], part: usize) -> f64 {
    let rank = (sorted.len() * part).div_ceil(100);
    sorted
        .get(rank.saturating_sub(1))
        .map_or(f64::NAN, |&value| value as f64)
}
