//! What the calibrator decides: its rule for large buffers against others, its targets at the edge
//! between two answers, and one calibration step by step.
//!
//! ```text
//! cargo run --release -p tierpool-lab --bin calibration                  # prints the numbers
//! cargo run --release -p tierpool-lab --bin calibration -- --plots DIR   # and writes plots to DIR
//! cargo run --release -p tierpool-lab --bin calibration -- --help
//! ```
//!
//! `docs/learning.md` explains the calibrator by these numbers.
//!
//! (a) The drop rule. The pool runs, and beside it a model of the pool in a few lines. The model can
//! have other rules: that of `valyala/bytebufferpool`, and the pool's own with another number of
//! requests. The program checks the model against the pool:
//!
//! - Without a rule, the model must do exactly what the pool does.
//! - With the pool's rule, it must do so after the first calibration. The pool may make that one
//!   some returns later: the model looks at each return, and the pool at a sample.
//!
//! (b) Hysteresis. Two workloads that lie between two answers, on the pool and on the pure function.
//! The pure function forgets its last answer.
//!
//! (c) A realistic workload, one calibration, worked out by hand.
//!
//! There is one thread, and nothing depends on time: a number of calls stands for the interval
//! between trims. So each run is the same.
//!
//! The exit status is 1 if the pool breaks a bound.

use bytes::BufMut;
use plotters::prelude::*;
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tierpool::{Histogram, Pool, PooledBuf, Targets};
use tierpool_lab::plot::{BLUE, CAPTION, FONT, GREEN, GREY, ORANGE, WIDTH, legend};
use tierpool_lab::random::Random;
use tierpool_lab::{KIB, MIB, Result, mib, no_more, print};

/// The calibrator's defaults.
const THRESHOLD: u64 = 42_000;
const PERCENTILE: f64 = 0.95;
/// The most returns of one size class between two samples of the pool. The second sample counts
/// for them.
const BETWEEN_SAMPLES: u64 = 95;

/// The claims, and whether each holds.
#[derive(Default)]
struct Bounds {
    text: String,
    broken: bool,
}

impl Bounds {
    fn check(&mut self, claim: &str, holds: bool) {
        let verdict = if holds { "holds" } else { "BROKEN" };
        let _ = writeln!(self.text, "    {claim}: {verdict}");
        self.broken |= !holds;
    }

    /// The text since the last call.
    fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }
}

// ---- (a) the drop rule: the workload

/// Calls in flight at once. Each ends when this many others have begun.
const IN_FLIGHT: usize = 16;
/// Calls between two trims: those of the default interval of 10 s, at 1,000 calls a second.
const TRIM_EVERY: usize = 10_000;

const SMALL: usize = 4 * KIB;
const SMALL_LEN: usize = 3000;
const ASKED: usize = MIB;
const ASKED_LEN: usize = 600 * KIB;
const GROWN_FIRST: usize = 512;
const GROWN_LEN: usize = 40 * KIB;
const GROWN_FAR_LEN: usize = 100 * KIB;
/// Bytes that are appended at once.
const PIECE: usize = 2000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    /// Asks for 4 KiB and writes 3,000 bytes.
    Small,
    /// Asks for 1 MiB and writes 600 KiB.
    Asked,
    /// Asks for 512 bytes and appends until there are 40 KiB.
    Grown,
    /// The same until there are 100 KiB.
    GrownFar,
}

impl Call {
    fn request(self) -> usize {
        match self {
            Call::Small => SMALL,
            Call::Asked => ASKED,
            Call::Grown | Call::GrownFar => GROWN_FIRST,
        }
    }

    /// Bytes of contents in the end.
    fn len(self) -> usize {
        LENS[self as usize]
    }

    fn is_grown(self) -> bool {
        self.request() == GROWN_FIRST
    }
}

/// Bytes of contents in the end, for each kind of call.
const LENS: [usize; 4] = [SMALL_LEN, ASKED_LEN, GROWN_LEN, GROWN_FAR_LEN];

/// 1 % of the calls of each phase grow.
///
/// More than 95 % are small in each phase. Otherwise the percentile includes a large size, and the
/// rule has no buffer above `max_size` to judge.
struct Phase {
    name: &'static str,
    calls: usize,
    asked: Asked,
    grown: Call,
    trim_every: usize,
}

enum Asked {
    /// This many of 100 calls, at random.
    Percent(f64),
    Never,
    /// The first call of the phase and no other.
    Once,
    Every(usize),
}

const PHASES: [Phase; 7] = [
    Phase {
        name: "1. 3 % ask for 1 MiB, 1 % grow to 40 KiB; the first calibration comes after 43,800",
        calls: 45_000,
        asked: Asked::Percent(3.0),
        grown: Call::Grown,
        trim_every: TRIM_EVERY,
    },
    Phase {
        name: "2. the same, from then on",
        calls: 205_000,
        asked: Asked::Percent(3.0),
        grown: Call::Grown,
        trim_every: TRIM_EVERY,
    },
    Phase {
        name: "3. no call asks for 1 MiB any more",
        calls: 150_000,
        asked: Asked::Never,
        grown: Call::Grown,
        trim_every: TRIM_EVERY,
    },
    Phase {
        name: "4. one call asks for 1 MiB, the first",
        calls: 100_000,
        asked: Asked::Once,
        grown: Call::Grown,
        trim_every: TRIM_EVERY,
    },
    Phase {
        name: "5. each 30,000th asks for 1 MiB",
        calls: 300_000,
        asked: Asked::Every(30_000),
        grown: Call::Grown,
        trim_every: TRIM_EVERY,
    },
    Phase {
        name: "6. each 50,000th, and trims are ten times as far apart",
        calls: 500_000,
        asked: Asked::Every(50_000),
        grown: Call::Grown,
        trim_every: 10 * TRIM_EVERY,
    },
    Phase {
        name: "7. 3 % ask for 1 MiB, 1 % grow to 100 KiB",
        calls: 200_000,
        asked: Asked::Percent(3.0),
        grown: Call::GrownFar,
        trim_every: TRIM_EVERY,
    },
];

/// The calls of all phases, the same for each contender.
fn calls() -> Vec<Vec<Call>> {
    let mut random = Random(1);
    let mut of = |phase: &Phase| -> Vec<Call> {
        let calls = (0..phase.calls).map(|at| {
            let percent = 100.0 * random.unit();
            let asked = match phase.asked {
                Asked::Percent(asked) => percent >= 100.0 - asked,
                Asked::Never => false,
                Asked::Once => at == 0,
                Asked::Every(calls) => at % calls == calls / 2,
            };
            match () {
                () if asked => Call::Asked,
                () if percent < 1.0 => phase.grown,
                () => Call::Small,
            }
        });
        calls.collect()
    };
    PHASES.iter().map(&mut of).collect()
}

// ---- (a) the drop rule: the contenders

trait Contender {
    type Buf;
    /// Takes a buffer and fills it. For a request of 1 MiB, returns also whether the pool had one.
    fn get(&mut self, call: Call) -> (Self::Buf, bool);
    /// Returns whether the pool keeps the buffer.
    fn put(&mut self, buf: Self::Buf) -> bool;
    /// Capacity of all idle buffers, and how much of it is above the small size.
    fn idle(&self) -> (usize, usize);
    fn trim(&mut self);
}

/// The pool itself.
struct Real(Pool);

impl Contender for Real {
    type Buf = PooledBuf;

    fn get(&mut self, call: Call) -> (PooledBuf, bool) {
        let look = call == Call::Asked;
        let before = look.then(|| self.0.stats().total.hits());
        let mut buf = self.0.get(call.request());
        let hit = before.is_none_or(|before| self.0.stats().total.hits() > before);
        match call.is_grown() {
            true => {
                while buf.len() < call.len() {
                    buf.put_bytes(b'x', PIECE.min(call.len() - buf.len()));
                }
            }
            false => buf.put_bytes(b'x', call.len()),
        }
        (buf, hit)
    }

    fn put(&mut self, buf: PooledBuf) -> bool {
        if buf.capacity() <= SMALL {
            return true; // no figure counts it
        }
        let before = self.0.stats().total.returns;
        drop(buf);
        self.0.stats().total.returns > before
    }

    fn idle(&self) -> (usize, usize) {
        let stats = self.0.stats();
        let large = stats
            .classes
            .iter()
            .filter(|class| class.capacity > SMALL)
            .map(|class| class.counts.retained_bytes);
        (
            stats.total.retained_bytes as usize,
            large.sum::<u64>() as usize,
        )
    }

    fn trim(&mut self) {
        self.0.trim();
    }
}

/// What the pool does on one thread with room for all, in numbers: the buffers of a
/// class are a count.
struct Model {
    /// How many requests since the last calibration keep a class above `max_size`. With 0,
    /// there is no drop rule; with `u64::MAX`, it is that of `valyala/bytebufferpool`.
    requests_least: u64,
    /// Whether it ever calibrates.
    calibrates: bool,
    targets: Option<Targets>,
    /// Lengths that came back since the last calibration.
    returned: [u64; LENS.len()],
    classes: Vec<Class>,
}

#[derive(Default)]
struct Class {
    capacity: usize,
    idle: usize,
    /// The fewest that were idle since the last trim.
    idle_least: usize,
    /// Since the last calibration.
    requests: u64,
    /// Buffers that return to it are freed.
    retired: bool,
}

/// The class and the kind of call.
struct ModelBuf(usize, Call);

impl Model {
    fn new(requests_least: u64, calibrates: bool) -> Self {
        let class = |capacity| Class {
            capacity,
            ..Class::default()
        };
        Model {
            requests_least,
            calibrates,
            targets: None,
            returned: [0; LENS.len()],
            classes: (9..=20).map(|power| class(1 << power)).collect(),
        }
    }

    fn class_of(&self, request: usize) -> usize {
        let holds = |class: &Class| class.capacity >= request;
        let last = self.classes.len() - 1;
        self.classes.iter().position(holds).unwrap_or(last)
    }

    fn note_request(&mut self, class: usize) {
        let class = &mut self.classes[class];
        class.requests += 1;
        class.retired &= class.requests < self.requests_least;
    }

    fn take(&mut self, class: usize) -> bool {
        let class = &mut self.classes[class];
        let hit = class.idle > 0;
        class.idle = class.idle.saturating_sub(1);
        class.idle_least = class.idle_least.min(class.idle);
        hit
    }

    fn keep(&mut self, class: usize) -> bool {
        let class = &mut self.classes[class];
        class.idle += usize::from(!class.retired);
        !class.retired
    }

    /// The capacity to ask for when a buffer of this capacity is full.
    fn larger_than(&self, capacity: usize) -> usize {
        match self.targets {
            None => 8 * capacity,
            Some(targets) if capacity < targets.max_size => targets.max_size.min(8 * capacity),
            Some(_) => 32 * capacity,
        }
    }

    fn grow(&mut self, class: usize, needed: usize) -> usize {
        let expected = self.larger_than(self.classes[class].capacity);
        let larger = self.class_of(needed.max(expected));
        self.take(larger);
        self.keep(class);
        larger
    }

    fn calibrate(&mut self) {
        let mut histogram = Histogram::new();
        for (len, count) in LENS.into_iter().zip(&mut self.returned) {
            histogram.record_many(len, std::mem::take(count));
        }
        self.targets = histogram.targets(PERCENTILE);
        let largest = self.targets.map_or(usize::MAX, |targets| targets.max_size);
        for class in &mut self.classes {
            class.retired = class.capacity > largest && class.requests < self.requests_least;
            class.requests = 0;
        }
    }
}

impl Contender for Model {
    type Buf = ModelBuf;

    fn get(&mut self, call: Call) -> (ModelBuf, bool) {
        let mut class = self.class_of(call.request());
        self.note_request(class);
        let hit = self.take(class);
        let mut len = 0;
        while call.is_grown() && len < call.len() {
            len = call.len().min(len + PIECE);
            if len > self.classes[class].capacity {
                class = self.grow(class, len);
            }
        }
        (ModelBuf(class, call), hit)
    }

    fn put(&mut self, ModelBuf(class, call): ModelBuf) -> bool {
        self.returned[call as usize] += 1;
        if self.calibrates && self.returned[call as usize] > THRESHOLD {
            self.calibrate();
        }
        self.keep(class)
    }

    fn idle(&self) -> (usize, usize) {
        let all = self.classes.iter();
        let bytes = all.map(|class| (class.capacity, class.idle * class.capacity));
        bytes.fold((0, 0), |(all, large), (capacity, bytes)| {
            let if_large = if capacity > SMALL { bytes } else { 0 };
            (all + bytes, large + if_large)
        })
    }

    fn trim(&mut self) {
        for class in &mut self.classes {
            class.idle -= class.idle_least;
            class.idle_least = class.idle;
        }
    }
}

// ---- (a) the drop rule: the figures

/// What one contender did in one phase.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Figures {
    /// Requests for 1 MiB.
    asked: usize,
    /// Those that the heap served.
    misses: usize,
    /// Buffers of these that were freed on return.
    asked_freed: usize,
    grown: usize,
    /// Buffers that grew and were kept on return.
    grown_kept: usize,
    /// The most that was idle, in bytes.
    idle_most: usize,
    /// The most that was idle above the small size.
    large_most: usize,
    /// The same, summed over all calls.
    large_sum: usize,
    /// The same, at the end.
    large_last: usize,
}

#[derive(PartialEq, Eq)]
struct RuleRun {
    phases: Vec<Figures>,
    /// The most that was idle in each stretch of calls, for the plot.
    curve: Vec<usize>,
}

/// Calls from one point of the curve to the next.
const STRETCH: usize = 5000;

fn run_phases<C: Contender>(mut contender: C, phases: &[Vec<Call>]) -> RuleRun {
    let mut run = RuleRun {
        phases: Vec::new(),
        curve: Vec::new(),
    };
    let mut in_flight = VecDeque::new();
    let (mut all, mut large, mut stretch_most) = (0, 0, 0);
    let mut count = 0_usize;
    for (phase, calls) in PHASES.iter().zip(phases) {
        let mut figures = Figures::default();
        for &call in calls {
            count += 1;
            let mut look = call != Call::Small;
            if count % phase.trim_every == 0 {
                contender.trim();
                look = true;
            }
            let (buf, hit) = contender.get(call);
            in_flight.push_back((call, buf));
            figures.asked += usize::from(call == Call::Asked);
            figures.misses += usize::from(!hit && call == Call::Asked);
            figures.grown += usize::from(call.is_grown());
            if in_flight.len() > IN_FLIGHT {
                if let Some((ended, buf)) = in_flight.pop_front() {
                    let kept = contender.put(buf);
                    figures.asked_freed += usize::from(!kept && ended == Call::Asked);
                    figures.grown_kept += usize::from(kept && ended.is_grown());
                    look |= ended != Call::Small;
                }
            }
            // Small calls change little, and looking takes longer than they do.
            if look || count % STRETCH == 0 {
                (all, large) = contender.idle();
            }
            figures.idle_most = figures.idle_most.max(all);
            figures.large_most = figures.large_most.max(large);
            figures.large_sum += large;
            figures.large_last = large;
            stretch_most = stretch_most.max(all);
            if count % STRETCH == 0 {
                run.curve.push(std::mem::take(&mut stretch_most));
            }
        }
        run.phases.push(figures);
    }
    run
}

/// A pool in which nothing depends on time.
fn pool(calibrates: bool) -> Result<Pool> {
    let builder = Pool::builder().trim_interval(None).calibrate_interval(None);
    Ok(builder.learn_sizes(calibrates).build()?)
}

const ORIGINAL: usize = 0;
const NO_RULE: usize = 1;
const POOL: usize = 2;
const RULES: [&str; 5] = [
    "bytebufferpool's rule (model)",
    "no rule: learn_sizes(false)",
    "the pool: 2 requests",
    "1 request (model)",
    "4 requests (model)",
];

fn drop_rule(bounds: &mut Bounds) -> Result<(String, Vec<RuleRun>)> {
    let phases = calls();
    let runs = vec![
        run_phases(Model::new(u64::MAX, true), &phases),
        run_phases(Real(pool(false)?), &phases),
        run_phases(Real(pool(true)?), &phases),
        run_phases(Model::new(1, true), &phases),
        run_phases(Model::new(4, true), &phases),
    ];

    // The model looks at each return, and the pool at a sample. So the pool may calibrate some
    // returns later, and keep some more grown buffers before that.
    let model = run_phases(Model::new(2, true), &phases);
    let (pool, model) = (&runs[POOL].phases, &model.phases);
    bounds.check(
        "1: the model with 2 requests misses and frees as the pool does, and keeps nearly as many",
        (pool[0].misses, pool[0].asked_freed) == (model[0].misses, model[0].asked_freed)
            && pool[0].grown_kept.abs_diff(model[0].grown_kept) <= 5,
    );
    bounds.check(
        "2 to 7: the model with 2 requests does exactly what the pool does",
        pool[1..] == model[1..],
    );
    bounds.check(
        "the model without a rule does exactly what a pool that never calibrates does",
        runs[NO_RULE] == run_phases(Model::new(0, false), &phases),
    );
    let of = |phase: usize| &runs[POOL].phases[phase - 1];
    bounds.check(
        "1, 2, 7: the pool serves at least 99 % of the requests for 1 MiB",
        [1, 2, 7].map(of).iter().all(|f| f.misses * 100 <= f.asked),
    );
    bounds.check(
        "2 to 6: the pool keeps none that grew to 40 KiB",
        [2, 3, 4, 5, 6].map(of).iter().all(|f| f.grown_kept == 0),
    );
    bounds.check(
        "3: the pool holds nothing above 4 KiB in the end",
        of(3).large_last == 0,
    );
    bounds.check(
        "4: the pool never holds anything above 4 KiB",
        of(4).large_most == 0,
    );
    bounds.check(
        "5: the pool misses no more requests for 1 MiB than without a rule",
        of(5).misses <= runs[NO_RULE].phases[4].misses,
    );
    Ok((rules_table(&runs), runs))
}

fn rules_table(runs: &[RuleRun]) -> String {
    let mut text = String::new();
    for (at, phase) in PHASES.iter().enumerate() {
        let asked = runs[POOL].phases[at].asked;
        let grown = runs[POOL].phases[at].grown;
        let _ = writeln!(text, "{}", phase.name);
        let _ = writeln!(
            text,
            "   {} calls, {asked} of them ask for 1 MiB, {grown} grow",
            phase.calls
        );
        let mut row = |name: &str, cells: [&str; 6]| {
            let _ = write!(text, "    {name:<30}");
            for (cell, width) in cells.into_iter().zip([7, 7, 12, 11, 15, 13]) {
                let _ = write!(text, "{cell:>width$}");
            }
            text.push('\n');
        };
        row(
            "",
            [
                "missed",
                "freed",
                "grown, kept",
                "idle, most",
                "above 4K, mean",
                "at the end",
            ],
        );
        for (name, run) in RULES.iter().zip(runs) {
            let f = &run.phases[at];
            let mean = f.large_sum as f64 / phase.calls as f64 / MIB as f64;
            let cells = [
                &f.misses.to_string(),
                &f.asked_freed.to_string(),
                &f.grown_kept.to_string(),
                &format!("{:.2}", mib(f.idle_most)),
                &format!("{mean:.2}"),
                &format!("{:.2}", mib(f.large_last)),
            ];
            row(name, cells.map(String::as_str));
        }
        text.push('\n');
    }
    text + "missed: requests for 1 MiB that the heap served. freed: of these buffers, on return.\n\
            grown, kept: buffers that grew, on return. Idle in MiB.\n"
}

// ---- (b) hysteresis

/// Calibrations at the edge, and then of a workload that is clear.
const AT_THE_EDGE: usize = 200;
const CLEAR: usize = 20;

struct Edge {
    name: &'static str,
    /// Two lengths. The first one is the more frequent in the end.
    lens: [usize; 2],
    /// The share of the second, at the edge and then.
    share: f64,
    share_clear: f64,
    target: &'static str,
    of: fn(Targets) -> usize,
}

const EDGES: [Edge; 2] = [
    Edge {
        name: "5 % are of 10,000 bytes, the others of 1,000; then 1 %",
        lens: [1000, 10_000],
        share: 0.05,
        share_clear: 0.01,
        target: "max_size",
        of: |targets| targets.max_size,
    },
    Edge {
        name: "as many of 1,000 bytes as of 3,000; then 4 of 5 are of 1,000",
        lens: [1000, 3000],
        share: 0.5,
        share_clear: 0.2,
        target: "default_size",
        of: |targets| targets.default_size,
    },
];

/// One target after each calibration.
struct EdgeRun {
    pure: Vec<usize>,
    pool: Vec<usize>,
    /// Whether the pool calibrated when a step had more than 42,000 returns, and counted all
    /// returns. Either number may differ by the returns between two samples of a class.
    on_time: bool,
}

fn changes(targets: &[usize]) -> usize {
    targets.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

/// Whether a pool has calibrated more than `before` times. `counts` are the returns of each size
/// since then.
fn is_made(pool: &Pool, before: usize, counts: &[u64]) -> bool {
    // `stats` takes longer than a return.
    let may_be = counts
        .iter()
        .any(|&count| count + BETWEEN_SAMPLES > THRESHOLD);
    may_be && pool.stats().calibrations > before as u64
}

fn run_edge(edge: &Edge, seed: u64) -> Result<EdgeRun> {
    let pool = pool(true)?;
    let mut random = Random(seed);
    let mut run = EdgeRun {
        pure: Vec::new(),
        pool: Vec::new(),
        on_time: true,
    };
    for calibration in 0..AT_THE_EDGE + CLEAR {
        let share = match calibration < AT_THE_EDGE {
            true => edge.share,
            false => edge.share_clear,
        };
        let mut counts = [0; 2];
        while !is_made(&pool, calibration, &counts) {
            let which = usize::from(random.unit() < share);
            let len = edge.lens[which];
            pool.get(len).put_bytes(b'x', len);
            counts[which] += 1;
        }
        let mut histogram = Histogram::new();
        for (len, count) in edge.lens.into_iter().zip(counts) {
            histogram.record_many(len, count);
        }
        let pure = histogram.targets(PERCENTILE).ok_or("nothing came back")?;
        let most = counts.iter().copied().max().unwrap_or(0);
        run.on_time &= most.abs_diff(THRESHOLD + 1) <= BETWEEN_SAMPLES;
        let calls = pool.profile().calls();
        run.on_time &= calls.abs_diff(histogram.calls()) <= 2 * BETWEEN_SAMPLES;
        run.pure.push((edge.of)(pure));
        run.pool.push((edge.of)(pool.targets()));
    }
    Ok(run)
}

fn hysteresis(bounds: &mut Bounds) -> Result<(String, Vec<EdgeRun>)> {
    let mut text = String::new();
    let mut runs = Vec::new();
    for (edge, seed) in EDGES.iter().zip(2..) {
        let run = run_edge(edge, seed)?;
        let [pure, pool] = [&run.pure, &run.pool].map(|of| changes(&of[..AT_THE_EDGE]));
        let (name, target) = (edge.name, edge.target);
        let _ = writeln!(
            text,
            "{name}\n    changes of {target} in {AT_THE_EDGE} calibrations: pure function {pure}, pool {pool}"
        );
        bounds.check(
            &format!("{target}: the pool changes it at most once at the edge"),
            pool <= 1,
        );
        bounds.check(
            &format!(
                "{target}: the workload is at the edge, the pure function changes it 50 times"
            ),
            pure >= 50,
        );
        bounds.check(
            &format!("{target}: both follow the clear change with the first calibration"),
            run.pool[AT_THE_EDGE..] == run.pure[AT_THE_EDGE..]
                && changes(&run.pure[AT_THE_EDGE..]) == 0,
        );
        bounds.check(
            &format!(
                "{target}: the pool calibrated at most {BETWEEN_SAMPLES} returns of a class early \
                 or late, from all"
            ),
            run.on_time,
        );
        runs.push(run);
    }
    Ok((text, runs))
}

// ---- (c) one calibration by hand

/// One step of the histogram, in the order of the walk.
struct Step {
    size: usize,
    calls: u64,
    /// Of all steps up to this one.
    walked: u64,
    /// Whether it counts for `max_size`.
    is_met: bool,
}

struct Worked {
    steps: Vec<Step>,
    total: u64,
    limit: u64,
    default_size: usize,
    max_size: usize,
}

/// The workload of `tierpool-tune`'s example `sample`, `log-normal`: a median of 3 KiB,
/// a deviation of the logarithm of 0.8, and 1 % of 100 KiB.
fn log_normal(random: &mut Random) -> usize {
    if random.unit() < 0.01 {
        return 100 * KIB;
    }
    ((3 * KIB) as f64 * (0.8 * random.normal()).exp()) as usize
}

fn worked_example(bounds: &mut Bounds) -> Result<(String, Worked)> {
    let pool = pool(true)?;
    let mut random = Random(4);
    let mut calls = [0; 20];
    while !is_made(&pool, 0, &calls) {
        let len = log_normal(&mut random);
        pool.get(len).put_bytes(b'x', len);
        let step = (0..19).find(|&step| len <= 64 << step).unwrap_or(19);
        calls[step] += 1;
    }

    // From here on in the steps of `docs/learning.md`.
    let total: u64 = calls.iter().sum();
    let limit = (PERCENTILE * total as f64).floor() as u64;
    let mut order: Vec<usize> = (0..20).filter(|&step| calls[step] > 0).collect();
    order.sort_by_key(|&step| (Reverse(calls[step]), step));
    let mut worked = Worked {
        steps: Vec::new(),
        total,
        limit,
        default_size: 64 << order[0],
        max_size: 0,
    };
    let mut walked = 0;
    for step in order {
        let (size, is_met) = (64 << step, walked <= limit);
        walked += calls[step];
        if is_met {
            worked.max_size = worked.max_size.max(size);
        }
        worked.steps.push(Step {
            size,
            calls: calls[step],
            walked,
            is_met,
        });
    }

    let targets = pool.targets();
    bounds.check(
        "the pool has the same targets",
        (targets.default_size, targets.max_size) == (worked.default_size, worked.max_size),
    );
    // One pool class for each step from 512 bytes on.
    bounds.check(
        "from as many returns, less those since the last sample of each class",
        (total - 12 * BETWEEN_SAMPLES..=total).contains(&pool.profile().calls()),
    );
    bounds.check(
        "the most frequent step had 42,001 returns, or at most 95 more",
        worked.steps[0].calls > THRESHOLD
            && worked.steps[0].calls <= THRESHOLD + 1 + BETWEEN_SAMPLES,
    );
    Ok((worked_table(&worked), worked))
}

fn worked_table(worked: &Worked) -> String {
    let mut text = String::from("    step            calls        %   walked up to it\n");
    for step in &worked.steps {
        let percent = 100.0 * step.calls as f64 / worked.total as f64;
        let verdict = if step.is_met { "met" } else { "left out" };
        let _ = writeln!(
            text,
            "    {:<12}{:>9}{percent:>9.2}{:>17}   {verdict}",
            size_text(step.size),
            step.calls,
            step.walked,
        );
    }
    let _ = writeln!(
        text,
        "    total {}, floor(0.95 * total) = {}\n    default_size {}, max_size {}",
        worked.total,
        worked.limit,
        size_text(worked.default_size),
        size_text(worked.max_size)
    );
    text
}

fn size_text(bytes: usize) -> String {
    match bytes {
        MIB.. => format!("{} MiB", bytes / MIB),
        KIB.. => format!("{} KiB", bytes / KIB),
        _ => format!("{bytes} B"),
    }
}

// ---- plots

fn plot_rules(runs: &[RuleRun], path: &Path) -> Result<()> {
    let area = SVGBackend::new(path, (WIDTH, 506)).into_drawing_area();
    area.fill(&WHITE)?;
    let (chart_area, legend_area) = area.split_vertically(430);
    let total: usize = PHASES.iter().map(|phase| phase.calls).sum();
    let most = runs.iter().flat_map(|run| &run.curve).max();
    let top = 1.15 * mib(*most.ok_or("no run")?);
    let mut chart = ChartBuilder::on(&chart_area)
        .caption("idle bytes under three drop rules", CAPTION)
        .margin(12)
        .margin_right(30)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d(0..total, 0.0..top)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("calls (the phases are those of the table)")
        .y_desc("MiB idle, the most in 5,000 calls")
        .axis_desc_style(FONT)
        .x_label_formatter(&|calls| match calls {
            0 => "0".into(),
            calls => format!("{},000", calls / 1000),
        })
        .draw()?;
    let mut from = 0;
    for (phase, number) in PHASES.iter().zip(1..) {
        let line = [(from, 0.0), (from, top)];
        chart.draw_series([PathElement::new(line, GREY)])?;
        let at = (from + total / 150, top * 0.985);
        chart.draw_series([Text::new(format!("{number}"), at, CAPTION)])?;
        from += phase.calls;
    }
    let shown = [
        (NO_RULE, ORANGE, "no rule: a pool with learn_sizes(false)"),
        (POOL, BLUE, "the pool"),
        (
            ORIGINAL,
            GREEN,
            "bytebufferpool's rule, on the same size classes (model)",
        ),
    ];
    for ((rule, colour, name), row) in shown.into_iter().zip(0..) {
        let points = runs[rule].curve.iter().zip(1..);
        let points = points.map(|(&most, at)| (at * STRETCH, mib(most)));
        chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
        legend(&legend_area, (row, 70), colour.stroke_width(3), name)?;
    }
    area.present()?;
    Ok(())
}

fn plot_edges(runs: &[EdgeRun], path: &Path) -> Result<()> {
    let area = SVGBackend::new(path, (WIDTH, 640)).into_drawing_area();
    area.fill(&WHITE)?;
    let (charts, legend_area) = area.split_vertically(585);
    for ((edge, run), area) in EDGES.iter().zip(runs).zip(charts.split_evenly((2, 1))) {
        let kib = |target: &usize| *target as f64 / KIB as f64;
        let (least, most) = (run.pure.iter().min(), run.pure.iter().max());
        let (least, most) = least.zip(most).ok_or("no run")?;
        let (bottom, top) = (0.7 * kib(least), 1.5 * kib(most));
        let y_axis = (bottom..top).log_scale();
        let y_axis = y_axis.with_key_points(vec![kib(least), kib(most)]);
        let mut chart = ChartBuilder::on(&area)
            .caption(edge.name, CAPTION)
            .margin(12)
            .margin_right(30)
            .x_label_area_size(40)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..(AT_THE_EDGE + CLEAR) as f64, y_axis)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_labels(12)
            .x_desc("calibrations")
            .y_desc(format!("{}, KiB", edge.target))
            .axis_desc_style(FONT)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| format!("{y:.0}"))
            .draw()?;
        let clear = AT_THE_EDGE as f64;
        chart.draw_series([PathElement::new([(clear, bottom), (clear, top)], GREY)])?;
        for (targets, colour, width) in [(&run.pure, ORANGE, 1), (&run.pool, BLUE, 3)] {
            // A target holds until the next calibration, so each is a step.
            let corners = targets.iter().enumerate().flat_map(|(at, target)| {
                let at = at as f64;
                [(at, kib(target)), (at + 1.0, kib(target))]
            });
            chart.draw_series(LineSeries::new(corners, colour.stroke_width(width)))?;
        }
    }
    legend(
        &legend_area,
        (0, 70),
        ORANGE.stroke_width(3),
        "the pure function, which forgets its last answer",
    )?;
    legend(&legend_area, (1, 70), BLUE.stroke_width(3), "the pool")?;
    area.present()?;
    Ok(())
}

fn plot_worked(worked: &Worked, path: &Path) -> Result<()> {
    let area = SVGBackend::new(path, (WIDTH, 484)).into_drawing_area();
    area.fill(&WHITE)?;
    let (chart_area, legend_area) = area.split_vertically(430);
    let mut steps: Vec<&Step> = worked.steps.iter().collect();
    steps.sort_by_key(|step| step.size);
    let smallest = steps.first().ok_or("no steps")?.size;
    let largest = steps.last().ok_or("no steps")?.size;
    let place = |size: usize| f64::from((size / smallest).ilog2());
    let end = place(largest) + 1.0;
    let percent = |step: &Step| 100.0 * step.calls as f64 / worked.total as f64;
    let top = steps.iter().map(|step| percent(step)).fold(0.0, f64::max) * 1.3;
    let mut chart = ChartBuilder::on(&chart_area)
        .caption("log-normal around 3 KiB, and 1 % of 100 KiB", CAPTION)
        .margin(12)
        .margin_right(30)
        .x_label_area_size(20)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .light_line_style(TRANSPARENT)
        .y_desc("% of the returns")
        .axis_desc_style(FONT)
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    for step in steps {
        let (x, height) = (place(step.size), percent(step));
        let colour = if step.is_met { BLUE } else { GREY };
        let bar = [(x + 0.08, 0.0), (x + 0.92, height)];
        chart.draw_series([Rectangle::new(bar, colour.filled())])?;
        let mut label = |text: String, y: f64, up: i32| {
            let offset = EmptyElement::at((x + 0.12, y)) + Text::new(text, (0, -up), FONT);
            chart.draw_series([offset]).map(|_| ())
        };
        label(format!("{height:.2}"), height, 16)?;
        label(size_text(step.size), 0.0, -5)?;
        if step.size == worked.default_size {
            label("default_size".into(), height, 34)?;
        }
        if step.size == worked.max_size {
            label("max_size".into(), height, 34)?;
        }
    }
    legend(
        &legend_area,
        (0, 70),
        BLUE.stroke_width(3),
        "met while the steps walked have no more than 95 % of the returns",
    )?;
    legend(&legend_area, (1, 70), GREY.stroke_width(3), "left out")?;
    area.present()?;
    Ok(())
}

// ---- command line

const HELP: &str = "\
Shows the decisions of the calibrator: the drop rule against others, the targets at the edge
between two answers, and one calibration step by step. Exits with 1 if the pool breaks a bound.

Usage: calibration [--plots DIR]

  --plots DIR  write calibration_*.svg to DIR
  --help       this text
";

enum Task {
    Help,
    Report(Option<PathBuf>),
}

impl Task {
    fn parse(args: &mut dyn Iterator<Item = OsString>) -> Result<Self> {
        let task = match args.next() {
            None => Task::Report(None),
            Some(arg) => match arg.to_str() {
                Some("--help" | "-h") => Task::Help,
                Some("--plots") => match args.next() {
                    Some(dir) => Task::Report(Some(dir.into())),
                    None => return Err("--plots takes a directory".into()),
                },
                _ => return Err(format!("no such option: {}", arg.to_string_lossy()).into()),
            },
        };
        no_more(args).map(|()| task)
    }
}

fn main() -> ExitCode {
    tierpool_lab::run("calibration", |args| Task::parse(args), perform)
}

fn perform(task: Task) -> Result<()> {
    let dir = match task {
        Task::Help => return print(HELP),
        Task::Report(dir) => dir,
    };
    let mut bounds = Bounds::default();
    let (text, rules) = drop_rule(&mut bounds)?;
    print(&format!("(a) the drop rule\n\n{text}\n{}\n", bounds.take()))?;
    let (text, edges) = hysteresis(&mut bounds)?;
    print(&format!("(b) hysteresis\n\n{text}\n{}\n", bounds.take()))?;
    let (text, worked) = worked_example(&mut bounds)?;
    print(&format!("(c) one calibration\n\n{text}\n{}", bounds.take()))?;
    if let Some(dir) = dir {
        fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        plot_rules(&rules, &dir.join("calibration_rule.svg"))?;
        plot_edges(&edges, &dir.join("calibration_hysteresis.svg"))?;
        plot_worked(&worked, &dir.join("calibration_steps.svg"))?;
    }
    match bounds.broken {
        true => Err("the pool broke a bound".into()),
        false => Ok(()),
    }
}
