//! What a pool has learned of sizes, and what it knows since.
//!
//! Owns the targets and which classes are retired. Does not predict at which return
//! a pool calibrates, but how early and how late that may be.

use super::pool::least_growth;
use std::collections::BTreeSet;
use std::mem;
use std::time::Instant;
use tierpool::{Histogram, Targets};

/// How many returns of one class and one sort of lengths one cache may have taken that
/// the pool has not looked at.
const BATCH: u64 = 255;

/// Steps of lengths: up to 64 bytes, up to 128, and so on; the last has no end.
const STEPS: usize = 20;

/// What a pool gives to the next.
#[derive(Clone, Debug)]
pub(super) struct Saved {
    pub(super) targets: Option<Targets>,
    pub(super) calls: u64,
    /// Capacities above `max_size` that are kept all the same.
    kept: Vec<usize>,
}

pub(super) struct Learned {
    /// The capacities of the pool's classes.
    capacities: &'static [usize],
    percentile: f64,
    /// How many returns of one step are not enough.
    pub(super) threshold: u64,
    pub(super) targets: Option<Targets>,
    pub(super) calls: u64,
    /// When the pool made these; seen, not predicted.
    pub(super) at: Option<Instant>,
    /// The lengths that came back since.
    pub(super) lengths: Histogram,
    /// Buffers that the drop rule discarded since the pool last looked for that or chose
    /// targets, and the lengths that came back since.
    discards: u64,
    since_look: Histogram,
    /// How many of the lengths were of each step: to add them up at each return takes too long.
    steps: [u64; STEPS],
    /// To which caches, of which classes and sorts, ever: each of them is counted apart.
    sorts: BTreeSet<(usize, usize, u32)>,
    /// How often each class was asked for since.
    pub(super) requests: Vec<usize>,
    /// Whether what returns to a class is freed.
    retired: Vec<bool>,
    /// How often it was asked for, as far as the pool took note, while it was.
    noted: Vec<usize>,
}

impl Learned {
    pub(super) fn new(
        capacities: &'static [usize],
        percentile: f64,
        threshold: u64,
        saved: Option<&Saved>,
    ) -> Self {
        let mut learned = Learned {
            capacities,
            percentile,
            threshold,
            targets: saved.and_then(|saved| saved.targets),
            calls: saved.map_or(0, |saved| saved.calls),
            at: None,
            lengths: Histogram::new(),
            discards: 0,
            since_look: Histogram::new(),
            steps: [0; STEPS],
            sorts: BTreeSet::new(),
            requests: vec![0; capacities.len()],
            retired: vec![false; capacities.len()],
            noted: vec![0; capacities.len()],
        };
        if let (Some(saved), Some(_)) = (saved, learned.targets) {
            for at in 0..capacities.len() {
                let of_this = |&size: &usize| class_for_request(capacities, size) == at;
                learned.retired[at] = learned.is_above(at) && !saved.kept.iter().any(of_this);
            }
        }
        learned
    }

    pub(super) fn saved(&self) -> Saved {
        let classes = 0..self.capacities.len();
        let kept = classes.filter(|&at| self.is_above(at) && !self.retired[at]);
        Saved {
            targets: self.targets,
            calls: self.calls,
            kept: kept.map(|at| self.capacities[at]).collect(),
        }
    }

    /// Whether a class is above `max_size`.
    fn is_above(&self, class: usize) -> bool {
        self.targets
            .is_some_and(|targets| class > class_for_request(self.capacities, targets.max_size))
    }

    pub(super) fn default_size(&self) -> usize {
        let largest = self.capacities[self.capacities.len() - 1];
        self.targets
            .map_or(largest.min(4096), |targets| targets.default_size)
    }

    /// Notes that so many of a class were asked for. The second request brings a
    /// retired one back.
    pub(super) fn request(&mut self, class: usize, count: usize) {
        self.noted[class] += count;
        self.retired[class] &= self.noted[class] < 2;
    }

    pub(super) fn is_retired(&self, class: usize) -> bool {
        self.retired.get(class).copied().unwrap_or(false)
    }

    /// What a guard takes that appends to a full buffer of this capacity.
    pub(super) fn larger_than(&self, capacity: usize) -> usize {
        let target = match self.targets {
            None => capacity * 8,
            Some(targets) if capacity < targets.max_size => {
                if capacity < targets.default_size {
                    targets.default_size
                } else {
                    targets.max_size.min(capacity * 8)
                }
            }
            Some(_) => capacity * 16,
        };
        target.max(least_growth(capacity))
    }

    /// A return of contents of this length, by a thread that has this cache set, or none.
    pub(super) fn count(&mut self, set: Option<usize>, class: usize, len: usize) {
        self.lengths.record(len);
        self.since_look.record(len);
        let step = (0..STEPS - 1).find(|&step| len <= 64 << step);
        self.steps[step.unwrap_or(STEPS - 1)] += 1;
        if let Some(set) = set {
            // By the power of two; none at all is a sort of its own.
            let sort = if len == 0 {
                0
            } else {
                len.next_power_of_two().max(64).ilog2()
            };
            self.sorts.insert((set, class, sort));
        }
    }

    /// The most calls that one step has had.
    pub(super) fn most_calls(&self) -> u64 {
        self.steps.into_iter().max().unwrap_or(0)
    }

    /// The most calls that one step may have had without a calibration.
    pub(super) fn late(&self) -> u64 {
        self.threshold
            .saturating_add(BATCH * self.sorts.len() as u64)
    }

    /// Notes that the drop rule has discarded a buffer of a class. Returns the lengths from
    /// which the pool chooses targets then, if it does.
    pub(super) fn discard(&mut self) -> Option<Histogram> {
        self.discards += 1;
        if self.discards < 256 {
            return None;
        }
        let risen = mem::take(&mut self.since_look);
        let left_out = 2.0 * (1.0 - self.percentile) * risen.calls() as f64;
        let many = mem::take(&mut self.discards) as f64 > left_out;
        many.then_some(risen)
    }

    /// Chooses targets from all lengths since the last time. Returns the classes that are
    /// retired then.
    pub(super) fn calibrate(&mut self) -> Vec<usize> {
        let lengths = self.lengths.clone();
        self.calibrate_from(&lengths)
    }

    pub(super) fn calibrate_from(&mut self, lengths: &Histogram) -> Vec<usize> {
        if lengths.is_empty() {
            return Vec::new();
        }
        self.targets = targets_after(self.targets, lengths, self.percentile);
        self.calls = lengths.calls();
        self.lengths = Histogram::new();
        self.since_look = Histogram::new();
        self.discards = 0;
        self.steps = [0; STEPS];
        let classes = 0..self.capacities.len();
        for at in classes.clone() {
            self.retired[at] = self.is_above(at) && self.requests[at] < 2;
        }
        self.requests.fill(0);
        self.noted.fill(0);
        classes.filter(|&at| self.retired[at]).collect()
    }
}

/// The smallest class that holds a request; above the largest, the index after it.
pub(super) fn class_for_request(capacities: &[usize], request: usize) -> usize {
    capacities.partition_point(|&capacity| capacity < request)
}

/// The targets that must come of these lengths, where those before were `current`.
pub fn targets_after(
    current: Option<Targets>,
    lengths: &Histogram,
    percentile: f64,
) -> Option<Targets> {
    let (Some(new), Some(current)) = (lengths.targets(percentile), current) else {
        return lengths.targets(percentile).or(current);
    };
    let calls = |size: usize| {
        let step = (0..STEPS).find(|&step| 64 << step == size).expect("a step");
        lengths.steps()[step]
    };
    let (now, before) = (calls(new.default_size), calls(current.default_size));
    let by_chance = 4.0 * ((now + before) as f64).sqrt();
    let clear = 4 * now > 5 * before && now as f64 - before as f64 > by_chance;
    let default_size = match clear || before == 0 {
        true => new.default_size,
        false => current.default_size,
    };
    let out = (1.0 - percentile) / 2.0;
    let by_chance = 4.0 * (out / lengths.calls() as f64).sqrt();
    let stricter = 1.0 - (out - by_chance).max(0.0);
    let agreed = lengths.targets(stricter).expect("it has calls").max_size;
    let max_size = match new.max_size < current.max_size {
        true => current.max_size.min(agreed),
        false => new.max_size,
    };
    Some(Targets {
        default_size,
        max_size: max_size.max(default_size),
    })
}
