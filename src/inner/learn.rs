//! Learns from buffers that come back: records, calibrates and trims.

use super::slot::Use;
use super::{BufferBox, Inner};
use crate::engine::{ClassIndex, Here};
use crate::sizing::profile::Profile;
use crate::sizing::samples::{Next, Returns, Samples};
use crate::sizing::targets::{self, Targets};

impl Inner {
    /// Records the use of a buffer that returns to a thread's cache, for the `returns` that it
    /// stands for. From time to time, calibrates and trims.
    #[inline]
    pub(super) fn record(
        &self,
        cache: &Here<BufferBox>,
        capacity: usize,
        used: Use,
        returns: usize,
    ) {
        if used.was_asked_for() {
            cache.count_requests(returns);
        }
        let notes = cache.notes();
        notes.record_use(capacity, used.most(), returns);
        match notes.record(targets::step_of(used.most()), returns) {
            Next::Nothing => {}
            next => self.look(notes, next),
        }
    }

    /// For a thread that can have no caches, as it is at its end or the heap has no room for them.
    #[cold]
    pub(super) fn record_without_caches(&self, held: ClassIndex, used: Use) {
        if used.was_asked_for() {
            self.counters(held).requests.bump();
        }
        if self.calibrator.tell_one(targets::step_of(used.most())) {
            self.calibrate_if_due();
        }
        self.engine.trim_if_due();
    }

    #[cold]
    #[inline(never)]
    fn look(&self, notes: &Samples, next: Next) {
        if next == Next::Tell && self.calibrator.tell(notes) {
            self.calibrate_if_due();
        }
        self.engine.trim_if_due();
        self.calibrate_if_time();
    }

    /// Notes that the drop rule has freed a buffer.
    pub(super) fn note_discard(&self) {
        if self.calibrator.note_discard() {
            let returns = || self.returns();
            let calibrated = self.calibrator.calibrate_if_many_discarded(
                &self.classes,
                returns,
                self.requests(),
            );
            self.after_calibration_if(calibrated);
        }
    }

    pub(super) fn calibrate_if_time(&self) {
        if self.calibrator.is_time() {
            self.calibrate_if_due();
        }
    }

    #[cold]
    fn calibrate_if_due(&self) {
        let returns = || self.returns();
        let calibrated = self
            .calibrator
            .calibrate_if_due(&self.classes, returns, self.requests());
        self.after_calibration_if(calibrated);
    }

    /// Chooses targets now, from the returns since the last calibration.
    pub(crate) fn recalibrate(&self) {
        let returns = || self.returns();
        let calibrated = self
            .calibrator
            .calibrate(&self.classes, returns, self.requests());
        self.after_calibration_if(calibrated);
    }

    /// How often buffers came back with contents of each step, since the pool was made.
    fn returns(&self) -> Returns {
        let mut returns = self.calibrator.told(); // before the rest: see there
        for notes in self.engine.notes() {
            returns.add(&notes.untold());
        }
        returns
    }

    /// How often each size class was asked for, since the pool was made.
    fn requests(&self) -> impl Iterator<Item = u64> {
        self.classes.iter().map(|class| {
            let counters = self.counters(class);
            self.engine.requests(class) + counters.requests.get() + counters.prefilled.get()
        })
    }

    /// After a calibration: makes this thread's returns to retired classes take the slow path, and
    /// its next returns samples.
    fn after_calibration_if(&self, calibrated: bool) {
        if !calibrated {
            return;
        }
        self.engine.restart_samples();
        // Not only the newly retired classes: another thread may have retired some before.
        for class in self.classes.iter() {
            if self.calibrator.is_retired(class) {
                self.engine.give_up(class);
            }
        }
    }

    pub(crate) fn default_size(&self) -> usize {
        self.calibrator.default_size()
    }

    /// The capacity to exchange a full buffer for; see
    /// [`larger_than`](crate::sizing::calibrator::Calibrator::larger_than).
    pub(crate) fn larger_than(&self, capacity: usize) -> usize {
        self.calibrator.larger_than(capacity)
    }

    pub(crate) fn targets(&self) -> Targets {
        self.calibrator.targets(&self.classes)
    }

    pub(crate) fn profile(&self) -> Profile {
        self.calibrator.profile(&self.classes)
    }
}
