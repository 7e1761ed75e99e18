//! What is learned from returns and from requests, read and decided while they come.

use super::{Begun, CLASS, Held, Pool, check, limits, spawn};
use crate::config::Calibrating;
use crate::engine::{ClassIndex, Wait};
use crate::sizing::calibrator::{Calibrator, Counted};
use crate::sizing::profile::Profile;
use crate::sizing::size_class::SizeClasses;
use crate::sizing::targets::STEPS;
use crate::sync::model::JoinHandle;
use std::sync::Arc;

const KIND: usize = 0;
const STEP: usize = 0;
/// So many come back before somebody looks.
const BATCH: u8 = 1;

fn classes() -> SizeClasses {
    SizeClasses::doubling(64, 128).unwrap()
}

/// Calibrates when it is asked to.
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

/// As the byte pool does it.
fn put(pool: &Pool, calibrator: &Calibrator, held: Held) {
    pool.put_counted(CLASS, held, KIND, |came| {
        calibrator.note_returns(STEP, came + 1);
        BATCH
    });
}

/// Reads what came back on another thread, as a calibration does.
fn read(pool: &Arc<Pool>, calibrator: &Arc<Calibrator>, begun: &Begun) -> JoinHandle<()> {
    let (pool, calibrator) = (Arc::clone(pool), Arc::clone(calibrator));
    let begun = begun.clone();
    spawn(move || {
        let told = calibrator.told()[STEP]; // first, as `Inner::returns` does
        let came = told + pool.engine.tally(Wait::ForLock).unwrap()[KIND];
        let most = begun.now();
        assert!(came <= most, "{came} of {most} returns");
    })
}

// One too many would be learned twice.
#[test]
fn calibration_races_counted_drops() {
    check(3, || {
        let (pool, calibrator) = (Pool::stocked(&limits(), 1), calibrator());
        let begun = Begun::new();
        let reader = read(&pool, &calibrator, &begun);
        for _ in 0..4 {
            let held = pool.get();
            begun.one_more();
            put(&pool, &calibrator, held);
        }
        reader.join().unwrap();
        assert_eq!(
            calibrator.told()[STEP] + pool.engine.tally(Wait::ForLock).unwrap()[KIND],
            4
        );
        pool.assert_accounted(0);
    });
}

// What goes the slow way takes the batch before its end, and the next is smaller: of the
// one as much is left as if all of the other had come.
#[test]
fn calibration_races_the_early_end_of_a_batch() {
    check(3, || {
        let (pool, calibrator) = (Pool::stocked(&limits(), 1), calibrator());
        pool.engine.next_batch(CLASS, KIND, |_| 2);
        let begun = Begun::new();
        let reader = read(&pool, &calibrator, &begun);
        for batch in [0, 1] {
            begun.one_more();
            pool.engine.next_batch(CLASS, KIND, |came| {
                calibrator.note_returns(STEP, came + 1);
                batch
            });
        }
        reader.join().unwrap();
        assert_eq!(
            calibrator.told()[STEP] + pool.engine.tally(Wait::ForLock).unwrap()[KIND],
            2
        );
        pool.assert_accounted(0);
    });
}

#[test]
fn stats_race_counted_drops() {
    check(2, || {
        let (pool, calibrator) = (Pool::stocked(&limits(), 1), calibrator());
        let (hits, returns) = (Begun::new(), Begun::new());
        returns.one_more(); // the stock
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
        for _ in 0..4 {
            hits.one_more();
            let held = pool.get();
            returns.one_more();
            put(&pool, &calibrator, held);
        }
        reader.join().unwrap();
        let levels = pool.engine.levels(CLASS);
        assert_eq!((levels.local_hits, levels.returns), (4, 5));
        pool.assert_accounted(0);
    });
}

/// So many buffers came back empty, and nobody asked for any.
struct Returned(usize);

impl Counted for Returned {
    fn returns(&self, _: Wait) -> Option<[usize; STEPS]> {
        let mut returns = [0; STEPS];
        returns[STEP] = self.0;
        Some(returns)
    }

    fn requests(&self, _: Wait, classes: &mut [u64]) -> bool {
        classes.fill(0);
        true
    }

    fn give_up(&self, _class: ClassIndex) {}
}

const LARGE: ClassIndex = ClassIndex(1);

/// A calibrator of which a class is retired.
fn retired() -> Arc<Calibrator> {
    let calibrator = calibrator();
    calibrator.calibrate(&classes(), &Returned(100));
    assert!(calibrator.is_retired(LARGE));
    calibrator
}

/// As the byte pool does it.
fn request(calibrator: &Calibrator) {
    if calibrator.is_retired(LARGE) {
        calibrator.note_requests(LARGE, 1);
    }
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

// Which of the two is later is not promised; that the next requests count is.
#[test]
fn requests_race_retirement() {
    check(4, || {
        let calibrator = retired();
        let other = Arc::clone(&calibrator);
        let requests = spawn(move || (0..2).for_each(|_| request(&other)));
        calibrator.calibrate(&classes(), &Returned(200));
        requests.join().unwrap();
        (0..2).for_each(|_| request(&calibrator));
        assert!(!calibrator.is_retired(LARGE), "retired for ever");
    });
}
