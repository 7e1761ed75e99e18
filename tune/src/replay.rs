//! Replays sizes against real pools.
//!
//! Owns the candidates and the measurements of each. Chooses none.

use std::time::Duration;
use tierpool::{ConfigError, Counts, Histogram, Pool, PooledBuf, SizeClasses, Targets};

/// Requests above this are oversize in every configuration, and are not allocated.
///
/// 32 MiB: the calibrator's last step. The default budget would hold one or two buffers of a larger
/// class, and the trace may name sizes that no machine has.
pub const CLASS_MAX: usize = 32 << 20;

/// The calibrator's default.
const PERCENTILE: f64 = 0.95;

/// About how many times a replay samples the pool. A sample takes some microseconds.
const SAMPLES: u64 = 4000;

/// How often each size occurs.
pub struct Requests {
    pub all: Histogram,
    /// Requests up to [`CLASS_MAX`].
    pub classed: Histogram,
    /// The sum of all requests, in bytes.
    pub bytes: u128,
    pub least: usize,
    pub most: usize,
}

impl Requests {
    pub fn of(sizes: &[usize]) -> Self {
        let mut classed = Histogram::new();
        let mut above = Histogram::new();
        let (mut bytes, mut least, mut most) = (0, usize::MAX, 0);
        for &size in sizes {
            bytes += size as u128;
            least = least.min(size);
            most = most.max(size);
            if size <= CLASS_MAX {
                classed.record(size);
            } else {
                above.record(size);
            }
        }
        above.merge(&classed);
        Requests {
            all: above,
            classed,
            bytes,
            least,
            most,
        }
    }
}

/// A configuration to compare.
pub struct Candidate {
    pub name: String,
    pub options: Options,
    /// Ascending, in bytes.
    pub classes: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Options {
    Defaults,
    /// Doubling classes up to the calibrator's maximum.
    Calibrated(Targets),
    /// Classes fitted to the trace.
    Fitted,
}

impl Candidate {
    fn new(name: String, options: Options, mut classes: Vec<usize>) -> Self {
        if let Ok(pool) = builder(options, &classes).build() {
            classes = pool.classes().to_vec();
        }
        Candidate {
            name,
            options,
            classes,
        }
    }

    /// A pool with this configuration, without trims by time and without learning.
    pub fn pool(&self) -> Result<Pool, ConfigError> {
        builder(self.options, &self.classes)
            .trim_interval(None::<Duration>)
            .learn_sizes(false)
            .build()
    }
}

fn builder(options: Options, classes: &[usize]) -> tierpool::Builder {
    let builder = Pool::builder();
    match options {
        Options::Defaults => builder,
        Options::Calibrated(targets) => builder.max_size(targets.max_size),
        Options::Fitted => builder.classes(classes.iter().copied()),
    }
}

/// The candidates, each with different classes, and notes on those that were left out.
pub fn candidates(requests: &Requests, fitted: &[usize]) -> (Vec<Candidate>, Vec<String>) {
    let mut candidates = vec![Candidate::new(
        String::from("defaults"),
        Options::Defaults,
        Vec::new(),
    )];
    let mut notes = Vec::new();
    let large = requests.all.calls() - requests.classed.calls();
    if large > 0 {
        notes.push(format!(
            "sizes above 32 MiB: {large}; oversize in every configuration, and not allocated"
        ));
    }
    let mut add = |candidate: Candidate, notes: &mut Vec<String>| {
        let same = candidates.iter().find(|c| c.classes == candidate.classes);
        match same {
            Some(same) => notes.push(format!(
                "{}: has the same classes as {}",
                candidate.name, same.name
            )),
            None => candidates.push(candidate),
        }
    };
    if let Some(targets) = requests.all.targets(PERCENTILE) {
        let name = String::from("to max_size");
        add(
            Candidate::new(name, Options::Calibrated(targets), Vec::new()),
            &mut notes,
        );
    }
    if requests.classed.is_empty() {
        notes.push(String::from("no size is left to fit classes to"));
        return (candidates, notes);
    }
    for &count in fitted {
        let name = format!("fitted, {count}");
        match SizeClasses::fit(&requests.classed, count) {
            Ok(classes) => {
                let classes = classes.capacities().to_vec();
                add(Candidate::new(name, Options::Fitted, classes), &mut notes);
            }
            // There is no error for 1 to 128 classes and at least one size.
            Err(error) => notes.push(format!("{name}: {error}")),
        }
    }
    (candidates, notes)
}

/// The result of one replay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub gets: u64,
    pub hits: u64,
    pub misses: u64,
    pub oversize: u64,
    /// Buffers that came back and were freed, since the pool held as much as it may.
    pub refused: u64,
    /// Bytes requested.
    pub requested: u128,
    /// Capacity less request, over all gets, in bytes.
    pub waste: u128,
    /// The most idle bytes at a sample or at the end.
    pub retained: u64,
    /// The most idle and outstanding bytes together, at a sample or at the end.
    pub memory: u64,
}

impl Outcome {
    fn sample(&mut self, total: &Counts, held: u64) {
        self.retained = self.retained.max(total.retained_bytes);
        self.memory = self.memory.max(total.retained_bytes + held);
    }

    pub fn hit_rate(&self) -> f64 {
        self.hits as f64 / self.gets as f64
    }

    /// Waste divided by the bytes requested; `None` if no byte was requested.
    pub fn waste_rate(&self) -> Option<f64> {
        (self.requested > 0).then(|| self.waste as f64 / self.requested as f64)
    }
}

/// Takes `gets` buffers of these sizes, starting again after the last size, and holds `outstanding`
/// of them. At each sample, calls `done` with the number of gets so far.
pub fn replay(
    pool: &Pool,
    sizes: &[usize],
    gets: u64,
    outstanding: usize,
    done: impl Fn(u64),
) -> Outcome {
    let mut outcome = Outcome {
        gets,
        ..Outcome::default()
    };
    let mut not_allocated = 0;
    let mut held = 0;
    let mut window: Vec<Option<PooledBuf>> = (0..outstanding).map(|_| None).collect();
    let mut oldest = 0;
    let mut sizes = sizes.iter().copied().cycle();
    let sample = gets.div_ceil(SAMPLES);
    let mut left = gets;
    while left > 0 {
        let count = sample.min(left);
        for size in sizes.by_ref().take(count as usize) {
            outcome.requested += size as u128;
            if let Some(buf) = window[oldest].take() {
                held -= buf.capacity() as u64;
                drop(buf); // goes home before the next get
            }
            if size <= CLASS_MAX {
                let buf = pool.get(size);
                outcome.waste += (buf.capacity() - size) as u128;
                held += buf.capacity() as u64;
                window[oldest] = Some(buf);
            } else {
                not_allocated += 1;
            }
            oldest = if oldest + 1 == outstanding {
                0
            } else {
                oldest + 1
            };
        }
        left -= count;
        outcome.sample(&pool.stats().total, held);
        done(count);
    }
    drop(window);
    let total = pool.stats().total;
    outcome.sample(&total, 0);
    outcome.hits = total.hits();
    outcome.misses = total.misses;
    outcome.refused = total.discards.full;
    outcome.oversize = total.oversize + not_allocated;
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignore(_: u64) {}

    fn replay_defaults(sizes: &[usize], gets: u64, outstanding: usize) -> Outcome {
        let candidate = Candidate::new(String::new(), Options::Defaults, Vec::new());
        replay(&candidate.pool().unwrap(), sizes, gets, outstanding, ignore)
    }

    #[test]
    fn buffers_are_held_first_in_first_out() {
        // With two held, the third get finds the first buffer, and so on.
        let two = replay_defaults(&[600, 600, 600, 600], 4, 2);
        assert_eq!((two.hits, two.misses), (2, 2));
        // 5000 is taken while a 600 is held, so the next 600 reuses the buffer of that 600.
        let mixed = replay_defaults(&[600, 5000, 600, 5000, 600, 5000], 6, 2);
        assert_eq!((mixed.hits, mixed.misses), (4, 2));
        assert_eq!(mixed.waste, 3 * (1024 - 600) + 3 * (8192 - 5000));
        // The window is never full, so no buffer comes back.
        let all = replay_defaults(&[600; 7], 7, 8);
        assert_eq!((all.hits, all.misses), (0, 7));
    }

    #[test]
    fn memory_is_the_sum_of_idle_and_outstanding_bytes() {
        // After three gets: 1 KiB idle, and 1 KiB and 8 KiB outstanding. At the end all are idle.
        let outcome = replay_defaults(&[600, 600, 5000], 3, 2);
        assert_eq!((outcome.retained, outcome.memory), (10_240, 10_240));
        // An oversize buffer is never idle.
        let outcome = replay_defaults(&[2 << 20, 600, 600], 3, 1);
        assert_eq!((outcome.retained, outcome.memory), (1024, 2 << 20));
        assert_eq!((outcome.oversize, outcome.misses, outcome.hits), (1, 1, 1));
    }

    #[test]
    fn a_short_trace_begins_again() {
        let done = std::cell::Cell::new(0);
        let candidate = Candidate::new(String::new(), Options::Defaults, Vec::new());
        let pool = candidate.pool().unwrap();
        let count = |gets| done.set(done.get() + gets);
        let outcome = replay(&pool, &[100, 200], 9001, 1, count);
        assert_eq!((outcome.hits, outcome.misses, done.get()), (9000, 1, 9001));
        assert_eq!(outcome.requested, 4500 * 300 + 100);
    }

    #[test]
    fn sizes_that_no_machine_has_are_counted_and_not_allocated() {
        let huge = isize::MAX as usize;
        let outcome = replay_defaults(&[huge, CLASS_MAX + 1, huge], 3, 4);
        assert_eq!((outcome.oversize, outcome.gets, outcome.memory), (3, 3, 0));
        assert_eq!(outcome.requested, 2 * huge as u128 + (32 << 20) + 1);
        let (candidates, notes) = candidates(&Requests::of(&[huge]), &[4]);
        assert_eq!(candidates.len(), 2); // defaults and calibrated
        assert!(notes[1].contains("no size is left to fit"), "{notes:?}");
    }

    #[test]
    fn a_full_budget_is_noticed() {
        let sizes = [1 << 20; 1];
        let within = replay_defaults(&sizes, 1000, 64);
        assert_eq!((within.refused, within.misses), (0, 64));
        // 80 MiB come home, and the pool keeps 64.
        let above = replay_defaults(&sizes, 80, 80);
        assert_eq!((above.refused, above.retained), (16, 64 << 20));
    }

    #[test]
    fn the_measured_waste_is_the_waste_of_the_fit() {
        let sizes: Vec<usize> = (0..5000).map(|n| n * n % 70_001).collect();
        let requests = Requests::of(&sizes);
        let (candidates, notes) = candidates(&requests, &[1, 4, 16]);
        assert_eq!(notes, [""; 0]);
        assert_eq!(candidates.len(), 5);
        for candidate in &candidates[2..] {
            let pool = candidate.pool().unwrap();
            let outcome = replay(&pool, &sizes, 5000, 64, ignore);
            let fitted = SizeClasses::fit(&requests.classed, candidate.classes.len()).unwrap();
            assert_eq!(outcome.waste, requests.classed.wasted_bytes(&fitted));
            assert_eq!(outcome.requested, requests.bytes);
            assert_eq!(outcome.gets, outcome.hits + outcome.misses);
        }
    }

    #[test]
    fn candidates_with_the_same_classes_are_one() {
        let (candidates, notes) = candidates(&Requests::of(&[1 << 20; 3]), &[4, 8]);
        let names: Vec<&str> = candidates.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["defaults", "fitted, 4"]);
        assert_eq!(
            notes,
            [
                "to max_size: has the same classes as defaults",
                "fitted, 8: has the same classes as fitted, 4"
            ]
        );
    }
}
