//! When to choose targets, and their effect on growth and on a buffer that returns.
//!
//! Owns the targets of one pool, and which of its size classes are retired. Receives what threads
//! have recorded, and decides; knows nothing of buffers or of levels, and moves nothing.
//!
//! # The drop rule
//!
//! A buffer that returns with a capacity above `max_size` (rounded up to a size class)
//! is freed, as `valyala/bytebufferpool` does it. But a program may ask for large
//! buffers on purpose, and less often than one time in 20. To free each of these would
//! serve it from the heap for ever. So above `max_size` a class is kept if the program asks for
//! it: it requested [two](REQUESTS_LEAST) of the buffers that came back since the last
//! calibration. Any other class above `max_size` is *retired*: a buffer that returns to it,
//! having grown so far or having been asked for once, is freed. The second request ends that at
//! once. A request is a `get`, a `reserve` or a `prefill`, which names a size; to append is none.
//! A class whose buffers are kept idle on purpose counts as asked for, and is never retired.
//! So the heap serves what a program asks for less than twice per calibration.

use super::profile::Profile;
use super::samples::{Counts, Returns, Samples};
use super::size_class::SizeClasses;
use super::targets::{STEPS, Targets};
use crate::clock::Timer;
use crate::config::Calibrating;
use crate::engine::ClassIndex;
use crate::sync::{AtomicBool, AtomicUsize, Hint, Mutex, Ordering, lock, try_lock};

/// `default_size` before the first calibration.
///
/// 4 KiB: a page; it holds what most protocols send at once.
const DEFAULT_SIZE_FIRST: usize = 4096;

/// How many times its capacity a guard takes when it outgrows its buffer and no caller has named a
/// size.
///
/// 8: the larger buffer goes back to the pool, so a step that is too large costs no memory for
/// good, while a step that is too small costs a copy.
const GROWTH_STEP: usize = 8;

/// The same for a guard that is past `max_size`.
///
/// 32: rare sizes are far above frequent ones. Such a buffer is most often freed on return, so each
/// step is an allocation: with 16, a message of 100 KiB among many of 3 KiB took two, and growth in
/// all took a fifth longer.
const GROWTH_STEP_RARE: usize = 32;

/// The least capacity that a full guard takes, however little it needs: half as much again.
///
/// So the bytes that are copied while a buffer grows are at most three times its final
/// capacity. Double would pass over every other class of a ladder with smaller steps.
pub(crate) fn least_growth(capacity: usize) -> usize {
    capacity.saturating_add(capacity.div_ceil(2))
}

/// How many requests since the last calibration keep a class above `max_size`.
///
/// 2: the first may be the only one; the second shows that a buffer left by the first would be of
/// use.
const REQUESTS_LEAST: usize = 2;

/// The fewest returns that are worth a calibration by time.
///
/// 1000: then the 95th percentile rests on 50 of them, and chance moves 7 of these.
const CALLS_BY_TIME_LEAST: u64 = 1000;

/// After how many discards by the drop rule the targets are looked at.
///
/// 256: few beside what they cost, and enough for [`DISCARDS_PART`] not to be chance.
const DISCARDS_LEAST: usize = 256;

/// The targets are made anew if more of the returns were discarded than this many times the part
/// that the percentile leaves out.
///
/// 2: with a percentile of 0.95, if more than 10 % were. A workload at the percentile has
/// 256 of these in 5120 returns; to have them in 2560 is eight standard deviations from it.
const DISCARDS_PART: f64 = 2.0;

/// A thread reports when its unreported returns reach the threshold, divided by this.
///
/// 16: so each thread delays a calibration by a sixteenth of its returns at most. With reports that
/// begin small and grow with the returns so far, there were 147 of them for 42,000 returns, and not
/// 17, and a calibration came no sooner.
const TOLD_PART: usize = 16;

/// The most returns that a thread keeps to itself.
///
/// 4096: a report takes some 200 ns, and as much again where two threads report at once.
const TOLD_MOST: usize = 4096;

/// Decides when, and keeps the result.
pub(crate) struct Calibrator {
    /// How many returns of one step are not yet enough. `None`: it calibrates only when the
    /// program calls for it.
    threshold: Option<u64>,
    percentile: f64,
    timer: Option<Timer>,
    default_size: AtomicUsize,
    /// The present `max_size`; above all sizes before the first calibration.
    max_size: AtomicUsize,
    /// How often it has calibrated.
    calibrations: Hint,
    told: Told,
    /// Buffers that the drop rule discarded since the targets were made, or looked at for that.
    discards: Hint,
    /// One per size class, and one for buffers of none.
    classes: Box<[ClassUse]>,
    state: Mutex<State>,
}

/// Returns that threads have reported. Threads write here, apart from the targets that they read.
#[repr(align(128))]
#[derive(Default)]
struct Told {
    /// From the beginning.
    all: Counts,
    /// Those that the last calibration had seen, reported or not.
    seen: Counts,
}

/// How one class is used.
struct ClassUse {
    /// Whether a buffer that returns to it is freed.
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

/// The last calibration.
struct State {
    targets: Option<Targets>,
    /// The number of returns that they were made from.
    calls: u64,
    /// The counts when the targets were last made, or looked at because of discards.
    at_discards: Returns,
    /// Requests of each size class up to the last calibration.
    requests: Box<[u64]>,
}

impl Calibrator {
    pub(crate) fn new(config: Calibrating, classes: &SizeClasses) -> Self {
        let calibrator = Calibrator {
            threshold: config.threshold,
            percentile: config.percentile,
            timer: config.interval.map(Timer::new),
            default_size: AtomicUsize::new(DEFAULT_SIZE_FIRST.min(classes.max())),
            max_size: AtomicUsize::new(usize::MAX),
            calibrations: Hint::new(0),
            told: Told::default(),
            discards: Hint::new(0),
            classes: classes
                .iter()
                .chain([classes.unclassed()])
                .map(|class| ClassUse::new(config.kept_idle.contains(&class)))
                .collect(),
            state: Mutex::new(State {
                targets: config.profile.targets,
                calls: config.profile.calls,
                at_discards: Returns::NONE,
                requests: classes.iter().map(|_| 0).collect(),
            }),
        };
        // A buffer of no class is never kept.
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

    /// What a buffer should hold if the program has not said how large it must be.
    #[inline(always)]
    pub(crate) fn default_size(&self) -> usize {
        // Relaxed, here and below: a number that orders nothing.
        self.default_size.load(Ordering::Relaxed)
    }

    /// The capacity to exchange a full buffer of `capacity` bytes for.
    ///
    /// Up to `max_size`, which nearly always is enough. From there a large step, since rare sizes
    /// are often far out. At least the [least growth](least_growth).
    pub(crate) fn larger_than(&self, capacity: usize) -> usize {
        let max_size = self.max_size.load(Ordering::Relaxed);
        let larger = match capacity < max_size {
            true => max_size.min(capacity.saturating_mul(GROWTH_STEP)),
            false => capacity.saturating_mul(GROWTH_STEP_RARE),
        };
        larger.max(least_growth(capacity))
    }

    /// Whether a buffer that returns to a class is freed.
    #[inline(always)]
    pub(crate) fn is_retired(&self, class: ClassIndex) -> bool {
        // Relaxed: nothing is reached through it. A return that sees the old answer is one
        // that came before.
        self.classes[class.get()].retired.load(Ordering::Relaxed)
    }

    /// Retires a class unless buffers of it are kept idle on purpose, or brings it back.
    fn set_retired(&self, class: ClassIndex, retired: bool) {
        let class = &self.classes[class.get()];
        // Relaxed: see `is_retired`. Where requests come meanwhile, some are forgotten, but
        // the next are counted, whichever store comes last.
        class
            .retired
            .store(retired && !class.is_kept_idle, Ordering::Relaxed);
        class.requests.store(0, Ordering::Relaxed);
    }

    // ---- what it receives ----

    /// Receives requests for a class. The second one since the last calibration brings a retired
    /// class back.
    #[inline]
    pub(crate) fn note_requests(&self, class: ClassIndex, count: usize) {
        if !self.is_retired(class) {
            return;
        }
        let requests = &self.classes[class.get()].requests;
        // Relaxed: one exchange has the others' requests in it; nothing else is ordered.
        let before = requests.fetch_add(count, Ordering::Relaxed);
        if before.saturating_add(count) >= REQUESTS_LEAST {
            self.set_retired(class, false);
        }
    }

    /// Receives what a thread has recorded. Returns whether a calibration may be due by returns.
    #[cold]
    #[inline(never)]
    pub(crate) fn tell(&self, samples: &Samples) -> bool {
        // Taken first: see `told`.
        self.told.all.add(&samples.take());
        let most = self.most_lately();
        let threshold = self.threshold.map_or(usize::MAX, |threshold| {
            usize::try_from(threshold).unwrap_or(usize::MAX)
        });
        // Not beyond the return that is over the threshold.
        let to_go = threshold.saturating_sub(most);
        samples.tell_after((threshold / TOLD_PART).min(to_go).clamp(1, TOLD_MOST));
        self.is_over(most as u64)
    }

    /// Receives one return of a thread that records nothing, as it has no caches. Returns whether
    /// it may be time to calibrate.
    pub(crate) fn tell_one(&self, step: usize) -> bool {
        self.told.all.add(&Returns::one(step));
        self.is_over(self.most_lately() as u64) || self.is_time()
    }

    /// How many returns of one step threads have reported since the last calibration.
    fn most_lately(&self) -> usize {
        let lately = self.told.all.get().since(&self.told.seen.get());
        lately.steps.into_iter().max().unwrap_or(0)
    }

    /// Returns that threads have reported, from the beginning.
    ///
    /// To be read before the unreported ones: a thread takes its returns from there first.
    pub(crate) fn told(&self) -> Returns {
        self.told.all.get()
    }

    fn is_over(&self, calls: u64) -> bool {
        self.threshold.is_some_and(|threshold| calls > threshold)
    }

    pub(crate) fn is_time(&self) -> bool {
        self.timer.as_ref().is_some_and(Timer::is_over)
    }

    /// Notes that the drop rule has discarded a buffer. Returns whether to
    /// [look at](Self::calibrate_if_many_discarded) the targets for that.
    pub(crate) fn note_discard(&self) -> bool {
        self.threshold.is_some() && self.discards.add(1) >= DISCARDS_LEAST
    }

    // ---- to calibrate ----

    /// How often it has calibrated; names the interval in which returns are recorded.
    #[inline]
    pub(crate) fn calibrations(&self) -> usize {
        self.calibrations.get()
    }

    /// Calibrates if that is due, by the returns so far or by time. Does nothing while
    /// another thread is at it. Returns whether it did.
    ///
    /// `requests` has the requests of each size class so far.
    pub(crate) fn calibrate_if_due(
        &self,
        classes: &SizeClasses,
        returns: impl FnOnce() -> Returns,
        requests: impl Iterator<Item = u64>,
    ) -> bool {
        let Some(mut state) = try_lock(&self.state) else {
            return false;
        };
        let by_time = self.is_time();
        let lately = returns().since(&self.told.seen.get());
        let over = lately.steps.iter().any(|&calls| self.is_over(calls as u64));
        if over || by_time && lately.total() >= CALLS_BY_TIME_LEAST {
            self.calibrate_from(&mut state, classes, &lately, &lately, requests);
            return true;
        }
        if by_time {
            self.restart_timer(); // counts on
        }
        false
    }

    /// Calibrates by the returns since the last of these looks, or since the last
    /// calibration, if the drop rule has discarded many of them: the sizes have risen. Does
    /// nothing while another thread is at it. Returns whether it calibrated.
    pub(crate) fn calibrate_if_many_discarded(
        &self,
        classes: &SizeClasses,
        returns: impl FnOnce() -> Returns,
        requests: impl Iterator<Item = u64>,
    ) -> bool {
        let Some(mut state) = try_lock(&self.state) else {
            return false;
        };
        let discards = self.discards.get();
        if discards < DISCARDS_LEAST {
            return false;
        }
        // Not the returns before these: the sizes were others then.
        let returns = returns();
        let risen = returns.since(&state.at_discards);
        self.look_at_discards_from(&mut state, returns);
        let left_out = DISCARDS_PART * (1.0 - self.percentile) * risen.total() as f64;
        let many = discards as f64 > left_out && risen.total() > 0;
        if many {
            let lately = returns.since(&self.told.seen.get());
            self.calibrate_from(&mut state, classes, &risen, &lately, requests);
        }
        many
    }

    /// Begins to count discards anew, after `returns`.
    fn look_at_discards_from(&self, state: &mut State, returns: Returns) {
        self.discards.set(0);
        state.at_discards = returns;
    }

    /// Calibrates by the returns since the last time, if there are any. Returns whether it did.
    pub(crate) fn calibrate(
        &self,
        classes: &SizeClasses,
        returns: impl FnOnce() -> Returns,
        requests: impl Iterator<Item = u64>,
    ) -> bool {
        let mut state = lock(&self.state);
        let lately = returns().since(&self.told.seen.get());
        let any = lately.total() > 0;
        if any {
            self.calibrate_from(&mut state, classes, &lately, &lately, requests);
        } else {
            self.restart_timer();
        }
        any
    }

    /// Makes targets from `calls`, which are some of the returns since the last time.
    fn calibrate_from(
        &self,
        state: &mut State,
        classes: &SizeClasses,
        calls: &Returns,
        lately: &Returns,
        requests: impl Iterator<Item = u64>,
    ) {
        self.restart_timer();
        // Not the counts that were read, which may be too low while threads are busy: those would
        // be counted again.
        let mut seen = self.told.seen.get();
        seen.add(lately);
        self.told.seen.set(&seen);
        self.look_at_discards_from(state, seen);
        self.calibrations.add(1);
        state.calls = calls.total();
        // At least 1: the squares are added apart from the steps, so a busy thread's may be missing.
        let per_sample = (calls.squares as f64 / state.calls as f64).max(1.0);
        let steps: [u64; STEPS] = calls.steps.map(|returns| returns as u64);
        state.targets = Targets::after(state.targets, &steps, self.percentile, per_sample);
        let Some(targets) = state.targets else {
            return;
        };
        self.aim_at(targets);
        // Retires the classes above `max_size` that the program did not ask for since the last
        // calibration, and brings back all others.
        let largest = classes.for_request(targets.max_size);
        for ((class, now), before) in classes.iter().zip(requests).zip(&mut state.requests) {
            let lately = now.saturating_sub(*before);
            *before = now.max(*before);
            let retired = class.get() > largest.get() && lately < REQUESTS_LEAST as u64;
            self.set_retired(class, retired);
        }
    }

    fn aim_at(&self, targets: Targets) {
        // Relaxed: see `default_size`.
        self.default_size
            .store(targets.default_size, Ordering::Relaxed);
        self.max_size.store(targets.max_size, Ordering::Relaxed);
    }

    fn restart_timer(&self) {
        if let Some(timer) = &self.timer {
            timer.restart();
        }
    }

    /// The present targets.
    pub(crate) fn targets(&self, classes: &SizeClasses) -> Targets {
        lock(&self.state).targets.unwrap_or(Targets {
            default_size: self.default_size(),
            max_size: classes.max(),
        })
    }

    /// The present knowledge, to begin with next time.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sizing::samples::Next;

    const STEP: usize = 4;

    fn returns(of_each_step: usize) -> Returns {
        Returns {
            steps: [of_each_step; STEPS],
            squares: of_each_step,
        }
    }

    /// A calibrator that has received `of_each_step` returns of each step, and has seen all.
    fn told_of(of_each_step: usize, threshold: u64) -> (Calibrator, SizeClasses) {
        let classes = SizeClasses::listed(&[64, 4096]).expect("they ascend");
        let config = Calibrating {
            kept_idle: Box::default(),
            threshold: Some(threshold),
            percentile: 0.95,
            interval: None,
            profile: Profile::default(),
        };
        let calibrator = Calibrator::new(config, &classes);
        calibrator.told.all.set(&returns(of_each_step));
        calibrator.told.seen.set(&returns(of_each_step));
        (calibrator, classes)
    }

    /// Where a count of 32 bits, and where a `usize`, wraps within the next few hundred
    /// returns; and at the beginning.
    const STARTS: [usize; 4] = [0, u32::MAX as usize - 100, usize::MAX - 100, usize::MAX];

    /// Records and tells as the pool does it. Returns whether that has calibrated.
    fn record(calibrator: &Calibrator, classes: &SizeClasses, samples: &Samples) -> bool {
        let is_due = samples.record(STEP, 1) == Next::Tell && calibrator.tell(samples);
        let none = std::iter::repeat(0);
        is_due && calibrator.calibrate_if_due(classes, || calibrator.told(), none)
    }

    #[test]
    fn a_count_that_wraps_is_counted_on_to_the_last_return() {
        const THRESHOLD: u64 = 300;
        for start in STARTS {
            let (calibrator, classes) = told_of(start, THRESHOLD);
            let samples = Samples::default();
            for round in 1..4 {
                for at in 1..=THRESHOLD {
                    assert!(!record(&calibrator, &classes, &samples), "{start}: {at}");
                }
                assert!(record(&calibrator, &classes, &samples), "{start}, {round}");
                assert_eq!(calibrator.profile(&classes).calls(), THRESHOLD + 1);
                assert_eq!(calibrator.targets(&classes).default_size, 64 << STEP);
                assert_eq!(calibrator.calibrations(), round);
            }
        }
    }

    #[test]
    fn a_thread_tells_when_it_has_a_sixteenth_of_the_threshold() {
        let told_at = |start| {
            let (calibrator, classes) = told_of(start, 1000);
            let samples = Samples::default();
            let tells = |&at: &usize| {
                record(&calibrator, &classes, &samples);
                samples.untold() == Returns::NONE && at < 1000
            };
            (0..1000).filter(tells).collect::<Vec<usize>>()
        };
        let expected = told_at(0);
        // And the return that is over it.
        let sixteenths = (0..1000).step_by(1000 / TOLD_PART).chain([999]);
        assert_eq!(expected, sixteenths.collect::<Vec<_>>());
        for start in STARTS {
            assert_eq!(told_at(start), expected, "{start}");
        }
    }

    // While threads are busy, a count that is read may be lower than the true one.
    #[test]
    fn a_count_that_is_read_too_low_where_it_wraps_is_none_and_not_very_many() {
        for start in STARTS {
            for (read, lately) in [(-3, 0), (-1, 0), (0, 0), (1, 1), (150, 150)] {
                let now = returns(start.wrapping_add_signed(read));
                assert_eq!(
                    now.since(&returns(start)),
                    returns(lately),
                    "{start}, {read}"
                );
            }
        }
    }
}
