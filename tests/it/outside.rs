//! Options by serde: what is read, what is refused, and what is written.

use proptest::prelude::*;
use serde_json::json;
use std::mem::discriminant;
use std::time::Duration;
use tierpool::{Builder, ConfigError, Pool};

fn read(value: serde_json::Value) -> Result<Builder, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// The options as they print: a `Builder` cannot be compared.
fn shown(builder: &Builder) -> String {
    format!("{builder:?}")
}

#[track_caller]
fn assert_reads(value: serde_json::Value, expected: Builder) {
    assert_eq!(shown(&read(value).unwrap()), shown(&expected));
}

#[track_caller]
fn assert_refuses(value: serde_json::Value, text: &str) {
    assert_eq!(read(value).unwrap_err(), text);
}

#[test]
fn nothing_named_is_the_defaults() {
    assert_reads(json!({}), Pool::builder());
    assert_eq!(serde_json::to_value(Pool::builder()).unwrap(), json!({}));
}

#[test]
fn each_option_is_read_as_a_number_or_a_text() {
    let expected = Pool::builder()
        .min_size(1024)
        .max_size(256 << 10)
        .retain_bytes(usize::MAX)
        .keep_idle(16 << 10, 100)
        .keep_idle(4096, 10)
        .max_per_class(7)
        .thread_cache_bytes(0)
        .release_when_idle(Duration::from_millis(500))
        .background_trim(false)
        .malloc_trim(false)
        .zero_on_return(true)
        .reuse_initialised(true)
        .compact_below(10)
        .learn_sizes(false)
        .calibrate_after(1000)
        .calibrate_percentile(1.0)
        .calibrate_interval(None);
    assert_reads(
        json!({
            "min_size": 1024,
            "max_size": "256 KiB",
            "retain_bytes": "unlimited",
            "keep_idle": { "16 KiB": "100", "4096": 10 },
            "max_per_class": 7,
            "thread_cache_bytes": 0,
            "malloc_trim": false,
            "background_trim": "false",
            "release_when_idle": 0.5,
            "zero_on_return": true,
            "reuse_initialised": true,
            "compact_below": 10,
            "learn_sizes": false,
            "calibrate_after": 1000,
            "calibrate_percentile": 1,
            "calibrate_interval": "never",
        }),
        expected,
    );
    assert_reads(
        json!({ "classes": [512, "2 KiB"], "retain_share": 0.05, "trim_interval": 2 }),
        Pool::builder()
            .classes([512, 2048])
            .retain_share(0.05)
            .trim_interval(Duration::from_secs(2)),
    );
    assert_reads(
        json!({ "classes": "512, 2 KiB", "keep_idle": "512: 3" }),
        Pool::builder().classes([512, 2048]).keep_idle(512, 3),
    );
    // Not by a nanosecond more, where the format has binary fractions.
    assert_reads(
        json!({ "trim_interval": 0.1 + 0.2 }),
        Pool::builder().trim_interval(Duration::from_millis(300)),
    );
}

#[test]
#[cfg(feature = "limit")]
fn the_limit_on_outstanding_bytes_is_read() {
    assert_reads(
        json!({ "max_outstanding_bytes": "1 MiB" }),
        Pool::builder().max_outstanding_bytes(1 << 20),
    );
    assert_reads(
        json!({ "max_outstanding_bytes": "unlimited" }),
        Pool::builder(),
    );
}

#[test]
fn a_profile_is_read_and_written() {
    let pool = Pool::new();
    pool.get(100).extend_from_slice(b"learned");
    pool.recalibrate();
    let options = Pool::builder().profile(pool.profile());
    let written = serde_json::to_value(&options).unwrap();
    assert_eq!(written, json!({ "profile": pool.profile() }));
    assert_eq!(
        read(written).unwrap().build().unwrap().profile(),
        pool.profile()
    );
    let error = read(json!({ "profile": { "version": 0 } })).unwrap_err();
    assert!(error.starts_with("tierpool profile: version 0"), "{error}");
}

#[test]
fn sizes_that_share_a_class_are_kept_idle_however_many_they_are() {
    let options = (1..=200).fold(Pool::builder(), |options, n| options.keep_idle(n * 16, 1));
    let written = serde_json::to_value(&options).unwrap();
    let list: Vec<_> = (1..=200).map(|n| format!("{}: 1", n * 16)).collect();
    for value in [written, json!({ "keep_idle": list.join(", ") })] {
        let pool = read(value).unwrap().build().unwrap();
        assert_eq!(pool.stats().total.retained_buffers, 200);
    }
}

#[test]
fn a_share_that_is_no_number_is_written_and_then_refused_by_name() {
    for (share, text) in [
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
        (-f64::INFINITY, "-inf"),
    ] {
        let options = Pool::builder()
            .retain_share(share)
            .calibrate_percentile(share);
        let written = serde_json::to_value(&options).unwrap();
        assert_eq!(
            written,
            json!({ "retain_share": text, "calibrate_percentile": text })
        );
        let back = read(written).unwrap();
        assert_eq!(shown(&back), shown(&options));
        assert_eq!(back.build().unwrap_err(), options.build().unwrap_err());
    }
}

#[test]
fn a_hook_is_code_and_is_left_out() {
    let hooked = Pool::builder().on_trim(|_| ()).max_size(4096);
    assert_eq!(
        serde_json::to_value(hooked).unwrap(),
        json!({ "max_size": "4 KiB" })
    );
}

#[test]
fn a_value_that_cannot_be_read_is_named_with_what_is_allowed() {
    const SIZE: &str = r#"a size such as 65536, "64 KiB" or "1.5 MiB""#;
    let refusal = |value: &str| format!("max_size ({value:?}) {}; use {SIZE}", "has no known unit");
    assert_refuses(json!({ "max_size": "64 KB" }), &refusal("64 KB"));
    assert_refuses(json!({ "max_size": "1 KiB 2" }), &refusal("1 KiB 2"));
    for value in [json!(-1), json!(true), json!("unlimited")] {
        let text = value.as_str().map_or(value.to_string(), str::to_owned);
        assert_refuses(
            json!({ "max_size": value }),
            &format!("max_size ({text:?}) does not begin with a number; use {SIZE}"),
        );
    }
    assert_refuses(
        json!({ "max_size": 0.5 }),
        &format!("max_size (\"0.5\") has a fraction of the smallest unit; use {SIZE}"),
    );
    for (value, kind) in [
        (json!(null), "null"),
        (json!([1]), "sequence"),
        (json!({}), "map"),
    ] {
        assert_refuses(
            json!({ "max_size": value }),
            &format!("invalid type: {kind}, expected {SIZE} for max_size"),
        );
    }
    assert_refuses(
        json!({ "trim_interval": -1 }),
        "trim_interval (\"-1\") does not begin with a number; use a time such as \"10 s\", \
         \"500 ms\" or \"1.5 min\", or a number of seconds, or \"never\"",
    );
    assert_refuses(
        json!({ "zero_on_return": 1 }),
        "zero_on_return (\"1\") is neither true nor false; use true or false",
    );
    assert_refuses(
        json!({ "classes": [512, "2 KB"] }),
        "classes (\"2 KB\") has no known unit; use sizes such as \"512, 2 KiB, 64 KiB\"",
    );
    assert_refuses(
        json!({ "classes": [512, null] }),
        "invalid type: null, expected a size or a count, in classes or keep_idle",
    );
    assert_refuses(
        json!({ "classes": vec![1; 129] }),
        "classes (\"a list\") has more than 128 entries; use sizes such as \"512, 2 KiB, 64 KiB\"",
    );
    assert_refuses(
        json!({ "keep_idle": { "4 KiB": -1 } }),
        "keep_idle (\"-1\") is no whole number of this range; use sizes and counts such as \
         \"16 KiB: 100, 4 KiB: 10\"",
    );
    assert_refuses(
        json!("64 KiB"),
        "invalid type: string \"64 KiB\", expected the options of a tierpool pool",
    );
}

#[test]
fn a_name_that_is_no_option_is_refused_with_the_names_that_are() {
    for name in ["retain_byte", "MAX_SIZE", "on_trim", ""] {
        let error = read(json!({ name: 1 })).unwrap_err();
        let begin =
            format!("{name:?} is no option of a tierpool pool; use one of min_size, max_size, ");
        assert!(error.starts_with(&begin), "{error}");
        assert!(error.ends_with("calibrate_interval, profile"), "{error}");
    }
    let twice = serde_json::from_str::<Builder>(r#"{"max_size": 1, "max_size": 2}"#);
    let error = twice.unwrap_err().to_string();
    assert!(error.starts_with("duplicate field `max_size`"), "{error}");
}

#[test]
fn build_refuses_what_it_refuses_of_the_program() {
    let refused = |value| read(value).unwrap().build().unwrap_err();
    assert!(matches!(
        refused(json!({ "max_size": "1 KiB", "min_size": "2 KiB" })),
        ConfigError::MaxBelowMin { .. }
    ));
    assert!(matches!(
        refused(json!({ "max_size": 1, "classes": [1] })),
        ConfigError::Conflict {
            field: "max_size",
            ..
        }
    ));
    assert!(matches!(
        refused(json!({ "retain_share": 1.5 })),
        ConfigError::Share { .. }
    ));
    assert!(matches!(
        refused(json!({ "retain_bytes": "64 MiB", "retain_share": 0.5 })),
        ConfigError::ShareBesideBytes { .. }
    ));
}

fn any_time() -> impl Strategy<Value = Duration> {
    prop_oneof![
        any::<u16>().prop_map(|ms| Duration::from_millis(ms.into())),
        any::<Duration>()
    ]
}

fn any_interval() -> impl Strategy<Value = Option<Duration>> {
    proptest::option::of(any_time())
}

/// Options of any kind, valid or not.
fn any_options() -> impl Strategy<Value = Builder> {
    type Set = fn(Builder, usize, Duration) -> Builder;
    const SETS: [Set; 20] = [
        |b, n, _| b.min_size(n),
        |b, n, _| b.max_size(n),
        |b, n, _| b.classes([n, n >> 1]),
        |b, n, _| b.retain_bytes(n),
        |b, n, _| b.retain_share(f64::from(n as u8) / 128.0),
        |b, n, _| b.keep_idle(n, n >> 7),
        |b, n, _| b.keep_idle(4096, n >> 60),
        |b, n, _| b.max_per_class(n),
        |b, n, _| b.thread_cache_bytes(n),
        |b, _, t| b.trim_interval(t),
        |b, _, t| b.release_when_idle(t),
        |b, _, _| b.trim_interval(None),
        |b, n, _| b.background_trim(n % 2 == 0),
        |b, n, _| b.malloc_trim(n % 2 == 0),
        |b, n, _| b.zero_on_return(n % 2 == 0),
        |b, n, _| b.reuse_initialised(n % 2 == 0),
        |b, n, _| b.compact_below(n as u8),
        |b, n, _| b.learn_sizes(n % 2 == 0).calibrate_after(n as u64),
        |b, n, _| b.calibrate_percentile(f64::from(n as u8) / 128.0),
        |b, n, t| b.calibrate_interval(Some(t).filter(|_| n % 2 == 0)),
    ];
    let size = prop_oneof![
        Just(usize::MAX),
        any::<usize>(),
        0_usize..70_000,
        (0..63_u32).prop_map(|n| 1 << n)
    ];
    let set = (0..SETS.len(), size, any_time());
    proptest::collection::vec(set, 0..8).prop_map(|sets| {
        let set = |builder, (at, n, time): (usize, usize, Duration)| SETS[at](builder, n, time);
        sets.into_iter().fold(Pool::builder(), set)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::rounds(512, 8) as u32))]

    #[test]
    fn what_is_written_is_read_back(options in any_options()) {
        let text = serde_json::to_string(&options).unwrap();
        let back: Builder = serde_json::from_str(&text).unwrap();
        // Once more: sizes that are kept idle are then sorted, and equal ones are one.
        prop_assert_eq!(&serde_json::to_string(&back).unwrap(), &text);
        let again: Builder = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(shown(&back), shown(&again));
        // Buffers that are kept idle may be more than the heap of this machine has.
        prop_assume!(!text.contains("keep_idle"));
        let (ours, theirs) = (options.build(), back.build());
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => {
                prop_assert_eq!(ours.classes(), theirs.classes());
                prop_assert_eq!(ours.stats().budget_bytes, theirs.stats().budget_bytes);
            }
            // The option that is named may differ: a shorthand is not written if half of it is overwritten.
            (Err(ours), Err(theirs)) => {
                prop_assert_eq!(discriminant(&ours), discriminant(&theirs));
            }
            (ours, theirs) => prop_assert!(false, "{ours:?}, {theirs:?}"),
        }
    }

    #[test]
    fn times_and_intervals_are_read_back(time in any_time(), interval in any_interval()) {
        let options = Pool::builder().release_when_idle(time).calibrate_interval(interval);
        let text = serde_json::to_string(&options).unwrap();
        let back: Builder = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(shown(&back), shown(&options));
    }
}
