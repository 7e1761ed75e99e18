//! The comparison of variants, which are measured in turn: a table and words, or Markdown.

use super::measure::{Measured, Running, joined};
use super::{Mode, Options, Program, Variant, descriptors, load::WARM_UP};
use crate::table::{CLEAR, Row, brief, outcomes, sentences, table};
use crate::{Result, descriptors_max, median, print};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal, Write as _};

/// Seconds of the measurement that counts allocations.
const COUNTED_SECONDS: f64 = 0.5;
/// One process's memory differs from the next one's by some hundred KiB.
const MEMORY_LEAST_MIB: f64 = 1.0;
/// Timers and tasks of the runtime make some allocations and page faults, whatever the buffers.
const EVENTS_LEAST: f64 = 0.01;
/// The rows that begin with this word are not in the Markdown.
const LATENCY: &str = "latency";

/// Compares plain buffers with the pool, on the system's heap.
pub(super) fn compare<P: Program>(options: &Options) -> Result<()> {
    let (rounds, seconds, rest) = (options.rounds, options.seconds, options.rest.as_secs_f64());
    let measurements = rounds as f64 * seconds + COUNTED_SECONDS;
    let warm_ups = (rounds + 1) as f64 * WARM_UP.as_secs_f64();
    let takes = 2.0 * (measurements + warm_ups) + rest;
    print(&format!(
        "{}\n\nPlain buffers and the pool take turns. Rounds: {rounds}, of {seconds} s for each. This takes {takes:.0} s.\n\
         Each server is a separate process, with {} connections.\n\n",
        P::ABOUT,
        options.connections::<P>(),
    ))?;
    let variants = [Mode::Plain, Mode::Pool].map(|mode| Variant { mode, heap: None });
    let [plain, pool] = &*measure::<P>(&variants, options)? else {
        return Err("two variants have other than two columns".into());
    };
    print(&report::<P>(plain, pool, options))
}

/// Measures the variants that the options name. Prints a row of Markdown for each heap, and then
/// the result in words.
pub(super) fn rows<P: Program>(options: &Options) -> Result<()> {
    let columns = measure::<P>(&options.variants, options)?;
    if let Some(path) = &options.record {
        let mut file = File::options().append(true).create(true).open(path)?;
        for column in &columns {
            file.write_all(column.record::<P>().as_bytes())?;
        }
    }
    let (mut text, mut words) = (String::new(), String::new());
    let of = |mode: Mode| {
        columns
            .iter()
            .filter(move |column| column.variant.mode == mode)
    };
    for plain in of(Mode::Plain) {
        let name = format!("{}, {}", P::NAME, plain.variant.heap_name());
        let _ = write!(text, "| {name} |");
        let same_heap = of(Mode::Pool).find(|pool| pool.variant.heap == plain.variant.heap);
        for row in numbers::<P>(plain, same_heap.unwrap_or(plain), options) {
            // The record has them. On a shared machine, they say little.
            if row.name.starts_with(LATENCY) {
                continue;
            }
            let _ = match same_heap {
                Some(_) => write!(text, " {}/{} |", brief(row.plain), brief(row.pool)),
                None => write!(text, " {} |", brief(row.plain)),
            };
        }
        text.push('\n');
        for pool in of(Mode::Pool) {
            // The pool on the system's heap is what most programs have.
            if pool.variant.heap.is_none() || pool.variant.heap == plain.variant.heap {
                let rows = numbers::<P>(plain, pool, options);
                let heap = pool.variant.heap_name();
                let _ = writeln!(
                    words,
                    "- plain {name}, and the pool on {heap}: {}",
                    outcomes(&rows)
                );
            }
        }
    }
    print(&(text + &words))
}

/// One variant's measurements.
struct Column {
    variant: Variant,
    /// Counting takes time, so this measurement gives no other number.
    allocations: f64,
    rounds: Vec<Measured>,
}

/// Measures the variants in turn. While a server rests, the next one works.
fn measure<P: Program>(variants: &[Variant], options: &Options) -> Result<Vec<Column>> {
    let progress = |text: &str| {
        let mut stderr = io::stderr();
        if stderr.is_terminal() {
            // Back to the start of the line, which is cleared.
            let _ = write!(stderr, "\r\x1b[K{text}");
        }
    };
    // Each server that rests may have open connections.
    let resting_most = descriptors_max()? / descriptors(options.connections::<P>());
    let (mut resting, mut measured) = (VecDeque::new(), vec![Vec::new(); variants.len()]);
    let counting = Options {
        seconds: COUNTED_SECONDS,
        count: true,
        ..options.clone()
    };
    for round in 0..=options.rounds {
        let (options, text) = match round {
            0 => (&counting, "counting allocations".into()),
            _ => (options, format!("round {round} of {}", options.rounds)),
        };
        progress(&text);
        // Each round begins with a different variant.
        for at in (0..variants.len()).map(|at| (at + round) % variants.len()) {
            while resting.len() >= resting_most.max(2) - 1 {
                finish(&mut resting, &mut measured)?;
            }
            let running = Running::start::<P>(&variants[at], options)?;
            resting.push_back((at, running.finish_later::<P>()));
        }
    }
    progress("the last server rests");
    while !resting.is_empty() {
        finish(&mut resting, &mut measured)?;
    }
    progress("");
    let columns = variants.iter().zip(measured).map(|(variant, mut rounds)| {
        let counted = rounds.remove(0);
        Column {
            variant: variant.clone(),
            allocations: counted.allocations,
            rounds,
        }
    });
    Ok(columns.collect())
}

type Resting = VecDeque<(usize, std::thread::JoinHandle<Result<Measured>>)>;

/// Waits for the server that has rested longest.
fn finish(resting: &mut Resting, measured: &mut [Vec<Measured>]) -> Result<()> {
    if let Some((at, measuring)) = resting.pop_front() {
        measured[at].push(joined(measuring)?);
    }
    Ok(())
}

/// The rows of a comparison.
fn numbers<P: Program>(plain: &Column, pool: &Column, options: &Options) -> [Row; 8] {
    let unit = P::UNIT;
    let row = |name: String, more_is_better, of: fn(&Measured) -> f64| {
        let rounds = plain.rounds.iter().zip(&pool.rounds);
        let rounds = rounds.map(|(plain, pool)| [of(plain), of(pool)]);
        Row::of_rounds(name, more_is_better, rounds.collect())
    };
    let memory = |name, of| Row {
        least: MEMORY_LEAST_MIB,
        ..row(name, false, of)
    };
    let rest = options.rest.as_secs_f64();
    [
        row(format!("{unit}s per second"), true, |m| m.per_second),
        row(format!("CPU time per {unit}, µs"), false, |m| m.cpu_micros),
        row(format!("{LATENCY}, median, µs"), false, |m| m.p50_micros),
        row(format!("{LATENCY}, p99, µs"), false, |m| m.p99_micros),
        Row {
            least: EVENTS_LEAST,
            ..row(format!("page faults per {unit}"), false, |m| m.faults)
        },
        Row {
            name: format!("allocations per {unit}"),
            more_is_better: false,
            least: EVENTS_LEAST,
            plain: plain.allocations,
            pool: pool.allocations,
            rounds: Vec::new(),
        },
        memory("memory at the peak, MiB".into(), |m| m.peak_mib),
        memory(format!("memory {rest} s after the traffic, MiB"), |m| {
            m.rest_mib
        }),
    ]
}

fn report<P: Program>(plain: &Column, pool: &Column, options: &Options) -> String {
    let rows = numbers::<P>(plain, pool, options);
    let mut text = table(&rows);
    text += "\nThe numbers are those of the server alone. Each is the median of the rounds.\n\
             Allocations are counted in a run that gives no other number.\n\
             \"pool ahead\" counts the rounds in which the pool was better.\n";
    text += CLEAR;
    text += "\n";
    text += &sentences(&rows);
    let kernel = [plain, pool].map(|column| {
        let shares = column
            .rounds
            .iter()
            .map(|m| 1.0 - m.user_micros / m.cpu_micros);
        100.0 * median(shares)
    });
    if !kernel[0].is_nan() {
        let _ = writeln!(
            text,
            "The kernel takes {:.0} % of the CPU time with plain buffers, and {:.0} % with the pool.\n\
             It moves every byte, with any buffers.",
            kernel[0], kernel[1]
        );
    }
    for row in rows.iter().filter(|row| row.plain.is_nan()) {
        let _ = writeln!(text, "{}: this system does not give the number.", row.name);
    }
    if options.rounds < 5 {
        text += "With fewer than 5 rounds, no difference of time or memory is clear.\n";
    }
    text
}

impl Column {
    /// A line of CSV for each measurement.
    fn record<P: Program>(&self) -> String {
        let (program, mode, heap) = (P::NAME, self.variant.mode.name(), self.variant.heap_name());
        let mut text = String::new();
        for (round, m) in self.rounds.iter().enumerate() {
            let _ = writeln!(
                text,
                "{program},{mode},{heap},{},{:.0},{:.3},{:.3},{:.0},{:.0},{:.4},{:.1},{:.1},{:.4}",
                round + 1,
                m.per_second,
                m.cpu_micros,
                m.user_micros,
                m.p50_micros,
                m.p99_micros,
                m.faults,
                m.peak_mib,
                m.rest_mib,
                self.allocations,
            );
        }
        text
    }
}
