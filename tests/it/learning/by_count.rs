//! When a pool calibrates by itself after enough returns, and when the program calibrates.

use super::{
    BETWEEN_SAMPLES, EACH_SAMPLED, PERCENTILE, Watch, attach, by_count, by_hand, by_hand_of_all,
    calibrations, pure, use_one,
};
use crate::{options, rounds, sizes, total};
use bytes::{Buf, BufMut};
use std::thread;
use std::time::Duration;
use tierpool::{Builder, Histogram, Pool, PooledBuf};

// ---- on one thread ----

/// A way to return a buffer that had contents of `len` bytes.
type GiveBack = fn(&Pool, len: usize);

/// The ways, and whether their returns take the fast path. Of such returns, only samples are
/// recorded.
const WAYS: [(&str, bool, GiveBack); 6] = [
    ("written", true, |pool, len| use_one(pool, len, len)),
    ("of one large class", true, |pool, len| {
        use_one(pool, 1 << 20, len)
    }),
    ("frozen", true, |pool, len| {
        let mut buf = pool.get(len);
        buf.put_bytes(7, len);
        drop(buf.freeze());
    }),
    ("advanced", false, |pool, len| {
        let mut buf = pool.get(len.max(2));
        buf.put_bytes(7, len.max(2));
        buf.advance(1);
    }),
    ("split, and the part dropped", true, |pool, len| {
        let mut buf = pool.get(len.max(2));
        buf.put_bytes(7, len.max(2));
        drop(buf.split_to(len.max(2) / 2));
    }),
    ("oversize", false, |pool, len| {
        use_one(pool, (1 << 20) + 1, len)
    }),
];

/// Lets a pool calibrate several times, each time after `threshold + 1` returns, or up to `late`
/// more.
fn assert_calibrates_after(threshold: u64, late: u64, name: &str, pool: &Pool, way: GiveBack) {
    assert_eq!((calibrations(pool), pool.profile().calls()), (0, 0));
    attach(pool);
    // Neighbours differ, so that each calibration has a visible effect.
    let lengths = [0, 65, 1, 128, 64, 1000, 5000, 129];
    let all = if threshold > 1000 { 3 } else { lengths.len() };
    let mut watch = Watch::new();
    // Counted from the last calibration on.
    let mut returns = 0;
    for len in lengths.into_iter().take(all) {
        let made = loop {
            way(pool, len);
            returns += 1;
            if let Some(made) = watch.next(pool) {
                break made;
            }
            let case = format!("{name}, {len}: {returns} of {threshold}");
            assert!(returns <= threshold + late, "{case}: late");
        };
        let case = format!("{name}, {len}: {returns} of {threshold}");
        assert!(returns > threshold, "{case}: early");
        assert_eq!(made, returns, "{case}: from all returns");
        assert_eq!(pool.targets(), pure([len]), "{case}");
        returns = 0;
    }
}

#[test]
fn one_thread_and_one_size_calibrate_at_the_return_after_the_threshold() {
    for threshold in [0, 1, 2, 30, 100, 254, 255, 256, 257, 511, 512, 513] {
        if crate::SLOW && ![0, 1, 30, 256].contains(&threshold) {
            continue;
        }
        for (name, is_fast, way) in WAYS {
            // Up to this threshold, each return is a sample.
            let late = match is_fast && threshold >= EACH_SAMPLED {
                true => BETWEEN_SAMPLES,
                false => 0,
            };
            let pool = by_count(threshold).build().unwrap();
            assert_calibrates_after(threshold, late, name, &pool, way);
            // Each return that does not take the fast path is a sample.
            let of_all = |builder: Builder| {
                let pool = builder.build().unwrap();
                assert_calibrates_after(threshold, 0, name, &pool, way);
            };
            of_all(by_count(threshold).zero_on_return(true));
            // All buffers go through the depot.
            of_all(by_count(threshold).thread_cache_bytes(0));
            // All buffers are freed.
            of_all(by_count(threshold).retain_bytes(0));
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too many returns")]
fn the_default_threshold_is_42_000_returns() {
    let options = || options(&super::CLASSES).calibrate_interval(None);
    let way: GiveBack = |pool, len| use_one(pool, 5000, len);
    let pool = options().build().unwrap();
    assert_calibrates_after(42_000, BETWEEN_SAMPLES, "by default", &pool, way);
    let pool = options().thread_cache_bytes(0).build().unwrap();
    assert_calibrates_after(42_000, 0, "each looked at", &pool, way);
}

#[test]
fn lengths_are_counted_in_steps_that_end_with_powers_of_two() {
    for (len, step) in [
        (0, 64),
        (64, 64),
        (65, 128),
        (128, 128),
        (4096, 4096),
        (4097, 8192),
        (1 << 20, 1 << 20),
        ((1 << 20) + 1, 2 << 20),
        (3 << 20, 4 << 20),
    ] {
        let pool = by_count(2).build().unwrap();
        for _ in 0..3 {
            use_one(&pool, 0, len); // grows through the classes and above them
        }
        assert_eq!(pool.profile().calls(), 3, "{len}");
        assert_eq!(sizes(pool.targets()), (step, step), "{len}");
    }
}

// If more buffers are outstanding than the cache holds, some returns take the fast path and some do
// not.
#[test]
fn bursts_larger_than_the_cache_calibrate_after_the_threshold() {
    let thresholds = [30_u64, 100, 700, 1000, 3001];
    for &threshold in &thresholds[..rounds(5, 2)] {
        for burst in [65, 100, 300] {
            let pool = by_count(threshold).build().unwrap();
            let mut returns = 0_u64;
            let mut watch = Watch::new();
            let mut calibrations = 0;
            while calibrations < 3 {
                let held: Vec<PooledBuf> = (0..burst)
                    .map(|_| {
                        let mut buf = pool.get(64);
                        buf.put_bytes(7, 50);
                        buf
                    })
                    .collect();
                for buf in held {
                    drop(buf);
                    returns += 1;
                    let case = format!("{returns} of {threshold}, {burst} at once");
                    if let Some(made) = watch.next(&pool) {
                        // Returns on the fast path that came before another return are left to the
                        // next sample, which counts them in the next interval.
                        assert!(made > threshold, "{case}");
                        assert!(returns + BETWEEN_SAMPLES > threshold, "{case}: early");
                        assert!(made <= returns + BETWEEN_SAMPLES, "{case}: {made}");
                        returns = 0;
                        calibrations += 1;
                    }
                    assert!(returns <= threshold + BETWEEN_SAMPLES, "{case}: late");
                }
            }
        }
    }
}

// The returns of a retired class take another path than before.
#[test]
fn a_class_that_is_retired_meanwhile_calibrates_after_the_threshold() {
    const THRESHOLD: u64 = 500;
    for fast in [0, 1, 30, 100, 254] {
        let pool = by_count(THRESHOLD).build().unwrap();
        (0..fast).for_each(|_| use_one(&pool, 1 << 20, 1000));
        // The second calibration retires the class: no caller requested it since the first.
        pool.recalibrate();
        use_one(&pool, 5000, 1000);
        pool.recalibrate();
        assert_eq!(pool.profile().calls(), 1);
        let mut watch = Watch::new();
        watch.next(&pool);
        let mut returns = 0;
        let made = loop {
            use_one(&pool, 1 << 20, 1000);
            returns += 1;
            if let Some(made) = watch.next(&pool) {
                break made;
            }
            assert!(returns <= THRESHOLD + BETWEEN_SAMPLES, "{fast}: late");
        };
        // Of the returns before the first calibration, the next sample counts those that came after
        // the last sample.
        let before = if fast < EACH_SAMPLED {
            0
        } else {
            BETWEEN_SAMPLES
        };
        assert!(
            made > THRESHOLD && made <= returns + before,
            "{fast}: {made}"
        );
        assert!(returns + before > THRESHOLD, "{fast}: early");
    }
}

#[test]
fn an_explicit_calibration_restarts_the_count() {
    const THRESHOLD: u64 = 600;
    for before in (0..900).step_by(rounds(37, 300)) {
        // Each return is a sample.
        let pool = by_count(THRESHOLD).thread_cache_bytes(0).build().unwrap();
        (0..before).for_each(|_| use_one(&pool, 100, 100));
        let before = if before > THRESHOLD {
            before - THRESHOLD - 1
        } else {
            before
        };
        pool.recalibrate();
        if before > 0 {
            assert_eq!(pool.profile().calls(), before);
        }
        let made = calibrations(&pool);
        for returns in 1..=THRESHOLD {
            use_one(&pool, 1000, 1000);
            assert_eq!(
                calibrations(&pool),
                made,
                "{before} before, {returns} since"
            );
        }
        use_one(&pool, 1000, 1000);
        assert_eq!(calibrations(&pool), made + 1);
        assert_eq!(pool.profile().calls(), THRESHOLD + 1);
        assert_eq!(pool.targets(), pure([1000]));
    }
}

#[test]
fn each_class_delays_a_calibration_by_at_most_the_returns_between_two_samples() {
    // The lengths are in one step: in several classes, and without contents in the first case.
    let some: [&[(usize, usize)]; 4] = [
        &[(200, 150), (1024, 150)],
        &[(200, 150), (1024, 160), (5000, 170), (65_536, 180)],
        &[(64, 0), (64, 64)],
        &[(64, 0), (64, 1), (1024, 0), (1024, 64)],
    ];
    for uses in some {
        for threshold in [0_u64, 1, 30, 100, 256, 1000] {
            let late = match threshold < EACH_SAMPLED {
                true => 0,
                false => BETWEEN_SAMPLES * uses.len() as u64,
            };
            let pool = by_count(threshold).build().unwrap();
            let mut watch = Watch::new();
            let (mut returns, mut calibrations) = (0_u64, 0);
            // Alternating, and in long runs.
            for at in 0..rounds(12_000, 1500) {
                let at = if at < 6000 { at } else { at / 77 };
                let (request, len) = uses[at % uses.len()];
                use_one(&pool, request, len);
                returns += 1;
                if let Some(made) = watch.next(&pool) {
                    assert!(
                        made > threshold && returns + late > threshold,
                        "early: {returns}"
                    );
                    assert!(made.abs_diff(returns) <= late, "{made}, {returns}");
                    returns = 0;
                    calibrations += 1;
                }
                assert!(returns <= threshold + late, "{returns}, {threshold}");
            }
            assert!(calibrations > 0);
        }
    }
}

#[test]
fn several_steps_calibrate_when_one_of_them_has_had_more_than_the_threshold() {
    // Three of four returns are in one step.
    for threshold in [3_u64, 20, 100, 257, 1000] {
        // A pool in which each return is a sample.
        let pool = by_count(threshold).thread_cache_bytes(0).build().unwrap();
        let mut lengths = Vec::new();
        let mut frequent = 0;
        while calibrations(&pool) == 0 {
            assert!(frequent <= threshold, "late: {frequent}");
            let len = [150, 200, 1000, 250][lengths.len() % 4];
            use_one(&pool, 1024, len);
            lengths.push(len);
            frequent += u64::from(len != 1000);
        }
        assert_eq!(frequent, threshold + 1);
        assert_eq!(pool.profile().calls(), lengths.len() as u64);
        assert_eq!(pool.targets(), pure(lengths));
    }
}

#[test]
fn a_threshold_that_is_never_passed_keeps_counting() {
    let pool = by_hand();
    let returns = rounds(3000, 600) as u64;
    (0..returns).for_each(|_| use_one(&pool, 100, 100));
    assert_eq!((calibrations(&pool), pool.profile().calls()), (0, 0));
    pool.recalibrate();
    let calls = pool.profile().calls();
    assert!(
        (returns - BETWEEN_SAMPLES..=returns).contains(&calls),
        "{calls}"
    );
}

#[test]
fn a_pool_that_does_not_learn_calibrates_only_on_request() {
    let builder = by_count(10).learn_sizes(false);
    // Not by time, either.
    let builder = builder.calibrate_interval(Duration::from_millis(1));
    let pool = builder.build().unwrap();
    let returns = rounds(2000, 600) as u64;
    (0..returns).for_each(|_| use_one(&pool, 100, 100));
    thread::sleep(Duration::from_millis(30));
    (0..returns).for_each(|_| use_one(&pool, 100, 100));
    assert_eq!((calibrations(&pool), pool.profile().calls()), (0, 0));
    assert_eq!(pool.get_default().capacity(), 5000);
    let made = pool.recalibrate(); // all returns so far, including the one of `get_default`
    assert_eq!(made, pure([100]));
    let (calls, all) = (pool.profile().calls(), 2 * returns + 1);
    assert!((all - BETWEEN_SAMPLES..=all).contains(&calls), "{calls}");
}

#[test]
fn a_calibration_without_a_return_changes_nothing() {
    let pool = by_hand();
    let before = pool.targets();
    assert_eq!(pool.recalibrate(), before);
    assert_eq!((calibrations(&pool), pool.profile().calls()), (0, 0));
    use_one(&pool, 100, 100);
    assert_eq!(pool.recalibrate(), pure([100]));
    assert_eq!((calibrations(&pool), pool.profile().calls()), (1, 1));
    let _out = pool.get(1 << 20);
    drop(pool.get(64).detach());
    assert_eq!(pool.recalibrate(), pure([100]));
    assert_eq!((calibrations(&pool), pool.profile().calls()), (1, 1));
}

#[test]
fn the_percentile_is_the_builders() {
    for (percentile, max_size) in [
        (0.0, 128),
        (0.5, 128),
        (0.7, 1024),
        (0.95, 4096),
        (1.0, 65_536),
    ] {
        let pool = by_count(u64::MAX)
            .thread_cache_bytes(0) // each return is a sample
            .calibrate_percentile(percentile)
            .build()
            .unwrap();
        for (len, count) in [(100, 70), (1000, 20), (4000, 9), (60_000, 1)] {
            (0..count).for_each(|_| use_one(&pool, len, len));
        }
        assert_eq!(sizes(pool.recalibrate()), (128, max_size), "{percentile}");
    }
}

// ---- later calibrations ----

#[test]
fn a_target_changes_only_after_a_clear_change() {
    let pool = by_hand_of_all();
    let after = |uses: &[(usize, usize)]| {
        for &(len, count) in uses {
            (0..count).for_each(|_| use_one(&pool, len, len));
        }
        sizes(pool.recalibrate())
    };
    assert_eq!(after(&[(100, 10000)]), (128, 128));
    // 6 % raise the maximum at once. The default changes only with a lead of more than a quarter.
    assert_eq!(after(&[(100, 9400), (1000, 600)]), (128, 1024));
    assert_eq!(after(&[(100, 4500), (1000, 5500)]), (128, 1024));
    assert_eq!(after(&[(100, 4000), (1000, 6000)]), (1024, 1024));
    assert_eq!(after(&[(100, 5500), (1000, 4500)]), (1024, 1024));
    // The maximum is lowered if less than half of 5 % need it, and no earlier.
    assert_eq!(after(&[(100, 9600), (1000, 400)]), (128, 1024));
    assert_eq!(after(&[(100, 9900), (1000, 100)]), (128, 128));
    // 0.95 leaves out 4 %, and 0.975 does not.
    assert_eq!(after(&[(100, 6000), (60_000, 4000)]), (128, 65_536));
    assert_eq!(
        after(&[(100, 9300), (1000, 400), (60_000, 300)]),
        (128, 65_536)
    );
    assert_eq!(
        after(&[(100, 9500), (1000, 400), (60_000, 100)]),
        (128, 1024)
    );
}

#[test]
fn calibrations_by_count_keep_a_target_without_a_clear_change() {
    const THRESHOLD: u64 = 999;
    let pool = by_count(THRESHOLD).thread_cache_bytes(0).build().unwrap();
    // This many of a hundred returns are large, until one step has passed the threshold.
    for (large, expected) in [
        (0, (128, 128)),
        (6, (128, 4096)),
        (4, (128, 4096)),
        (0, (128, 128)),
        (40, (128, 4096)),
        (45, (128, 4096)),
        (55, (128, 4096)), // 55 are less than 5/4 of 45
        (60, (4096, 4096)),
        (45, (4096, 4096)),
        (20, (128, 4096)),
        (3, (128, 4096)),
        (0, (128, 128)),
    ] {
        let mut lengths = Histogram::new();
        let before = calibrations(&pool);
        let mut at = 0;
        while calibrations(&pool) == before {
            // Spread evenly, so that the share is the same at any end.
            let len = if (at * large) % 100 < large {
                3000
            } else {
                100
            };
            use_one(&pool, 5000, len);
            lengths.record(len);
            at += 1;
        }
        assert_eq!(sizes(pool.targets()), expected, "{large}");
        assert_eq!(pool.profile().calls(), lengths.calls());
        // The pure function would have changed both targets.
        assert!(expected.1 >= lengths.targets(PERCENTILE).unwrap().max_size);
    }
}

// ---- sizes that rise ----

/// A pool with the calibrations by count of the default options.
fn rising() -> Builder {
    options(&[512, 1024, 4096, 16_384]).calibrate_interval(None)
}

/// A pool whose last calibration was from returns of 600 bytes.
fn calibrated_by_600() -> Pool {
    let pool = rising().build().unwrap();
    while calibrations(&pool) == 0 {
        use_one(&pool, 64, 600);
    }
    assert_eq!(pool.targets(), pure([600]));
    pool
}

/// Uses a buffer that grows to `len` bytes in pieces.
fn grow_one(pool: &Pool, len: usize) {
    let mut buf = pool.get(64);
    while buf.len() < len {
        buf.extend_from_slice(&[1; 512]);
    }
}

// Failed once: the buffers were freed until the next calibration by count, 42,001 of them.
#[test]
fn a_rise_in_size_is_learned_after_a_few_hundred_discards() {
    // The last calibration is recent in the first case, and long ago in the last.
    for returns in [0, 18_000, 40_000] {
        let pool = calibrated_by_600();
        (0..returns).for_each(|_| use_one(&pool, 64, 600));
        let before = total(&pool);
        (0..2000).for_each(|_| grow_one(&pool, 7000));
        let after = total(&pool);
        assert_eq!(pool.targets(), pure([7168]));
        let discards = after.discards.above_max - before.discards.above_max;
        assert!(discards <= 512, "{discards}, {returns}");
        let misses = after.misses - before.misses;
        // In addition, one miss for each class on the way.
        assert!(misses <= discards + 3, "{misses}, {discards}, {returns}");
        let before = after;
        (0..100).for_each(|_| grow_one(&pool, 7000));
        assert_eq!(total(&pool).misses, before.misses);
    }
}

#[test]
fn a_rising_share_is_learned_if_it_is_clearly_above_the_percentile() {
    // Below 10 %, the next calibration by count decides.
    for (each, learned) in [(2, true), (5, true), (9, true), (12, false), (20, false)] {
        let pool = calibrated_by_600();
        for at in 0..20_000 {
            match at % each {
                0 => grow_one(&pool, 7000),
                _ => use_one(&pool, 64, 600),
            }
        }
        assert_eq!(calibrations(&pool) > 1, learned, "each {each}th");
        if learned {
            assert_eq!(pool.targets().max_size, 8192, "each {each}th");
        }
    }
}

#[test]
fn a_pool_that_does_not_learn_goes_on_discarding() {
    let pool = rising()
        .profile(calibrated_by_600().profile())
        .learn_sizes(false)
        .build()
        .unwrap();
    (0..1000).for_each(|_| grow_one(&pool, 7000));
    assert_eq!((calibrations(&pool), pool.targets()), (0, pure([600])));
    assert_eq!(total(&pool).discards.above_max, 1000);
}
