//! Returns and requests that threads record while others read them and calibrate.

use super::{Begun, Pool, check, limits, spawn};
use crate::config::Calibrating;
use crate::engine::ClassIndex;
use crate::models::CLASS;
use crate::sizing::calibrator::Calibrator;
use crate::sizing::profile::Profile;
use crate::sizing::samples::{Returns, Samples};
use crate::sizing::size_class::SizeClasses;
use std::sync::Arc;

const STEP: usize = 0;

fn classes() -> SizeClasses {
    SizeClasses::doubling(64, 128).unwrap()
}

/// A calibrator for explicit calibrations only.
fn calibrator() -> Arc<Calibrator> {
    let config = Calibrating {
        kept_idle: Box::default(),
        threshold: None,
        percentile: 0.95,
        interval: None,
        profile: Profile::default(),
    };
    Arc::new(Calibrator::new(config, &classes()))
}

/// All returns of one thread, as a calibration reads them.
fn returns(calibrator: &Calibrator, samples: &Samples) -> usize {
    let mut returns = calibrator.told(); // first, as `Inner::returns` does
    returns.add(&samples.untold());
    returns.steps[STEP]
}

// A return that is counted twice would be learned twice.
#[test]
pub(super) fn calibration_races_a_thread_that_tells() {
    check(3, || {
        let (calibrator, samples) = (calibrator(), Arc::new(Samples::default()));
        let begun = Begun::new();
        let reader = {
            let (calibrator, samples) = (Arc::clone(&calibrator), Arc::clone(&samples));
            let begun = begun.clone();
            spawn(move || {
                let came = returns(&calibrator, &samples);
                let most = begun.now();
                assert!(came <= most, "{came} of {most} returns");
            })
        };
        for _ in 0..2 {
            begun.one_more();
            samples.record(STEP, 1);
            calibrator.tell(&samples);
        }
        reader.join().unwrap();
        assert_eq!(returns(&calibrator, &samples), 2);
    });
}

#[test]
fn stats_race_counted_drops() {
    check(2, || {
        let pool = Pool::stocked(&limits(), 1);
        let (hits, returns) = (Begun::new(), Begun::new());
        returns.one_more(); // the stocked item
        let reader = {
            let pool = Arc::clone(&pool);
            let (hits, returns) = (hits.clone(), returns.clone());
            spawn(move || {
                let levels = pool.engine.levels(CLASS);
                let (hits, returns) = (hits.now() as u64, returns.now() as u64);
                assert!(levels.local_hits <= hits, "more hits than there were");
                assert!(levels.returns <= returns, "more returns than there were");
                assert!(levels.idle_items <= 1, "more idle items than there are");
            })
        };
        // Four returns on the fast path, except for a sample.
        for _ in 0..4 {
            hits.one_more();
            let held = pool.get();
            returns.one_more();
            pool.put(held);
        }
        reader.join().unwrap();
        let levels = pool.engine.levels(CLASS);
        assert_eq!((levels.local_hits, levels.returns), (4, 5));
        pool.assert_accounted(0);
    });
}

/// Calibrates from the return of `came` empty buffers that no one asked for.
fn calibrate(calibrator: &Calibrator, came: usize) {
    let mut returns = Returns::NONE;
    returns.steps[STEP] = came;
    calibrator.calibrate(&classes(), || returns, std::iter::repeat(0));
}

const LARGE: ClassIndex = ClassIndex(1);

/// A calibrator with a retired class.
fn retired() -> Arc<Calibrator> {
    let calibrator = calibrator();
    calibrate(&calibrator, 100);
    assert!(calibrator.is_retired(LARGE));
    calibrator
}

/// Requests in the order of steps that the byte pool uses.
fn request(calibrator: &Calibrator) {
    calibrator.note_requests(LARGE, 1);
}

#[test]
fn request_races_request_of_a_retired_class() {
    check(6, || {
        let calibrator = retired();
        let other = Arc::clone(&calibrator);
        let second = spawn(move || request(&other));
        request(&calibrator);
        second.join().unwrap();
        assert!(!calibrator.is_retired(LARGE), "a request was not counted");
    });
}

// It is not promised which of the two is later, but the next requests do count.
#[test]
fn requests_race_retirement() {
    check(4, || {
        let calibrator = retired();
        let other = Arc::clone(&calibrator);
        let requests = spawn(move || (0..2).for_each(|_| request(&other)));
        calibrate(&calibrator, 200);
        requests.join().unwrap();
        (0..2).for_each(|_| request(&calibrator));
        assert!(!calibrator.is_retired(LARGE), "retired for ever");
    });
}
