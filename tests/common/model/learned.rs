//! The sizes that a pool has learned, and its state since the last calibration.
//!
//! Owns the targets, the retired classes, and the returns that the pool has recorded. While the
//! pool records each return, the model predicts each calibration and its result. Once a cache has
//! had many returns, the pool samples them at random. From then on the model
//! [adopts](Learned::adopt) the pool's result, if it is possible after these returns.

use super::pool::least_growth;
use std::mem;
use tierpool::{Histogram, Pool, Targets};

/// Steps of lengths: up to 64 bytes, up to 128, and so on. The last one has no upper end.
const STEPS: usize = 20;

/// This many returns to one cache, in one interval, are recorded one by one.
const EACH_RECORDED: u64 = 64;

/// The most returns that a thread keeps to itself.
const TOLD_MOST: u64 = 4096;

/// The most returns to one cache that one sample stands for.
const STANDS_FOR_MOST: u64 = 95;

/// The sizes that a pool aims at. Like [`Targets`], which only a pool can make.
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

/// The profile that a pool gives to the next one.
#[derive(Clone, Debug)]
pub(super) struct Saved {
    pub(super) targets: Option<Aim>,
    calls: u64,
    /// Capacities above `max_size` that are kept nevertheless.
    kept: Vec<usize>,
}

/// The learned state that a pool shows.
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
        // No method returns these values.
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

/// The records of one cache set since it last told, and when it samples and tells next.
#[derive(Clone, Default)]
struct Notes {
    untold: [u64; STEPS],
    until_told: u64,
    until_look: u64,
    /// One per class.
    sampling: Vec<Sampling>,
}

/// Which returns to one cache are samples.
#[derive(Clone, Default)]
struct Sampling {
    /// Returns in the interval of the last sample.
    lately: u64,
    interval: u64,
    /// Whether the pool may skip returns, and not sample each.
    is_loose: bool,
}

/// The unknowns of the model. Returns to a loose cache may have been sampled or not.
struct Unsure {
    /// Returns of this interval that may be counted by samples of others.
    steps: [u64; STEPS],
    /// Returns of earlier intervals that a sample of this one may count.
    carried: u64,
    /// Whether returns of a class may have counted as one request or several.
    requests: Vec<bool>,
    /// As `requests`, for returns while the class was retired.
    noted: Vec<bool>,
}

/// The actions that follow a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) calibrates: bool,
    /// Checks whether a trim is due.
    pub(super) looks: bool,
}

pub(super) struct Learned {
    /// The capacities of the pool's classes.
    capacities: &'static [usize],
    percentile: f64,
    /// A calibration is due when one step has more returns than this.
    threshold: u64,
    pub(super) targets: Option<Aim>,
    calls: u64,
    calibrations: u64,
    /// The lengths that were recorded since the last calibration, each at least once.
    lengths: Histogram,
    /// Buffers that the drop rule discarded, and the lengths that were recorded. Both count since
    /// the pool last checked discards or chose targets.
    discards: u64,
    since_look: Histogram,
    /// For each step, the returns that all sets have told since the last calibration. Negative
    /// while others, which were seen before, are not told.
    told: [i64; STEPS],
    /// One per cache set.
    sets: Vec<Notes>,
    unsure: Option<Unsure>,
    /// Requests of each class since the last calibration, as far as they have come back.
    requests: Vec<u64>,
    /// Whether buffers that return to a class are discarded.
    retired: Vec<bool>,
    /// How often each class was requested while it was retired, as far as the pool has noted.
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

    /// The state that the pool must show.
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

    /// Notes `count` requests of a class, if it was retired. The second request brings it back.
    pub(super) fn note_requests(&mut self, class: usize, count: usize) {
        if self.is_retired(class) {
            self.noted[class] += count;
            if self.noted[class] >= 2 {
                self.retired[class] = false;
                self.noted[class] = 0;
            }
        }
    }

    /// Notes that `made` buffers were made ahead of time.
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

    /// The capacity that a guard takes when it appends to a full buffer of this capacity.
    pub(super) fn larger_than(&self, capacity: usize) -> usize {
        let target = match self.targets {
            Some(targets) if capacity < targets.max_size => targets.max_size.min(capacity * 8),
            Some(_) => capacity * 32,
            None => capacity * 8,
        };
        target.max(least_growth(capacity))
    }

    // ---- records ----

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

    /// Whether the model knows which returns the pool has recorded.
    pub(super) fn is_sure(&self) -> bool {
        self.unsure.is_none()
    }

    /// Whether the model will also know it of the next return.
    pub(super) fn stays_sure(&self) -> bool {
        self.is_sure() && self.loose_caches() == 0
    }

    /// Whether the return of an unchanged buffer to a cache is surely a sample. If not, the model
    /// is unsure from now on.
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

    /// Records the return of a buffer that held `used` bytes at most.
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

    /// Counts the request for a buffer that its guard has outgrown.
    pub(super) fn count_request(&mut self, class: usize) {
        if let Some(requests) = self.requests.get_mut(class) {
            *requests += 1;
        }
    }

    fn most_told(&self) -> u64 {
        self.told.into_iter().max().unwrap_or(0).max(0) as u64
    }

    /// Makes each return to a cache set a sample again, as after a calibration on its thread.
    pub(super) fn restart_samples(&mut self, set: usize) {
        let interval = self.calibrations;
        for sampling in &mut self.notes(set).sampling {
            (sampling.lately, sampling.interval) = (0, interval);
            sampling.is_loose = false;
        }
    }

    /// A return to a loose cache. The pool may have recorded it or not, and other returns with it
    /// or not.
    ///
    /// `surely`: it is recorded, perhaps together with others.
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

    /// Notes that the drop rule has discarded a buffer of a class. Returns whether the pool checks
    /// its targets then.
    pub(super) fn discard(&mut self) -> bool {
        self.discards += 1;
        self.discards >= 256
    }

    // ---- calibrations ----

    /// Chooses targets from the lengths since the last calibration. Returns the classes that are
    /// retired then; `None` if nothing was recorded.
    pub(super) fn calibrate(&mut self) -> Option<Vec<usize>> {
        let lengths = self.lengths.clone();
        (!lengths.is_empty()).then(|| self.calibrate_from(&lengths))
    }

    /// As [`calibrate`](Self::calibrate), from the lengths since discards were last checked, if
    /// there were many discards.
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

    /// The returns that samples of others may have counted: for each step, and in all at least and
    /// at most.
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

    /// Where the model is unsure: adopts the state that the pool shows, if it is possible. Returns
    /// the classes that are retired, if the pool has calibrated.
    ///
    /// `by_discards`: the drop rule has discarded many buffers right before.
    pub(super) fn adopt(&mut self, pool: &Pool, by_discards: bool) -> Option<Vec<usize>> {
        let seen = Seen::of(pool);
        if seen.calibrations == self.calibrations {
            self.adopt_requests(&seen);
            assert_eq!(
                seen,
                self.expected(),
                "the state changes only at a calibration"
            );
            let late = self.threshold.saturating_add(self.lateness());
            let most = self.lengths.steps().into_iter().max().unwrap_or(0);
            assert!(most <= late, "late: {most} returns, at most {late}");
            return None;
        }
        assert_eq!(
            seen.calibrations,
            self.calibrations + 1,
            "one calibration at a time"
        );
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

    /// As [`adopt`](Self::adopt), after enough discards by the drop rule that the pool has
    /// checked its targets.
    pub(super) fn adopt_if_many_discarded(&mut self, pool: &Pool) -> Option<Vec<usize>> {
        let retired = self.adopt(pool, true);
        self.discards = 0;
        self.since_look = Histogram::new();
        retired
    }

    /// The most returns of one step that may come after the threshold, before a calibration.
    fn lateness(&self) -> u64 {
        // A thread keeps a sixteenth of the threshold to itself, and tells it with the next sample.
        let untold = STANDS_FOR_MOST + self.threshold / 16 + 1;
        untold.saturating_mul(self.sets.len() as u64)
    }

    /// Adopts requests of a retired class that the model could not count.
    fn adopt_requests(&mut self, seen: &Seen) {
        let unsure = self.unsure.as_ref().expect("it is unsure");
        for at in 0..self.capacities.len() {
            let kept = seen.kept.contains(&self.capacities[at]);
            if self.retired[at] && kept {
                assert!(unsure.noted[at], "class {at} was not requested");
                self.retired[at] = false;
                self.noted[at] = 0;
            }
        }
    }

    /// Checks the result of a calibration if the model does not know the recorded returns.
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
        // The default size is the most frequent step, unless it has stayed.
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
        // A class kept above `max_size` was requested, and each requested class is kept.
        let unsure = self.unsure.as_ref().expect("it is unsure");
        let max_class = class_for_request(self.capacities, max_size);
        for at in 0..self.capacities.len() {
            let kept = seen.kept.contains(&self.capacities[at]);
            let expected = at > max_class && self.requests[at] >= 2;
            let may_be = at > max_class && unsure.requests[at];
            assert!(kept == expected || kept && may_be, "class {at}: {seen:?}");
        }
    }

    /// Follows an explicit calibration. Returns the classes that are retired then, if there was
    /// one.
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

    /// Where the model is unsure: whether discards alone can explain the calibration that the pool
    /// shows, if it shows one.
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

/// The smallest class for a request; above the largest class, the index after it.
pub(super) fn class_for_request(capacities: &[usize], request: usize) -> usize {
    capacities.partition_point(|&capacity| capacity < request)
}

/// The targets that follow from these lengths, each recorded, if the targets before were `current`.
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
