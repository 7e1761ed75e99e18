//! When a pool calibrates because time has passed.

use super::{BETWEEN_SAMPLES, by_count, calibrations, pure, untold, use_one, wait_until};
use crate::{rounds, total};
use std::thread;
use std::time::{Duration, Instant};
use tierpool::Builder;

/// Options for a pool that may calibrate after a millisecond.
fn by_time() -> Builder {
    by_count(u64::MAX).calibrate_interval(Duration::from_millis(1))
}

#[test]
fn a_quiet_program_calibrates_by_time_in_a_return() {
    for thread_cache_bytes in [0, usize::MAX] {
        let pool = by_time()
            .thread_cache_bytes(thread_cache_bytes)
            .build()
            .unwrap();
        let mut returns = 0;
        wait_until(|| {
            // Under Miri, time passes only with work.
            (0..10).for_each(|_| use_one(&pool, 100, 100));
            returns += 10;
            calibrations(&pool) > 0
        });
        let calls = pool.profile().calls();
        assert!((1000..=returns).contains(&calls), "{calls}, {returns}");
        assert_eq!(pool.targets(), pure([100]));
        // It calibrates again after more returns.
        wait_until(|| {
            (0..10).for_each(|_| use_one(&pool, 1000, 1000));
            pool.targets() == pure([1000])
        });
        assert!(pool.profile().calls() >= 1000);
    }
}

#[test]
fn fewer_than_1000_returns_do_not_calibrate_by_time_and_stay_counted() {
    // Each return takes the slow path, and reads the clock.
    let pool = by_time().thread_cache_bytes(0).build().unwrap();
    for returns in 0..999 {
        if returns % 100 == 0 {
            thread::sleep(Duration::from_millis(20));
        }
        use_one(&pool, 100, 100);
        assert_eq!(calibrations(&pool), 0, "after {returns}");
    }
    let mut returns = 999;
    wait_until(|| {
        use_one(&pool, 100, 100);
        returns += 1;
        calibrations(&pool) > 0
    });
    assert_eq!(pool.profile().calls(), returns);
}

// Each return comes later than the interval after the one before. So only the returns that are not
// samples delay the calibration.
#[test]
#[cfg_attr(miri, ignore = "Miri takes long for so many returns")]
fn a_program_with_few_returns_calibrates_by_time_soon_after_the_1000th() {
    // The returns between two samples, and between four earlier ones: each fourth sample reads the
    // clock.
    let fast = BETWEEN_SAMPLES + untold(1000 + BETWEEN_SAMPLES);
    for (thread_cache_bytes, late) in [(usize::MAX, fast), (0, untold(1000))] {
        let builder = by_time().thread_cache_bytes(thread_cache_bytes);
        let pool = builder.build().unwrap();
        let lengths: Vec<usize> = (0..8).map(|step| 64 << step).collect();
        let mut uses = lengths.iter().cycle();
        let mut use_next = || use_one(&pool, 20_000, *uses.next().unwrap());
        (0..1000).for_each(|_| use_next());
        let mut more = 0;
        while calibrations(&pool) == 0 {
            assert!(more <= late, "{more}: late, {thread_cache_bytes}");
            thread::sleep(Duration::from_millis(2));
            use_next();
            more += 1;
        }
        assert!(pool.profile().calls() >= 1000);
    }
}

#[test]
fn too_few_returns_wait_for_another_interval() {
    const INTERVAL: Duration = Duration::from_millis(500);
    let pool = by_count(u64::MAX)
        .calibrate_interval(INTERVAL)
        .thread_cache_bytes(0)
        .build()
        .unwrap();
    (0..500).for_each(|_| use_one(&pool, 100, 100));
    thread::sleep(INTERVAL + Duration::from_millis(100));
    let begin = Instant::now();
    (0..rounds(1000, 60)).for_each(|_| use_one(&pool, 100, 100));
    let calibrated = calibrations(&pool) > 0;
    // If these returns took as long as the interval, the test shows nothing.
    if begin.elapsed() < INTERVAL / 2 {
        assert!(
            !calibrated,
            "there are enough returns now, but not at the first look"
        );
    }
    wait_until(|| {
        use_one(&pool, 100, 100);
        calibrations(&pool) > 0
    });
    assert!(calibrated || pool.profile().calls() > 500 + rounds(1000, 60) as u64);
}

#[test]
#[cfg_attr(miri, ignore = "Miri waits for no thread that sleeps")]
fn a_quiet_program_calibrates_in_the_background() {
    let pool = by_time()
        .thread_cache_bytes(0) // each return is a sample
        .trim_interval(Duration::from_millis(1))
        .background_trim(true)
        .build()
        .unwrap();
    (0..999).for_each(|_| use_one(&pool, 100, 100));
    // The background thread has trimmed, and has not calibrated.
    wait_until(|| total(&pool).retained_buffers == 0);
    thread::sleep(Duration::from_millis(30));
    assert_eq!(calibrations(&pool), 0);
    use_one(&pool, 100, 100);
    wait_until(|| calibrations(&pool) > 0);
    assert_eq!(pool.profile().calls(), 1000);
    assert_eq!(pool.targets(), pure([100]));
}

// Not in a return: the returns are over long before the interval is, unless the machine is slow.
#[test]
#[cfg_attr(miri, ignore = "Miri waits for no thread that sleeps")]
fn a_program_without_further_returns_calibrates_in_the_background() {
    let pool = by_count(u64::MAX)
        .calibrate_interval(Duration::from_millis(400))
        .trim_interval(Duration::from_millis(1))
        .background_trim(true)
        .build()
        .unwrap();
    (0..1500).for_each(|_| use_one(&pool, 100, 100));
    wait_until(|| calibrations(&pool) > 0);
    assert_eq!(pool.targets(), pure([100]));
}

#[test]
fn without_an_interval_nothing_calibrates_by_time() {
    for background in [false, true] {
        if background && cfg!(miri) {
            continue;
        }
        let pool = by_count(u64::MAX)
            .thread_cache_bytes(0)
            .trim_interval(Duration::from_millis(1))
            .background_trim(background)
            .build()
            .unwrap();
        (0..200).for_each(|_| use_one(&pool, 100, 100));
        thread::sleep(Duration::from_millis(30));
        (0..200).for_each(|_| use_one(&pool, 100, 100));
        assert_eq!(calibrations(&pool), 0);
        pool.recalibrate();
        assert_eq!(pool.profile().calls(), 400);
    }
}
