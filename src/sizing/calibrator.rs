//! When to calibrate, and what follows from the targets for growth and for a
//! buffer that returns.
//!
//! Owns the targets of one pool, and which of its size classes are retired. Is told
//! what came back and what was asked for, and says how much a thread may keep to itself
//! of that; knows nothing of buffers or of levels.
//!
//! # The drop rule
//!
//! A buffer that returns with a capacity above `max_size` (rounded up to a size class)
//! is freed, as `valyala/bytebufferpool` does it. But a program may ask for large
//! buffers on purpose, and less often than one time in 20; to free each of these would
//! be to serve it from the heap for ever. So what decides above `max_size` is
//! whether a class is asked for: one that was requested [twice](REQUESTS_LEAST)
//! since the last calibration is kept as any other, within the budget and until a trim
//! finds it idle. One that was not is *retired*: what returns to it, having grown so
//! far or having been asked for once, is freed. The second request ends that at once.
//! A request is a `get`, a `reserve` or a `prefill`, which names a size; to append is none.
//! A class whose buffers are kept idle on purpose is asked for by that, and never retired.
//! What is asked for less than twice per calibration, then, is served by the heap.

use crate::clock::{self, Timer};
use crate::config::Calibrating;
use crate::engine::{BATCH_MAX, ClassIndex, Wait};
use crate::sizing::profile::Profile;
use crate::sizing::size_class::SizeClasses;
use crate::sizing::targets::{STEPS, Targets};
use crate::sync::{AtomicBool, AtomicUsize, Mutex, Ordering, lock, try_lock};
use std::time::Instant;

/// `default_size` before the first calibration.
///
/// 4 KiB: a page; it holds what most protocols send at once.
const DEFAULT_SIZE_FIRST: usize = 4096;

/// How many times its capacity a guard takes when it outgrows its buffer and
/// nobody has said how much it will need.
///
/// 8: what it takes goes back to the pool, so a step that is too large costs
/// no memory for good, while a step that is too small costs a copy.
const GROWTH_STEP: usize = 8;

/// The same for one that is past `max_size`.
///
/// 16: most of what is rare by its size is far above what is frequent.
const GROWTH_STEP_RARE: usize = 16;

/// The least that a guard takes which outgrows its buffer, however little it needs: half
/// as much again.
///
/// So the bytes that are copied while a buffer grows are at most three times its final
/// capacity. Double would pass over every other class of a ladder with smaller steps.
pub(crate) fn least_growth(capacity: usize) -> usize {
    capacity.saturating_add(capacity.div_ceil(2))
}

/// How many requests since the last calibration keep a class above `max_size`.
///
/// 2: the first may be the only one; the second says that there is use for what
/// the first would have left.
const REQUESTS_LEAST: usize = 2;

/// How large a part of a step's returns a thread may keep to itself at once.
///
/// 16: then it is told some 250 times until it runs, and what a quiet program tells
/// late is late by a sixteenth of the time that it has counted.
const BATCH_PART: u64 = 16;

/// From how many returns on a calibration by time is worth making.
///
/// 1000: then the 95th percentile rests on 50 of them, of which chance moves 7.
const CALLS_BY_TIME_LEAST: u64 = 1000;

/// After how many discards by the drop rule the targets are looked at.
///
/// 256: few beside what they cost, and enough for [`DISCARDS_PART`] not to be chance.
const DISCARDS_LEAST: usize = 256;

/// The targets are made anew if more of the returns were discarded than this many times what
/// the percentile leaves out.
///
/// 2: with a percentile of 0.95, if more than 10 % were. A workload at the percentile has
/// 256 of these in 5120 returns; to have them in 2560 is eight standard deviations from it.
const DISCARDS_PART: f64 = 2.0;

/// The targets of a pool, and where they come from; from
/// [`Pool::calibration`](crate::Pool::calibration).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Calibrated {
    /// The targets. Before the first calibration, 4096 bytes, or what the largest
    /// size class holds if that is less, and the largest size class.
    pub targets: Targets,
    /// From how many returns they were made; 0 before the first calibration.
    pub calls: u64,
    /// When this pool made them; `None` before its first calibration, while they are
    /// those of a [profile](crate::Builder::profile), and on systems without a clock.
    pub at: Option<Instant>,
}

/// Decides when, and keeps what came of it.
pub(crate) struct Calibrator {
    /// How many returns of one step are not yet enough; `None` where a calibration
    /// is made when it is asked for, and at no other time.
    threshold: Option<u64>,
    percentile: f64,
    timer: Option<Timer>,
    default_size: AtomicUsize,
    /// The present `max_size`; above all sizes before the first calibration.
    max_size: AtomicUsize,
    told: Told,
    /// Buffers that the drop rule discarded since the targets were made, or looked at for that.
    discards: AtomicUsize,
    /// One per size class, and one for what has none.
    classes: Box<[ClassUse]>,
    state: Mutex<State>,
}

/// Returns of each step that the calibrator was told of. What threads write here lies
/// apart from the targets that they read.
#[repr(align(128))]
struct Told {
    /// From the beginning. Wraps.
    all: [AtomicUsize; STEPS],
    /// What that was at the last calibration, had all been told of at once. Wraps.
    before: [AtomicUsize; STEPS],
}

/// How one class is used.
struct ClassUse {
    /// Whether what returns to it is freed.
    retired: AtomicBool,
    /// Requests that it had while retired, since the last calibration.
    requests: AtomicUsize,
    /// Whether buffers of it are kept idle on purpose: then it is never retired.
    is_kept_idle: bool,
}

impl ClassUse {
    fn new(is_kept_idle: bool) -> Self {
        ClassUse {
            retired: AtomicBool::new(false),
            requests: AtomicUsize::new(0),
            is_kept_idle,
        }
    }
}

/// The last calibration, and what was counted up to then.
struct State {
    targets: Option<Targets>,
    calls: u64,
    at: Option<Instant>,
    returns: [usize; STEPS],
    /// What was counted when the targets were last made, or looked at because of discards.
    at_discards: [usize; STEPS],
    /// One per size class.
    requests: Box<[u64]>,
    /// Room for as many, so that a calibration allocates nothing.
    requests_now: Box<[u64]>,
}

/// What a calibration must know of the pool, and tell it.
pub(crate) trait Counted {
    /// How many buffers came back with contents of each step, from the beginning. Wraps.
    /// `None` if that would take a wait.
    fn returns(&self, wait: Wait) -> Option<[usize; STEPS]>;
    /// How often each size class was asked for, from the beginning. Returns `false` if that
    /// would take a wait.
    fn requests(&self, wait: Wait, classes: &mut [u64]) -> bool;
    /// A class is retired: what returns to it from now on is to be judged.
    fn give_up(&self, class: ClassIndex);
}

impl Calibrator {
    pub(crate) fn new(config: Calibrating, classes: &SizeClasses) -> Self {
        let calibrator = Calibrator {
            threshold: config.threshold,
            percentile: config.percentile,
            timer: config.interval.map(Timer::new),
            default_size: AtomicUsize::new(DEFAULT_SIZE_FIRST.min(classes.max())),
            max_size: AtomicUsize::new(usize::MAX),
            told: Told {
                all: std::array::from_fn(|_| AtomicUsize::new(0)),
                before: std::array::from_fn(|_| AtomicUsize::new(0)),
            },
            discards: AtomicUsize::new(0),
            classes: classes
                .iter()
                .chain([classes.unclassed()])
                .map(|class| ClassUse::new(config.kept_idle.contains(&class)))
                .collect(),
            state: Mutex::new(State {
                targets: config.profile.targets,
                calls: config.profile.calls,
                at: None,
                returns: [0; STEPS],
                at_discards: [0; STEPS],
                requests: classes.iter().map(|_| 0).collect(),
                requests_now: classes.iter().map(|_| 0).collect(),
            }),
        };
        // What has no class is never kept.
        calibrator.set_retired(classes.unclassed(), true);
        if let Some(targets) = config.profile.targets {
            calibrator.aim_at(targets);
            let largest = classes.for_request(targets.max_size);
            for class in classes.iter().skip(largest.get() + 1) {
                let kept = config.profile.kept.iter();
                let retired = kept.copied().all(|size| classes.for_request(size) != class);
                calibrator.set_retired(class, retired);
            }
        }
        calibrator
    }

    // ---- what follows from the targets ----

    /// What a buffer should hold of which nobody has said how large it must be.
    #[inline(always)]
    pub(crate) fn default_size(&self) -> usize {
        // Relaxed, here and below: a number that orders nothing.
        self.default_size.load(Ordering::Relaxed)
    }

    /// What a buffer of `capacity` bytes should be exchanged for when it is full.
    ///
    /// For `default_size`, which is most often enough; then for `max_size`, which
    /// nearly always is; and from there far, since what is rare is often far out. At
    /// least the [least growth](least_growth).
    pub(crate) fn larger_than(&self, capacity: usize) -> usize {
        let max_size = self.max_size.load(Ordering::Relaxed);
        if max_size == usize::MAX {
            return capacity.saturating_mul(GROWTH_STEP);
        }
        if capacity >= max_size {
            return capacity.saturating_mul(GROWTH_STEP_RARE);
        }
        let target = match self.default_size() {
            default_size if capacity < default_size => default_size,
            _ => max_size.min(capacity.saturating_mul(GROWTH_STEP)),
        };
        target.max(least_growth(capacity))
    }

    /// Whether what returns to a class is freed.
    #[inline(always)]
    pub(crate) fn is_retired(&self, class: ClassIndex) -> bool {
        // Relaxed: nothing is reached through it. A return that sees the old answer is one
        // that came before.
        self.classes[class.get()].retired.load(Ordering::Relaxed)
    }

    /// Retires a class unless buffers of it are kept idle on purpose, or brings it back.
    /// Returns whether it is retired now.
    fn set_retired(&self, class: ClassIndex, retired: bool) -> bool {
        let class = &self.classes[class.get()];
        // Relaxed: see `is_retired`. Where requests come meanwhile, some are forgotten, but
        // the next are counted, whichever store comes last.
        let retired = retired && !class.is_kept_idle;
        class.retired.store(retired, Ordering::Relaxed);
        class.requests.store(0, Ordering::Relaxed);
        retired
    }

    // ---- what this is told ----

    /// Notes so many requests for a class that is retired.
    pub(crate) fn note_requests(&self, class: ClassIndex, count: usize) {
        let requests = &self.classes[class.get()].requests;
        // Relaxed: one exchange has the others' requests in it; nothing else is ordered.
        let before = requests.fetch_add(count, Ordering::Relaxed);
        if before.saturating_add(count) >= REQUESTS_LEAST {
            self.set_retired(class, false);
        }
    }

    /// Notes so many returns of a step. Says whether a calibration is due, as far as
    /// this was told.
    pub(crate) fn note_returns(&self, step: usize, count: usize) -> bool {
        // Release: pairs with the Acquire in `told`.
        let before = self.told.all[step].fetch_add(count, Ordering::Release);
        let lately = self.lately(step, before.wrapping_add(count));
        self.is_over(lately) || self.is_time()
    }

    /// How many returns of a step a thread may keep from this before it tells: where
    /// one thread is alone, it tells when the threshold is passed.
    ///
    /// Few while there were few, so that a quiet program is looked at often.
    pub(crate) fn batch(&self, step: usize) -> u8 {
        let Some(threshold) = self.threshold else {
            return BATCH_MAX;
        };
        // Relaxed: a hint how soon to look again.
        let lately = self.lately(step, self.told.all[step].load(Ordering::Relaxed));
        let to_go = threshold.saturating_sub(lately);
        let batch = to_go.min(lately / BATCH_PART);
        u8::try_from(batch).unwrap_or(BATCH_MAX)
    }

    /// Returns of each step that this was told of, from the beginning.
    pub(crate) fn told(&self) -> [usize; STEPS] {
        // Acquire: pairs with the Release in `note_returns`.
        std::array::from_fn(|step| self.told.all[step].load(Ordering::Acquire))
    }

    /// How many of those that this was told of came since the last calibration. If that is
    /// made meanwhile, it may be far too many: then somebody looks in vain.
    fn lately(&self, step: usize, told: usize) -> u64 {
        // Relaxed: a hint; who finds a calibration due looks again under the lock.
        told.wrapping_sub(self.told.before[step].load(Ordering::Relaxed)) as u64
    }

    fn is_over(&self, calls: u64) -> bool {
        self.threshold.is_some_and(|threshold| calls > threshold)
    }

    pub(crate) fn is_time(&self) -> bool {
        self.timer.as_ref().is_some_and(Timer::is_over)
    }

    // ---- to calibrate ----

    /// Calibrates if that is due, by what was counted or by time. Does nothing while
    /// another thread is at it.
    pub(crate) fn calibrate_if_due(&self, classes: &SizeClasses, counted: &impl Counted) {
        let Some(mut state) = try_lock(&self.state) else {
            return;
        };
        let Some(returns) = counted.returns(Wait::Never) else {
            return;
        };
        let by_time = self.is_time();
        let lately = since(&state.returns, &returns);
        let enough = lately.iter().any(|&calls| self.is_over(calls))
            || by_time && total(&lately) >= CALLS_BY_TIME_LEAST;
        if enough {
            self.calibrate_from(&mut state, classes, &lately, &lately, counted, Wait::Never);
        } else {
            self.set_lately(&lately);
            if by_time {
                self.restart_timer(); // counts on
            }
        }
    }

    /// Notes that the drop rule has discarded a buffer. Returns whether the targets are to be
    /// [looked at](Self::calibrate_if_many_discarded) for that.
    pub(crate) fn note_discard(&self) -> bool {
        // Relaxed: a hint; who looks, looks again under the lock.
        self.threshold.is_some()
            && self.discards.fetch_add(1, Ordering::Relaxed) + 1 >= DISCARDS_LEAST
    }

    /// Calibrates by the returns since the last of these looks, or since the last
    /// calibration, if the drop rule has discarded many of them: the sizes have risen. Does
    /// nothing while another thread is at it.
    pub(crate) fn calibrate_if_many_discarded(
        &self,
        classes: &SizeClasses,
        counted: &impl Counted,
    ) {
        let Some(mut state) = try_lock(&self.state) else {
            return;
        };
        // Relaxed: see `note_discard`.
        let discards = self.discards.load(Ordering::Relaxed);
        if discards < DISCARDS_LEAST {
            return;
        }
        let Some(returns) = counted.returns(Wait::Never) else {
            return;
        };
        // Not the returns before these: the sizes were others then.
        let risen = since(&state.at_discards, &returns);
        self.look_at_discards_from(&mut state, returns);
        let left_out = DISCARDS_PART * (1.0 - self.percentile) * total(&risen) as f64;
        if discards as f64 > left_out {
            let lately = since(&state.returns, &returns);
            self.calibrate_from(&mut state, classes, &risen, &lately, counted, Wait::Never);
        }
    }

    /// Begins to count discards anew, after `returns` of each step.
    fn look_at_discards_from(&self, state: &mut State, returns: [usize; STEPS]) {
        // Relaxed: see `note_discard`.
        self.discards.store(0, Ordering::Relaxed);
        state.at_discards = returns;
    }

    /// Calibrates by what was counted since the last time, if that is anything.
    pub(crate) fn calibrate(&self, classes: &SizeClasses, counted: &impl Counted) {
        let mut state = lock(&self.state);
        let returns = counted.returns(Wait::ForLock);
        let lately = since(&state.returns, &returns.expect("it waits"));
        self.calibrate_from(
            &mut state,
            classes,
            &lately,
            &lately,
            counted,
            Wait::ForLock,
        );
    }

    /// Makes targets from `calls`, a part of those that came `lately`: all since the last time.
    fn calibrate_from(
        &self,
        state: &mut State,
        classes: &SizeClasses,
        calls: &[u64; STEPS],
        lately: &[u64; STEPS],
        counted: &impl Counted,
        wait: Wait,
    ) {
        self.restart_timer();
        if total(calls) == 0 || !counted.requests(wait, &mut state.requests_now) {
            return;
        }
        let targets = Targets::after(state.targets, calls, self.percentile);
        state.targets = targets;
        state.calls = total(calls);
        state.at = clock::instant();
        for (counted, &calls) in state.returns.iter_mut().zip(lately) {
            // Not what was read, which may be too low while threads are busy: those
            // would be counted again.
            *counted = counted.wrapping_add(calls as usize);
        }
        self.set_lately(&[0; STEPS]);
        self.look_at_discards_from(state, state.returns);
        if let Some(targets) = targets {
            self.aim_at(targets);
            self.retire_above(state, classes, targets.max_size, counted);
        }
    }

    fn aim_at(&self, targets: Targets) {
        // Relaxed: see `default_size`.
        self.default_size
            .store(targets.default_size, Ordering::Relaxed);
        self.max_size.store(targets.max_size, Ordering::Relaxed);
    }

    /// Retires the classes above `max_size` that were not asked for since the last
    /// calibration, and brings back all others. The requests were counted just now.
    fn retire_above(
        &self,
        state: &mut State,
        classes: &SizeClasses,
        max_size: usize,
        counted: &impl Counted,
    ) {
        let largest = classes.for_request(max_size);
        for class in classes.iter() {
            let before = &mut state.requests[class.get()];
            let now = state.requests_now[class.get()];
            let lately = now.saturating_sub(*before);
            *before = now.max(*before);
            let retired = class.get() > largest.get() && lately < REQUESTS_LEAST as u64;
            if self.set_retired(class, retired) {
                // Not only when it is so for the first time: then it was another
                // thread, perhaps, that calibrated.
                counted.give_up(class);
            }
        }
    }

    /// So many returns of each step came since the last calibration, told of or not.
    fn set_lately(&self, calls: &[u64; STEPS]) {
        for ((told, before), &calls) in self.told.all.iter().zip(&self.told.before).zip(calls) {
            // Relaxed: see `lately`.
            let told = told.load(Ordering::Relaxed);
            before.store(told.wrapping_sub(calls as usize), Ordering::Relaxed);
        }
    }

    fn restart_timer(&self) {
        if let Some(timer) = &self.timer {
            timer.restart();
        }
    }

    /// The present targets, and where they come from.
    pub(crate) fn calibrated(&self, classes: &SizeClasses) -> Calibrated {
        let state = lock(&self.state);
        Calibrated {
            targets: state.targets.unwrap_or(Targets {
                default_size: self.default_size(),
                max_size: classes.max(),
            }),
            calls: state.calls,
            at: state.at,
        }
    }

    /// What is known now, to begin with next time.
    pub(crate) fn profile(&self, classes: &SizeClasses) -> Profile {
        let state = lock(&self.state);
        let kept = state.targets.map_or_else(Vec::new, |targets| {
            let largest = classes.for_request(targets.max_size);
            let above = classes.iter().skip(largest.get() + 1);
            let kept = above.filter(|&class| !self.is_retired(class));
            kept.map(|class| classes.capacity(class)).collect()
        });
        Profile {
            targets: state.targets,
            calls: state.calls,
            kept,
        }
    }
}

/// Returns of each step since they were counted `before`.
fn since(before: &[usize; STEPS], returns: &[usize; STEPS]) -> [u64; STEPS] {
    std::array::from_fn(|step| {
        // Not below 0: counts that are read while threads are busy may be lower
        // than they were.
        let more = returns[step].wrapping_sub(before[step]) as isize;
        u64::try_from(more).unwrap_or(0)
    })
}

fn total(calls: &[u64; STEPS]) -> u64 {
    calls.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: usize = 4;

    /// A pool in which nothing comes back but what the calibrator is told of.
    struct AllTold<'a>(&'a Calibrator);

    impl Counted for AllTold<'_> {
        fn returns(&self, _: Wait) -> Option<[usize; STEPS]> {
            Some(self.0.told())
        }

        fn requests(&self, _: Wait, _: &mut [u64]) -> bool {
            true
        }

        fn give_up(&self, _: ClassIndex) {}
    }

    /// A calibrator that has been told of so many returns of each step, and has used all.
    fn told_of(returns: usize, threshold: u64) -> (Calibrator, SizeClasses) {
        let classes = SizeClasses::listed(&[64, 4096]).expect("they ascend");
        let config = Calibrating {
            kept_idle: Box::default(),
            threshold: Some(threshold),
            percentile: 0.95,
            interval: None,
            profile: Profile::default(),
        };
        let calibrator = Calibrator::new(config, &classes);
        for step in 0..STEPS {
            calibrator.told.all[step].store(returns, Ordering::Relaxed);
            calibrator.told.before[step].store(returns, Ordering::Relaxed);
        }
        lock(&calibrator.state).returns = [returns; STEPS];
        (calibrator, classes)
    }

    /// Where a count of 32 bits, and where a `usize`, wraps within the next few hundred
    /// returns; and at the beginning.
    const STARTS: [usize; 4] = [0, u32::MAX as usize - 100, usize::MAX - 100, usize::MAX];

    #[test]
    fn a_count_that_wraps_is_counted_on_to_the_last_return() {
        const THRESHOLD: u64 = 300;
        for start in STARTS {
            let (calibrator, classes) = told_of(start, THRESHOLD);
            for round in 0..3 {
                for at in 1..=THRESHOLD {
                    assert!(!calibrator.note_returns(STEP, 1), "{start}, {round}: {at}");
                    calibrator.calibrate_if_due(&classes, &AllTold(&calibrator));
                }
                let calls = if round == 0 { 0 } else { THRESHOLD + 1 };
                assert_eq!(calibrator.calibrated(&classes).calls, calls, "none yet");
                assert!(calibrator.note_returns(STEP, 1), "{start}, {round}: due");
                calibrator.calibrate_if_due(&classes, &AllTold(&calibrator));
                let calibrated = calibrator.calibrated(&classes);
                assert_eq!(calibrated.calls, THRESHOLD + 1, "{start}, {round}");
                assert_eq!(calibrated.targets.default_size, 64 << STEP);
            }
        }
    }

    #[test]
    fn batches_are_as_large_where_a_count_wraps_as_elsewhere() {
        const THRESHOLD: u64 = 300;
        let batches = |start| {
            let (calibrator, _classes) = told_of(start, THRESHOLD);
            let batch_after = |_| {
                let batch = calibrator.batch(STEP);
                calibrator.note_returns(STEP, 1);
                batch
            };
            (0..=THRESHOLD).map(batch_after).collect::<Vec<u8>>()
        };
        let expected = batches(0);
        assert_eq!((expected[0], expected[150], expected[300]), (0, 9, 0));
        for start in STARTS {
            assert_eq!(batches(start), expected, "{start}");
        }
    }

    // While threads are busy, what is read may be lower than what was used.
    #[test]
    fn a_count_that_is_read_too_low_where_it_wraps_is_none_and_not_very_many() {
        for start in STARTS {
            let (calibrator, _classes) = told_of(start, 300);
            let state = lock(&calibrator.state);
            for (read, lately) in [(-3, 0), (-1, 0), (0, 0), (1, 1), (150, 150)] {
                let returns = [start.wrapping_add_signed(read); STEPS];
                assert_eq!(
                    since(&state.returns, &returns),
                    [lately; STEPS],
                    "{start}, {read}"
                );
            }
        }
    }
}
