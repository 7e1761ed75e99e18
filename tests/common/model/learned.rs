//! What a pool has learned of sizes, and what it knows since.
//!
//! Owns the targets, which classes are retired, and which returns the pool has recorded. While
//! the pool records each return, it predicts each calibration and what it decides. Once a cache
//! has had so many returns that the pool may look at a part of them, at random, what the pool
//! decides is [adopted](Learned::adopt), if it can have come of what came back.

use super::pool::least_growth;
use std::mem;
use tierpool::{Histogram, Pool, Targets};

/// Steps of lengths: up to 64 bytes, up to 128, and so on; the last has no end.
const STEPS: usize = 20;

/// So many returns to one cache are recorded each, in one interval.
const EACH_RECORDED: u64 = 64;

/// How many returns a thread keeps to itself at most.
const TOLD_MOST: u64 = 4096;

/// How many returns to one cache a sample may stand for at most.
const STANDS_FOR_MOST: u64 = 95;

/// The sizes that a pool aims at. As [`Targets`], which only a pool can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aim {
    pub(super) default_size: usize,
    pub(super) max_size: usize,
}

impl From<Targets> for Aim {
    fn from(targets: Targets) -> Self {
        Aim {
            default_size: targets.default_size,
            max_size: targets.max_size,
        }
    }
}

/// What a pool gives to the next.
#[derive(Clone, Debug)]
pub(super) struct Saved {
    pub(super) targets: Option<Aim>,
    calls: u64,
    /// Capacities above `max_size` that are kept all the same.
    kept: Vec<usize>,
}

/// What a pool shows of what it has learned.
#[derive(Debug, PartialEq)]
pub(super) struct Seen {
    targets: Aim,
    saved: Option<Aim>,
    calls: u64,
    calibrations: u64,
    /// Capacities above `max_size` that are kept.
    kept: Vec<usize>,
}

impl Seen {
    pub(super) fn of(pool: &Pool) -> Self {
        let profile = pool.profile();
        // No method shows these.
        let text = format!("{profile:?}");
        let (_, list) = text.split_once("kept: [").expect("a list");
        let (list, _) = list.split_once(']').expect("a list that ends");
        let sizes = list.split(", ").filter(|size| !size.is_empty());
        Seen {
            targets: pool.targets().into(),
            saved: profile.targets().map(Aim::from),
            calls: profile.calls(),
            calibrations: pool.stats().calibrations,
            kept: sizes.map(|size| size.parse().expect("a size")).collect(),
        }
    }
}

/// What one cache set has recorded and not told, and when it looks and tells next.
#[derive(Clone, Default)]
struct Notes {
    untold: [u64; STEPS],
    until_told: u64,
    until_look: u64,
    /// One per class.
    sampling: Vec<Sampling>,
}

/// Which returns to one cache are looked at.
#[derive(Clone, Default)]
struct Sampling {
    /// Returns in the interval of the last of them.
    lately: u64,
    interval: u64,
    /// Whether only some may be looked at.
    is_loose: bool,
}

/// What the model does not know, since returns to loose caches may have been looked at or not.
struct Unsure {
    /// Returns of this interval of which samples may stand for others.
    steps: [u64; STEPS],
    /// Returns of those before for which a sample of this one may stand.
    carried: u64,
    /// Whether returns of a class may have counted as requests, or as more than one.
    requests: Vec<bool>,
    /// The same while it was retired.
    noted: Vec<bool>,
}

/// What comes of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) calibrates: bool,
    /// Looks whether a trim is due.
    pub(super) looks: bool,
}

pub(super) struct Learned {
    /// The capacities of the pool's classes.
    capacities: &'static [usize],
    percentile: f64,
    /// How many returns of one step are not enough.
    threshold: u64,
    pub(super) targets: Option<Aim>,
    calls: u64,
    calibrations: u64,
    /// The lengths that were recorded since, each at least once.
    lengths: Histogram,
    /// Buffers that the drop rule discarded since the pool last looked for that or chose
    /// targets, and the lengths that were recorded since.
    discards: u64,
    since_look: Histogram,
    /// Of each step, those that all sets have told since. Less than none while others, which
    /// were seen before, are not told.
    told: [i64; STEPS],
    /// One per cache set.
    sets: Vec<Notes>,
    unsure: Option<Unsure>,
    /// Requests of each class since, as far as they have come back.
    requests: Vec<u64>,
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
            calibrations: 0,
            lengths: Histogram::new(),
            discards: 0,
            since_look: Histogram::new(),
            told: [0; STEPS],
            sets: Vec::new(),
            unsure: None,
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

    fn kept(&self) -> Vec<usize> {
        let classes = 0..self.capacities.len();
        let kept = classes.filter(|&at| self.is_above(at) && !self.retired[at]);
        kept.map(|at| self.capacities[at]).collect()
    }

    pub(super) fn saved(&self) -> Saved {
        Saved {
            targets: self.targets,
            calls: self.calls,
            kept: self.kept(),
        }
    }

    /// What the pool must show.
    fn expected(&self) -> Seen {
        Seen {
            targets: self.targets.unwrap_or(Aim {
                default_size: self.default_size(),
                max_size: self.capacities[self.capacities.len() - 1],
            }),
            saved: self.targets,
            calls: self.calls,
            calibrations: self.calibrations,
            kept: self.kept(),
        }
    }

    pub(super) fn check(&self, pool: &Pool) {
        assert_eq!(Seen::of(pool), self.expected());
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

    /// Notes that so many of a class were asked for while it was retired. The second request
    /// brings it back.
    pub(super) fn note_requests(&mut self, class: usize, count: usize) {
        if self.is_retired(class) {
            self.noted[class] += count;
            if self.noted[class] >= 2 {
                self.retired[class] = false;
                self.noted[class] = 0;
            }
        }
    }

    /// Notes that so many were made ahead of time.
    pub(super) fn prefilled(&mut self, class: usize, made: usize, asked: usize) {
        self.requests[class] += made as u64;
        self.note_requests(class, asked);
    }

    pub(super) fn is_retired(&self, class: usize) -> bool {
        self.retired.get(class).copied().unwrap_or(false)
    }

    fn retired(&self) -> Vec<usize> {
        let classes = 0..self.capacities.len();
        classes.filter(|&at| self.retired[at]).collect()
    }

    /// What a guard takes that appends to a full buffer of this capacity.
    pub(super) fn larger_than(&self, capacity: usize) -> usize {
        let target = match self.targets {
            Some(targets) if capacity < targets.max_size => targets.max_size.min(capacity * 8),
            Some(_) => capacity * 32,
            None => capacity * 8,
        };
        target.max(least_growth(capacity))
    }

    // ---- what is recorded ----

    fn notes(&mut self, set: usize) -> &mut Notes {
        if self.sets.len() <= set {
            let sampling = vec![Sampling::default(); self.capacities.len()];
            let notes = Notes {
                sampling,
                ..Notes::default()
            };
            self.sets.resize(set + 1, notes);
        }
        &mut self.sets[set]
    }

    /// Whether the model knows which returns were recorded.
    pub(super) fn is_sure(&self) -> bool {
        self.unsure.is_none()
    }

    /// Whether the model knows that of the next return, too.
    pub(super) fn stays_sure(&self) -> bool {
        self.is_sure() && self.loose_caches() == 0
    }

    /// Whether a return to a cache, as it left, is surely looked at. If not, the model is
    /// unsure from now on.
    pub(super) fn is_looked_at(&mut self, set: usize, class: usize) -> bool {
        let interval = self.calibrations;
        let sampling = &mut self.notes(set).sampling[class];
        if sampling.is_loose {
            let classes = self.capacities.len();
            self.unsure.get_or_insert_with(|| Unsure {
                steps: [0; STEPS],
                carried: 0,
                requests: vec![false; classes],
                noted: vec![false; classes],
            });
            return false;
        }
        let before = match sampling.interval == interval {
            true => sampling.lately,
            false => 0,
        };
        sampling.lately = before + 1;
        sampling.interval = interval;
        sampling.is_loose = sampling.lately >= EACH_RECORDED;
        true
    }

    /// A return of a buffer that was used as far as `used`, which is recorded.
    pub(super) fn record(&mut self, set: usize, class: usize, used: usize, asked: bool) -> Next {
        if let Some(requests) = self.requests.get_mut(class) {
            *requests += u64::from(asked);
        }
        self.lengths.record(used);
        self.since_look.record(used);
        let notes = self.notes(set);
        notes.untold[step_of(used)] += 1;
        let (told, look) = (notes.until_told, notes.until_look);
        notes.until_told = told.saturating_sub(1);
        notes.until_look = look.checked_sub(1).unwrap_or(3);
        if told > 1 {
            let (calibrates, looks) = (false, look == 0);
            return Next { calibrates, looks };
        }
        let untold = mem::take(&mut notes.untold);
        for (told, untold) in self.told.iter_mut().zip(untold) {
            *told += untold as i64;
        }
        let most = self.most_told();
        let to_go = self.threshold.saturating_sub(most);
        self.notes(set).until_told = (self.threshold / 16).min(to_go).clamp(1, TOLD_MOST);
        Next {
            calibrates: most > self.threshold,
            looks: true,
        }
    }

    /// A guard has outgrown a buffer of a class that was asked for.
    pub(super) fn count_request(&mut self, class: usize) {
        if let Some(requests) = self.requests.get_mut(class) {
            *requests += 1;
        }
    }

    fn most_told(&self) -> u64 {
        self.told.into_iter().max().unwrap_or(0).max(0) as u64
    }

    /// Has each return to a cache set be looked at again, as after a calibration on its thread.
    pub(super) fn restart_samples(&mut self, set: usize) {
        let interval = self.calibrations;
        for sampling in &mut self.notes(set).sampling {
            (sampling.lately, sampling.interval) = (0, interval);
            sampling.is_loose = false;
        }
    }

    /// A return to a loose cache, which is recorded or not, and for others or not.
    ///
    /// `surely` if it is recorded, perhaps for others as well.
    pub(super) fn perhaps_record(&mut self, class: usize, used: usize, asked: bool, surely: bool) {
        let unsure = self.unsure.as_mut().expect("it is unsure");
        match surely {
            true => {
                self.lengths.record(used);
                self.since_look.record(used);
            }
            false => unsure.steps[step_of(used)] += 1,
        }
        if asked && class < self.capacities.len() {
            self.requests[class] += u64::from(surely);
            unsure.requests[class] = true;
            unsure.noted[class] |= self.retired[class];
        }
    }

    /// Notes that the drop rule has discarded a buffer of a class. Returns whether the pool looks
    /// at the targets for that.
    pub(super) fn discard(&mut self) -> bool {
        self.discards += 1;
        self.discards >= 256
    }

    // ---- to calibrate ----

    /// Chooses targets from the lengths since the last time. Returns the classes that are
    /// retired then; `None` if nothing was recorded.
    pub(super) fn calibrate(&mut self) -> Option<Vec<usize>> {
        let lengths = self.lengths.clone();
        (!lengths.is_empty()).then(|| self.calibrate_from(&lengths))
    }

    /// As [`calibrate`](Self::calibrate) from the lengths since the last look at discards, if
    /// there were many of these.
    pub(super) fn calibrate_if_many_discarded(&mut self) -> Option<Vec<usize>> {
        let risen = mem::take(&mut self.since_look);
        let left_out = 2.0 * (1.0 - self.percentile) * risen.calls() as f64;
        let many = mem::take(&mut self.discards) as f64 > left_out;
        (many && !risen.is_empty()).then(|| self.calibrate_from(&risen))
    }

    fn calibrate_from(&mut self, lengths: &Histogram) -> Vec<usize> {
        self.targets = targets_after(self.targets, lengths, self.percentile);
        self.calls = lengths.calls();
        for at in 0..self.capacities.len() {
            self.retired[at] = self.is_above(at) && self.requests[at] < 2;
        }
        self.begin_interval();
        self.retired()
    }

    fn begin_interval(&mut self) {
        self.calibrations += 1;
        for (told, seen) in self.told.iter_mut().zip(self.lengths.steps()) {
            *told -= seen as i64;
        }
        self.lengths = Histogram::new();
        self.since_look = Histogram::new();
        self.discards = 0;
        self.requests.fill(0);
        self.noted.fill(0);
        let carried = STANDS_FOR_MOST * self.loose_caches();
        if let Some(unsure) = &mut self.unsure {
            unsure.steps = [0; STEPS];
            unsure.carried = carried;
            unsure.requests.fill(false);
            unsure.noted.fill(false);
        }
    }

    fn loose_caches(&self) -> u64 {
        let caches = self.sets.iter().flat_map(|set| &set.sampling);
        caches.filter(|sampling| sampling.is_loose).count() as u64
    }

    /// How many returns may have been recorded for certain others: for each step, and in all at
    /// least and at most.
    fn bounds(&self) -> ([u64; STEPS], u64, u64) {
        let surely = self.lengths.steps();
        let Some(unsure) = &self.unsure else {
            return (surely, self.lengths.calls(), self.lengths.calls());
        };
        let unsure_calls: u64 = unsure.steps.iter().sum();
        let more = unsure_calls + unsure.carried;
        let most = std::array::from_fn(|step| match surely[step] + unsure.steps[step] {
            0 => 0,
            _ => surely[step] + more,
        });
        let unseen = STANDS_FOR_MOST * self.loose_caches();
        let calls = self.lengths.calls();
        let least = calls + unsure_calls.saturating_sub(unseen);
        (most, least, calls + more)
    }

    /// Where the model is unsure: takes over what the pool shows, if that may be. Returns the
    /// classes that are retired, if it has calibrated.
    ///
    /// `by_discards`, if the drop rule has just discarded many.
    pub(super) fn adopt(&mut self, pool: &Pool, by_discards: bool) -> Option<Vec<usize>> {
        let seen = Seen::of(pool);
        if seen.calibrations == self.calibrations {
            self.adopt_requests(&seen);
            assert_eq!(seen, self.expected(), "it changes at a calibration");
            let late = self.threshold.saturating_add(self.lateness());
            let most = self.lengths.steps().into_iter().max().unwrap_or(0);
            assert!(most <= late, "late: {most}, {late} may be");
            return None;
        }
        assert_eq!(seen.calibrations, self.calibrations + 1, "one at a time");
        self.check_adopted(&seen, by_discards);
        self.targets = seen.saved;
        self.calls = seen.calls;
        for at in 0..self.capacities.len() {
            let kept = seen.kept.contains(&self.capacities[at]);
            self.retired[at] = self.is_above(at) && !kept;
        }
        self.begin_interval();
        assert_eq!(seen, self.expected());
        Some(self.retired())
    }

    /// As [`adopt`](Self::adopt), where the drop rule has discarded so many that the pool has looked
    /// at the targets.
    pub(super) fn adopt_if_many_discarded(&mut self, pool: &Pool) -> Option<Vec<usize>> {
        let retired = self.adopt(pool, true);
        self.discards = 0;
        self.since_look = Histogram::new();
        retired
    }

    /// The most calls of one step that there may be beyond those that are enough.
    fn lateness(&self) -> u64 {
        // A thread keeps a sixteenth to itself, and tells with the next sample.
        let untold = STANDS_FOR_MOST + self.threshold / 16 + 1;
        untold.saturating_mul(self.sets.len() as u64)
    }

    /// A retired class may have been asked for more often than the model knows.
    fn adopt_requests(&mut self, seen: &Seen) {
        let unsure = self.unsure.as_ref().expect("it is unsure");
        for at in 0..self.capacities.len() {
            let kept = seen.kept.contains(&self.capacities[at]);
            if self.retired[at] && kept {
                assert!(unsure.noted[at], "nobody asked for class {at}");
                self.retired[at] = false;
                self.noted[at] = 0;
            }
        }
    }

    /// What a calibration may decide where it is not known what it was made from.
    fn check_adopted(&self, seen: &Seen, by_discards: bool) {
        let (most, least_calls, most_calls) = self.bounds();
        let calls = match by_discards {
            true => 1..=most_calls,
            false => least_calls.max(1)..=most_calls,
        };
        assert!(calls.contains(&seen.calls), "{calls:?}: {seen:?}");
        let Aim {
            default_size,
            max_size,
        } = seen.saved.expect("it has calibrated");
        let occurs = |size| most[step_of(size)] > 0 && size == 64 << step_of(size);
        assert!(occurs(default_size), "{most:?}: {seen:?}");
        // Unless it stays, it is the most frequent one.
        let surely = self.lengths.steps();
        let is_new = self
            .targets
            .is_none_or(|before| before.default_size != default_size);
        if is_new && !by_discards {
            let others = surely.iter().max().copied().unwrap_or(0);
            assert!(
                most[step_of(default_size)] >= others,
                "{surely:?}: {seen:?}"
            );
        }
        let largest = most
            .iter()
            .rposition(|&calls| calls > 0)
            .map_or(0, |step| 64 << step);
        assert!(max_size >= default_size, "{seen:?}");
        assert!(max_size <= largest.max(default_size), "{most:?}: {seen:?}");
        let is_step = max_size == 64 << step_of(max_size);
        assert!(is_step, "{seen:?}");
        if !by_discards {
            let above: u64 = surely[step_of(max_size) + 1..].iter().sum();
            let left_out = (1.0 - self.percentile) * most_calls as f64 + 1.0;
            assert!(above as f64 <= left_out, "{surely:?}: {seen:?}");
        }
        // What is kept above it was asked for, and what was asked for is kept.
        let unsure = self.unsure.as_ref().expect("it is unsure");
        let max_class = class_for_request(self.capacities, max_size);
        for at in 0..self.capacities.len() {
            let kept = seen.kept.contains(&self.capacities[at]);
            let expected = at > max_class && self.requests[at] >= 2;
            let may_be = at > max_class && unsure.requests[at];
            assert!(kept == expected || kept && may_be, "class {at}: {seen:?}");
        }
    }

    /// The pool was told to calibrate. Returns the classes that are retired then, if it did.
    pub(super) fn recalibrated(&mut self, pool: &Pool) -> Option<Vec<usize>> {
        if self.is_sure() {
            return self.calibrate();
        }
        let (_, least, most) = self.bounds();
        let retired = self.adopt(pool, false);
        assert!(retired.is_some() || least == 0, "it did not calibrate");
        assert!(
            retired.is_none() || most > 0,
            "it had nothing to calibrate from"
        );
        retired
    }

    /// Where the model is unsure: whether the calibration that the pool shows, if it does, can have
    /// come of discards alone.
    pub(super) fn is_due_for_discards_alone(&self) -> bool {
        let (most, ..) = self.bounds();
        self.discards >= 255 && most.iter().all(|&calls| calls <= self.threshold)
    }
}

/// The step that counts this length.
fn step_of(len: usize) -> usize {
    let step = (0..STEPS - 1).find(|&step| len <= 64 << step);
    step.unwrap_or(STEPS - 1)
}

/// The smallest class that holds a request; above the largest, the index after it.
pub(super) fn class_for_request(capacities: &[usize], request: usize) -> usize {
    capacities.partition_point(|&capacity| capacity < request)
}

/// The targets that must come of these lengths, each recorded, where those before were
/// `current`.
fn targets_after(current: Option<Aim>, lengths: &Histogram, percentile: f64) -> Option<Aim> {
    let new = lengths.targets(percentile).map(Aim::from);
    let (Some(new), Some(current)) = (new, current) else {
        return new.or(current);
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
    let by_chance = 2.0 * (out / lengths.calls() as f64).sqrt();
    let stricter = 1.0 - (out - by_chance).max(0.0);
    let agreed = lengths.targets(stricter).expect("it has calls").max_size;
    let max_size = match new.max_size < current.max_size {
        true => current.max_size.min(agreed),
        false => new.max_size,
    };
    Some(Aim {
        default_size,
        max_size: max_size.max(default_size),
    })
}
