//! A server in a child process, a load in this process, and the numbers of the server.
//!
//! What is served and asked for is a [`Program`]. Each program has three uses:
//!
//! - Without a mode, it compares plain buffers with the pool (`compare`).
//! - With a mode, it measures that mode once, and prints one line for `scripts/programs.sh`.
//! - With `--serve`, it is the child process (`child`).

mod child;
mod compare;

pub use child::{checked, fail};

use crate::{Result, mib, percentile, print};
use child::{Server, Usage};
use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;

/// The load before the measurement begins.
const WARM_UP: Duration = Duration::from_millis(500);
/// From the end of the load to the last look at the server's memory.
const REST: Duration = Duration::from_secs(3);

/// Which buffers the server uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Plain,
    Pool,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Plain => "plain",
            Mode::Pool => "pool",
        }
    }
}

/// A server, and a load for it.
pub trait Program: 'static {
    const NAME: &str;
    /// Of what the load counts.
    const UNIT: &str;
    /// What the program does, for its help and its report.
    const ABOUT: &str;
    const CONNECTIONS: usize;
    /// Whether the server calls [`checked`] for each unit that it has received.
    const CHECKS: bool;

    /// Serves all connections of the listener.
    fn serve(mode: Mode, listener: TcpListener) -> impl Future<Output = io::Result<()>> + Send;

    /// Sends requests over one connection until the load [is over](Load::is_over).
    fn load(
        number: usize,
        stream: TcpStream,
        load: Arc<Load>,
    ) -> impl Future<Output = io::Result<()>> + Send;
}

/// What the connections of a load have done.
#[derive(Debug, Default)]
pub struct Load {
    over: AtomicBool,
    units: AtomicU64,
    /// In nanoseconds.
    latencies: Mutex<Vec<u64>>,
}

// Relaxed, in all of these: one thread runs the whole load.
impl Load {
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Records that a request for `units` was answered.
    pub fn answered(&self, units: u64, after: Duration) {
        self.units.fetch_add(units, Ordering::Relaxed);
        let mut latencies = self.latencies.lock();
        let latencies = latencies.as_mut().unwrap_or_else(PoisonError::get_mut);
        latencies.push(after.as_nanos() as u64);
    }

    fn units(&self) -> u64 {
        self.units.load(Ordering::Relaxed)
    }

    /// The latencies since the last call, sorted.
    fn take_latencies(&self) -> Vec<u64> {
        let latencies = self.latencies.lock();
        let mut latencies = latencies.unwrap_or_else(PoisonError::into_inner);
        let mut latencies = std::mem::take(&mut *latencies);
        latencies.sort_unstable();
        latencies
    }
}

// ---- the command line

/// The program's `main`.
pub fn run<P: Program>() -> ExitCode {
    let parse = |args: &mut dyn Iterator<Item = OsString>| Options::parse(args);
    crate::run(P::NAME, parse, |options| match options {
        Options { help: true, .. } => print(&help::<P>()),
        Options { serve: true, .. } => child::serve::<P>(&options),
        Options { mode: None, .. } => compare::compare::<P>(&options),
        Options { mode: Some(_), .. } => {
            let running = Running::start::<P>(&options)?;
            let measured = joined(running.finish_later::<P>())?;
            print(&measured.line::<P>(&options))
        }
    })
}

#[derive(Clone)]
struct Options {
    mode: Option<Mode>,
    rounds: usize,
    /// Of one measurement.
    seconds: f64,
    /// Whether the server counts its allocations.
    count: bool,
    /// A library that replaces the server's `malloc`.
    preload: Option<OsString>,
    serve: bool,
    help: bool,
}

fn help<P: Program>() -> String {
    let name = P::NAME;
    format!(
        "{}

Usage: {name} [--rounds N] [--seconds N]           compares plain buffers with the pool
       {name} plain|pool [--seconds N] [OPTIONS]   measures one of them, and prints one line

  --rounds N         rounds of the comparison, 1 to 1000 [8]
  --seconds N        seconds of one measurement, 0.1 to 600 [0.8]
  --quick            one round of 0.3 seconds: shows that the program works, and measures little
  --count            count the server's allocations, which takes some time
  --preload LIBRARY  run the server on another heap (LD_PRELOAD)
  --help             this text

The comparison takes half a minute. Exit code: 0 done, 1 failed (a frame or an answer was wrong
or missing), 2 bad usage.
",
        P::ABOUT
    )
}

impl Options {
    fn parse(args: &mut dyn Iterator<Item = OsString>) -> Result<Self> {
        let mut options = Options {
            mode: None,
            rounds: 8,
            seconds: 0.8,
            count: false,
            preload: None,
            serve: false,
            help: false,
        };
        while let Some(arg) = args.next() {
            let name = arg.to_string_lossy().into_owned();
            let mut number = |least: f64, most: f64| {
                let text = args.next().unwrap_or_default();
                match text.to_str().map(str::parse) {
                    Some(Ok(number)) if (least..=most).contains(&number) => Ok(number),
                    _ => Err(format!(
                        "{name} takes a number from {least} to {most}, not {text:?}"
                    )),
                }
            };
            match &*name {
                "plain" | "pool" if options.mode.is_some() => {
                    return Err(format!("a second mode: {name}").into());
                }
                "plain" => options.mode = Some(Mode::Plain),
                "pool" => options.mode = Some(Mode::Pool),
                "--rounds" => match number(1.0, 1000.0)? {
                    rounds if rounds.fract() > 0.0 => {
                        return Err(format!("--rounds takes a whole number, not {rounds}").into());
                    }
                    rounds => options.rounds = rounds as usize,
                },
                "--seconds" => options.seconds = number(0.1, 600.0)?,
                "--quick" => (options.rounds, options.seconds) = (1, 0.3),
                "--count" => options.count = true,
                "--preload" => {
                    let library = args.next().ok_or("--preload takes a library")?;
                    options.preload = Some(library);
                }
                "--serve" => options.serve = true, // for the child process alone
                "--help" | "-h" => options.help = true,
                _ => return Err(format!("no such argument: {name}").into()),
            }
        }
        match options.mode {
            None if options.serve || options.count || options.preload.is_some() => {
                Err("--count and --preload need a mode: plain or pool".into())
            }
            _ => Ok(options),
        }
    }
}

// ---- one measurement

/// A server whose load is over, with its numbers up to there.
struct Running {
    server: Server,
    /// All units that were answered, also before the measurement began.
    sent: u64,
    units: u64,
    seconds: f64,
    begin: Usage,
    end: Usage,
    latencies: Vec<u64>,
}

/// The numbers of one server. NaN for what this system does not give.
struct Measured {
    per_second: f64,
    cpu_micros: f64,
    user_micros: f64,
    p50_micros: f64,
    p99_micros: f64,
    peak_mib: f64,
    rest_mib: f64,
    allocations: f64,
}

impl Running {
    /// Starts a server and its load, and returns when the load is over.
    fn start<P: Program>(options: &Options) -> Result<Self> {
        let mut server = Server::start(options)?;
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let load = Arc::new(Load::default());
        runtime.block_on(async {
            let mut tasks = Vec::new();
            for number in 0..P::CONNECTIONS {
                let stream = TcpStream::connect(server.address).await?;
                stream.set_nodelay(true)?;
                tasks.push(tokio::spawn(P::load(number, stream, Arc::clone(&load))));
            }
            tokio::time::sleep(WARM_UP).await;
            let (begin, before) = (server.usage()?, load.units());
            load.take_latencies();
            let begun = Instant::now();
            tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
            let (end, seconds) = (server.usage()?, begun.elapsed().as_secs_f64());
            let (units, latencies) = (load.units() - before, load.take_latencies());
            load.over.store(true, Ordering::Relaxed);
            for task in tasks {
                task.await??;
            }
            if units == 0 {
                return Err("the server answered nothing".into());
            }
            Ok(Running {
                server,
                sent: load.units(),
                units,
                seconds,
                begin,
                end,
                latencies,
            })
        })
    }

    /// Looks at the memory again some seconds after the load, on another thread.
    fn finish_later<P: Program>(self) -> JoinHandle<Result<Measured>> {
        let ended = Instant::now();
        thread::spawn(move || {
            thread::sleep(REST.saturating_sub(ended.elapsed()));
            self.stop::<P>()
        })
    }

    /// Stops the server. Fails if it has not received all units.
    fn stop<P: Program>(mut self) -> Result<Measured> {
        let rest = self.server.usage()?;
        self.server.stop()?;
        if P::CHECKS && rest.checked != self.sent {
            let (sent, got, unit) = (self.sent, rest.checked, P::UNIT);
            return Err(format!("{sent} {unit}s were sent, and {got} arrived").into());
        }
        let per_unit = |of: fn(&Usage) -> Option<u64>| match (of(&self.begin), of(&self.end)) {
            (Some(begin), Some(end)) => (end - begin) as f64 / self.units as f64,
            _ => f64::NAN,
        };
        Ok(Measured {
            per_second: self.units as f64 / self.seconds,
            cpu_micros: per_unit(|usage| usage.cpu_nanos) / 1e3,
            user_micros: per_unit(|usage| usage.user_nanos) / 1e3,
            p50_micros: percentile(&self.latencies, 50) / 1e3,
            p99_micros: percentile(&self.latencies, 99) / 1e3,
            peak_mib: self.end.peak_bytes.map_or(f64::NAN, mib),
            rest_mib: rest.resident_bytes.map_or(f64::NAN, mib),
            allocations: per_unit(|usage| Some(usage.allocations)),
        })
    }
}

fn joined(measuring: JoinHandle<Result<Measured>>) -> Result<Measured> {
    match measuring.join() {
        Ok(measured) => measured,
        Err(_) => Err("a thread that measures has panicked".into()),
    }
}

impl Measured {
    /// For `scripts/programs.sh`.
    fn line<P: Program>(&self, options: &Options) -> String {
        let mut line = format!(
            "program={} mode={} per_s={:.0} cpu_us={:.3} user_us={:.3} p50_us={:.0} p99_us={:.0} \
             peak_mib={:.1} rest_mib={:.1}",
            P::NAME,
            options.mode.map_or("", Mode::name),
            self.per_second,
            self.cpu_micros,
            self.user_micros,
            self.p50_micros,
            self.p99_micros,
            self.peak_mib,
            self.rest_mib,
        );
        if options.count {
            line += &format!(" allocations={:.4}", self.allocations);
        }
        line + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        Options::parse(&mut line.split(' ').map(OsString::from))
    }

    #[test]
    fn arguments_that_would_be_ignored_are_refused() {
        for line in ["pool plain", "pool pool", "--rounds 1.7", "--serve"] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert_eq!(
            parse("--rounds 3").map(|options| options.rounds).ok(),
            Some(3)
        );
        assert_eq!(
            parse("pool --serve").map(|options| options.mode).ok(),
            Some(Some(Mode::Pool))
        );
    }
}
