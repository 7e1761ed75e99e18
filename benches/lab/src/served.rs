//! A server in a child process, a load in this process, and the numbers of the server.
//!
//! What is served and asked for is a [`Program`]. Each program has three uses:
//!
//! - Without an argument, it compares plain buffers with the pool (`compare`).
//! - With variants, it measures these, and prints rows for `docs/benchmarks.md` (`compare`).
//! - With `--serve`, it is the child process (`child`).

mod buffers;
mod child;
mod compare;
mod load;
mod measure;
mod objects;
pub mod peers;

pub use buffers::{Buffer, Buffers, Plain, Source};
pub use child::{checked, fail, watch};
pub use load::Load;
pub use objects::{Fresh, Objects};

use crate::{Result, descriptors_max, print};
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

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
    /// Whether the connections stay open while the server rests.
    const STAYS_OPEN: bool = false;
    /// The most bytes that the pool lets out, if the program has such a limit.
    const LIMIT: Option<usize> = None;
    /// Buffers that the server takes for itself, and keeps while it rests.
    const HOLDS: u64 = 0;

    /// Serves all connections of the listener.
    fn serve(
        buffers: Buffers,
        listener: TcpListener,
    ) -> impl Future<Output = io::Result<()>> + Send;

    /// Sends requests over one connection until the load [is over](Load::is_over).
    fn load(
        number: usize,
        stream: &mut TcpStream,
        load: Arc<Load>,
    ) -> impl Future<Output = io::Result<()>> + Send;

    /// Compares the server's answers with the right ones. [`outside`](Self::outside) may be at work.
    fn check(_server: SocketAddr) -> Result<()> {
        Ok(())
    }

    /// A program that is the load for some seconds, in place of [`load`](Self::load). Its last
    /// line is: units, microseconds, the latency's p50 and p99 in microseconds, errors.
    fn outside(_server: SocketAddr, _connections: usize, _seconds: u64) -> Option<Command> {
        None
    }
}

/// The program's `main`.
pub fn run<P: Program>() -> ExitCode {
    let parse = |args: &mut dyn Iterator<Item = OsString>| Options::parse(args);
    crate::run(P::NAME, parse, |options| match options {
        Options { help: true, .. } => print(&help::<P>()),
        Options {
            serve: Some(mode), ..
        } => child::serve::<P>(mode, &options),
        _ => {
            let (needed, most) = (descriptors(options.connections::<P>()), descriptors_max()?);
            if needed > most {
                let problem = "open files are needed for these connections, and the limit is";
                return Err(format!("{needed} {problem} {most}: see `ulimit -n`").into());
            }
            match options.variants.is_empty() {
                true => compare::compare::<P>(&options),
                false => compare::rows::<P>(&options),
            }
        }
    })
}

/// The most files and sockets of one process: of the server, or of a load that is both of its peers.
fn descriptors(connections: usize) -> usize {
    2 * connections + 64
}

/// Which buffers the server uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Plain,
    Pool,
}

impl Mode {
    fn parse(name: &str) -> Option<Self> {
        [Mode::Plain, Mode::Pool]
            .into_iter()
            .find(|mode| mode.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Mode::Plain => "plain",
            Mode::Pool => "pool",
        }
    }
}

/// What is measured: a kind of buffers, on a heap.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Variant {
    mode: Mode,
    /// A library that replaces the server's `malloc`.
    heap: Option<PathBuf>,
}

impl Variant {
    /// `plain`, `pool`, or one of them with `+` and a library.
    fn parse(text: &str) -> Option<Self> {
        let (mode, heap) = match text.split_once('+') {
            Some((_, "")) => return None,
            Some((mode, heap)) => (mode, Some(heap.into())),
            None => (text, None),
        };
        let mode = Mode::parse(mode)?;
        Some(Variant { mode, heap })
    }

    /// Such as `mimalloc`, for `libmimalloc.so.2`.
    fn heap_name(&self) -> String {
        let Some(heap) = &self.heap else {
            let gnu = cfg!(all(target_os = "linux", target_env = "gnu"));
            return if gnu { "glibc" } else { "system" }.into();
        };
        let name = heap.file_name().unwrap_or_default().to_string_lossy();
        let name = name.strip_prefix("lib").unwrap_or(&name);
        name.split('.').next().unwrap_or_default().into()
    }
}

// ---- the command line

#[derive(Clone)]
struct Options {
    variants: Vec<Variant>,
    rounds: usize,
    /// Of one measurement.
    seconds: f64,
    /// From the end of the load to the last look at the server's memory.
    rest: Duration,
    /// Other than the program's own number.
    connections: Option<usize>,
    /// Gets a line for each measurement.
    record: Option<PathBuf>,
    serve: Option<Mode>,
    /// Whether the server counts its allocations.
    count: bool,
    help: bool,
}

fn help<P: Program>() -> String {
    format!(
        "{about}

Usage: {name} [OPTIONS]              compares plain buffers with the pool, on the system's heap
       {name} [OPTIONS] VARIANT...   measures the variants, and prints Markdown

  VARIANT            plain or pool, or one of them with +LIBRARY: a heap, for LD_PRELOAD
  --rounds N         rounds, 1 to 1000 [8]
  --seconds N        seconds of one measurement, 0.1 to 600 [0.8]
  --rest N           seconds from the load to the last look at the memory, 1 to 600 [3]
  --connections N    connections, 1 to 30000 [{connections}]
  --record FILE      add a line for each measurement to a CSV file
  --quick            one short round: shows that the program works, and measures little
  --help             this text

The comparison takes half a minute. Exit code: 0 done, 1 failed (an answer was wrong or missing, or
a buffer was not dropped), 2 bad usage.
",
        about = P::ABOUT,
        name = P::NAME,
        connections = P::CONNECTIONS,
    )
}

impl Options {
    fn parse(args: &mut dyn Iterator<Item = OsString>) -> Result<Self> {
        let mut options = Options {
            variants: Vec::new(),
            rounds: 8,
            seconds: 0.8,
            rest: Duration::from_secs(3),
            connections: None,
            record: None,
            serve: None,
            count: false,
            help: false,
        };
        while let Some(arg) = args.next() {
            let name = arg.to_string_lossy().into_owned();
            let mut text = || {
                args.next()
                    .ok_or_else(|| format!("{name} takes an argument"))
            };
            let mut number = |least: f64, most: f64| {
                let text = text()?;
                match text.to_str().map(str::parse) {
                    Some(Ok(number)) if (least..=most).contains(&number) => Ok(number),
                    _ => Err(format!(
                        "{name} takes a number from {least} to {most}, not {text:?}"
                    )),
                }
            };
            let mut whole = |most: f64| match number(1.0, most)? {
                number if number.fract() > 0.0 => {
                    Err(format!("{name} takes a whole number, not {number}"))
                }
                number => Ok(number as usize),
            };
            match &*name {
                "--rounds" => options.rounds = whole(1000.0)?,
                "--connections" => options.connections = Some(whole(30_000.0)?),
                "--seconds" => options.seconds = number(0.1, 600.0)?,
                "--rest" => options.rest = Duration::from_secs_f64(number(1.0, 600.0)?),
                "--quick" => {
                    (options.rounds, options.seconds) = (1, 0.3);
                    options.rest = Duration::from_secs(1);
                }
                "--record" => options.record = Some(text()?.into()),
                // For the child process alone:
                "--serve" => {
                    let mode = text()?.to_str().and_then(Mode::parse);
                    options.serve = Some(mode.ok_or("--serve takes plain or pool")?);
                }
                "--count" => options.count = true,
                "--help" | "-h" => options.help = true,
                _ => match Variant::parse(&name) {
                    Some(variant) if options.variants.contains(&variant) => {
                        return Err(format!("a second {name}").into());
                    }
                    Some(Variant {
                        heap: Some(heap), ..
                    }) if !Path::new(&heap).exists() => {
                        return Err(format!("no such library: {}", heap.display()).into());
                    }
                    Some(variant) => options.variants.push(variant),
                    None => return Err(format!("no such argument: {name}").into()),
                },
            }
        }
        match options.serve {
            None if options.count => Err("--count needs --serve".into()),
            _ if options.record.is_some() && options.variants.is_empty() => {
                Err("--record needs variants: plain, pool".into())
            }
            _ => Ok(options),
        }
    }

    fn connections<P: Program>(&self) -> usize {
        self.connections.unwrap_or(P::CONNECTIONS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        Options::parse(&mut line.split(' ').map(OsString::from))
    }

    #[test]
    fn bad_arguments_are_refused() {
        let lines = [
            "pool pool",
            "--rounds 1.7",
            "--rounds",
            "--serve",
            "--count",
            "--record file",
            "pool+",
            "pool+/no/such.so",
        ];
        for line in lines {
            assert!(parse(line).is_err(), "{line}");
        }
        let options = parse("--rounds 3 --serve pool").unwrap();
        assert_eq!((options.rounds, options.serve), (3, Some(Mode::Pool)));
    }

    #[test]
    fn a_heap_has_the_name_of_its_library() {
        let variant = Variant::parse("plain+/usr/lib/libmimalloc.so.2").unwrap();
        assert_eq!(
            (variant.mode, &*variant.heap_name()),
            (Mode::Plain, "mimalloc")
        );
    }
}
