//! Two libraries that share one pool, or have one each, in one program.
//!
//! ```text
//! cargo run --release -p tierpool-lab --bin library              # one pool each against one for both
//! cargo run --release -p tierpool-lab --bin library -- --quick
//! ```
//!
//! Both libraries use `tierpool::global()`, which the program sets. Each also accepts another pool. The
//! program uses them in turn, or both at once, on two threads. It holds some hundred results of each.
//! Then it measures the bytes that its pools retain. A process does one measurement.

mod records;
mod runs;

use records::Records;
use runs::Runs;
use std::ffi::OsString;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Barrier;
use tierpool::{Builder, Pool, SetGlobalError};
use tierpool_lab::random::Random;
use tierpool_lab::{MIB, Result, accounts, median, mib, no_more, print, resident_bytes};

const THREADS: usize = 2;
/// Results that a thread holds of each library.
const HELD: usize = 100;
const BUDGET: usize = 64 * MIB;

fn main() -> ExitCode {
    tierpool_lab::run("library", Task::parse, Task::perform)
}

enum Task {
    /// All measurements, and how many rounds of each.
    Compare(usize),
    /// One measurement.
    Measure {
        is_shared: bool,
        at_once: bool,
    },
    Help,
}

const HELP: &str = "\
Usage: library [--quick]   compares one pool for two libraries with one pool each

Exit code: 0 done, 1 failed (a byte was wrong, or a buffer was not dropped), 2 bad usage.
";

impl Task {
    fn parse(args: &mut dyn Iterator<Item = OsString>) -> Result<Self> {
        let task = match args.next().as_ref().map(|arg| arg.to_string_lossy()) {
            None => Task::Compare(7),
            Some(arg) => match &*arg {
                "--quick" => Task::Compare(1),
                "--measure" => {
                    let mut is = |word| args.next().is_some_and(|arg| arg == word);
                    let (is_shared, at_once) = (is("shared"), is("at-once"));
                    Task::Measure { is_shared, at_once }
                }
                "--help" | "-h" => Task::Help,
                _ => return Err(format!("no such argument: {arg}").into()),
            },
        };
        no_more(args)?;
        Ok(task)
    }

    fn perform(self) -> Result<()> {
        match self {
            Task::Compare(rounds) => print(&compare(rounds)?),
            Task::Measure { is_shared, at_once } => print(&measure(is_shared, at_once)?),
            Task::Help => print(HELP),
        }
    }
}

/// Starts a process for each measurement, in turn. Returns a table of the medians.
fn compare(rounds: usize) -> Result<String> {
    const LOADS: [&str; 2] = ["in-turn", "at-once"];
    const POOLS: [&str; 2] = ["each", "shared"];
    let mut measured = vec![[[f64::NAN; 4]; 4]; rounds];
    for (round, measured) in measured.iter_mut().enumerate() {
        // Each round begins with a different one.
        for at in (0..4).map(|at| (at + round) % 4) {
            let words = ["--measure", POOLS[at % 2], LOADS[at / 2]];
            let child = Command::new(std::env::current_exe()?)
                .args(words)
                .stderr(Stdio::inherit())
                .output()?;
            if !child.status.success() {
                return Err(format!("{words:?} ended with {}", child.status).into());
            }
            let line = String::from_utf8(child.stdout)?;
            for (number, word) in measured[at].iter_mut().zip(line.split_whitespace()) {
                *number = word.parse()?;
            }
        }
    }
    let mut text = format!(
        "Two libraries, {THREADS} threads, {HELD} results held of each. A budget of {} MiB for each pool.\n\
         Medians of {rounds} rounds, one pool each/one for both.\n\n\
         | libraries used | retained, MiB | RSS, MiB | misses | may retain, MiB |\n\
         |---|---|---|---|---|\n",
        BUDGET / MIB
    );
    for (load, name) in LOADS.iter().enumerate() {
        let of = |at: usize, number: usize| median(measured.iter().map(|round| round[at][number]));
        let cells = [1, 1, 0, 0].into_iter().enumerate();
        let cells = cells.map(|(number, digits)| {
            let [each, shared] = [2 * load, 2 * load + 1].map(|at| of(at, number));
            format!("{each:.digits$}/{shared:.digits$}")
        });
        let cells: Vec<String> = cells.collect();
        text += &format!("| {} | {} |\n", name.replace('-', " "), cells.join(" | "));
    }
    Ok(text)
}

/// Uses the libraries. Returns what the pools retain, what the process has in memory, the misses, and
/// the budgets.
fn measure(is_shared: bool, at_once: bool) -> Result<String> {
    let options = || Pool::builder().retain_bytes(BUDGET);
    let (records, runs, pools) = match is_shared {
        true => {
            let shared = set_global(options())?.clone();
            (Records::new(), Runs::new(), vec![shared])
        }
        false => {
            let pools = [options().build()?, options().build()?];
            let [first, second] = pools.clone();
            (
                Records::with_pool(first),
                Runs::with_pool(second),
                pools.into(),
            )
        }
    };
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        let threads = (0..THREADS).map(|number| {
            let (records, runs, barrier) = (&records, &runs, &barrier);
            scope.spawn(move || use_both(records, runs, at_once, number as u64, barrier))
        });
        let threads: Vec<_> = threads.collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.into_iter().try_for_each(|outcome| match outcome {
            Ok(used) => used,
            Err(_) => Err("a thread has panicked".into()),
        })
    })?;
    pools.iter().try_for_each(accounts::settled)?;
    let sum = |of: fn(&tierpool::Stats) -> u64| -> u64 {
        pools.iter().map(|pool| of(&pool.stats())).sum()
    };
    let retained = mib(sum(|stats| stats.total.retained_bytes) as usize);
    let resident = resident_bytes().map_or(f64::NAN, mib);
    let misses = sum(|stats| stats.total.misses);
    let budgets = sum(|stats| stats.budget_bytes) as usize / MIB;
    Ok(format!("{retained} {resident} {misses} {budgets}\n"))
}

/// Sets the pool of all libraries. It can be set once.
fn set_global(options: Builder) -> Result<&'static Pool> {
    let shared = tierpool::set_global(options)?;
    match tierpool::set_global(Pool::builder()) {
        Err(SetGlobalError::AlreadySet) => Ok(shared),
        other => Err(format!("the shared pool was set twice: {other:?}").into()),
    }
}

/// A thread's work, some times over. Compares each result with what went in.
fn use_both(
    records: &Records,
    runs: &Runs,
    at_once: bool,
    number: u64,
    barrier: &Barrier,
) -> Result<()> {
    let mut random = Random(number);
    let contents = |_| -> Vec<u8> {
        let bytes = random.contents(16_000.0, 1000..=256 << 10);
        bytes.into_iter().map(|byte| byte / 64).collect() // with short runs
    };
    let inputs: Vec<Vec<u8>> = (0..HELD).map(contents).collect();
    let mut outcome = Ok(());
    for _ in 0..10 {
        // Each thread comes to each wait, also if it has found a wrong byte.
        let written: Vec<_> = inputs
            .iter()
            .map(|input| records.write(&[&input[..100], &input[100..]]))
            .collect();
        for (record, input) in written.iter().zip(&inputs) {
            if records::read(record).map(|fields| fields.concat()) != Some(input.clone()) {
                outcome = Err("a record has other bytes than were written");
            }
        }
        let kept = at_once.then_some(written);
        barrier.wait();
        let packed: Vec<_> = inputs.iter().map(|input| runs.pack(input)).collect();
        for (packed, input) in packed.iter().zip(&inputs) {
            if runs.unpack(packed) != input[..] {
                outcome = Err("unpacked bytes differ from those that were packed");
            }
        }
        drop((kept, packed));
        barrier.wait();
    }
    Ok(outcome?)
}
