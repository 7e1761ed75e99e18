//! `tierpool-tune`: finds the size classes that suit a trace of sizes.
//!
//! Owns the arguments and the order of the steps: read, replay, choose, plot, print.

mod progress;

use clap::Parser;
use clap::builder::RangedU64ValueParser;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tierpool_tune::replay::{Candidate, Requests};
use tierpool_tune::trace::Trace;
use tierpool_tune::{plot, replay, report, trace};

/// Replays a trace of sizes against tierpool's buffer pool in several
/// configurations, compares them, and prints the builder code of the best.
#[derive(Parser)]
#[command(version, after_help = TRACE_HELP, after_long_help = LONG_HELP)]
struct Args {
    /// The trace; `-`, or no argument, is standard input
    trace: Option<PathBuf>,

    /// The trace is CSV; take the sizes from the column of this name
    #[arg(short, long, value_name = "NAME")]
    column: Option<String>,

    /// How many classes to fit to the trace; each number is one candidate
    #[arg(
        long,
        value_name = "K,..",
        value_delimiter = ',',
        default_value = "4,6,8,12,16",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=128)
    )]
    classes: Vec<usize>,

    /// How many buffers to hold at once, first in first out
    #[arg(
        long,
        value_name = "N",
        default_value_t = 64,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=65_536)
    )]
    outstanding: usize,

    /// Replay a short trace repeatedly, up to at least this many gets
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1_000_000,
        value_parser = RangedU64ValueParser::<u64>::new().range(1..=1_000_000_000_000)
    )]
    min_gets: u64,

    /// Draw the sizes and the class boundaries as SVG
    #[arg(long, value_name = "OUT.SVG")]
    plot: Option<PathBuf>,
}

const TRACE_HELP: &str = "\
A trace has one size in bytes per line, or is CSV with --column. It may be gzip.
--help explains how the best configuration is chosen.";

const LONG_HELP: &str = "\
The trace:
  One size in bytes per line, as a decimal integer. Blanks around it are allowed.
  With --column, CSV with commas and a first line that names the columns. Either
  may be compressed with gzip, on standard input, too. Blank lines and lines that
  begin with `#` are skipped silently. Other lines without a size are skipped, and
  the first 10 of them are reported by number. A line takes 8 to 16 bytes of memory.

The replay:
  Each configuration is a real pool, on one thread. The replay takes each size with
  `get`. Once it holds --outstanding buffers, it drops the oldest first. It writes
  nothing to the buffers, so none grows. Trims by time and calibration are off, so
  the same trace gives the same table. (A pool that calibrates keeps the sizes that
  are requested, and here all are.) Requests above 32 MiB are oversize in every
  configuration. They are counted and not allocated.

The configurations:
  defaults      the classes of a pool without options: doubling, 512 B to 1 MiB
  to max_size   doubling classes up to the calibrator's max_size, for 95 % of the calls;
                larger buffers come from the heap
  fitted        the classes that waste the fewest bytes on this trace, for each of --classes

The table:
  waste         capacity less size, over all gets, and in % of the bytes requested
  hit rate      gets that a buffer of the pool served
  misses        gets of a size class that the heap served
  oversize      gets above the largest class, which the heap served
  retained      the most idle bytes in the pool: sampled about 4,000 times, and at the
                end, when all buffers have come back
  memory        the most idle and outstanding bytes together, at the same times

The best:
  1. A configuration is left out if it wastes more than 50 % of the bytes requested, and
     more than the defaults do. Buffers far too large for their use make any hit rate high.
  2. Of the rest, those whose hit rate is at most 0.1 percentage points below the
     highest: a pool is there to avoid misses.
  3. Of these, those whose memory is at most 20 % above the least. Each class keeps
     its own buffers, so more classes save waste up to a point, and then cost memory.
     The point depends on --outstanding: set it to the number that your program holds.
  4. Of these, the least waste; then the fewest classes.";

/// Why the program ends early.
enum Failure {
    /// No one reads the output any more.
    PipeClosed,
    Said(String),
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) | Err(Failure::PipeClosed) => ExitCode::SUCCESS,
        Err(Failure::Said(message)) => {
            say(format_args!("error: {message}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let trace = read(args)?;
    let requests = Requests::of(&trace.sizes);
    let (candidates, notes) = replay::candidates(&requests, &args.classes);
    let gets = args.min_gets.div_ceil(trace.sizes.len() as u64) * trace.sizes.len() as u64;
    let outcomes = replay_all(&candidates, &trace.sizes, gets, args.outstanding)?;
    let best = report::best(&candidates, &outcomes);

    // Before the table is printed, since its reader may stop reading. If the plot cannot be
    // written, the table is still printed.
    let plotted = match &args.plot {
        None => Ok(()),
        Some(path) => plot::svg(&requests.all, &candidates[0], &candidates[best])
            .and_then(|svg| fs::write(path, svg).map_err(|error| error.to_string()))
            .map_err(|error| Failure::Said(format!("{}: {error}", path.display()))),
    };
    let table = report::Report {
        requests: &requests,
        candidates: &candidates,
        outcomes: &outcomes,
        best,
        gets,
        outstanding: args.outstanding,
        notes: &notes,
    };
    print(&table)?;
    plotted
}

/// Reads the trace, and reports its bad lines, whether or not an error follows them.
fn read(args: &Args) -> Result<Trace, Failure> {
    let path = args.trace.as_deref().filter(|path| *path != Path::new("-"));
    let name = match path {
        Some(path) => path.display().to_string(),
        None => String::from("standard input"),
    };
    let fail = |error: &dyn fmt::Display| Failure::Said(format!("{name}: {error}"));
    let (input, length): (Box<dyn Read>, u64) = match path {
        Some(path) => {
            let file = File::open(path).map_err(|error| fail(&error))?;
            // 0 for a pipe or a device: the bar shows no end.
            let length = file.metadata().map_or(0, |about| about.len());
            (Box::new(file), length)
        }
        None => {
            let stdin = io::stdin().lock();
            if stdin.is_terminal() {
                say(format_args!(
                    "reading sizes from the terminal, one per line"
                ));
            }
            (Box::new(stdin), 0)
        }
    };
    let bar = progress::reading(length);
    let mut trace = Trace::default();
    let read = trace::open(bar.wrap_read(input))
        .and_then(|input| trace.read(input, args.column.as_deref()));
    bar.finish_and_clear();
    for bad in &trace.bad_first {
        say(format_args!("{name}: {bad}"));
    }
    let more = trace.bad_count - trace.bad_first.len() as u64;
    if more > 0 {
        say(format_args!("{name}: {more} more bad lines were skipped"));
    }
    read.map_err(|error| fail(&error))?;
    Ok(trace)
}

fn replay_all(
    candidates: &[Candidate],
    sizes: &[usize],
    gets: u64,
    outstanding: usize,
) -> Result<Vec<replay::Outcome>, Failure> {
    let bar = progress::replaying(gets * candidates.len() as u64);
    let outcomes = candidates.iter().map(|candidate| {
        let pool = candidate.pool().map_err(|error| {
            // The capacities are ascending and in range, so there is no error.
            Failure::Said(format!("{}: {error}", candidate.name))
        })?;
        let done = |gets| bar.inc(gets);
        Ok(replay::replay(&pool, sizes, gets, outstanding, done))
    });
    let outcomes = outcomes.collect();
    bar.finish_and_clear();
    outcomes
}

fn print(text: &impl fmt::Display) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    let written = write!(out, "{text}").and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::PipeClosed,
        _ => Failure::Said(format!("standard output: {error}")),
    })
}

/// Writes a line to standard error, and ignores an error.
fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "tierpool-tune: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_help_names_the_limits_of_the_choice() {
        let spaced: Vec<&str> = LONG_HELP.split_whitespace().collect();
        let help = spaced.join(" ");
        let says = [
            format!("more than {} % of the bytes", 100.0 * report::WASTE_MAX),
            format!("{} percentage points", 100.0 * report::HIT_RATE_SLACK),
            format!(
                "{:.0} % above the least",
                100.0 * (report::MEMORY_SLACK - 1.0)
            ),
            format!("above {} MiB are oversize", replay::CLASS_MAX >> 20),
        ];
        for limit in says {
            assert!(help.contains(&limit), "{limit}");
        }
    }
}
