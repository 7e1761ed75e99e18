//! What both programs share: a server in a child process, a load in this one, and one line of results.
//!
//! Owns the measuring. What is served and asked for is a [`Program`].

use std::alloc::{GlobalAlloc, Layout, System};
use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{self, Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// The load before the measurement begins.
const WARM_UP: Duration = Duration::from_secs(1);
/// From the end of the load to the last look at the server's memory.
const REST: Duration = Duration::from_secs(2);
/// Of the server. The load has one more.
const SERVER_THREADS: usize = 2;

/// Which buffers the server uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Plain,
    Pool,
}

/// A server, and a load for it.
pub trait Program: 'static {
    const NAME: &str;
    const CONNECTIONS: usize;

    /// Serves all connections of the listener.
    fn serve(mode: Mode, listener: TcpListener) -> impl Future<Output = io::Result<()>> + Send;

    /// Sends requests over one connection until the load [is over](Load::is_over).
    fn load(
        number: usize,
        stream: TcpStream,
        load: Arc<Load>,
    ) -> impl Future<Output = io::Result<()>> + Send;
}

/// What the connections of a load have done since the measurement began.
#[derive(Debug, Default)]
pub struct Load {
    over: AtomicBool,
    units: AtomicU64,
    latencies: Mutex<Vec<Duration>>,
}

impl Load {
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Notes that a request for `units` has been answered.
    pub fn answered(&self, units: u64, after: Duration) {
        self.units.fetch_add(units, Ordering::Relaxed);
        self.latencies.lock().unwrap().push(after);
    }

    /// Forgets what was before, and returns it.
    fn take(&self) -> (u64, Vec<Duration>) {
        let mut latencies = std::mem::take(&mut *self.latencies.lock().unwrap());
        latencies.sort_unstable();
        (self.units.swap(0, Ordering::Relaxed), latencies)
    }
}

/// The program's `main`.
pub fn run<P: Program>() -> ExitCode {
    let ended = Options::parse(env::args_os().skip(1)).and_then(|options| match options.serve {
        true => serve::<P>(&options),
        false => measure::<P>(&options),
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", P::NAME);
            ExitCode::FAILURE
        }
    }
}

struct Options {
    mode: Mode,
    seconds: f64,
    count: bool,
    /// A library that replaces the server's `malloc`.
    preload: Option<OsString>,
    serve: bool,
}

impl Options {
    fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self> {
        const USAGE: &str = "usage: plain|pool [--seconds N] [--preload LIBRARY] [--count]

--count counts the server's allocations, which costs it some time.";
        let (mut mode, mut options) = (None, Options::default());
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match arg.to_str() {
                Some("plain") => mode = Some(Mode::Plain),
                Some("pool") => mode = Some(Mode::Pool),
                Some("--count") => options.count = true,
                Some("--serve") => options.serve = true, // for the child alone
                Some("--preload") => options.preload = Some(args.next().ok_or(USAGE)?),
                Some("--seconds") => {
                    let seconds = args.next().ok_or(USAGE)?;
                    options.seconds = seconds.to_str().ok_or(USAGE)?.parse()?;
                }
                _ => return Err(USAGE.into()),
            }
        }
        options.mode = mode.ok_or(USAGE)?;
        Ok(options)
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            mode: Mode::Plain,
            seconds: 4.0,
            count: false,
            preload: None,
            serve: false,
        }
    }
}

// ---- the load ----

fn measure<P: Program>(options: &Options) -> Result<()> {
    let mut server = Server::start(options)?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let load = Arc::new(Load::default());
    let (begin, end, seconds) = runtime.block_on(async {
        let mut tasks = Vec::new();
        for number in 0..P::CONNECTIONS {
            let stream = TcpStream::connect(server.address).await?;
            stream.set_nodelay(true)?;
            tasks.push(tokio::spawn(P::load(number, stream, Arc::clone(&load))));
        }
        tokio::time::sleep(WARM_UP).await;
        let begin = server.usage()?;
        load.take();
        let begun = Instant::now();
        tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
        let (end, seconds) = (server.usage()?, begun.elapsed().as_secs_f64());
        load.over.store(true, Ordering::Relaxed);
        let done = load.take();
        for task in tasks {
            task.await??;
        }
        Ok::<_, Box<dyn Error + Send + Sync>>((begin, (end, done), seconds))
    })?;
    std::thread::sleep(REST);
    let rest = server.usage()?;
    server.stop()?;

    let (end, (units, latencies)) = end;
    if units == 0 {
        return Err("the server answered nothing".into());
    }
    let per_unit = |from: u64, to: u64| (to - from) as f64 / units as f64;
    let percentile = |share: f64| {
        let at = (latencies.len() as f64 * share) as usize;
        latencies[at.min(latencies.len() - 1)].as_secs_f64() * 1e6
    };
    let mut line = format!(
        "program={} mode={} per_s={:.0} cpu_us={:.3} user_us={:.3} p50_us={:.0} p99_us={:.0} peak_mib={:.1} rest_mib={:.1}",
        P::NAME,
        options.mode,
        units as f64 / seconds,
        per_unit(begin.cpu_nanos, end.cpu_nanos) / 1e3,
        per_unit(begin.user_nanos, end.user_nanos) / 1e3,
        percentile(0.5),
        percentile(0.99),
        end.peak_kib as f64 / 1024.0,
        rest.rss_kib as f64 / 1024.0,
    );
    if options.count {
        let allocations = per_unit(begin.allocations, end.allocations);
        line += &format!(" allocations={allocations:.4}");
    }
    println!("{line}");
    Ok(())
}

/// The child process.
struct Server {
    child: Child,
    /// Until it is closed, the child runs.
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Server {
    fn start(options: &Options) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["--serve", &options.mode.to_string()]);
        if options.count {
            command.arg("--count");
        }
        if let Some(library) = &options.preload {
            command.env("LD_PRELOAD", library);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let asks = child.stdin.take().expect("it is piped");
        let mut answers = BufReader::new(child.stdout.take().expect("it is piped"));
        let address = read_line(&mut answers)?.parse()?;
        Ok(Server {
            child,
            asks,
            answers,
            address,
        })
    }

    fn usage(&mut self) -> Result<Usage> {
        self.asks.write_all(b"usage\n")?;
        read_line(&mut self.answers)?.parse()
    }

    fn stop(mut self) -> Result<()> {
        drop(self.asks);
        match self.child.wait()? {
            status if status.success() => Ok(()),
            status => Err(format!("the server ended with {status}").into()),
        }
    }
}

fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

// ---- the server ----

fn serve<P: Program>(options: &Options) -> Result<()> {
    COUNTS.store(options.count, Ordering::Relaxed);
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(SERVER_THREADS)
        .enable_all()
        .build()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    println!("{}", listener.local_addr()?);
    let mode = options.mode;
    runtime.spawn(async move {
        if let Err(error) = P::serve(mode, listener).await {
            eprintln!("{}, server: {error}", P::NAME);
            process::exit(1);
        }
    });
    for _ in io::stdin().lines() {
        println!("{}", Usage::now()?);
    }
    process::exit(0); // without waiting for connections
}

/// What a process has used so far, and its memory.
#[derive(Clone, Copy, Debug)]
struct Usage {
    /// In the program and in the system.
    cpu_nanos: u64,
    /// In the program alone.
    user_nanos: u64,
    allocations: u64,
    peak_kib: u64,
    rss_kib: u64,
}

impl Usage {
    fn now() -> Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let kib = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            Ok(number.ok_or("/proc/self/status lacks a line")?.parse()?)
        };
        let (user_nanos, system_nanos) = cpu_nanos()?;
        Ok(Usage {
            cpu_nanos: user_nanos + system_nanos,
            user_nanos,
            allocations: ALLOCATIONS.load(Ordering::Relaxed),
            peak_kib: kib("VmHWM:")?,
            rss_kib: kib("VmRSS:")?,
        })
    }
}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Usage {
            cpu_nanos,
            user_nanos,
            allocations,
            peak_kib,
            rss_kib,
        } = self;
        write!(
            f,
            "{cpu_nanos} {user_nanos} {allocations} {peak_kib} {rss_kib}"
        )
    }
}

impl FromStr for Usage {
    type Err = Box<dyn Error + Send + Sync>;

    fn from_str(line: &str) -> Result<Self> {
        let mut numbers = line.split(' ').map(str::parse);
        let mut next = || -> Result<u64> { Ok(numbers.next().ok_or("the server has ended")??) };
        Ok(Usage {
            cpu_nanos: next()?,
            user_nanos: next()?,
            allocations: next()?,
            peak_kib: next()?,
            rss_kib: next()?,
        })
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Mode::Plain => "plain",
            Mode::Pool => "pool",
        })
    }
}

/// The time that all threads of this process have run: in the program, and in the system.
fn cpu_nanos() -> io::Result<(u64, u64)> {
    // SAFETY: all zeros are a valid `rusage`, which is numbers alone.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is there to be written.
    if unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let nanos = |time: libc::timeval| (time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64) * 1000;
    Ok((nanos(usage.ru_utime), nanos(usage.ru_stime)))
}

// ---- counted allocations ----

static COUNTS: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, which counts if the server was asked to.
struct Counted;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

fn count() {
    if COUNTS.load(Ordering::Relaxed) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: all blocks are the system allocator's.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises; so below.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}
