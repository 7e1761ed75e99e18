//! The child process: the server, and the numbers that it sends to its parent.

use super::{Buffers, Mode, Options, Program, Variant};
use crate::{Result, descriptors_max, heap, print, resident_bytes, resident_bytes_max};
use std::env;
use std::error::Error;
use std::fmt::{self, Display};
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{self, Child, ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tierpool::{ObjectPool, Pool};
use tokio::net::TcpListener;
use tokio::runtime;

const THREADS: usize = 2;
/// The pool's interval: memory that was not needed for one or two of them goes back.
const RELEASE: Duration = Duration::from_secs(1);

/// Units that this server has received, and found right.
static CHECKED: AtomicU64 = AtomicU64::new(0);

/// Records that this server has received `units` more, and found them right.
pub fn checked(units: u64) {
    // Relaxed: the parent reads it seconds later; nothing else is ordered by it.
    CHECKED.fetch_add(units, Ordering::Relaxed);
}

/// Counts what the server has in use, besides buffers of its pool.
static OTHERS: OnceLock<Box<dyn Fn() -> u64 + Send + Sync>> = OnceLock::new();

/// Lets the run fail if one of this pool's objects is outstanding at the end, too.
pub fn watch<T: Send + 'static>(objects: &ObjectPool<T>) {
    let objects = objects.clone();
    let counts = OTHERS.set(Box::new(move || objects.stats().outstanding));
    assert!(counts.is_ok(), "a second pool of objects");
}

/// The child process, as its parent sees it.
pub(super) struct Server {
    child: Child,
    /// The child runs until this is closed.
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub(super) address: SocketAddr,
}

impl Server {
    pub(super) fn start(variant: &Variant, options: &Options) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["--serve", variant.mode.name()]);
        if options.count {
            command.arg("--count");
        }
        if let Some(library) = &variant.heap {
            command.env("LD_PRELOAD", library);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let asks = child.stdin.take().ok_or("the server has no stdin")?;
        let answers = child.stdout.take().ok_or("the server has no stdout")?;
        let mut answers = BufReader::new(answers);
        let address = read_line(&mut answers)?.parse()?;
        Ok(Server {
            child,
            asks,
            answers,
            address,
        })
    }

    pub(super) fn usage(&mut self) -> Result<Usage> {
        self.asks.write_all(b"usage\n")?;
        read_line(&mut self.answers)?.parse()
    }

    pub(super) fn stop(mut self) -> Result<()> {
        drop(self.asks);
        match self.child.wait()? {
            status if status.success() => Ok(()),
            status => Err(format!("the server ended with {status}").into()),
        }
    }
}

fn read_line(from: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    match from.read_line(&mut line)? {
        0 => Err("the server has ended".into()),
        _ => Ok(line.trim_end().to_owned()),
    }
}

/// The child's `main`.
pub(super) fn serve<P: Program>(mode: Mode, options: &Options) -> Result<()> {
    if options.count {
        heap::count();
    }
    descriptors_max()?;
    let (buffers, pool) = match mode {
        Mode::Plain => (Buffers::Plain, None),
        Mode::Pool => {
            let mut builder = Pool::builder().release_when_idle(RELEASE);
            if let Some(limit) = P::LIMIT {
                builder = builder.max_outstanding_bytes(limit);
            }
            let pool = builder.build()?;
            (Buffers::Pool(pool.clone()), Some(pool))
        }
    };
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    print(&format!("{}\n", listener.local_addr()?))?;
    runtime.spawn(async move {
        if let Err(error) = P::serve(buffers, listener).await {
            fail(P::NAME, &error);
        }
    });
    for line in io::stdin().lines() {
        line?;
        print(&format!("{}\n", Usage::now(pool.as_ref())?))?;
    }
    process::exit(0); // without waiting for connections
}

/// Ends the server, and with it the measurement.
pub fn fail(name: &str, error: &dyn Display) -> ! {
    let _ = writeln!(io::stderr(), "{name}, server: {error}");
    process::exit(1);
}

/// What the server has used so far, and its memory. `None` for what this system does not give.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// In the program and in the kernel.
    pub(super) cpu_nanos: Option<u64>,
    /// In the program alone.
    pub(super) user_nanos: Option<u64>,
    pub(super) peak_bytes: Option<usize>,
    pub(super) resident_bytes: Option<usize>,
    /// Page faults that read nothing from a disk.
    pub(super) faults: Option<u64>,
    pub(super) allocations: u64,
    pub(super) checked: u64,
    /// Buffers of the pool, and objects of a watched one.
    pub(super) outstanding: u64,
}

impl Usage {
    fn now(pool: Option<&Pool>) -> Result<Self> {
        let [user, kernel, faults] = resources()?;
        let [allocations, _] = heap::allocations();
        Ok(Usage {
            cpu_nanos: user.zip(kernel).map(|(user, kernel)| user + kernel),
            user_nanos: user,
            peak_bytes: resident_bytes_max(),
            resident_bytes: resident_bytes(),
            faults,
            allocations,
            checked: CHECKED.load(Ordering::Relaxed),
            outstanding: pool.map_or(0, |pool| pool.stats().total.outstanding)
                + OTHERS.get().map_or(0, |count| count()),
        })
    }
}

impl Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn number<T: Display>(number: Option<T>) -> String {
            number.map_or("-".into(), |number| number.to_string())
        }
        let (cpu, user) = (number(self.cpu_nanos), number(self.user_nanos));
        let (peak, resident) = (number(self.peak_bytes), number(self.resident_bytes));
        let (faults, allocations) = (number(self.faults), self.allocations);
        let (checked, outstanding) = (self.checked, self.outstanding);
        write!(
            f,
            "{cpu} {user} {peak} {resident} {faults} {allocations} {checked} {outstanding}"
        )
    }
}

impl FromStr for Usage {
    type Err = Box<dyn Error + Send + Sync>;

    fn from_str(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let [
            cpu,
            user,
            peak,
            resident,
            faults,
            allocations,
            checked,
            outstanding,
        ] = words[..]
        else {
            return Err(format!("the server sent {line:?}").into());
        };
        Ok(Usage {
            cpu_nanos: cpu.parse().ok(),
            user_nanos: user.parse().ok(),
            peak_bytes: peak.parse().ok(),
            resident_bytes: resident.parse().ok(),
            faults: faults.parse().ok(),
            allocations: allocations.parse()?,
            checked: checked.parse()?,
            outstanding: outstanding.parse()?,
        })
    }
}

/// Of all threads of this process: nanoseconds in the program and in the kernel, and page faults.
#[cfg(unix)]
fn resources() -> io::Result<[Option<u64>; 3]> {
    // SAFETY: all zeros are a valid `rusage`, which holds numbers alone.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a `rusage` that this function owns.
    if unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let nanos = |time: libc::timeval| (time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64) * 1000;
    let times = [usage.ru_utime, usage.ru_stime].map(nanos);
    Ok([times[0], times[1], usage.ru_minflt as u64].map(Some))
}

#[cfg(not(unix))]
fn resources() -> io::Result<[Option<u64>; 3]> {
    Ok([None; 3])
}
