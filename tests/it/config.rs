//! The options that `build` refuses, its error messages, and limits of 0 and without end.

use crate::{assert_accounts_balance, class, options, total};
use bytes::BytesMut;
use std::time::Duration;
use tierpool::{Builder, ConfigError, Counts, Pool, PooledBuf};

fn refusal(builder: Builder) -> ConfigError {
    builder.build().expect_err("the configuration is invalid")
}

/// Asserts which error `build` returns, and its message.
#[track_caller]
fn assert_refused(builder: Builder, is: impl FnOnce(&ConfigError) -> bool, text: &str) {
    let error = refusal(builder);
    assert!(is(&error), "{error:?}");
    assert_eq!(error.to_string(), text);
}

#[test]
fn a_minimum_of_0_is_refused_by_name() {
    assert_refused(
        Pool::builder().min_size(0),
        |error| {
            matches!(
                error,
                ConfigError::Zero {
                    field: "min_size",
                    ..
                }
            )
        },
        "min_size is 0 bytes: no buffer is that small; use 1 or more",
    );
    assert_refused(
        Pool::builder().min_size(0).max_size(4096),
        |error| {
            matches!(
                error,
                ConfigError::Zero {
                    field: "min_size",
                    ..
                }
            )
        },
        "min_size is 0 bytes: no buffer is that small; use 1 or more",
    );
}

#[test]
fn a_maximum_of_0_is_refused_by_name() {
    assert_refused(
        Pool::builder().max_size(0),
        |error| {
            matches!(
                error,
                ConfigError::Zero {
                    field: "max_size",
                    ..
                }
            )
        },
        "max_size is 0 bytes: no buffer is that small; use 1 or more",
    );
}

#[test]
fn a_class_of_0_is_refused_by_name() {
    assert_refused(
        Pool::builder().classes([0, 512]),
        |error| {
            matches!(
                error,
                ConfigError::Zero {
                    field: "classes",
                    ..
                }
            )
        },
        "classes has a size of 0 bytes: no buffer is that small; use sizes of 1 or more",
    );
}

#[test]
fn a_size_above_the_largest_allocation_is_refused_with_its_value() {
    let (value, most) = (isize::MAX as usize + 1, isize::MAX);
    let shown = match usize::BITS {
        64 => "8 EiB",
        _ => "2 GiB",
    };
    assert_refused(
        Pool::builder().max_size(value),
        |error| matches!(error, ConfigError::TooLarge { field: "max_size", value: v, .. } if *v == value),
        &format!(
            "max_size ({shown}) is above isize::MAX ({most} bytes): no allocation can be that large; lower max_size"
        ),
    );
    assert_refused(
        Pool::builder().min_size(usize::MAX),
        |error| {
            matches!(
                error,
                ConfigError::TooLarge {
                    field: "min_size",
                    value: usize::MAX,
                    ..
                }
            )
        },
        &format!(
            "min_size ({} bytes) is above isize::MAX ({most} bytes): no allocation can be that large; lower min_size",
            usize::MAX
        ),
    );
    assert_refused(
        Pool::builder().classes([1, value]),
        |error| matches!(error, ConfigError::TooLarge { field: "classes", value: v, .. } if *v == value),
        &format!(
            "classes ({shown}) is above isize::MAX ({most} bytes): no allocation can be that large; lower classes"
        ),
    );
}

#[test]
fn a_maximum_below_the_minimum_is_refused_with_both() {
    assert_refused(
        Pool::builder().min_size(4096).max_size(4095),
        |error| {
            matches!(
                error,
                ConfigError::MaxBelowMin {
                    min: 4096,
                    max: 4095,
                    ..
                }
            )
        },
        "max_size (4095 bytes) is below min_size (4 KiB): there would be no size class; raise max_size or lower min_size",
    );
}

#[test]
fn an_empty_list_is_refused() {
    assert_refused(
        Pool::builder().classes([]),
        |error| matches!(error, ConfigError::NoClasses),
        "classes is empty: a pool has at least 1 size class; name one, or leave out classes",
    );
}

#[test]
fn a_list_that_does_not_ascend_is_refused_with_the_place() {
    assert_refused(
        Pool::builder().classes([512, 4096, 2048]),
        |error| {
            matches!(
                error,
                ConfigError::NotAscending {
                    index: 2,
                    previous: 4096,
                    value: 2048,
                    ..
                }
            )
        },
        "classes (2 KiB at index 2) is not above the size before it (4 KiB): sizes must ascend; sort the list, and leave out duplicates",
    );
    assert_refused(
        Pool::builder().classes([512, 512]),
        |error| {
            matches!(
                error,
                ConfigError::NotAscending {
                    index: 1,
                    previous: 512,
                    value: 512,
                    ..
                }
            )
        },
        "classes (512 bytes at index 1) is not above the size before it (512 bytes): sizes must ascend; sort the list, and leave out duplicates",
    );
}

#[test]
fn a_list_may_have_at_most_128_classes() {
    let pool = Pool::builder().classes(1..=128).build().unwrap();
    assert_eq!(pool.classes().len(), 128);
    assert_eq!(pool.get(77).capacity(), 77);
    assert_eq!(pool.get(128).capacity(), 128);
    assert_refused(
        Pool::builder().classes(1..=129),
        |error| matches!(error, ConfigError::TooManyClasses { max: 128, .. }),
        "classes has more than 128 sizes: a pool has at most 128 size classes; leave out some, or let SizeClasses::fit choose 128 or fewer",
    );
}

#[test]
fn an_endless_list_is_refused_and_not_walked() {
    assert_refused(
        Pool::builder().classes(1..),
        |error| matches!(error, ConfigError::TooManyClasses { max: 128, .. }),
        "classes has more than 128 sizes: a pool has at most 128 size classes; leave out some, or let SizeClasses::fit choose 128 or fewer",
    );
    assert_refused(
        Pool::builder().classes(std::iter::repeat(0)),
        |error| matches!(error, ConfigError::TooManyClasses { .. }),
        "classes has more than 128 sizes: a pool has at most 128 size classes; leave out some, or let SizeClasses::fit choose 128 or fewer",
    );
}

#[test]
fn a_minimum_or_a_maximum_beside_a_list_is_refused_with_its_value() {
    assert_refused(
        Pool::builder().classes([512]).min_size(256),
        |error| {
            matches!(
                error,
                ConfigError::Conflict {
                    field: "min_size",
                    value: 256,
                    ..
                }
            )
        },
        "min_size (256 bytes) is set beside classes: the list sets all sizes; leave out one of the two",
    );
    assert_refused(
        Pool::builder().max_size(1024).classes([512]),
        |error| {
            matches!(
                error,
                ConfigError::Conflict {
                    field: "max_size",
                    value: 1024,
                    ..
                }
            )
        },
        "max_size (1 KiB) is set beside classes: the list sets all sizes; leave out one of the two",
    );
}

#[test]
fn an_interval_of_0_is_refused() {
    let text = "trim_interval is 0: that is no interval; use more than 0, or use None for no trims by time";
    for background in [false, true] {
        assert_refused(
            Pool::builder()
                .trim_interval(Duration::ZERO)
                .background_trim(background),
            |error| {
                matches!(
                    error,
                    ConfigError::ZeroInterval {
                        field: "trim_interval",
                        ..
                    }
                )
            },
            text,
        );
    }
}

#[test]
fn an_idle_time_of_0_is_refused_by_the_name_of_the_option_that_was_called_last() {
    let zero = Duration::ZERO;
    let idle = "release_when_idle is 0: that is no interval; use more than 0, or leave it out";
    let interval = "trim_interval is 0: that is no interval; use more than 0, or use None for no trims by time";
    for (builder, named, text) in [
        (
            Pool::builder().release_when_idle(zero),
            "release_when_idle",
            idle,
        ),
        (
            Pool::builder().trim_interval(zero).release_when_idle(zero),
            "release_when_idle",
            idle,
        ),
        (
            Pool::builder().release_when_idle(zero).trim_interval(zero),
            "trim_interval",
            interval,
        ),
    ] {
        assert_refused(
            builder,
            |error| matches!(error, ConfigError::ZeroInterval { field, .. } if *field == named),
            text,
        );
    }
    for idle in [Duration::from_nanos(1), Duration::MAX] {
        Pool::builder().release_when_idle(idle).build().unwrap();
    }
    let none = Pool::builder().release_when_idle(Duration::from_secs(1));
    let is = |error: &_| {
        matches!(
            error,
            ConfigError::BackgroundWithoutInterval {
                field: "release_when_idle",
                ..
            }
        )
    };
    let text = "release_when_idle is set, but trim_interval is None: the thread would never trim; \
                set trim_interval, or leave out release_when_idle";
    assert_refused(none.trim_interval(None), is, text);
}

#[test]
fn an_interval_of_0_between_calibrations_is_refused() {
    let text = "calibrate_interval is 0: that is no interval; use more than 0, or use None for no calibrations by time";
    for on in [false, true] {
        assert_refused(
            Pool::builder()
                .calibrate_interval(Duration::ZERO)
                .learn_sizes(on),
            |error| {
                matches!(
                    error,
                    ConfigError::ZeroInterval {
                        field: "calibrate_interval",
                        ..
                    }
                )
            },
            text,
        );
    }
}

#[test]
fn any_interval_above_0_between_calibrations_builds() {
    for interval in [Some(Duration::from_nanos(1)), Some(Duration::MAX), None] {
        let builder = options(&[512]).calibrate_interval(interval);
        drop(builder.build().unwrap().get(1));
    }
}

#[test]
fn a_percentile_that_is_not_from_0_to_1_is_refused_with_its_value() {
    for (percentile, shown) in [
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
        (-0.1, "-0.1"),
        (1.1, "1.1"),
        (95.0, "95"),
        (
            -f64::MIN_POSITIVE / 2.0,
            &(-f64::MIN_POSITIVE / 2.0).to_string(),
        ),
        (1.0 + f64::EPSILON, "1.0000000000000002"),
    ] {
        for on in [false, true] {
            assert_refused(
                Pool::builder()
                    .calibrate_percentile(percentile)
                    .learn_sizes(on),
                |error| matches!(error, ConfigError::Percentile { value, .. } if value == shown),
                &format!(
                    "calibrate_percentile ({shown}) is not from 0 to 1: it is a share of the returns; use 0.95 for 95 of 100"
                ),
            );
        }
    }
}

#[test]
fn a_percentile_from_0_to_1_builds() {
    for percentile in [0.0, -0.0, f64::MIN_POSITIVE, 0.5, 1.0 - f64::EPSILON, 1.0] {
        let builder = options(&[512]).calibrate_percentile(percentile);
        let pool = builder.build().unwrap();
        drop(pool.get(1));
        assert_eq!(pool.recalibrate().max_size, 64);
    }
}

#[test]
fn any_number_of_returns_to_calibrate_after_builds() {
    for calls in [0, 1, u64::MAX] {
        let pool = options(&[512]).calibrate_after(calls).build().unwrap();
        drop((pool.get(1), pool.get(1)));
        assert_eq!(pool.stats().calibrations > 0, calls < 2, "{calls}");
    }
}

#[test]
fn a_thread_that_trims_without_an_interval_is_refused() {
    let text = "background_trim is set, but trim_interval is None: the thread would never trim; \
                set trim_interval, or leave out background_trim";
    for builder in [
        Pool::builder().trim_interval(None).background_trim(true),
        Pool::builder().background_trim(true).trim_interval(None),
        Pool::builder()
            .release_when_idle(Duration::from_secs(1))
            .background_trim(true)
            .trim_interval(None),
    ] {
        assert_refused(
            builder,
            |error| {
                matches!(
                    error,
                    ConfigError::BackgroundWithoutInterval {
                        field: "background_trim",
                        ..
                    }
                )
            },
            text,
        );
    }
}

#[test]
fn any_interval_above_0_builds_with_and_without_a_thread_that_trims() {
    for interval in [Duration::from_nanos(1), Duration::MAX] {
        for background in [false, true] {
            let pool = Pool::builder()
                .trim_interval(interval)
                .background_trim(background)
                .build()
                .unwrap();
            drop(pool.get(1));
            assert_eq!(total(&pool).outstanding, 0);
        }
    }
    // As for every option, the last call counts.
    let builder = Pool::builder().background_trim(true).background_trim(false);
    builder.trim_interval(None).build().unwrap();
}

#[test]
fn an_error_is_an_error_that_can_be_boxed_sent_and_compared() {
    let error = refusal(Pool::builder().min_size(0));
    assert_eq!(error, refusal(Pool::builder().min_size(0)));
    assert_ne!(error, refusal(Pool::builder().max_size(0)));
    let boxed: Box<dyn std::error::Error + Send + Sync + 'static> = Box::new(error);
    assert!(boxed.to_string().starts_with("min_size"));
}

#[test]
fn an_unset_limit_adapts_to_a_set_one() {
    let pool = Pool::builder().max_size(100).build().unwrap();
    assert_eq!(pool.classes(), [100]);
    let pool = Pool::builder().min_size(3 << 20).build().unwrap();
    assert_eq!(pool.classes(), [3 << 20]);
}

#[test]
fn the_default_classes_double_from_512_bytes_to_1_mib() {
    let doubling: Vec<usize> = (9..=20).map(|bits| 1 << bits).collect();
    assert_eq!(Pool::default().classes(), doubling);
    assert_eq!(Pool::builder().build().unwrap().classes(), doubling);
}

#[test]
fn the_widest_range_of_classes_builds_and_serves() {
    let pool = Pool::builder()
        .min_size(1)
        .max_size(isize::MAX as usize)
        .build()
        .unwrap();
    assert_eq!(pool.classes().len(), usize::BITS as usize);
    assert_eq!(pool.get(0).capacity(), 1);
    assert_eq!(pool.get(1000).capacity(), 1024);
    drop(pool.get(1 << 20));
    assert_eq!(pool.stats().total.retained_buffers, 3);
}

/// The counts after 150 buffers of 1 MiB were taken and returned twice, and a buffer that is a
/// little longer than its class.
fn after_150_mib(builder: Builder) -> Counts {
    let pool = builder.build().unwrap();
    for _ in 0..2 {
        let held: Vec<PooledBuf> = (0..150).map(|_| pool.get(MIB)).collect();
        drop(held);
    }
    drop(pool.adopt(BytesMut::with_capacity(MIB + 1)));
    assert_accounts_balance(&pool);
    total(&pool)
}

const MIB: usize = 1 << 20;

#[test]
fn the_default_budget_is_64_mib() {
    for builder in [
        options(&[MIB, 2 * MIB]),
        options(&[MIB, 2 * MIB]).retain_bytes(64 * MIB),
    ] {
        let after = after_150_mib(builder);
        assert_eq!(
            (after.retained_buffers, after.discards.full),
            (64, 2 * 86 + 1)
        );
        assert_eq!(after.retained_bytes, 64 * MIB as u64);
    }
}

// Failed once: each of these pools was built, and kept no buffer of its largest class.
#[test]
fn a_budget_below_the_largest_class_is_refused_with_both_and_advice() {
    const LARGE: usize = 1 << 30;
    let text = |largest: &str, budget: &str, raise: &str, lower: &str| {
        format!(
            "{largest} is above retain_bytes ({budget}): a buffer of that class could never be \
             kept; raise retain_bytes to {raise} or more, or {lower}, or set retain_bytes to 0 to \
             keep nothing"
        )
    };
    for (builder, option, set, text) in [
        (
            Pool::builder().retain_bytes(100),
            ("max_size", 1 << 20, true),
            100,
            text(
                "max_size (1 MiB, the default)",
                "100 bytes",
                "1 MiB",
                "lower max_size to 100 bytes or less",
            ),
        ),
        (
            Pool::builder().max_size(LARGE).retain_bytes(LARGE - 1),
            ("max_size", LARGE, false),
            LARGE - 1,
            text(
                "max_size (1 GiB)",
                "1073741823 bytes",
                "1 GiB",
                "lower max_size to 1073741823 bytes or less",
            ),
        ),
        (
            Pool::builder().retain_bytes(1).classes([512, 4096]),
            ("classes", 4096, false),
            1,
            text(
                "the largest of classes (4 KiB)",
                "1 byte",
                "4 KiB",
                "leave out the classes above 1 byte",
            ),
        ),
        (
            Pool::builder().min_size(2 * MIB).retain_bytes(MIB),
            ("min_size", 2 * MIB, false),
            MIB,
            text(
                "min_size (2 MiB)",
                "1 MiB",
                "2 MiB",
                "lower min_size to 1 MiB or less",
            ),
        ),
        (
            // Here the maximum is too large.
            Pool::builder().min_size(MIB).retain_bytes(MIB - 1),
            ("max_size", MIB, true),
            MIB - 1,
            text(
                "max_size (1 MiB, the default)",
                "1048575 bytes",
                "1 MiB",
                "lower max_size to 1048575 bytes or less",
            ),
        ),
    ] {
        assert_refused(
            builder,
            |error| match *error {
                ConfigError::RetainBelowLargest {
                    retain_bytes,
                    field,
                    largest,
                    is_default,
                    ..
                } => retain_bytes == set && (field, largest, is_default) == option,
                _ => false,
            },
            &text,
        );
    }
}

#[test]
fn a_pool_that_builds_keeps_a_buffer_of_each_of_its_classes() {
    let budgets = [
        None,
        Some(1),
        Some(600),
        Some(4096),
        Some(5000),
        Some(2 * MIB),
    ];
    let ladders: [fn(Builder) -> Builder; 6] = [
        |builder| builder,
        |builder| builder.max_size(600),
        |builder| builder.max_size(5000),
        |builder| builder.classes([1]),
        |builder| builder.classes([100, 4096, 2 * MIB]),
        |builder| builder.min_size(2 * MIB),
    ];
    let limits: [fn(Builder) -> Builder; 3] = [
        |builder| builder,
        |builder| builder.max_per_class(1),
        |builder| builder.thread_cache_bytes(0),
    ];
    let mut built = 0;
    for (budget, (ladder, limit)) in budgets.into_iter().flat_map(|budget| {
        let limits = ladders
            .iter()
            .flat_map(|ladder| limits.map(|limit| (ladder, limit)));
        limits.map(move |both| (budget, both))
    }) {
        let mut builder = limit(ladder(Pool::builder().trim_interval(None)));
        if let Some(bytes) = budget {
            builder = builder.retain_bytes(bytes);
        }
        let Ok(pool) = builder.clone().build() else {
            continue;
        };
        built += 1;
        for &capacity in pool.classes() {
            pool.clear();
            drop(pool.get(capacity));
            let counts = class(&pool, capacity);
            assert_eq!(counts.retained_buffers, 1, "of {capacity}: {builder:?}");
        }
    }
    assert_eq!(
        built,
        3 * (6 + 1 + 2 + 2 + 3 + 6),
        "as many fit their budget"
    );
}

#[test]
fn the_default_budget_holds_two_buffers_of_the_largest_class() {
    const LARGE: usize = 40 * MIB;
    for (builder, kept) in [
        (Pool::builder().max_size(LARGE), 2),
        (Pool::builder().min_size(LARGE), 2),
        (Pool::builder().classes([512, LARGE]), 2),
        (Pool::builder().max_size(33 * MIB), 2),
        (Pool::builder().max_size(32 * MIB), 2),
        // At least 64 MiB.
        (Pool::builder().max_size(31 * MIB), 2),
        (Pool::builder().max_size(21 * MIB), 3),
        // An explicit budget is not changed.
        (
            Pool::builder().retain_bytes(2 * LARGE - 1).max_size(LARGE),
            1,
        ),
        (Pool::builder().max_size(LARGE).retain_bytes(LARGE), 1),
        (Pool::builder().max_size(LARGE).retain_bytes(0), 0),
    ] {
        let pool = builder.trim_interval(None).build().unwrap();
        let largest = pool.classes()[pool.classes().len() - 1];
        let held: Vec<PooledBuf> = (0..5).map(|_| pool.get(largest)).collect();
        drop(held);
        let counts = class(&pool, largest);
        assert_eq!(counts.retained_buffers, kept, "of {largest}");
        assert_eq!(counts.discards.full, 5 - kept);
    }
}

#[test]
fn a_budget_of_0_keeps_nothing() {
    for builder in [
        options(&[MIB, 2 * MIB]).retain_bytes(0),
        options(&[MIB, 2 * MIB]).max_per_class(0),
    ] {
        let after = after_150_mib(builder.clone());
        assert_eq!((after.retained_buffers, after.returns), (0, 0));
        assert_eq!((after.misses, after.discards.full), (300, 301));
        let pool = builder.build().unwrap();
        assert_eq!((pool.prefill(MIB, 3), total(&pool).prefilled), (0, 0));
    }
}

#[test]
fn a_budget_of_usize_max_keeps_everything() {
    for builder in [
        options(&[MIB, 2 * MIB]).retain_bytes(usize::MAX),
        options(&[MIB, 2 * MIB])
            .retain_bytes(usize::MAX)
            .max_per_class(usize::MAX)
            .thread_cache_bytes(usize::MAX),
    ] {
        let after = after_150_mib(builder);
        assert_eq!((after.retained_buffers, after.discards.total()), (151, 0));
        assert_eq!((after.misses, after.hits()), (150, 150));
    }
    // No machine has such sizes, but no sum may overflow.
    let pool = Pool::builder()
        .classes([1, isize::MAX as usize])
        .retain_bytes(usize::MAX)
        .build()
        .unwrap();
    drop((pool.get(1), pool.get(1)));
    assert_eq!(total(&pool).retained_buffers, 2);
}

#[test]
fn max_per_class_holds_in_every_class_and_for_all_lengths() {
    let after = after_150_mib(options(&[MIB, 2 * MIB]).max_per_class(7));
    assert_eq!((after.retained_buffers, after.hits()), (7, 7));
    assert_eq!(after.discards.full, 2 * 143 + 1);
}

#[test]
fn a_thread_cache_of_0_bytes_leaves_all_to_the_depot() {
    let served = |bytes| {
        let after = after_150_mib(
            options(&[MIB, 2 * MIB])
                .retain_bytes(usize::MAX)
                .thread_cache_bytes(bytes),
        );
        assert_eq!((after.retained_buffers, after.discards.total()), (151, 0));
        (after.local_hits, after.depot_hits)
    };
    assert_eq!(served(0), (0, 150));
    assert_eq!(served(MIB - 1), (0, 150));
    assert_eq!(served(MIB), (1, 149));
    // It caches at most two buffers of one class, whatever the limit.
    assert_eq!(served(2 * MIB), (2, 148));
    assert_eq!(served(usize::MAX), (2, 148));
}

#[test]
fn a_thread_caches_8_mib_by_default_and_all_classes_with_usize_max() {
    let classes: Vec<usize> = (0..6).map(|less| 2 * MIB - less).rev().collect();
    let local_hits = |builder: Builder| {
        let pool = builder.build().unwrap();
        let all = || -> Vec<PooledBuf> {
            let twice = classes.iter().chain(&classes);
            twice.map(|&capacity| pool.get(capacity)).collect()
        };
        drop(all());
        let held = all();
        assert_eq!((total(&pool).misses, held.len()), (12, 12));
        total(&pool).local_hits
    };
    assert_eq!(local_hits(options(&classes)), 4);
    assert_eq!(local_hits(options(&classes).thread_cache_bytes(8 * MIB)), 4);
    assert_eq!(
        local_hits(options(&classes).thread_cache_bytes(usize::MAX)),
        12
    );
}

#[test]
fn a_share_that_is_none_is_refused_by_name() {
    for (share, text) in [
        (0.0, "0"),
        (-0.05, "-0.05"),
        (1.5, "1.5"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
    ] {
        assert_refused(
            Pool::builder().retain_share(share),
            |error| matches!(error, ConfigError::Share { .. }),
            &format!(
                "retain_share ({text}) is not above 0 and at most 1: it is a share of the memory \
                 limit; use 0.05 for 5 of 100"
            ),
        );
    }
}

#[test]
fn a_share_beside_a_budget_is_refused() {
    assert_refused(
        Pool::builder().retain_bytes(64 << 20).retain_share(0.05),
        |error| {
            matches!(
                error,
                ConfigError::ShareBesideBytes {
                    retain_bytes: 67_108_864,
                    ..
                }
            )
        },
        "retain_share (0.05) is set beside retain_bytes (64 MiB): each sets the budget; leave out \
         one of the two",
    );
}

// A billionth of any limit, or the default budget: both are below what this pool needs.
#[test]
#[cfg_attr(miri, ignore = "reads files of the system")]
fn a_share_gives_way_to_the_largest_class_and_to_what_is_kept_idle() {
    let share = |largest| options(&[largest]).retain_share(1e-9);
    let budget = |builder: Builder| builder.build().unwrap().stats().budget_bytes;
    assert_eq!(budget(share(32 << 20).keep_idle(1, 3)), 96 << 20);
    let largest = budget(share(1 << 30));
    // With a limit, and without one.
    assert!([1 << 30, 2 << 30].contains(&largest), "{largest}");
}
