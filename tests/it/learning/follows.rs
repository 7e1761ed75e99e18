//! The effects of a pool's targets: the default size, and the growth of guards.

use super::{by_hand, use_one};
use crate::{options, sizes};
use bytes::BufMut;
use tierpool::Pool;

#[test]
fn get_default_hands_out_the_most_frequent_size() {
    let pool = by_hand();
    let default = |pool: &Pool| pool.get_default().capacity();
    assert_eq!(default(&pool), 5000); // 4096 bytes
    assert_eq!(sizes(pool.targets()), (4096, 1 << 20));
    pool.recalibrate();
    for (len, capacity) in [
        (10, 64),
        (65, 200),
        (200, 1024), // a step of 256 bytes
        (1000, 1024),
        (1025, 5000),
        (4097, 65_536), // a step of 8192
        (600_000, 1 << 20),
        ((1 << 20) + 1, 2 << 20), // of no class
        (100, 200),
    ] {
        (0..10).for_each(|_| use_one(&pool, len, len));
        pool.recalibrate();
        assert_eq!(default(&pool), capacity, "{len}");
        let mut buf = pool.get_default();
        assert!(buf.is_empty());
        buf.put_bytes(7, len);
        assert_eq!(buf.capacity(), capacity, "its capacity is the class's");
        drop(buf.detach()); // counts nothing
        pool.recalibrate();
    }
}

#[test]
fn before_the_first_calibration_the_default_is_4096_bytes_or_the_largest_class() {
    let default = |classes: &[usize]| {
        let pool = options(classes).build().unwrap();
        let targets = pool.targets();
        assert_eq!(
            pool.get_default().capacity(),
            pool.get(targets.default_size).capacity()
        );
        assert_eq!(Some(&targets.max_size), classes.last());
        (targets.default_size, pool.get_default().capacity())
    };
    assert_eq!(default(&[100, 1000]), (1000, 1000));
    assert_eq!(default(&[4095]), (4095, 4095));
    assert_eq!(default(&[4095, 4097]), (4096, 4097));
    assert_eq!(default(&[10_000]), (4096, 10_000));
    assert_eq!(Pool::default().get_default().capacity(), 4096);
}

/// The capacities of a guard that is filled byte by byte.
fn steps(pool: &Pool, request: usize, len: usize) -> Vec<usize> {
    let mut buf = pool.get(request);
    let mut steps = vec![buf.capacity()];
    while buf.len() < len {
        let spare = buf.capacity() - buf.len();
        buf.put_bytes(7, (spare + 1).min(len - buf.len()));
        if buf.capacity() != *steps.last().unwrap() {
            steps.push(buf.capacity());
        }
    }
    drop(buf.detach()); // counts nothing
    steps
}

#[test]
fn a_guard_grows_to_the_maximum_first_and_then_by_a_large_factor() {
    let classes: Vec<usize> = (6..=21).map(|bits| 1 << bits).collect();
    let pool = options(&classes)
        .calibrate_after(u64::MAX)
        .calibrate_interval(None)
        .build()
        .unwrap();
    let calibrate = |uses: &[(usize, usize)]| {
        for &(len, count) in uses {
            (0..count).for_each(|_| use_one(&pool, len, len));
        }
        sizes(pool.recalibrate())
    };
    const KIB: usize = 1024;
    // Before a calibration, it grows eightfold.
    assert_eq!(
        steps(&pool, 0, 40_000),
        [64, 512, 4 * KIB, 32 * KIB, 256 * KIB]
    );
    assert_eq!(calibrate(&[(2000, 90), (30_000, 10)]), (2 * KIB, 32 * KIB));
    // To the maximum at once, but at most eightfold; from there by a factor of 32.
    assert_eq!(
        steps(&pool, 0, 33_000),
        [64, 512, 4 * KIB, 32 * KIB, 1024 * KIB]
    );
    assert_eq!(steps(&pool, 4 * KIB, 4 * KIB + 1), [4 * KIB, 32 * KIB]);
    assert_eq!(steps(&pool, 1025, 2049), [2 * KIB, 16 * KIB]);
    assert_eq!(steps(&pool, 16 * KIB, 20_000), [16 * KIB, 32 * KIB]);
    assert_eq!(steps(&pool, 64 * KIB, 70_000), [64 * KIB, 2 << 20]);
    // To the largest class while the contents fit, and then it doubles.
    assert_eq!(
        steps(&pool, 256 * KIB, 3 << 20),
        [256 * KIB, 2 << 20, 4 << 20]
    );
    // A single large write is one step.
    let mut buf = pool.get(0);
    buf.put_bytes(7, 5000);
    assert_eq!(buf.capacity(), 8 * KIB);
    buf.put_bytes(7, 100_000);
    assert_eq!(buf.capacity(), 128 * KIB);
    drop(buf.detach());
    // `reserve` gives as much as requested, and no more.
    let mut buf = pool.get(0);
    buf.reserve(65);
    assert_eq!(buf.capacity(), 128);
    drop(buf.detach());
    // Both targets are the same.
    assert_eq!(calibrate(&[(200, 100)]), (256, 256));
    assert_eq!(steps(&pool, 0, 5000), [64, 256, 8 * KIB]);
    // The maximum is below the next class, and the default is in the smallest.
    assert_eq!(calibrate(&[(10, 90), (100, 10)]), (64, 128));
    assert_eq!(steps(&pool, 0, 200), [64, 128, 4 * KIB]);
}

#[test]
fn growth_takes_the_classes_above_targets_that_are_no_classes() {
    let pool = by_hand(); // 64, 200, 1024, 5000, 65,536, 1 MiB
    (0..90).for_each(|_| use_one(&pool, 64, 2000));
    (0..10).for_each(|_| use_one(&pool, 64, 3 << 20));
    assert_eq!(sizes(pool.recalibrate()), (2048, 4 << 20));
    // Eightfold to the next class each time, and to the largest class.
    assert_eq!(steps(&pool, 0, 70_000), [64, 1024, 65_536, 1 << 20]);
    (0..100).for_each(|_| use_one(&pool, 0, 3 << 20));
    assert_eq!(sizes(pool.recalibrate()), (4 << 20, 4 << 20));
    assert_eq!(steps(&pool, 0, 65), [64, 1024]);
    assert_eq!(
        steps(&pool, 0, (1 << 20) + 1),
        [64, 1024, 65_536, 1 << 20, 2 << 20]
    );
    assert_eq!(pool.get_default().capacity(), 4 << 20);
}
