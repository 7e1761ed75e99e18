//! The time of a trim, and of the longest get of a busy thread meanwhile.
//!
//! ```sh
//! cargo bench --bench trim
//! ```
//!
//! 64 threads have 1600 idle buffers each in their caches, 102,400 in all, and sleep. One more
//! thread gets and drops without a pause, and notes the longest pair: while the pool is trimmed,
//! and for the same time without a trim. On a shared machine, the longest of many pairs is long for
//! other reasons, too. Prints medians and ranges of the rounds.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};
use tierpool::Pool;

const THREADS: usize = 64;
/// 25 size classes. A thread's cache holds 64 buffers of each.
const CLASSES: std::ops::Range<usize> = 0..25;
const CACHED: usize = 64;

fn capacity(class: usize) -> usize {
    512 + 8 * class
}

/// The phase under which the busy thread notes its longest pair.
const QUIET: usize = 0;
const TRIMMED: usize = 1;

struct Busy {
    phase: AtomicUsize,
    /// The longest pair in each phase, in nanoseconds.
    longest: [AtomicUsize; 2],
    pairs: [AtomicUsize; 2],
    stop: AtomicBool,
}

impl Busy {
    /// Gets and drops until it is stopped.
    fn run(&self, pool: &Pool) {
        while !self.stop.load(Ordering::Relaxed) {
            let phase = self.phase.load(Ordering::Relaxed);
            let start = Instant::now();
            drop(black_box(pool.get(capacity(0))));
            let took = start.elapsed().as_nanos() as usize;
            self.longest[phase].fetch_max(took, Ordering::Relaxed);
            self.pairs[phase].fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[derive(Default)]
struct Round {
    fill: usize,
    /// The trim that frees everything. The next one finds nothing.
    trim: Duration,
    trim_of_nothing: Duration,
    longest: [Duration; 2],
    pairs: [usize; 2],
}

fn round() -> Round {
    let pool = Pool::builder()
        .classes(CLASSES.map(capacity))
        .retain_bytes(1 << 30)
        .trim_interval(None)
        .build()
        .expect("valid");
    let filled = Arc::new(Barrier::new(THREADS + 1));
    let done = Arc::new(Barrier::new(THREADS + 1));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (pool, filled, done) = (pool.clone(), Arc::clone(&filled), Arc::clone(&done));
            thread::spawn(move || {
                for class in CLASSES {
                    let held: Vec<_> = (0..CACHED).map(|_| pool.get(capacity(class))).collect();
                    drop(held);
                }
                filled.wait();
                done.wait();
            })
        })
        .collect();
    filled.wait();
    let mut round = Round {
        fill: pool.stats().total.retained_buffers as usize,
        ..Round::default()
    };
    pool.trim(); // begins the interval in which no buffer is used

    let busy = Arc::new(Busy {
        phase: AtomicUsize::new(QUIET),
        longest: Default::default(),
        pairs: Default::default(),
        stop: AtomicBool::new(false),
    });
    let busy_thread = {
        let (pool, busy) = (pool.clone(), Arc::clone(&busy));
        thread::spawn(move || busy.run(&pool))
    };
    while busy.pairs[QUIET].load(Ordering::Relaxed) < 1000 {
        thread::yield_now();
    }
    busy.longest[QUIET].store(0, Ordering::Relaxed);
    busy.pairs[QUIET].store(0, Ordering::Relaxed);

    busy.phase.store(TRIMMED, Ordering::Relaxed);
    let start = Instant::now();
    let freed = pool.trim();
    round.trim = start.elapsed();
    busy.phase.store(QUIET, Ordering::Relaxed);
    assert!(
        freed.buffers + 2 >= round.fill,
        "all except the busy thread's buffers"
    );
    // The same time without a trim. This thread is busy, too.
    let start = Instant::now();
    while start.elapsed() < round.trim {
        black_box(start);
    }
    busy.stop.store(true, Ordering::Relaxed);
    busy_thread.join().expect("it does not panic");

    let start = Instant::now();
    pool.trim();
    round.trim_of_nothing = start.elapsed();
    done.wait();
    for thread in threads {
        thread.join().expect("it does not panic");
    }
    for phase in [QUIET, TRIMMED] {
        let longest = busy.longest[phase].load(Ordering::Relaxed);
        round.longest[phase] = Duration::from_nanos(longest as u64);
        round.pairs[phase] = busy.pairs[phase].load(Ordering::Relaxed);
    }
    round
}

fn main() {
    // `cargo test --benches` runs one round, to check that it works.
    let rounds = if std::env::args().any(|arg| arg == "--bench") {
        11
    } else {
        1
    };
    let rounds: Vec<Round> = (0..rounds).map(|_| round()).collect();
    let show = |what: &str, of: &dyn Fn(&Round) -> f64, unit: &str| {
        let mut all: Vec<f64> = rounds.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        let (least, median, most) = (all[0], all[all.len() / 2], all[all.len() - 1]);
        println!("{what:<52} {median:>9.1} {unit:<3} ({least:.1} to {most:.1})");
    };
    let micros = |time: Duration| time.as_nanos() as f64 / 1e3;
    println!(
        "{} idle buffers in the caches of {THREADS} threads; {} rounds",
        rounds[0].fill,
        rounds.len()
    );
    show("trim that frees all of them", &|r| micros(r.trim), "us");
    show(
        "  per buffer",
        &|r| micros(r.trim) * 1e3 / r.fill as f64,
        "ns",
    );
    show(
        "trim that finds nothing",
        &|r| micros(r.trim_of_nothing),
        "us",
    );
    show(
        "pairs of the busy thread meanwhile",
        &|r| r.pairs[TRIMMED] as f64,
        "",
    );
    show(
        "  the longest of them",
        &|r| micros(r.longest[TRIMMED]),
        "us",
    );
    show(
        "pairs in as long a time without a trim",
        &|r| r.pairs[QUIET] as f64,
        "",
    );
    show("  the longest of them", &|r| micros(r.longest[QUIET]), "us");
}
