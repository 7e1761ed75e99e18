//! One huge request must not make a pool huge for ever: the pool against a naive one, over time.
//!
//! ```text
//! cargo run --release -p tierpool-lab --bin oversize_leak             # plots: target/oversize_leak
//! cargo run --release -p tierpool-lab --bin oversize_leak -- DIR      # plots: DIR
//! cargo run --release -p tierpool-lab --bin oversize_leak -- --help
//! ```
//!
//! A naive pool hands out any idle buffer, and grows it if it is too small. In the end all its
//! buffers are as large as the largest request. Go's `sync.Pool` of `bytes.Buffer` does that
//! (<https://go.dev/issue/23199>). The scenarios:
//!
//! - (a) is that issue's own.
//! - In (b) and (c), large requests are rare, and never stop.
//! - In (d) all requests are large. A pool that frees each large buffer is useless there.
//!
//! The naive contender is `Mutex<Vec<BytesMut>>`. It loses in (a) to (c), by design. In (d) it has the
//! better hit rate: a buffer that is large enough for any request serves any request. The pool
//! keeps some buffers of each size class, and frees those that were not needed for a while.
//!
//! The held bytes are added up after each get and each drop, not at the samples alone. Each
//! contender runs each scenario in one process, so RSS is that of this run alone. Time is
//! simulated, and trims come by it. So all numbers except RSS are the same in each run.
//!
//! The exit status is 1 if the pool breaks a bound.

use bytes::BytesMut;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::series::DashedLineSeries;
use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::mem::{self, MaybeUninit};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use tierpool::{Builder, Pool, PooledBuf};
use tierpool_lab::plot::{
    BLUE, CAPTION, FONT, GREEN, LEGEND_ROW, ORANGE, WIDTH, legend, legend_places,
};
use tierpool_lab::random::Random;
use tierpool_lab::{KIB, MIB, Result, mib, print, resident_bytes};

/// Simulated requests a second.
const RATE: usize = 20;
/// Requests between two trims: those of 10 simulated seconds, the pool's default interval.
const TRIM_EVERY: usize = 10 * RATE;
/// Samples of one run, about: enough for a smooth curve in a plot of this width, in a small file.
const SAMPLES: usize = 200;
/// A byte is written to each page, so that it counts in the RSS. No system's page is smaller.
const PAGE: usize = 4 * KIB;

// ---- scenarios

struct Scenario {
    name: &'static str,
    title: &'static str,
    requests: usize,
    /// Requests at work at once. Each ends when this many others have begun.
    in_flight: usize,
    /// `None` for no trims.
    trim_every: Option<usize>,
    /// At most this many bytes of a buffer are written to.
    touched_max: usize,
    /// The least number on the plot's logarithmic axis. A smaller one is drawn there.
    axis_min_mib: f64,
    /// Bytes of a request.
    bytes: fn(usize) -> usize,
    bound: Bound,
    contenders: &'static [Contender],
}

struct Contender {
    name: &'static str,
    kind: Kind,
}

enum Kind {
    Naive,
    /// A pool with these options, and trimmed by the simulated clock alone.
    Pool(fn() -> Builder),
}

/// What must be true of the pools.
enum Bound {
    /// From the second trim on, idle bytes are below this.
    IdleAfterTrims(usize),
    /// Idle and outstanding bytes together are below this, after each get and each drop.
    Footprint(usize),
    /// In percent: the requests after the first tenth that find a buffer.
    HitRate(f64),
}

const NAIVE: Contender = Contender {
    name: "naive",
    kind: Kind::Naive,
};
const DEFAULT_POOL: Contender = Contender {
    name: "pool",
    kind: Kind::Pool(Pool::builder),
};

/// Bytes of a huge request of scenario (a). With 32 bits, ten of 256 MiB are too many.
const HUGE: usize = if cfg!(target_pointer_width = "32") {
    32 * MIB
} else {
    256 * MIB
};
/// Requests of scenario (d) in flight.
const LARGE_IN_FLIGHT: usize = 8;
const LARGE_CLASS_MAX: usize = 32 * MIB;

const SCENARIOS: [Scenario; 4] = [
    Scenario {
        name: "a",
        title: if HUGE == 256 * MIB {
            "ten requests of 256 MiB, then only 1 KiB"
        } else {
            "ten requests of 32 MiB, then only 1 KiB"
        },
        requests: 2000,
        in_flight: 10,
        trim_every: Some(TRIM_EVERY),
        // Ten times 256 MiB would be 2.5 GiB of real memory. Not every machine has that, and the
        // page faults would take longer than the rest of this program.
        touched_max: 32 * MIB,
        axis_min_mib: 0.001,
        bytes: |request| if request < 10 { HUGE } else { KIB },
        bound: Bound::IdleAfterTrims(MIB),
        contenders: &[
            NAIVE,
            // Frees each of these requests' buffers when it comes back.
            DEFAULT_POOL,
            // Keeps them, so that the trims must free them. These come by the clock alone: the budget
            // has room, so the pool does not trim by itself.
            Contender {
                name: if HUGE == 256 * MIB {
                    "pool of up to 256 MiB"
                } else {
                    "pool of up to 32 MiB"
                },
                kind: Kind::Pool(|| {
                    let builder = Pool::builder().max_size(HUGE);
                    builder.retain_bytes(12 * HUGE)
                }),
            },
        ],
    },
    Scenario {
        name: "b",
        title: "64 in flight, 1 of 1000 is 4 MiB, the others up to 2 KiB; no trims",
        requests: 200_000,
        in_flight: 64,
        trim_every: None,
        touched_max: usize::MAX,
        axis_min_mib: 0.01,
        bytes: mostly_small,
        bound: Bound::Footprint(16 * MIB),
        contenders: &[NAIVE, DEFAULT_POOL],
    },
    Scenario {
        name: "c",
        title: "as (b), one hour at 20 requests a second, trimmed each 10 s",
        requests: 3600 * RATE,
        in_flight: 64,
        trim_every: Some(TRIM_EVERY),
        touched_max: usize::MAX,
        axis_min_mib: 0.01,
        bytes: mostly_small,
        bound: Bound::Footprint(16 * MIB),
        contenders: &[NAIVE, DEFAULT_POOL],
    },
    Scenario {
        name: "d",
        title: "8 in flight, all from 100 KiB to 30 MiB, trimmed each 10 s",
        requests: 20_000,
        in_flight: LARGE_IN_FLIGHT,
        trim_every: Some(TRIM_EVERY),
        touched_max: usize::MAX,
        axis_min_mib: 10.0,
        bytes: always_large,
        bound: Bound::HitRate(90.0),
        contenders: &[
            NAIVE,
            Contender {
                name: "pool of up to 32 MiB",
                // This budget is never too small. Each class has at most as many buffers as there are
                // requests at once. One buffer of each class below the largest one take as much
                // together as one of the largest.
                kind: Kind::Pool(|| {
                    let builder = Pool::builder().max_size(LARGE_CLASS_MAX);
                    builder.retain_bytes(LARGE_IN_FLIGHT * 2 * LARGE_CLASS_MAX)
                }),
            },
        ],
    },
];

/// One of each thousand is 4 MiB, at a random place. The others are 1 byte to 2 KiB.
fn mostly_small(request: usize) -> usize {
    let (thousand, at) = (request / 1000, request % 1000);
    if random(1, thousand) % 1000 == at as u64 {
        4 * MIB
    } else {
        1 + random(2, request) as usize % (2 * KIB)
    }
}

/// From 100 KiB to 30 MiB, each order of magnitude as often as any other.
///
/// So each of the nine size classes is used. If all sizes were as likely, half of the requests would
/// be of the largest class. That is the easier case for a pool with classes.
fn always_large(request: usize) -> usize {
    let (least, most) = ((100 * KIB) as f64, (30 * MIB) as f64);
    // From 0 to 1, both included.
    let part = (random(3, request) >> 11) as f64 / ((1_u64 << 53) - 1) as f64;
    (least * (most / least).powf(part)).clamp(least, most) as usize
}

/// The `n`th number of a stream.
fn random(stream: u64, n: usize) -> u64 {
    // The generator is a counter, so it can start anywhere.
    let before = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Random((stream << 32).wrapping_add(before)).next_u64()
}

// ---- contenders

trait BufferPool {
    type Buf;
    /// Returns also whether an idle buffer served the request, without growing.
    fn get(&self, bytes: usize) -> (Self::Buf, bool);
    fn put(&self, buf: Self::Buf);
    fn inner(buf: &mut Self::Buf) -> &mut BytesMut;
    /// Capacity of all idle buffers, in bytes.
    fn retained(&self) -> usize;
    fn trim(&self);
}

impl BufferPool for Pool {
    type Buf = PooledBuf;

    fn get(&self, bytes: usize) -> (PooledBuf, bool) {
        let before = self.stats().total.hits();
        let buf = Pool::get(self, bytes);
        (buf, self.stats().total.hits() > before)
    }

    fn put(&self, buf: PooledBuf) {
        drop(buf);
    }

    fn inner(buf: &mut PooledBuf) -> &mut BytesMut {
        buf
    }

    fn retained(&self) -> usize {
        self.stats().total.retained_bytes as usize
    }

    fn trim(&self) {
        Pool::trim(self);
    }
}

/// A pool that is written in five minutes: it hands out any idle buffer, and grows it if it must.
#[derive(Default)]
struct Naive(Mutex<Vec<BytesMut>>);

impl BufferPool for Naive {
    type Buf = BytesMut;

    fn get(&self, bytes: usize) -> (BytesMut, bool) {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buf = idle.unwrap_or_default();
        let hit = buf.capacity() >= bytes;
        buf.reserve(bytes);
        (buf, hit)
    }

    fn put(&self, mut buf: BytesMut) {
        buf.clear();
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(buf);
    }

    fn inner(buf: &mut BytesMut) -> &mut BytesMut {
        buf
    }

    fn retained(&self) -> usize {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.iter().map(BytesMut::capacity).sum()
    }

    fn trim(&self) {} // a naive pool has no trims
}

// ---- one run: one scenario, one contender, one process

#[derive(Clone, Copy)]
struct Sample {
    request: usize,
    retained: usize,
    outstanding: usize,
    /// The most of both together since the last sample.
    peak: usize,
    /// `None` if the system does not give it.
    rss: Option<usize>,
    hits: usize,
}

struct Run {
    /// The last sample is taken when all buffers have come back.
    samples: Vec<Sample>,
    /// The most after any get or drop: idle and outstanding bytes together.
    footprint_max: usize,
    /// The same, of idle bytes, from the second trim on.
    settled_max: usize,
    /// In percent, without the first tenth of the requests.
    warm_hit_rate: f64,
}

/// Adds up what is held, after each get and each drop.
struct Watch<'a, P> {
    pool: &'a P,
    outstanding: usize,
    trims: usize,
    hits: usize,
    /// Since the last sample.
    peak: usize,
    footprint_max: usize,
    settled_max: usize,
}

impl<P: BufferPool> Watch<'_, P> {
    fn look(&mut self) {
        let retained = self.pool.retained();
        self.peak = self.peak.max(retained + self.outstanding);
        self.footprint_max = self.footprint_max.max(self.peak);
        if self.trims >= 2 {
            self.settled_max = self.settled_max.max(retained);
        }
    }

    fn sample(&mut self, request: usize) -> Sample {
        Sample {
            request,
            retained: self.pool.retained(),
            outstanding: self.outstanding,
            peak: mem::take(&mut self.peak),
            rss: resident_bytes(),
            hits: self.hits,
        }
    }
}

fn drive<P: BufferPool>(scenario: &Scenario, pool: &P) -> Run {
    let mut watch = Watch {
        pool,
        outstanding: 0,
        trims: 0,
        hits: 0,
        peak: 0,
        footprint_max: 0,
        settled_max: 0,
    };
    let mut samples = Vec::with_capacity(2 * SAMPLES);
    let mut in_flight: VecDeque<P::Buf> = VecDeque::with_capacity(scenario.in_flight + 1);
    let cold = scenario.requests / 10;
    let mut cold_hits = 0;
    for request in 0..scenario.requests {
        if request == cold {
            cold_hits = watch.hits;
        }
        let trims = |every: usize| request > 0 && request % every == 0;
        if scenario.trim_every.is_some_and(trims) {
            pool.trim();
            watch.trims += 1;
            watch.look();
        }
        let bytes = (scenario.bytes)(request);
        let (mut buf, hit) = pool.get(bytes);
        watch.hits += usize::from(hit);
        watch.outstanding += P::inner(&mut buf).capacity();
        watch.look();
        touch(P::inner(&mut buf), bytes.min(scenario.touched_max));
        in_flight.push_back(buf);
        if in_flight.len() > scenario.in_flight {
            end_oldest(&mut in_flight, &mut watch);
        }
        if request % (scenario.requests / SAMPLES) == 0 {
            samples.push(watch.sample(request));
        }
    }
    while !in_flight.is_empty() {
        end_oldest(&mut in_flight, &mut watch);
    }
    samples.push(watch.sample(scenario.requests));
    let warm_hits = (watch.hits - cold_hits) as f64;
    Run {
        samples,
        footprint_max: watch.footprint_max,
        settled_max: watch.settled_max,
        warm_hit_rate: 100.0 * warm_hits / (scenario.requests - cold) as f64,
    }
}

fn end_oldest<P: BufferPool>(in_flight: &mut VecDeque<P::Buf>, watch: &mut Watch<P>) {
    if let Some(mut buf) = in_flight.pop_front() {
        watch.outstanding -= P::inner(&mut buf).capacity();
        watch.pool.put(buf);
        watch.look();
    }
}

/// Writes to each page of the first `bytes`, as a request would, at a fraction of the time.
fn touch(buf: &mut BytesMut, bytes: usize) {
    for page in buf.spare_capacity_mut()[..bytes].chunks_mut(PAGE) {
        page[0] = MaybeUninit::new(1);
    }
}

// ---- parent and child

/// Runs one contender, and prints for the parent: a line of numbers per sample, and one for the rest.
fn run_child(scenario: &Scenario, contender: &Contender) -> Result<()> {
    let run = match contender.kind {
        Kind::Naive => drive(scenario, &Naive::default()),
        Kind::Pool(builder) => drive(scenario, &builder().trim_interval(None).build()?),
    };
    let mut text = String::new();
    for sample in run.samples {
        let rss = sample.rss.map_or("-".into(), |rss| rss.to_string());
        let (request, retained) = (sample.request, sample.retained);
        let (outstanding, peak, hits) = (sample.outstanding, sample.peak, sample.hits);
        writeln!(
            text,
            "{request} {retained} {outstanding} {peak} {rss} {hits}"
        )?;
    }
    let (footprint, settled, warm) = (run.footprint_max, run.settled_max, run.warm_hit_rate);
    writeln!(text, "{footprint} {settled} {warm}")?;
    print(&text)
}

fn spawn_child(scenario: usize, contender: usize) -> Result<Run> {
    let output = Command::new(env::current_exe()?)
        .args([CHILD, &scenario.to_string(), &contender.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    let name = SCENARIOS[scenario].contenders[contender].name;
    let failed = |why: &str| format!("({}) {name}: {why}", SCENARIOS[scenario].name);
    if !output.status.success() {
        return Err(failed(&output.status.to_string()).into());
    }
    parse(&String::from_utf8(output.stdout)?).map_err(|error| failed(&error.to_string()).into())
}

/// What [`run_child`] prints.
fn parse(text: &str) -> Result<Run> {
    let mut samples = Vec::new();
    for line in text.lines() {
        match *line.split(' ').collect::<Vec<_>>() {
            [request, retained, outstanding, peak, rss, hits] => samples.push(Sample {
                request: request.parse()?,
                retained: retained.parse()?,
                outstanding: outstanding.parse()?,
                peak: peak.parse()?,
                rss: rss.parse().ok(),
                hits: hits.parse()?,
            }),
            [footprint, settled, warm] => {
                return Ok(Run {
                    samples,
                    footprint_max: footprint.parse()?,
                    settled_max: settled.parse()?,
                    warm_hit_rate: warm.parse()?,
                });
            }
            _ => return Err(format!("an unknown line: {line}").into()),
        }
    }
    Err("it ended before its last line".into())
}

// ---- report

/// Ten samples of each contender, from the first to the last.
fn table(scenario: &Scenario, runs: &[Run]) -> String {
    const ROWS: usize = 9;
    let mut text = format!("({}) {}\n", scenario.name, scenario.title);
    let mut row = |name: &str, cells: [&str; 5]| {
        let _ = write!(text, "    {name:<22}");
        for (cell, width) in cells.into_iter().zip([10, 16, 18, 12, 13]) {
            let _ = write!(text, "{cell:>width$}");
        }
        text.push('\n');
    };
    row(
        "",
        [
            "requests",
            "retained, MiB",
            "outstanding, MiB",
            "RSS, MiB",
            "hit rate, %",
        ],
    );
    for (contender, run) in scenario.contenders.iter().zip(runs) {
        let last = run.samples.len() - 1;
        for at in 0..=ROWS {
            let sample = run.samples[at * last / ROWS];
            // The samples but the last are taken when a request has begun, the last when all ended.
            let gets = (sample.request + 1).min(scenario.requests);
            let rss = sample
                .rss
                .map_or("n/a".into(), |rss| format!("{:.1}", mib(rss)));
            let cells = [
                &gets.to_string(),
                &format!("{:.3}", mib(sample.retained)),
                &format!("{:.3}", mib(sample.outstanding)),
                &rss,
                &format!("{:.2}", 100.0 * sample.hits as f64 / gets as f64),
            ];
            row(contender.name, cells.map(String::as_str));
        }
    }
    text
}

/// A line for each contender, with the number that has the bound. Returns also whether the pools
/// keep to it.
fn verdict(scenario: &Scenario, runs: &[Run]) -> (String, bool) {
    let (mut text, mut all_hold) = (String::new(), true);
    for (contender, run) in scenario.contenders.iter().zip(runs) {
        let (fact, holds) = match scenario.bound {
            Bound::IdleAfterTrims(max) => (
                format!(
                    "at most {:.3} MiB idle from the second trim on (bound: below {:.0})",
                    mib(run.settled_max),
                    mib(max)
                ),
                run.settled_max < max,
            ),
            Bound::Footprint(max) => (
                format!(
                    "at most {:.3} MiB idle and outstanding at any time (bound: below {:.0})",
                    mib(run.footprint_max),
                    mib(max)
                ),
                run.footprint_max < max,
            ),
            Bound::HitRate(min) => (
                format!(
                    "{:.2} % hits after the first tenth (bound: {min:.0} or more)",
                    run.warm_hit_rate
                ),
                run.warm_hit_rate >= min,
            ),
        };
        let verdict = match (&contender.kind, holds) {
            (Kind::Naive, _) => "for comparison",
            (Kind::Pool(_), true) => "holds",
            (Kind::Pool(_), false) => {
                all_hold = false;
                "BROKEN"
            }
        };
        let _ = writeln!(
            text,
            "({}) {}: {fact}: {verdict}",
            scenario.name, contender.name
        );
    }
    (text, all_hold)
}

// ---- plots

/// One colour per contender.
const COLOURS: [RGBColor; 3] = [ORANGE, BLUE, GREEN];

/// What each contender holds, idle or outstanding, and its RSS, over the requests.
fn plot(scenario: &Scenario, runs: &[Run], path: &Path) -> Result<()> {
    const CHART_HEIGHT: i32 = 440;
    let legend_height = LEGEND_ROW as u32 * runs.len() as u32 + 10;
    let size = (WIDTH, CHART_HEIGHT as u32 + legend_height);
    let area = SVGBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE)?;
    let (chart_area, legend_area) = area.split_vertically(CHART_HEIGHT);

    // Not from RSS, so that each run has the same axis. RSS never needs twice as much: it is of the
    // same buffers.
    let peaks = runs.iter().map(|run| run.footprint_max);
    let top = 2.0 * mib(peaks.max().unwrap_or(MIB));
    let axis = (scenario.axis_min_mib..top).log_scale();
    let axis = axis.with_key_points(ticks(scenario.axis_min_mib, top));
    let mut chart = ChartBuilder::on(&chart_area)
        .caption(format!("({}) {}", scenario.name, scenario.title), CAPTION)
        .margin(12)
        .margin_right(30)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0..scenario.requests, axis)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(9)
        .x_desc("requests")
        .y_desc("MiB, logarithmic")
        .axis_desc_style(FONT)
        .y_label_formatter(&|mib| format!("{mib}"))
        .draw()?;

    let named = scenario.contenders.iter().zip(runs).zip(COLOURS);
    for (((contender, run), colour), row) in named.zip(0..) {
        let (solid, thin) = (colour.stroke_width(2), colour.stroke_width(1));
        let point = |request, bytes| (request, mib(bytes).max(scenario.axis_min_mib));
        let samples = || run.samples.iter();
        let held = samples().map(|sample| point(sample.request, sample.peak));
        chart.draw_series(LineSeries::new(held, solid))?;
        let rss = samples().filter_map(|sample| Some(point(sample.request, sample.rss?)));
        let rss: Vec<_> = rss.collect();
        chart.draw_series(DashedLineSeries::new(rss, 5, 4, thin))?;

        // Below the chart, where it hides no curve.
        let held = format!(
            "{}: idle and outstanding, most since the last point",
            contender.name
        );
        legend(&legend_area, (row, 70), solid, &held)?;
        let (line, at) = legend_places(row, 570);
        legend_area.draw(&DashedPathElement::new(line, 5, 4, thin))?;
        let rss = format!("{}: RSS of its process", contender.name);
        legend_area.draw(&Text::new(rss, at, FONT))?;
    }
    area.present()?;
    Ok(())
}

/// Powers of ten. If there are few, 2 and 5 times each as well.
fn ticks(least: f64, most: f64) -> Vec<f64> {
    let steps: &[f64] = if most / least > 1000.0 {
        &[1.0]
    } else {
        &[1.0, 2.0, 5.0]
    };
    let powers = (-6..=9).map(|exponent| 10_f64.powi(exponent));
    let all = powers.flat_map(|power| steps.iter().map(move |step| step * power));
    all.filter(|tick| (least..=most).contains(tick)).collect()
}

// ---- command line

const CHILD: &str = "--child";

const HELP: &str = "\
Runs four scenarios of requests against the pool and a naive one. Prints the memory that they
hold over time, and writes a plot for each scenario. Exits with 1 if the pool breaks a bound.

Usage: oversize_leak [DIR]

  DIR     where to write the plots (default: target/oversize_leak)
  --help  this text
";

enum Task {
    Help,
    Child(usize, usize),
    Report(PathBuf),
}

impl Task {
    fn parse(args: &mut dyn Iterator<Item = OsString>) -> Result<Self> {
        let Some(first) = args.next() else {
            return Ok(Task::Report(PathBuf::from("target/oversize_leak")));
        };
        let rest: Vec<OsString> = args.collect();
        match (first.to_str(), &rest[..]) {
            (Some("--help" | "-h"), []) => Ok(Task::Help),
            (Some(CHILD), [scenario, contender]) => {
                let index = |arg: &OsString| arg.to_str().and_then(|arg| arg.parse().ok());
                match (index(scenario), index(contender)) {
                    (Some(scenario), Some(contender)) => Ok(Task::Child(scenario, contender)),
                    _ => Err("--child is for this program's own use".into()),
                }
            }
            (Some(option), _) if option.starts_with('-') => {
                Err(format!("no such option: {option}").into())
            }
            (_, []) => Ok(Task::Report(PathBuf::from(first))),
            _ => Err("more than one directory".into()),
        }
    }
}

fn main() -> ExitCode {
    tierpool_lab::run(
        "oversize_leak",
        |args| Task::parse(args),
        |task| perform(&task),
    )
}

fn perform(task: &Task) -> Result<()> {
    match task {
        Task::Help => print(HELP),
        Task::Child(scenario, contender) => {
            let scenario = SCENARIOS.get(*scenario).ok_or("no such scenario")?;
            let contender = scenario.contenders.get(*contender);
            run_child(scenario, contender.ok_or("no such contender")?)
        }
        Task::Report(dir) => report(dir),
    }
}

fn report(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let (mut verdicts, mut all_hold) = (String::new(), true);
    for (index, scenario) in SCENARIOS.iter().enumerate() {
        let contenders = 0..scenario.contenders.len();
        let runs: Vec<Run> = contenders
            .map(|contender| spawn_child(index, contender))
            .collect::<Result<_>>()?;
        print(&format!("{}\n", table(scenario, &runs)))?;
        plot(
            scenario,
            &runs,
            &dir.join(format!("oversize_{}.svg", scenario.name)),
        )?;
        let (text, holds) = verdict(scenario, &runs);
        verdicts += &text;
        all_hold &= holds;
    }
    print(&format!(
        "The last line of each contender is from the end, when all buffers have come back.\n\
         Hits: requests served by an idle buffer that did not have to grow.\n\n\
         {verdicts}\nplots: {}\n",
        dir.display()
    ))?;
    match all_hold {
        true => Ok(()),
        false => Err("the pool broke a bound".into()),
    }
}
