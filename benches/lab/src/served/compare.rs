//! The comparison: plain buffers and the pool in turn, one table, and the result in words.

use super::{Measured, Mode, Options, Program, REST, Running, WARM_UP, joined};
use crate::table::{CLEAR, Row, sentences, table};
use crate::{Result, median, print};
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

/// Seconds of the measurement that counts allocations.
const COUNTED_SECONDS: f64 = 0.5;
/// One process's memory differs from the next one's by some hundred KiB.
const MEMORY_LEAST_MIB: f64 = 1.0;

pub(super) fn compare<P: Program>(options: &Options) -> Result<()> {
    let (rounds, seconds, connections) = (options.rounds, options.seconds, P::CONNECTIONS);
    let measurements = rounds as f64 * seconds + COUNTED_SECONDS;
    let warm_ups = (rounds + 1) as f64 * WARM_UP.as_secs_f64();
    let takes = 2.0 * (measurements + warm_ups) + REST.as_secs_f64();
    print(&format!(
        "{}\n\nPlain buffers and the pool take turns. Rounds: {rounds}, of {seconds} s for each. This takes {takes:.0} s.\n\
         Each server is a separate process, with {connections} connections.\n\n",
        P::ABOUT
    ))?;
    let progress = |text: &str| {
        let mut stderr = io::stderr();
        if stderr.is_terminal() {
            // Back to the start of the line, which is cleared.
            let _ = write!(stderr, "\r\x1b[K{text}");
        }
    };
    let start = |mode, seconds, count| -> Result<_> {
        let options = Options {
            mode: Some(mode),
            seconds,
            count,
            ..options.clone()
        };
        // While this server rests, the next one works.
        Ok(Running::start::<P>(&options)?.finish_later::<P>())
    };
    // Counting takes time, so these two give no other number.
    let counting = |mode| start(mode, COUNTED_SECONDS, true);
    let counting = [counting(Mode::Plain)?, counting(Mode::Pool)?];
    let (mut plain, mut pool) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        progress(&format!("round {} of {rounds}", round + 1));
        let mut order = [Mode::Plain, Mode::Pool];
        order.rotate_left(round % 2);
        for mode in order {
            let servers = if mode == Mode::Plain {
                &mut plain
            } else {
                &mut pool
            };
            servers.push(start(mode, seconds, false)?);
        }
    }
    progress("the last server rests");
    let counted = counting.map(joined);
    let plain: Vec<Measured> = plain.into_iter().map(joined).collect::<Result<_>>()?;
    let pool: Vec<Measured> = pool.into_iter().map(joined).collect::<Result<_>>()?;
    progress("");
    let [plain_counted, pool_counted] = counted;
    let allocations = [plain_counted?.allocations, pool_counted?.allocations];
    print(&report::<P>(&plain, &pool, allocations))
}

fn report<P: Program>(plain: &[Measured], pool: &[Measured], allocations: [f64; 2]) -> String {
    let unit = P::UNIT;
    let row = |name: String, more_is_better, of: fn(&Measured) -> f64| {
        let rounds = plain.iter().zip(pool);
        let rounds = rounds.map(|(plain, pool)| [of(plain), of(pool)]);
        Row::of_rounds(name, more_is_better, rounds.collect())
    };
    let memory = |name, of| Row {
        least: MEMORY_LEAST_MIB,
        ..row(name, false, of)
    };
    let rest = REST.as_secs();
    let rows = [
        row(format!("{unit}s per second"), true, |s| s.per_second),
        row(format!("CPU time per {unit}, µs"), false, |s| s.cpu_micros),
        Row {
            name: format!("allocations per {unit}"),
            more_is_better: false,
            least: 0.0,
            plain: allocations[0],
            pool: allocations[1],
            rounds: Vec::new(),
        },
        memory("memory at the peak, MiB".into(), |s| s.peak_mib),
        memory(format!("memory {rest} s after the traffic, MiB"), |s| {
            s.rest_mib
        }),
    ];
    let mut text = table(&rows);
    text += "\nThe numbers are those of the server alone. Each is the median of the rounds.\n\
             Allocations are counted in a run that gives no other number.\n\
             \"pool ahead\" counts the rounds in which the pool was better.\n";
    text += CLEAR;
    text += "\n";
    text += &sentences(&rows);
    let kernel = [plain, pool].map(|servers| {
        let shares = servers.iter().map(|s| 1.0 - s.user_micros / s.cpu_micros);
        100.0 * median(shares)
    });
    if !kernel[0].is_nan() {
        let _ = writeln!(
            text,
            "The kernel takes {:.0} % of the CPU time with plain buffers, and {:.0} % with the pool.\n\
             It moves every byte through the sockets, with any buffers.",
            kernel[0], kernel[1]
        );
    }
    for row in rows.iter().filter(|row| row.plain.is_nan()) {
        let _ = writeln!(text, "{}: this system does not give the number.", row.name);
    }
    if plain.len() < 5 {
        text += "With fewer than 5 rounds, no difference of time or memory is clear.\n";
    }
    text
}
